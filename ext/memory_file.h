/* What the arena asks of the operating system: memory without a name, copies of it, and an end with its parent. */
#ifndef PYTHIA_MEMORY_FILE_H
#define PYTHIA_MEMORY_FILE_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __linux__
#include <signal.h>
#include <sys/prctl.h>

static int pf_memory_file(void) { return memfd_create("pythia-arena", MFD_CLOEXEC); }

static int pf_die_with_parent(void) { return prctl(PR_SET_PDEATHSIG, SIGKILL); }

/* Have pages of our own stand where others are, in one step: a thread that reads there meanwhile sees the bytes of either.
 * 0, or -1 and errno, with nothing moved. */
static int pf_move_pages(uint8_t *from, uint8_t *to, size_t size) {
    return mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED ? -1 : 0;
}
#else
/* No anonymous memory file: one in the temporary folder that has lost its name at once. */
static int pf_memory_file(void) {
    char path[] = "/tmp/pythia-arena-XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0) unlink(path);
    return fd;
}

static int pf_die_with_parent(void) { return 0; }

/* In two steps: a thread that reads there between them sees zeros. */
static int pf_move_pages(uint8_t *from, uint8_t *to, size_t size) {
    if (mmap(to, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) return -1;
    memcpy(to, from, size);
    munmap(from, size);
    return 0;
}
#endif

/* Bytes begin .. end of the slot at `slot_at` of the file, from a mapping of it to a copy; what was never written is
 * left out, because reading it would make the kernel give it memory. */
static void pf_copy_written(int fd, uint64_t slot_at, uint64_t begin, uint64_t end, uint8_t *to, const uint8_t *from) {
#ifdef SEEK_DATA
    const off_t last = (off_t)(slot_at + end);
    off_t at = lseek(fd, (off_t)(slot_at + begin), SEEK_DATA);
    if (at >= 0 || errno == ENXIO) {
        while (at >= 0 && at < last) {
            off_t hole = lseek(fd, at, SEEK_HOLE);
            if (hole < 0 || hole > last) hole = last;
            memcpy(to + ((uint64_t)at - slot_at), from + ((uint64_t)at - slot_at), (size_t)(hole - at));
            at = hole < last ? lseek(fd, hole, SEEK_DATA) : last;
        }
        return;
    }
#endif
    memcpy(to + begin, from + begin, end - begin);
}

#endif
