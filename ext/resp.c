#include "resp.h"

#include <stdlib.h>
#include <string.h>

#define unlikely(x) __builtin_expect(!!(x), 0)

enum { TOP, SKIP, ENTRY };

/* What reading a part comes to. */
enum { OK, SHORT, BROKEN };

/* Where in the buffer, and what a part that is not there as a whole would need. */
typedef struct {
    const uint8_t *data;
    size_t size;
    size_t at;
    size_t want;
} cursor;

typedef struct {
    uint8_t type;
    int64_t number;     /* of the types that have one */
    pf_resp_text line;  /* of the others */
} head;

void pf_resp_init(pf_resp *self, pf_resp_limits limits)
{
    memset(self, 0, sizeof *self);
    self->limits = limits;
}

void pf_resp_free(pf_resp *self)
{
    free(self->fields);
    self->fields = NULL;
    self->fields_room = 0;
}

void pf_resp_expect(pf_resp *self, uint32_t shape)
{
    self->shape = shape;
    self->place = TOP;
    self->bad = 0;
    self->want = 0;
    self->skip_depth = 0;
}

static int garbage(pf_resp *self, const char *expected)
{
    self->bad = PF_RESP_GARBAGE;
    self->expected = expected;
    return BROKEN;
}

static int beyond(pf_resp *self, uint32_t limit, uint64_t number)
{
    self->bad = limit;
    self->bad_number = number;
    return BROKEN;
}

static int need(cursor *c, size_t bytes)
{
    c->want = c->at + bytes;
    return SHORT;
}

/* ---- parts ------------------------------------------------------------------------------------------------ */

enum { LONGEST_NUMBER = 19 };

/* "-12\r\n" from the cursor on. */
static int read_number(pf_resp *self, cursor *c, int64_t *number)
{
    size_t at = c->at;
    int negative = at < c->size && c->data[at] == '-';
    at += (size_t)negative;
    uint64_t value = 0;
    size_t first = at;
    while (at < c->size && c->data[at] >= '0' && c->data[at] <= '9') {
        if (unlikely(at - first == LONGEST_NUMBER))
            return garbage(self, "a number of at most 19 digits");
        value = value * 10 + (c->data[at] - '0');
        at++;
    }
    if (c->size - at < 2) {
        if (at < c->size && c->data[at] != '\r')
            return garbage(self, "a number and the end of its line");
        return need(c, c->size - c->at + 1);
    }
    if (unlikely(at == first || c->data[at] != '\r' || c->data[at + 1] != '\n' || value > INT64_MAX))
        return garbage(self, "a number and the end of its line");
    *number = negative ? -(int64_t)value : (int64_t)value;
    c->at = at + 2;
    return OK;
}

static int read_line(pf_resp *self, cursor *c, pf_resp_text *line)
{
    size_t left = c->size - c->at;
    size_t looked = left < PF_RESP_LINE ? left : PF_RESP_LINE;
    const uint8_t *begin = c->data + c->at;
    const uint8_t *end = looked > 0 ? memchr(begin, '\r', looked) : NULL;
    if (end == NULL) {
        if (looked == PF_RESP_LINE)
            return garbage(self, "a line of at most 4,096 bytes");
        return need(c, left + 1);
    }
    size_t size = (size_t)(end - begin);
    if (left - size < 2)
        return need(c, size + 2);
    if (end[1] != '\n')
        return garbage(self, "the end of a line");
    *line = (pf_resp_text){begin, size};
    c->at += size + 2;
    return OK;
}

static int read_head(pf_resp *self, cursor *c, head *to)
{
    if (c->at >= c->size)
        return need(c, 1);
    to->number = 0;
    to->line = (pf_resp_text){NULL, 0};
    to->type = c->data[c->at];
    c->at++;
    switch (to->type) {
    case '$': case '*': case ':': case '%': case '>': case '|': case '~': case '=': case '!':
        return read_number(self, c, &to->number);
    case '+': case '-': case '_': case '#': case ',': case '(':
        return read_line(self, c, &to->line);
    default:
        return garbage(self, "the first character of a reply");
    }
}

/* `size` bytes and the end of their line. */
static int read_bytes(pf_resp *self, cursor *c, int64_t size, pf_resp_text *text)
{
    if (unlikely(size < 0))
        return garbage(self, "the size of a string");
    if (unlikely((uint64_t)size > self->limits.bulk_bytes))
        return beyond(self, PF_RESP_BULK_TOO_LARGE, (uint64_t)size);
    size_t left = c->size - c->at, bytes = (size_t)size;
    if (left < bytes + 2)
        return need(c, bytes + 2);
    const uint8_t *begin = c->data + c->at;
    if (unlikely(begin[bytes] != '\r' || begin[bytes + 1] != '\n'))
        return garbage(self, "the end of a string");
    *text = (pf_resp_text){begin, bytes};
    c->at += bytes + 2;
    return OK;
}

static int is_null(const head *h)
{
    return h->type == '_' || ((h->type == '$' || h->type == '*') && h->number == -1);
}

/* A string that is not null. */
static int read_bulk(pf_resp *self, cursor *c, pf_resp_text *text)
{
    head h;
    int outcome = read_head(self, c, &h);
    if (unlikely(outcome != OK))
        return outcome;
    if (unlikely(h.type != '$'))
        return garbage(self, "a string");
    return read_bytes(self, c, h.number, text);
}

static int read_array(pf_resp *self, cursor *c, uint64_t *elements)
{
    head h;
    int outcome = read_head(self, c, &h);
    if (outcome != OK)
        return outcome;
    if (h.type != '*' || h.number < 0)
        return garbage(self, "an array");
    if ((uint64_t)h.number > self->limits.elements)
        return beyond(self, PF_RESP_TOO_MANY, (uint64_t)h.number);
    *elements = (uint64_t)h.number;
    return OK;
}

int pf_resp_id(pf_resp_text text, uint64_t *ms, uint64_t *seq)
{
    uint64_t parts[2] = {0, 0};
    int part = 0;
    size_t digits = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.bytes[i];
        if (byte == '-' && part == 0 && digits > 0) {
            part = 1;
            digits = 0;
            continue;
        }
        uint64_t digit = (uint64_t)byte - '0';
        if (digit > 9 || parts[part] > (UINT64_MAX - digit) / 10)
            return 0;
        parts[part] = parts[part] * 10 + digit;
        digits++;
    }
    *ms = parts[0];
    *seq = parts[1];
    return part == 1 && digits > 0;
}

/* ---- an entry --------------------------------------------------------------------------------------------- */

static int make_room(pf_resp *self, uint64_t fields)
{
    if (fields <= self->fields_room)
        return OK;
    pf_resp_field *grown = realloc(self->fields, (size_t)fields * sizeof *grown);
    if (grown == NULL)
        return beyond(self, PF_RESP_NO_MEMORY, fields * sizeof *grown);
    self->fields = grown;
    self->fields_room = fields;
    return OK;
}

/* [id, [name, value, ...]]; [id, null] where it was deleted; null where that is all that is known. */
static int read_entry(pf_resp *self, cursor *c, pf_resp_event *event)
{
    head h;
    int outcome = read_head(self, c, &h);
    if (unlikely(outcome != OK))
        return outcome;
    event->has_id = event->is_gone = 0;
    event->n_fields = 0;
    if (is_null(&h)) {
        event->is_gone = 1;
        return OK;
    }
    if (unlikely(h.type != '*' || h.number != 2))
        return garbage(self, "an entry of two parts");
    if (unlikely((outcome = read_bulk(self, c, &event->id)) != OK))
        return outcome;
    if (unlikely(!pf_resp_id(event->id, &event->ms, &event->seq)))
        return garbage(self, "the id of an entry");
    event->has_id = 1;
    if (unlikely((outcome = read_head(self, c, &h)) != OK))
        return outcome;
    if (is_null(&h)) {
        event->is_gone = 1;
        return OK;
    }
    if (unlikely(h.type != '*' || h.number < 0 || h.number % 2 != 0))
        return garbage(self, "an array of names and values");
    uint64_t count = (uint64_t)h.number / 2;
    if (unlikely(count > self->limits.fields))
        return beyond(self, PF_RESP_TOO_MANY, count);
    if (unlikely((outcome = make_room(self, count)) != OK))
        return outcome;
    for (uint64_t i = 0; i < count; i++) {
        if (unlikely((outcome = read_bulk(self, c, &self->fields[i].name)) != OK))
            return outcome;
        if (unlikely((outcome = read_bulk(self, c, &self->fields[i].value)) != OK))
            return outcome;
    }
    event->fields = self->fields;
    event->n_fields = count;
    return OK;
}

/* ---- values that nobody asked for: RESP3 pushes and attributes --------------------------------------------------- */

static int begin_skip(pf_resp *self, const head *h)
{
    uint64_t values = (uint64_t)h->number * (h->type == '|' || h->type == '%' ? 2 : 1);
    if (h->number < 0)
        return garbage(self, "the size of an array");
    if ((uint64_t)h->number > self->limits.elements)
        return beyond(self, PF_RESP_TOO_MANY, (uint64_t)h->number);
    if (self->skip_depth == PF_RESP_DEPTH)
        return beyond(self, PF_RESP_TOO_MANY, PF_RESP_DEPTH + 1);
    self->skip_left[self->skip_depth++] = values;
    return OK;
}

/* Pass over one value, or the beginning of one that holds others. */
static int skip_one(pf_resp *self, cursor *c)
{
    head h;
    int outcome = read_head(self, c, &h);
    if (outcome != OK)
        return outcome;
    self->skip_left[self->skip_depth - 1]--;
    if (h.type == '|') /* stands before the value that it is about */
        self->skip_left[self->skip_depth - 1]++;
    if (is_null(&h))
        return OK;
    switch (h.type) {
    case '*': case '~': case '>': case '%': case '|':
        return begin_skip(self, &h);
    case '$': case '=': case '!': {
        pf_resp_text text;
        outcome = read_bytes(self, c, h.number, &text);
        if (outcome == SHORT)
            self->skip_left[self->skip_depth - 1]++; /* its head is read again */
        return outcome;
    }
    default:
        return OK;
    }
}

/* ---- the reply as a whole ------------------------------------------------------------------------------------ */

static int unexpected(pf_resp *self)
{
    static const char *const expected[] = {"the streams of XREADGROUP", "the entries of XCLAIM", "a single value"};
    garbage(self, expected[self->shape]);
    return PF_RESP_BAD;
}

/* What the first line of a reply tells; -1: nothing yet, the reader has moved on. */
static int take_top(pf_resp *self, cursor *c, const head *h, pf_resp_event *event)
{
    if (h->type == '-') {
        event->text = h->line;
        return PF_RESP_ERROR;
    }
    if (h->type == '!') {
        int outcome = read_bytes(self, c, h->number, &event->text);
        return outcome == OK ? PF_RESP_ERROR : outcome == SHORT ? PF_RESP_MORE : PF_RESP_BAD;
    }
    if (h->type == '>' || h->type == '|') {
        if (begin_skip(self, h) != OK)
            return PF_RESP_BAD;
        self->place = SKIP;
        return -1;
    }
    if (is_null(h))
        return PF_RESP_NIL;
    if (self->shape == PF_RESP_VALUE) {
        if (h->type == '$') {
            int outcome = read_bytes(self, c, h->number, &event->text);
            return outcome == OK ? PF_RESP_TEXT : outcome == SHORT ? PF_RESP_MORE : PF_RESP_BAD;
        }
        event->number = h->number;
        event->text = h->line;
        return h->type == ':' ? PF_RESP_NUMBER : h->type == '+' ? PF_RESP_TEXT : unexpected(self);
    }
    int is_map = h->type == '%' && self->shape == PF_RESP_STREAMS;
    if ((h->type != '*' && !is_map) || h->number < 0)
        return unexpected(self);
    if ((uint64_t)h->number > self->limits.elements) {
        beyond(self, PF_RESP_TOO_MANY, (uint64_t)h->number);
        return PF_RESP_BAD;
    }
    self->in_map = (uint32_t)is_map;
    self->streams_left = self->shape == PF_RESP_STREAMS ? (uint64_t)h->number : 0;
    self->entries_left = self->shape == PF_RESP_ENTRIES ? (uint64_t)h->number : 0;
    self->place = ENTRY;
    return -1;
}

static int read_stream(pf_resp *self, cursor *c, pf_resp_event *event)
{
    uint64_t parts, entries;
    int outcome = OK;
    if (!self->in_map) {
        outcome = read_array(self, c, &parts);
        if (outcome == OK && parts != 2)
            outcome = garbage(self, "a stream of two parts");
    }
    if (outcome == OK)
        outcome = read_bulk(self, c, &event->text);
    if (outcome == OK)
        outcome = read_array(self, c, &entries);
    if (outcome != OK)
        return outcome;
    self->streams_left--;
    self->entries_left = entries;
    return OK;
}

/* One step from the cursor on: an event, or -1: none yet, go on. */
static int step(pf_resp *self, cursor *c, pf_resp_event *event)
{
    static const int said[] = {-1, PF_RESP_MORE, PF_RESP_BAD};
    int outcome;
    head h;
    switch (self->place) {
    case TOP:
        outcome = read_head(self, c, &h);
        return outcome == OK ? take_top(self, c, &h, event) : said[outcome];
    case SKIP:
        if (self->skip_left[self->skip_depth - 1] > 0)
            return said[skip_one(self, c)];
        if (--self->skip_depth == 0)
            self->place = TOP;
        return -1;
    default:
        if (self->entries_left > 0) {
            outcome = read_entry(self, c, event);
            size_t size = outcome == SHORT ? c->want : c->at;
            if (unlikely(outcome != BROKEN && size > self->limits.entry_bytes))
                outcome = beyond(self, PF_RESP_ENTRY_TOO_LARGE, size);
            self->entries_left -= outcome == OK;
            return outcome == OK ? PF_RESP_ENTRY : said[outcome];
        }
        if (self->streams_left > 0) {
            outcome = read_stream(self, c, event);
            return outcome == OK ? PF_RESP_STREAM : said[outcome];
        }
        return PF_RESP_END;
    }
}

int pf_resp_next(pf_resp *self, const uint8_t *data, size_t size, pf_resp_event *event)
{
    event->used = 0;
    if (self->bad)
        return PF_RESP_BAD;
    if (size < self->want)
        return PF_RESP_MORE;
    size_t taken = 0; /* by steps that told nothing */
    for (;;) {
        cursor c = {.data = data + taken, .size = size - taken};
        int kind = step(self, &c, event);
        if (kind == PF_RESP_MORE) {
            self->want = c.want;
            event->used = taken;
            return kind;
        }
        self->want = 0;
        if (kind == PF_RESP_BAD)
            return kind;
        taken += c.at;
        if (kind < 0)
            continue;
        event->used = taken;
        if (kind != PF_RESP_STREAM && kind != PF_RESP_ENTRY)
            self->place = TOP;
        return kind;
    }
}
