/* What may be split: for every node of a graph its axes, for every dim of every value how it is
 * dealt out to the ranks of a tensor group. Arithmetic: no MPI, no device.
 *
 * An *axis* of a node is a loop of its computation that ranks can share: the output channels of a
 * convolution, the heads of an attention, the rows or the inner dim of a product (the loop-nest
 * view of an operator: Tofu, Wang et al. 2019; Alpa, Zheng et al. 2022). Sharing an axis splits the
 * dims of those inputs and outputs that carry it and leaves the other inputs whole; if it is summed
 * over, the outputs are partial sums. A *strategy* of a node is one of: computed whole by every
 * rank (0), shared along axis a (1 + a), or linear in some inputs, which arrive as partial sums and
 * leave as partial sums (1 + axis_count + l).
 *
 * Only dims of constant extent are split. A dim is dealt out in *stretches*, each of `units` equal
 * units of `unit` elements: rank r holds units [units*r/R, units*(r+1)/R) of every stretch. So the
 * fused QKV of an attention is three stretches of `heads` units, a concatenation of two feature
 * maps is two stretches, and a rank's part of a Concat is the Concat of its parts. Dims that a
 * node's axis ties together have equal stretches in units: a fixpoint over the graph refines them
 * until that holds. Sizes that do not divide are dealt out unevenly. A dim one of whose stretches
 * has fewer units than there are ranks cannot be split (no rank is ever empty). */
#ifndef TRM_PARALLEL_SHARDING_H
#define TRM_PARALLEL_SHARDING_H

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_SPLIT_STRETCHES_MAX 64 /* a dim in more pieces stays whole */

typedef struct trm_stretch {
    int64_t units, unit;
} trm_stretch;

typedef struct trm_split {
    int count;
    trm_stretch *stretches;
} trm_split;

/* How a dim of an input or output carries an axis. The axis has `extent` elements; the dim covers
 * [offset, offset + length) of them (all of it unless a Concat or Split cuts it), each of them
 * `scale` elements of the dim (inner dims merged into it), and all of that `repeat` times (outer
 * dims merged into it). */
/* Of trm_axis_dim.dim: this tensor does not carry the axis, it is whole on every rank; of a summed
 * axis: this tensor (a bias) is added to the sum, so it arrives as a partial sum itself. */
#define TRM_AXIS_NONE (-1)
#define TRM_AXIS_ADDED (-2)
typedef struct trm_axis_dim {
    int dim; /* or one of the above */
    int64_t offset, length, scale, repeat;
} trm_axis_dim;

typedef struct trm_axis {
    const char *name; /* for plans and tests: "out channels", "heads", "sum" */
    int64_t extent;
    int64_t unit;      /* smallest piece of the axis a rank may hold (1); a preference of a kernel
                          (channel blocks of 16) is put here where enough units remain */
    bool sum;          /* outputs are partial sums */
    bool tree;         /* outputs are sums by the summation tree (base/tree.h) of extent / unit
                          leaves, whole on every rank: the lowering is the node over a range of
                          leaves, then TrmReduceTree, which is what sharing it costs */
    bool contiguous;   /* a rank's part must be one range: the axis is dealt out in one stretch */
    int weight;        /* how much a network gains by sharing it, 0..4: decides between axes that
                          exclude each other, as those of a Reshape do */
    int reductions;    /* what sharing it costs beside its change of forms: all-reduces of one
                          element a row (of the dims that do not carry it), inside its lowering,
                          which is then several nodes */
    trm_axis_dim *in;  /* [input_count] */
    trm_axis_dim *out; /* [output_count] */
} trm_axis;

typedef struct trm_axes {
    int axis_count;
    trm_axis *axes;
    int linear_count;          /* 0..4 */
    uint32_t linear_inputs[4]; /* bit i: input i arrives as a partial sum, the others whole */
} trm_axes;

/* The placement of a value, or what a node wants of it. */
typedef enum trm_form {
    TRM_FORM_WHOLE = 0, /* replicated */
    TRM_FORM_PARTIAL,   /* the sum over ranks is the value */
    TRM_FORM_SPLIT      /* + d: split along dim d */
} trm_form;
#define TRM_FORM_COUNT (TRM_FORM_SPLIT + TRM_RANK_MAX)

typedef struct trm_sharding {
    trm_graph *graph; /* prepared (trm_pass_prepare), sorted; borrowed */
    int ranks;
    const trm_tensor *descs;           /* [value_count] concrete, borrowed */
    trm_axes *axes;                    /* [node_count] */
    trm_split (*splits)[TRM_RANK_MAX]; /* [value_count][dim]; count 0: cannot be split */
    trm_arena *arena;
} trm_sharding;

/* Analyses `g` for `ranks` ranks. descs (trm_shapes_bind) must outlive the result. Dims that are
 * symbols in the graph are never split, whatever descs says. */
TRM_MUST_USE trm_status trm_sharding_create(trm_graph *g, const trm_tensor *descs, int ranks,
                                            trm_sharding **sharding_out);
void trm_sharding_destroy(trm_sharding *s);

/* rules*.c: the axes of one node; axes with no splittable dim are left out. The default for
 * operators without a row is none: computed whole by every rank. Memory from `arena`. */
TRM_MUST_USE trm_status trm_rules_axes(const trm_graph *g, int node, const trm_tensor *descs,
                                       trm_arena *arena, trm_axes *axes_out);

int trm_sharding_strategy_count(const trm_sharding *s, int node); /* >= 1 */
/* False where an axis' dims cannot be split among the ranks. Strategy 0 is always possible. */
bool trm_sharding_possible(const trm_sharding *s, int node, int strategy);
trm_form trm_sharding_wants(const trm_sharding *s, int node, int strategy, int input);
trm_form trm_sharding_yields(const trm_sharding *s, int node, int strategy, int output);
bool trm_sharding_can_split(const trm_sharding *s, int value, int dim);

/* Elements of dim `dim` of `value` that `rank` holds when it is split. */
int64_t trm_split_part(const trm_split *split, int ranks, int rank);
/* sizes[stretch * ranks + rank], as the attribute of the collectives. */
void trm_split_sizes(const trm_split *split, int ranks, int64_t *sizes_out);
/* ranges[stretch][2] (begin, end) of `rank` in the whole dim; begin ascending. */
void trm_split_ranges(const trm_split *split, int ranks, int rank, int64_t (*ranges_out)[2]);
/* The descriptor of `value` in `form` on `rank`. */
trm_tensor trm_sharding_local(const trm_sharding *s, int value, trm_form form, int rank);
/* The largest share of any rank of an axis' work, 1/ranks when even. */
double trm_sharding_largest(const trm_sharding *s, int node, int strategy);

/* ---- changing forms ---- */
/* `have`: bit f set: form f of the value exists already (WHOLE of graph inputs; of constants every
 * form is free). The step that makes `want` at the least traffic, the same choice everywhere: the
 * form to start from and the operator (TRM_OP_NONE: nothing to do; TrmShard, TrmAllGather,
 * TrmAllReduce, TrmReduceScatter, TrmAllToAll). A whole value becomes a partial sum by Where: rank
 * 0 keeps it, the others have zeros, no traffic; a split one is gathered first, which is what
 * `op` then says (the whole form exists afterwards too). */
typedef struct trm_change {
    trm_form from;
    trm_op op;
} trm_change;
trm_change trm_form_change(uint32_t have, trm_form want);

#ifdef __cplusplus
}
#endif
#endif
