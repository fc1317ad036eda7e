/* The thread team of an executor: a thin layer over OpenMP, so that oneDNN (built on the same
 * runtime) and our kernels share one set of threads. Only the executor thread opens regions; a
 * region inside a region runs serially. With one thread no team exists and no OpenMP call is made.
 */
#ifndef TRM_BASE_TEAM_H
#define TRM_BASE_TEAM_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Threads of the calling executor's team; 0: as many as this process may use (affinity mask). Call
 * before any region. */
void trm_team_init(int threads);
int trm_team_size(void);
/* The calling thread is no executor (it prepares a model while the executor runs another, say): its
 * regions run serially from now on, oneDNN's too. */
void trm_team_alone(void);

/* Calls fn(ctx, begin, end) on disjoint ranges that cover [0, n), in parallel where n >= 2 * grain.
 * Ranges are contiguous and their number depends on n, grain and the team's size only. fn must not
 * fail, allocate, or call trm_fail. */
typedef void (*trm_team_fn)(void *ctx, size_t begin, size_t end);
void trm_team_for(size_t n, size_t grain, trm_team_fn fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
