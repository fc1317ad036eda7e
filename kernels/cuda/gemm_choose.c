/* Which of cuBLASLt's algorithms runs a product: chosen once a shape. From the disk, where this
 * kind of GPU has measured it before (plan_cache.h), else the heuristics' first ones are measured,
 * else (no memory for that) their first one is taken. */
#include "base/log.h"
#include "kernels/cuda/gemm_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORKSPACE_MAX ((size_t)32 << 20) /* what NVIDIA recommends for sm_90 */
#define CANDIDATES 8
#define WARM_UPS 3
#define MEASURES 5
#define MEASURE_BYTES_MAX ((size_t)4 << 30)
/* Filled before the timed runs, so that the host is ahead of the GPU when they begin: else a small
 * product's time is that of its launch. */
#define DELAY_BYTES ((size_t)256 << 20) /* 60 to 150 us: longer than launching what is timed */

struct trmi_lt_choice {
    trmi_lt_choice *next;
    char *key;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
};

void trmi_lt_choices_free(trmi_lt *lt)
{
    while (lt->choices != NULL) {
        trmi_lt_choice *c = lt->choices;

        lt->choices = c->next;
        trm_free(c->key);
        trm_free(c);
    }
}

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
             " %" PRId64 " c%d bias%d act%d align%d%s",
             trm_dtype_name(d->ab), trm_dtype_name(d->d), d->m, d->n, d->k, d->batch,
             d->a_transposed, d->b_transposed, d->lda, d->ldb, d->ldc, d->ldd, d->a_step, d->b_step,
             d->c_step, d->d_step, d->beta != 0.0f, d->bias != TRM_DTYPE_NONE, (int)d->activation,
             align_of(d), d->scaled ? " scaled" : "");
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
    TRM_CHECK(TRMI_LT(cublasLtMatmulPreferenceCreate(out)));
    TRM_CHECK(TRMI_LT(cublasLtMatmulPreferenceSetAttribute(
        *out, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace))));
    TRM_CHECK(TRMI_LT(cublasLtMatmulPreferenceSetAttribute(
        *out, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof(schemes))));
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++)
        TRM_CHECK(
            TRMI_LT(cublasLtMatmulPreferenceSetAttribute(*out, sides[i], &align, sizeof(align))));
    return TRM_OK;
}

/* The heuristics' list, best first; UNSUPPORTED where it is empty. */
static trm_status candidates(const trmi_lt *l, const trmi_gemm *g,
                             cublasLtMatmulHeuristicResult_t results[CANDIDATES], int *count_out)
{
    const trmi_lt_shapes *s = g->shapes;
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t status;
    int count = 0, good = 0;
    trm_status st = TRM_OK;

    TRM_TRY(st, prefer(&g->desc, &preference), done);
    status = cublasLtMatmulAlgoGetHeuristic(l->handle, s->op, s->b, s->a, s->c, s->d, preference,
                                            CANDIDATES, results, &count);
    if (status == CUBLAS_STATUS_INVALID_VALUE) /* a combination that it does not know */
        status = CUBLAS_STATUS_NOT_SUPPORTED;
    TRM_TRY(st, trmi_lt_check(status, "heuristics"), done);
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

/* Memory to measure in. */
enum { FOR_A, FOR_B, FOR_C, FOR_D, FOR_BIAS, FOR_SCALES, FOR_WORKSPACE, FOR_DELAY, PARTS };
typedef struct measuring {
    void *part[PARTS];
    cudaEvent_t begin[MEASURES], end[MEASURES];
    size_t workspace;
} measuring;

static size_t matrix_bytes(int64_t rows, int64_t ld, int64_t batch, int64_t step, trm_dtype dtype)
{
    return (size_t)(rows * ld + (batch - 1) * step) * trmi_lt_bytes(dtype);
}

static void measuring_fini(trm_cuda *cuda, measuring *m)
{
    for (int i = 0; i < PARTS; i++)
        cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, m->part[i]);
    for (int i = 0; i < MEASURES; i++) {
        if (m->begin[i] != NULL)
            (void)cudaEventDestroy(m->begin[i]);
        if (m->end[i] != NULL)
            (void)cudaEventDestroy(m->end[i]);
    }
}

static void part_bytes(const trmi_gemm_desc *d, size_t workspace, size_t bytes[PARTS])
{
    memset(bytes, 0, PARTS * sizeof(bytes[0]));
    bytes[FOR_A] = matrix_bytes(d->a_transposed ? d->k : d->m, d->lda, d->batch, d->a_step, d->ab);
    bytes[FOR_B] = matrix_bytes(d->b_transposed ? d->n : d->k, d->ldb, d->batch, d->b_step, d->ab);
    bytes[FOR_C] = d->beta == 0.0f ? 0 : matrix_bytes(d->m, d->ldc, d->batch, d->c_step, d->d);
    bytes[FOR_D] = matrix_bytes(d->m, d->ldd, d->batch, d->d_step, d->d);
    bytes[FOR_BIAS] = d->bias == TRM_DTYPE_NONE ? 0 : (size_t)d->n * trm_dtype_bytes(d->bias);
    bytes[FOR_SCALES] = d->scaled ? (size_t)(d->m > d->n ? d->m : d->n) * sizeof(float) : 0;
    bytes[FOR_WORKSPACE] = workspace;
    bytes[FOR_DELAY] = DELAY_BYTES;
}

static trm_status measuring_init(trm_cuda *cuda, const trmi_gemm_desc *d, measuring *m)
{
    size_t bytes[PARTS], all = 0, free_bytes = 0, total = 0;

    part_bytes(d, m->workspace, bytes);
    for (int i = 0; i < PARTS; i++)
        all += bytes[i];
    TRM_CHECK(TRMI_CUDA(cudaMemGetInfo(&free_bytes, &total)));
    if (all > MEASURE_BYTES_MAX || all > free_bytes / 2)
        return trm_fail(TRM_ERR_NO_MEMORY, "memory to measure in");
    for (int i = 0; i < PARTS; i++) {
        if (bytes[i] == 0)
            continue;
        TRM_CHECK(cuda->base.ops->alloc(&cuda->base, TRM_MEMORY_DEVICE, bytes[i], &m->part[i]));
        /* ordinary numbers in every dtype: no NaN, nothing denormal */
        if (i != FOR_DELAY)
            TRM_CHECK(TRMI_CUDA(cudaMemsetAsync(m->part[i], 0x2e, bytes[i], cuda->stream)));
    }
    for (int i = 0; i < MEASURES; i++) {
        TRM_CHECK(TRMI_CUDA(cudaEventCreate(&m->begin[i])));
        TRM_CHECK(TRMI_CUDA(cudaEventCreate(&m->end[i])));
    }
    return TRM_OK;
}

static trm_status run_once(const trmi_lt *l, const trmi_gemm *g, const cublasLtMatmulAlgo_t *algo,
                           const measuring *m)
{
    return trmi_lt_enqueue(l, g, algo, g->cuda->stream, m->part[FOR_A], m->part[FOR_B],
                           m->part[FOR_C], m->part[FOR_D], m->part[FOR_WORKSPACE], m->workspace);
}

/* The best of a few runs. */
static trm_status time_algo(const trmi_lt *l, const trmi_gemm *g, const cublasLtMatmulAlgo_t *algo,
                            const measuring *m, float *ms_out)
{
    cudaStream_t stream = g->cuda->stream;
    float best = 1e30f, ms = 0.0f;

    for (int i = 0; i < WARM_UPS; i++)
        TRM_CHECK(run_once(l, g, algo, m));
    TRM_CHECK(TRMI_CUDA(cudaMemsetAsync(m->part[FOR_DELAY], 0, DELAY_BYTES, stream)));
    for (int i = 0; i < MEASURES; i++) {
        TRM_CHECK(TRMI_CUDA(cudaEventRecord(m->begin[i], stream)));
        TRM_CHECK(run_once(l, g, algo, m));
        TRM_CHECK(TRMI_CUDA(cudaEventRecord(m->end[i], stream)));
    }
    TRM_CHECK(TRMI_CUDA(cudaStreamSynchronize(stream)));
    for (int i = 0; i < MEASURES; i++) {
        TRM_CHECK(TRMI_CUDA(cudaEventElapsedTime(&ms, m->begin[i], m->end[i])));
        best = ms < best ? ms : best;
    }
    *ms_out = best;
    return TRM_OK;
}

/* Index of the fastest candidate, -1 where none of them runs. An error means that they could not be
 * measured. */
static trm_status measure(const trmi_lt *l, const trmi_gemm *g,
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
        TRM_TRY(st, trmi_lt_bias(g->shapes->op, m.part[FOR_BIAS]), done);
    if (g->desc.scaled)
        TRM_TRY(st, trmi_gemm_scales(g, m.part[FOR_SCALES], m.part[FOR_SCALES]), done);
    for (int i = 0; i < count; i++) {
        st = time_algo(l, g, &results[i].algo, &m, &ms);
        if (st == TRM_ERR_DEVICE)
            goto done;
        if (st != TRM_OK || ms >= best) /* one that fails is only not chosen */
            continue;
        best = ms;
        at = i;
    }
    st = TRM_OK;
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

static void remember(trmi_lt *l, const char *key, const trmi_gemm *g)
{
    trmi_lt_choice *c = trm_calloc(1, sizeof(*c));

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
static bool from_disk(const trmi_lt *l, const char *key, trmi_gemm *g)
{
    cublasLtMatmulHeuristicResult_t result;
    const trmi_lt_shapes *s = g->shapes;
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

trm_status trmi_lt_choose(trmi_lt *l, trmi_gemm *g)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    char key[TRMI_PLAN_KEY_MAX];
    int count = 0, best = 0;
    trm_status st;

    key_of(&g->desc, key, sizeof(key));
    for (const trmi_lt_choice *c = l->choices; c != NULL; c = c->next) {
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
    if (st == TRM_OK && best < 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuBLASLt: no algorithm of this product runs");
    g->algo = results[st == TRM_OK ? best : 0].algo;
    g->workspace = results[st == TRM_OK ? best : 0].workspaceSize;
    remember(l, key, g);
    if (st == TRM_OK)
        trmi_cuda_plan_cache_put(l->plans, key, &g->algo, sizeof(g->algo));
    return TRM_OK;
}
