/* The one wait primitive: spin a little, then sleep in a futex until an absolute deadline.
 *
 * A trm_wait is a counter that its posters advance and its waiters watch. It may lie in memory that
 * several processes share, and zeroed memory is a valid one. The protocol of a waiter is: read the
 * counter, look at the condition, and only then wait for the counter to leave the value it had; a
 * post between the look and the wait is then never missed. Shared: any thread, any process. */
#ifndef TRM_BASE_WAIT_H
#define TRM_BASE_WAIT_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Monotonic time in microseconds. */
int64_t trm_now_us(void);
/* now + ms * TRM_DEADLINE_SCALE (an integer from the environment, 1..1000; sanitizers and
 * oversubscribed machines set 10). */
int64_t trm_deadline_us(int64_t ms);
/* ms * TRM_DEADLINE_SCALE. */
int64_t trm_scaled_ms(int64_t ms);

/* Longest useful spin before sleeping: about what a futex wake-up costs. Pass 0 where the threads
 * of the node outnumber its cores: spinning then only takes the core from whoever would post. */
#define TRM_WAIT_SPIN_US 20

typedef struct trm_wait {
    uint32_t count;    /* advanced by posts; a futex word, touched by atomics only */
    uint32_t sleepers; /* waiters in or near the futex: a post with none makes no system call */
} trm_wait;

/* The counter now (acquire: what was written before the post that made it is visible). */
uint32_t trm_wait_count(const trm_wait *w);
/* Returns OK as soon as the counter differs from `seen`, TIMEOUT at `deadline_us` (trm_now_us
 * time). TIMEOUT leaves trm_message alone: expiring is often normal. */
TRM_MUST_USE trm_status trm_wait_change(trm_wait *w, uint32_t seen, int spin_us,
                                        int64_t deadline_us);
/* Advances the counter (release) and wakes every waiter. */
void trm_wait_post(trm_wait *w);

#ifdef __cplusplus
}
#endif
#endif
