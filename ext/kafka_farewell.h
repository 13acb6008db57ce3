/* The end of a Kafka client, waited for no longer than a given time.
 *
 * librdkafka destroys a client once its requests are answered or have timed out; a commit to a broker that is silent
 * takes the whole session timeout.  So a thread of its own waits for that.  Once nobody waits for the thread any more, it
 * ends the client by itself, or the process ends first, without the exit handlers of the libraries that it uses.
 */
#ifndef PYTHIA_KAFKA_FAREWELL_H
#define PYTHIA_KAFKA_FAREWELL_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "rdkafka_api.h"

#define PF_FAREWELL_LOOK_MS 5

enum { PF_FAREWELL_UNDER_WAY, PF_FAREWELL_OVER, PF_FAREWELL_ABANDONED };

/* What ends a client, however long that takes. */
typedef void (*pf_kafka_end_fn)(const pf_rdkafka *api, void *client, int flags);

typedef struct {
    pf_kafka_end_fn end;
    const pf_rdkafka *api;
    void *client;
    int flags;
    _Atomic int state; /* whoever of the two sides changes it second frees this */
} pf_kafka_farewell;

static _Atomic int pf_farewells_abandoned;

static void *pf_kafka_farewell_run(void *opaque)
{
    pf_kafka_farewell *self = opaque;
    self->end(self->api, self->client, self->flags);
    if (atomic_exchange(&self->state, PF_FAREWELL_OVER) == PF_FAREWELL_ABANDONED) {
        atomic_fetch_sub(&pf_farewells_abandoned, 1);
        free(self);
    }
    return NULL;
}

#ifdef __GLIBC__
/* Registered after what OpenSSL registers, so it runs before: that would take away what the client's threads still use. */
static void pf_kafka_exit_at_once(int status, void *opaque)
{
    (void)opaque;
    if (atomic_load(&pf_farewells_abandoned) == 0)
        return;
    fflush(NULL);
    _exit(status);
}
#endif

static void pf_kafka_farewell_abandon(pf_kafka_farewell *self)
{
    atomic_fetch_add(&pf_farewells_abandoned, 1);
    if (atomic_exchange(&self->state, PF_FAREWELL_ABANDONED) == PF_FAREWELL_OVER) {
        atomic_fetch_sub(&pf_farewells_abandoned, 1);
        free(self);
        return;
    }
#ifdef __GLIBC__
    on_exit(pf_kafka_exit_at_once, NULL);
#endif
}

/* Start to end the client; NULL: no thread could be had, and it was ended here, however long that took. */
static pf_kafka_farewell *pf_kafka_farewell_begin(pf_kafka_end_fn end, const pf_rdkafka *api, void *client, int flags)
{
    pf_kafka_farewell *self = malloc(sizeof *self);
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the thread inherits it: signals are for Python's main thread */
    if (self != NULL) {
        *self = (pf_kafka_farewell){.end = end, .api = api, .client = client, .flags = flags};
        if (pthread_create(&thread, NULL, pf_kafka_farewell_run, self) != 0) {
            free(self);
            self = NULL;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (self == NULL)
        end(api, client, flags);
    else
        pthread_detach(thread);
    return self;
}

/* Whether it is over, after a moment in which it was not. */
static int pf_kafka_farewell_is_over(pf_kafka_farewell *self)
{
    if (atomic_load(&self->state) == PF_FAREWELL_OVER)
        return 1;
    const struct timespec moment = {.tv_nsec = PF_FAREWELL_LOOK_MS * 1000000};
    nanosleep(&moment, NULL);
    return atomic_load(&self->state) == PF_FAREWELL_OVER;
}

#endif
