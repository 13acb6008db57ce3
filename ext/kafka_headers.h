/* Whether a Kafka message has headers, told from the bytes around its value.
 *
 * rd_kafka_message_headers() allocates a reader for every message that is asked about, headers or none: a seventh of
 * what reading an order costs (docs/decisions/kafka-reader.md).  So the reader looks first.
 *
 * What is relied on: librdkafka 2 hands a value out where it lies in the fetched response or, for a compressed batch,
 * in the buffer that the whole batch was decompressed into (rdkafka_msgset_reader.c: the value is a pointer of the read
 * buffer, kept alive by the message).  The bytes around it are therefore those of its record:
 *
 *   format 2:     ... key, value size (zigzag varint), VALUE, number of headers (varint), headers
 *   formats 0, 1: ... key, value size (int32, big endian), VALUE
 *
 * Before the value.  At most five bytes are read, and every format has more than that in front: the varint itself and a
 * record's length, attributes, deltas and key size (5 bytes or more); or the 4 bytes of the size and the 4 of the key's.
 *
 * Which format.  The bytes in front are compared with the shortest varint of the size, of n bytes: all but the last have
 * the top bit, and for n = 1 the one byte is twice the size.  A big-endian size never looks so.  n = 1: its last byte is
 * the size itself, and 2 * size == size only for 0, so an empty value is left to librdkafka, as is a null one.  n = 2 to
 * 4: the first of the n bytes, size >> 8(n - 1), would need the top bit, so size >= 2^(8n - 1), while n bytes of varint
 * end at size < 2^(7n - 1).  n = 5: the second of the five is size >> 24 and would need it, so size >= 2^31.  A size that
 * was written as a longer varint than necessary does not compare equal either: librdkafka is asked.
 *
 * Behind the value.  The byte there is read only after the comparison, so only in format 2, where librdkafka has made
 * sure that the whole record is in the buffer before it made a message of it, and a record goes on behind its value with
 * at least the one byte of the number of headers.  Zero is a varint of one byte; anything else is left to librdkafka.
 */
#ifndef PYTHIA_KAFKA_HEADERS_H
#define PYTHIA_KAFKA_HEADERS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 1: surely none; 0: ask librdkafka. `value` lies in the record it came in, or is NULL. */
static inline int pf_kafka_surely_has_no_headers(const uint8_t *value, size_t size)
{
    if (value == NULL || size == 0)
        return 0;
    uint8_t varint[10];
    size_t n = 0;
    for (uint64_t rest = (uint64_t)size << 1; n == 0 || rest != 0; rest >>= 7)
        varint[n++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    return memcmp(value - n, varint, n) == 0 && value[size] == 0;
}

#endif
