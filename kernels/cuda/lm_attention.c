/* TrmPagedAttention on the device: prepare and run (lm_attention.h). */
#include "kernels/cuda/lm_attention.h"

#include <string.h>

enum { IN_Q, IN_K, IN_V, IN_STEP, IN_SINKS, IN_POSITIONS, IN_FREQUENCIES, IN_COUNT };

typedef trm_status (*attention_launch)(const trmi_lmc_attention *a, int wide, cudaStream_t stream);

typedef struct attention_kernel {
    trmi_cuda_kernel base;
    trmi_lmc_attention a; /* pointers: set by run */
    attention_launch launch;
    bool sinks;
    size_t k_at, v_at, partials_at, tops_at; /* workspace */
} attention_kernel;

static trm_status attention_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    const attention_kernel *k = (const attention_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);
    unsigned char *w = workspace;
    trmi_lmc_attention a = k->a;

    a.q = in[IN_Q];
    a.k = in[IN_K];
    a.v = in[IN_V];
    a.block = trmi_lmc_block(in[IN_STEP]);
    a.sinks = k->sinks ? in[IN_SINKS] : NULL;
    a.positions = a.half > 0 ? in[IN_POSITIONS] : NULL;
    a.frequencies = a.half > 0 ? in[IN_FREQUENCIES] : NULL;
    a.out = out[0];
    a.q_rounded = w;
    a.k_rows = w + k->k_at;
    a.v_rows = w + k->v_at;
    a.partials = (float *)(void *)(w + k->partials_at);
    a.tops = (float *)(void *)(w + k->tops_at);
    TRM_CHECK(trmi_lmc_attention_rows(&a, stream));
    TRM_CHECK(k->launch(&a, 0, stream));
    if (a.rows > TRMI_LM_NARROW_ROWS)
        TRM_CHECK(k->launch(&a, 1, stream));
    return a.encoder ? TRM_OK : trmi_lmc_attention_merge(&a, stream);
}

static const trm_kernel_ops mma_ops = {
    .name = "lm attention mma", .run = attention_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops simt_ops = {
    .name = "lm attention simt", .run = attention_run, .destroy = trmi_cuda_kernel_free};

static trm_status bad(const trm_op_desc *desc, const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "TrmPagedAttention '%s': %s", desc->name, what);
}

static trm_status want(const trm_op_desc *desc, int input, trm_dtype dtype, int rank)
{
    const trm_tensor *t = &desc->inputs[input];

    if (t->dtype != dtype)
        return trmi_cuda_bad_dtype(desc, input, trm_dtype_name(dtype));
    if (t->rank != rank)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmPagedAttention '%s': input %d has rank %d: want %d", desc->name, input,
                        t->rank, rank);
    return TRM_OK;
}

static trm_status check_inputs(attention_kernel *k, trm_op_desc *desc)
{
    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = IN_Q; i <= IN_V; i++)
        TRM_CHECK(want(desc, i, TRM_DTYPE_F32, 2));
    TRM_CHECK(want(desc, IN_STEP, TRM_DTYPE_I64, 1));
    k->sinks = trmi_cuda_has_input(desc, IN_SINKS);
    if (k->sinks)
        TRM_CHECK(want(desc, IN_SINKS, TRM_DTYPE_F32, 1));
    if (trmi_cuda_has_input(desc, IN_POSITIONS) != trmi_cuda_has_input(desc, IN_FREQUENCIES))
        return bad(desc, "positions and frequencies come together");
    if (!trmi_cuda_has_input(desc, IN_POSITIONS))
        return TRM_OK;
    TRM_CHECK(want(desc, IN_POSITIONS, TRM_DTYPE_I32, 1));
    TRM_CHECK(want(desc, IN_FREQUENCIES, TRM_DTYPE_F32, 1));
    if (desc->inputs[IN_POSITIONS].dims[0] != desc->inputs[IN_Q].dims[0])
        return bad(desc, "there is not a position for each row");
    k->a.half = (int32_t)desc->inputs[IN_FREQUENCIES].dims[0];
    return TRM_OK;
}

/* What the cache holds, and what is computed with. */
static trm_status settle_dtypes(trmi_lmc_attention *a, const trm_op_desc *desc)
{
    static const struct {
        const char *name;
        trm_dtype cache, compute;
    } dtypes[] = {{"f32", TRM_DTYPE_F32, TRM_DTYPE_F32},
                  {"f16", TRM_DTYPE_F16, TRM_DTYPE_F16},
                  {"bf16", TRM_DTYPE_BF16, TRM_DTYPE_BF16},
                  {"i8", TRM_DTYPE_I8, TRM_DTYPE_BF16}};
    const char *name = trm_attr_string(desc->attrs, "kv_dtype", "f32");

    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            a->cache = dtypes[i].cache;
            a->compute = dtypes[i].compute;
            return TRM_OK;
        }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "TrmPagedAttention '%s': a cache of %s: want f32, f16, bf16 or i8", desc->name,
                    name);
}

static trm_status settle(trmi_lmc_attention *a, const trm_op_desc *desc, bool sinks)
{
    const trm_attrs *t = desc->attrs;
    int64_t heads = trm_attr_int(t, "heads", 0), kv_heads = trm_attr_int(t, "kv_heads", 0);
    int64_t head_dim = trm_attr_int(t, "head_dim", 0);
    int64_t group = trm_attr_int(t, "group", kv_heads > 0 ? heads / kv_heads : 0);
    int64_t first = trm_attr_int(t, "first_head", 0), layer = trm_attr_int(t, "layer", 0);
    int64_t window = trm_attr_int(t, "window", 0), rows = desc->inputs[IN_Q].dims[0];

    if (heads < 1 || kv_heads < 1 || head_dim < 1 || heads > INT16_MAX || kv_heads > INT16_MAX)
        return bad(desc, "heads, kv_heads and head_dim must be at least 1, heads 32767 at most");
    if (head_dim > TRMI_LMC_HEAD_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmPagedAttention '%s': heads of %lld elements: at most %d", desc->name,
                        (long long)head_dim, TRMI_LMC_HEAD_MAX);
    for (int i = IN_Q; i <= IN_V; i++)
        if (desc->inputs[i].dims[0] != rows ||
            desc->inputs[i].dims[1] != (i == IN_Q ? heads : kv_heads) * head_dim)
            return bad(desc, "q, k and v do not have rows of heads * head_dim");
    if (rows > INT32_MAX / 4 || !trm_tensor_same_shape(&desc->inputs[IN_Q], &desc->outputs[0]))
        return bad(desc, "the output must have the shape of q");
    if (desc->inputs[IN_STEP].dims[0] < 1 || (sinks && desc->inputs[IN_SINKS].dims[0] != heads))
        return bad(desc, "step must have an element, sinks one a head");
    if (group < 1 || group > INT16_MAX || first < 0 || first > INT32_MAX / 2 ||
        (first + heads - 1) / group - first / group >= kv_heads)
        return bad(desc, "group and first_head ask for key heads that are not there");
    if (layer < 0 || layer > INT32_MAX || window < 0)
        return bad(desc, "layer and window must be 0 or more");
    if (a->half > head_dim / 2)
        return bad(desc, "more frequencies than pairs of a head");
    a->encoder = trm_attr_int(t, "encoder", 0) != 0;
    if (a->encoder && window > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmPagedAttention '%s': a window in an encoder",
                        desc->name);
    a->rows = (int32_t)rows;
    a->heads = (int32_t)heads;
    a->kv_heads = (int32_t)kv_heads;
    a->head_dim = (int32_t)head_dim;
    a->group = (int32_t)group;
    a->first_head = (int32_t)first;
    a->layer = (int32_t)layer;
    a->window = window < INT32_MAX ? (int32_t)window : 0;
    a->scale = trm_attr_float(t, "scale", 1.0f);
    a->cap = trm_attr_float(t, "softcap", 0.0f);
    a->interleaved = trm_attr_int(t, "rope_interleaved", 0) != 0;
    a->rope_scale = trm_attr_float(t, "rope_scale", 1.0f);
    return settle_dtypes(a, desc);
}

/* Tensor cores or plain arithmetic: by the heads and the device, not by T, for the sake of bits. */
static trm_status choose(attention_kernel *k, const trm_op_desc *desc)
{
    trmi_lmc_attention *a = &k->a;
    size_t shared_max = (size_t)k->base.cuda->shared_bytes_max;

    if (a->compute != TRM_DTYPE_F32 && a->head_dim % 16 == 0 && a->head_dim >= 32 &&
        a->head_dim <= TRMI_LMC_MMA_HEAD_MAX &&
        trmi_lmc_attention_mma_shared(a->head_dim) <= shared_max) {
        k->base.base.ops = &mma_ops;
        k->launch = a->encoder ? (a->compute == TRM_DTYPE_F16 ? trmi_lmc_attention_f16
                                                              : trmi_lmc_attention_bf16)
                    : a->cache == TRM_DTYPE_I8  ? trmi_lmc_attention_i8
                    : a->cache == TRM_DTYPE_F16 ? trmi_lmc_attention_f16
                                                : trmi_lmc_attention_bf16;
        return TRM_OK;
    }
    a->compute = TRM_DTYPE_F32;
    k->base.base.ops = &simt_ops;
    k->launch = trmi_lmc_attention_simt;
    if (trmi_lmc_attention_simt_shared(a->head_dim) > shared_max)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmPagedAttention '%s': heads of %d want %zu bytes of shared memory: the "
                        "device has %zu",
                        desc->name, (int)a->head_dim, trmi_lmc_attention_simt_shared(a->head_dim),
                        shared_max);
    return TRM_OK;
}

/* `count` arrays of [n][m] elements of `bytes` behind what the workspace has. */
static bool reserve(attention_kernel *k, size_t n, size_t m, size_t bytes, size_t *at_out)
{
    size_t all;

    *at_out = k->base.base.workspace_bytes;
    if (!trm_mul_ok(n, m, &all) || !trm_mul_ok(all, bytes, &all) ||
        !trm_add_ok(*at_out, trm_align_up(all, TRM_ALIGN), &k->base.base.workspace_bytes))
        return false;
    return all <= SIZE_MAX / 2;
}

trm_status trmi_cuda_prepare_lm_attention(trm_cuda *cuda, trm_op_desc *desc,
                                          trm_kernel **kernel_out)
{
    attention_kernel *k = NULL;
    trm_status st;
    size_t rows, size, q_at, row, keys, partials;

    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &simt_ops, &k));
    TRM_TRY(st, check_inputs(k, desc), fail);
    TRM_TRY(st, settle(&k->a, desc, k->sinks), fail);
    TRM_TRY(st, choose(k, desc), fail);
    k->a.multiprocessors = cuda->multiprocessors;
    rows = (size_t)k->a.rows;
    row = (size_t)k->a.heads * (size_t)k->a.head_dim;
    keys = (size_t)k->a.kv_heads * (size_t)k->a.head_dim;
    size = trm_dtype_bytes(k->a.compute);
    partials = (size_t)trmi_lm_partials_max(k->a.rows);
    st = bad(desc, "too large");
    if (!reserve(k, rows, row, size, &q_at))
        goto fail;
    if (k->a.encoder &&
        (!reserve(k, rows, keys, size, &k->k_at) || !reserve(k, rows, keys, size, &k->v_at)))
        goto fail;
    if (!k->a.encoder &&
        (!reserve(k, partials, row, sizeof(float), &k->partials_at) ||
         !reserve(k, partials, 2 * (size_t)k->a.heads, sizeof(float), &k->tops_at)))
        goto fail;
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
