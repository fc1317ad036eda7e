/* Places in one arena for stretches of memory whose lifetimes are known: the executor's buffers,
 * and the planner's estimate of them. */
#ifndef TRM_BASE_ARENA_PLAN_H
#define TRM_BASE_ARENA_PLAN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lifetime {
    size_t bytes, offset; /* offset: set by the plan */
    int birth, death;     /* any unit of time; alive at both ends */
} trm_lifetime;

/* Offsets such that stretches alive together do not overlap. Returns the arena's size. Never fails:
 * where there is no memory to think with, they lie side by side. */
size_t trm_arena_plan(trm_lifetime *stretches, int count);

#ifdef __cplusplus
}
#endif
#endif
