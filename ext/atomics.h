/* Acquire and release on plain words in shared memory, and waiting on one of them.
 *
 * Linux waits in the kernel (futex(2), shared, not private: the waiter may be another process).
 * Elsewhere a wait is a short sleep, which costs latency and nothing else: every caller re-reads the
 * word in a loop and gives a timeout.
 */
#ifndef PYTHIA_ATOMICS_H
#define PYTHIA_ATOMICS_H

#include <errno.h>
#include <stdint.h>
#include <time.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static inline uint32_t pf_load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void pf_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

/* Sequentially consistent: used where one side stores A then reads B while the other stores B then
 * reads A (publish against "I am about to sleep"); release and acquire alone would let both miss. */
static inline uint32_t pf_load_sc(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static inline void pf_store_sc(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
static inline void pf_add(uint32_t *word, uint32_t n) { __atomic_fetch_add(word, n, __ATOMIC_SEQ_CST); }
/* Store `value` if the word is `seen`; 1 when it was. */
static inline int pf_exchange_if(uint32_t *word, uint32_t seen, uint32_t value) {
    return __atomic_compare_exchange_n(word, &seen, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline uint64_t pf_load64(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
static inline void pf_store64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELAXED); }

static inline uint64_t pf_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Let timeouts of this thread end when they are due: the kernel otherwise gathers those within 50 us (prctl(2),
 * PR_SET_TIMERSLACK), which would be added to the time that each lingering batch waits. */
static inline void pf_punctual_timeouts(void) {
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);
#endif
}

/* Between two looks at a word that another core is about to write: leaves the core's other thread, and power, alone. */
static inline void pf_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Sleep while *word == seen, for at most timeout_ns; may return early for no reason. */
static inline void pf_wait(uint32_t *word, uint32_t seen, int64_t timeout_ns) {
    if (timeout_ns <= 0) return;
#ifdef __linux__
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, NULL, 0);
#else
    struct timespec nap = {0, timeout_ns < 200000 ? (long)timeout_ns : 200000L};
    if (pf_load(word) == seen) nanosleep(&nap, NULL);
#endif
}

static inline void pf_wake(uint32_t *word) {
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
#else
    (void)word;
#endif
}

#endif
