/* Reference of paged attention: one sequence with its whole history, no pages. */
#ifndef TRM_KERNELS_REFERENCE_LM_ATTENTION_H
#define TRM_KERNELS_REFERENCE_LM_ATTENTION_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_attention_ref {
    size_t tokens, heads, kv_heads, head_dim, group, first_head;
    double scale, softcap; /* softcap 0: none */
    size_t window;         /* 0: all */
    bool encoder;          /* every token sees all; else those up to itself */
    const float *q;        /* [tokens][heads * head_dim] */
    const float *k, *v;    /* [tokens][kv_heads * head_dim], as the cache's dtype rounds them */
    const float *sinks;    /* [heads] or NULL */
} trm_lm_attention_ref;

/* out: [head_dim], in double. */
void trm_lm_attention_reference(const trm_lm_attention_ref *r, size_t token, size_t head,
                                double *out);

#ifdef __cplusplus
}
#endif
#endif
