/* What a C loop gets out of a queue: rabbitmq-c, multiple acknowledgements, bytes counted and nothing decoded.
 *
 *     rabbitmq_count PORT USER PASSWORD QUEUE ROWS
 *
 * Prints {"rows", "seconds", "cpu_seconds"} from the first message to the last. */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { PREFETCH = 30000, ACK_EVERY = 1000 };

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void must(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

int main(int argc, char **argv) {
    must(argc == 6, "reading the arguments");
    uint64_t rows = strtoull(argv[5], NULL, 10), seen = 0, bytes = 0, last_acked = 0;
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    must(socket && amqp_socket_open(socket, "127.0.0.1", atoi(argv[1])) == 0, "connecting");
    amqp_rpc_reply_t reply = amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[2], argv[3]);
    must(reply.reply_type == AMQP_RESPONSE_NORMAL, "login");
    must(amqp_channel_open(connection, 1) != NULL, "opening a channel");
    must(amqp_basic_qos(connection, 1, 0, PREFETCH, 0) != NULL, "basic.qos");
    must(amqp_basic_consume(connection, 1, amqp_cstring_bytes(argv[4]), amqp_empty_bytes, 0, 0, 0, amqp_empty_table) != NULL,
         "basic.consume");
    double began = 0, cpu_before = 0;
    while (seen < rows) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        reply = amqp_consume_message(connection, &envelope, NULL, 0);
        must(reply.reply_type == AMQP_RESPONSE_NORMAL, "reading a message");
        if (seen == 0) {
            began = now();
            cpu_before = cpu();
        }
        bytes += envelope.message.body.len;
        if (++seen % ACK_EVERY == 0 || seen == rows) {
            last_acked = envelope.delivery_tag;
            must(amqp_basic_ack(connection, 1, last_acked, 1) == 0, "basic.ack");
        }
        amqp_destroy_envelope(&envelope);
    }
    printf("{\"rows\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", (unsigned long long)seen,
           (unsigned long long)bytes, now() - began, cpu() - cpu_before);
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
    return 0;
}
