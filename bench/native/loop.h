/* Clock, random numbers and precise waiting, shared by the upstream stub and the load generator. */
#ifndef BENCH_LOOP_H
#define BENCH_LOOP_H

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* xorshift64*: cheap, seeded, good enough to vary sizes and header values. `state` must not be 0. */
static inline uint64_t rng_next(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1DULL;
}

static inline unsigned rng_between(uint64_t *state, unsigned low, unsigned high) {
    return low + (unsigned)((rng_next(state) >> 33) % (high - low + 1));
}

/* epoll_wait rounds to milliseconds, which would send 5,000 paced chunks a second in bursts of five. The precise
 * call is newer than some kernels; without it the pacing is coarse and nothing else changes. timeout < 0: for ever. */
static inline int wait_events(int epoll, struct epoll_event *events, int max, int64_t timeout_ns) {
#ifdef SYS_epoll_pwait2
    static int missing = 0;
    if (!missing && timeout_ns >= 0) {
        struct timespec t = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        long n = syscall(SYS_epoll_pwait2, epoll, events, max, &t, (void *)0, (size_t)8);
        if (n >= 0 || errno != ENOSYS) return (int)n;
        missing = 1;
    }
#endif
    int ms = timeout_ns < 0 ? -1 : (int)((timeout_ns + 999999) / 1000000);
    return epoll_wait(epoll, events, max, ms);
}

#endif
