/* Operators that make data from shapes and parameters: Shape, Size, ConstantOfShape, Range,
 * EyeLike; and Trilu and OneHot, which write mostly constants. */
#include "kernels/cuda/move.h"

#include <string.h>

/* Bits of an element of at most 8 bytes, as the low bytes of a word. */
static uint64_t element_bits(const void *element, size_t bytes)
{
    union {
        uint64_t u64;
        uint32_t u32;
        uint16_t u16;
        uint8_t u8;
    } v = {0};

    memcpy(&v, element, bytes);
    return bytes == 8 ? v.u64 : bytes == 4 ? v.u32 : bytes == 2 ? v.u16 : v.u8;
}

/* ---- Shape, Size: the values are known at prepare ---- */
struct known_ints {
    trmi_cuda_kernel base;
    int count;
    int64_t values[TRM_RANK_MAX];
};

static trm_status known_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    const struct known_ints *t = (const struct known_ints *)k;

    (void)in;
    (void)workspace;
    return trmi_cuda_store_ints(trmi_cuda_stream(k, s), out[0], t->values, t->count);
}

static const trm_kernel_ops known_ops = {
    .name = "shape", .run = known_run, .destroy = trmi_cuda_kernel_free};

static trm_status no_posts(const trm_op_desc *desc)
{
    if (desc->post_count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': post-ops on this operator",
                        trm_op_get(desc->op)->name, desc->name);
    return TRM_OK;
}

/* The input's layout does not matter: its elements are not read. */
trm_status trmi_cuda_shape(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t start = trm_attr_int(desc->attrs, "start", 0);
    int64_t end = trm_attr_int(desc->attrs, "end", x->rank), count;
    struct known_ints *k;

    TRM_CHECK(no_posts(desc));
    start = start < 0 ? start + x->rank : start;
    end = end < 0 ? end + x->rank : end;
    start = start < 0 ? 0 : start > x->rank ? x->rank : start;
    end = end < 0 ? 0 : end > x->rank ? x->rank : end;
    count = end > start ? end - start : 0;
    TRM_CHECK(trmi_cuda_expect(desc, 0, 1, &count));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &known_ops, &k));
    k->count = (int)count;
    for (int i = 0; i < k->count; i++)
        k->values[i] = x->dims[start + i];
    *kernel_out = &k->base.base;
    return TRM_OK;
}

trm_status trmi_cuda_size(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct known_ints *k;
    size_t n;

    TRM_CHECK(no_posts(desc));
    TRM_CHECK(trm_tensor_elems(&desc->inputs[0], &n));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &known_ops, &k));
    k->count = 1;
    k->values[0] = (int64_t)n;
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- ConstantOfShape ---- */
struct fill {
    trmi_cuda_kernel base;
    size_t elem, count;
    uint64_t value;
};

static trm_status fill_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const struct fill *f = (const struct fill *)k;

    (void)in;
    (void)workspace;
    return trmi_cuda_fill(f->base.cuda, trmi_cuda_stream(k, s), out[0], f->value, f->elem,
                          f->count);
}

static const trm_kernel_ops fill_ops = {
    .name = "fill", .run = fill_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_constant_of_shape(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_attr *value = trm_attr_find(desc->attrs, "value");
    const trm_tensor *y = &desc->outputs[0];
    struct fill *f;
    size_t n;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trm_tensor_elems(y, &n));
    if (value != NULL &&
        (value->kind != TRM_ATTR_TENSOR || value->v.tensor->data == NULL ||
         trm_tensor_numel(value->v.tensor) != 1 || value->v.tensor->dtype != y->dtype))
        return trm_fail(TRM_ERR_INVALID_ARG, "ConstantOfShape '%s': value must be one %s",
                        desc->name, trm_dtype_name(y->dtype));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*f), &fill_ops, &f));
    f->elem = trm_dtype_bytes(y->dtype);
    f->count = n;
    if (value != NULL)
        f->value = element_bits(value->v.tensor->data, f->elem);
    *kernel_out = &f->base.base;
    return TRM_OK;
}

/* ---- Range ---- */
struct range {
    trmi_cuda_kernel base;
    trm_dtype dtype;
    size_t count;
    double start, delta;
    int64_t start_int, delta_int;
};

static trm_status range_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    const struct range *r = (const struct range *)k;

    (void)in;
    (void)workspace;
    return trmi_cuda_range(r->base.cuda, trmi_cuda_stream(k, s), out[0], r->dtype, r->count,
                           r->start, r->delta, r->start_int, r->delta_int);
}

static const trm_kernel_ops range_ops = {
    .name = "range", .run = range_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_range_prepare(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct range *r;
    size_t n;

    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = 0; i < 3; i++)
        if (desc->inputs[i].data == NULL || trm_tensor_numel(&desc->inputs[i]) != 1)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "Range '%s': input %d must be one element known here", desc->name, i);
    TRM_CHECK(trm_tensor_elems(&desc->outputs[0], &n));
    if (desc->outputs[0].dtype == TRM_DTYPE_BOOL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Range '%s' of bool", desc->name);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*r), &range_ops, &r));
    r->dtype = desc->outputs[0].dtype;
    r->count = n;
    r->start = trm_tensor_get_f64(&desc->inputs[0], 0);
    r->delta = trm_tensor_get_f64(&desc->inputs[2], 0);
    r->start_int = trm_tensor_get_i64(&desc->inputs[0], 0);
    r->delta_int = trm_tensor_get_i64(&desc->inputs[2], 0);
    *kernel_out = &r->base.base;
    return TRM_OK;
}

/* ---- EyeLike ---- */
struct eye {
    trmi_cuda_kernel base;
    size_t elem, rows, columns;
    int64_t k;
    uint64_t one;
};

static trm_status eye_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    const struct eye *e = (const struct eye *)k;

    (void)in;
    (void)workspace;
    return trmi_cuda_eye(e->base.cuda, trmi_cuda_stream(k, s), out[0], e->elem, e->one, e->rows,
                         e->columns, e->k);
}

static const trm_kernel_ops eye_ops = {
    .name = "eye", .run = eye_run, .destroy = trmi_cuda_kernel_free};

static int64_t diagonal(int64_t k)
{
    return k < -TRM_DIM_MAX ? -TRM_DIM_MAX : k > TRM_DIM_MAX ? TRM_DIM_MAX : k;
}

trm_status trmi_cuda_eye_like(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    unsigned char bits[8] = {0};
    trm_tensor one = {.dtype = desc->outputs[0].dtype, .rank = 0, .data = bits};
    struct eye *e;

    TRM_CHECK(no_posts(desc));
    if (x->rank != 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "EyeLike '%s': rank %d, want 2", desc->name, x->rank);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*e), &eye_ops, &e));
    e->elem = trm_dtype_bytes(one.dtype);
    e->rows = (size_t)x->dims[0];
    e->columns = (size_t)x->dims[1];
    e->k = diagonal(trm_attr_int(desc->attrs, "k", 0));
    trm_tensor_set_i64(&one, 0, 1);
    e->one = element_bits(bits, e->elem);
    *kernel_out = &e->base.base;
    return TRM_OK;
}

/* ---- Trilu: keeps columns [0, row + k] (lower) or [row + k, ...) (upper) of each matrix ---- */
struct trilu {
    trmi_cuda_kernel base;
    bool upper;
    size_t elem, matrices, rows, columns;
    int64_t k;
};

static trm_status trilu_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                            void *workspace)
{
    const struct trilu *t = (const struct trilu *)k;

    (void)workspace;
    return trmi_cuda_trilu(t->base.cuda, trmi_cuda_stream(k, s), out[0], in[0], t->elem,
                           t->matrices, t->rows, t->columns, t->k, t->upper);
}

static const trm_kernel_ops trilu_ops = {
    .name = "trilu", .run = trilu_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_trilu_prepare(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct trilu *t;
    int64_t k = 0;
    int count;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_ints(desc, 1, &k, 1, &count));
    if (x->rank < 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "Trilu '%s': rank %d, want at least 2", desc->name,
                        x->rank);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*t), &trilu_ops, &t));
    t->upper = trm_attr_int(desc->attrs, "upper", 1) != 0;
    t->elem = trm_dtype_bytes(x->dtype);
    t->matrices = trm_tensor_count(x, 0, x->rank - 2);
    t->rows = (size_t)x->dims[x->rank - 2];
    t->columns = (size_t)x->dims[x->rank - 1];
    t->k = diagonal(k);
    t->base.base.in_place = 1;
    *kernel_out = &t->base.base;
    return TRM_OK;
}

/* ---- OneHot: out [outer, depth, inner] ---- */
struct one_hot {
    trmi_cuda_kernel base;
    trm_dtype index_dtype;
    size_t elem, outer, depth, inner;
};

static trm_status one_hot_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    const struct one_hot *h = (const struct one_hot *)k;

    (void)workspace;
    return trmi_cuda_one_hot(h->base.cuda, trmi_cuda_stream(k, s), out[0], in[2], h->elem, in[0],
                             h->index_dtype, h->outer, h->depth, h->inner);
}

static const trm_kernel_ops one_hot_ops = {
    .name = "one hot", .run = one_hot_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_one_hot_prepare(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    struct one_hot *h;
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", -1), x->rank + 1, &axis));
    if (y->rank != x->rank + 1 || trm_tensor_numel(&desc->inputs[2]) != 2 ||
        desc->inputs[2].dtype != y->dtype)
        return trm_fail(TRM_ERR_INVALID_ARG, "OneHot '%s': values must be two %s", desc->name,
                        trm_dtype_name(y->dtype));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*h), &one_hot_ops, &h));
    h->index_dtype = x->dtype;
    h->elem = trm_dtype_bytes(y->dtype);
    h->outer = trm_tensor_count(x, 0, axis);
    h->inner = trm_tensor_count(x, axis, x->rank);
    h->depth = (size_t)y->dims[axis];
    *kernel_out = &h->base.base;
    return TRM_OK;
}
