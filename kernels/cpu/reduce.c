/* Reductions over any set of axes.
 *
 * Neighbouring dims of one kind (kept or reduced) are merged, so that a tensor is a short list of
 * alternating groups. If the last group is reduced, every output folds contiguous rows; if it is
 * kept, rows are folded column by column into a block of accumulators. Accumulation runs in f32
 * (floats up to 32 bits), f64, or 64-bit integers; other dtypes are converted chunk by chunk. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

#define COLUMNS 256 /* accumulators in a block, on the stack */

typedef struct reduce_kernel {
    trm_kernel base;
    trm_op op;
    trmi_fold fold;
    trm_dtype in, work, out;
    int kept, reduced; /* groups, the last one excepted */
    size_t kept_dims[TRM_RANK_MAX], kept_strides[TRM_RANK_MAX];
    size_t reduced_dims[TRM_RANK_MAX], reduced_strides[TRM_RANK_MAX];
    bool last_reduced;
    size_t last; /* length of the last group */
    size_t outer, rows,
        count; /* outputs without the last group, rows an output, elements an output */
} reduce_kernel;

/* ---- accumulators ---- */
#define FOLD_TYPE(t, T, U, absolute)                                                               \
    static T one_##t(trmi_fold kind, T a, T x, T shift)                                            \
    {                                                                                              \
        switch (kind) {                                                                            \
        case TRMI_FOLD_SUM:                                                                        \
            return (T)((U)a + (U)x);                                                               \
        case TRMI_FOLD_ABS:                                                                        \
            return (T)((U)a + (U)(absolute));                                                      \
        case TRMI_FOLD_SQUARE:                                                                     \
            return (T)((U)a + (U)x * (U)x);                                                        \
        case TRMI_FOLD_MAX:                                                                        \
            return x > a || x != x ? x : a;                                                        \
        case TRMI_FOLD_MIN:                                                                        \
            return x < a || x != x ? x : a;                                                        \
        case TRMI_FOLD_PROD:                                                                       \
            return (T)((U)a * (U)x);                                                               \
        default:                                                                                   \
            return (T)((U)a + (U)exp((double)x - (double)shift));                                  \
        }                                                                                          \
    }
FOLD_TYPE(f64, double, double, fabs(x))
FOLD_TYPE(i64, int64_t, uint64_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
FOLD_TYPE(u64, uint64_t, uint64_t, x)

/* acc[0] takes in a row of n (columns false), or acc[i] takes in x[i] (columns true) */
static void take(trmi_fold kind, trm_dtype work, bool columns, void *acc, const void *x, size_t n,
                 const void *shift)
{
    size_t step = columns ? 1 : 0;

    if (work == TRM_DTYPE_F32) {
        const trmi_vec *vec = trmi_vec_get();
        float *a = acc, r;

        if (columns) {
            vec->fold_columns(kind, a, x, n, shift);
            return;
        }
        r = vec->fold(kind, x, n, shift != NULL ? *(const float *)shift : 0.0f);
        if (kind == TRMI_FOLD_MAX || kind == TRMI_FOLD_MIN || kind == TRMI_FOLD_PROD)
            vec->fold_columns(kind, a, &r, 1, NULL);
        else
            *a += r;
        return;
    }
#define EACH(t, T)                                                                                 \
    for (size_t i = 0; i < n; i++)                                                                 \
    ((T *)acc)[i * step] = one_##t(kind, ((T *)acc)[i * step], ((const T *)x)[i],                  \
                                   shift != NULL ? ((const T *)shift)[i * step] : (T)0)
    if (work == TRM_DTYPE_F64)
        EACH(f64, double);
    else if (work == TRM_DTYPE_I64)
        EACH(i64, int64_t);
    else
        EACH(u64, uint64_t);
}

static void start(trmi_fold kind, trm_dtype work, trm_dtype in, void *acc, size_t n)
{
    double f = kind == TRMI_FOLD_MAX    ? -INFINITY
               : kind == TRMI_FOLD_MIN  ? INFINITY
               : kind == TRMI_FOLD_PROD ? 1
                                        : 0;

    if (isinf(f) && !trm_dtype_is_float(work)) { /* the dtype's own limits, for empty reductions */
        bool is_signed = trm_dtype_is_signed_int(in);
        unsigned bits = in == TRM_DTYPE_BOOL ? 1 : (unsigned)trm_dtype_bytes(in) * 8;
        uint64_t all = bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
        uint64_t max = is_signed ? all >> 1 : all;
        uint64_t min = is_signed ? ~max : 0;

        for (size_t i = 0; i < n; i++)
            ((uint64_t *)acc)[i] = f < 0 ? min : max;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (work == TRM_DTYPE_F32)
            ((float *)acc)[i] = (float)f;
        else if (work == TRM_DTYPE_F64)
            ((double *)acc)[i] = f;
        else
            ((int64_t *)acc)[i] = (int64_t)f;
    }
}

#define FINISH(T, sqrt_fn, log_fn)                                                                 \
    for (size_t i = 0; i < n; i++) {                                                               \
        T *a = (T *)acc + i;                                                                       \
        if (k->op == TRM_OP_ReduceMean)                                                            \
            *a /= (T)k->count;                                                                     \
        else if (k->op == TRM_OP_ReduceL2)                                                         \
            *a = sqrt_fn(*a);                                                                      \
        else if (k->op == TRM_OP_ReduceLogSum)                                                     \
            *a = log_fn(*a);                                                                       \
        else if (k->op == TRM_OP_ReduceLogSumExp)                                                  \
            *a = log_fn(*a) + ((const T *)shift)[i];                                               \
    }

static void finish(const reduce_kernel *k, void *acc, size_t n, const void *shift)
{
    if (k->work == TRM_DTYPE_F32) {
        FINISH(float, sqrtf, logf)
    } else if (k->work == TRM_DTYPE_F64) {
        FINISH(double, sqrt, log)
    } else if (k->op == TRM_OP_ReduceMean && k->count > 0) {
        for (size_t i = 0; i < n; i++) {
            if (k->work == TRM_DTYPE_I64)
                ((int64_t *)acc)[i] /= (int64_t)k->count;
            else
                ((uint64_t *)acc)[i] /= k->count;
        }
    }
}

/* The shift of log-sum-exp is the maximum; an infinite one shifts by 0, which gives the right
 * infinity */
static void make_finite(trm_dtype work, void *shift, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (work == TRM_DTYPE_F32 && isinf(((float *)shift)[i]))
            ((float *)shift)[i] = 0.0f;
        if (work == TRM_DTYPE_F64 && isinf(((double *)shift)[i]))
            ((double *)shift)[i] = 0.0;
    }
}

/* ---- walking ---- */
static size_t offset_of(size_t index, int groups, const size_t *dims, const size_t *strides)
{
    size_t at = 0;

    for (int g = groups - 1; g >= 0; g--) {
        at += index % dims[g] * strides[g];
        index /= dims[g];
    }
    return at;
}

/* Folds all rows that start `base` elements into the input, n long each. */
static void fold_rows(const reduce_kernel *k, const char *in, size_t base, size_t n, trmi_fold kind,
                      void *acc, const void *shift)
{
    size_t in_size = trm_dtype_bytes(k->in), work_size = trm_dtype_bytes(k->work);
    double buffer[TRMI_CHUNK];

    for (size_t r = 0; r < k->rows; r++) {
        const char *row =
            in + (base + offset_of(r, k->reduced, k->reduced_dims, k->reduced_strides)) * in_size;

        if (k->in == k->work) {
            take(kind, k->work, !k->last_reduced, acc, row, n, shift);
            continue;
        }
        for (size_t at = 0; at < n; at += TRMI_CHUNK) {
            size_t count = n - at < TRMI_CHUNK ? n - at : TRMI_CHUNK;
            size_t to = k->last_reduced ? 0 : at * work_size; /* columns: n <= TRMI_CHUNK */

            trmi_convert(k->work, buffer, k->in, row + at * in_size, count);
            take(kind, k->work, !k->last_reduced, (char *)acc + to, buffer, count, shift);
        }
    }
}

static void reduce_block(const reduce_kernel *k, const char *in, char *out, size_t base, size_t n,
                         size_t results)
{
    double acc[COLUMNS], shift[COLUMNS]; /* of any work dtype */
    const void *use = NULL;

    if (k->op == TRM_OP_ReduceLogSumExp) {
        start(TRMI_FOLD_MAX, k->work, k->in, shift, results);
        fold_rows(k, in, base, n, TRMI_FOLD_MAX, shift, NULL);
        make_finite(k->work, shift, results);
        use = shift;
    }
    start(k->fold, k->work, k->in, acc, results);
    fold_rows(k, in, base, n, k->fold, acc, use);
    finish(k, acc, results, use);
    trmi_convert(k->out, out, k->work, acc, results);
}

typedef struct reduce_job {
    const reduce_kernel *k;
    const char *in;
    char *out;
} reduce_job;

static void reduce_range(void *ctx, size_t begin, size_t end)
{
    const reduce_job *job = ctx;
    const reduce_kernel *k = job->k;
    size_t out_size = trm_dtype_bytes(k->out);
    size_t blocks = k->last_reduced ? 1 : (k->last + COLUMNS - 1) / COLUMNS;

    for (size_t i = begin; i < end; i++) {
        size_t outer = i / blocks, column = i % blocks * COLUMNS;
        size_t base = offset_of(outer, k->kept, k->kept_dims, k->kept_strides);

        if (k->last_reduced) {
            reduce_block(k, job->in, job->out + outer * out_size, base, k->last, 1);
        } else {
            size_t n = k->last - column < COLUMNS ? k->last - column : COLUMNS;

            reduce_block(k, job->in, job->out + (outer * k->last + column) * out_size,
                         base + column, n, n);
        }
    }
}

static trm_status reduce_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    reduce_kernel *k = (reduce_kernel *)base;
    reduce_job job = {k, in[0], out[0]};
    size_t blocks = k->last_reduced ? 1 : (k->last + COLUMNS - 1) / COLUMNS;
    size_t work = k->count * (k->last_reduced ? 1 : k->last < COLUMNS ? k->last : COLUMNS);

    (void)s;
    (void)workspace;
    trm_team_for(k->outer * blocks, 1 + TRMI_GRAIN / (work + 1), reduce_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops reduce_ops = {
    .name = "reduce", .run = reduce_run, .destroy = trmi_kernel_free};

/* Bit d: axis d is reduced. */
static trm_status reduced_axes(const trm_op_desc *desc, uint32_t *mask_out)
{
    int rank = desc->inputs[0].rank;
    uint32_t mask = 0;
    size_t count = 0;

    if (trmi_has_input(desc, 1)) {
        const trm_tensor *axes = &desc->inputs[1];

        count = trm_tensor_numel(axes);
        if (axes->data == NULL && count > 0)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': axes are not known on the host",
                            trm_op_get(desc->op)->name, desc->name);
        for (size_t i = 0; i < count; i++) {
            int axis;

            TRM_CHECK(trmi_axis(desc, trm_tensor_get_i64(axes, i), rank, &axis));
            mask |= 1u << axis;
        }
    }
    if (count == 0 && trm_attr_int(desc->attrs, "noop_with_empty_axes", 0) == 0)
        mask = (1u << rank) - 1;
    *mask_out = mask;
    return TRM_OK;
}

static void make_groups(reduce_kernel *k, const trm_tensor *in, uint32_t mask)
{
    size_t dims[TRM_RANK_MAX + 1], strides[TRM_RANK_MAX + 1], step = 1;
    bool reduced[TRM_RANK_MAX + 1];
    int n = 0;

    for (int d = in->rank - 1; d >= 0; d--) { /* innermost first */
        bool r = (mask >> d & 1) != 0;
        size_t dim = (size_t)in->dims[d];

        if (dim != 1) {
            if (n > 0 && reduced[n - 1] == r) {
                dims[n - 1] *= dim;
            } else {
                dims[n] = dim;
                strides[n] = step;
                reduced[n++] = r;
            }
        }
        step *= dim;
    }
    k->last_reduced = n > 0 && reduced[0];
    k->last = n > 0 ? dims[0] : 1;
    k->outer = k->rows = 1;
    for (int g = n - 1; g >= 1; g--) { /* outermost first */
        if (reduced[g]) {
            k->reduced_dims[k->reduced] = dims[g];
            k->reduced_strides[k->reduced++] = strides[g];
            k->rows *= dims[g];
        } else {
            k->kept_dims[k->kept] = dims[g];
            k->kept_strides[k->kept++] = strides[g];
            k->outer *= dims[g];
        }
    }
    k->count = k->rows * (k->last_reduced ? k->last : 1);
}

static trmi_fold fold_of(trm_op op)
{
    switch (op) {
    case TRM_OP_ReduceL1:
        return TRMI_FOLD_ABS;
    case TRM_OP_ReduceL2:
    case TRM_OP_ReduceSumSquare:
        return TRMI_FOLD_SQUARE;
    case TRM_OP_ReduceMax:
        return TRMI_FOLD_MAX;
    case TRM_OP_ReduceMin:
        return TRMI_FOLD_MIN;
    case TRM_OP_ReduceProd:
        return TRMI_FOLD_PROD;
    case TRM_OP_ReduceLogSumExp:
        return TRMI_FOLD_EXP;
    default:
        return TRMI_FOLD_SUM;
    }
}

trm_status trmi_prepare_reduce(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_dtype in = desc->inputs[0].dtype;
    bool in_doubles = desc->op == TRM_OP_ReduceL2 || desc->op == TRM_OP_ReduceLogSum ||
                      desc->op == TRM_OP_ReduceLogSumExp;
    reduce_kernel *k;
    uint32_t mask = 0;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(reduced_axes(desc, &mask));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &reduce_ops, &k));
    k->op = desc->op;
    k->fold = fold_of(desc->op);
    k->in = in;
    k->out = desc->outputs[0].dtype;
    k->work = in == TRM_DTYPE_F64           ? TRM_DTYPE_F64
              : trm_dtype_is_float(in)      ? TRM_DTYPE_F32
              : in_doubles                  ? TRM_DTYPE_F64
              : trm_dtype_is_signed_int(in) ? TRM_DTYPE_I64
                                            : TRM_DTYPE_U64;
    make_groups(k, &desc->inputs[0], mask);
    if (k->outer * (k->last_reduced ? 1 : k->last) != trm_tensor_numel(&desc->outputs[0])) {
        trmi_kernel_free(&k->base);
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': axes do not fit the output's shape",
                        trm_op_get(desc->op)->name, desc->name);
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
