/* TrmAttention and ONNX Attention.
 *
 * Both become one description with strides (reference/attention.h). f32, bf16 and f16 run the fast
 * core: threads take (batch, head) pairs, or pieces of their query rows where there are few pairs;
 * a thread packs a head's keys and values once for its piece. f64 runs the scalar reference. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/scalar.h"

#include <math.h>
#include <string.h>

typedef struct attention_kernel {
    trm_kernel base;
    trm_attention a;             /* data pointers: set by run */
    trmi_attention_rows_fn rows; /* NULL: the reference */
    size_t pieces, piece_rows;   /* of a head's query rows */
    size_t scratch;              /* floats of one thread */
    float *workspace;
    size_t items, parts;
    /* ONNX Attention */
    bool onnx;
    trm_tensor key, value, past_key, past_value; /* descriptions */
    size_t present_key_at, present_value_at;     /* workspace, where no output takes them */
    trm_tensor qk;
    int qk_mode;
    int input_count, output_count;
} attention_kernel;

void trmi_attention_load_row(const trm_attention_view *v, size_t b, size_t h, size_t row, size_t n,
                             float *to)
{
    size_t at = b * v->batch + h * v->head + row * v->row;

    if (v->dtype == TRM_DTYPE_F32 && v->column == 1) {
        memcpy(to, (const float *)v->data + at, n * sizeof(float));
        return;
    }
    for (size_t c = 0; c < n; c++) {
        size_t i = at + c * v->column;

        switch (v->dtype) {
        case TRM_DTYPE_F32:
            to[c] = ((const float *)v->data)[i];
            break;
        case TRM_DTYPE_BF16:
            to[c] = trm_bf16_to_f32(((const uint16_t *)v->data)[i]);
            break;
        default:
            to[c] = trm_f16_to_f32(((const uint16_t *)v->data)[i]);
            break;
        }
    }
}

static size_t padded(size_t n)
{
    return trm_align_up(n, TRMI_ATTENTION_LANES);
}

/* Floats of scratch that one thread needs. */
static size_t scratch_elems(const trm_attention *a)
{
    size_t kv = padded(a->kv_len), v = padded(a->v_dim);

    return trm_align_up(
        a->dim * kv + a->kv_len * v + TRMI_ATTENTION_ROWS * (a->dim + kv + v) + 16 * a->dim, 16);
}

/* Packs head `h` of batch `b` into scratch. */
static void pack_head(const trm_attention *a, size_t b, size_t h, float *scratch,
                      trmi_attention_head *head)
{
    size_t g = h / (a->heads / a->kv_heads);
    float *keys = scratch, *values, *rows;

    head->kv_pad = padded(a->kv_len);
    head->v_pad = padded(a->v_dim);
    values = keys + a->dim * head->kv_pad;
    head->q = values + a->kv_len * head->v_pad;
    head->scores = head->q + TRMI_ATTENTION_ROWS * a->dim;
    head->out = head->scores + TRMI_ATTENTION_ROWS * head->kv_pad;
    rows = head->out + TRMI_ATTENTION_ROWS * head->v_pad;
    head->keys = keys;
    head->keys_row = head->kv_pad;
    if (a->k.dtype == TRM_DTYPE_F32 && a->k.row == 1 && a->kv_len == head->kv_pad) {
        head->keys = (const float *)a->k.data + b * a->k.batch + g * a->k.head;
        head->keys_row = a->k.column;
    } else {
        for (size_t j = 0; j < head->kv_pad; j += 16) {
            for (size_t r = 0; r < 16; r++) {
                if (j + r < a->kv_len)
                    trmi_attention_load_row(&a->k, b, g, j + r, a->dim, rows + r * a->dim);
                else
                    memset(rows + r * a->dim, 0, a->dim * sizeof(float));
            }
            for (size_t c = 0; c < a->dim; c++)
                for (size_t r = 0; r < 16; r++)
                    keys[c * head->kv_pad + j + r] = rows[r * a->dim + c];
        }
    }
    head->values = values;
    head->values_row = head->v_pad;
    if (a->v.dtype == TRM_DTYPE_F32 && a->v.column == 1 && a->v_dim == head->v_pad) {
        head->values = (const float *)a->v.data + b * a->v.batch + g * a->v.head;
        head->values_row = a->v.row;
        return;
    }
    for (size_t j = 0; j < a->kv_len; j++) {
        float *to = values + j * head->v_pad;

        trmi_attention_load_row(&a->v, b, g, j, a->v_dim, to);
        memset(to + a->v_dim, 0, (head->v_pad - a->v_dim) * sizeof(float));
    }
}

/* Parts are the team's shares: each has its own scratch. */
static void attention_parts(void *ctx, size_t begin, size_t end)
{
    const attention_kernel *k = ctx;
    const trm_attention *a = &k->a;

    for (size_t part = begin; part < end; part++) {
        size_t from = k->items * part / k->parts, to = k->items * (part + 1) / k->parts;
        size_t packed = SIZE_MAX;
        trmi_attention_head head;

        for (size_t item = from; item < to; item++) {
            size_t pair = item / k->pieces, h = pair % a->heads, b = pair / a->heads;
            size_t first = item % k->pieces * k->piece_rows;
            size_t last = first + k->piece_rows < a->q_len ? first + k->piece_rows : a->q_len;

            if (packed != pair)
                pack_head(a, b, h, k->workspace + part * k->scratch, &head);
            packed = pair;
            for (size_t i = first; i < last; i += TRMI_ATTENTION_ROWS)
                k->rows(a, &head, b, h, i,
                        last - i < TRMI_ATTENTION_ROWS ? last - i : TRMI_ATTENTION_ROWS);
        }
    }
}

static void reference_range(void *ctx, size_t begin, size_t end)
{
    trm_attention_reference(&((const attention_kernel *)ctx)->a, begin, end);
}

static void qk_range(void *ctx, size_t begin, size_t end)
{
    const attention_kernel *k = ctx;
    const trm_attention *a = &k->a;
    trm_tensor qk = k->qk;

    for (size_t row = begin; row < end; row++) {
        size_t i = row % a->q_len, h = row / a->q_len % a->heads, b = row / a->q_len / a->heads;
        double top = -INFINITY, sum = 0.0;

        for (size_t j = 0; j < a->kv_len; j++) {
            double s = trm_attention_score(a, b, h, i, j, k->qk_mode > 2 ? 2 : k->qk_mode);

            trm_tensor_set_f64(&qk, row * a->kv_len + j, s);
            top = fmax(top, s);
        }
        if (k->qk_mode < 3)
            continue;
        for (size_t j = 0; j < a->kv_len && top > -INFINITY; j++)
            sum += exp(trm_attention_score(a, b, h, i, j, 2) - top);
        for (size_t j = 0; j < a->kv_len; j++)
            trm_tensor_set_f64(&qk, row * a->kv_len + j,
                               sum > 0.0 ? exp(trm_attention_score(a, b, h, i, j, 2) - top) / sum
                                         : 0.0);
    }
}

static trm_status attention_compute(attention_kernel *k, void *workspace)
{
    const trm_attention *a = &k->a;

    k->workspace = workspace;
    if (k->rows != NULL)
        trm_team_for(k->parts, 1, attention_parts, k);
    else
        trm_team_for(a->batch * a->heads * a->q_len, 1 + 20000 / (1 + a->kv_len * a->dim),
                     reference_range, k);
    if (k->qk.dtype != TRM_DTYPE_NONE && k->qk.data != NULL)
        trm_team_for(a->batch * a->heads * a->q_len, 1 + 20000 / (1 + a->kv_len * a->dim), qk_range,
                     k);
    return TRM_OK;
}

/* present[b, h, :] = past[b, h, :] then the new rows of [b, h, rows, columns] or, 3D, [b, rows,
 * h, columns]. */
static void concat(const trm_tensor *past, const void *past_data, const trm_tensor *added,
                   const void *added_data, size_t heads, char *to)
{
    size_t size = trm_dtype_bytes(added->dtype);
    bool flat = added->rank == 3;
    size_t rows = (size_t)added->dims[flat ? 1 : 2];
    size_t columns = (size_t)added->dims[flat ? 2 : 3] / (flat ? heads : 1);
    size_t before = past->dtype == TRM_DTYPE_NONE ? 0 : (size_t)past->dims[2];

    for (size_t p = 0; p < (size_t)added->dims[0] * heads; p++) {
        size_t b = p / heads, h = p % heads;

        if (before > 0) {
            memcpy(to, (const char *)past_data + p * before * columns * size,
                   before * columns * size);
            to += before * columns * size;
        }
        for (size_t r = 0; r < rows; r++, to += columns * size) {
            size_t at = flat ? ((b * rows + r) * heads + h) * columns : (p * rows + r) * columns;

            memcpy(to, (const char *)added_data + at * size, columns * size);
        }
    }
}

static trm_status attention_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    attention_kernel *k = (attention_kernel *)base;
    trm_attention *a = &k->a;
    bool cached = k->onnx && k->past_key.dtype != TRM_DTYPE_NONE;

    (void)s;
    a->q.data = in[0];
    a->k.data = in[1];
    a->v.data = in[2];
    a->mask.data = a->mask.dtype == TRM_DTYPE_NONE ? NULL : in[3];
    a->y.data = out[0];
    if (k->onnx) {
        void *key = k->output_count > 1 ? out[1] : NULL;
        void *value = k->output_count > 2 ? out[2] : NULL;

        if (cached && key == NULL)
            key = (char *)workspace + k->present_key_at;
        if (cached && value == NULL)
            value = (char *)workspace + k->present_value_at;
        if (key != NULL)
            concat(&k->past_key, cached ? in[4] : NULL, &k->key, in[1], a->kv_heads, key);
        if (value != NULL)
            concat(&k->past_value, cached ? in[5] : NULL, &k->value, in[2], a->kv_heads, value);
        if (cached) {
            a->k.data = key;
            a->v.data = value;
        }
        a->nonpad.data = a->nonpad.dtype == TRM_DTYPE_NONE ? NULL : in[6];
        k->qk.data = k->output_count > 3 ? out[3] : NULL;
    }
    return attention_compute(k, workspace);
}

static const trm_kernel_ops attention_ops = {
    .name = "attention", .run = attention_run, .destroy = trmi_kernel_free};

/* [batch, heads, rows, columns] in row-major order. */
static trm_attention_view dense_view(trm_dtype dtype, size_t heads, size_t rows, size_t columns)
{
    return (trm_attention_view){.dtype = dtype,
                                .batch = heads * rows * columns,
                                .head = rows * columns,
                                .row = columns,
                                .column = 1};
}

/* [batch, rows, heads * columns] */
static trm_attention_view flat_view(trm_dtype dtype, size_t heads, size_t rows, size_t columns)
{
    return (trm_attention_view){.dtype = dtype,
                                .batch = heads * rows * columns,
                                .head = columns,
                                .row = heads * columns,
                                .column = 1};
}

/* Right-aligned broadcast of `t` to [batch, heads, q_len, kv_len]. */
static trm_status mask_view(const trm_attention *a, const trm_tensor *t, trm_attention_view *v)
{
    size_t want[4] = {a->batch, a->heads, a->q_len, a->kv_len}, strides[4], step = 1;

    for (int d = 3; d >= 0; d--) {
        int e = t->rank - 4 + d;
        size_t dim = e < 0 ? 1 : (size_t)t->dims[e];

        if (dim != 1 && dim != want[d] && !(d == 3 && dim < want[d]))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "attention mask: dim %d is %zu: want 1 or %zu (batch, heads, queries, "
                            "keys)",
                            e, dim, want[d]);
        strides[d] = dim == 1 ? 0 : step;
        step *= dim;
    }
    if (t->rank > 4)
        return trm_fail(TRM_ERR_INVALID_ARG, "attention mask of rank %d: want 4 or less", t->rank);
    *v = (trm_attention_view){t->dtype, NULL, strides[0], strides[1], strides[2], strides[3]};
    return TRM_OK;
}

/* Chooses the core and how the work is shared. */
static void attention_finish(attention_kernel *k)
{
    const trm_attention *a = &k->a;
    size_t threads = (size_t)trm_team_size(), pairs = a->batch * a->heads;
    trm_isa isa = trmi_cpu_isa();

    if (a->q.dtype == TRM_DTYPE_F64 || pairs * a->q_len == 0 || a->kv_len == 0)
        return;
    k->rows = isa >= TRM_ISA_AVX512 ? trmi_attention_rows_avx512
              : isa == TRM_ISA_AVX2 ? trmi_attention_rows_avx2
                                    : trmi_attention_rows_scalar;
    k->pieces = pairs % threads == 0 || pairs >= 8 * threads ? 1 : threads;
    if (k->pieces > (a->q_len + TRMI_ATTENTION_ROWS - 1) / TRMI_ATTENTION_ROWS)
        k->pieces = (a->q_len + TRMI_ATTENTION_ROWS - 1) / TRMI_ATTENTION_ROWS;
    k->piece_rows = (a->q_len + k->pieces - 1) / k->pieces;
    k->items = pairs * k->pieces;
    k->parts = k->items < threads ? k->items : threads;
    k->scratch = scratch_elems(a);
    k->base.workspace_bytes = k->parts * k->scratch * sizeof(float);
}

static trm_status check_dtypes(const trm_op_desc *desc)
{
    for (int i = 0; i < 3; i++) {
        TRM_CHECK(trmi_want_dtype(desc, i, trmi_floats));
        if (desc->inputs[i].dtype != desc->inputs[0].dtype &&
            desc->inputs[i].dtype != TRM_DTYPE_F32)
            return trm_fail(TRM_ERR_UNSUPPORTED, "attention of %s and %s",
                            trm_dtype_name(desc->inputs[0].dtype),
                            trm_dtype_name(desc->inputs[i].dtype));
    }
    if (desc->post_count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "attention with post-ops");
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    return TRM_OK;
}

trm_status trmi_cpu_attention(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *q = &desc->inputs[0], *kt = &desc->inputs[1], *v = &desc->inputs[2];
    bool transposed = trm_attr_int(desc->attrs, "k_transposed", 0) != 0;
    attention_kernel *k = NULL;
    trm_attention *a;
    trm_status st = TRM_OK;

    (void)cpu;
    TRM_CHECK(check_dtypes(desc));
    if (q->rank != 4 || kt->rank != 4 || v->rank != 4)
        return trm_fail(TRM_ERR_INVALID_ARG, "attention of ranks %d, %d, %d: want 4", q->rank,
                        kt->rank, v->rank);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &attention_ops, &k));
    a = &k->a;
    a->batch = (size_t)q->dims[0];
    a->heads = (size_t)q->dims[1];
    a->kv_heads = (size_t)kt->dims[1];
    a->q_len = (size_t)q->dims[2];
    a->dim = (size_t)q->dims[3];
    a->kv_len = (size_t)v->dims[2];
    a->v_dim = (size_t)v->dims[3];
    a->left = a->right = -1;
    a->scale = (double)trm_attr_float(desc->attrs, "scale", 1.0f);
    a->q = dense_view(q->dtype, a->heads, a->q_len, a->dim);
    a->v = dense_view(v->dtype, a->kv_heads, a->kv_len, a->v_dim);
    a->y = dense_view(desc->outputs[0].dtype, a->heads, a->q_len, a->v_dim);
    a->k = dense_view(kt->dtype, a->kv_heads, a->kv_len, a->dim);
    if (transposed) {
        a->k.row = 1;
        a->k.column = a->kv_len;
    }
    if (kt->dims[0] != q->dims[0] || v->dims[0] != q->dims[0] || v->dims[1] != kt->dims[1] ||
        a->kv_heads == 0 || a->heads % a->kv_heads != 0 ||
        kt->dims[transposed ? 2 : 3] != q->dims[3] || kt->dims[transposed ? 3 : 2] != v->dims[2])
        st = trm_fail(TRM_ERR_INVALID_ARG, "attention: q, k and v do not fit each other");
    if (st == TRM_OK && desc->input_count > 3 && desc->inputs[3].dtype != TRM_DTYPE_NONE) {
        st = mask_view(a, &desc->inputs[3], &a->mask);
        a->mask_len = a->kv_len;
    }
    if (st != TRM_OK) {
        trmi_kernel_free(&k->base);
        return st;
    }
    attention_finish(k);
    *kernel_out = &k->base;
    return TRM_OK;
}

/* Heads and lengths of ONNX Attention from q, k, v and the caches. */
static trm_status onnx_sizes(const trm_op_desc *desc, attention_kernel *k)
{
    const trm_tensor *q = &desc->inputs[0], *kt = &k->key, *v = &k->value;
    trm_attention *a = &k->a;
    bool flat = q->rank == 3;
    int64_t heads = flat ? trm_attr_int(desc->attrs, "q_num_heads", 0) : q->dims[1];
    int64_t kv_heads = flat ? trm_attr_int(desc->attrs, "kv_num_heads", 0) : kt->dims[1];
    int64_t past = k->past_key.dtype == TRM_DTYPE_NONE ? 0 : k->past_key.dims[2];

    if ((q->rank != 3 && q->rank != 4) || kt->rank != q->rank || v->rank != q->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention of ranks %d, %d, %d: want 3 or 4", q->rank,
                        kt->rank, v->rank);
    if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0 ||
        (flat &&
         (q->dims[2] % heads != 0 || kt->dims[2] % kv_heads != 0 || v->dims[2] % kv_heads != 0)))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Attention: %lld query heads and %lld key heads do not fit the shapes",
                        (long long)heads, (long long)kv_heads);
    a->batch = (size_t)q->dims[0];
    a->heads = (size_t)heads;
    a->kv_heads = (size_t)kv_heads;
    a->q_len = (size_t)q->dims[flat ? 1 : 2];
    a->kv_len = (size_t)(kt->dims[flat ? 1 : 2] + past);
    a->dim = (size_t)(flat ? q->dims[2] / heads : q->dims[3]);
    a->v_dim = (size_t)(flat ? v->dims[2] / kv_heads : v->dims[3]);
    if (kt->dims[0] != q->dims[0] || v->dims[0] != q->dims[0] ||
        (size_t)(flat ? kt->dims[2] / kv_heads : kt->dims[3]) != a->dim ||
        kt->dims[flat ? 1 : 2] != v->dims[flat ? 1 : 2] || (!flat && v->dims[1] != kv_heads))
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention: q, k and v do not fit each other");
    if (past > 0 &&
        ((size_t)k->past_key.dims[3] != a->dim || (size_t)k->past_value.dims[3] != a->v_dim ||
         k->past_key.dims[1] != kv_heads || k->past_value.dims[2] != past))
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention: the past does not fit keys and values");
    a->offset = past;
    return TRM_OK;
}

static trm_status onnx_fill(const trm_op_desc *desc, attention_kernel *k)
{
    trm_attention *a = &k->a;
    const trm_tensor *in = desc->inputs;
    bool flat = in[0].rank == 3, cached;
    float scale;

    k->onnx = true;
    k->input_count = desc->input_count;
    k->output_count = desc->output_count;
    k->key = in[1];
    k->value = in[2];
    if (desc->input_count > 4)
        k->past_key = in[4];
    if (desc->input_count > 5)
        k->past_value = in[5];
    cached = k->past_key.dtype != TRM_DTYPE_NONE;
    if (cached != (k->past_value.dtype != TRM_DTYPE_NONE))
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention: past_key and past_value go together");
    if (cached && (k->past_key.rank != 4 || k->past_value.rank != 4))
        return trm_fail(TRM_ERR_INVALID_ARG, "Attention: the past has rank %d: want 4",
                        k->past_key.rank);
    TRM_CHECK(onnx_sizes(desc, k));
    scale = trm_attr_float(desc->attrs, "scale", 0.0f);
    a->scale =
        trm_attr_find(desc->attrs, "scale") == NULL ? 1.0 / sqrt((double)a->dim) : (double)scale;
    a->softcap = (double)trm_attr_float(desc->attrs, "softcap", 0.0f);
    a->causal = trm_attr_int(desc->attrs, "is_causal", 0) != 0;
    a->left = trm_attr_int(desc->attrs, "left_window_size", -1);
    a->right = trm_attr_int(desc->attrs, "right_window_size", -1);
    k->qk_mode = (int)trm_attr_int(desc->attrs, "qk_matmul_output_mode", 0);
    a->q = flat ? flat_view(in[0].dtype, a->heads, a->q_len, a->dim)
                : dense_view(in[0].dtype, a->heads, a->q_len, a->dim);
    a->y = flat ? flat_view(desc->outputs[0].dtype, a->heads, a->q_len, a->v_dim)
                : dense_view(desc->outputs[0].dtype, a->heads, a->q_len, a->v_dim);
    a->k = flat && !cached ? flat_view(in[1].dtype, a->kv_heads, a->kv_len, a->dim)
                           : dense_view(in[1].dtype, a->kv_heads, a->kv_len, a->dim);
    a->v = flat && !cached ? flat_view(in[2].dtype, a->kv_heads, a->kv_len, a->v_dim)
                           : dense_view(in[2].dtype, a->kv_heads, a->kv_len, a->v_dim);
    if (desc->input_count > 3 && in[3].dtype != TRM_DTYPE_NONE) {
        TRM_CHECK(mask_view(a, &in[3], &a->mask));
        a->mask_len = in[3].rank > 0 && in[3].dims[in[3].rank - 1] > 1
                          ? (size_t)in[3].dims[in[3].rank - 1]
                          : a->kv_len;
    }
    if (desc->input_count > 6 && in[6].dtype != TRM_DTYPE_NONE) {
        if (in[6].dtype != TRM_DTYPE_I64 || trm_tensor_numel(&in[6]) != a->batch)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "Attention: nonpad_kv_seqlen is %s of %zu: want i64 of %zu",
                            trm_dtype_name(in[6].dtype), trm_tensor_numel(&in[6]), a->batch);
        a->nonpad.dtype = TRM_DTYPE_I64;
    }
    if (desc->output_count > 3)
        k->qk = desc->outputs[3];
    return TRM_OK;
}

trm_status trmi_cpu_onnx_attention(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    attention_kernel *k = NULL;
    trm_status st;

    (void)cpu;
    TRM_CHECK(check_dtypes(desc));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &attention_ops, &k));
    TRM_TRY(st, onnx_fill(desc, k), fail);
    attention_finish(k);
    if (k->past_key.dtype != TRM_DTYPE_NONE) {
        size_t rows = k->a.batch * k->a.kv_heads * k->a.kv_len;
        size_t size = trm_dtype_bytes(k->key.dtype);

        k->present_key_at = trm_align_up(k->base.workspace_bytes, TRM_ALIGN);
        k->present_value_at = k->present_key_at + trm_align_up(rows * k->a.dim * size, TRM_ALIGN);
        k->base.workspace_bytes =
            k->present_value_at + trm_align_up(rows * k->a.v_dim * size, TRM_ALIGN);
    }
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
