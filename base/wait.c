/* Spin, then futex. The futex is not process-private, because the word may lie in a shared segment.
 *
 * Why no wake-up is lost: a waiter announces itself in `sleepers` before the kernel compares the
 * counter with `seen`; a poster advances the counter before it looks at `sleepers`. Both are
 * sequentially consistent, so either the poster sees the sleeper and wakes it, or the kernel sees
 * the new counter and does not put the waiter to sleep. */
#define _GNU_SOURCE
#include "base/wait.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t trm_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t trm_scaled_ms(int64_t ms)
{
    static int scale; /* written once with the same value by whoever comes first */
    int s = __atomic_load_n(&scale, __ATOMIC_RELAXED);

    if (s == 0) {
        const char *text = getenv("TRM_DEADLINE_SCALE");
        char *end = NULL;
        long v = text != NULL ? strtol(text, &end, 10) : 1;

        s = text != NULL && (end == text || *end != '\0' || v < 1 || v > 1000) ? 1 : (int)v;
        __atomic_store_n(&scale, s, __ATOMIC_RELAXED);
    }
    return ms * s;
}

int64_t trm_deadline_us(int64_t ms)
{
    return trm_now_us() + trm_scaled_ms(ms) * 1000;
}

uint32_t trm_wait_count(const trm_wait *w)
{
    return __atomic_load_n(&w->count, __ATOMIC_SEQ_CST);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

trm_status trm_wait_change(trm_wait *w, uint32_t seen, int spin_us, int64_t deadline_us)
{
    struct timespec ts = {.tv_sec = (time_t)(deadline_us / 1000000),
                          .tv_nsec = (long)(deadline_us % 1000000) * 1000};
    trm_status st = TRM_OK;

    if (trm_wait_count(w) != seen)
        return TRM_OK;
    if (spin_us > 0) {
        int64_t until = trm_now_us() + spin_us;

        do {
            for (int i = 0; i < 32; i++) {
                if (trm_wait_count(w) != seen)
                    return TRM_OK;
                relax();
            }
        } while (trm_now_us() < until);
    }
    if (deadline_us < 0)
        ts.tv_sec = ts.tv_nsec = 0;
    __atomic_fetch_add(&w->sleepers, 1, __ATOMIC_SEQ_CST);
    while (trm_wait_count(w) == seen) {
        /* FUTEX_WAIT_BITSET takes an absolute time on CLOCK_MONOTONIC, so that a signal or a
         * spurious wake-up does not stretch the wait */
        long rc = syscall(SYS_futex, &w->count, FUTEX_WAIT_BITSET, seen, &ts, NULL,
                          FUTEX_BITSET_MATCH_ANY);

        if (rc != 0 && errno == ETIMEDOUT) {
            st = trm_wait_count(w) == seen ? TRM_ERR_TIMEOUT : TRM_OK;
            break;
        }
    }
    __atomic_fetch_sub(&w->sleepers, 1, __ATOMIC_SEQ_CST);
    return st;
}

void trm_wait_post(trm_wait *w)
{
    __atomic_fetch_add(&w->count, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&w->sleepers, __ATOMIC_SEQ_CST) != 0)
        syscall(SYS_futex, &w->count, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
