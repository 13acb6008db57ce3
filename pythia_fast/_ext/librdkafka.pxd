# The table of librdkafka's functions, and what the reader and the publisher do with it alike.
from kafka_notes cimport pf_kafka_notes
from rdkafka_api cimport pf_rdkafka, rd_kafka_conf_t

cdef const pf_rdkafka *rdkafka() except NULL
cdef void *rdkafka_library() except NULL
cdef rd_kafka_conf_t *configuration(dict options) except NULL
cdef list notes_of(pf_kafka_notes *notes, const pf_rdkafka *api)
