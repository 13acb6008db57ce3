/* Frames in a file: payload size u32 little endian, payload. */
#ifndef PYTHIA_FILE_FRAMES_H
#define PYTHIA_FILE_FRAMES_H

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

enum { PF_FRAME_HEADER = 4 };

/* Bytes of a frame, header and all. */
static inline int64_t pf_frame_bytes(const uint8_t *header) {
    return PF_FRAME_HEADER + (int64_t)((uint32_t)header[0] | (uint32_t)header[1] << 8 | (uint32_t)header[2] << 16 |
                                       (uint32_t)header[3] << 24);
}

/* Where the last whole frame of a file of `size` bytes ends, or -errno. */
static inline int64_t pf_frames_end(int fd, int64_t size) {
    uint8_t block[1 << 16];
    int64_t at = 0, begin = 0, held = 0;
    while (size - at >= PF_FRAME_HEADER) {
        if (at + PF_FRAME_HEADER > begin + held) {
            do held = pread(fd, block, sizeof block, (off_t)at);
            while (held < 0 && errno == EINTR);
            if (held < 0) return -errno;
            if (held < PF_FRAME_HEADER) break; /* it shrank */
            begin = at;
        }
        int64_t frame = pf_frame_bytes(block + (at - begin));
        if (frame > size - at) break;
        at += frame;
    }
    return at;
}

#endif
