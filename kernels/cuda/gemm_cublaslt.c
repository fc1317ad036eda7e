/* cuBLASLt. It thinks column-major, so that what it is given is the transposed product
 *
 *   D^T = op(B)^T op(A)^T     D^T: [n, m] column-major, leading dimension ldd
 *
 * whose "A" is our B (as it lies: [n, k] with ldb, or, where ours is stored transposed, [k, n] to
 * be transposed) and whose "B" is our A. Its bias, one element a row of D^T, is then one a column
 * of our D. */
#include "kernels/cuda/gemm_impl.h"

#include <stdio.h>
#include <string.h>

trm_status trmi_lt_check(cublasStatus_t status, const char *what)
{
    trm_status st;

    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return TRM_OK;
    case CUBLAS_STATUS_NOT_SUPPORTED:
    case CUBLAS_STATUS_ARCH_MISMATCH:
        st = TRM_ERR_UNSUPPORTED;
        break;
    case CUBLAS_STATUS_ALLOC_FAILED:
        st = TRM_ERR_NO_MEMORY;
        break;
    case CUBLAS_STATUS_NOT_INITIALIZED:
        st = TRM_ERR_DEVICE;
        break;
    default: /* CUDA's error says more, and must not be seen by the next launch */
        TRM_CHECK(trmi_cuda_check(cudaPeekAtLastError(), what));
        st = TRM_ERR_INTERNAL;
        break;
    }
    return trm_fail(st, "cuBLASLt: %s: %s", what, cublasLtGetStatusName(status));
}

/* ---- the library ---- */

static void lt_fini(trm_cuda *cuda)
{
    trmi_lt *l = cuda->blaslt;

    if (l == NULL)
        return;
    trmi_cuda_plan_cache_close(l->plans);
    trmi_lt_choices_free(l);
    if (l->handle != NULL)
        (void)cublasLtDestroy(l->handle);
    trm_free(l);
    cuda->blaslt = NULL;
}

static trm_status lt_get(trm_cuda *cuda, trmi_lt **out)
{
    char version[32];
    trm_status st = TRM_OK;
    trmi_lt *l = cuda->blaslt;

    *out = l;
    if (l != NULL)
        return TRM_OK;
    l = trm_calloc(1, sizeof(*l));
    if (l == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "cuBLASLt");
    cuda->blaslt = l;
    cuda->blaslt_fini = lt_fini;
    TRM_TRY(st, TRMI_LT(cublasLtCreate(&l->handle)), fail);
    snprintf(version, sizeof(version), "%zu", cublasLtGetVersion());
    TRM_TRY(st, trmi_cuda_plan_cache_open("cublaslt", version, cuda->name, &l->plans), fail);
    *out = l;
    return TRM_OK;
fail:
    lt_fini(cuda);
    return st;
}

/* ---- descriptors ---- */

static bool types_of(const trmi_gemm_desc *d, cudaDataType *ab, cudaDataType *out,
                     cublasComputeType_t *compute, cudaDataType *scale_type)
{
    static const struct {
        trm_dtype ab, d;
        cudaDataType type, out;
        cublasComputeType_t compute;
        cudaDataType scale;
    } rows[] = {
        {TRM_DTYPE_F32, TRM_DTYPE_F32, CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
        {TRM_DTYPE_F16, TRM_DTYPE_F16, CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
        {TRM_DTYPE_F16, TRM_DTYPE_F32, CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
        {TRM_DTYPE_BF16, TRM_DTYPE_BF16, CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F},
        {TRM_DTYPE_BF16, TRM_DTYPE_F32, CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F},
        {TRM_DTYPE_F64, TRM_DTYPE_F64, CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F, CUDA_R_64F},
        {TRM_DTYPE_I8, TRM_DTYPE_I32, CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I},
        {TRM_DTYPE_F8_ROW, TRM_DTYPE_F32, CUDA_R_8F_E4M3, CUDA_R_32F, CUBLAS_COMPUTE_32F,
         CUDA_R_32F},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].ab != d->ab || rows[i].d != d->d)
            continue;
        *ab = rows[i].type;
        *out = rows[i].out;
        *compute = rows[i].compute;
        *scale_type = rows[i].scale;
        return true;
    }
    return false;
}

static trm_status accept(const trmi_gemm_desc *d)
{
    cudaDataType ab, out, scale_type;
    cublasComputeType_t compute;
    bool plain = d->bias == TRM_DTYPE_NONE && d->activation == TRMI_GEMM_NONE;

    if (!types_of(d, &ab, &out, &compute, &scale_type))
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product of %s to %s", trm_dtype_name(d->ab),
                        trm_dtype_name(d->d));
    if (d->m > INT32_MAX || d->n > INT32_MAX || d->k > INT32_MAX || d->batch > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product with a dim over 2^31");
    if (d->beta != 0.0f && d->c != d->d)
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product in %s that adds %s",
                        trm_dtype_name(d->d), trm_dtype_name(d->c));
    if (d->bias != TRM_DTYPE_NONE && d->bias != d->d)
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product in %s with a bias of %s",
                        trm_dtype_name(d->d), trm_dtype_name(d->bias));
    if ((d->ab == TRM_DTYPE_F64 || d->ab == TRM_DTYPE_I8 || d->ab == TRM_DTYPE_F8_ROW) && !plain)
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product of %s with a bias or activation",
                        trm_dtype_name(d->ab));
    if (d->ab == TRM_DTYPE_I8 &&
        (d->a_transposed || !d->b_transposed || d->n % 4 != 0 || d->k % 4 != 0 || d->lda % 4 != 0 ||
         d->ldb % 4 != 0 || d->alpha != 1.0f || (d->beta != 0.0f && d->beta != 1.0f)))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "matrix product of i8: want B transposed, n and k multiples of 4, alpha 1");
    if (d->ab == TRM_DTYPE_F8_ROW &&
        (d->a_transposed || !d->b_transposed || d->n % 16 != 0 || d->k % 16 != 0 ||
         d->lda % 16 != 0 || d->ldb % 16 != 0 || d->ldd % 4 != 0 || d->beta != 0.0f ||
         (d->align != 0 && d->align < 16)))
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product of e4m3: want B transposed, n, k and "
                                             "strides multiples of 16, nothing added");
    if (d->scaled && (d->ab != TRM_DTYPE_F8_ROW || d->batch != 1))
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product of %s with scales",
                        trm_dtype_name(d->ab));
    return TRM_OK;
}

static trm_status layout(cudaDataType type, int64_t rows, int64_t columns, int64_t ld,
                         int64_t batch, int64_t step, cublasLtMatrixLayout_t *out)
{
    int32_t count = (int32_t)batch;

    TRM_CHECK(
        TRMI_LT(cublasLtMatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)columns, ld)));
    if (batch == 1)
        return TRM_OK;
    TRM_CHECK(TRMI_LT(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                       &count, sizeof(count))));
    return TRMI_LT(cublasLtMatrixLayoutSetAttribute(
        *out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof(step)));
}

static trm_status set(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t what, int32_t value)
{
    return TRMI_LT(cublasLtMatmulDescSetAttribute(op, what, &value, sizeof(value)));
}

static cublasLtEpilogue_t epilogue_of(const trmi_gemm_desc *d)
{
    bool bias = d->bias != TRM_DTYPE_NONE;

    switch (d->activation) {
    case TRMI_GEMM_RELU:
        return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    case TRMI_GEMM_GELU_TANH:
        return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    default:
        return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    }
}

trm_status trmi_lt_bias(cublasLtMatmulDesc_t op, const void *bias)
{
    return TRMI_LT(
        cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)));
}

static trm_status set_scales(cublasLtMatmulDesc_t op, const void *a, const void *b)
{
    TRM_CHECK(TRMI_LT(
        cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &b, sizeof(b))));
    return TRMI_LT(
        cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &a, sizeof(a)));
}

static void shapes_free(trmi_lt_shapes *s)
{
    if (s == NULL)
        return;
    if (s->op != NULL)
        (void)cublasLtMatmulDescDestroy(s->op);
    if (s->a != NULL)
        (void)cublasLtMatrixLayoutDestroy(s->a);
    if (s->b != NULL)
        (void)cublasLtMatrixLayoutDestroy(s->b);
    if (s->c != NULL)
        (void)cublasLtMatrixLayoutDestroy(s->c);
    if (s->d != NULL)
        (void)cublasLtMatrixLayoutDestroy(s->d);
    trm_free(s);
}

static trm_status describe(const trmi_gemm_desc *d, trmi_lt_shapes *s)
{
    cudaDataType ab, out, scale_type;
    cublasComputeType_t compute;
    cublasLtEpilogue_t epilogue = epilogue_of(d);

    (void)types_of(d, &ab, &out, &compute, &scale_type);
    TRM_CHECK(TRMI_LT(cublasLtMatmulDescCreate(&s->op, compute, scale_type)));
    TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_TRANSA, d->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
    TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_TRANSB, d->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
    if (epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_EPILOGUE, (int32_t)epilogue));
    if (d->bias != TRM_DTYPE_NONE) {
        TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (int32_t)out));
        /* not read while algorithms are asked for: it says how a bias is aligned */
        TRM_CHECK(trmi_lt_bias(s->op, (const void *)(uintptr_t)TRM_ALIGN));
    }
    if (d->scaled) {
        const void *some = (const void *)(uintptr_t)TRM_ALIGN; /* as the bias */

        TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
                      CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F));
        TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
                      CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F));
        TRM_CHECK(set_scales(s->op, some, some));
    }
    TRM_CHECK(layout(ab, d->b_transposed ? d->k : d->n, d->b_transposed ? d->n : d->k, d->ldb,
                     d->batch, d->b_step, &s->b));
    TRM_CHECK(layout(ab, d->a_transposed ? d->m : d->k, d->a_transposed ? d->k : d->m, d->lda,
                     d->batch, d->a_step, &s->a));
    TRM_CHECK(layout(out, d->n, d->m, d->ldd, d->batch, d->d_step, &s->d));
    /* without a C the library is told that it is D */
    return layout(out, d->n, d->m, d->beta == 0.0f ? d->ldd : d->ldc, d->batch,
                  d->beta == 0.0f ? d->d_step : d->c_step, &s->c);
}

trm_status trmi_lt_enqueue(const trmi_lt *l, const trmi_gemm *g, const cublasLtMatmulAlgo_t *algo,
                           cudaStream_t stream, const void *a, const void *b, const void *c,
                           void *d, void *workspace, size_t workspace_bytes)
{
    const trmi_lt_shapes *s = g->shapes;

    return trmi_lt_check(cublasLtMatmul(l->handle, s->op, &g->alpha, b, s->b, a, s->a, &g->beta,
                                        c == NULL ? d : c, s->c, d, s->d, algo,
                                        workspace_bytes == 0 ? NULL : workspace, workspace_bytes,
                                        stream),
                         "matmul");
}

/* ---- public ---- */

static void dense_strides(trmi_gemm_desc *d)
{
    d->lda = d->lda == 0 ? (d->a_transposed ? d->m : d->k) : d->lda;
    d->ldb = d->ldb == 0 ? (d->b_transposed ? d->k : d->n) : d->ldb;
    d->ldc = d->ldc == 0 ? d->n : d->ldc;
    d->ldd = d->ldd == 0 ? d->n : d->ldd;
}

/* Nothing to multiply: D is dense, or the sum has no terms and no epilogue. */
static trm_status accept_empty(const trmi_gemm_desc *d)
{
    bool dense = d->ldd == d->n && (d->batch == 1 || d->d_step == d->m * d->n);
    bool c_dense = d->beta == 0.0f || (d->beta == 1.0f && d->ldc == d->n &&
                                       (d->batch == 1 || d->c_step == d->m * d->n));

    if (d->m == 0 || d->n == 0 || d->batch == 0 ||
        (dense && c_dense && d->bias == TRM_DTYPE_NONE && d->activation == TRMI_GEMM_NONE))
        return TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product with k 0 and an epilogue");
}

static void scale_of(trm_dtype ab, float value, trmi_lt_scale *out)
{
    memset(out, 0, sizeof(*out));
    if (ab == TRM_DTYPE_F64)
        out->d = (double)value;
    else if (ab == TRM_DTYPE_I8)
        out->i = (int32_t)value;
    else
        out->f = value;
}

trm_status trmi_gemm_create(trm_cuda *cuda, const trmi_gemm_desc *desc, trmi_gemm **gemm_out)
{
    trmi_gemm *g = NULL;
    trmi_lt *l = NULL;
    trm_status st = TRM_OK;

    g = trm_calloc(1, sizeof(*g));
    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "matrix product");
    g->cuda = cuda;
    g->desc = *desc;
    dense_strides(&g->desc);
    TRM_TRY(st, accept(&g->desc), fail);
    g->empty = desc->m == 0 || desc->n == 0 || desc->k == 0 || desc->batch == 0;
    if (g->empty) {
        TRM_TRY(st, accept_empty(&g->desc), fail);
        *gemm_out = g;
        return TRM_OK;
    }
    scale_of(desc->ab, desc->alpha, &g->alpha);
    scale_of(desc->ab, desc->beta, &g->beta);
    g->shapes = trm_calloc(1, sizeof(*g->shapes));
    if (g->shapes == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "matrix product");
        goto fail;
    }
    TRM_TRY(st, lt_get(cuda, &l), fail);
    TRM_TRY(st, describe(&g->desc, g->shapes), fail);
    TRM_TRY(st, trmi_lt_choose(l, g), fail);
    *gemm_out = g;
    return TRM_OK;
fail:
    trmi_gemm_destroy(g);
    return st;
}

trm_status trmi_gemm_scales(const trmi_gemm *gemm, const float *a, const float *b)
{
    return gemm->empty ? TRM_OK : set_scales(gemm->shapes->op, a, b);
}

size_t trmi_gemm_workspace_bytes(const trmi_gemm *gemm)
{
    return gemm->workspace;
}

trm_status trmi_gemm_run(const trmi_gemm *gemm, cudaStream_t stream, const void *a, const void *b,
                         const void *c, void *d, const void *bias, void *workspace)
{
    const trmi_gemm_desc *desc = &gemm->desc;
    size_t bytes;

    if (gemm->empty) {
        bytes = (size_t)(desc->batch * desc->m * desc->n) * trm_dtype_bytes(desc->d);
        if (bytes == 0 || (desc->beta != 0.0f && c == d))
            return TRM_OK;
        if (desc->beta == 0.0f)
            return TRMI_CUDA(cudaMemsetAsync(d, 0, bytes, stream));
        return TRMI_CUDA(cudaMemcpyAsync(d, c, bytes, cudaMemcpyDeviceToDevice, stream));
    }
    if (desc->bias != TRM_DTYPE_NONE)
        TRM_CHECK(trmi_lt_bias(gemm->shapes->op, bias));
    return trmi_lt_enqueue(gemm->cuda->blaslt, gemm, &gemm->algo, stream, a, b, c, d, workspace,
                           gemm->workspace);
}

void trmi_gemm_destroy(trmi_gemm *gemm)
{
    if (gemm == NULL)
        return;
    shapes_free(gemm->shapes);
    trm_free(gemm);
}
