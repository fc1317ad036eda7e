/* Shared by the rules: looking at a node, making axes.
 *
 * A rule looks at the shapes of the graph (not at concrete ones: what holds for one batch must hold
 * for all) and offers axes; rules.c drops those whose dims turn out not to be constants of the
 * right extent, so rules need not check that. Everything takes NULL axes and absent tensors. */
#ifndef TRM_PARALLEL_RULES_IMPL_H
#define TRM_PARALLEL_RULES_IMPL_H

#include "parallel/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_AXES_MAX 24

typedef struct trmi_rules {
    const trm_graph *g;
    const trm_node *n;
    trm_arena *arena;
    trm_axes *axes; /* room for TRMI_AXES_MAX */
    bool no_memory;
} trmi_rules;

typedef void (*trmi_rule_fn)(trmi_rules *r);

enum { /* weights of axes: see trm_axis */
       TRMI_WEIGHT_NONE = 0,
       TRMI_WEIGHT_ROWS = 1,
       TRMI_WEIGHT_CHANNELS = 2,
       TRMI_WEIGHT_BATCH = 3,
       TRMI_WEIGHT_HEADS = 4
};

/* ---- looking ---- */
const trm_tensor *trmi_rules_in(const trmi_rules *r, int i); /* NULL: absent or rank unknown */
const trm_tensor *trmi_rules_out(const trmi_rules *r, int k);
static inline bool trmi_rules_has(const trmi_rules *r, int i)
{
    return i < r->n->input_count && r->n->inputs[i] != TRM_NO_VALUE;
}
/* Elements of a constant integer input of at most `max` elements; -1: not constant or larger. */
int trmi_rules_ints(const trmi_rules *r, int i, int64_t *out, int max);
/* Axis in [-rank, rank) to [0, rank); -1: out of range. */
int trmi_rules_at(int64_t axis, int rank);
/* Dim of `t` that broadcasting aligns with dim d of `rank` dims; -1: none. */
static inline int trmi_aligned(const trm_tensor *t, int rank, int d)
{
    return d - (rank - t->rank) >= 0 ? d - (rank - t->rank) : -1;
}

/* ---- making ---- */
/* A new axis that no tensor carries yet; NULL where there is nothing to share. */
trm_axis *trmi_rules_axis(trmi_rules *r, const char *name, int64_t extent, int weight);
void trmi_carry(trm_axis *a, trm_axis_dim *dims, int count, int i, int dim, int64_t scale,
                int64_t repeat);
static inline void trmi_carry_in(const trmi_rules *r, trm_axis *a, int i, int dim)
{
    if (a != NULL)
        trmi_carry(a, a->in, r->n->input_count, i, dim, 1, 1);
}
static inline void trmi_carry_out(const trmi_rules *r, trm_axis *a, int k, int dim)
{
    if (a != NULL)
        trmi_carry(a, a->out, r->n->output_count, k, dim, 1, 1);
}
static inline void trmi_scale_in(const trmi_rules *r, trm_axis *a, int i, int dim, int64_t scale,
                                 int64_t repeat)
{
    if (a != NULL)
        trmi_carry(a, a->in, r->n->input_count, i, dim, scale, repeat);
}
static inline void trmi_scale_out(const trmi_rules *r, trm_axis *a, int k, int dim, int64_t scale,
                                  int64_t repeat)
{
    if (a != NULL)
        trmi_carry(a, a->out, r->n->output_count, k, dim, scale, repeat);
}
void trmi_added(const trmi_rules *r, trm_axis *a, int i); /* input i is TRM_AXIS_ADDED */
/* Input i carries the axis in the dim that broadcasting aligns with dim d of `rank`; a dim of one
 * there, or none, carries nothing; another extent is left for rules.c to refuse. */
void trmi_broadcast_in(const trmi_rules *r, trm_axis *a, int i, int rank, int d, int64_t scale);
void trmi_linear(trmi_rules *r, uint32_t inputs);

/* ---- rules ---- */
/* rules_simple.c */
void trmi_rules_elementwise(trmi_rules *r);
void trmi_rules_add(trmi_rules *r);
void trmi_rules_mul(trmi_rules *r);
void trmi_rules_div(trmi_rules *r);
void trmi_rules_linear_unary(trmi_rules *r);
void trmi_rules_dropout(trmi_rules *r);
void trmi_rules_quantize(trmi_rules *r);
/* rules_dense.c */
void trmi_rules_conv(trmi_rules *r);
void trmi_rules_conv_transpose(trmi_rules *r);
void trmi_rules_qlinear_conv(trmi_rules *r);
void trmi_rules_conv_integer(trmi_rules *r);
void trmi_rules_matmul(trmi_rules *r);
void trmi_rules_matmul_integer(trmi_rules *r);
void trmi_rules_qlinear_matmul(trmi_rules *r);
void trmi_rules_gemm(trmi_rules *r);
void trmi_rules_einsum(trmi_rules *r);
void trmi_rules_trm_attention(trmi_rules *r);
void trmi_rules_attention(trmi_rules *r);
void trmi_rules_rotary(trmi_rules *r);
/* rules_language.c */
void trmi_rules_lm_embed(trmi_rules *r);
void trmi_rules_lm_norm(trmi_rules *r);
void trmi_rules_lm_linear(trmi_rules *r);
void trmi_rules_lm_rope(trmi_rules *r);
void trmi_rules_lm_attention(trmi_rules *r);
void trmi_rules_lm_gated(trmi_rules *r);
void trmi_rules_lm_experts(trmi_rules *r);
void trmi_rules_lm_rows(trmi_rules *r);
void trmi_rules_lm_pool(trmi_rules *r);
/* rules_rows.c */
void trmi_rules_pool(trmi_rules *r);
void trmi_rules_average_pool(trmi_rules *r);
void trmi_rules_batch_norm(trmi_rules *r);
void trmi_rules_instance_norm(trmi_rules *r);
void trmi_rules_group_norm(trmi_rules *r);
void trmi_rules_layer_norm(trmi_rules *r);
void trmi_rules_rows(trmi_rules *r); /* by attribute axis */
void trmi_rules_lrn(trmi_rules *r);
void trmi_rules_mvn(trmi_rules *r);
void trmi_rules_reduce(trmi_rules *r);
void trmi_rules_reduce_sum(trmi_rules *r);
void trmi_rules_cumsum(trmi_rules *r);
void trmi_rules_arg(trmi_rules *r);
void trmi_rules_recurrent(trmi_rules *r);
/* rules_move.c */
void trmi_rules_concat(trmi_rules *r);
void trmi_rules_split(trmi_rules *r);
void trmi_rules_slice(trmi_rules *r);
void trmi_rules_pad(trmi_rules *r);
void trmi_rules_transpose(trmi_rules *r);
void trmi_rules_expand(trmi_rules *r);
void trmi_rules_tile(trmi_rules *r);
void trmi_rules_gather(trmi_rules *r);
void trmi_rules_gather_elements(trmi_rules *r);
void trmi_rules_resize(trmi_rules *r);
void trmi_rules_shape(trmi_rules *r);
void trmi_rules_sample(trmi_rules *r);
/* rules_merge.c */
void trmi_rules_reshape(trmi_rules *r);
void trmi_rules_depth_to_space(trmi_rules *r);
void trmi_rules_space_to_depth(trmi_rules *r);

#ifdef __cplusplus
}
#endif
#endif
