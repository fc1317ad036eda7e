/* MatMulInteger and QLinearMatMul.
 *
 * A constant matrix B of good sizes is packed for cuBLASLt (signed, transposed, with the sums of
 * its columns): the product of the shifted numbers, then one kernel for zero points and rounding.
 * Everything else runs on an exact kernel of our own. */
#include "kernels/cuda/dense.h"
#include "kernels/cuda/dense_int.h"

#include <string.h>

#define SPACE_ALIGN ((size_t)256)
/* Multiply-adds from which three launches beat one on a slower kernel; not measured on a GPU. */
#define LIBRARY_WORK 32768

enum { A_ZERO, B_ZERO, Y_ZERO, A_SCALE, B_SCALE, Y_SCALE, PARAMS };

typedef struct int_kernel {
    trmi_cuda_kernel base;
    trmi_product product;
    trmi_int_finish finish;     /* pointers are filled in by run */
    int b_input, input[PARAMS]; /* -1: absent */
    trmi_pack *packs[PARAMS];   /* of constant ones */
    /* on the library */
    trmi_gemm *gemm;
    trmi_pack *b;
    int64_t rows;
    bool shifts, row_sums, finishes;              /* kernels before and after it that are needed */
    size_t at_shifted, at_rows, at_sums, at_gemm; /* in the workspace */
} int_kernel;

static void int_destroy(trm_kernel *base)
{
    int_kernel *k = (int_kernel *)base;

    for (int i = 0; i < PARAMS; i++)
        trmi_cuda_pack_release(k->base.cuda, k->packs[i]);
    trmi_cuda_pack_release(k->base.cuda, k->b);
    trmi_gemm_destroy(k->gemm);
    trm_free(k);
}

static trmi_int_finish bound(const int_kernel *k, const void *const *in)
{
    trmi_int_finish f = k->finish;
    trmi_int_param *params[PARAMS] = {&f.a_zero,  &f.b_zero,  &f.y_zero,
                                      &f.a_scale, &f.b_scale, &f.y_scale};

    for (int i = 0; i < PARAMS; i++)
        if (k->input[i] >= 0)
            params[i]->data = k->packs[i] != NULL ? k->packs[i]->memory : in[k->input[i]];
    return f;
}

static trm_status own_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    const int_kernel *k = (const int_kernel *)base;
    trmi_int_finish f = bound(k, in);

    (void)workspace;
    return trmi_cuda_int_product_run(trmi_cuda_stream(base, s), &k->product, &f, in[0],
                                     in[k->b_input], out[0]);
}

static trm_status library_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    const int_kernel *k = (const int_kernel *)base;
    const trmi_product *p = &k->product;
    trmi_int_finish f = bound(k, in);
    cudaStream_t stream = trmi_cuda_stream(base, s);
    char *space = (char *)(((uintptr_t)workspace + SPACE_ALIGN - 1) / SPACE_ALIGN * SPACE_ALIGN);
    int8_t *shifted = k->shifts ? (int8_t *)space + k->at_shifted : NULL;
    int32_t *row_sums = k->row_sums ? (int32_t *)(void *)(space + k->at_rows) : NULL;
    int32_t *sums = f.y == TRM_DTYPE_I32 ? out[0] : (int32_t *)(void *)(space + k->at_sums);

    if (k->shifts || k->row_sums)
        TRM_CHECK(trmi_cuda_int_rows_run(stream, in[0], f.a_signed != 0, k->rows, p->k, shifted,
                                         row_sums));
    TRM_CHECK(trmi_gemm_run(k->gemm, stream, k->shifts ? (const void *)shifted : in[0],
                            k->b->memory, NULL, sums, NULL, space + k->at_gemm));
    if (!k->finishes)
        return TRM_OK;
    return trmi_cuda_int_finish_run(
        k->base.cuda, stream, &f, k->rows, p->n, p->k, sums, row_sums,
        (const int32_t *)(const void *)((const char *)k->b->memory + p->n * p->k), out[0]);
}

static const trm_kernel_ops own_ops = {
    .name = "dp4a matmul", .run = own_run, .destroy = int_destroy};
static const trm_kernel_ops library_ops = {
    .name = "cublaslt i8 matmul", .run = library_run, .destroy = int_destroy};

/* ---- the library ---- */

/* A zero point that is known and, shifted as its numbers are, 0. */
static bool is_zero(const trm_op_desc *desc, int input, trm_dtype dtype)
{
    int64_t zero = dtype == TRM_DTYPE_U8 ? 128 : 0;
    const trm_tensor *t;

    if (input < 0)
        return zero == 0;
    t = &desc->inputs[input];
    for (size_t i = 0; i < trm_tensor_numel(t); i++)
        if (t->data == NULL || trm_tensor_get_i64(t, i) != zero)
            return false;
    return true;
}

static bool wants_library(const int_kernel *k, const trm_op_desc *desc)
{
    const trmi_product *p = &k->product;
    const trmi_int_finish *f = &k->finish;
    int64_t batch = 1;

    for (int i = 0; i < p->batches; i++) {
        if (p->b_step[i] != 0 && p->dims[i] != 1)
            return false;
        batch *= p->dims[i];
    }
    /* rows of all matrices become one matrix's: then a list of one number a row is too short */
    if (batch != 1 && (f->a_zero.each || f->a_scale.each || f->y_scale.each || f->y_zero.each))
        return false;
    return desc->inputs[k->b_input].data != NULL && p->n % 16 == 0 && p->k % 16 == 0 && !f->b_all &&
           batch * p->m * p->n * p->k >= LIBRARY_WORK;
}

/* [n, k] signed, then the sums of B's columns. */
static trm_status pack_b(int_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *t = &desc->inputs[k->b_input];
    size_t n = (size_t)k->product.n, terms = (size_t)k->product.k, bytes = n * terms + n * 4;
    unsigned flip = t->dtype == TRM_DTYPE_U8 ? 0x80 : 0;
    const uint8_t *from = t->data;
    bool found;
    int8_t *to;
    trm_status st;

    TRM_CHECK(trmi_cuda_pack(k->base.cuda,
                             desc->weight_keys == NULL ? 0 : desc->weight_keys[k->b_input],
                             "s8 transposed, sums", bytes, &k->b, &found));
    if (found)
        return TRM_OK;
    to = trm_malloc(bytes, 1);
    if (to == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "packed weight of %zu bytes", bytes);
    for (size_t j0 = 0; j0 < n; j0 += 64) /* whole cache lines of both */
        for (size_t l = 0; l < terms; l++)
            for (size_t j = j0; j < n && j < j0 + 64; j++)
                to[j * terms + l] = (int8_t)(from[l * n + j] ^ flip);
    for (size_t j = 0; j < n; j++) {
        int32_t sum = 0;

        for (size_t l = 0; l < terms; l++)
            sum += to[j * terms + l];
        memcpy(to + n * terms + 4 * j, &sum, 4);
    }
    st = trmi_cuda_upload(k->base.cuda, k->b->memory, to, bytes);
    trm_free(to);
    return st;
}

static size_t place(size_t *bytes, int64_t more)
{
    size_t at = *bytes;

    *bytes += ((size_t)more + SPACE_ALIGN - 1) / SPACE_ALIGN * SPACE_ALIGN;
    return at;
}

static trm_status on_library(int_kernel *k, const trm_op_desc *desc)
{
    const trmi_product *p = &k->product;
    trm_dtype a = desc->inputs[0].dtype, b = desc->inputs[k->b_input].dtype;
    trmi_gemm_desc g = {.n = p->n,
                        .k = p->k,
                        .batch = 1,
                        .b_transposed = true,
                        .ab = TRM_DTYPE_I8,
                        .c = TRM_DTYPE_I32,
                        .d = TRM_DTYPE_I32,
                        .alpha = 1.0f};
    size_t bytes = 0;

    k->rows = p->m;
    for (int i = 0; i < p->batches; i++)
        k->rows *= p->dims[i];
    g.m = k->rows;
    TRM_CHECK(trmi_gemm_create(k->base.cuda, &g, &k->gemm));
    TRM_CHECK(pack_b(k, desc));
    k->shifts = a == TRM_DTYPE_U8;
    k->row_sums = !is_zero(desc, k->input[B_ZERO], b);
    k->finishes =
        k->finish.y != TRM_DTYPE_I32 || k->row_sums || !is_zero(desc, k->input[A_ZERO], a);
    k->at_shifted = place(&bytes, k->shifts ? k->rows * p->k : 0);
    k->at_rows = place(&bytes, k->row_sums ? k->rows * 4 : 0);
    k->at_sums = place(&bytes, k->finish.y == TRM_DTYPE_I32 ? 0 : k->rows * p->n * 4);
    k->at_gemm = place(&bytes, (int64_t)trmi_gemm_workspace_bytes(k->gemm));
    k->base.base.workspace_bytes = bytes + SPACE_ALIGN; /* to begin at a multiple of it */
    k->base.base.packed_inputs |= 1u << k->b_input;
    k->base.base.ops = &library_ops;
    return TRM_OK;
}

/* ---- prepare ---- */

static trm_status want_byte(const trm_op_desc *desc, int input)
{
    trm_dtype t = desc->inputs[input].dtype;

    return t == TRM_DTYPE_U8 || t == TRM_DTYPE_I8 ? TRM_OK
                                                  : trmi_cuda_bad_dtype(desc, input, "u8 or i8");
}

/* Parameter `which`, input `input`: one number, or one of `few` or `all` rows (columns). */
static trm_status take_param(int_kernel *k, const trm_op_desc *desc, int which, int input,
                             trm_dtype dtype, size_t few, size_t all, trmi_int_param *param)
{
    const trm_tensor *t;
    size_t count;
    bool is_scale = which >= A_SCALE;

    k->input[which] = -1;
    if (!trmi_cuda_has_input(desc, input))
        return TRM_OK;
    t = &desc->inputs[input];
    count = trm_tensor_numel(t);
    if (count != 1 && count != few && count != all)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': input %d has %zu elements: want 1, %zu or %zu",
                        trm_op_get(desc->op)->name, desc->name, input, count, few, all);
    if (t->dtype != dtype && !(is_scale && t->data != NULL && trm_dtype_is_float(t->dtype)))
        return trmi_cuda_bad_dtype(desc, input, trm_dtype_name(dtype));
    param->each = count != 1;
    k->input[which] = input;
    if (t->data == NULL || input >= 32)
        return TRM_OK;
    k->base.base.packed_inputs |= 1u << input;
    return is_scale ? trmi_cuda_pack_as(k->base.cuda, desc, input, dtype, 1.0f, &k->packs[which])
                    : trmi_cuda_pack_plain(k->base.cuda, desc, input, &k->packs[which]);
}

static trm_status take_params(int_kernel *k, const trm_op_desc *desc, bool linear)
{
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[k->b_input];
    const trmi_product *p = &k->product;
    trmi_int_finish *f = &k->finish;
    size_t rows = (size_t)p->m, columns = (size_t)p->n;
    size_t all_rows = a->rank > 2 ? trm_tensor_count(a, 0, a->rank - 1) : rows;
    size_t all_columns = b->rank > 2 ? trm_tensor_count(b, 0, b->rank - 2) * columns : columns;
    int zero;

    for (int i = 0; i < PARAMS; i++)
        k->input[i] = -1;
    TRM_CHECK(take_param(k, desc, A_ZERO, 2, a->dtype, rows, all_rows, &f->a_zero));
    TRM_CHECK(
        take_param(k, desc, B_ZERO, linear ? 5 : 3, b->dtype, columns, all_columns, &f->b_zero));
    if (linear) {
        TRM_CHECK(take_param(k, desc, A_SCALE, 1, TRM_DTYPE_F32, rows, all_rows, &f->a_scale));
        TRM_CHECK(
            take_param(k, desc, B_SCALE, 4, TRM_DTYPE_F32, columns, all_columns, &f->b_scale));
        TRM_CHECK(take_param(k, desc, Y_SCALE, 6, TRM_DTYPE_F32, rows, all_rows, &f->y_scale));
        TRM_CHECK(take_param(k, desc, Y_ZERO, 7, f->y, rows, all_rows, &f->y_zero));
    }
    /* zero points say which rows and columns lists count, as on the CPU */
    zero = k->input[A_ZERO];
    f->a_all = zero >= 0 && trm_tensor_numel(&desc->inputs[zero]) > rows;
    zero = k->input[B_ZERO];
    f->b_all = zero >= 0 && trm_tensor_numel(&desc->inputs[zero]) > columns;
    return TRM_OK;
}

static trm_status settle(int_kernel *k, trm_op_desc *desc, bool linear)
{
    trm_status st;

    TRM_CHECK(take_params(k, desc, linear));
    k->base.base.copied_inputs = k->base.base.packed_inputs;
    if (!wants_library(k, desc))
        return TRM_OK;
    st = on_library(k, desc);
    if (st == TRM_ERR_UNSUPPORTED)
        return TRM_OK;
    k->base.base.copied_inputs = k->base.base.packed_inputs;
    return st;
}

trm_status trmi_cuda_matmul_integer(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    bool linear = desc->op == TRM_OP_QLinearMatMul;
    int bi = linear ? 3 : 1;
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[bi];
    trm_dtype y = desc->outputs[0].dtype;
    int_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(want_byte(desc, 0));
    TRM_CHECK(want_byte(desc, bi));
    if (a->rank < 1 || b->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s' of ranks %d and %d: want 1 or more",
                        trm_op_get(desc->op)->name, desc->name, a->rank, b->rank);
    if (linear ? y != TRM_DTYPE_I8 && y != TRM_DTYPE_U8 : y != TRM_DTYPE_I32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s' to %s", trm_op_get(desc->op)->name,
                        desc->name, trm_dtype_name(y));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &own_ops, &k));
    k->b_input = bi;
    trmi_cuda_matmul_product(a, b, &k->product);
    k->finish.a_signed = a->dtype == TRM_DTYPE_I8;
    k->finish.b_signed = b->dtype == TRM_DTYPE_I8;
    k->finish.y = y;
    st = settle(k, desc, linear);
    if (st != TRM_OK) {
        int_destroy(&k->base.base);
        return st;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
}
