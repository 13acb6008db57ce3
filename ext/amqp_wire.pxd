# The public parts of amqp_stream.h and of the parser that it uses.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "amqp_stream.h" nogil:
    enum:
        PF_AMQP_IN_BYTES
        PF_AMQP_SOUND
        PF_AMQP_NO_AMQP
        PF_AMQP_OTHER_VERSION
        PF_AMQP_FRAME_TOO_LARGE
        PF_AMQP_NO_FRAME_END
        PF_AMQP_BAD_METHOD
        PF_AMQP_BAD_HEADER
        PF_AMQP_BODY_TOO_LONG
        PF_AMQP_UNEXPECTED
        PF_AMQP_NO_MEMORY
        PF_AMQP_MORE
        PF_AMQP_TAKEN
        PF_AMQP_DELIVERED
        PF_AMQP_RETURNED
        PF_AMQP_CONFIRMED
        PF_AMQP_OTHER
        PF_AMQP_BROKEN

    ctypedef struct pf_amqp_text:
        uint8_t *bytes
        size_t size
        size_t room
        int failed

    ctypedef struct pf_amqp_content:
        uint64_t tag
        const uint8_t *body
        uint64_t body_size, kept
        int64_t timestamp_ms, deliveries
        uint16_t reply_code
        uint8_t redelivered, multiple, refused, key_size, reply_size
        uint8_t key[255]
        uint8_t reply[255]

    ctypedef struct pf_amqp_parser:
        uint16_t channel
        uint32_t frame_most
        int error
        pf_amqp_content content
        pf_amqp_text headers

    void pf_amqp_init(pf_amqp_parser *parser, uint64_t kept_most, uint64_t kept_head)
    void pf_amqp_free(pf_amqp_parser *parser)
    int pf_amqp_next(pf_amqp_parser *parser, const uint8_t *bytes, size_t size, size_t *used)
    void pf_amqp_put(pf_amqp_text *out, const void *bytes, size_t size)

    ctypedef struct pf_amqp_stream:
        int fd, tls, tls_more, ended, error
        pf_amqp_parser parser
        uint8_t *in_ "in"
        size_t in_at, in_size
        pf_amqp_text out
        size_t out_at
        uint64_t received
        const uint8_t *other
        size_t other_size

    int pf_amqp_stream_init(pf_amqp_stream *stream, uint64_t kept_most, uint64_t kept_head)
    void pf_amqp_stream_free(pf_amqp_stream *stream)
    void pf_amqp_stream_open(pf_amqp_stream *stream, int fd, int tls)
    void pf_amqp_stream_close(pf_amqp_stream *stream)
    size_t pf_amqp_stream_unsent(const pf_amqp_stream *stream)
    size_t pf_amqp_stream_read(pf_amqp_stream *stream)
    void pf_amqp_stream_compact(pf_amqp_stream *stream)
    void pf_amqp_stream_came(pf_amqp_stream *stream, size_t size)
    void pf_amqp_stream_went(pf_amqp_stream *stream, size_t size)
    void pf_amqp_stream_flush(pf_amqp_stream *stream)
    int pf_amqp_stream_next(pf_amqp_stream *stream)
