/* Operators of several operands that broadcast: binary ones, Sum, Max, Min, Mean, Where, SwiGLU. */
#include "kernels/cuda/elementwise.h"

#include <string.h>

typedef struct map_kernel {
    trmi_cuda_kernel base;
    int fn;
    trm_dtype dtype, right, work; /* right, work: Pow of two dtypes */
    float alpha;
    size_t in_bytes[TRMI_MAP_INPUTS], out_bytes; /* of an element */
    trmi_cuda_map map;
    /* Sum, Max, Min, Mean: operands after the first eight join seven at a time */
    int more_count;
    trmi_cuda_map *more;
    double divisor;
} map_kernel;

typedef struct map_job {
    const map_kernel *k;
    cudaStream_t stream;
    const char *in[TRMI_MAP_INPUTS];
    char *out;
    double divisor;
} map_job;

/* The operands of a piece. */
static void piece_operands(const map_job *job, const trmi_cuda_map *piece, const int64_t *in_at,
                           int64_t out_at, const void **in, void **out)
{
    for (int i = 0; i < piece->inputs; i++)
        in[i] = job->in[i] + (size_t)in_at[i] * job->k->in_bytes[i];
    *out = job->out + (size_t)out_at * job->k->out_bytes;
}

static trm_status map_run(const map_kernel *k, trm_stream *s, const void *const *in,
                          void *const *out, trmi_map_fn fn)
{
    map_job job = {
        .k = k, .stream = trmi_cuda_stream(&k->base.base, s), .out = out[0], .divisor = k->divisor};

    for (int i = 0; i < k->map.inputs; i++)
        job.in[i] = in[i];
    return trmi_cuda_map_each(&k->map, TRMI_MAP_LIMIT, fn, &job);
}

static void map_destroy(trm_kernel *k)
{
    trm_free(((map_kernel *)k)->more);
    trm_free(k);
}

static trm_status map_new(trm_cuda *cuda, trm_op_desc *desc, const trm_kernel_ops *ops,
                          map_kernel **k_out)
{
    map_kernel *k = NULL;

    if (desc->post_count > 0)
        return trmi_cuda_begin(desc); /* it refuses them; layouts are the map's to settle */
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), ops, &k));
    k->fn = (int)desc->op;
    k->dtype = desc->inputs[0].dtype;
    k->out_bytes = trm_dtype_bytes(desc->outputs[0].dtype);
    for (int i = 0; i < desc->input_count && i < TRMI_MAP_INPUTS; i++)
        k->in_bytes[i] = trm_dtype_bytes(desc->inputs[i].dtype);
    *k_out = k;
    return TRM_OK;
}

/* ---- binary ---- */
static trm_status binary_piece(void *ctx, const trmi_cuda_map *piece, const int64_t *in_at,
                               int64_t out_at)
{
    const map_job *job = ctx;
    const map_kernel *k = job->k;
    const void *in[TRMI_MAP_INPUTS];
    void *out;

    piece_operands(job, piece, in_at, out_at, in, &out);
    if (k->work != TRM_DTYPE_NONE)
        return trmi_cuda_pow_mixed(k->base.cuda, job->stream, k->work, piece, in[0], k->dtype,
                                   in[1], k->right, out);
    if (trm_dtype_is_float(k->dtype))
        return trmi_cuda_binary(k->base.cuda, job->stream, k->fn, k->dtype, piece, in[0], in[1],
                                out, k->alpha);
    return trmi_cuda_binary_int(k->base.cuda, job->stream, k->fn, k->dtype, piece, in[0], in[1],
                                out);
}

static trm_status binary_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    (void)workspace;
    return map_run((const map_kernel *)base, s, in, out, binary_piece);
}

static const trm_kernel_ops binary_ops = {
    .name = "elementwise binary", .run = binary_run, .destroy = map_destroy};

static bool binary_defined(trm_op op, trm_dtype dtype)
{
    switch (op) {
    case TRM_OP_And:
    case TRM_OP_Or:
    case TRM_OP_Xor:
        return dtype == TRM_DTYPE_BOOL;
    case TRM_OP_Equal:
        return true;
    case TRM_OP_BitShift:
    case TRM_OP_BitwiseAnd:
    case TRM_OP_BitwiseOr:
    case TRM_OP_BitwiseXor:
        return !trm_dtype_is_float(dtype) && dtype != TRM_DTYPE_BOOL;
    default:
        return dtype != TRM_DTYPE_BOOL;
    }
}

/* Pow may mix dtypes; everything else has one. */
static trm_status settle_binary(map_kernel *k, const trm_op_desc *desc)
{
    trm_dtype l = desc->inputs[0].dtype, r = desc->inputs[1].dtype;

    if (l != r && desc->op != TRM_OP_Pow)
        return trmi_cuda_bad_dtype(desc, 1, trm_dtype_name(l));
    if (l == r && !binary_defined(desc->op, l))
        return trmi_cuda_bad_dtype(desc, 0, "another type: the operator is not defined for it");
    k->right = r;
    if (desc->op == TRM_OP_Mod && trm_attr_int(desc->attrs, "fmod", 0) != 0)
        k->fn = TRMI_FN_FMOD;
    if (desc->op == TRM_OP_BitShift &&
        strcmp(trm_attr_string(desc->attrs, "direction", "LEFT"), "RIGHT") == 0)
        k->fn = TRMI_FN_SHIFT_RIGHT;
    if (l != r) {
        bool wide = l == TRM_DTYPE_F64 || r == TRM_DTYPE_F64;

        if (trm_dtype_is_float(l))
            k->work = wide ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
        else
            k->work = trm_dtype_is_float(r) ? TRM_DTYPE_F64 : TRM_DTYPE_I64;
    }
    return TRM_OK;
}

trm_status trmi_cuda_prepare_binary(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in[2] = {&desc->inputs[0], &desc->inputs[1]};
    map_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(map_new(cuda, desc, &binary_ops, &k));
    TRM_TRY(st, settle_binary(k, desc), fail);
    trmi_cuda_map_settle(desc, 2);
    TRM_TRY(st, trmi_cuda_map_init(&k->map, desc, in, 2), fail);
    k->base.base.in_place = trmi_cuda_may_lie_in(desc, 0) | trmi_cuda_may_lie_in(desc, 1);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    map_destroy(&k->base.base);
    return st;
}

/* a sigmoid(alpha a) b, of one shape */
trm_status trmi_cuda_prepare_swiglu(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_kernel *base = NULL;

    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (!trm_tensor_same_shape(&desc->inputs[0], &desc->inputs[1]))
        return trm_fail(TRM_ERR_INVALID_ARG, "SwiGLU '%s': inputs of different shapes", desc->name);
    TRM_CHECK(trmi_cuda_prepare_binary(cuda, desc, &base));
    ((map_kernel *)base)->alpha = trm_attr_float(desc->attrs, "alpha", 1.0f);
    *kernel_out = base;
    return TRM_OK;
}

/* ---- Where ---- */
static trm_status where_piece(void *ctx, const trmi_cuda_map *piece, const int64_t *in_at,
                              int64_t out_at)
{
    const map_job *job = ctx;
    const void *in[TRMI_MAP_INPUTS];
    void *out;

    piece_operands(job, piece, in_at, out_at, in, &out);
    return trmi_cuda_where(job->k->base.cuda, job->stream, job->k->out_bytes, piece, in[0], in[1],
                           in[2], out);
}

static trm_status where_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    (void)workspace;
    return map_run((const map_kernel *)base, s, in, out, where_piece);
}

static const trm_kernel_ops where_ops = {
    .name = "elementwise where", .run = where_run, .destroy = map_destroy};

trm_status trmi_cuda_prepare_where(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in[3] = {&desc->inputs[0], &desc->inputs[1], &desc->inputs[2]};
    map_kernel *k = NULL;
    trm_status st;

    if (in[0]->dtype != TRM_DTYPE_BOOL)
        return trmi_cuda_bad_dtype(desc, 0, "bool");
    if (in[1]->dtype != in[2]->dtype)
        return trmi_cuda_bad_dtype(desc, 2, trm_dtype_name(in[1]->dtype));
    TRM_CHECK(map_new(cuda, desc, &where_ops, &k));
    trmi_cuda_map_settle(desc, 3);
    TRM_TRY(st, trmi_cuda_map_init(&k->map, desc, in, 3), fail);
    k->base.base.in_place = trmi_cuda_may_lie_in(desc, 1) | trmi_cuda_may_lie_in(desc, 2);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    map_destroy(&k->base.base);
    return st;
}

/* ---- Sum, Max, Min, Mean ---- */
static trm_status many_piece(void *ctx, const trmi_cuda_map *piece, const int64_t *in_at,
                             int64_t out_at)
{
    const map_job *job = ctx;
    const map_kernel *k = job->k;
    const void *in[TRMI_MAP_INPUTS];
    void *out;

    piece_operands(job, piece, in_at, out_at, in, &out);
    return trmi_cuda_many(k->base.cuda, job->stream, k->fn, k->dtype, piece, in, out, job->divisor);
}

static trm_status many_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const map_kernel *k = (const map_kernel *)base;
    map_job job = {.k = k, .stream = trmi_cuda_stream(base, s), .out = out[0]};
    int at = 0;

    (void)workspace;
    for (int pass = 0; pass <= k->more_count; pass++) {
        const trmi_cuda_map *m = pass == 0 ? &k->map : &k->more[pass - 1];
        int i = 0;

        if (pass > 0)
            job.in[i++] = out[0];
        while (i < m->inputs)
            job.in[i++] = in[at++];
        job.divisor = pass == k->more_count ? k->divisor : 0;
        TRM_CHECK(trmi_cuda_map_each(m, TRMI_MAP_LIMIT, many_piece, &job));
    }
    return TRM_OK;
}

static const trm_kernel_ops many_ops = {
    .name = "elementwise variadic", .run = many_run, .destroy = map_destroy};

/* The first eight operands, then the result so far with seven more, and so on. */
static trm_status settle_passes(map_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *in[TRMI_MAP_INPUTS];
    int inputs = desc->input_count, at = 0, n;

    for (n = 0; n < TRMI_MAP_INPUTS && at < inputs; n++)
        in[n] = &desc->inputs[at++];
    TRM_CHECK(trmi_cuda_map_init(&k->map, desc, in, n));
    if (at == inputs)
        return TRM_OK;
    k->more_count = (inputs - at + TRMI_MAP_INPUTS - 2) / (TRMI_MAP_INPUTS - 1);
    k->more = trm_calloc((size_t)k->more_count, sizeof(*k->more));
    if (k->more == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s '%s': kernel", trm_op_get(desc->op)->name,
                        desc->name);
    for (int pass = 0; pass < k->more_count; pass++) {
        in[0] = &desc->outputs[0];
        for (n = 1; n < TRMI_MAP_INPUTS && at < inputs; n++)
            in[n] = &desc->inputs[at++];
        TRM_CHECK(trmi_cuda_map_init(&k->more[pass], desc, in, n));
    }
    return TRM_OK;
}

trm_status trmi_cuda_prepare_variadic(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_dtype dtype = desc->inputs[0].dtype;
    int inputs = desc->input_count;
    map_kernel *k = NULL;
    trm_status st;

    for (int i = 1; i < inputs; i++)
        if (desc->inputs[i].dtype != dtype)
            return trmi_cuda_bad_dtype(desc, i, trm_dtype_name(dtype));
    if (inputs > 1 &&
        (dtype == TRM_DTYPE_BOOL || (desc->op == TRM_OP_Mean && !trm_dtype_is_float(dtype))))
        return trmi_cuda_bad_dtype(desc, 0, "another type: the operator is not defined for it");
    TRM_CHECK(map_new(cuda, desc, &many_ops, &k));
    trmi_cuda_map_settle(desc, inputs);
    if (desc->op == TRM_OP_Mean) {
        k->fn = TRM_OP_Sum;
        k->divisor = (double)inputs;
    }
    for (int i = 0; i < TRMI_MAP_INPUTS; i++)
        k->in_bytes[i] = trm_dtype_bytes(dtype);
    TRM_TRY(st, settle_passes(k, desc), fail);
    if (inputs == 2 && k->divisor == 0)
        k->base.base.ops = &binary_ops;
    /* those that the first pass reads */
    for (int i = 0; i < inputs && i < TRMI_MAP_INPUTS; i++)
        k->base.base.in_place |= trmi_cuda_may_lie_in(desc, i);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    map_destroy(&k->base.base);
    return st;
}
