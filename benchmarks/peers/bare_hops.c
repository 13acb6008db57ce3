/* The hops of one row through ring and pool, and nothing else: a thread wakes another by a condition variable, and
 * that one wakes another process by a futex in shared memory, which takes the time.
 *
 * What bench_latency.py measures cannot be faster on the same machine at the same time.
 *
 * With "apart" the other process is kept on another core than the two threads, which that one has to be woken from its
 * sleep for: where cores are virtual this is most of the time, and whether it is paid is for the kernel to decide, which
 * leaves two processes on one core, or does not.
 *
 * usage: bare_hops ROWS ROWS_PER_SECOND [apart]
 * Prints the nanoseconds from sent to taken of each row, as JSON.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { WARMUP = 200, MOST_ROWS = 1000000 }; /* WARMUP as in benchmarks/apps/latency.py */

typedef struct {
    _Atomic uint32_t published; /* rows; the futex */
    int64_t sent[MOST_ROWS + WARMUP], taken[MOST_ROWS + WARMUP];
} shared_rows;

static shared_rows *rows;
static uint32_t n_rows, queued;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static void stay_on(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) perror("sched_setaffinity"), exit(1);
}

static void take_rows(void) {
    for (uint32_t seen = 0; seen < n_rows;) {
        uint32_t published = atomic_load(&rows->published);
        if (published == seen) {
            syscall(SYS_futex, &rows->published, FUTEX_WAIT, seen, NULL, NULL, 0);
            continue;
        }
        int64_t now = now_ns();
        for (; seen < published; seen++) rows->taken[seen] = now;
    }
}

static void *hand_on(void *unused) {
    (void)unused;
    for (uint32_t done = 0; done < n_rows;) {
        pthread_mutex_lock(&lock);
        while (queued == done) pthread_cond_wait(&arrived, &lock);
        done = queued;
        pthread_mutex_unlock(&lock);
        atomic_store(&rows->published, done);
        syscall(SYS_futex, &rows->published, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    return NULL;
}

static void send_rows(double rows_per_second) {
    int64_t started = now_ns() + 300000000;
    for (uint32_t row = 0; row < n_rows; row++) {
        int64_t due = started + (int64_t)(row / rows_per_second * 1e9);
        struct timespec until = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
        }
        rows->sent[row] = now_ns();
        pthread_mutex_lock(&lock);
        queued = row + 1;
        pthread_cond_signal(&arrived);
        pthread_mutex_unlock(&lock);
    }
}

int main(int argc, char **argv) {
    int apart = argc == 4 && strcmp(argv[3], "apart") == 0;
    long asked = argc == 3 || apart ? atol(argv[1]) : 0;
    double rows_per_second = argc == 3 || apart ? atof(argv[2]) : 0;
    if (asked < 1 || asked > MOST_ROWS || !(rows_per_second > 0)) {
        fprintf(stderr, "usage: bare_hops ROWS ROWS_PER_SECOND [apart]\n");
        return 2;
    }
    n_rows = (uint32_t)asked + WARMUP;
    rows = mmap(NULL, sizeof *rows, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rows == MAP_FAILED) return perror("mmap"), 1;
    pid_t parent = getpid(), child = fork();
    if (child < 0) return perror("fork"), 1;
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) return 1;
        if (apart) stay_on(1);
        take_rows();
        return 0;
    }
    if (apart) stay_on(0); /* the thread that is made next as well */
    pthread_t between;
    if ((errno = pthread_create(&between, NULL, hand_on, NULL)) != 0) return perror("pthread_create"), 1;
    send_rows(rows_per_second);
    pthread_join(between, NULL);
    int status;
    if (waitpid(child, &status, 0) != child || status != 0) return 1;
    for (uint32_t row = WARMUP; row < n_rows; row++)
        printf("%c%lld", row == WARMUP ? '[' : ',', (long long)(rows->taken[row] - rows->sent[row]));
    printf("]\n");
    return 0;
}
