/* Shared by the files that make a sharding; not for its readers. */
#ifndef TRM_PARALLEL_SHARDING_IMPL_H
#define TRM_PARALLEL_SHARDING_IMPL_H

#include "base/tree.h"
#include "parallel/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* split_analysis.c: fills s->splits and drops axes that exclude better ones or that have too little
 * to deal out. s->axes are the rules' axes on entry. */
TRM_MUST_USE trm_status trmi_split_analysis(trm_sharding *s);

/* The elements of a stretch that `rank` holds. */
static inline int64_t trmi_stretch_part(const trm_stretch *t, int ranks, int rank)
{
    return (t->units * (rank + 1) / ranks - t->units * rank / ranks) * t->unit;
}
static inline bool trmi_is_linear(const trm_axes *a, int strategy)
{
    return strategy > a->axis_count;
}
/* NULL for strategy 0 and linear ones. */
static inline const trm_axis *trmi_axis_of(const trm_axes *a, int strategy)
{
    return strategy >= 1 && strategy <= a->axis_count ? &a->axes[strategy - 1] : NULL;
}
/* Elements of an axis that `rank` holds. */
int64_t trmi_axis_part(const trm_sharding *s, int node, const trm_axis *axis, int rank);
/* Where the part of an axis that is dealt out in one stretch begins. */
int64_t trmi_axis_begin(const trm_sharding *s, int node, const trm_axis *axis, int rank);
/* Of an axis with `tree`: the leaves that `rank` holds, and the most nodes of the tree that any
 * rank's leaves make. */
typedef struct trmi_leaves {
    int first, count, all, most;
} trmi_leaves;
trmi_leaves trmi_axis_leaves(const trm_sharding *s, int node, const trm_axis *axis, int rank);
/* Elements of a split dim before `border` (which lies between stretches) that `rank` holds. */
int64_t trmi_split_before(const trm_split *split, int ranks, int rank, int64_t border);

#ifdef __cplusplus
}
#endif
#endif
