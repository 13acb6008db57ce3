/* A wait that can be cut short: a pipe beside poll(2).  A byte in the pipe is a wake-up that has not
 * been seen yet, so a wake between two waits is not lost.  write(2) is async-signal-safe. */
#ifndef PYTHIA_WAKE_H
#define PYTHIA_WAKE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int read_fd; /* -1: closed */
    int write_fd;
} pf_wake_pipe;

static inline void pf_wake_close(pf_wake_pipe *wake) {
    if (wake->read_fd >= 0) {
        close(wake->read_fd);
        close(wake->write_fd);
    }
    wake->read_fd = wake->write_fd = -1;
}

/* 0, or errno. */
static inline int pf_wake_open(pf_wake_pipe *wake) {
    int ends[2];
    if (pipe(ends) != 0) return errno;
    for (int i = 0; i < 2; i++) {
        if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) != 0 || fcntl(ends[i], F_SETFL, O_NONBLOCK) != 0) {
            int error = errno;
            close(ends[0]);
            close(ends[1]);
            return error;
        }
    }
    wake->read_fd = ends[0];
    wake->write_fd = ends[1];
    return 0;
}

/* A full pipe means that a wake-up is waiting to be seen already. */
static inline void pf_wake_signal(const pf_wake_pipe *wake) {
    int saved = errno;
    if (wake->write_fd >= 0 && write(wake->write_fd, "", 1) < 0) { /* full: nothing to do */
    }
    errno = saved;
}

/* Wait until woken, until `other_fd` (-1: none) is readable, or for `timeout_us`.  Returns 1 when it was woken. */
static inline int pf_wake_wait(const pf_wake_pipe *wake, int other_fd, int64_t timeout_us) {
    struct pollfd ends[2] = {{.fd = wake->read_fd, .events = POLLIN}, {.fd = other_fd, .events = POLLIN}};
    nfds_t count = other_fd >= 0 ? 2 : 1;
    if (timeout_us < 0) timeout_us = 0;
#ifdef __linux__
    struct timespec limit = {.tv_sec = timeout_us / 1000000, .tv_nsec = (timeout_us % 1000000) * 1000};
    int ready = ppoll(ends, count, &limit, NULL);
#else
    int64_t limit_ms = (timeout_us + 999) / 1000;
    int ready = poll(ends, count, limit_ms > INT32_MAX ? INT32_MAX : (int)limit_ms);
#endif
    if (ready <= 0 || !(ends[0].revents & POLLIN)) return 0;
    char seen[64];
    while (read(wake->read_fd, seen, sizeof seen) == (ssize_t)sizeof seen) {
    }
    return 1;
}

#endif
