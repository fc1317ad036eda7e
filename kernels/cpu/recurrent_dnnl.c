/* LSTM, GRU, RNN with all of ONNX's options: directions, batch-first layout, sequence lengths,
 * initial states, peepholes, activation lists, clip.
 *
 * All steps are projected by one matrix product (X W^T); each step then multiplies the state of the
 * whole batch by R^T and runs the cells. Sequences that have ended keep their state and give zeros.
 * Work is fp32; 16-bit tensors are converted whole. */
#include "kernels/cpu/dnnl_util.h"
#include "kernels/cpu/recurrent.h"

#include <string.h>
#include <strings.h>

enum { IN_X, IN_W, IN_R, IN_B, IN_LENGTHS, IN_H, IN_C, IN_P, IN_COUNT };

/* everything a run needs; `in` are fp32 pointers or NULL */
typedef struct recurrent_run {
    const recurrent_kernel *k;
    const float *in[IN_COUNT];
    const int32_t *lengths;
    float *y, *y_h, *y_c; /* NULL: not wanted */
    float *projected, *gates, *h, *c, *scratch, *zeros;
    int direction;
    size_t step;
    bool finish; /* GRU: second half */
} recurrent_run;

static trm_status product(const float *a, const float *b, float *c, size_t m, size_t n, size_t k,
                          size_t ldc)
{
    /* c [m, n] = a [m, k] b [n, k]^T */
    if (m == 0 || n == 0)
        return TRM_OK;
    return trmi_dnnl_status(dnnl_sgemm('N', 'T', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0f,
                                       a, (dnnl_dim_t)k, b, (dnnl_dim_t)k, 0.0f, c,
                                       (dnnl_dim_t)ldc),
                            "sgemm");
}

static size_t length_of(const recurrent_run *r, size_t b)
{
    return r->lengths != NULL ? (size_t)r->lengths[b] : r->k->steps;
}

static void cells(void *ctx, size_t begin, size_t end)
{
    const recurrent_run *r = ctx;
    const recurrent_kernel *k = r->k;
    size_t n = k->hidden, wide = (size_t)k->gates * n, d = (size_t)r->direction;
    bool reversed = k->first_reversed || r->direction == 1;

    for (size_t b = begin; b < end; b++) {
        size_t length = length_of(r, b), t = reversed ? length - 1 - r->step : r->step;
        recurrent_cell cell = {.k = k, .act = k->act[d]};

        if (r->step >= length)
            continue;
        cell.projected =
            r->projected + (k->batch_first ? b * k->steps + t : t * k->batch + b) * wide;
        cell.gates = r->gates + b * wide;
        cell.wb = r->in[IN_B] != NULL ? r->in[IN_B] + 2 * d * wide : r->zeros;
        cell.rb = r->in[IN_B] != NULL ? cell.wb + wide : r->zeros;
        cell.peepholes = r->in[IN_P] != NULL ? r->in[IN_P] + 3 * d * n : NULL;
        cell.h = r->h + b * n;
        cell.c = r->c + b * n;
        cell.scratch = r->scratch + b * n;
        if (k->op == TRM_OP_LSTM)
            trmi_cell_lstm(&cell);
        else if (k->op == TRM_OP_RNN)
            trmi_cell_rnn(&cell);
        else if (!r->finish)
            trmi_cell_gru_gates(&cell);
        if (k->op == TRM_OP_GRU && !r->finish)
            continue;
        if (k->op == TRM_OP_GRU)
            trmi_cell_gru_finish(&cell);
        if (r->y != NULL) {
            size_t at = k->batch_first ? (b * k->steps + t) * (size_t)k->directions + d
                                       : (t * (size_t)k->directions + d) * k->batch + b;

            memcpy(r->y + at * n, cell.h, n * sizeof(float));
        }
    }
}

/* State [direction, batch, hidden] (batch_first: [batch, direction, hidden]) from or to the
 * outside. */
static size_t state_at(const recurrent_kernel *k, size_t d, size_t b)
{
    return (k->batch_first ? b * (size_t)k->directions + d : d * k->batch + b) * k->hidden;
}

static trm_status one_direction(recurrent_run *r)
{
    const recurrent_kernel *k = r->k;
    size_t n = k->hidden, wide = (size_t)k->gates * n, d = (size_t)r->direction;
    const float *w = r->in[IN_W] + d * wide * k->input, *rw = r->in[IN_R] + d * wide * n;
    size_t row = n * sizeof(float), grain = 1 + TRMI_GRAIN / 8 / (wide + 1), longest = 0;
    bool split = k->op == TRM_OP_GRU && !k->linear_before_reset;

    for (size_t b = 0; b < k->batch; b++) {
        if (r->in[IN_H] != NULL)
            memcpy(r->h + b * n, r->in[IN_H] + state_at(k, d, b), row);
        else
            memset(r->h + b * n, 0, row);
        if (r->in[IN_C] != NULL)
            memcpy(r->c + b * n, r->in[IN_C] + state_at(k, d, b), row);
        else
            memset(r->c + b * n, 0, row);
        longest = length_of(r, b) > longest ? length_of(r, b) : longest;
    }
    TRM_CHECK(product(r->in[IN_X], w, r->projected, k->steps * k->batch, wide, k->input, wide));
    for (r->step = 0; r->step < longest; r->step++) {
        TRM_CHECK(product(r->h, rw, r->gates, k->batch, split ? 2 * n : wide, n, wide));
        r->finish = false;
        trm_team_for(k->batch, grain, cells, r);
        if (k->op != TRM_OP_GRU)
            continue;
        if (split)
            TRM_CHECK(product(r->scratch, rw + 2 * n * n, r->gates + 2 * n, k->batch, n, n, wide));
        r->finish = true;
        trm_team_for(k->batch, grain, cells, r);
    }
    for (size_t b = 0; b < k->batch; b++) {
        if (r->y_h != NULL)
            memcpy(r->y_h + state_at(k, d, b), r->h + b * n, row);
        if (r->y_c != NULL)
            memcpy(r->y_c + state_at(k, d, b), r->c + b * n, row);
    }
    return TRM_OK;
}

static size_t y_elems(const recurrent_kernel *k)
{
    return k->steps * k->batch * (size_t)k->directions * k->hidden;
}

static size_t state_elems(const recurrent_kernel *k)
{
    return k->batch * (size_t)k->directions * k->hidden;
}

static float *take(char **at, size_t elems)
{
    float *p = (float *)(void *)*at;

    *at += trm_align_up(elems * sizeof(float), TRM_ALIGN);
    return p;
}

static trm_status recurrent_run_kernel(trm_kernel *base, trm_stream *s, const void *const *in,
                                       void *const *out, void *workspace)
{
    const recurrent_kernel *k = (const recurrent_kernel *)base;
    recurrent_run r = {.k = k};
    char *at = workspace;
    size_t wide = (size_t)k->gates * k->hidden;
    size_t out_elems[3] = {y_elems(k), state_elems(k), state_elems(k)};
    float *results[3] = {NULL, NULL, NULL};

    (void)s;
    for (int i = 0; i < k->input_count; i++) {
        if (i == IN_LENGTHS) {
            r.lengths = k->has_lengths ? in[i] : NULL;
        } else if (k->dtype == TRM_DTYPE_F32 || in[i] == NULL) {
            r.in[i] = in[i];
        } else {
            float *to = take(&at, k->input_elems[i]);

            trmi_convert(TRM_DTYPE_F32, to, k->dtype, in[i], k->input_elems[i]);
            r.in[i] = to;
        }
    }
    for (size_t b = 0; r.lengths != NULL && b < k->batch; b++)
        if (r.lengths[b] < 0 || (size_t)r.lengths[b] > k->steps)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s: sequence length %d of batch element %zu: want 0 "
                            "to %zu",
                            trm_op_get(k->op)->name, (int)r.lengths[b], b, k->steps);
    for (int i = 0; i < k->output_count; i++)
        if (out[i] != NULL)
            results[i] = k->dtype == TRM_DTYPE_F32 ? out[i] : take(&at, out_elems[i]);
    r.y = results[0];
    r.y_h = results[1];
    r.y_c = results[2];
    r.projected = take(&at, k->steps * k->batch * wide);
    r.gates = take(&at, k->batch * wide);
    r.h = take(&at, k->batch * k->hidden);
    r.c = take(&at, k->batch * k->hidden);
    r.scratch = take(&at, k->batch * k->hidden);
    r.zeros = take(&at, wide);
    memset(r.zeros, 0, wide * sizeof(float));
    memset(r.scratch, 0, k->batch * k->hidden * sizeof(float));
    if (r.y != NULL)
        memset(r.y, 0, out_elems[0] * sizeof(float));
    for (r.direction = 0; r.direction < k->directions; r.direction++)
        TRM_CHECK(one_direction(&r));
    for (int i = 0; i < k->output_count && k->dtype != TRM_DTYPE_F32; i++)
        if (out[i] != NULL)
            trmi_convert(k->dtype, out[i], TRM_DTYPE_F32, results[i], out_elems[i]);
    return TRM_OK;
}

static const trm_kernel_ops recurrent_ops = {
    .name = "recurrent", .run = recurrent_run_kernel, .destroy = trmi_kernel_free};

/* ---- activations ---- */
static void row_affine(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                       const size_t *step)
{
    (void)step;
    for (size_t i = 0; i < n; i++)
        ((float *)out)[i] = p->alpha * ((const float *)in[0])[i] + p->beta;
}

static void row_scaled_tanh(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                            const size_t *step)
{
    float *o = out;

    for (size_t i = 0; i < n; i++)
        o[i] = p->beta * ((const float *)in[0])[i];
    trmi_vec_get()->unary[TRM_OP_Tanh](p, n, o, (const void *const[]){o}, step);
    for (size_t i = 0; i < n; i++)
        o[i] *= p->alpha;
}

static const struct {
    const char *name;
    trm_op op; /* NONE: own row */
    trmi_row row;
    bool has_alpha, has_beta;
    float alpha, beta;
} activations[] = {
    {"Relu", TRM_OP_Relu, NULL, false, false, 0, 0},
    {"Tanh", TRM_OP_Tanh, NULL, false, false, 0, 0},
    {"Sigmoid", TRM_OP_Sigmoid, NULL, false, false, 0, 0},
    {"Affine", TRM_OP_NONE, row_affine, true, true, 1.0f, 0},
    {"LeakyRelu", TRM_OP_LeakyRelu, NULL, true, false, 0.01f, 0},
    {"ThresholdedRelu", TRM_OP_ThresholdedRelu, NULL, true, false, 1.0f, 0},
    {"ScaledTanh", TRM_OP_NONE, row_scaled_tanh, true, true, 1.0f, 1.0f},
    {"HardSigmoid", TRM_OP_HardSigmoid, NULL, true, true, 0.2f, 0.5f},
    {"Elu", TRM_OP_Elu, NULL, true, false, 1.0f, 0},
    {"Softsign", TRM_OP_Softsign, NULL, false, false, 0, 0},
    {"Softplus", TRM_OP_Softplus, NULL, false, false, 0, 0},
};

/* The lists of alphas and betas are consumed by the functions that have such a number. */
static trm_status settle_activations(recurrent_kernel *k, const trm_op_desc *desc)
{
    static const char *const usual[3] = {"Sigmoid", "Tanh", "Tanh"};
    const trm_attr *list = trm_attr_find(desc->attrs, "activations");
    size_t per = k->op == TRM_OP_LSTM ? 3 : k->op == TRM_OP_GRU ? 2 : 1;
    size_t alphas, betas, a = 0, b = 0;
    const float *alpha = trm_attr_floats(desc->attrs, "activation_alpha", &alphas);
    const float *beta = trm_attr_floats(desc->attrs, "activation_beta", &betas);
    size_t given = list != NULL && list->kind == TRM_ATTR_STRINGS ? list->count : 0;

    if (given != 0 && given < per * (size_t)k->directions)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu activations: want %zu",
                        trm_op_get(k->op)->name, desc->name, given, per * (size_t)k->directions);
    for (size_t i = 0; i < per * (size_t)k->directions; i++) {
        const char *name = given != 0            ? list->v.strings[i]
                           : k->op == TRM_OP_RNN ? "Tanh"
                                                 : usual[i % per];
        recurrent_activation *act = &k->act[i / per][i % per];

        for (size_t t = 0; t < sizeof(activations) / sizeof(activations[0]); t++) {
            if (strcasecmp(name, activations[t].name) != 0)
                continue;
            act->row = activations[t].row != NULL ? activations[t].row
                                                  : trmi_vec_get()->unary[activations[t].op];
            act->params.alpha =
                activations[t].has_alpha && a < alphas ? alpha[a++] : activations[t].alpha;
            act->params.beta =
                activations[t].has_beta && b < betas ? beta[b++] : activations[t].beta;
        }
        if (act->row == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': activation '%s' is not known",
                            trm_op_get(k->op)->name, desc->name, name);
    }
    return TRM_OK;
}

static trm_status settle_inputs(recurrent_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[IN_X], *r = &desc->inputs[IN_R];
    size_t d = (size_t)k->directions, want[IN_COUNT];

    if (x->rank != 3 || r->rank != 3)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': X of rank %d, R of rank %d: want 3",
                        trm_op_get(k->op)->name, desc->name, x->rank, r->rank);
    k->steps = (size_t)x->dims[k->batch_first ? 1 : 0];
    k->batch = (size_t)x->dims[k->batch_first ? 0 : 1];
    k->input = (size_t)x->dims[2];
    k->hidden = (size_t)r->dims[2];
    want[IN_X] = k->steps * k->batch * k->input;
    want[IN_W] = d * (size_t)k->gates * k->hidden * k->input;
    want[IN_R] = d * (size_t)k->gates * k->hidden * k->hidden;
    want[IN_B] = d * 2 * (size_t)k->gates * k->hidden;
    want[IN_LENGTHS] = k->batch;
    want[IN_H] = want[IN_C] = d * k->batch * k->hidden;
    want[IN_P] = d * 3 * k->hidden;
    for (int i = 0; i < k->input_count; i++) {
        const trm_tensor *t = &desc->inputs[i];

        if (t->dtype == TRM_DTYPE_NONE)
            continue;
        if (t->dtype != (i == IN_LENGTHS ? TRM_DTYPE_I32 : k->dtype))
            return trmi_bad_dtype(desc, i, i == IN_LENGTHS ? "i32" : trm_dtype_name(k->dtype));
        if (trm_tensor_numel(t) != want[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d has %zu elements: want %zu",
                            trm_op_get(k->op)->name, desc->name, i, trm_tensor_numel(t), want[i]);
        if (i != IN_LENGTHS && k->dtype != TRM_DTYPE_F32)
            k->input_elems[i] = want[i];
    }
    k->has_lengths = trmi_has_input(desc, IN_LENGTHS);
    return TRM_OK;
}

static size_t floats(size_t n)
{
    return trm_align_up(n * sizeof(float), TRM_ALIGN);
}

trm_status trmi_prepare_recurrent(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const char *direction = trm_attr_string(desc->attrs, "direction", "forward");
    float clip = trm_attr_float(desc->attrs, "clip", 0.0f);
    recurrent_kernel *k;
    size_t wide;
    trm_status st;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[0].dtype) || desc->inputs[0].dtype == TRM_DTYPE_F64)
        return trmi_bad_dtype(desc, 0, "f32, f16 or bf16");
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &recurrent_ops, &k));
    k->op = desc->op;
    k->dtype = desc->inputs[0].dtype;
    k->gates = desc->op == TRM_OP_LSTM ? 4 : desc->op == TRM_OP_GRU ? 3 : 1;
    k->directions = strcmp(direction, "bidirectional") == 0 ? 2 : 1;
    k->first_reversed = strcmp(direction, "reverse") == 0;
    k->batch_first = trm_attr_int(desc->attrs, "layout", 0) != 0;
    k->input_forget = trm_attr_int(desc->attrs, "input_forget", 0) != 0;
    k->linear_before_reset = trm_attr_int(desc->attrs, "linear_before_reset", 0) != 0;
    k->has_clip = clip > 0.0f;
    k->clip.alpha = -clip;
    k->clip.beta = clip;
    k->input_count = desc->input_count < IN_COUNT ? desc->input_count : IN_COUNT;
    k->output_count = desc->output_count < 3 ? desc->output_count : 3;
    TRM_TRY(st, settle_activations(k, desc), fail);
    TRM_TRY(st, settle_inputs(k, desc), fail);
    wide = (size_t)k->gates * k->hidden;
    k->base.workspace_bytes = floats(k->steps * k->batch * wide) + floats(k->batch * wide) +
                              3 * floats(k->batch * k->hidden) + floats(wide);
    for (int i = 0; i < IN_COUNT; i++)
        k->base.workspace_bytes += floats(k->input_elems[i]);
    if (k->dtype != TRM_DTYPE_F32)
        k->base.workspace_bytes += floats(y_elems(k)) + 2 * floats(state_elems(k));
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
