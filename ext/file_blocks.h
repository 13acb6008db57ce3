/* What is held in memory of files, or of one stream, that are cut into records (file_source.h).
 *
 * One buffer serves all files.  It holds the unread bytes of the current one:
 *
 *     buffer   ....[ kept head of the record | bytes read but not cut yet ]....
 *                  ^ begin = file.offset                                  ^ end
 *
 * Of a record longer than `head_limit` only the head stays in the buffer; `dropped` counts the bytes
 * behind it that were read and let go.  Once its end is found the whole record is mapped: from its own
 * file, or, for a stream, from the spill file that took what was let go.  So memory is bounded by
 * head_limit + block_bytes, and the sink still sees every byte.
 */
#ifndef PYTHIA_FILE_BLOCKS_H
#define PYTHIA_FILE_BLOCKS_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "arena_layout.h"
#include "file_records.h"
#include "source.h"
#include "wake.h"

enum {
    PF_FORMAT_LINES = 0,  /* records end with \n; empty lines (\n, \r\n) are no records */
    PF_FORMAT_FRAMES = 1, /* payload size u32 little endian, payload */
    PF_FORMAT_FIXED = 2,  /* record_bytes each */
    PF_FORMAT_RECORDS = 3, /* as frames, each a framed record: payload, key, headers, timestamp */
};

/* A file that is followed is looked at after 10 ms without news, then less often; serve() looks for rotated and
 * new files every 100 ms while nothing comes, every second while something does. */
enum { PF_TAIL_WAIT_MIN_US = 10000, PF_TAIL_WAIT_MAX_US = 100000 };
enum { PF_ATTEND_IDLE_US = 100000, PF_ATTEND_BUSY_US = 1000000 };

/* Both is for so many files. Of k times as many each is looked at k times as seldom, so that no number of them keeps a
 * core busy with looking. */
enum { PF_FILES_A_LOOK = 300 };

/* Read of one file before the intake looks around and another file has its turn, rows or not: some milliseconds. */
enum { PF_TURN_BYTES = 16 << 20 };

/* Of the bytes read last, so many are kept to see that the next ones belong behind them. */
enum { PF_KNOWN_BYTES = 256 };

enum {
    PF_SHORTER = 1, /* it ends before `seen`, or before `limit`: it had as many bytes when it was given */
    PF_ANEW = 2,    /* bytes that were read have changed: it was truncated and is longer again, or was written over */
};

/* Kept of a stream's record: as much as the largest payload that is kept whole takes with its frame or line end. */
enum { PF_SPILLED_MOST = PF_SPOOLED_MOST + PF_FRAME_HEADER + 1 };

typedef struct {
    int fd;
    uint32_t partition;
    int64_t offset;   /* first byte of the first record that was not appended */
    int64_t appended; /* end of the last one that was; only empty lines lie between the two */
    int64_t limit;    /* a record that begins here or later is left for another run; INT64_MAX: none is */
    int64_t seen;     /* follow: everything before it was read, and no whole record is left in it */
    int64_t handled;  /* an earlier run took what lies before it, of the record at `offset`, for a row */
    int64_t let_go;   /* `dropped` of the record at `offset`, when another file took the buffer meanwhile */
    int64_t waiting;  /* bytes of the incomplete record at `offset`, when `done`: they are left for another run */
    uint8_t stream;   /* read in order from a pipe or a terminal: no seeking, no going back */
    uint8_t last;     /* no more is read than it holds now */
    uint8_t final;    /* nor will more ever be written to it: what its end cuts stays cut */
    uint8_t done;     /* every record was appended, as far as this run reads it */
    uint8_t shrunk;   /* PF_SHORTER or PF_ANEW: nothing more is read of it */
    int error;        /* errno of a failed read */
    int64_t known_end; /* where the bytes end that were read last */
    uint32_t known_bytes;
    uint8_t known[PF_KNOWN_BYTES];
} pf_file;

typedef struct {
    pf_source source; /* first: poll() and wake() get the struct back from it */
    pf_wake_pipe wake;
    pf_file *files;
    uint32_t n_files, files_capacity;
    int32_t current;       /* file whose bytes are in the buffer; -1: none */
    uint8_t *buffer;
    size_t buffer_bytes;
    size_t block_bytes;    /* of one read() */
    size_t head_limit;     /* bytes kept of one record */
    size_t begin, end;     /* bytes of the current file */
    size_t scanned;        /* of them, known to hold no line end */
    int64_t dropped;
    int spill_fd;          /* an unnamed file for what is let go of a stream's record; -1: no stream */
    uint32_t record_bytes;
    uint8_t format;
    uint8_t follow;
    uint8_t exhausted;     /* no file will be added */
    uint8_t yields;        /* the current file has had its turn: the others are looked at before it */
    int spill_errno;       /* of the last pf_spill; 0: it went well */
    int64_t tail_wait_us;
    int64_t next_look_us;  /* many files: until then nothing new is looked for */
    int64_t attended_us;   /* when serve() looked after the files last */
    uint64_t looks;        /* times a file was asked how long it is now */
    uint64_t bytes_read;
    pf_pace pace;          /* of records; no other format has one */
} pf_file_source;

static inline int64_t pf_now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline int pf_has_frames(const pf_file_source *files) {
    return files->format == PF_FORMAT_FRAMES || files->format == PF_FORMAT_RECORDS;
}

static inline void pf_file_forget_buffer(pf_file_source *files) {
    if (files->current >= 0) files->files[files->current].let_go = files->dropped;
    files->current = -1;
    files->begin = files->end = files->scanned = 0;
    files->dropped = 0;
}

/* Position in the file of the next byte to read. */
static inline int64_t pf_file_read_position(const pf_file_source *files, const pf_file *file) {
    return file->offset + (int64_t)(files->end - files->begin) + files->dropped;
}

/* Bytes of the record that starts at `begin`, head and all, or 0 when more must be read to know. */
static inline int64_t pf_record_bytes(pf_file_source *files) {
    size_t held = files->end - files->begin;
    if (held == 0) return 0; /* before the first read there is no buffer, and to a null pointer nothing may be added */
    const uint8_t *start = files->buffer + files->begin;
    if (files->format == PF_FORMAT_LINES) {
        if (held == files->scanned) return 0;
        const uint8_t *end = memchr(start + files->scanned, '\n', held - files->scanned);
        if (end) return (end - start) + 1 + files->dropped;
        files->scanned = held;
        return 0;
    }
    int64_t size = files->record_bytes;
    if (pf_has_frames(files)) {
        if (held < PF_FRAME_HEADER) return 0;
        size = pf_frame_bytes(start);
    }
    return (int64_t)held + files->dropped >= size ? size : 0;
}

/* Put `size` bytes that are in the buffer behind the record's head where pf_map_record finds them. 0, or -1 with
 * files->spill_errno set: then nothing has changed, and it may be tried again.  What no dead letter can hold is not
 * kept: only the beginning of such a payload is (intake.h).  Among framed records a key may stand before that. */
static inline int pf_spill(pf_file_source *files, const uint8_t *bytes, size_t size, int64_t at) {
    int64_t most = files->format == PF_FORMAT_RECORDS ? INT64_MAX : PF_SPILLED_MOST;
    files->spill_errno = 0;
    if (at >= most) return 0;
    if ((int64_t)size > most - at) size = (size_t)(most - at);
    while (size) {
        ssize_t written = pwrite(files->spill_fd, bytes, size, (off_t)at);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) {
            files->spill_errno = errno;
            return -1;
        }
        bytes += written;
        size -= (size_t)written;
        at += written;
    }
    return 0;
}

/* As pf_spill, of the last bytes of a record of `size`: the spill file is as long then, with a hole for what is not
 * kept, so that all of it may be looked at. */
static inline int pf_spill_rest(pf_file_source *files, int64_t size) {
    if (pf_spill(files, files->buffer + files->begin + files->head_limit,
                 (size_t)(size - files->dropped) - files->head_limit, (int64_t)files->head_limit + files->dropped) != 0)
        return -1;
    struct stat facts;
    if (fstat(files->spill_fd, &facts) == 0 && facts.st_size >= size) return 0;
    if (ftruncate(files->spill_fd, (off_t)size) == 0) return 0;
    files->spill_errno = errno;
    return -1;
}

/* Remember the end of the `count` bytes at `bytes`, which were read at `at`. */
static inline void pf_file_know(pf_file *file, const uint8_t *bytes, size_t count, int64_t at) {
    size_t kept = 0;
    if (count < PF_KNOWN_BYTES && at == file->known_end) {
        kept = PF_KNOWN_BYTES - count < file->known_bytes ? PF_KNOWN_BYTES - count : file->known_bytes;
        memmove(file->known, file->known + file->known_bytes - kept, kept);
    }
    size_t taken = count < PF_KNOWN_BYTES ? count : PF_KNOWN_BYTES;
    memcpy(file->known + kept, bytes + count - taken, taken);
    file->known_bytes = (uint32_t)(kept + taken);
    file->known_end = at + (int64_t)count;
}

/* Whether the bytes read last are still what stands there. Asked after a read: what is written anew later than that did
 * not take part in it.  Bytes that are not there any more are found by who looks at the file's size. */
static inline int pf_file_is_known(const pf_file *file) {
    uint8_t now[PF_KNOWN_BYTES];
    ssize_t count;
    do {
        count = pread(file->fd, now, file->known_bytes, (off_t)(file->known_end - (int64_t)file->known_bytes));
    } while (count < 0 && errno == EINTR);
    return count <= 0 || memcmp(now, file->known, (size_t)count) == 0;
}

typedef struct {
    void *start; /* page aligned */
    size_t bytes;
    const uint8_t *record;
} pf_mapping;

/* Map the record at `begin`, whose middle was let go.  On failure sets file->error, file->shrunk or
 * files->spill_errno. */
static inline int pf_map_record(pf_file_source *files, pf_file *file, int64_t size, pf_mapping *map) {
    int fd = file->fd;
    int64_t at = file->offset;
    if (file->stream) {
        fd = files->spill_fd;
        at = 0;
        if (pf_spill_rest(files, size) != 0) return -1;
    }
    struct stat facts;
    if (fstat(fd, &facts) != 0) {
        file->error = errno;
        return -1;
    }
    if (facts.st_size < at + size) {
        file->shrunk = PF_SHORTER;
        return -1;
    }
    size_t into_page = (size_t)at & ((size_t)sysconf(_SC_PAGESIZE) - 1);
    map->bytes = (size_t)size + into_page;
    map->start = mmap(NULL, map->bytes, PROT_READ, MAP_SHARED, fd, (off_t)(at - (int64_t)into_page));
    if (map->start == MAP_FAILED) {
        file->error = errno;
        return -1;
    }
    map->record = (const uint8_t *)map->start + into_page;
    if (file->stream || pf_file_is_known(file)) return 0;
    munmap(map->start, map->bytes);
    map->start = NULL;
    file->shrunk = PF_ANEW;
    return -1;
}

enum { PF_BLOCK_FAILED = -1, PF_BLOCK_LATER = -2, PF_BLOCK_UNSPILLED = -3 };

/* Make room for one more block behind the bytes that are kept. 0, or PF_BLOCK_UNSPILLED, or _FAILED with file->error. */
static inline int pf_file_make_room(pf_file_source *files, pf_file *file) {
    size_t held = files->end - files->begin;
    if (held > files->head_limit) {
        const uint8_t *head = files->buffer + files->begin;
        size_t limit = files->head_limit;
        if (file->stream) {
            int kept = files->dropped ? 0 : pf_spill(files, head, limit, 0);
            if (kept == 0) kept = pf_spill(files, head + limit, held - limit, (int64_t)limit + files->dropped);
            if (kept != 0) return PF_BLOCK_UNSPILLED;
        }
        files->dropped += (int64_t)(held - limit);
        files->end = files->begin + limit;
        held = limit;
    }
    if (files->scanned > held) files->scanned = held;
    if (files->begin) { /* to the front, so that every block is read into the same, cached bytes */
        memmove(files->buffer, files->buffer + files->begin, held);
        files->begin = 0;
        files->end = held;
    }
    if (files->buffer_bytes - held >= files->block_bytes) return 0;
    size_t wanted = held + files->block_bytes;
    size_t most = files->head_limit + files->block_bytes;
    size_t larger = wanted * 2 < most ? wanted * 2 : most;
    uint8_t *grown = realloc(files->buffer, larger);
    if (!grown) {
        file->error = ENOMEM;
        return PF_BLOCK_FAILED;
    }
    files->buffer = grown;
    files->buffer_bytes = larger;
    return 0;
}

/* Read one block: bytes read, 0 at the end, PF_BLOCK_FAILED with file->error set, _LATER when a stream has nothing yet
 * or file->shrunk is set, _UNSPILLED. */
static inline ssize_t pf_file_read(pf_file_source *files, pf_file *file) {
    int room = pf_file_make_room(files, file);
    if (room != 0) return room;
    uint8_t *into = files->buffer + files->end;
    ssize_t count;
    do {
        if (file->stream) {
            struct pollfd ready = {.fd = file->fd, .events = POLLIN};
            if (poll(&ready, 1, 0) == 0) return PF_BLOCK_LATER;
            count = read(file->fd, into, files->block_bytes);
        } else {
            count = pread(file->fd, into, files->block_bytes, (off_t)pf_file_read_position(files, file));
        }
    } while (count < 0 && errno == EINTR);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return PF_BLOCK_LATER;
    if (count < 0) {
        file->error = errno;
        return PF_BLOCK_FAILED;
    }
    if (!file->stream && !pf_file_is_known(file)) {
        file->shrunk = PF_ANEW;
        return PF_BLOCK_LATER;
    }
    if (!file->stream && count) pf_file_know(file, into, (size_t)count, pf_file_read_position(files, file));
    files->end += (size_t)count;
    __atomic_fetch_add(&files->bytes_read, (uint64_t)count, __ATOMIC_RELAXED);
    return count;
}

/* Give the buffer to a file; of a record that it was in the middle of only the head is read again, not what is let go. */
static inline void pf_file_turn_to(pf_file_source *files, uint32_t index) {
    if (files->current == (int32_t)index) return;
    pf_file_forget_buffer(files);
    files->current = (int32_t)index;
    pf_file *file = &files->files[index];
    int64_t dropped = file->let_go;
    file->let_go = 0;
    if (!dropped) return;
    size_t held = 0;
    while (held < files->head_limit) {
        ssize_t count = pread(file->fd, files->buffer + held, files->head_limit - held, (off_t)file->offset + (off_t)held);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return; /* from the record's beginning: then it is found out what is wrong */
        held += (size_t)count;
    }
    files->end = files->scanned = held;
    files->dropped = dropped;
}

#endif
