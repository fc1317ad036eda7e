/* Elementwise operators: which row for which dtype, which layout, which broadcast.
 *
 * A kernel is a chain of maps: one for unary, binary and ternary operators, several for the
 * variadic ones. Inputs that share a blocked or channels-last layout and the output's shape are
 * taken as flat arrays and the layout is kept; blocked ones only where no channel is padding, for
 * f(0) need not be 0. */
#include "kernels/cpu/elementwise.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct elementwise_kernel {
    trm_kernel base;
    trm_op op;
    int maps;
    bool mean;
    double count; /* of inputs: Mean divides by it */
    float count_f32;
    trmi_map *map;
    trm_dtype dtype;
} elementwise_kernel;

static void elementwise_destroy(trm_kernel *k)
{
    trm_free(((elementwise_kernel *)k)->map);
    trm_free(k);
}

/* Clip reads its limits when it runs: they may be computed. */
static void clip_limits(elementwise_kernel *k, const void *low, const void *high)
{
    trmi_row_params *p = &k->map[0].params;
    trm_tensor t = {.dtype = k->dtype};

    p->lo = -INFINITY;
    p->hi = INFINITY;
    p->ilo = INT64_MIN;
    p->ihi = INT64_MAX;
    p->ulo = 0;
    p->uhi = UINT64_MAX;
    switch (k->dtype) {
    case TRM_DTYPE_I8:
        p->ilo = INT8_MIN, p->ihi = INT8_MAX;
        break;
    case TRM_DTYPE_I16:
        p->ilo = INT16_MIN, p->ihi = INT16_MAX;
        break;
    case TRM_DTYPE_I32:
        p->ilo = INT32_MIN, p->ihi = INT32_MAX;
        break;
    default: /* unsigned limits cut down to the type are its maximum */
        break;
    }
    if (low != NULL) {
        t.data = (void *)low; /* only read */
        p->lo = trm_tensor_get_f64(&t, 0);
        p->ilo = trm_tensor_get_i64(&t, 0);
        p->ulo = (uint64_t)p->ilo;
    }
    if (high != NULL) {
        t.data = (void *)high; /* only read */
        p->hi = trm_tensor_get_f64(&t, 0);
        p->ihi = trm_tensor_get_i64(&t, 0);
        p->uhi = (uint64_t)p->ihi;
    }
    p->alpha = (float)p->lo;
    p->beta = (float)p->hi;
}

static trm_status elementwise_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    elementwise_kernel *k = (elementwise_kernel *)base;
    const void *args[2];

    (void)s;
    (void)workspace;
    if (k->op == TRM_OP_Clip)
        clip_limits(k, in[1], in[2]);
    trmi_map_run(&k->map[0], out[0], in);
    for (int i = 1; i < k->maps; i++) {
        args[0] = out[0];
        args[1] = k->mean && i == k->maps - 1
                      ? (k->dtype == TRM_DTYPE_F64 ? (const void *)&k->count : &k->count_f32)
                      : in[i + 1];
        trmi_map_run(&k->map[i], out[0], args);
    }
    return TRM_OK;
}

/* Clip's optional inputs may be missing from the end of the list: run sees three pointers always.
 */
static trm_status clip_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    elementwise_kernel *k = (elementwise_kernel *)base;
    const void *three[3] = {NULL, NULL, NULL};

    for (int i = 0; i < (int)k->count; i++)
        three[i] = in[i];
    return elementwise_run(base, s, three, out, workspace);
}

static const trm_kernel_ops elementwise_ops = {
    .name = "elementwise", .run = elementwise_run, .destroy = elementwise_destroy};
static const trm_kernel_ops clip_ops = {
    .name = "elementwise clip", .run = clip_run, .destroy = elementwise_destroy};

/* The layout all inputs can be taken in as flat arrays, PLAIN where there is none (the inputs are
 * then asked for in PLAIN). */
static trm_layout settle_layout(trm_op_desc *desc, int inputs)
{
    const trm_tensor *out = &desc->outputs[0];
    trm_layout layout = TRM_LAYOUT_PLAIN;
    bool same = true;

    for (int i = 0; i < inputs; i++) {
        const trm_tensor *t = &desc->inputs[i];
        int64_t block = t->layout == TRM_LAYOUT_BLOCK8    ? 8
                        : t->layout == TRM_LAYOUT_BLOCK16 ? 16
                                                          : 1;

        if (t->layout == TRM_LAYOUT_PLAIN && trm_tensor_numel(t) == 1 && trm_tensor_numel(out) != 1)
            continue; /* a scalar has no layout */
        if (!trm_tensor_same_shape(t, out) || (t->rank > 1 && t->dims[1] % block != 0) ||
            (layout != TRM_LAYOUT_PLAIN && t->layout != layout) || t->layout == TRM_LAYOUT_PLAIN) {
            same = false;
            break;
        }
        layout = t->layout;
    }
    if (!same || layout == TRM_LAYOUT_PLAIN) {
        for (int i = 0; i < desc->input_count; i++)
            desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
        return TRM_LAYOUT_PLAIN;
    }
    return layout;
}

/* A map of inputs [first, first + n) of `list` to the output. */
static trm_status map_init(trmi_map *m, const trm_op_desc *desc, trm_layout layout,
                           const trm_tensor *const *in, int n)
{
    const trm_tensor *out = &desc->outputs[0];
    trm_tensor flat[TRMI_ROW_INPUTS + 1] = {0};
    const trm_tensor *flat_in[TRMI_ROW_INPUTS];

    m->out_dtype = out->dtype;
    for (int i = 0; i < n; i++)
        m->in_dtype[i] = in[i]->dtype;
    if (layout == TRM_LAYOUT_PLAIN)
        return trmi_broadcast_init(&m->shape, desc, out, in, n);
    flat[n].rank = 1;
    flat[n].dims[0] = (int64_t)trm_tensor_numel(out);
    for (int i = 0; i < n; i++) {
        flat[i].rank = 1;
        flat[i].dims[0] = (int64_t)trm_tensor_numel(in[i]);
        flat_in[i] = &flat[i];
    }
    return trmi_broadcast_init(&m->shape, desc, &flat[n], flat_in, n);
}

static void may_lie_in(elementwise_kernel *k, const trm_op_desc *desc, int input)
{
    const trm_tensor *t = &desc->inputs[input];

    if (t->dtype == desc->outputs[0].dtype && trm_tensor_same_shape(t, &desc->outputs[0]))
        k->base.in_place |= 1u << input;
}

static trm_status elementwise_new(const trm_op_desc *desc, int maps, elementwise_kernel **k_out)
{
    elementwise_kernel *k;

    if (desc->post_count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': post-ops on this operator",
                        trm_op_get(desc->op)->name, desc->name);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &elementwise_ops, &k));
    k->op = desc->op;
    k->dtype = desc->inputs[0].dtype;
    k->maps = maps;
    k->count = (double)desc->input_count;
    k->count_f32 = (float)desc->input_count;
    k->map = trm_calloc((size_t)maps, sizeof(*k->map));
    if (k->map == NULL) {
        elementwise_destroy(&k->base);
        return trm_fail(TRM_ERR_NO_MEMORY, "%s '%s': kernel", trm_op_get(desc->op)->name,
                        desc->name);
    }
    *k_out = k;
    return TRM_OK;
}

static void unary_params(const trm_op_desc *desc, trmi_row_params *p)
{
    const trm_attrs *a = desc->attrs;

    switch (desc->op) {
    case TRM_OP_LeakyRelu:
        p->alpha = trm_attr_float(a, "alpha", 0.01f);
        break;
    case TRM_OP_Elu:
    case TRM_OP_Celu:
    case TRM_OP_Swish:
    case TRM_OP_ThresholdedRelu:
        p->alpha = trm_attr_float(a, "alpha", 1.0f);
        break;
    case TRM_OP_Selu:
        p->alpha = trm_attr_float(a, "alpha", 1.67326319217681884765625f);
        p->beta = trm_attr_float(a, "gamma", 1.05070102214813232421875f);
        break;
    case TRM_OP_HardSigmoid:
        p->alpha = trm_attr_float(a, "alpha", 0.2f);
        p->beta = trm_attr_float(a, "beta", 0.5f);
        break;
    case TRM_OP_HardSwish:
        p->alpha = 1.0f / 6.0f;
        p->beta = 0.5f;
        break;
    case TRM_OP_Shrink:
        p->alpha = trm_attr_float(a, "lambd", 0.5f);
        p->beta = trm_attr_float(a, "bias", 0.0f);
        break;
    case TRM_OP_Gelu:
        p->mode = strcmp(trm_attr_string(a, "approximate", "none"), "tanh") == 0;
        break;
    case TRM_OP_IsInf:
        p->mode = 1 | (trm_attr_int(a, "detect_negative", 1) != 0 ? 2 : 0) |
                  (trm_attr_int(a, "detect_positive", 1) != 0 ? 4 : 0);
        break;
    default:
        break;
    }
}

static trmi_row unary_row(trm_op op, trm_dtype dtype, const trmi_row_params *p)
{
    const trmi_vec *vec = trmi_vec_get();

    if (op == TRM_OP_IsNaN || op == TRM_OP_IsInf)
        return trmi_row_classify(dtype);
    if (dtype == TRM_DTYPE_F32 && op == TRM_OP_Gelu && p->mode != 0)
        return vec->gelu_tanh;
    if (dtype == TRM_DTYPE_F32 && vec->unary[op] != NULL)
        return vec->unary[op];
    if (dtype == TRM_DTYPE_F32 || dtype == TRM_DTYPE_F64)
        return op == TRM_OP_Clip ? trmi_row_clip(dtype)
                                 : trmi_row_reference_unary(op, dtype, p->mode != 0);
    return op == TRM_OP_Clip ? trmi_row_clip(dtype) : trmi_row_int_unary(op, dtype);
}

trm_status trmi_prepare_unary(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    elementwise_kernel *k;
    trm_layout layout;
    trmi_map *m;
    trm_status st;

    (void)cpu;
    TRM_CHECK(elementwise_new(desc, 1, &k));
    for (int i = 1; i < desc->input_count; i++) /* Clip's limits */
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    layout = settle_layout(desc, 1);
    m = &k->map[0];
    m->stage = trmi_is_half(in->dtype) ? TRM_DTYPE_F32 : TRM_DTYPE_NONE;
    unary_params(desc, &m->params);
    m->row = unary_row(desc->op, trmi_is_half(in->dtype) ? TRM_DTYPE_F32 : in->dtype, &m->params);
    if (m->row == NULL) {
        st = trmi_bad_dtype(desc, 0, "another type: the operator is not defined for it");
        goto fail;
    }
    TRM_TRY(st, map_init(m, desc, layout, &in, 1), fail);
    for (int i = 1; i < desc->input_count; i++) {
        if (trmi_has_input(desc, i) && desc->inputs[i].dtype != in->dtype) {
            st = trmi_bad_dtype(desc, i, trm_dtype_name(in->dtype));
            goto fail;
        }
        if (trmi_has_input(desc, i) && trm_tensor_numel(&desc->inputs[i]) != 1) {
            st = trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d has %zu elements: want 1",
                          trm_op_get(desc->op)->name, desc->name, i,
                          trm_tensor_numel(&desc->inputs[i]));
            goto fail;
        }
    }
    if (desc->op == TRM_OP_Clip)
        k->base.ops = &clip_ops;
    may_lie_in(k, desc, 0);
    desc->outputs[0].layout = layout;
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    elementwise_destroy(&k->base);
    return st;
}

static trmi_row binary_row(trm_op op, trm_dtype dtype, const trmi_row_params *p)
{
    const trmi_vec *vec = trmi_vec_get();

    if (dtype == TRM_DTYPE_F32 && vec->binary[op] != NULL)
        return vec->binary[op];
    if (dtype == TRM_DTYPE_F32 || dtype == TRM_DTYPE_F64)
        return trmi_row_reference_binary(op, dtype, p->mode);
    return trmi_row_int_binary(op, dtype, p->mode);
}

/* Chooses the row and the dtype it works in. Pow may mix dtypes; everything else has one. */
static trm_status binary_setup(const trm_op_desc *desc, trmi_map *m, int right)
{
    trm_dtype l = desc->inputs[0].dtype, r = desc->inputs[right].dtype, work = l;

    if (l != r && desc->op != TRM_OP_Pow)
        return trmi_bad_dtype(desc, right, trm_dtype_name(l));
    if (desc->op == TRM_OP_Mod)
        m->params.mode = trm_attr_int(desc->attrs, "fmod", 0) != 0;
    if (desc->op == TRM_OP_BitShift)
        m->params.mode = strcmp(trm_attr_string(desc->attrs, "direction", "LEFT"), "RIGHT") == 0;
    if (trmi_is_half(l))
        work = TRM_DTYPE_F32;
    if (l != r) { /* Pow */
        bool l_float = trm_dtype_is_float(l), r_float = trm_dtype_is_float(r);

        if (l_float)
            work = l == TRM_DTYPE_F64 || r == TRM_DTYPE_F64 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
        else
            work = r_float ? TRM_DTYPE_F64 : TRM_DTYPE_I64;
    }
    m->stage = work != l || work != r ? work : TRM_DTYPE_NONE;
    m->row = binary_row(desc->op, work, &m->params);
    return m->row != NULL
               ? TRM_OK
               : trmi_bad_dtype(desc, 0, "another type: the operator is not defined for it");
}

trm_status trmi_prepare_binary(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in[2] = {&desc->inputs[0], &desc->inputs[1]};
    elementwise_kernel *k;
    trm_layout layout;
    trm_status st;

    (void)cpu;
    TRM_CHECK(elementwise_new(desc, 1, &k));
    layout = settle_layout(desc, 2);
    TRM_TRY(st, binary_setup(desc, &k->map[0], 1), fail);
    TRM_TRY(st, map_init(&k->map[0], desc, layout, in, 2), fail);
    may_lie_in(k, desc, 0);
    may_lie_in(k, desc, 1);
    desc->outputs[0].layout = layout;
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    elementwise_destroy(&k->base);
    return st;
}

static void row_copy(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                     const size_t *step)
{
    (void)step; /* one input of the output's shape */
    if (out != in[0])
        memcpy(out, in[0], n * (size_t)p->mode);
}

/* Max, Min, Sum, Mean: out = in0 op in1, then out = out op in2, ... */
trm_status trmi_prepare_variadic(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    int inputs = desc->input_count;
    bool mean = desc->op == TRM_OP_Mean;
    const trm_tensor *out = &desc->outputs[0];
    trm_tensor number = {.dtype = out->dtype == TRM_DTYPE_F64 ? TRM_DTYPE_F64 : TRM_DTYPE_F32};
    elementwise_kernel *k;
    trm_layout layout;
    trm_status st;

    (void)cpu;
    TRM_CHECK(elementwise_new(desc, inputs == 1 ? 1 : inputs - 1 + (mean ? 1 : 0), &k));
    layout = settle_layout(desc, inputs);
    k->mean = mean;
    if (inputs == 1) {
        const trm_tensor *in = &desc->inputs[0];

        TRM_TRY(st, map_init(&k->map[0], desc, layout, &in, 1), fail);
        k->map[0].row = row_copy;
        k->map[0].params.mode = (int)trm_dtype_bytes(in->dtype);
        k->mean = false;
    }
    for (int i = 1; i < inputs; i++) {
        const trm_tensor *in[2] = {i == 1 ? &desc->inputs[0] : out, &desc->inputs[i]};

        TRM_TRY(st, binary_setup(desc, &k->map[i - 1], i), fail);
        TRM_TRY(st, map_init(&k->map[i - 1], desc, layout, in, 2), fail);
    }
    if (k->mean) {
        const trm_tensor *in[2] = {out, &number};
        trmi_map *m = &k->map[k->maps - 1];

        if (!trm_dtype_is_float(out->dtype)) {
            st = trmi_bad_dtype(desc, 0, "a float");
            goto fail;
        }
        m->stage = trmi_is_half(out->dtype) ? TRM_DTYPE_F32 : TRM_DTYPE_NONE;
        m->row = binary_row(TRM_OP_Div, number.dtype, &m->params);
        TRM_TRY(st, map_init(m, desc, layout, in, 2), fail);
    }
    may_lie_in(k, desc, 0);
    if (inputs == 2)
        may_lie_in(k, desc, 1);
    desc->outputs[0].layout = layout;
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    elementwise_destroy(&k->base);
    return st;
}

trm_status trmi_prepare_where(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in[3] = {&desc->inputs[0], &desc->inputs[1], &desc->inputs[2]};
    elementwise_kernel *k;
    trm_layout layout;
    trm_status st;

    (void)cpu;
    if (in[0]->dtype != TRM_DTYPE_BOOL)
        return trmi_bad_dtype(desc, 0, "bool");
    if (in[1]->dtype != in[2]->dtype)
        return trmi_bad_dtype(desc, 2, trm_dtype_name(in[1]->dtype));
    TRM_CHECK(elementwise_new(desc, 1, &k));
    layout = settle_layout(desc, 3);
    k->map[0].row = trmi_row_where(trm_dtype_bytes(in[1]->dtype));
    TRM_TRY(st, map_init(&k->map[0], desc, layout, in, 3), fail);
    may_lie_in(k, desc, 1);
    may_lie_in(k, desc, 2);
    desc->outputs[0].layout = layout;
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    elementwise_destroy(&k->base);
    return st;
}
