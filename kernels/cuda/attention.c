/* TrmAttention and ONNX Attention: both become one description with strides (attention.h). */
#include "kernels/cuda/attention.h"

#include <inttypes.h>
#include <math.h>

enum { IN_Q, IN_K, IN_V, IN_MASK, IN_PAST_KEY, IN_PAST_VALUE, IN_NONPAD };
enum { OUT_Y, OUT_KEY, OUT_VALUE, OUT_SCORES, OUT_COUNT };

typedef trm_status (*attention_launch)(const trmi_attention *a, cudaStream_t stream);

typedef struct attention_kernel {
    trmi_cuda_kernel base;
    trmi_attention a; /* pointers: set by run */
    attention_launch launch;
    /* ONNX Attention */
    bool cached, wanted[OUT_COUNT], nonpad;
    trmi_attention_cache key, value;
    size_t key_at, value_at; /* workspace, where no output takes them */
    int scores_mode;
    trm_dtype scores_dtype;
} attention_kernel;

static trm_status attention_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    const attention_kernel *k = (const attention_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);
    trmi_attention a = k->a;
    void *key = k->wanted[OUT_KEY] ? out[OUT_KEY] : NULL;
    void *value = k->wanted[OUT_VALUE] ? out[OUT_VALUE] : NULL;

    a.q.data = in[IN_Q];
    a.k.data = in[IN_K];
    a.v.data = in[IN_V];
    a.mask.data = a.mask.dtype == TRM_DTYPE_NONE ? NULL : in[IN_MASK];
    a.nonpad = k->nonpad ? in[IN_NONPAD] : NULL;
    a.out = out[OUT_Y];
    if (k->cached && key == NULL)
        key = (char *)workspace + k->key_at;
    if (k->cached && value == NULL)
        value = (char *)workspace + k->value_at;
    if (key != NULL)
        TRM_CHECK(trmi_cuda_attention_concat(&k->key, k->cached ? in[IN_PAST_KEY] : NULL, in[IN_K],
                                             key, stream));
    if (value != NULL)
        TRM_CHECK(trmi_cuda_attention_concat(&k->value, k->cached ? in[IN_PAST_VALUE] : NULL,
                                             in[IN_V], value, stream));
    if (k->cached) {
        a.k.data = key;
        a.v.data = value;
    }
    TRM_CHECK(k->launch(&a, stream));
    if (k->wanted[OUT_SCORES])
        TRM_CHECK(trmi_cuda_attention_scores(&a, k->scores_mode, k->scores_dtype, out[OUT_SCORES],
                                             stream));
    return TRM_OK;
}

static const trm_kernel_ops mma_ops = {
    .name = "attention mma", .run = attention_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops simt_ops = {
    .name = "attention simt", .run = attention_run, .destroy = trmi_cuda_kernel_free};

/* [batch, heads, rows, columns] in row-major order. */
static trmi_attention_view dense_view(trm_dtype dtype, int64_t heads, int64_t rows, int64_t columns)
{
    return (trmi_attention_view){.dtype = dtype,
                                 .batch = heads * rows * columns,
                                 .head = rows * columns,
                                 .row = columns,
                                 .column = 1};
}

/* [batch, rows, heads * columns] */
static trmi_attention_view flat_view(trm_dtype dtype, int64_t heads, int64_t rows, int64_t columns)
{
    return (trmi_attention_view){.dtype = dtype,
                                 .batch = heads * rows * columns,
                                 .head = columns,
                                 .row = heads * columns,
                                 .column = 1};
}

/* Right-aligned broadcast of the mask to [batch, heads, q_len, kv_len]; its keys may be fewer. */
static trm_status mask_view(const trm_op_desc *desc, trmi_attention *a)
{
    const trm_tensor *t = &desc->inputs[IN_MASK];
    int64_t want[4] = {a->batch, a->heads, a->q_len, a->kv_len}, strides[4], step = 1;

    a->mask_len = a->kv_len;
    if (!trmi_cuda_has_input(desc, IN_MASK))
        return TRM_OK;
    if (t->dtype != TRM_DTYPE_BOOL && !trm_dtype_is_float(t->dtype))
        return trmi_cuda_bad_dtype(desc, IN_MASK, "a float or bool");
    if (t->rank > 4)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': mask of rank %d: want 4 or less",
                        trm_op_get(desc->op)->name, desc->name, t->rank);
    for (int d = 3; d >= 0; d--) {
        int e = t->rank - 4 + d;
        int64_t dim = e < 0 ? 1 : t->dims[e];

        if (dim != 1 && dim != want[d] && !(d == 3 && dim < want[d]))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': mask: dim %d is %" PRId64 ": want 1 or %" PRId64
                            " (batch, heads, queries, keys)",
                            trm_op_get(desc->op)->name, desc->name, e, dim, want[d]);
        strides[d] = dim == 1 ? 0 : step;
        step *= dim;
    }
    a->mask = (trmi_attention_view){.batch = strides[0],
                                    .head = strides[1],
                                    .row = strides[2],
                                    .column = strides[3],
                                    .dtype = t->dtype};
    if (t->rank > 0 && t->dims[t->rank - 1] != 1)
        a->mask_len = (int)t->dims[t->rank - 1];
    return TRM_OK;
}

static trm_status begin(trm_op_desc *desc)
{
    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = IN_Q; i <= IN_V; i++) {
        trm_dtype dtype = desc->inputs[i].dtype;

        if (!trm_dtype_is_float(dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
        if (dtype != desc->inputs[IN_Q].dtype && dtype != TRM_DTYPE_F32)
            return trmi_cuda_bad_dtype(desc, i, trm_dtype_name(desc->inputs[IN_Q].dtype));
    }
    if (!trm_dtype_is_float(desc->outputs[OUT_Y].dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': output is %s: want a float",
                        trm_op_get(desc->op)->name, desc->name,
                        trm_dtype_name(desc->outputs[OUT_Y].dtype));
    return TRM_OK;
}

/* A dim as an int of the description. */
static trm_status sized(const trm_op_desc *desc, int64_t n, int *n_out)
{
    if (n < 0 || n > INT32_MAX / 4)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': a dim of %" PRId64 ": want %d or less",
                        trm_op_get(desc->op)->name, desc->name, n, INT32_MAX / 4);
    *n_out = (int)n;
    return TRM_OK;
}

static void choose(attention_kernel *k)
{
    const trmi_attention *a = &k->a;
    trm_dtype dtype = a->q.dtype;
    bool same = a->k.dtype == dtype && a->v.dtype == dtype && a->y.dtype == dtype;

    k->base.base.ops = &simt_ops;
    k->launch = trmi_cuda_attention_simt;
    if (!same || (dtype != TRM_DTYPE_F16 && dtype != TRM_DTYPE_BF16) ||
        a->dim > TRMI_ATTENTION_MMA_DIM || a->v_dim > TRMI_ATTENTION_MMA_DIM)
        return;
    k->base.base.ops = &mma_ops;
    k->launch = dtype == TRM_DTYPE_F16 ? trmi_cuda_attention_f16 : trmi_cuda_attention_bf16;
}

static trm_status fill(const trm_cuda *cuda, const trm_op_desc *desc, attention_kernel *k)
{
    const trm_tensor *q = &desc->inputs[IN_Q], *kt = &desc->inputs[IN_K], *v = &desc->inputs[IN_V];
    bool transposed = trm_attr_int(desc->attrs, "k_transposed", 0) != 0;
    trmi_attention *a = &k->a;

    if (q->rank != 4 || kt->rank != 4 || v->rank != 4)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmAttention '%s': ranks %d, %d, %d: want 4",
                        desc->name, q->rank, kt->rank, v->rank);
    if (kt->dims[0] != q->dims[0] || v->dims[0] != q->dims[0] || v->dims[1] != kt->dims[1] ||
        kt->dims[1] == 0 || q->dims[1] % kt->dims[1] != 0 ||
        kt->dims[transposed ? 2 : 3] != q->dims[3] || kt->dims[transposed ? 3 : 2] != v->dims[2])
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmAttention '%s': q, k and v do not fit each other",
                        desc->name);
    TRM_CHECK(sized(desc, q->dims[0], &a->batch));
    TRM_CHECK(sized(desc, q->dims[1], &a->heads));
    TRM_CHECK(sized(desc, kt->dims[1], &a->kv_heads));
    TRM_CHECK(sized(desc, q->dims[2], &a->q_len));
    TRM_CHECK(sized(desc, q->dims[3], &a->dim));
    TRM_CHECK(sized(desc, v->dims[2], &a->kv_len));
    TRM_CHECK(sized(desc, v->dims[3], &a->v_dim));
    a->left = a->right = -1;
    a->multiprocessors = cuda->multiprocessors;
    a->scale = (double)trm_attr_float(desc->attrs, "scale", 1.0f);
    a->q = dense_view(q->dtype, a->heads, a->q_len, a->dim);
    a->k = dense_view(kt->dtype, a->kv_heads, a->kv_len, a->dim);
    a->v = dense_view(v->dtype, a->kv_heads, a->kv_len, a->v_dim);
    a->y = dense_view(desc->outputs[OUT_Y].dtype, a->heads, a->q_len, a->v_dim);
    if (transposed) {
        a->k.row = 1;
        a->k.column = a->kv_len;
    }
    return mask_view(desc, a);
}

trm_status trmi_cuda_prepare_attention(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    attention_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(begin(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &simt_ops, &k));
    TRM_TRY(st, fill(cuda, desc, k), fail);
    choose(k);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}

static trm_status packed_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const attention_kernel *k = (const attention_kernel *)base;
    size_t size = trm_dtype_bytes(k->a.q.dtype);
    const unsigned char *rows = in[0];
    trmi_attention a = k->a;

    (void)workspace;
    a.q.data = rows;
    a.k.data = rows + k->key_at * size;
    a.v.data = rows + k->value_at * size;
    a.mask.data = a.mask.dtype == TRM_DTYPE_NONE ? NULL : in[1];
    a.out = out[0];
    return k->launch(&a, trmi_cuda_stream(base, s));
}

static const trm_kernel_ops packed_ops = {
    .name = "attention packed", .run = packed_run, .destroy = trmi_cuda_kernel_free};

/* q, k, v are stretches of the rows of one tensor; the rows of the result are dense. */
static trm_status packed_fill(const trm_cuda *cuda, const trm_op_desc *desc, attention_kernel *k)
{
    const trm_tensor *x = &desc->inputs[0];
    trm_tensor four[IN_MASK + 1] = {{.dtype = TRM_DTYPE_NONE}};
    trm_op_desc masked = *desc;
    trmi_attention *a = &k->a;
    int64_t row = x->dims[2];
    trmi_attention_view *views[3] = {&a->q, &a->k, &a->v};

    TRM_CHECK(sized(desc, x->dims[0], &a->batch));
    TRM_CHECK(sized(desc, trm_attr_int(desc->attrs, "heads", 0), &a->heads));
    TRM_CHECK(sized(desc, x->dims[1], &a->q_len));
    TRM_CHECK(sized(desc, trm_attr_int(desc->attrs, "dim", 0), &a->dim));
    TRM_CHECK(sized(desc, trm_attr_int(desc->attrs, "v_dim", 0), &a->v_dim));
    a->kv_heads = a->heads;
    a->kv_len = a->q_len;
    a->left = a->right = -1;
    a->multiprocessors = cuda->multiprocessors;
    a->scale = (double)trm_attr_float(desc->attrs, "scale", 1.0f);
    for (int i = 0; i < 3; i++)
        *views[i] = (trmi_attention_view){.dtype = x->dtype,
                                          .batch = x->dims[1] * row,
                                          .head = i < 2 ? a->dim : a->v_dim,
                                          .row = row,
                                          .column = 1};
    k->key_at = (size_t)a->heads * (size_t)a->dim; /* in elements */
    k->value_at = 2 * k->key_at;
    a->y = flat_view(desc->outputs[OUT_Y].dtype, a->heads, a->q_len, a->v_dim);
    if (desc->input_count > 1)
        four[IN_MASK] = desc->inputs[1];
    masked.inputs = four;
    masked.input_count = IN_MASK + 1;
    return mask_view(&masked, a);
}

trm_status trmi_cuda_prepare_attention_packed(trm_cuda *cuda, trm_op_desc *desc,
                                              trm_kernel **kernel_out)
{
    attention_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &packed_ops, &k));
    TRM_TRY(st, packed_fill(cuda, desc, k), fail);
    choose(k);
    k->base.base.ops = &packed_ops;
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}

/* Heads and lengths of ONNX Attention from q, k, v and the caches. */
static trm_status onnx_sizes(const trm_op_desc *desc, attention_kernel *k)
{
    const trm_tensor *q = &desc->inputs[IN_Q], *kt = &desc->inputs[IN_K], *v = &desc->inputs[IN_V];
    const trm_tensor *pk = &desc->inputs[IN_PAST_KEY], *pv = &desc->inputs[IN_PAST_VALUE];
    trmi_attention *a = &k->a;
    bool flat = q->rank == 3;
    int64_t heads, kv_heads, past = k->cached ? pk->dims[2] : 0;

    if ((q->rank != 3 && q->rank != 4) || kt->rank != q->rank || v->rank != q->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention '%s': ranks %d, %d, %d: want 3 or 4",
                        desc->name, q->rank, kt->rank, v->rank);
    heads = flat ? trm_attr_int(desc->attrs, "q_num_heads", 0) : q->dims[1];
    kv_heads = flat ? trm_attr_int(desc->attrs, "kv_num_heads", 0) : kt->dims[1];
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 ||
        (flat &&
         (q->dims[2] % heads != 0 || kt->dims[2] % kv_heads != 0 || v->dims[2] % kv_heads != 0)))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Attention '%s': %" PRId64 " query heads and %" PRId64
                        " key heads do not fit the shapes",
                        desc->name, heads, kv_heads);
    TRM_CHECK(sized(desc, q->dims[0], &a->batch));
    TRM_CHECK(sized(desc, heads, &a->heads));
    TRM_CHECK(sized(desc, kv_heads, &a->kv_heads));
    TRM_CHECK(sized(desc, q->dims[flat ? 1 : 2], &a->q_len));
    TRM_CHECK(sized(desc, kt->dims[flat ? 1 : 2] + past, &a->kv_len));
    TRM_CHECK(sized(desc, flat ? q->dims[2] / heads : q->dims[3], &a->dim));
    TRM_CHECK(sized(desc, flat ? v->dims[2] / kv_heads : v->dims[3], &a->v_dim));
    if (kt->dims[0] != q->dims[0] || v->dims[0] != q->dims[0] ||
        (flat ? kt->dims[2] / kv_heads : kt->dims[3]) != a->dim ||
        kt->dims[flat ? 1 : 2] != v->dims[flat ? 1 : 2] || (!flat && v->dims[1] != kv_heads))
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention '%s': q, k and v do not fit each other",
                        desc->name);
    if (past > 0 && (pk->dims[0] != q->dims[0] || pk->dims[3] != a->dim ||
                     pk->dims[1] != kv_heads || pv->dims[0] != q->dims[0] ||
                     pv->dims[3] != a->v_dim || pv->dims[1] != kv_heads || pv->dims[2] != past))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Attention '%s': the past does not fit keys and values", desc->name);
    a->offset = (int)past;
    k->key = (trmi_attention_cache){.batch = (size_t)a->batch,
                                    .heads = (size_t)a->kv_heads,
                                    .past_rows = (size_t)past,
                                    .rows = (size_t)(a->kv_len - past),
                                    .columns = (size_t)a->dim,
                                    .flat = flat,
                                    .dtype = kt->dtype};
    k->value = k->key;
    k->value.columns = (size_t)a->v_dim;
    k->value.dtype = v->dtype;
    return TRM_OK;
}

static trm_status onnx_cache(const trm_op_desc *desc, attention_kernel *k)
{
    const trm_tensor *in = desc->inputs;

    k->cached = trmi_cuda_has_input(desc, IN_PAST_KEY);
    if (k->cached != trmi_cuda_has_input(desc, IN_PAST_VALUE))
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention '%s': past_key and past_value go together",
                        desc->name);
    if (!k->cached)
        return TRM_OK;
    for (int i = IN_PAST_KEY; i <= IN_PAST_VALUE; i++) {
        if (in[i].rank != 4)
            return trm_fail(TRM_ERR_INVALID_ARG, "Attention '%s': the past has rank %d: want 4",
                            desc->name, in[i].rank);
        if (in[i].dtype != in[i - IN_PAST_KEY + IN_K].dtype)
            return trmi_cuda_bad_dtype(desc, i, trm_dtype_name(in[i - IN_PAST_KEY + IN_K].dtype));
    }
    return TRM_OK;
}

static int window(const trm_op_desc *desc, const char *name)
{
    int64_t n = trm_attr_int(desc->attrs, name, -1);

    return n < 0 ? -1 : n > INT32_MAX / 4 ? INT32_MAX / 4 : (int)n;
}

static trm_status onnx_fill(const trm_cuda *cuda, const trm_op_desc *desc, attention_kernel *k)
{
    const trm_tensor *in = desc->inputs;
    trmi_attention *a = &k->a;
    bool flat = in[IN_Q].rank == 3;
    size_t rows;

    TRM_CHECK(onnx_cache(desc, k));
    TRM_CHECK(onnx_sizes(desc, k));
    a->multiprocessors = cuda->multiprocessors;
    a->scale = trm_attr_find(desc->attrs, "scale") == NULL
                   ? 1.0 / sqrt((double)a->dim)
                   : (double)trm_attr_float(desc->attrs, "scale", 0.0f);
    a->softcap = trm_attr_float(desc->attrs, "softcap", 0.0f);
    a->causal = trm_attr_int(desc->attrs, "is_causal", 0) != 0;
    a->left = window(desc, "left_window_size");
    a->right = window(desc, "right_window_size");
    a->q = flat ? flat_view(in[IN_Q].dtype, a->heads, a->q_len, a->dim)
                : dense_view(in[IN_Q].dtype, a->heads, a->q_len, a->dim);
    a->y = flat ? flat_view(desc->outputs[OUT_Y].dtype, a->heads, a->q_len, a->v_dim)
                : dense_view(desc->outputs[OUT_Y].dtype, a->heads, a->q_len, a->v_dim);
    a->k = flat && !k->cached ? flat_view(in[IN_K].dtype, a->kv_heads, a->kv_len, a->dim)
                              : dense_view(in[IN_K].dtype, a->kv_heads, a->kv_len, a->dim);
    a->v = flat && !k->cached ? flat_view(in[IN_V].dtype, a->kv_heads, a->kv_len, a->v_dim)
                              : dense_view(in[IN_V].dtype, a->kv_heads, a->kv_len, a->v_dim);
    TRM_CHECK(mask_view(desc, a));
    k->nonpad = trmi_cuda_has_input(desc, IN_NONPAD);
    if (k->nonpad && (in[IN_NONPAD].dtype != TRM_DTYPE_I64 ||
                      trm_tensor_numel(&in[IN_NONPAD]) != (size_t)a->batch))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Attention '%s': nonpad_kv_seqlen is %s of %zu: want i64 of %d", desc->name,
                        trm_dtype_name(in[IN_NONPAD].dtype), trm_tensor_numel(&in[IN_NONPAD]),
                        a->batch);
    for (int i = 0; i < OUT_COUNT; i++)
        k->wanted[i] = trmi_cuda_has_output(desc, i);
    if (k->wanted[OUT_SCORES]) {
        k->scores_mode = (int)trm_attr_int(desc->attrs, "qk_matmul_output_mode", 0);
        k->scores_dtype = desc->outputs[OUT_SCORES].dtype;
        if (!trm_dtype_is_float(k->scores_dtype))
            return trm_fail(TRM_ERR_UNSUPPORTED, "Attention '%s': scores of %s", desc->name,
                            trm_dtype_name(k->scores_dtype));
    }
    if (!k->cached)
        return TRM_OK;
    rows = (size_t)a->batch * (size_t)a->kv_heads * (size_t)a->kv_len;
    k->value_at = trm_align_up(rows * (size_t)a->dim * trm_dtype_bytes(in[IN_K].dtype), TRM_ALIGN);
    k->base.base.workspace_bytes =
        k->value_at +
        trm_align_up(rows * (size_t)a->v_dim * trm_dtype_bytes(in[IN_V].dtype), TRM_ALIGN);
    return TRM_OK;
}

trm_status trmi_cuda_prepare_onnx_attention(trm_cuda *cuda, trm_op_desc *desc,
                                            trm_kernel **kernel_out)
{
    attention_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(begin(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &simt_ops, &k));
    TRM_TRY(st, onnx_fill(cuda, desc, k), fail);
    choose(k);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
