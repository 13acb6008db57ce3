/* Files, or one stream, cut into records without an object per record.
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
 *
 * All calls come from the intake thread, but for wake() and the reading of `bytes_read`.
 */
#ifndef PYTHIA_FILE_SOURCE_H
#define PYTHIA_FILE_SOURCE_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

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

typedef struct {
    int fd;
    uint32_t partition;
    int64_t offset;   /* first byte of the first record that was not appended */
    int64_t appended; /* end of the last one that was; only empty lines lie between the two */
    int64_t limit;    /* a record that begins here or later is left for another run; INT64_MAX: none is */
    int64_t seen;     /* follow: everything before it was read, and no whole record is left in it */
    int64_t handled;  /* an earlier run took what lies before it, of the record at `offset`, for a row */
    int64_t waiting;  /* bytes of the incomplete record at `offset`, when `done`: they are left for another run */
    uint8_t stream;   /* read in order from a pipe or a terminal: no seeking, no going back */
    uint8_t last;     /* no more is read than it holds now */
    uint8_t final;    /* nor will more ever be written to it: what its end cuts stays cut */
    uint8_t done;     /* every record was appended, as far as this run reads it */
    uint8_t shrunk;   /* ends before `seen`, or before `limit`: it had as many bytes when it was given */
    int error;        /* errno of a failed read */
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

/* Put `size` bytes that are in the buffer behind the record's head where pf_map_record finds them. 0, or errno. */
static inline int pf_spill(pf_file_source *files, const uint8_t *bytes, size_t size, int64_t at) {
    while (size) {
        ssize_t written = pwrite(files->spill_fd, bytes, size, (off_t)at);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        bytes += written;
        size -= (size_t)written;
        at += written;
    }
    return 0;
}

typedef struct {
    void *start; /* page aligned */
    size_t bytes;
    const uint8_t *record;
} pf_mapping;

/* Map the record at `begin`, whose middle was let go.  On failure sets file->error or file->shrunk. */
static inline int pf_map_record(pf_file_source *files, pf_file *file, int64_t size, pf_mapping *map) {
    int fd = file->fd;
    int64_t at = file->offset;
    if (file->stream) {
        fd = files->spill_fd;
        at = 0;
        file->error = pf_spill(files, files->buffer + files->begin + files->head_limit,
                               (size_t)(size - files->dropped) - files->head_limit,
                               (int64_t)files->head_limit + files->dropped);
        if (file->error) return -1;
    }
    struct stat facts;
    if (fstat(fd, &facts) != 0) {
        file->error = errno;
        return -1;
    }
    if (facts.st_size < at + size) {
        file->shrunk = 1;
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
    return 0;
}

enum { PF_UNREADABLE = -1 };

/* Not so an empty line, nor a record that was a row of an earlier run as it is, but for a newline. */
static inline int pf_is_row(const pf_file_source *files, const pf_file *file, const uint8_t *record, int64_t size) {
    int64_t handled = file->handled - file->offset;
    if (files->format != PF_FORMAT_LINES) return handled <= 0 || handled != size;
    int64_t before_return = size - (size > 0 && record[size - 1] == '\r');
    return before_return > 0 && (handled <= 0 || (handled != size && handled != before_return));
}

/* Offer the record of `size` bytes at `begin`, whose last `ending` bytes are no payload; `cut`: the file ends in it. */
static inline int pf_append_record(pf_file_source *files, pf_file *file, pf_sink *sink, int64_t size, size_t ending,
                                   uint8_t cut, uint32_t *taken) {
    int64_t header = pf_has_frames(files) ? PF_FRAME_HEADER : 0;
    int64_t payload = size - header - (int64_t)ending;
    if (payload < 0) payload = 0; /* the file ends inside a frame's header */
    pf_mapping map = {.record = files->buffer + files->begin};
    if (files->dropped && pf_map_record(files, file, size, &map) != 0) return PF_UNREADABLE;
    const uint8_t *start = map.record + header;
    int is_row = pf_is_row(files, file, start, payload);
    int result = PF_APPENDED;
    if (is_row) {
        pf_incoming message = {
            .payload = start,
            .size = (size_t)payload,
            .key_size = -1,
            .partition = file->partition,
            .offset = file->offset,
            .next_offset = file->offset + size,
            .timestamp_ms = -1,
            .cut = cut ? PF_CUT : PF_WHOLE,
        };
        if (files->format == PF_FORMAT_RECORDS && !cut) pf_take_record(start, (uint64_t)payload, &message);
        result = sink->append(sink, &message);
    }
    if (map.start) munmap(map.start, map.bytes);
    if (result != PF_APPENDED) return PF_STALLED;
    if (is_row) {
        (*taken)++;
        file->appended = file->offset + size;
    }
    file->offset += size;
    files->begin += (size_t)(size - files->dropped);
    files->scanned = 0;
    files->dropped = 0;
    return PF_APPENDED;
}

/* Make room for one more block behind the bytes that are kept. 0, or errno. */
static inline int pf_file_make_room(pf_file_source *files, const pf_file *file) {
    size_t held = files->end - files->begin;
    if (held > files->head_limit) {
        const uint8_t *head = files->buffer + files->begin;
        size_t limit = files->head_limit;
        if (file->stream) {
            int error = files->dropped ? 0 : pf_spill(files, head, limit, 0);
            if (!error) error = pf_spill(files, head + limit, held - limit, (int64_t)limit + files->dropped);
            if (error) return error;
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
    if (!grown) return ENOMEM;
    files->buffer = grown;
    files->buffer_bytes = larger;
    return 0;
}

/* Read one block: bytes read, 0 at the end, -1 with file->error set, -2 when a stream has nothing yet. */
static inline ssize_t pf_file_read(pf_file_source *files, pf_file *file) {
    file->error = pf_file_make_room(files, file);
    if (file->error) return -1;
    uint8_t *into = files->buffer + files->end;
    ssize_t count;
    do {
        if (file->stream) {
            struct pollfd ready = {.fd = file->fd, .events = POLLIN};
            if (poll(&ready, 1, 0) == 0) return -2;
            count = read(file->fd, into, files->block_bytes);
        } else {
            count = pread(file->fd, into, files->block_bytes, (off_t)pf_file_read_position(files, file));
        }
    } while (count < 0 && errno == EINTR);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -2;
    if (count < 0) {
        file->error = errno;
        return -1;
    }
    files->end += (size_t)count;
    __atomic_fetch_add(&files->bytes_read, (uint64_t)count, __ATOMIC_RELAXED);
    return count;
}

enum { PF_READ_ON = 0, PF_READ_NOTHING = 1, PF_READ_STALLED = 2, PF_READ_FAILED = 3 };

/* Append the current file's records until it has no more for now. */
static int pf_file_cut(pf_file_source *files, pf_file *file, pf_sink *sink, uint32_t max_messages, uint32_t *taken) {
    while (*taken < max_messages) {
        if (file->offset >= file->limit) {
            file->done = 1;
            return PF_READ_NOTHING;
        }
        int64_t size = pf_record_bytes(files);
        if (size) {
            if (files->pace.factor > 0 && !files->dropped &&
                pf_pace_waits(&files->pace, files->buffer + files->begin + PF_FRAME_HEADER, size, pf_now_us()))
                return PF_READ_NOTHING;
            size_t ending = files->format == PF_FORMAT_LINES;
            int result = pf_append_record(files, file, sink, size, ending, 0, taken);
            if (result == PF_STALLED) return PF_READ_STALLED;
            if (result == PF_UNREADABLE) return file->error ? PF_READ_FAILED : PF_READ_NOTHING;
            continue;
        }
        ssize_t count = pf_file_read(files, file);
        if (count > 0) continue;
        if (count == -2) return PF_READ_NOTHING;
        if (count < 0) return PF_READ_FAILED;
        file->seen = pf_file_read_position(files, file);
        if (!file->stream) {
            struct stat facts;
            if (fstat(file->fd, &facts) != 0) {
                file->error = errno;
                return PF_READ_FAILED;
            }
            if (facts.st_size < file->seen || (file->limit != INT64_MAX && facts.st_size < file->limit)) {
                file->shrunk = 1;
                return PF_READ_NOTHING;
            }
        }
        if (!file->last) return PF_READ_NOTHING;
        int64_t rest = file->seen - file->offset;
        int may_wait = files->format != PF_FORMAT_LINES && !file->final;
        if (rest && may_wait) {
            file->waiting = rest;
        } else if (rest) {
            int result = pf_append_record(files, file, sink, rest, 0, files->format != PF_FORMAT_LINES, taken);
            if (result == PF_STALLED) return PF_READ_STALLED;
            if (result == PF_UNREADABLE) return file->error ? PF_READ_FAILED : PF_READ_NOTHING;
        }
        file->done = 1;
        return PF_READ_NOTHING;
    }
    return PF_READ_ON;
}

/* Whether a file may hold bytes that were not looked at. */
static int pf_file_has_news(pf_file_source *files, pf_file *file) {
    if (file->done || file->shrunk || file->error) return 0;
    if (file->stream || file->last || file->seen < 0) return 1;
    struct stat facts;
    files->looks++;
    if (fstat(file->fd, &facts) != 0) {
        file->error = errno;
        return 1;
    }
    if (facts.st_size < file->seen) file->shrunk = 1;
    return facts.st_size > file->seen;
}

/* What a look at all files found. */
typedef struct {
    uint32_t taken;
    uint32_t unfinished;
    int stream_fd;
    uint8_t attend;
} pf_file_look;

/* The current file first: its bytes are in the buffer, and order within it is kept. PF_SOURCE_MORE, unless the sink
 * has no room or a file cannot be read. */
static int pf_file_look_at_all(pf_file_source *files, pf_sink *sink, uint32_t max_messages, pf_file_look *look) {
    uint32_t first = files->current >= 0 ? (uint32_t)files->current : 0;
    *look = (pf_file_look){.stream_fd = -1};
    for (uint32_t step = 0; step < files->n_files && look->taken < max_messages; step++) {
        uint32_t index = (first + step) % files->n_files;
        pf_file *file = &files->files[index];
        if (file->done) continue;
        if (files->current == (int32_t)index || pf_file_has_news(files, file)) {
            if (files->current != (int32_t)index) {
                pf_file_forget_buffer(files);
                files->current = (int32_t)index;
            }
            int result = pf_file_cut(files, file, sink, max_messages, &look->taken);
            if (result == PF_READ_STALLED) return PF_SOURCE_STALLED;
            if (result == PF_READ_FAILED) return PF_SOURCE_FAILED;
            if (file->done) pf_file_forget_buffer(files);
        }
        if (file->error) return PF_SOURCE_FAILED;
        if (file->stream) look->stream_fd = file->fd;
        look->attend |= file->shrunk;
        look->unfinished += !file->done;
    }
    return PF_SOURCE_MORE;
}

/* Whether serve() is to look after the files again, after `interval_us`, or longer where there are many. */
static inline int pf_file_attend(const pf_file_source *files, int64_t now_us, int64_t interval_us) {
    int64_t many_us = (int64_t)(files->n_files / PF_FILES_A_LOOK) * PF_ATTEND_IDLE_US;
    return files->follow && now_us - files->attended_us >= (many_us > interval_us ? many_us : interval_us);
}

static int pf_file_poll(pf_source *source, pf_sink *sink, uint32_t max_messages, int64_t timeout_us) {
    pf_file_source *files = (pf_file_source *)source;
    int64_t deadline_us = 0;
    if (pf_file_attend(files, pf_now_us(), PF_ATTEND_BUSY_US)) return PF_SOURCE_CALL;
    for (;;) {
        pf_file_look look = {.unfinished = 1, .stream_fd = -1};
        if (pf_now_us() >= files->next_look_us) {
            int result = pf_file_look_at_all(files, sink, max_messages, &look);
            if (result != PF_SOURCE_MORE) return result;
            if (look.taken) {
                files->tail_wait_us = PF_TAIL_WAIT_MIN_US;
                return PF_SOURCE_MORE;
            }
            uint32_t many = files->n_files / PF_FILES_A_LOOK;
            if (files->follow && many && files->pace.factor == 0)
                files->next_look_us = pf_now_us() + files->tail_wait_us * many;
        }
        if (!look.unfinished && files->exhausted) return PF_SOURCE_END;
        if (!look.unfinished && !files->follow) return PF_SOURCE_CALL;
        int64_t now_us = pf_now_us();
        if (look.attend || pf_file_attend(files, now_us, PF_ATTEND_IDLE_US)) return PF_SOURCE_CALL;
        if (!deadline_us) deadline_us = now_us + timeout_us;
        int64_t wait_us = deadline_us - now_us;
        if (wait_us <= 0) return PF_SOURCE_IDLE;
        int64_t pause_us = files->next_look_us > now_us ? files->next_look_us - now_us : files->tail_wait_us;
        if (look.stream_fd < 0 && wait_us > pause_us) wait_us = pause_us;
        if (files->pace.due_us > now_us && wait_us > files->pace.due_us - now_us) wait_us = files->pace.due_us - now_us;
        if (pf_wake_wait(&files->wake, look.stream_fd, wait_us)) return PF_SOURCE_IDLE;
        if (files->tail_wait_us < PF_TAIL_WAIT_MAX_US) files->tail_wait_us *= 2;
    }
}

static void pf_file_wake(pf_source *source) { pf_wake_signal(&((pf_file_source *)source)->wake); }

static inline void pf_file_set_calls(pf_file_source *files) {
    files->source.poll = pf_file_poll;
    files->source.wake = pf_file_wake;
}

#endif
