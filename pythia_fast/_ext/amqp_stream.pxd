# A connection's bytes, as the reader, the publisher and the client library share them.
from amqp_wire cimport pf_amqp_stream

cdef class AmqpStream:
    cdef pf_amqp_stream *stream  # inside of the owner's struct
    cdef object owner            # keeps it alive
    cdef object _broke(self, error)
