/* TrmExperts on the device (kernels/language.h): what lies around the experts' products. Nothing
 * goes to the host: who gets which rows is known to the device only, and grids are sized by the
 * most rows there can be.
 *
 * route: softmax over a token's logits, its best experts, their shares; then *rows*, a token at an
 * expert that is here, in the order of experts, then of tokens. combine: the weighted sum of what
 * the experts gave, by ascending expert inside a group, then by the tree over groups. All of a
 * token's numbers are computed from that token alone, in an order that no other token changes. */
#ifndef TRM_KERNELS_CUDA_LM_EXPERTS_H
#define TRM_KERNELS_CUDA_LM_EXPERTS_H

#include "kernels/cuda/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_EXPERTS_MAX 1024 /* of a layer */
#define TRMI_EXPERTS_TOP_MAX 32
#define TRMI_EXPERTS_ALONE 64   /* most tokens that are routed in one launch */
#define TRMI_EXPERTS_COUNTED 32 /* tokens whose rows are counted together */

typedef struct trmi_experts {
    int32_t tokens, width;
    int32_t all, first, local; /* experts: of the layer; here [first, first + local) */
    int32_t top_k;
    int32_t group, groups; /* experts of a group, groups of the layer */
    int32_t parts;
    unsigned char ends[TRM_TREE_PARTS_MAX]; /* local groups up to the end of each part */
    bool normalize;
} trmi_experts;

/* Device memory. */
typedef struct trmi_experts_routes {
    int32_t *chosen; /* [tokens, top_k] experts of the layer, ascending */
    float *shares;   /* [tokens, top_k] what their outputs count */
    int32_t *rows;   /* [tokens, top_k] row, -1: the expert is elsewhere */
    int32_t *starts; /* [local + 1] first row of each expert, and how many there are */
    int32_t *row_of; /* [tokens * min(top_k, local)] a row's token */
    int32_t *counts; /* [trmi_experts_counts] scratch */
} trmi_experts_routes;
/* of `tokens` tokens */
size_t trmi_experts_counts(const trmi_experts *e, size_t tokens);

/* From router logits [tokens, all]. */
TRM_MUST_USE trm_status trmi_cuda_experts_route(cudaStream_t stream, const trmi_experts *e,
                                                const float *logits, const trmi_experts_routes *r);
/* y: [rows, width]; out: parts of [tokens, width], part_stride elements apart. */
TRM_MUST_USE trm_status trmi_cuda_experts_combine(cudaStream_t stream, const trmi_experts *e,
                                                  const trmi_experts_routes *r, const float *y,
                                                  float *out, size_t part_stride);

/* The plain family (lm_plain.c): weights as in the file, products in fp32, for any weight dtype;
 * what other families do not take. A warp an output: it reads weights once a row. */
extern const trmi_lmc_family trmi_lmc_plain;
TRM_MUST_USE trm_status trmi_cuda_lm_plain(cudaStream_t stream, const trmi_lmc_product *p);

#ifdef __cplusplus
}
#endif
#endif
