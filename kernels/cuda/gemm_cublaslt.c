/* cuBLASLt. It thinks column-major, so that what it is given is the transposed product
 *
 *   D^T = op(B)^T op(A)^T     D^T: [n, m] column-major, leading dimension ldd
 *
 * whose "A" is our B (as it lies: [n, k] with ldb, or, where ours is stored transposed, [k, n] to
 * be transposed) and whose "B" is our A. Its bias, one element a row of D^T, is then one a column
 * of our D.
 *
 * An algorithm is chosen once a shape: from the disk, where this kind of GPU has measured it before
 * (plan_cache.h), else the heuristics' first ones are measured, else (no memory for that) their
 * first one is taken. */
#include "base/log.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/plan_cache.h"

#include <cublasLt.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORKSPACE_MAX ((size_t)32 << 20) /* what NVIDIA recommends for sm_90 */
#define CANDIDATES 8
#define WARM_UPS 3
#define MEASURES 5
#define MEASURE_BYTES_MAX ((size_t)4 << 30)

typedef struct choice {
    struct choice *next;
    char *key;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
} choice;

typedef struct lt {
    cublasLtHandle_t handle;
    trmi_plan_cache *plans;
    choice *choices; /* of this process */
} lt;

typedef union scale {
    float f;
    double d;
    int32_t i;
} scale;

/* The descriptors of a gemm; of these only op's bias pointer changes after create. */
typedef struct shapes {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c, d; /* a: ours; it is the library's second operand */
} shapes;

struct trmi_gemm {
    trm_cuda *cuda;
    trmi_gemm_desc desc;
    shapes *shapes;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    scale alpha, beta;
    bool empty; /* m, n or k is 0 */
};

static trm_status check(cublasStatus_t status, const char *what)
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
    case CUBLAS_STATUS_EXECUTION_FAILED:
        TRM_CHECK(trmi_cuda_check(cudaPeekAtLastError(), what)); /* a sticky one says more */
        st = TRM_ERR_DEVICE;
        break;
    default:
        st = TRM_ERR_INTERNAL;
        break;
    }
    return trm_fail(st, "cuBLASLt: %s: %s", what, cublasLtGetStatusName(status));
}
#define LT(call) check((call), #call)

/* ---- the library ---- */

static void lt_fini(trm_cuda *cuda)
{
    lt *l = cuda->blaslt;

    if (l == NULL)
        return;
    trmi_cuda_plan_cache_close(l->plans);
    while (l->choices != NULL) {
        choice *c = l->choices;

        l->choices = c->next;
        trm_free(c->key);
        trm_free(c);
    }
    if (l->handle != NULL)
        (void)cublasLtDestroy(l->handle);
    trm_free(l);
    cuda->blaslt = NULL;
}

static trm_status lt_get(trm_cuda *cuda, lt **out)
{
    char version[32];
    trm_status st = TRM_OK;
    lt *l = cuda->blaslt;

    *out = l;
    if (l != NULL)
        return TRM_OK;
    l = trm_calloc(1, sizeof(*l));
    if (l == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "cuBLASLt");
    cuda->blaslt = l;
    cuda->blaslt_fini = lt_fini;
    TRM_TRY(st, LT(cublasLtCreate(&l->handle)), fail);
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
    if ((d->ab == TRM_DTYPE_F64 || d->ab == TRM_DTYPE_I8) && !plain)
        return trm_fail(TRM_ERR_UNSUPPORTED, "matrix product of %s with a bias or activation",
                        trm_dtype_name(d->ab));
    if (d->ab == TRM_DTYPE_I8 &&
        (d->a_transposed || !d->b_transposed || d->n % 4 != 0 || d->k % 4 != 0 || d->lda % 4 != 0 ||
         d->ldb % 4 != 0 || d->alpha != 1.0f || (d->beta != 0.0f && d->beta != 1.0f)))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "matrix product of i8: want B transposed, n and k multiples of 4, alpha 1");
    return TRM_OK;
}

static trm_status layout(cudaDataType type, int64_t rows, int64_t columns, int64_t ld,
                         int64_t batch, int64_t step, cublasLtMatrixLayout_t *out)
{
    int32_t count = (int32_t)batch;

    TRM_CHECK(LT(cublasLtMatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)columns, ld)));
    if (batch == 1)
        return TRM_OK;
    TRM_CHECK(LT(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                                  sizeof(count))));
    return LT(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                               &step, sizeof(step)));
}

static trm_status set(cublasLtMatmulDesc_t op, cublasLtMatmulDescAttributes_t what, int32_t value)
{
    return LT(cublasLtMatmulDescSetAttribute(op, what, &value, sizeof(value)));
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

static trm_status bias_pointer(cublasLtMatmulDesc_t op, const void *bias)
{
    return LT(
        cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)));
}

static void shapes_free(shapes *s)
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

static trm_status describe(const trmi_gemm_desc *d, shapes *s)
{
    cudaDataType ab, out, scale_type;
    cublasComputeType_t compute;
    cublasLtEpilogue_t epilogue = epilogue_of(d);

    (void)types_of(d, &ab, &out, &compute, &scale_type);
    TRM_CHECK(LT(cublasLtMatmulDescCreate(&s->op, compute, scale_type)));
    TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_TRANSA, d->b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
    TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_TRANSB, d->a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
    if (epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_EPILOGUE, (int32_t)epilogue));
    if (d->bias != TRM_DTYPE_NONE) {
        TRM_CHECK(set(s->op, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (int32_t)out));
        /* not read while algorithms are asked for: it says how a bias is aligned */
        TRM_CHECK(bias_pointer(s->op, (const void *)(uintptr_t)TRM_ALIGN));
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

/* ---- the choice ---- */

static int align_of(const trmi_gemm_desc *d)
{
    return d->align == 0 ? TRM_ALIGN : d->align;
}

/* What an algorithm may depend on. */
static void key_of(const trmi_gemm_desc *d, char *key, size_t bytes)
{
    snprintf(key, bytes,
             "%s-%s m%" PRId64 " n%" PRId64 " k%" PRId64 " x%" PRId64 " t%d%d ld %" PRId64
             " %" PRId64 " %" PRId64 " %" PRId64 " step %" PRId64 " %" PRId64 " %" PRId64
             " %" PRId64 " c%d bias%d act%d align%d",
             trm_dtype_name(d->ab), trm_dtype_name(d->d), d->m, d->n, d->k, d->batch,
             d->a_transposed, d->b_transposed, d->lda, d->ldb, d->ldc, d->ldd, d->a_step, d->b_step,
             d->c_step, d->d_step, d->beta != 0.0f, d->bias != TRM_DTYPE_NONE, (int)d->activation,
             align_of(d));
}

static trm_status prefer(const trmi_gemm_desc *d, cublasLtMatmulPreference_t *out)
{
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t workspace = WORKSPACE_MAX;
    uint32_t align = (uint32_t)align_of(d);
    /* parts of a sum are added in fp32, not in the output's 16 bits */
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

    if (d->d != TRM_DTYPE_F16 && d->d != TRM_DTYPE_BF16)
        schemes |= CUBLASLT_REDUCTION_SCHEME_INPLACE;
    TRM_CHECK(LT(cublasLtMatmulPreferenceCreate(out)));
    TRM_CHECK(LT(cublasLtMatmulPreferenceSetAttribute(
        *out, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace))));
    TRM_CHECK(LT(cublasLtMatmulPreferenceSetAttribute(
        *out, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof(schemes))));
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++)
        TRM_CHECK(LT(cublasLtMatmulPreferenceSetAttribute(*out, sides[i], &align, sizeof(align))));
    return TRM_OK;
}

/* The heuristics' list, best first; UNSUPPORTED where it is empty. */
static trm_status candidates(const lt *l, const trmi_gemm *g,
                             cublasLtMatmulHeuristicResult_t results[CANDIDATES], int *count_out)
{
    const shapes *s = g->shapes;
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t status;
    int count = 0, good = 0;
    trm_status st = TRM_OK;

    TRM_TRY(st, prefer(&g->desc, &preference), done);
    status = cublasLtMatmulAlgoGetHeuristic(l->handle, s->op, s->b, s->a, s->c, s->d, preference,
                                            CANDIDATES, results, &count);
    if (status == CUBLAS_STATUS_INVALID_VALUE) /* a combination that it does not know */
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    TRM_TRY(st, check(status, "heuristics"), done);
    for (int i = 0; i < count; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS && results[i].workspaceSize <= WORKSPACE_MAX)
            results[good++] = results[i];
    if (good == 0)
        st = trm_fail(TRM_ERR_UNSUPPORTED, "cuBLASLt has no algorithm for this matrix product");
    *count_out = good;
done:
    if (preference != NULL)
        (void)cublasLtMatmulPreferenceDestroy(preference);
    return st;
}

static trm_status enqueue(const lt *l, const trmi_gemm *g, const cublasLtMatmulAlgo_t *algo,
                          cudaStream_t stream, const void *a, const void *b, const void *c, void *d,
                          void *workspace, size_t workspace_bytes)
{
    const shapes *s = g->shapes;

    return check(cublasLtMatmul(l->handle, s->op, &g->alpha, b, s->b, a, s->a, &g->beta,
                                c == NULL ? d : c, s->c, d, s->d, algo,
                                workspace_bytes == 0 ? NULL : workspace, workspace_bytes, stream),
                 "matmul");
}

/* Memory to measure in: A, B, C, D, bias, workspace. */
enum { MEASURE_A, MEASURE_B, MEASURE_C, MEASURE_D, MEASURE_BIAS, MEASURE_SPACE, MEASURE_PARTS };
typedef struct measuring {
    void *part[MEASURE_PARTS];
    cudaEvent_t begin, end;
    size_t workspace;
} measuring;

static size_t matrix_bytes(int64_t rows, int64_t ld, int64_t batch, int64_t step, trm_dtype dtype)
{
    return (size_t)(rows * ld + (batch - 1) * step) * trm_dtype_bytes(dtype);
}

static void measuring_fini(trm_cuda *cuda, measuring *m)
{
    for (int i = 0; i < MEASURE_PARTS; i++)
        cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, m->part[i]);
    if (m->begin != NULL)
        (void)cudaEventDestroy(m->begin);
    if (m->end != NULL)
        (void)cudaEventDestroy(m->end);
}

static trm_status measuring_init(trm_cuda *cuda, const trmi_gemm_desc *d, measuring *m)
{
    size_t bytes[MEASURE_PARTS] = {0}, all = 0, free_bytes = 0, total = 0;

    bytes[MEASURE_A] =
        matrix_bytes(d->a_transposed ? d->k : d->m, d->lda, d->batch, d->a_step, d->ab);
    bytes[MEASURE_B] =
        matrix_bytes(d->b_transposed ? d->n : d->k, d->ldb, d->batch, d->b_step, d->ab);
    bytes[MEASURE_C] = d->beta == 0.0f ? 0 : matrix_bytes(d->m, d->ldc, d->batch, d->c_step, d->d);
    bytes[MEASURE_D] = matrix_bytes(d->m, d->ldd, d->batch, d->d_step, d->d);
    bytes[MEASURE_BIAS] = d->bias == TRM_DTYPE_NONE ? 0 : (size_t)d->n * trm_dtype_bytes(d->bias);
    bytes[MEASURE_SPACE] = m->workspace;
    for (int i = 0; i < MEASURE_PARTS; i++)
        all += bytes[i];
    TRM_CHECK(TRMI_CUDA(cudaMemGetInfo(&free_bytes, &total)));
    if (all > MEASURE_BYTES_MAX || all > free_bytes / 2)
        return trm_fail(TRM_ERR_NO_MEMORY, "memory to measure in");
    for (int i = 0; i < MEASURE_PARTS; i++) {
        if (bytes[i] == 0)
            continue;
        TRM_CHECK(cuda->base.ops->alloc(&cuda->base, TRM_MEMORY_DEVICE, bytes[i], &m->part[i]));
        /* ordinary numbers in every dtype: no NaN, nothing denormal */
        TRM_CHECK(TRMI_CUDA(cudaMemsetAsync(m->part[i], 0x2e, bytes[i], cuda->stream)));
    }
    TRM_CHECK(TRMI_CUDA(cudaEventCreate(&m->begin)));
    return TRMI_CUDA(cudaEventCreate(&m->end));
}

static trm_status time_once(const lt *l, const trmi_gemm *g, const cublasLtMatmulAlgo_t *algo,
                            const measuring *m, float *ms_out)
{
    cudaStream_t stream = g->cuda->stream;

    TRM_CHECK(TRMI_CUDA(cudaEventRecord(m->begin, stream)));
    TRM_CHECK(enqueue(l, g, algo, stream, m->part[MEASURE_A], m->part[MEASURE_B],
                      m->part[MEASURE_C], m->part[MEASURE_D], m->part[MEASURE_SPACE],
                      m->workspace));
    TRM_CHECK(TRMI_CUDA(cudaEventRecord(m->end, stream)));
    TRM_CHECK(TRMI_CUDA(cudaEventSynchronize(m->end)));
    return TRMI_CUDA(cudaEventElapsedTime(ms_out, m->begin, m->end));
}

/* The best of a few runs. */
static trm_status time_algo(const lt *l, const trmi_gemm *g, const cublasLtMatmulAlgo_t *algo,
                            const measuring *m, float *ms_out)
{
    float best = 1e30f, ms = 0.0f;

    for (int i = 0; i < WARM_UPS + MEASURES; i++) {
        TRM_CHECK(time_once(l, g, algo, m, &ms));
        if (i >= WARM_UPS && ms < best)
            best = ms;
    }
    *ms_out = best;
    return TRM_OK;
}

/* Index of the fastest candidate. An error means that none was measured. */
static trm_status measure(const lt *l, const trmi_gemm *g,
                          const cublasLtMatmulHeuristicResult_t *results, int count, int *best_out)
{
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    measuring m = {.workspace = 0};
    float best = 1e30f, ms;
    int at = -1;
    trm_status st = TRM_OK;

    for (int i = 0; i < count; i++)
        if (results[i].workspaceSize > m.workspace)
            m.workspace = results[i].workspaceSize;
    TRM_CHECK(TRMI_CUDA(cudaStreamIsCapturing(g->cuda->stream, &capture)));
    if (capture != cudaStreamCaptureStatusNone)
        return trm_fail(TRM_ERR_UNSUPPORTED, "measuring in a capture");
    TRM_TRY(st, measuring_init(g->cuda, &g->desc, &m), done);
    if (g->desc.bias != TRM_DTYPE_NONE)
        TRM_TRY(st, bias_pointer(g->shapes->op, m.part[MEASURE_BIAS]), done);
    for (int i = 0; i < count; i++) {
        st = time_algo(l, g, &results[i].algo, &m, &ms);
        if (st == TRM_ERR_DEVICE)
            goto done;
        if (st != TRM_OK || ms >= best) /* one that fails is only not chosen */
            continue;
        best = ms;
        at = i;
    }
    st = at < 0 ? trm_fail(TRM_ERR_UNSUPPORTED, "cuBLASLt: no algorithm of this product runs")
                : TRM_OK;
    *best_out = at;
    if (at > 0)
        TRM_LOG(TRM_LOG_DEBUG, "cuda",
                "matrix product %" PRId64 " x %" PRId64 " x %" PRId64
                ": algorithm %d of %d, %.1f us",
                g->desc.m, g->desc.n, g->desc.k, at, count, (double)best * 1e3);
done:
    measuring_fini(g->cuda, &m);
    return st;
}

static void remember(lt *l, const char *key, const trmi_gemm *g)
{
    choice *c = trm_calloc(1, sizeof(*c));

    if (c != NULL)
        c->key = trm_strdup(key);
    if (c == NULL || c->key == NULL) { /* it is chosen again next time */
        trm_free(c);
        return;
    }
    c->algo = g->algo;
    c->workspace = g->workspace;
    c->next = l->choices;
    l->choices = c;
}

/* An algorithm from the disk, if the library takes it here. */
static bool from_disk(const lt *l, const char *key, trmi_gemm *g)
{
    cublasLtMatmulHeuristicResult_t result;
    const shapes *s = g->shapes;
    size_t bytes;
    const void *kept = trmi_cuda_plan_cache_find(l->plans, key, &bytes);

    if (kept == NULL || bytes != sizeof(g->algo))
        return false;
    memset(&result, 0, sizeof(result));
    memcpy(&g->algo, kept, sizeof(g->algo));
    if (cublasLtMatmulAlgoCheck(l->handle, s->op, s->b, s->a, s->c, s->d, &g->algo, &result) !=
            CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > WORKSPACE_MAX)
        return false;
    g->workspace = result.workspaceSize;
    return true;
}

static trm_status choose(lt *l, trmi_gemm *g)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    char key[TRMI_PLAN_KEY_MAX];
    int count = 0, best = 0;
    trm_status st;

    key_of(&g->desc, key, sizeof(key));
    for (const choice *c = l->choices; c != NULL; c = c->next) {
        if (strcmp(c->key, key) != 0)
            continue;
        g->algo = c->algo;
        g->workspace = c->workspace;
        return TRM_OK;
    }
    if (from_disk(l, key, g)) {
        remember(l, key, g);
        return TRM_OK;
    }
    memset(results, 0, sizeof(results));
    TRM_CHECK(candidates(l, g, results, &count));
    st = measure(l, g, results, count, &best);
    if (st == TRM_ERR_DEVICE)
        return st;
    g->algo = results[st == TRM_OK ? best : 0].algo;
    g->workspace = results[st == TRM_OK ? best : 0].workspaceSize;
    remember(l, key, g);
    if (st == TRM_OK)
        trmi_cuda_plan_cache_put(l->plans, key, &g->algo, sizeof(g->algo));
    return TRM_OK;
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

static void scale_of(trm_dtype ab, float value, scale *out)
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
    lt *l = NULL;
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
    TRM_TRY(st, choose(l, g), fail);
    *gemm_out = g;
    return TRM_OK;
fail:
    trmi_gemm_destroy(g);
    return st;
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
        TRM_CHECK(bias_pointer(gemm->shapes->op, bias));
    return enqueue(gemm->cuda->blaslt, gemm, &gemm->algo, stream, a, b, c, d, workspace,
                   gemm->workspace);
}

void trmi_gemm_destroy(trmi_gemm *gemm)
{
    if (gemm == NULL)
        return;
    shapes_free(gemm->shapes);
    trm_free(gemm);
}
