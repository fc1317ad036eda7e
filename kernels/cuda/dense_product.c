/* A product on cuBLASLt or on our own kernel.
 *
 * Batch dims are merged where all three strides allow it; those that B does not have become rows
 * where A's and D's rows go on evenly. What is left: the largest dim is the library's strided
 * batch, the others are a loop of launches. The library wants each matrix to lie with a stride of 1
 * one way or the other, D along its rows; where D lies along its columns, B^T A^T is computed. */
#include "kernels/cuda/dense.h"

#include <stdint.h>

#define LOOPS_MAX 64 /* launches; beyond, one launch of our own kernel is better */
#define SPACE_ALIGN 256

static void drop_dim(trmi_product *p, int at)
{
    p->batches--;
    for (int i = at; i < p->batches; i++) {
        p->dims[i] = p->dims[i + 1];
        p->a_step[i] = p->a_step[i + 1];
        p->b_step[i] = p->b_step[i + 1];
        p->d_step[i] = p->d_step[i + 1];
    }
}

static bool merges(const trmi_product *p, int i)
{
    int64_t n = p->dims[i + 1];

    return p->a_step[i] == n * p->a_step[i + 1] && p->b_step[i] == n * p->b_step[i + 1] &&
           p->d_step[i] == n * p->d_step[i + 1];
}

/* Batch dim i only repeats B and goes on with the rows of A and D. */
static bool is_rows(const trmi_product *p, int i)
{
    if (p->b_step[i] != 0)
        return false;
    return p->m == 1 || (p->a_step[i] == p->m * p->a_row && p->d_step[i] == p->m * p->d_row);
}

static void simplify(trmi_product *p)
{
    for (int i = p->batches - 1; i >= 0; i--)
        if (p->dims[i] == 1)
            drop_dim(p, i);
    for (int i = p->batches - 2; i >= 0; i--) {
        if (!merges(p, i))
            continue;
        p->dims[i + 1] *= p->dims[i];
        drop_dim(p, i);
    }
    for (int i = p->batches - 1; i >= 0; i--) {
        if (!is_rows(p, i))
            continue;
        if (p->m == 1) {
            p->a_row = p->a_step[i];
            p->d_row = p->d_step[i];
        }
        p->m *= p->dims[i];
        drop_dim(p, i);
    }
}

static void swap(int64_t *a, int64_t *b)
{
    int64_t t = *a;

    *a = *b;
    *b = t;
}

/* D^T = B^T A^T */
static void swap_operands(trmi_product *p)
{
    swap(&p->m, &p->n);
    swap(&p->a_row, &p->b_col);
    swap(&p->a_col, &p->b_row);
    swap(&p->d_row, &p->d_col);
    for (int i = 0; i < p->batches; i++)
        swap(&p->a_step[i], &p->b_step[i]);
}

/* A [rows, columns] matrix as the library wants it: *ld between rows, or, transposed, columns. */
static bool lies(int64_t rows, int64_t columns, int64_t row, int64_t column, bool *transposed,
                 int64_t *ld)
{
    *transposed = false;
    if (column == 1 || columns == 1) {
        *ld = rows == 1 || row < columns ? columns : row;
        if (rows == 1 || row >= columns)
            return true;
    }
    *transposed = true;
    *ld = columns == 1 || column < rows ? rows : column;
    return (row == 1 || rows == 1) && (columns == 1 || column >= rows);
}

static void reduce_align(int64_t step, trm_dtype dtype, int *align)
{
    while (step * (int64_t)trm_dtype_bytes(dtype) % *align != 0)
        *align /= 2;
}

static bool describe(const trmi_dense *x, const trmi_epilogue *e, trmi_gemm_desc *g)
{
    const trmi_product *p = &x->product;
    bool d_transposed;

    *g = (trmi_gemm_desc){.m = p->m,
                          .n = p->n,
                          .k = p->k,
                          .batch = 1,
                          .ab = p->ab,
                          .c = p->d,
                          .d = p->d,
                          .alpha = p->alpha,
                          .beta = e->beta,
                          .bias = e->bias,
                          .activation = e->activation,
                          .align = TRM_ALIGN};
    if (!lies(p->m, p->k, p->a_row, p->a_col, &g->a_transposed, &g->lda) ||
        !lies(p->k, p->n, p->b_row, p->b_col, &g->b_transposed, &g->ldb) ||
        !lies(p->m, p->n, p->d_row, p->d_col, &d_transposed, &g->ldd) || d_transposed)
        return false;
    g->ldc = g->ldd;
    if (x->strided >= 0) {
        g->batch = p->dims[x->strided];
        g->a_step = p->a_step[x->strided];
        g->b_step = p->b_step[x->strided];
        g->c_step = g->d_step = p->d_step[x->strided];
    }
    for (int i = 0; i < p->batches; i++) {
        if (i == x->strided)
            continue;
        reduce_align(p->a_step[i], p->ab, &g->align);
        reduce_align(p->b_step[i], p->ab, &g->align);
        reduce_align(p->d_step[i], p->d, &g->align);
    }
    return true;
}

static trm_status on_library(trm_cuda *cuda, trmi_dense *x, const trmi_epilogue *e)
{
    trmi_gemm_desc g;

    x->strided = -1;
    x->loops = 1;
    for (int i = 0; i < x->product.batches; i++) {
        if (x->strided < 0 || x->product.dims[i] >= x->product.dims[x->strided])
            x->strided = i;
        x->loops *= x->product.dims[i];
    }
    if (x->strided >= 0)
        x->loops /= x->product.dims[x->strided];
    if (x->loops > LOOPS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product of %lld launches",
                        (long long)x->loops);
    if (!describe(x, e, &g))
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product whose operands lie unevenly");
    return trmi_gemm_create(cuda, &g, &x->gemm);
}

static bool is_empty(const trmi_product *p)
{
    bool empty = p->m == 0 || p->n == 0 || p->k == 0;

    for (int i = 0; i < p->batches; i++)
        empty = empty || p->dims[i] == 0;
    return empty;
}

trm_status trmi_dense_create(trm_cuda *cuda, const trmi_product *product,
                             const trmi_epilogue *epilogue, trmi_dense *dense_out)
{
    static const trmi_epilogue none = {.bias = TRM_DTYPE_NONE};
    trmi_dense x = {.product = *product, .strided = -1, .loops = 1};
    trm_status st = TRM_ERR_UNSUPPORTED;

    if (epilogue != NULL)
        x.epilogue = *epilogue;
    if (!is_empty(product)) {
        simplify(&x.product);
        if (trm_dtype_is_float(product->ab))
            st = on_library(cuda, &x, &x.epilogue);
        /* D along its columns (or A and B lie only so) */
        if (st == TRM_ERR_UNSUPPORTED && epilogue == NULL && x.product.d_row == 1 &&
            trm_dtype_is_float(product->ab)) {
            trmi_dense y = x;

            swap_operands(&y.product);
            y.swapped = true;
            simplify(&y.product);
            st = on_library(cuda, &y, &none);
            if (st == TRM_OK)
                x = y;
        }
    }
    if (st == TRM_ERR_UNSUPPORTED && epilogue == NULL) { /* our own */
        x.gemm = NULL;
        st = TRM_OK;
    }
    if (st == TRM_OK)
        *dense_out = x;
    else if (st == TRM_ERR_UNSUPPORTED && is_empty(product))
        st = trm_fail(st, "matrix product of nothing with an epilogue");
    return st;
}

size_t trmi_dense_workspace_bytes(const trmi_dense *dense)
{
    size_t bytes = dense->gemm == NULL ? 0 : trmi_gemm_workspace_bytes(dense->gemm);

    return bytes == 0 ? 0 : bytes + SPACE_ALIGN;
}

/* Element offsets of loop number `at`. */
static void offsets(const trmi_dense *x, int64_t at, int64_t *a, int64_t *b, int64_t *d)
{
    const trmi_product *p = &x->product;

    *a = *b = *d = 0;
    for (int i = p->batches - 1; i >= 0; i--) {
        int64_t index;

        if (i == x->strided)
            continue;
        index = at % p->dims[i];
        at /= p->dims[i];
        *a += index * p->a_step[i];
        *b += index * p->b_step[i];
        *d += index * p->d_step[i];
    }
}

static trm_status run_loops(const trmi_dense *x, cudaStream_t stream, const void *a, const void *b,
                            const void *c, void *d, const void *bias, void *workspace)
{
    int64_t ab = (int64_t)trm_dtype_bytes(x->product.ab),
            out = (int64_t)trm_dtype_bytes(x->product.d);
    void *space = (void *)(((uintptr_t)workspace + SPACE_ALIGN - 1) / SPACE_ALIGN * SPACE_ALIGN);

    for (int64_t i = 0; i < x->loops; i++) {
        int64_t at_a, at_b, at_d;

        offsets(x, i, &at_a, &at_b, &at_d);
        TRM_CHECK(trmi_gemm_run(
            x->gemm, stream, (const char *)a + at_a * ab, (const char *)b + at_b * ab,
            c == NULL ? NULL : (const char *)c + at_d * out, (char *)d + at_d * out, bias, space));
    }
    return TRM_OK;
}

trm_status trmi_dense_run(const trm_cuda *cuda, const trmi_dense *dense, cudaStream_t stream,
                          const void *a, const void *b, const void *c, void *d, const void *bias,
                          void *workspace, size_t elems, size_t channels, const trmi_posts *posts)
{
    if (dense->gemm == NULL)
        return trmi_cuda_product_run(cuda, stream, &dense->product, a, b, d, channels, posts);
    TRM_CHECK(run_loops(dense, stream, dense->swapped ? b : a, dense->swapped ? a : b, c, d, bias,
                        workspace));
    if (posts == NULL)
        return TRM_OK;
    return trmi_cuda_posts_run(cuda, stream, dense->product.d, d, elems, channels, 1, posts);
}

void trmi_dense_fini(trmi_dense *dense)
{
    trmi_gemm_destroy(dense->gemm);
    dense->gemm = NULL;
}
