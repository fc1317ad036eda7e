/* The cells of LSTM, GRU and RNN: pointwise mathematics of one step of one batch element. */
#include "kernels/cpu/recurrent.h"

static void activate(const recurrent_cell *cell, int which, float *x, size_t n)
{
    const void *in[1] = {x};
    const size_t step[1] = {1};

    if (cell->k->has_clip)
        trmi_vec_get()->unary[TRM_OP_Clip](&cell->k->clip, n, x, in, step);
    cell->act[which].row(&cell->act[which].params, n, x, in, step);
}

/* gates[part] += projection + both biases */
static void add_inputs(const recurrent_cell *cell, size_t begin, size_t end)
{
    const float *p = cell->projected, *wb = cell->wb, *rb = cell->rb;
    float *g = cell->gates;

    _Pragma("GCC ivdep") for (size_t i = begin; i < end; i++) g[i] += p[i] + (wb[i] + rb[i]);
}

void trmi_cell_lstm(const recurrent_cell *cell)
{
    const size_t n = cell->k->hidden;
    float *i = cell->gates, *o = i + n, *f = o + n, *g = f + n, *c = cell->c, *h = cell->h;
    float *squashed = cell->scratch;
    const float *pi = cell->peepholes;

    add_inputs(cell, 0, 4 * n);
    if (pi != NULL) {
        for (size_t j = 0; j < n; j++) {
            i[j] += pi[j] * c[j];
            f[j] += pi[2 * n + j] * c[j];
        }
    }
    activate(cell, 0, i, n);
    if (cell->k->input_forget) {
        for (size_t j = 0; j < n; j++)
            f[j] = 1.0f - i[j];
    } else {
        activate(cell, 0, f, n);
    }
    activate(cell, 1, g, n);
    _Pragma("GCC ivdep") for (size_t j = 0; j < n; j++)
    {
        c[j] = f[j] * c[j] + i[j] * g[j];
        squashed[j] = c[j];
    }
    if (pi != NULL)
        for (size_t j = 0; j < n; j++)
            o[j] += pi[n + j] * c[j];
    activate(cell, 0, o, n);
    activate(cell, 2, squashed, n);
    _Pragma("GCC ivdep") for (size_t j = 0; j < n; j++) h[j] = o[j] * squashed[j];
}

void trmi_cell_rnn(const recurrent_cell *cell)
{
    const size_t n = cell->k->hidden;

    add_inputs(cell, 0, n);
    activate(cell, 0, cell->gates, n);
    for (size_t j = 0; j < n; j++)
        cell->h[j] = cell->gates[j];
}

void trmi_cell_gru_gates(const recurrent_cell *cell)
{
    const size_t n = cell->k->hidden;
    const float *r = cell->gates + n;

    add_inputs(cell, 0, 2 * n);
    activate(cell, 0, cell->gates, 2 * n);
    for (size_t j = 0; j < n; j++)
        cell->scratch[j] = r[j] * cell->h[j];
}

void trmi_cell_gru_finish(const recurrent_cell *cell)
{
    const size_t n = cell->k->hidden;
    const float *z = cell->gates, *r = z + n;
    float *g = cell->gates + 2 * n, *h = cell->h;

    if (cell->k->linear_before_reset) {
        for (size_t j = 0; j < n; j++)
            g[j] = cell->projected[2 * n + j] + cell->wb[2 * n + j] +
                   r[j] * (g[j] + cell->rb[2 * n + j]);
    } else {
        add_inputs(cell, 2 * n, 3 * n);
    }
    activate(cell, 1, g, n);
    for (size_t j = 0; j < n; j++)
        h[j] = (1.0f - z[j]) * g[j] + z[j] * h[j];
}
