/* LinearAttention on the device: a recurrence over the sequence with one state [dk, dv] a key-value
 * head,
 *
 *   S = exp(g) S;  v' = beta (v - S^T k) in the delta rules, else v;  S += k v'^T;
 *   o = scale q^T S   for each query head of the group.
 *
 * query [batch, length, q_heads dk], key [batch, length, heads dk], value [batch, length, heads
 * dv], state [batch, heads, dk, dv], decay [batch, length, decay_wide], beta [batch, length,
 * beta_wide]. Any float dtype each; arithmetic is fp32. */
#ifndef TRM_KERNELS_CUDA_LINEAR_ATTENTION_H
#define TRM_KERNELS_CUDA_LINEAR_ATTENTION_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TRMI_LINEAR_QUERY,
    TRMI_LINEAR_KEY,
    TRMI_LINEAR_VALUE,
    TRMI_LINEAR_STATE,
    TRMI_LINEAR_DECAY,
    TRMI_LINEAR_BETA,
    TRMI_LINEAR_INPUTS
};

typedef struct trmi_linear_attention {
    trm_dtype in[TRMI_LINEAR_INPUTS], out, state; /* NONE: absent; state: not wanted */
    bool gated, delta;
    int batch, length, q_heads, heads, dk, dv;
    int decay_wide; /* heads, or heads * dk */
    int beta_wide;  /* 1 or heads */
    float scale;
    /* set by run */
    const void *from[TRMI_LINEAR_INPUTS];
    void *to, *state_to;
} trmi_linear_attention;

/* Shared memory of a block; the caller checks that the device has it. */
size_t trmi_cuda_linear_attention_smem(const trmi_linear_attention *a);
TRM_MUST_USE trm_status trmi_cuda_linear_attention(const trmi_linear_attention *a,
                                                   cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
