/* The C loop that the Redis benchmark measures itself against: hiredis, two reads on their way, bytes counted only.
 *
 *     redis_hiredis PORT STREAM GROUP ROWS
 *
 * XREADGROUP COUNT 1000 and an XACK of each reply's ids, all on one connection.  Prints
 * {"rows", "bytes", "seconds", "cpu_seconds"}, from the first reply to the last. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { COUNT = 1000, IN_FLIGHT = 2 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void ask(redisContext *c, const char *stream, const char *group)
{
    redisAppendCommand(c, "XREADGROUP GROUP %s peer COUNT %d STREAMS %s >", group, COUNT, stream);
}

static void ack(redisContext *c, const char *stream, const char *group, const redisReply *entries)
{
    static const char *parts[COUNT + 3];
    static size_t sizes[COUNT + 3];
    parts[0] = "XACK";
    parts[1] = stream;
    parts[2] = group;
    for (int i = 0; i < 3; i++)
        sizes[i] = strlen(parts[i]);
    for (size_t i = 0; i < entries->elements; i++) {
        parts[i + 3] = entries->element[i]->element[0]->str;
        sizes[i + 3] = entries->element[i]->element[0]->len;
    }
    redisAppendCommandArgv(c, (int)entries->elements + 3, parts, sizes);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        die("usage: redis_hiredis PORT STREAM GROUP ROWS");
    const char *stream = argv[2], *group = argv[3];
    unsigned long long wanted = strtoull(argv[4], NULL, 10), rows = 0, bytes = 0;
    redisContext *c = redisConnect("127.0.0.1", atoi(argv[1]));
    if (c == NULL || c->err)
        die("no connection");
    freeReplyObject(redisCommand(c, "XGROUP CREATE %s %s 0", stream, group));
    /* Which of the replies to come are of reads; a reply is answered by an acknowledgement and another read. */
    char is_read[16];
    unsigned head = 0, tail = 0;
    for (int i = 0; i < IN_FLIGHT; i++) {
        ask(c, stream, group);
        is_read[tail++ % 16] = 1;
    }
    double first = 0, first_cpu = 0;
    while (head != tail) {
        redisReply *reply;
        if (redisGetReply(c, (void **)&reply) != REDIS_OK || reply->type == REDIS_REPLY_ERROR)
            die("a reply is an error");
        if (is_read[head++ % 16] && reply->type == REDIS_REPLY_ARRAY) {
            if (first == 0) {
                first = now();
                first_cpu = cpu();
            }
            const redisReply *entries = reply->element[0]->element[1];
            for (size_t i = 0; i < entries->elements; i++)
                bytes += entries->element[i]->element[1]->element[1]->len;
            rows += entries->elements;
            ack(c, stream, group, entries);
            is_read[tail++ % 16] = 0;
            ask(c, stream, group);
            is_read[tail++ % 16] = 1;
        }
        freeReplyObject(reply);
    }
    double seconds = now() - first;
    if (rows != wanted)
        die("rows are missing");
    printf("{\"rows\": %llu, \"bytes\": %llu, \"seconds\": %f, \"cpu_seconds\": %f}\n", rows, bytes, seconds,
           cpu() - first_cpu);
    redisFree(c);
    return 0;
}
