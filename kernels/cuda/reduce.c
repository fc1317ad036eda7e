/* Reductions: the plan of a fold (groups of dims, shape of the work), Reduce*, ArgMax, ArgMin. */
#include "kernels/cuda/reduce.h"

#define BLOCK 256u
#define COLUMN_THREADS 1024u /* threads a multiprocessor that are worth having on columns */
#define PART_BYTES 24        /* the largest state of a fold (reduce.cuh) */

typedef struct reduce_kernel {
    trmi_cuda_kernel base;
    trmi_reduce reduce;
} reduce_kernel;

/* ---- planning ---- */

static uint32_t power_of_2(size_t at_least, uint32_t max)
{
    uint32_t p = 1;

    while (p < max && p < at_least)
        p *= 2;
    return p;
}

/* Merges neighbours in memory: the dims of CHANNELS_LAST are N, spatial..., C there. */
static bool make_groups(trmi_reduce *r, const trm_tensor *in, uint32_t mask)
{
    size_t dims[TRM_RANK_MAX + 1], strides[TRM_RANK_MAX + 1], step = 1, outer = 1, rows = 1;
    bool reduced[TRM_RANK_MAX + 1], last = in->layout == TRM_LAYOUT_CHANNELS_LAST && in->rank > 2;
    int n = 0;

    for (int i = in->rank - 1; i >= 0; i--) { /* innermost first */
        int d = !last || i == 0 ? i : i == in->rank - 1 ? 1 : i + 1;
        bool is_reduced = (mask >> d & 1) != 0;
        size_t dim = (size_t)in->dims[d];

        if (dim != 1) {
            if (n > 0 && reduced[n - 1] == is_reduced) {
                dims[n - 1] *= dim;
            } else {
                dims[n] = dim;
                strides[n] = step;
                reduced[n++] = is_reduced;
            }
        }
        step *= dim;
    }
    r->kept = r->reduced = 0;
    r->by_rows = n > 0 && reduced[0];
    for (int g = n - 1; g >= 1; g--) { /* outermost first */
        size_t *product = reduced[g] ? &rows : &outer;

        if (dims[g] > INT32_MAX)
            return false;
        if (reduced[g]) {
            r->reduced_dims[r->reduced] = (uint32_t)dims[g];
            r->reduced_strides[r->reduced++] = strides[g];
        } else {
            r->kept_dims[r->kept] = (uint32_t)dims[g];
            r->kept_strides[r->kept++] = strides[g];
        }
        if (__builtin_mul_overflow(*product, dims[g], product))
            return false;
    }
    step = n > 0 ? dims[0] : 1; /* of the last group */
    if (outer > INT32_MAX || rows > INT32_MAX || step > INT32_MAX ||
        (r->by_rows ? rows : outer) * step > INT32_MAX)
        return false;
    r->inner = (uint32_t)step;
    r->outer = (uint32_t)outer;
    r->rows = (uint32_t)rows;
    r->count = (uint32_t)(r->by_rows ? rows * step : rows);
    r->outputs = r->by_rows ? outer : outer * step;
    return true;
}

/* How many blocks share an output where `blocks` alone leave the device idle. */
static int splits_of(const trm_cuda *cuda, size_t blocks, size_t most)
{
    size_t want = 2 * (size_t)cuda->multiprocessors, splits;

    if (blocks >= want || blocks == 0)
        return 1;
    splits = want / blocks;
    if (splits > most)
        splits = most;
    return splits < 2 ? 1 : splits > 256 ? 256 : (int)splits;
}

static void plan_rows(const trm_cuda *cuda, trmi_reduce *r)
{
    size_t units = r->count / (size_t)r->vector;

    if (units >= 2048 || (units >= 256 && r->outer < 8u * (size_t)cuda->multiprocessors)) {
        r->lanes = (int)BLOCK;
        r->splits = splits_of(cuda, r->outer, units / (4 * BLOCK));
    } else {
        r->lanes = (int)power_of_2((units + 1) / 2, 32);
    }
}

static void plan_columns(const trm_cuda *cuda, trmi_reduce *r)
{
    size_t columns = (r->inner + (size_t)r->vector - 1) / (size_t)r->vector;
    size_t all = columns * r->outer, want = COLUMN_THREADS * (size_t)cuda->multiprocessors;
    uint32_t x, y;

    y = power_of_2(all == 0 ? 1 : (want + all - 1) / all, columns < 32 ? BLOCK : 8);
    while (y > 1 && y > r->rows)
        y /= 2;
    x = power_of_2(columns, BLOCK / y);
    if (x * y < 32) /* a block of less than a warp */
        x = 32 / y;
    r->x = (int)x;
    r->y = (int)y;
    r->splits = splits_of(cuda, (columns + x - 1) / x * r->outer, r->rows / (8 * (size_t)y));
}

trm_status trmi_cuda_reduce_plan(const trm_cuda *cuda, trmi_reduce *r, const trm_tensor *in,
                                 uint32_t mask)
{
    bool roots =
        r->finish == TRMI_REDUCE_SQRT || r->finish == TRMI_REDUCE_LOG || r->kind == TRMI_REDUCE_EXP;
    int vector = (int)(16 / trm_dtype_bytes(in->dtype));

    if (r->kind == TRMI_REDUCE_MOMENTS && !trm_dtype_is_float(in->dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED, "moments of %s", trm_dtype_name(in->dtype));
    r->in = in->dtype;
    r->work = in->dtype == TRM_DTYPE_F64           ? TRM_DTYPE_F64
              : trm_dtype_is_float(in->dtype)      ? TRM_DTYPE_F32
              : roots                              ? TRM_DTYPE_F64
              : trm_dtype_is_signed_int(in->dtype) ? TRM_DTYPE_I64
                                                   : TRM_DTYPE_U64;
    if (!make_groups(r, in, mask)) {
        char shape[TRM_SHAPE_TEXT_BYTES];

        return trm_fail(TRM_ERR_UNSUPPORTED, "a reduction of %s: too many elements",
                        trm_tensor_shape_text(in, shape, sizeof(shape)));
    }
    if (!trm_dtype_is_float(in->dtype) || r->kind == TRMI_REDUCE_MOMENTS ||
        r->inner % (uint32_t)vector != 0)
        vector = 1;
    r->vector = vector;
    r->splits = 1;
    if (r->by_rows)
        plan_rows(cuda, r);
    else
        plan_columns(cuda, r);
    r->workspace_bytes = r->splits > 1 ? (size_t)r->splits * r->outputs * PART_BYTES : 0;
    return TRM_OK;
}

int64_t trmi_cuda_reduce_start(const trmi_reduce *r)
{
    bool is_signed = trm_dtype_is_signed_int(r->in);
    unsigned bits = r->in == TRM_DTYPE_BOOL ? 1 : (unsigned)trm_dtype_bytes(r->in) * 8;
    uint64_t all = bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    uint64_t max = is_signed ? all >> 1 : all, min = is_signed ? ~max : 0;

    return r->kind == TRMI_REDUCE_MAX    ? (int64_t)min
           : r->kind == TRMI_REDUCE_MIN  ? (int64_t)max
           : r->kind == TRMI_REDUCE_PROD ? 1
                                         : 0;
}

trm_status trmi_cuda_reduce_run(const trmi_reduce *r, cudaStream_t stream, const void *in,
                                void *out, void *workspace)
{
    switch (r->in) {
    case TRM_DTYPE_F32:
        return trmi_cuda_reduce_f32(r, stream, in, out, workspace);
    case TRM_DTYPE_F16:
        return trmi_cuda_reduce_f16(r, stream, in, out, workspace);
    case TRM_DTYPE_BF16:
        return trmi_cuda_reduce_bf16(r, stream, in, out, workspace);
    case TRM_DTYPE_F64:
        return trmi_cuda_reduce_f64(r, stream, in, out, workspace);
    default:
        return trmi_cuda_reduce_int(r, stream, in, out, workspace);
    }
}

/* ---- operators ---- */

static trm_status reduce_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const reduce_kernel *k = (const reduce_kernel *)base;

    return trmi_cuda_reduce_run(&k->reduce, trmi_cuda_stream(base, s), in[0], out[0], workspace);
}

static const trm_kernel_ops reduce_ops = {
    .name = "cuda reduce", .run = reduce_run, .destroy = trmi_cuda_kernel_free};

static void kind_of(trm_op op, trmi_reduce *r)
{
    r->finish = TRMI_REDUCE_AS_IS;
    switch (op) {
    case TRM_OP_ReduceL1:
        r->kind = TRMI_REDUCE_ABS;
        break;
    case TRM_OP_ReduceL2:
        r->kind = TRMI_REDUCE_SQUARE;
        r->finish = TRMI_REDUCE_SQRT;
        break;
    case TRM_OP_ReduceSumSquare:
        r->kind = TRMI_REDUCE_SQUARE;
        break;
    case TRM_OP_ReduceMax:
        r->kind = TRMI_REDUCE_MAX;
        break;
    case TRM_OP_ReduceMin:
        r->kind = TRMI_REDUCE_MIN;
        break;
    case TRM_OP_ReduceProd:
        r->kind = TRMI_REDUCE_PROD;
        break;
    case TRM_OP_ReduceLogSumExp:
        r->kind = TRMI_REDUCE_EXP;
        break;
    case TRM_OP_ArgMax:
        r->kind = TRMI_REDUCE_ARGMAX;
        break;
    case TRM_OP_ArgMin:
        r->kind = TRMI_REDUCE_ARGMIN;
        break;
    default:
        r->kind = TRMI_REDUCE_SUM;
        if (op == TRM_OP_ReduceMean)
            r->finish = TRMI_REDUCE_MEAN;
        else if (op == TRM_OP_ReduceLogSum)
            r->finish = TRMI_REDUCE_LOG;
    }
}

/* Bit d: axis d is reduced. */
static trm_status reduced_axes(const trm_op_desc *desc, uint32_t *mask_out)
{
    int rank = desc->inputs[0].rank, count = 0, axis = 0;
    int64_t axes[4 * TRM_RANK_MAX];
    uint32_t mask = 0;

    if (trmi_cuda_has_input(desc, 1))
        TRM_CHECK(trmi_cuda_ints(desc, 1, axes, 4 * TRM_RANK_MAX, &count));
    for (int i = 0; i < count; i++) {
        TRM_CHECK(trmi_cuda_axis(desc, axes[i], rank, &axis));
        mask |= 1u << axis;
    }
    if (count == 0 && trm_attr_int(desc->attrs, "noop_with_empty_axes", 0) == 0)
        mask = (1u << rank) - 1;
    *mask_out = mask;
    return TRM_OK;
}

/* CHANNELS_LAST as it arrives where the kept dims then come in an order that the output can have:
 * its own (PLAIN), or with all dims kept as 1 that of the input. */
static void settle_layouts(trm_op_desc *desc, trm_layout arrives, uint32_t mask)
{
    trm_tensor *in = &desc->inputs[0], *out = &desc->outputs[0];
    bool channels = in->rank > 1 && (mask >> 1 & 1) == 0 && in->dims[1] != 1, spatial = false;

    in->layout = TRM_LAYOUT_PLAIN;
    if (arrives != TRM_LAYOUT_CHANNELS_LAST || in->rank < 3)
        return;
    for (int d = 2; d < in->rank; d++)
        spatial = spatial || ((mask >> d & 1) == 0 && in->dims[d] != 1);
    if (channels && spatial) {
        if (out->rank != in->rank)
            return;
        out->layout = TRM_LAYOUT_CHANNELS_LAST;
    }
    in->layout = TRM_LAYOUT_CHANNELS_LAST;
}

static trm_status reduce_prepare(trm_cuda *cuda, trm_op_desc *desc, uint32_t mask, bool last,
                                 trm_layout arrives, trm_kernel **kernel_out)
{
    reduce_kernel *k = NULL;
    trm_status st;

    settle_layouts(desc, arrives, mask);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &reduce_ops, &k));
    kind_of(desc->op, &k->reduce);
    k->reduce.out = desc->outputs[0].dtype;
    k->reduce.last = last;
    st = trmi_cuda_reduce_plan(cuda, &k->reduce, &desc->inputs[0], mask);
    if (st == TRM_OK && k->reduce.outputs != trm_tensor_numel(&desc->outputs[0]))
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': axes do not fit the output's shape",
                      trm_op_get(desc->op)->name, desc->name);
    if (st != TRM_OK) {
        trmi_cuda_kernel_free(&k->base.base);
        return st;
    }
    k->base.base.workspace_bytes = k->reduce.workspace_bytes;
    *kernel_out = &k->base.base;
    return TRM_OK;
}

trm_status trmi_cuda_reduce(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout arrives = desc->inputs[0].layout;
    uint32_t mask = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (desc->outputs[0].dtype != desc->inputs[0].dtype)
        return trmi_cuda_bad_dtype(desc, 0, "the output's");
    TRM_CHECK(reduced_axes(desc, &mask));
    return reduce_prepare(cuda, desc, mask, false, arrives, kernel_out);
}

trm_status trmi_cuda_arg_reduce(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    trm_layout arrives = in->layout;
    int axis = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (in->dtype == TRM_DTYPE_BOOL)
        return trmi_cuda_bad_dtype(desc, 0, "a number");
    if (in->rank > 0)
        TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), in->rank, &axis));
    return reduce_prepare(cuda, desc, in->rank > 0 ? 1u << axis : 0,
                          trm_attr_int(desc->attrs, "select_last_index", 0) != 0, arrives,
                          kernel_out);
}
