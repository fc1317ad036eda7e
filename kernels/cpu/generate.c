/* Operators that make data from shapes and parameters: Shape, Size, ConstantOfShape, Range,
 * EyeLike; and Trilu and OneHot, which write mostly constants. */
#include "kernels/cpu/data.h"

#include <math.h>
#include <string.h>

/* ---- Shape, Size: the values are known at prepare ---- */
struct known_ints {
    trm_kernel base;
    int count;
    int64_t values[TRM_RANK_MAX];
};

static trm_status known_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    struct known_ints *t = (struct known_ints *)k;

    (void)s;
    (void)in;
    (void)workspace;
    memcpy(out[0], t->values, (size_t)t->count * sizeof(int64_t));
    return TRM_OK;
}

static const trm_kernel_ops known_ops = {
    .name = "shape", .run = known_run, .destroy = trmi_kernel_free};

/* The input's layout does not matter: its elements are not read. */
trm_status trmi_cpu_shape(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t start = trm_attr_int(desc->attrs, "start", 0);
    int64_t end = trm_attr_int(desc->attrs, "end", x->rank), count;
    struct known_ints *k;

    (void)cpu;
    TRM_CHECK(trmi_data_no_posts(desc));
    start = start < 0 ? start + x->rank : start;
    end = end < 0 ? end + x->rank : end;
    start = start < 0 ? 0 : start > x->rank ? x->rank : start;
    end = end < 0 ? 0 : end > x->rank ? x->rank : end;
    count = end > start ? end - start : 0;
    TRM_CHECK(trmi_data_expect(desc, 0, 1, &count));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &known_ops, &k));
    k->count = (int)count;
    for (int i = 0; i < k->count; i++)
        k->values[i] = x->dims[start + i];
    desc->outputs[0].layout = TRM_LAYOUT_PLAIN;
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_size(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct known_ints *k;
    size_t n;

    (void)cpu;
    TRM_CHECK(trmi_data_no_posts(desc));
    TRM_CHECK(trm_tensor_elems(&desc->inputs[0], &n));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &known_ops, &k));
    k->count = 1;
    k->values[0] = (int64_t)n;
    desc->outputs[0].layout = TRM_LAYOUT_PLAIN;
    *kernel_out = &k->base;
    return TRM_OK;
}

/* ---- ConstantOfShape ---- */
struct fill {
    trm_kernel base;
    size_t elem, count;
    unsigned char value[8];
};

static trm_status fill_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    struct fill *f = (struct fill *)k;

    (void)s;
    (void)in;
    (void)workspace;
    trmi_fill(out[0], f->value, f->elem, f->count);
    return TRM_OK;
}

static const trm_kernel_ops fill_ops = {
    .name = "fill", .run = fill_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_constant_of_shape(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_attr *value = trm_attr_find(desc->attrs, "value");
    const trm_tensor *y = &desc->outputs[0];
    struct fill *f;
    size_t n;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trm_tensor_elems(y, &n));
    if (value != NULL &&
        (value->kind != TRM_ATTR_TENSOR || value->v.tensor->data == NULL ||
         trm_tensor_numel(value->v.tensor) != 1 || value->v.tensor->dtype != y->dtype))
        return trm_fail(TRM_ERR_INVALID_ARG, "ConstantOfShape '%s': value must be one %s",
                        desc->name, trm_dtype_name(y->dtype));
    TRM_CHECK(trmi_kernel_new(sizeof(*f), &fill_ops, &f));
    f->elem = trm_dtype_bytes(y->dtype);
    f->count = n;
    if (value != NULL)
        memcpy(f->value, value->v.tensor->data, f->elem);
    *kernel_out = &f->base;
    return TRM_OK;
}

/* ---- Range ---- */
struct range {
    trm_kernel base;
    trm_dtype dtype;
    size_t count;
    double start, delta;
    int64_t start_int, delta_int;
};

static trm_status range_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    struct range *r = (struct range *)k;
    trm_tensor y = {.dtype = r->dtype, .rank = 1, .dims = {(int64_t)r->count}, .data = out[0]};

    (void)s;
    (void)in;
    (void)workspace;
    for (size_t i = 0; i < r->count; i++) {
        if (trm_dtype_is_float(r->dtype))
            trm_tensor_set_f64(&y, i, r->start + (double)i * r->delta);
        else /* wraps like the integers it makes */
            trm_tensor_set_i64(
                &y, i, (int64_t)((uint64_t)r->start_int + (uint64_t)i * (uint64_t)r->delta_int));
    }
    return TRM_OK;
}

static const trm_kernel_ops range_ops = {
    .name = "range", .run = range_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_range(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct range *r;
    size_t n;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    for (int i = 0; i < 3; i++)
        if (desc->inputs[i].data == NULL || trm_tensor_numel(&desc->inputs[i]) != 1)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "Range '%s': input %d must be one element known here", desc->name, i);
    TRM_CHECK(trm_tensor_elems(&desc->outputs[0], &n));
    TRM_CHECK(trmi_kernel_new(sizeof(*r), &range_ops, &r));
    r->dtype = desc->outputs[0].dtype;
    r->count = n;
    r->start = trm_tensor_get_f64(&desc->inputs[0], 0);
    r->delta = trm_tensor_get_f64(&desc->inputs[2], 0);
    r->start_int = trm_tensor_get_i64(&desc->inputs[0], 0);
    r->delta_int = trm_tensor_get_i64(&desc->inputs[2], 0);
    *kernel_out = &r->base;
    return TRM_OK;
}

/* ---- EyeLike ---- */
struct eye {
    trm_kernel base;
    size_t elem;
    int64_t rows, columns, k;
    unsigned char one[8];
};

static trm_status eye_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    struct eye *e = (struct eye *)k;
    unsigned char *y = out[0];

    (void)s;
    (void)in;
    (void)workspace;
    memset(y, 0, (size_t)(e->rows * e->columns) * e->elem);
    for (int64_t r = 0; r < e->rows; r++)
        if (r + e->k >= 0 && r + e->k < e->columns)
            memcpy(y + (size_t)(r * e->columns + r + e->k) * e->elem, e->one, e->elem);
    return TRM_OK;
}

static const trm_kernel_ops eye_ops = {.name = "eye", .run = eye_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_eye_like(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct eye *e;
    trm_tensor one = {.dtype = desc->outputs[0].dtype, .rank = 0};
    int64_t k = trm_attr_int(desc->attrs, "k", 0);

    (void)cpu;
    TRM_CHECK(trmi_data_no_posts(desc));
    if (x->rank != 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "EyeLike '%s': rank %d, want 2", desc->name, x->rank);
    TRM_CHECK(trmi_kernel_new(sizeof(*e), &eye_ops, &e));
    e->elem = trm_dtype_bytes(one.dtype);
    e->rows = x->dims[0];
    e->columns = x->dims[1];
    e->k = k < -TRM_DIM_MAX ? -TRM_DIM_MAX : k > TRM_DIM_MAX ? TRM_DIM_MAX : k;
    one.data = e->one;
    trm_tensor_set_i64(&one, 0, 1);
    desc->outputs[0].layout = TRM_LAYOUT_PLAIN;
    *kernel_out = &e->base;
    return TRM_OK;
}

/* ---- Trilu: keeps columns [0, row + k] (lower) or [row + k, ...) (upper) of each matrix ---- */
struct trilu {
    trm_kernel base;
    bool upper;
    size_t elem, matrices;
    int64_t rows, columns, k;
};

struct trilu_job {
    const struct trilu *t;
    const unsigned char *in;
    unsigned char *out;
};

static void trilu_rows(void *ctx, size_t begin, size_t end)
{
    const struct trilu_job *job = (const struct trilu_job *)ctx;
    const struct trilu *t = job->t;
    size_t row_bytes = (size_t)t->columns * t->elem;

    for (size_t i = begin; i < end; i++) {
        int64_t cut = (int64_t)(i % (size_t)t->rows) + t->k + (t->upper ? 0 : 1);
        size_t at = (size_t)(cut < 0 ? 0 : cut > t->columns ? t->columns : cut) * t->elem;
        const unsigned char *in = job->in + i * row_bytes;
        unsigned char *out = job->out + i * row_bytes;

        if (t->upper) {
            memset(out, 0, at);
            memmove(out + at, in + at, row_bytes - at);
        } else {
            memmove(out, in, at);
            memset(out + at, 0, row_bytes - at);
        }
    }
}

static trm_status trilu_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    struct trilu *t = (struct trilu *)k;
    struct trilu_job job = {.t = t, .in = in[0], .out = out[0]};

    (void)s;
    (void)workspace;
    if (t->columns > 0)
        trm_team_for(t->matrices * (size_t)t->rows, 32768 / ((size_t)t->columns * t->elem) + 1,
                     trilu_rows, &job);
    return TRM_OK;
}

static const trm_kernel_ops trilu_ops = {
    .name = "trilu", .run = trilu_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_trilu(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct trilu *t;
    int64_t k = 0;
    int count;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_ints(desc, 1, &k, 1, &count));
    if (x->rank < 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "Trilu '%s': rank %d, want at least 2", desc->name,
                        x->rank);
    TRM_CHECK(trmi_kernel_new(sizeof(*t), &trilu_ops, &t));
    t->upper = trm_attr_int(desc->attrs, "upper", 1) != 0;
    t->elem = trm_dtype_bytes(x->dtype);
    t->matrices = trm_tensor_count(x, 0, x->rank - 2);
    t->rows = x->dims[x->rank - 2];
    t->columns = x->dims[x->rank - 1];
    t->k = k < -TRM_DIM_MAX ? -TRM_DIM_MAX : k > TRM_DIM_MAX ? TRM_DIM_MAX : k;
    t->base.in_place = 1;
    *kernel_out = &t->base;
    return TRM_OK;
}

/* ---- OneHot: out [outer, depth, inner] ---- */
struct one_hot {
    trm_kernel base;
    trm_dtype index_dtype;
    size_t elem, outer, inner;
    int64_t depth;
};

static trm_status one_hot_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    struct one_hot *h = (struct one_hot *)k;
    trm_tensor index = {.dtype = h->index_dtype, .rank = 1, .data = (void *)(uintptr_t)in[0]};
    const unsigned char *on = (const unsigned char *)in[2] + h->elem;
    unsigned char *y = out[0];

    (void)s;
    (void)workspace;
    trmi_fill(y, in[2], h->elem, h->outer * (size_t)h->depth * h->inner);
    for (size_t o = 0; o < h->outer; o++) {
        for (size_t i = 0; i < h->inner; i++) {
            int64_t v = trm_tensor_get_i64(&index, o * h->inner + i);

            v = v < 0 ? v + h->depth : v;
            if (v >= 0 && v < h->depth) /* others stay off, as ONNX says */
                memcpy(y + ((o * (size_t)h->depth + (size_t)v) * h->inner + i) * h->elem, on,
                       h->elem);
        }
    }
    return TRM_OK;
}

static const trm_kernel_ops one_hot_ops = {
    .name = "one hot", .run = one_hot_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_one_hot(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    struct one_hot *h;
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", -1), x->rank + 1, &axis));
    if (y->rank != x->rank + 1 || trm_tensor_numel(&desc->inputs[2]) != 2 ||
        desc->inputs[2].dtype != y->dtype)
        return trm_fail(TRM_ERR_INVALID_ARG, "OneHot '%s': values must be two %s", desc->name,
                        trm_dtype_name(y->dtype));
    TRM_CHECK(trmi_kernel_new(sizeof(*h), &one_hot_ops, &h));
    h->index_dtype = x->dtype;
    h->elem = trm_dtype_bytes(y->dtype);
    h->outer = trm_tensor_count(x, 0, axis);
    h->inner = trm_tensor_count(x, axis, x->rank);
    h->depth = y->dims[axis];
    *kernel_out = &h->base;
    return TRM_OK;
}
