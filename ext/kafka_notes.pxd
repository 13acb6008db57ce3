# What librdkafka told; taken and turned into Python values by librdkafka.pyx.
from rdkafka_api cimport pf_rdkafka, rd_kafka_topic_partition_list_t

cdef extern from "kafka_notes.h" nogil:
    enum:
        PF_NOTE_ASSIGN
        PF_NOTE_REVOKE
        PF_NOTE_ERROR
        PF_NOTE_CONSUMER_ERROR
        PF_NOTE_LOG
        PF_NOTE_COMMIT_FAILED
        PF_NOTE_STATISTICS
        PF_NOTE_WENT_BACK
    ctypedef struct pf_kafka_note:
        pf_kafka_note *next
        int kind
        int err
        char *text
        rd_kafka_topic_partition_list_t *partitions
    ctypedef struct pf_kafka_notes:
        pass
    pf_kafka_note *pf_kafka_notes_take(pf_kafka_notes *notes)
    void pf_kafka_note_free(const pf_rdkafka *api, pf_kafka_note *note)
