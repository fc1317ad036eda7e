/* TrmExperts in two halves: which expert gets which token and what becomes of their outputs
 * (lm_experts_route.c), and the experts' products (lm_experts.c). */
#ifndef TRM_KERNELS_CPU_LM_EXPERTS_H
#define TRM_KERNELS_CPU_LM_EXPERTS_H

#include "kernels/cpu/lm_linear.h"

typedef struct trmi_experts_shape {
    size_t tokens, width;     /* x: [tokens, width] */
    size_t all, first, local; /* experts: of the layer; here [first, first + local) */
    size_t top_k, group;      /* group: experts of a leaf of the tree */
    bool normalize;
    trmi_lm_leaves fold; /* of the local groups */
} trmi_experts_shape;

/* Who goes where. A *row* is a token at an expert that is here; rows lie by expert, then token. */
typedef struct trmi_experts_routes {
    float *scores;   /* [tokens, all]; spent while choosing */
    int32_t *chosen; /* [tokens, top_k] experts of the whole layer, ascending */
    float *shares;   /* [tokens, top_k] what their outputs count */
    int32_t *rows;   /* [tokens, top_k] row, -1: the expert is elsewhere */
    size_t *starts;  /* [local + 1] first row of each expert */
    int32_t *tokens; /* [rows] */
} trmi_experts_routes;

/* From router logits [tokens, all]. On the team. */
void trmi_experts_route(const trmi_experts_shape *shape, const float *logits,
                        const trmi_experts_routes *routes);
/* out [parts, tokens, width] from the experts' outputs y [rows, width]. On the team. */
void trmi_experts_combine(const trmi_experts_shape *shape, const trmi_experts_routes *routes,
                          const float *y, float *out);

#endif
