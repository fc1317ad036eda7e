/* What the three recurrent operators share: the kernel object, activations, and one cell each. */
#ifndef TRM_KERNELS_CPU_RECURRENT_H
#define TRM_KERNELS_CPU_RECURRENT_H

#include "kernels/cpu/math_util.h"

typedef struct recurrent_activation {
    trmi_row row;
    trmi_row_params params;
} recurrent_activation;

typedef struct recurrent_kernel {
    trm_kernel base;
    trm_op op;
    trm_dtype dtype;
    int gates, directions, input_count, output_count;
    bool first_reversed, batch_first, has_clip, input_forget, linear_before_reset;
    bool has_lengths;
    size_t steps, batch, input, hidden;
    trmi_row_params clip;
    recurrent_activation act[2][3]; /* [direction][f, g, h] */
    size_t input_elems[8];          /* of each input that is staged in fp32, else 0 */
} recurrent_kernel;

/* One sequence element: everything is a row of `hidden` (or gates * hidden) floats. */
typedef struct recurrent_cell {
    const recurrent_kernel *k;
    const recurrent_activation *act;
    const float *projected; /* X W^T, gates * hidden */
    float *gates;           /* H R^T on entry, scratch afterwards */
    const float *wb, *rb;   /* gates * hidden; zeros where the model has no bias */
    const float *peepholes; /* i, o, f; NULL: none */
    float *h, *c, *scratch; /* state, changed in place; scratch: hidden floats */
} recurrent_cell;

void trmi_cell_lstm(const recurrent_cell *cell);
void trmi_cell_rnn(const recurrent_cell *cell);
/* GRU needs two calls where the reset gate comes before the linear map: `gates` then holds z and r
 * of the first call; scratch takes r * h, whose product with R the caller puts into gates' third
 * part. */
void trmi_cell_gru_gates(const recurrent_cell *cell);
void trmi_cell_gru_finish(const recurrent_cell *cell);

#endif
