/* Files, or one stream, cut into records without an object per record: a pf_source over file_blocks.h.
 *
 * All calls come from the intake thread, but for wake() and the reading of `bytes_read`.
 */
#ifndef PYTHIA_FILE_SOURCE_H
#define PYTHIA_FILE_SOURCE_H

#include "file_blocks.h"

enum { PF_UNREADABLE = -1, PF_UNSPILLED = -2 };

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
    files->spill_errno = 0;
    if (files->dropped && pf_map_record(files, file, size, &map) != 0)
        return files->spill_errno ? PF_UNSPILLED : PF_UNREADABLE;
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

enum {
    PF_READ_ON = 0,
    PF_READ_NOTHING = 1,
    PF_READ_STALLED = 2,
    PF_READ_FAILED = 3,
    PF_READ_UNSPILLED = 4,
    PF_READ_TURN = 5, /* much was read: the caller looks around, and other files have their turns */
};

static inline int pf_file_not_appended(const pf_file *file, int result) {
    if (result == PF_UNSPILLED) return PF_READ_UNSPILLED;
    if (result == PF_STALLED) return PF_READ_STALLED;
    return file->error ? PF_READ_FAILED : PF_READ_NOTHING;
}

/* Append the current file's records until it has no more for now, or its turn is over. */
static int pf_file_cut(pf_file_source *files, pf_file *file, pf_sink *sink, uint32_t max_messages, uint32_t *taken) {
    uint64_t turn_ends = files->bytes_read + PF_TURN_BYTES;
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
            if (result != PF_APPENDED) return pf_file_not_appended(file, result);
            continue;
        }
        if (files->bytes_read >= turn_ends) return PF_READ_TURN;
        ssize_t count = pf_file_read(files, file);
        if (count > 0) continue;
        if (count == PF_BLOCK_LATER) return PF_READ_NOTHING;
        if (count == PF_BLOCK_UNSPILLED) return PF_READ_UNSPILLED;
        if (count < 0) return PF_READ_FAILED;
        file->seen = pf_file_read_position(files, file);
        if (!file->stream) {
            struct stat facts;
            if (fstat(file->fd, &facts) != 0) {
                file->error = errno;
                return PF_READ_FAILED;
            }
            if (facts.st_size < file->seen || (file->limit != INT64_MAX && facts.st_size < file->limit)) {
                file->shrunk = PF_SHORTER;
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
            if (result != PF_APPENDED) return pf_file_not_appended(file, result);
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
    if (facts.st_size < file->seen) file->shrunk = PF_SHORTER;
    return facts.st_size > file->seen;
}

/* What a look at all files found. */
typedef struct {
    uint32_t taken;
    uint32_t unfinished;
    int stream_fd;
    uint8_t attend;
    uint8_t turn_over;
} pf_file_look;

/* The current file first, whose bytes are in the buffer, unless its turn is over. PF_SOURCE_MORE, unless the sink has no
 * room, a file cannot be read, or the bytes of a large record cannot be kept. */
static int pf_file_look_at_all(pf_file_source *files, pf_sink *sink, uint32_t max_messages, pf_file_look *look) {
    uint32_t first = files->current >= 0 ? (uint32_t)files->current + files->yields : 0;
    files->yields = 0;
    *look = (pf_file_look){.stream_fd = -1};
    for (uint32_t step = 0; step < files->n_files && look->taken < max_messages; step++) {
        uint32_t index = (first + step) % files->n_files;
        pf_file *file = &files->files[index];
        if (file->done) continue;
        if (files->current == (int32_t)index || pf_file_has_news(files, file)) {
            pf_file_turn_to(files, index);
            int result = pf_file_cut(files, file, sink, max_messages, &look->taken);
            if (result == PF_READ_STALLED) return PF_SOURCE_STALLED;
            if (result == PF_READ_FAILED) return PF_SOURCE_FAILED;
            if (result == PF_READ_UNSPILLED) return PF_SOURCE_SPOOL;
            if (result == PF_READ_TURN) {
                files->yields = look->turn_over = 1;
                return PF_SOURCE_MORE;
            }
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
            if (look.taken || look.turn_over) {
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
