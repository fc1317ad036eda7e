/* LSTM, GRU and RNN on the device, with all of ONNX's options.
 *
 * All steps of all directions are projected by one matrix product,
 *
 *   projected[row, d * G H + g H + j] = sum over i of x[row, i] w[d, g H + j, i]
 *
 * (rows as x has them: step-major, or batch-major with batch_first; G gates, H hidden units); then
 * each step is one launch (two for a GRU whose reset gate comes before the linear map): the product
 * of the state with R^T and the gates. The state is fp32 in two copies, read and written by turns.
 * Sequences that have ended keep their state and give zeros. */
#ifndef TRM_KERNELS_CUDA_RECURRENT_H
#define TRM_KERNELS_CUDA_RECURRENT_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_recurrent_function {
    TRMI_RECURRENT_RELU,
    TRMI_RECURRENT_TANH,
    TRMI_RECURRENT_SIGMOID,
    TRMI_RECURRENT_AFFINE,
    TRMI_RECURRENT_LEAKY_RELU,
    TRMI_RECURRENT_THRESHOLDED_RELU,
    TRMI_RECURRENT_SCALED_TANH,
    TRMI_RECURRENT_HARD_SIGMOID,
    TRMI_RECURRENT_ELU,
    TRMI_RECURRENT_SOFTSIGN,
    TRMI_RECURRENT_SOFTPLUS,
} trmi_recurrent_function;

typedef struct trmi_recurrent_activation {
    trmi_recurrent_function function;
    float alpha, beta;
} trmi_recurrent_activation;

typedef struct trmi_recurrent {
    trm_op op;       /* LSTM, GRU, RNN */
    trm_dtype dtype; /* F32, F16, BF16: of all tensors but lengths */
    int gates, directions, steps, batch, input, hidden;
    bool first_reversed, batch_first, input_forget, linear_before_reset;
    float clip;                              /* of what goes into an activation; 0: none */
    trmi_recurrent_activation act[2][3];     /* [direction][f, g, h] */
    const void *x, *w, *r, *b, *h0, *c0, *p; /* b, h0, c0, p: NULL where absent */
    const int32_t *lengths;                  /* [batch] or NULL; taken as within 0 to steps */
    void *y, *y_h, *y_c;                     /* NULL: not wanted */
    /* scratch, fp32: [steps * batch, directions * gates * hidden]; 2 copies of [directions, batch,
     * hidden]; one; two (GRU only: z, r h) */
    float *projected, *h, *c, *scratch;
} trmi_recurrent;

/* The projection by a kernel of our own, for what cuBLASLt does not take. */
TRM_MUST_USE trm_status trmi_cuda_recurrent_project(const trmi_recurrent *r, cudaStream_t stream);
/* Initial states to the scratch; with no steps also to y_h and y_c. */
TRM_MUST_USE trm_status trmi_cuda_recurrent_begin(const trmi_recurrent *r, cudaStream_t stream);
/* One step of all directions: a direction that runs backwards does that step from the end. The last
 * one writes y_h and y_c. */
TRM_MUST_USE trm_status trmi_cuda_recurrent_step(const trmi_recurrent *r, int step,
                                                 cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
