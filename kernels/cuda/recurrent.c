/* LSTM, GRU, RNN: checks, scratch, and the sequence of launches (recurrent.h). */
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/recurrent.h"

#include <string.h>
#include <strings.h>

#define GEMM_ALIGN 256 /* bytes, of a product's workspace */
#define OWN_MAX 65536  /* products of a projection that a kernel of ours does */

enum { IN_X, IN_W, IN_R, IN_B, IN_LENGTHS, IN_H, IN_C, IN_P, IN_COUNT };

typedef struct recurrent_kernel {
    trmi_cuda_kernel base;
    trmi_recurrent r; /* pointers: set by run */
    trmi_gemm *gemm;  /* of the projection; NULL: a kernel of ours */
    int input_count, output_count;
    size_t h_at, c_at, scratch_at, gemm_at; /* workspace, behind the projection */
} recurrent_kernel;

static const void *input_of(const recurrent_kernel *k, const void *const *in, int i)
{
    return i < k->input_count ? in[i] : NULL;
}

static trm_status recurrent_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    const recurrent_kernel *k = (const recurrent_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);
    trmi_recurrent r = k->r;
    char *memory = workspace;

    r.x = in[IN_X];
    r.w = in[IN_W];
    r.r = in[IN_R];
    r.b = input_of(k, in, IN_B);
    r.lengths = input_of(k, in, IN_LENGTHS);
    r.h0 = input_of(k, in, IN_H);
    r.c0 = input_of(k, in, IN_C);
    r.p = input_of(k, in, IN_P);
    r.y = k->output_count > 0 ? out[0] : NULL;
    r.y_h = k->output_count > 1 ? out[1] : NULL;
    r.y_c = k->output_count > 2 ? out[2] : NULL;
    r.projected = (float *)(void *)memory;
    r.h = (float *)(void *)(memory + k->h_at);
    r.c = (float *)(void *)(memory + k->c_at);
    r.scratch = (float *)(void *)(memory + k->scratch_at);
    TRM_CHECK(trmi_cuda_recurrent_begin(&r, stream));
    /* a workspace is TRM_ALIGN aligned, cuBLASLt's 256 bytes */
    memory = (char *)trm_align_up((uintptr_t)memory + k->gemm_at, GEMM_ALIGN);
    if (k->gemm != NULL)
        TRM_CHECK(trmi_gemm_run(k->gemm, stream, r.x, r.w, NULL, r.projected, NULL, memory));
    else
        TRM_CHECK(trmi_cuda_recurrent_project(&r, stream));
    for (int step = 0; step < r.steps; step++)
        TRM_CHECK(trmi_cuda_recurrent_step(&r, step, stream));
    return TRM_OK;
}

static void recurrent_destroy(trm_kernel *base)
{
    trmi_gemm_destroy(((recurrent_kernel *)base)->gemm);
    trmi_cuda_kernel_free(base);
}

static const trm_kernel_ops recurrent_ops = {
    .name = "recurrent", .run = recurrent_run, .destroy = recurrent_destroy};

static const struct {
    const char *name;
    trmi_recurrent_function function;
    bool has_alpha, has_beta;
    float alpha, beta;
} functions[] = {
    {"Relu", TRMI_RECURRENT_RELU, false, false, 0, 0},
    {"Tanh", TRMI_RECURRENT_TANH, false, false, 0, 0},
    {"Sigmoid", TRMI_RECURRENT_SIGMOID, false, false, 0, 0},
    {"Affine", TRMI_RECURRENT_AFFINE, true, true, 1.0f, 0},
    {"LeakyRelu", TRMI_RECURRENT_LEAKY_RELU, true, false, 0.01f, 0},
    {"ThresholdedRelu", TRMI_RECURRENT_THRESHOLDED_RELU, true, false, 1.0f, 0},
    {"ScaledTanh", TRMI_RECURRENT_SCALED_TANH, true, true, 1.0f, 1.0f},
    {"HardSigmoid", TRMI_RECURRENT_HARD_SIGMOID, true, true, 0.2f, 0.5f},
    {"Elu", TRMI_RECURRENT_ELU, true, false, 1.0f, 0},
    {"Softsign", TRMI_RECURRENT_SOFTSIGN, false, false, 0, 0},
    {"Softplus", TRMI_RECURRENT_SOFTPLUS, false, false, 0, 0},
};

/* The lists of alphas and betas are consumed by the functions that have such a number. */
static trm_status settle_activations(trmi_recurrent *r, const trm_op_desc *desc)
{
    static const char *const usual[3] = {"Sigmoid", "Tanh", "Tanh"};
    const trm_attr *list = trm_attr_find(desc->attrs, "activations");
    size_t per = r->op == TRM_OP_LSTM ? 3 : r->op == TRM_OP_GRU ? 2 : 1;
    size_t alphas, betas, a = 0, b = 0, want = per * (size_t)r->directions;
    const float *alpha = trm_attr_floats(desc->attrs, "activation_alpha", &alphas);
    const float *beta = trm_attr_floats(desc->attrs, "activation_beta", &betas);
    size_t given = list != NULL && list->kind == TRM_ATTR_STRINGS ? list->count : 0;

    if (given != 0 && given < want)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu activations: want %zu",
                        trm_op_get(r->op)->name, desc->name, given, want);
    for (size_t i = 0; i < want; i++) {
        const char *name = given != 0            ? list->v.strings[i]
                           : r->op == TRM_OP_RNN ? "Tanh"
                                                 : usual[i % per];
        trmi_recurrent_activation *act = &r->act[i / per][i % per];
        size_t t = 0;

        while (t < sizeof(functions) / sizeof(functions[0]) &&
               strcasecmp(name, functions[t].name) != 0)
            t++;
        if (t == sizeof(functions) / sizeof(functions[0]))
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': activation '%s' is not known",
                            trm_op_get(r->op)->name, desc->name, name);
        act->function = functions[t].function;
        act->alpha = functions[t].has_alpha && a < alphas ? alpha[a++] : functions[t].alpha;
        act->beta = functions[t].has_beta && b < betas ? beta[b++] : functions[t].beta;
    }
    return TRM_OK;
}

/* Lengths that are known now; those on the device are clamped by the kernels. */
static trm_status check_lengths(const trmi_recurrent *r, const trm_op_desc *desc)
{
    const trm_tensor *t = &desc->inputs[IN_LENGTHS];

    if (!trmi_cuda_has_input(desc, IN_LENGTHS) || t->data == NULL)
        return TRM_OK;
    for (int b = 0; b < r->batch; b++) {
        int length = ((const int32_t *)t->data)[b];

        if (length < 0 || length > r->steps)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': sequence length %d of batch element %d: want 0 to %d",
                            trm_op_get(r->op)->name, desc->name, length, b, r->steps);
    }
    return TRM_OK;
}

static trm_status settle_inputs(trmi_recurrent *r, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[IN_X], *rt = &desc->inputs[IN_R];
    const char *op = trm_op_get(r->op)->name;
    size_t d = (size_t)r->directions, g = (size_t)r->gates, hidden, input, batch, steps;
    size_t want[IN_COUNT];

    if (x->rank != 3 || rt->rank != 3)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': X of rank %d, R of rank %d: want 3", op,
                        desc->name, x->rank, rt->rank);
    steps = (size_t)x->dims[r->batch_first ? 1 : 0];
    batch = (size_t)x->dims[r->batch_first ? 0 : 1];
    input = (size_t)x->dims[2];
    hidden = (size_t)rt->dims[2];
    want[IN_X] = steps * batch * input;
    want[IN_W] = d * g * hidden * input;
    want[IN_R] = d * g * hidden * hidden;
    want[IN_B] = d * 2 * g * hidden;
    want[IN_LENGTHS] = batch;
    want[IN_H] = want[IN_C] = d * batch * hidden;
    want[IN_P] = d * 3 * hidden;
    for (int i = 0; i < desc->input_count && i < IN_COUNT; i++) {
        const trm_tensor *t = &desc->inputs[i];

        if (t->dtype == TRM_DTYPE_NONE)
            continue;
        if (t->dtype != (i == IN_LENGTHS ? TRM_DTYPE_I32 : r->dtype))
            return trmi_cuda_bad_dtype(desc, i, i == IN_LENGTHS ? "i32" : trm_dtype_name(r->dtype));
        if (trm_tensor_numel(t) != want[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d has %zu elements: want %zu", op,
                            desc->name, i, trm_tensor_numel(t), want[i]);
    }
    /* grids, and counts kept in int */
    if (steps * batch > INT32_MAX / 2 || d * g * hidden > INT32_MAX / 2 ||
        d * g * hidden / 64 >= UINT16_MAX || batch / 8 >= UINT16_MAX || input > INT32_MAX / 2)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %zu steps of %zu sequences, %zu units", op,
                        desc->name, steps, batch, hidden);
    r->steps = (int)steps;
    r->batch = (int)batch;
    r->input = (int)input;
    r->hidden = (int)hidden;
    return check_lengths(r, desc);
}

/* The projection by cuBLASLt where it takes these operands, and where there is enough to do that
 * choosing an algorithm is worth it. */
static trm_status settle_projection(trm_cuda *cuda, recurrent_kernel *k)
{
    const trmi_recurrent *r = &k->r;
    const trmi_gemm_desc desc = {.m = (int64_t)r->steps * r->batch,
                                 .n = (int64_t)r->directions * r->gates * r->hidden,
                                 .k = r->input,
                                 .batch = 1,
                                 .b_transposed = true,
                                 .ab = r->dtype,
                                 .d = TRM_DTYPE_F32,
                                 .alpha = 1.0f};
    trm_status st;

    if (desc.m * desc.n < OWN_MAX / (desc.k + 1))
        return TRM_OK;
    st = trmi_gemm_create(cuda, &desc, &k->gemm);
    return st == TRM_ERR_UNSUPPORTED ? TRM_OK : st;
}

static size_t floats(size_t n)
{
    return trm_align_up(n * sizeof(float), TRM_ALIGN);
}

static void settle_workspace(recurrent_kernel *k)
{
    const trmi_recurrent *r = &k->r;
    size_t states = (size_t)r->directions * (size_t)r->batch * (size_t)r->hidden;
    size_t wide = (size_t)r->directions * (size_t)r->gates * (size_t)r->hidden;

    k->h_at = floats((size_t)r->steps * (size_t)r->batch * wide);
    k->c_at = k->h_at + floats(2 * states);
    k->scratch_at = k->c_at + floats(states);
    k->gemm_at = k->scratch_at;
    if (r->op == TRM_OP_GRU && !r->linear_before_reset)
        k->gemm_at += floats(2 * states);
    k->base.base.workspace_bytes = k->gemm_at;
    if (k->gemm != NULL)
        k->base.base.workspace_bytes += trmi_gemm_workspace_bytes(k->gemm) + GEMM_ALIGN;
}

trm_status trmi_cuda_prepare_recurrent(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const char *direction = trm_attr_string(desc->attrs, "direction", "forward");
    float clip = trm_attr_float(desc->attrs, "clip", 0.0f);
    recurrent_kernel *k = NULL;
    trmi_recurrent *r;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[IN_X].dtype) || desc->inputs[IN_X].dtype == TRM_DTYPE_F64)
        return trmi_cuda_bad_dtype(desc, IN_X, "f32, f16 or bf16");
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &recurrent_ops, &k));
    r = &k->r;
    r->op = desc->op;
    r->dtype = desc->inputs[IN_X].dtype;
    r->gates = desc->op == TRM_OP_LSTM ? 4 : desc->op == TRM_OP_GRU ? 3 : 1;
    r->directions = strcmp(direction, "bidirectional") == 0 ? 2 : 1;
    r->first_reversed = strcmp(direction, "reverse") == 0;
    r->batch_first = trm_attr_int(desc->attrs, "layout", 0) != 0;
    r->input_forget = trm_attr_int(desc->attrs, "input_forget", 0) != 0;
    r->linear_before_reset = trm_attr_int(desc->attrs, "linear_before_reset", 0) != 0;
    r->clip = clip > 0.0f ? clip : 0.0f;
    k->input_count = desc->input_count < IN_COUNT ? desc->input_count : IN_COUNT;
    k->output_count = desc->output_count < 3 ? desc->output_count : 3;
    TRM_TRY(st, settle_activations(r, desc), fail);
    TRM_TRY(st, settle_inputs(r, desc), fail);
    TRM_TRY(st, settle_projection(cuda, k), fail);
    settle_workspace(k);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    recurrent_destroy(&k->base.base);
    return st;
}
