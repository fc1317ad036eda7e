/* Operators of language models: what kernels of every device agree on. The graph builder
 * (model/architectures) makes them, the placement pass splits them, kernels/cpu/lm_*.c run them.
 *
 * Activations are F32 [T, width], row-major; a row is one token of a step, T the tokens of the step
 * (a symbol of the graph: programs are bound for a grid of T, rows beyond the step's tokens are
 * padding: their sequence is -1, and what they hold never reaches others). One rule above all,
 * *layout invariance*: a row's bits depend on that row's inputs alone, not on T, on the row's place
 * in the step, on threads, or on how heads, features and vocabulary are dealt out to ranks. So
 * nothing is summed in an order that depends on those, and the vector body and the tail of a loop
 * compute the same bits (masked vectors, not a scalar tail with another function).
 *
 * TrmEmbed(ids [T] I32, table [V, D] any weight dtype) -> [T, D]; attr scale (1). ids outside [0,
 * V) give zeros (they are checked where they come in). TrmNorm(x [T, D], weight [G], bias [G]?) ->
 * [T, D]; attrs kind "rms" | "layer", epsilon, offset (0: added to the weight: Gemma's 1 + w); G
 * divides D: each group of G is normalised by itself (Qwen3's q and k, per head). Sums run in 64
 * lanes, in double or fp32 whatever the ISA, in one fixed order. TrmLinear(x [T, K], weight [N, K]
 * any weight dtype, bias [N] F32?) -> [T, N]; attrs: unit (0): 0: K is summed in one go, else K is
 * cut in leaves of `unit` elements (trm_tree_leaves; a multiple of the weight's block, of 32, and
 * of what the placement pass must not cut: a head), each summed in order in fp32, and leaves are
 * combined by the tree of base/tree.h. A rank's part of such a node has attrs first, leaves (of the
 * whole tree; `leaves` present says that it is a part): x and weight are the K range of leaves
 * [first, first + K / unit), and the output is [P, T, N]: the maximal nodes of the tree inside that
 * range, in order (trm_tree_parts), for TrmReduceTree. The bias is then another node's (Add after
 * the sum). transposed (0): weight is [K, N] (GPT-2's Conv1D).  act (absent): "bf16": activations
 * are rounded to BF16 first (weights BF16 or fp8), "f16": to F16 (weights F16), else they are fp32;
 * integer block types always quantise them to int8 with one fp32 scale a 32 elements.
 * TrmRope(x [T, H * head_dim], positions [T]
 * I32, frequencies [rotary / 2] F32) -> as x; attrs head_dim, interleaved (0: pairs (i, i + rotary
 * / 2), 1: (2i, 2i + 1)), scale (1: multiplies cos and sin). angle = position * frequency. Computed
 * as the reference implementations do: fp32 product, fp32 cos and sin. TrmPagedAttention(q [T, H *
 * head_dim], k [T, KV * head_dim], v [T, KV * head_dim], step, sinks?) -> [T, H * head_dim]; attrs
 * heads, kv_heads (local ones), head_dim, scale, softcap (0), window (0: all; W: positions p - W <
 * j <= p), kv_dtype ("f32"; as trm_step's, for kernels that are chosen before there is a step),
 * layer (index of its pages in the step's cache), group (query heads a kv head in the whole model),
 * first_head (0: of this rank, where its query heads share kv heads with others: query head h reads
 * local kv head (first_head + h) / group - first_head / group), encoder (0; 1: no cache: every
 * token sees all tokens of its sequence in the step). Writes k and v to their pages, then attends.
 * Scores in chunks of TRM_KV_PAGE positions at absolute positions, merged in ascending order with a
 * running maximum; chunks wholly outside the window are skipped. TrmGated(x [T, F], up [T, F]?) ->
 * [T, F]; attr act: "silu", "gelu" (erf), "gelu_tanh", "relu", "tanh", "softcap" (attr cap: cap *
 * tanh(x / cap)), "none"; times up. TrmExperts(x [T, D], router [T, E_all] F32, gate [E, F, D], up
 * [E, F, D], down [E, D, F]) -> [T, D]; attrs top_k, normalize (weights of the chosen are
 * renormalised to 1), act, act_dtype (as TrmLinear's act), groups (G: experts [g * E_all / G, (g +
 * 1) * E_all / G) are a group, a leaf of the tree), first (0: first local expert), leaves (as
 * TrmLinear: the output is [P, T, D]). softmax over all of a row's router logits, then the top_k
 * (ties: lower id first), weighted sum of expert outputs by ascending id inside a group, then by
 * the tree. TrmRows(x [T, D], rows [R] I32) -> [R, D]: picks rows; a row outside [0, T) gives
 * zeros. TrmPool(x [T, D], step) -> [S, D], S = step->sequences_padded, the length of `step`; rows
 * past the step's sequences are zeros; attrs kind "mean" | "cls" | "last", normalize (1: L2).
 * TrmReduceTree([P, T, N]) -> [T, N]; attrs leaves, first, count (leaves of this rank), most (P of
 * the rank that has most), ranks, rank, counts [ranks] (leaves of every rank; absent: devices do
 * not sum among themselves): every rank gets the whole sum.
 *
 * Fused forms, made after the graph has been cut for a rank (model/passes/fuse_language.c); each
 * computes, element by element, what its parts do:
 * TrmAddNorm(x [T, D], y [T, D], weight [D], bias [D]?) -> sum [T, D], normed [T, D]; attrs as
 * TrmNorm; where nobody reads the sum, it has no memory (and dtype NONE when it is prepared).
 * TrmReduceTree(parts [P, T, D], residual [T, D], weight [D], bias [D]?) -> sum [T, D], normed [T,
 * D]; attrs of TrmReduceTree and of TrmNorm (kind, epsilon, offset): TrmAddNorm of the residual and
 * the whole sum, in one step. The operands of the addition are the residual, then the sum.
 * TrmLinears(x, weight 1..n, then bias 1..n or none) -> y 1..n: n = 2..4 TrmLinears of one input,
 * without unit; attrs transposed, act, n; `gated` (an activation of TrmGated): n = 2 and one
 * output, gated(y 1) * y 2. TrmPagedAttention with inputs 5 and 6, positions and frequencies, and
 * attrs rope_interleaved, rope_scale: q and k are turned as by TrmRope first.
 *
 * Rounded rows, for devices that ask for them (model/passes/round_language.c): an operator that
 * makes rows which only products read (TrmNorm, TrmAddNorm and TrmReduceTree's `normed`, TrmGated,
 * gated TrmLinears) has the attr `rounds`: "bf16", "f16" or "i8", and makes them as those products
 * would have rounded them first: [T, K] BF16 or F16, or TRM_DTYPE_U8 [T, row_bytes], int8 with a
 * scale a 32 elements (attrs row_bytes, sums: base/rounding.h). The products' bits do not change.
 *
 * TrmSample(logits [R, V], step) -> [R, sizeof(trm_step_sampled)] U8: on devices with memory of
 * their own, behind the graph's logits: step->samples says how each row becomes a token, by the
 * rules of worker/language/sampler.h. Its token is kept in slot_tokens too.
 *
 * `step` is an I64 tensor whose first element holds the address of a trm_step in this process; the
 * same for every node of a step. Its shape is [1], or [S] in a graph with TrmPool: that is where S,
 * a symbol of the graph, comes from. On a device with memory of its own the tensor's memory is the
 * device's block of the step instead (trm_device_ops.step_encode). */
#ifndef TRM_KERNELS_LANGUAGE_H
#define TRM_KERNELS_LANGUAGE_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Positions of a page of the cache, and of a chunk of attention. */
#define TRM_KV_PAGE 16

/* One sequence's part of a step: tokens in rows [row, row + tokens), at positions [position,
 * position + tokens), whose keys and values before `position` are in the pages. */
typedef struct trm_step_sequence {
    int32_t row, tokens, position;
    const int32_t *pages; /* [ceil((position + tokens) / TRM_KV_PAGE)] page numbers */
} trm_step_sequence;

/* The cache of one layer on this rank: pages of [2 (k, v)][kv_heads][TRM_KV_PAGE * head_dim]
 * elements. On the CPU keys lie [head_dim][TRM_KV_PAGE] inside (positions innermost: scores of a
 * page are one vector), values [TRM_KV_PAGE][head_dim]; on a GPU both [TRM_KV_PAGE][head_dim].
 * Layers may differ in heads. I8: behind a head's elements stand TRM_KV_PAGE fp32 scales, one a
 * position: x = scale * q, scale = amax / 127. */
typedef struct trm_kv_layer {
    void *pages;       /* device memory */
    size_t page_bytes; /* trm_kv_page_bytes */
} trm_kv_layer;

/* Of `tokens`: the token is the last one drawn for a slot, which the host does not know yet. */
#define TRM_STEP_TOKEN_OF_SLOT(slot) (-2 - (slot))

typedef struct trm_step_bias {
    int32_t id;
    float bias;
} trm_step_bias;

/* How a row of logits becomes a token, or is reported on; fields as trm_sampling's. */
typedef struct trm_step_sample {
    int32_t row_kind; /* 0: draw the next token; 1: what the row says of `target` */
    int32_t slot, target;
    int64_t position; /* of the token, from the beginning of the prompt */
    float temperature, top_p, min_p, typical_p;
    int32_t top_k;
    float repetition_penalty, presence_penalty, frequency_penalty;
    uint64_t seed;
    uint32_t stream;
    int32_t logprobs;
    int32_t bias_count, end_count;
    const trm_step_bias *bias; /* by ascending id; of the same id in the order of the request */
    const int32_t *ends;       /* forbidden in this row (min_tokens is not reached) */
    const uint32_t *allowed;   /* [ceil(V / 32)] bit v: token v may come; NULL: all may */
} trm_step_sample;

/* A slot begins anew: its counts are cleared, and those of the prompt's tokens are marked. */
typedef struct trm_step_begin {
    int32_t slot, prompt_count; /* 0: no penalty counts the prompt */
    const int32_t *prompt;
} trm_step_begin;

#define TRM_STEP_TOP_MAX 20
typedef struct trm_step_sampled { /* as trm_sampled (worker/language/sampler.h) */
    int32_t id;                   /* TRM_STEP_SAMPLED_*: none */
    float logprob;
    int32_t rank;
    int32_t top_count;
    int32_t top_ids[TRM_STEP_TOP_MAX];
    float top_logprobs[TRM_STEP_TOP_MAX];
} trm_step_sampled;
#define TRM_STEP_SAMPLED_NOTHING (-1)     /* logits were not finite, or `ends` forbid all */
#define TRM_STEP_SAMPLED_CONSTRAINED (-2) /* `allowed`, with `ends`, leaves no token */

/* slot_counts[slot][v]: times that v is in the slot's output, up to TRM_STEP_COUNT_MAX, plus
 * TRM_STEP_IN_PROMPT where the prompt has it. */
#define TRM_STEP_COUNT_MAX 0x7fff
#define TRM_STEP_IN_PROMPT 0x8000

typedef struct trm_step {
    int32_t tokens; /* rows in use, of T */
    int32_t sequence_count;
    int32_t sequences_padded; /* >= sequence_count */
    const trm_step_sequence *sequences;
    trm_dtype kv_dtype; /* F32, F16, BF16: conversions round to nearest even; I8 */
    int32_t layer_count;
    const trm_kv_layer *layers; /* [layer_count], by attribute `layer` */
    /* Only for devices with memory of their own; host memory unless it says otherwise. */
    int32_t token_rows, pick_rows;                /* T and R of this step's program */
    int32_t token_max, pick_max;                  /* the largest there will be, fixed */
    const int32_t *token_ids, *positions, *types; /* [token_rows]; types NULL: none */
    const int32_t *rows;                          /* [pick_rows] */
    int32_t sample_count, begin_count;            /* samples: of the first rows of R */
    const trm_step_sample *samples;
    const trm_step_begin *begins;
    int64_t vocabulary;
    int32_t slots;
    int32_t *slot_tokens; /* device memory [slots] */
    uint16_t
        *slot_counts; /* device memory [slots][vocabulary]; NULL: no row of the step penalises */
} trm_step;

static inline size_t trm_kv_page_bytes(int64_t kv_heads, int64_t head_dim, trm_dtype dtype)
{
    size_t scale = dtype == TRM_DTYPE_I8 ? sizeof(float) : 0;

    return 2 * (size_t)kv_heads * TRM_KV_PAGE * ((size_t)head_dim * trm_dtype_bytes(dtype) + scale);
}

#ifdef __cplusplus
}
#endif
#endif
