/* CRC-32 as in ISO 3309 and zlib, which RabbitMQ's chunks carry: eight bytes a step, out of eight tables. */
#ifndef PYTHIA_CRC32_H
#define PYTHIA_CRC32_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t of[8][256];
} pf_crc32;

static inline void pf_crc32_init(pf_crc32 *tables) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        tables->of[0][byte] = crc;
    }
    for (int step = 1; step < 8; step++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = tables->of[step - 1][byte];
            tables->of[step][byte] = before >> 8 ^ tables->of[0][before & 0xff];
        }
}

static inline uint32_t pf_crc32_of(const pf_crc32 *tables, const uint8_t *bytes, size_t size) {
    const uint32_t (*of)[256] = tables->of;
    uint32_t crc = 0xFFFFFFFFu;
    for (; size >= 8; bytes += 8, size -= 8) {
        /* byte by byte: the same on every byte order; compilers make one load of it */
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                              (uint32_t)bytes[3] << 24);
        crc = of[7][low & 0xff] ^ of[6][low >> 8 & 0xff] ^ of[5][low >> 16 & 0xff] ^ of[4][low >> 24] ^
              of[3][bytes[4]] ^ of[2][bytes[5]] ^ of[1][bytes[6]] ^ of[0][bytes[7]];
    }
    for (; size > 0; bytes++, size--) crc = crc >> 8 ^ of[0][(crc ^ *bytes) & 0xff];
    return crc ^ 0xFFFFFFFFu;
}

#endif
