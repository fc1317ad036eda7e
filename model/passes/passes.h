/* Graph passes. Each keeps the graph's inputs and outputs (names, order, meaning) and leaves it
 * sorted. */
#ifndef TRM_MODEL_PASSES_PASSES_H
#define TRM_MODEL_PASSES_PASSES_H

#include "base/rounding.h"
#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs one node on the host: given by a caller that has a device (model/ knows none). Inputs are
 * plain, aligned host tensors (dtype NONE: absent). On success outputs[] are filled in with data
 * owned by the evaluator, valid until its next call. UNSUPPORTED: the node stays as it is. */
typedef struct trm_evaluator {
    trm_status (*run)(void *ctx, const trm_node *node, const trm_tensor *inputs,
                      trm_tensor *outputs);
    void *ctx;
} trm_evaluator;

/* Replaces nodes whose inputs are all constant by constants (results over 64 MiB, or larger than 4
 * times their inputs and over 1 MiB, stay nodes), Shape/Size of known dims, and identities. Bodies
 * too. */
TRM_MUST_USE trm_status trm_pass_fold(trm_graph *g, const trm_evaluator *evaluator);

/* Fusion: conv + batch norm (into weights), layer norm, gelu, silu, attention patterns, transposes
 * and reshapes that cancel. Needs shapes (trm_graph_infer). */
TRM_MUST_USE trm_status trm_pass_fuse(trm_graph *g);
/* conv/gemm/matmul + bias + add + activation become post-ops. After trm_pass_fuse; needs shapes. */
TRM_MUST_USE trm_status trm_pass_posts(trm_graph *g);

/* Operators of language models become their fused forms (kernels/language.h), which compute the
 * same bits. For a graph that has been cut for its rank: the placement does not know them. Needs
 * shapes.
 */
TRM_MUST_USE trm_status trm_pass_fuse_language(trm_graph *g);
/* TrmEmbed gets `tied` = 1 where a TrmLinear of the same graph multiplies by its table, and that
 * one's `act`. */
TRM_MUST_USE trm_status trm_pass_tie_language(trm_graph *g);

/* Rows that only products read are made rounded, as the device's `rounding` says (NULL: not at all;
 * nor where the environment says TRM_FUSE=off). After trm_pass_finish; needs shapes, and keeps
 * them.
 */
TRM_MUST_USE trm_status trm_pass_round_language(trm_graph *g, trm_rounding_fn *rounding);

/* Mixed precision: convolutions and matmuls compute in `dtype` (BF16 or F16), with Cast nodes only
 * where a chain begins or ends; norms, softmax and reductions stay in fp32; inputs and outputs of
 * the graph keep their dtypes. */
TRM_MUST_USE trm_status trm_pass_precision(trm_graph *g, trm_dtype dtype);
/* Whether the node can be part of such a chain: what it makes is then 16 bits. For estimates. */
bool trm_pass_precision_lowers(const trm_node *n);

/* Self-attention reads the rows of one product instead of transposed q, k and v: for a device that
 * has TrmAttentionPacked, after trm_pass_finish and trm_pass_precision. */
TRM_MUST_USE trm_status trm_pass_pack_attention(trm_graph *g);

/* What every model goes through once after import: infer, fold, infer, fuse (all but post-ops),
 * infer. evaluator may be NULL (no folding). The planner looks at the graph in this state. */
TRM_MUST_USE trm_status trm_pass_prepare(trm_graph *g, const trm_evaluator *evaluator);
/* What a graph goes through just before the executor gets it, after the planner has cut it:
 * post-ops are fused into their hosts, operators of language models with each other (trm_pass_fuse_
 * language, unless the environment says TRM_FUSE=off); infer. */
TRM_MUST_USE trm_status trm_pass_finish(trm_graph *g);
/* Both, for a graph that one rank runs alone. */
TRM_MUST_USE trm_status trm_pass_all(trm_graph *g, const trm_evaluator *evaluator);

#ifdef __cplusplus
}
#endif
#endif
