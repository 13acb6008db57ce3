# The table of librdkafka's functions, shared by the reader and the publisher.
from rdkafka_api cimport pf_rdkafka, rd_kafka_conf_t

cdef const pf_rdkafka *rdkafka() except NULL
cdef rd_kafka_conf_t *configuration(dict options) except NULL
