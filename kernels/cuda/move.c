/* Operators that are one strided copy of input 0: Reshape and its kin, Transpose, DepthToSpace,
 * SpaceToDepth, Slice, Expand, Tile. Each only says which view of the input the output is. */
#include "kernels/cuda/move.h"

#include <string.h>

struct strided {
    trmi_cuda_kernel base;
    trmi_move_copy copy;
    trmi_move_plan plan;
};

static trm_status strided_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    const struct strided *t = (const struct strided *)k;

    (void)workspace;
    return trmi_cuda_move_run(t->base.cuda, trmi_cuda_stream(k, s), &t->copy, &t->plan, in[0],
                              out[0]);
}

#define STRIDED_OPS(text)                                                                          \
    {                                                                                              \
        .name = (text), .run = strided_run, .destroy = trmi_cuda_kernel_free                       \
    }
static const trm_kernel_ops strided_ops[] = {
    [TRMI_MOVE_NOTHING] = STRIDED_OPS("nothing"),
    [TRMI_MOVE_FLAT] = STRIDED_OPS("flat copy"),
    [TRMI_MOVE_WALK] = STRIDED_OPS("strided copy"),
    [TRMI_MOVE_TILES] = STRIDED_OPS("tiled transpose"),
};

/* c->elem is filled in here. */
static trm_status strided_new(trm_cuda *cuda, const trm_op_desc *desc, trmi_move_copy *c,
                              trm_kernel **kernel_out)
{
    struct strided *t;

    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*t), &strided_ops[0], &t));
    c->elem = trm_dtype_bytes(desc->inputs[0].dtype);
    t->copy = *c;
    trmi_cuda_move_plan(c, 16, &t->plan);
    t->base.base.ops = &strided_ops[t->plan.kind];
    *kernel_out = &t->base.base;
    return TRM_OK;
}

/* Row-major steps of the copy's dims in its output. */
static void dense_output(trmi_move_copy *c)
{
    int64_t step = 1;

    for (int i = c->rank - 1; i >= 0; i--) {
        c->out[i] = step;
        step *= (int64_t)c->dims[i];
    }
}

trm_status trmi_cuda_flat_copy(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trmi_move_copy c = {.rank = 1, .in = {1}, .out = {1}};
    size_t in_bytes, out_bytes;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trm_tensor_bytes(&desc->inputs[0], &in_bytes));
    TRM_CHECK(trm_tensor_bytes(&desc->outputs[0], &out_bytes));
    if (in_bytes != out_bytes)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu bytes in, %zu bytes out",
                        trm_op_get(desc->op)->name, desc->name, in_bytes, out_bytes);
    c.dims[0] = trm_tensor_numel(&desc->inputs[0]);
    TRM_CHECK(strided_new(cuda, desc, &c, kernel_out));
    (*kernel_out)->in_place = desc->inputs[0].dtype == desc->outputs[0].dtype &&
                              trm_tensor_same_shape(&desc->inputs[0], &desc->outputs[0]);
    return TRM_OK;
}

/* 0, 3, 1, 2: the plain output would be a transposition, the CHANNELS_LAST one is a flat copy; what
 * comes behind is a convolution as a rule. Rank 3 is as often an operand of MatMul. */
static bool channels_first(const int64_t *perm, int rank)
{
    if (perm == NULL || rank < 4 || perm[0] != 0 || perm[1] != rank - 1)
        return false;
    for (int i = 2; i < rank; i++)
        if (perm[i] != i - 1)
            return false;
    return true;
}

/* An input that arrives in CHANNELS_LAST is read by its steps: for perm 0, 2, 3, 1 it then lies as
 * the output does. */
trm_status trmi_cuda_transpose(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0];
    trm_layout layout = trmi_cuda_move_layout(x->layout, x->rank);
    size_t perm_count;
    const int64_t *perm = trm_attr_ints(desc->attrs, "perm", &perm_count);
    trmi_move_copy c = {.rank = x->rank};
    int64_t steps[TRM_RANK_MAX], want[TRM_RANK_MAX];
    unsigned seen = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    x->layout = layout;
    if (perm != NULL && perm_count != (size_t)x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Transpose '%s': perm has %zu entries, input rank %d",
                        desc->name, perm_count, x->rank);
    trmi_cuda_strides(x, steps);
    for (int i = 0; i < x->rank; i++) {
        int from = x->rank - 1 - i;

        if (perm != NULL)
            TRM_CHECK(trmi_cuda_axis(desc, perm[i], x->rank, &from));
        if (seen & (1u << from))
            return trm_fail(TRM_ERR_INVALID_ARG, "Transpose '%s': perm names axis %d twice",
                            desc->name, from);
        seen |= 1u << from;
        want[i] = x->dims[from];
        c.dims[i] = (size_t)x->dims[from];
        c.in[i] = steps[from];
    }
    TRM_CHECK(trmi_cuda_expect(desc, 0, x->rank, want));
    desc->outputs[0].layout = layout == TRM_LAYOUT_PLAIN && channels_first(perm, x->rank)
                                  ? TRM_LAYOUT_CHANNELS_LAST
                                  : TRM_LAYOUT_PLAIN;
    trmi_cuda_strides(&desc->outputs[0], c.out);
    return strided_new(cuda, desc, &c, kernel_out);
}

/* ---- DepthToSpace, SpaceToDepth: the layout that arrives is kept ---- */

static trm_status block_size(trm_op_desc *desc, int64_t *block_out, bool *crd_out)
{
    trm_tensor *x = &desc->inputs[0];
    trm_layout layout = trmi_cuda_move_layout(x->layout, x->rank);

    TRM_CHECK(trmi_cuda_begin(desc));
    x->layout = desc->outputs[0].layout = layout;
    *block_out = trm_attr_int(desc->attrs, "blocksize", 0);
    if (x->rank != 4 || *block_out < 1 || *block_out > TRM_DIM_MAX / *block_out)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': blocksize %lld on rank %d, want rank 4",
                        trm_op_get(desc->op)->name, desc->name, (long long)*block_out, x->rank);
    *crd_out = strcmp(trm_attr_string(desc->attrs, "mode", "DCR"), "CRD") == 0;
    return TRM_OK;
}

/* deep: [n, channels of the shallow, b, b, h, w] in steps of the deep tensor; shallow: the same
 * dims in steps of the one with the larger image. */
static trmi_move_copy block_copy(const trm_tensor *deep, const trm_tensor *shallow, int64_t b,
                                 bool crd, int64_t *deep_steps, int64_t *shallow_steps)
{
    int64_t c = shallow->dims[1], d[TRM_RANK_MAX], s[TRM_RANK_MAX];
    trmi_move_copy copy = {.rank = 6,
                           .dims = {(size_t)deep->dims[0], (size_t)c, (size_t)b, (size_t)b,
                                    (size_t)deep->dims[2], (size_t)deep->dims[3]}};

    trmi_cuda_strides(deep, d);
    trmi_cuda_strides(shallow, s);
    memcpy(deep_steps,
           (const int64_t[]){d[0], crd ? b * b * d[1] : d[1], crd ? b * d[1] : b * c * d[1],
                             crd ? d[1] : c * d[1], d[2], d[3]},
           6 * sizeof(*d));
    memcpy(shallow_steps, (const int64_t[]){s[0], s[1], s[2], s[3], b * s[2], b * s[3]},
           6 * sizeof(*s));
    return copy;
}

trm_status trmi_cuda_depth_to_space(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const int64_t *d = desc->inputs[0].dims;
    trmi_move_copy c;
    int64_t b, in[6], out[6];
    bool crd;

    TRM_CHECK(block_size(desc, &b, &crd));
    if (d[1] % (b * b) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "DepthToSpace '%s': %lld channels, want a multiple of %lld", desc->name,
                        (long long)d[1], (long long)(b * b));
    TRM_CHECK(
        trmi_cuda_expect(desc, 0, 4, (const int64_t[]){d[0], d[1] / (b * b), d[2] * b, d[3] * b}));
    c = block_copy(&desc->inputs[0], &desc->outputs[0], b, crd, in, out);
    memcpy(c.in, in, sizeof(in));
    memcpy(c.out, out, sizeof(out));
    return strided_new(cuda, desc, &c, kernel_out);
}

trm_status trmi_cuda_space_to_depth(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const int64_t *d = desc->inputs[0].dims;
    trmi_move_copy c;
    int64_t b, in[6], out[6];
    bool crd;

    TRM_CHECK(block_size(desc, &b, &crd));
    if (d[2] % b != 0 || d[3] % b != 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "SpaceToDepth '%s': image of %lld x %lld, want multiples of %lld",
                        desc->name, (long long)d[2], (long long)d[3], (long long)b);
    TRM_CHECK(
        trmi_cuda_expect(desc, 0, 4, (const int64_t[]){d[0], d[1] * b * b, d[2] / b, d[3] / b}));
    c = block_copy(&desc->outputs[0], &desc->inputs[0], b, crd, out, in);
    memcpy(c.in, in, sizeof(in));
    memcpy(c.out, out, sizeof(out));
    return strided_new(cuda, desc, &c, kernel_out);
}

/* ---- Expand, Tile ---- */

trm_status trmi_cuda_expand(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    trmi_move_copy c = {.rank = y->rank};
    int64_t steps[TRM_RANK_MAX];

    TRM_CHECK(trmi_cuda_begin(desc));
    trmi_cuda_steps(x->rank, x->dims, steps);
    if (y->rank < x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Expand '%s': rank %d to rank %d", desc->name, x->rank,
                        y->rank);
    for (int i = 0; i < y->rank; i++) {
        int from = i - (y->rank - x->rank);

        c.dims[i] = (size_t)y->dims[i];
        if (from < 0 || x->dims[from] == 1)
            continue;
        if (x->dims[from] != y->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "Expand '%s': dim %d is %lld, cannot become %lld",
                            desc->name, from, (long long)x->dims[from], (long long)y->dims[i]);
        c.in[i] = steps[from];
    }
    dense_output(&c);
    return strided_new(cuda, desc, &c, kernel_out);
}

/* Each dim becomes two: the repeats (step 0) and the dim. */
trm_status trmi_cuda_tile(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    trmi_move_copy c = {.rank = 2 * x->rank};
    int64_t repeats[TRM_RANK_MAX], want[TRM_RANK_MAX], steps[TRM_RANK_MAX];
    int count;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_ints(desc, 1, repeats, TRM_RANK_MAX, &count));
    if (count != x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Tile '%s': %d repeats for rank %d", desc->name, count,
                        x->rank);
    trmi_cuda_steps(x->rank, x->dims, steps);
    for (int i = 0; i < x->rank; i++) {
        if (repeats[i] < 0 || !trm_mul_ok(x->dims[i], repeats[i], &want[i]))
            return trm_fail(TRM_ERR_INVALID_ARG, "Tile '%s': %lld repeats of axis %d", desc->name,
                            (long long)repeats[i], i);
        c.dims[2 * i] = (size_t)repeats[i];
        c.dims[2 * i + 1] = (size_t)x->dims[i];
        c.in[2 * i + 1] = steps[i];
    }
    TRM_CHECK(trmi_cuda_expect(desc, 0, x->rank, want));
    dense_output(&c);
    return strided_new(cuda, desc, &c, kernel_out);
}

/* ---- Slice: starts and ends are clamped as ONNX says; the layout that arrives is kept ---- */

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

/* First index, and how many in steps of *step, of a dim of d. */
static int64_t slice_count(int64_t d, int64_t *first, int64_t last, int64_t *step)
{
    *step = clamp(*step, -TRM_DIM_MAX, TRM_DIM_MAX); /* beyond any dim: the same result */
    *first = *first < 0 ? clamp(*first, -TRM_DIM_MAX * 2, 0) + d : *first;
    last = last < 0 ? clamp(last, -TRM_DIM_MAX * 2, 0) + d : last;
    if (*step > 0) {
        *first = clamp(*first, 0, d);
        last = clamp(last, 0, d);
        return last > *first ? (last - *first + *step - 1) / *step : 0;
    }
    *first = clamp(*first, 0, d - 1);
    last = clamp(last, -1, d - 1);
    return d > 0 && *first > last ? (*first - last - *step - 1) / -*step : 0;
}

trm_status trmi_cuda_slice(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0];
    trm_layout layout = trmi_cuda_move_layout(x->layout, x->rank);
    int64_t starts[TRM_RANK_MAX], ends[TRM_RANK_MAX], axes[TRM_RANK_MAX], by[TRM_RANK_MAX];
    int64_t want[TRM_RANK_MAX];
    trmi_move_copy c = {.rank = x->rank};
    int count, end_count, axis_count, by_count;
    unsigned seen = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_ints(desc, 1, starts, TRM_RANK_MAX, &count));
    TRM_CHECK(trmi_cuda_ints(desc, 2, ends, TRM_RANK_MAX, &end_count));
    TRM_CHECK(trmi_cuda_ints(desc, 3, axes, TRM_RANK_MAX, &axis_count));
    TRM_CHECK(trmi_cuda_ints(desc, 4, by, TRM_RANK_MAX, &by_count));
    if (end_count != count || count > x->rank ||
        (trmi_cuda_has_input(desc, 3) && axis_count != count) ||
        (trmi_cuda_has_input(desc, 4) && by_count != count))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Slice '%s': %d starts, %d ends, %d axes, %d steps on rank %d: want equal "
                        "numbers, at most the rank",
                        desc->name, count, end_count, axis_count, by_count, x->rank);
    x->layout = desc->outputs[0].layout = layout;
    trmi_cuda_strides(x, c.in);
    for (int i = 0; i < x->rank; i++)
        want[i] = x->dims[i];
    for (int i = 0; i < count; i++) {
        int axis = i;
        int64_t step = by_count > 0 ? by[i] : 1, first = starts[i];

        if (axis_count > 0)
            TRM_CHECK(trmi_cuda_axis(desc, axes[i], x->rank, &axis));
        if (step == 0 || (seen & (1u << axis)))
            return trm_fail(TRM_ERR_INVALID_ARG, "Slice '%s': axis %d %s", desc->name, axis,
                            step == 0 ? "has step 0" : "is named twice");
        seen |= 1u << axis;
        want[axis] = slice_count(x->dims[axis], &first, ends[i], &step);
        if (want[axis] > 0)
            c.in_offset += first * c.in[axis];
        c.in[axis] *= want[axis] > 1 ? step : 1;
    }
    TRM_CHECK(trmi_cuda_expect(desc, 0, x->rank, want));
    trmi_cuda_strides(&desc->outputs[0], c.out);
    for (int i = 0; i < x->rank; i++)
        c.dims[i] = (size_t)want[i];
    return strided_new(cuda, desc, &c, kernel_out);
}
