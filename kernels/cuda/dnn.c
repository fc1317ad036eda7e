/* cuDNN's handle, and plans that are chosen once for a description.
 *
 * A plan runs with a variant pack: unique ids and pointers. The pack of the last call is kept, so
 * that a step with the same buffers makes no new one. */
#include "kernels/cuda/dnn_graph.h"
#include "kernels/cuda/plan_cache.h"

#include "base/log.h"
#include "base/wait.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_UPS 3
#define RUNS 10        /* in one graph */
#define ROUNDS 3       /* of it */
#define BUILD_MS 1500  /* on plans of one description: engines that compile take 0.3 to 2 s each */
#define MEASURE_MS 400 /* on their runs */
#define POINTERS_MAX (3 + TRMI_DNN_STEPS_MAX + TRMI_DNN_SCALARS_MAX)
#define SCRATCH_ALIGN ((size_t)256)

struct trmi_dnn_plan {
    trmi_dnn_plan *next;
    trmi_dnn_desc desc;
    trmi_dnn_candidate chosen; /* plan NULL: cuDNN has none (remembered, too) */
    int64_t ids[POINTERS_MAX];
    float scalars[TRMI_DNN_SCALARS_MAX];
    int scalar_count, pointer_count; /* scalars are the last pointers */
    cudnnBackendDescriptor_t pack;   /* of the last call */
    const void *last[POINTERS_MAX];
    void *last_workspace;
};

typedef struct dnn_state {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t device;
    trmi_plan_cache *cache;
    trmi_dnn_plan *plans;
} dnn_state;

static void drop(cudnnBackendDescriptor_t d)
{
    if (d != NULL)
        (void)cudnnBackendDestroyDescriptor(d);
}

static void plan_free(trmi_dnn_plan *p)
{
    drop(p->pack);
    drop(p->chosen.plan);
    trm_free(p);
}

static void dnn_fini(trm_cuda *cuda)
{
    dnn_state *s = cuda->dnn;

    if (s == NULL)
        return;
    while (s->plans != NULL) {
        trmi_dnn_plan *p = s->plans;

        s->plans = p->next;
        plan_free(p);
    }
    trmi_cuda_plan_cache_close(s->cache);
    drop(s->device);
    if (s->handle != NULL)
        (void)cudnnDestroy(s->handle);
    trm_free(s);
    cuda->dnn = NULL;
}

static trm_status dnn_init(trm_cuda *cuda)
{
    dnn_state *s = trm_calloc(1, sizeof(*s));
    char version[32];
    trm_status st;

    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "cuDNN's state");
    cuda->dnn = s;
    cuda->dnn_fini = dnn_fini;
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnCreate(&s->handle), "handle"), fail);
    TRM_TRY(st,
            trmi_cuda_dnn_check(
                cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &s->device),
                "device"),
            fail);
    TRM_TRY(st,
            trmi_cuda_dnn_check(cudnnBackendSetAttribute(s->device, CUDNN_ATTR_DEVICEPROP_HANDLE,
                                                         CUDNN_TYPE_HANDLE, 1, &s->handle),
                                "device"),
            fail);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(s->device), "device"), fail);
    snprintf(version, sizeof(version), "%zu", cudnnGetVersion());
    TRM_TRY(st, trmi_cuda_plan_cache_open("cudnn", version, cuda->name, &s->cache), fail);
    return TRM_OK;
fail:
    dnn_fini(cuda);
    return st;
}

/* ---- running ---- */

static void pointers_init(trmi_dnn_plan *p, const trmi_dnn_graph *g)
{
    int n = 0;

    p->ids[n++] = TRMI_DNN_ID_X;
    p->ids[n++] = TRMI_DNN_ID_W;
    p->ids[n++] = TRMI_DNN_ID_Y;
    for (int i = 0; i < p->desc.step_count; i++)
        if (p->desc.steps[i].operand != TRMI_DNN_NO_OPERAND)
            p->ids[n++] = TRMI_DNN_ID_OPERAND + i;
    p->scalar_count = g->scalar_count;
    memcpy(p->scalars, g->scalars, sizeof(p->scalars));
    for (int i = 0; i < g->scalar_count; i++)
        p->ids[n++] = TRMI_DNN_ID_SCALAR + i;
    p->pointer_count = n;
}

static trm_status pack_make(const trmi_dnn_plan *p, const void *const *pointers, void *workspace,
                            cudnnBackendDescriptor_t *pack_out)
{
    cudnnBackendDescriptor_t pack;
    trm_status st;

    TRM_CHECK(trmi_cuda_dnn_check(
        cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "pointers"));
    TRM_TRY(
        st,
        trmi_cuda_dnn_check(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                                     CUDNN_TYPE_INT64, p->pointer_count, p->ids),
                            "pointers"),
        fail);
    TRM_TRY(st,
            trmi_cuda_dnn_check(
                cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                         CUDNN_TYPE_VOID_PTR, p->pointer_count, pointers),
                "pointers"),
            fail);
    TRM_TRY(st,
            trmi_cuda_dnn_check(cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                                         CUDNN_TYPE_VOID_PTR, 1, &workspace),
                                "pointers"),
            fail);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnBackendFinalize(pack), "pointers"), fail);
    *pack_out = pack;
    return TRM_OK;
fail:
    drop(pack);
    return st;
}

static trm_status run(dnn_state *s, trmi_dnn_plan *p, cudnnBackendDescriptor_t plan,
                      const void *const *pointers, void *workspace)
{
    const size_t bytes = (size_t)p->pointer_count * sizeof(pointers[0]);
    cudnnBackendDescriptor_t pack;

    if (p->pack == NULL || workspace != p->last_workspace ||
        memcmp(pointers, p->last, bytes) != 0) {
        TRM_CHECK(pack_make(p, pointers, workspace, &pack));
        drop(p->pack);
        p->pack = pack;
        memcpy(p->last, pointers, bytes);
        p->last_workspace = workspace;
    }
    return trmi_cuda_dnn_check(cudnnBackendExecute(s->handle, plan, p->pack), "execution");
}

static int pointers_of(const trmi_dnn_plan *p, const void *x, const void *w,
                       const void *const *operands, const void *y, const void **pointers)
{
    int n = 0;

    pointers[n++] = x;
    pointers[n++] = w;
    pointers[n++] = y;
    for (int i = 0; i < p->desc.step_count; i++)
        if (p->desc.steps[i].operand != TRMI_DNN_NO_OPERAND)
            pointers[n++] = operands[i];
    for (int i = 0; i < p->scalar_count; i++)
        pointers[n++] = &p->scalars[i];
    return n;
}

trm_status trmi_cuda_dnn_run(trm_cuda *cuda, trmi_dnn_plan *plan, cudaStream_t stream,
                             const void *x, const void *w, const void *const *operands, void *y,
                             void *workspace)
{
    dnn_state *s = cuda->dnn;
    const void *pointers[POINTERS_MAX];

    (void)pointers_of(plan, x, w, operands, y, pointers);
    TRM_CHECK(trmi_cuda_dnn_check(cudnnSetStream(s->handle, stream), "stream"));
    return run(s, plan, plan->chosen.plan, pointers, workspace);
}

size_t trmi_cuda_dnn_workspace_bytes(const trmi_dnn_plan *plan)
{
    return (size_t)plan->chosen.workspace_bytes;
}

/* ---- measuring ---- */

static size_t padded(size_t bytes)
{
    return (bytes + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;
}

/* Bytes of x, w, y and each operand of a description, each padded. */
static size_t sizes_of(const trmi_dnn_desc *d, size_t *x, size_t *w, size_t *y,
                       size_t operand[TRMI_DNN_STEPS_MAX])
{
    size_t in = (size_t)d->batch, out = (size_t)d->batch, taps = 1, all;

    for (int i = 0; i < d->spatial; i++) {
        in *= (size_t)d->in[i];
        out *= (size_t)d->out[i];
        taps *= (size_t)d->kernel[i];
    }
    *x = padded(in * (size_t)d->channels * trm_dtype_bytes(d->x));
    *w = padded(taps * (size_t)d->channels * (size_t)d->filters / (size_t)d->group *
                trm_dtype_bytes(d->w));
    *y = padded(out * (size_t)d->filters * trm_dtype_bytes(d->y));
    all = *x + *w + *y;
    for (int i = 0; i < d->step_count; i++) {
        const trmi_dnn_step *s = &d->steps[i];

        operand[i] = s->operand == TRMI_DNN_NO_OPERAND
                         ? 0
                         : padded((s->operand == TRMI_DNN_FULL ? out : 1) * (size_t)d->filters *
                                  trm_dtype_bytes(s->dtype));
        all += operand[i];
    }
    return all;
}

/* RUNS of a plan as one graph: launching them one by one would time the host where a convolution
 * takes a few microseconds, and an engine that cannot be captured is of no use in a step. */
static trm_status record_runs(trm_cuda *cuda, trmi_dnn_plan *p, const trmi_dnn_candidate *c,
                              const void *const *pointers, void *workspace,
                              cudaGraphExec_t *graph_out)
{
    dnn_state *s = cuda->dnn;
    cudaGraph_t graph = NULL;
    trm_status st = TRM_OK, ended;

    TRM_CHECK(TRMI_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal)));
    for (int i = 0; i < RUNS && st == TRM_OK; i++)
        st = run(s, p, c->plan, pointers, workspace);
    ended = TRMI_CUDA(cudaStreamEndCapture(cuda->stream, &graph));
    if (st == TRM_OK)
        st = ended;
    if (st == TRM_OK)
        st = TRMI_CUDA(cudaGraphInstantiate(graph_out, graph, 0));
    if (graph != NULL)
        (void)cudaGraphDestroy(graph);
    return st;
}

static trm_status time_one(trm_cuda *cuda, trmi_dnn_plan *p, const trmi_dnn_candidate *c,
                           const void *const *pointers, void *workspace, cudaEvent_t from,
                           cudaEvent_t to, float *ms_out)
{
    dnn_state *s = cuda->dnn;
    cudaGraphExec_t graph = NULL;
    trm_status st = TRM_OK;
    float ms = FLT_MAX;

    *ms_out = FLT_MAX;
    for (int i = 0; i < WARM_UPS; i++)
        TRM_CHECK(run(s, p, c->plan, pointers, workspace));
    TRM_CHECK(record_runs(cuda, p, c, pointers, workspace, &graph));
    for (int i = 0; i < ROUNDS && st == TRM_OK; i++) {
        TRM_TRY(st, TRMI_CUDA(cudaEventRecord(from, cuda->stream)), done);
        TRM_TRY(st, TRMI_CUDA(cudaGraphLaunch(graph, cuda->stream)), done);
        TRM_TRY(st, TRMI_CUDA(cudaEventRecord(to, cuda->stream)), done);
        TRM_TRY(st, TRMI_CUDA(cudaEventSynchronize(to)), done);
        TRM_TRY(st, TRMI_CUDA(cudaEventElapsedTime(&ms, from, to)), done);
        *ms_out = ms / RUNS < *ms_out ? ms / RUNS : *ms_out;
    }
done:
    (void)cudaGraphExecDestroy(graph);
    return st;
}

/* The fastest candidate, on memory of zeros; the first where they cannot be run. */
static trm_status measure(trm_cuda *cuda, trmi_dnn_plan *p, const trmi_dnn_candidates *c,
                          int *best_out)
{
    dnn_state *s = cuda->dnn;
    size_t x, w, y, operand[TRMI_DNN_STEPS_MAX], all = sizes_of(&p->desc, &x, &w, &y, operand),
                                                 work = 0;
    const void *pointers[POINTERS_MAX], *operands[TRMI_DNN_STEPS_MAX] = {NULL};
    int64_t until = trm_now_us() + MEASURE_MS * 1000;
    cudaEvent_t from = NULL, to = NULL;
    float best = FLT_MAX, ms;
    char *scratch, *at;
    void *memory = NULL;
    trm_status st;

    *best_out = 0;
    for (int i = 0; i < c->count; i++)
        work =
            (size_t)c->list[i].workspace_bytes > work ? (size_t)c->list[i].workspace_bytes : work;
    st = cuda->base.ops->alloc(&cuda->base, TRM_MEMORY_DEVICE, all + work, &memory);
    if (st == TRM_ERR_NO_MEMORY)
        return TRM_OK;
    TRM_CHECK(st);
    scratch = at = memory;
    for (int i = 0; i < p->desc.step_count; i++) {
        operands[i] = at + x + w + y;
        at += operand[i];
    }
    (void)pointers_of(p, scratch, scratch + x, operands, scratch + x + w, pointers);
    TRM_TRY(st, TRMI_CUDA(cudaEventCreate(&from)), done);
    TRM_TRY(st, TRMI_CUDA(cudaEventCreate(&to)), done);
    TRM_TRY(st, TRMI_CUDA(cudaMemsetAsync(scratch, 0, all, cuda->stream)), done);
    TRM_TRY(st, trmi_cuda_dnn_check(cudnnSetStream(s->handle, cuda->stream), "stream"), done);
    for (int i = 0; i < c->count && (i == 0 || trm_now_us() < until); i++) {
        if (time_one(cuda, p, &c->list[i], pointers, scratch + all, from, to, &ms) != TRM_OK) {
            /* a failed device fails here; an engine that cannot be run is not taken */
            TRM_TRY(st, TRMI_CUDA(cudaStreamSynchronize(cuda->stream)), done);
            continue;
        }
        if (ms < best) {
            best = ms;
            *best_out = i;
        }
    }
    TRM_TRY(st, TRMI_CUDA(cudaStreamSynchronize(cuda->stream)), done);
    TRM_LOG(TRM_LOG_DEBUG, "cuda", "cuDNN: %d engines, '%s' takes %.1f us", c->count,
            c->list[*best_out].engine, best < FLT_MAX ? (double)best * 1e3 : 0.0);
done:
    if (from != NULL)
        (void)cudaEventDestroy(from);
    if (to != NULL)
        (void)cudaEventDestroy(to);
    drop(p->pack);
    p->pack = NULL;
    cuda->base.ops->free(&cuda->base, TRM_MEMORY_DEVICE, memory);
    return st;
}

/* ---- choosing ---- */

/* All of a description as text; empty where it is too long. */
static void key_of(const trmi_dnn_desc *d, char text[TRMI_PLAN_KEY_MAX + 1])
{
    const size_t max = TRMI_PLAN_KEY_MAX + 1;
    size_t n = 0;

#define PUT(...)                                                                                   \
    do {                                                                                           \
        if (n < max)                                                                               \
            n += (size_t)snprintf(text + n, max - n, __VA_ARGS__);                                 \
    } while (0)
    PUT("%d %s %s %s n%" PRId64 " c%" PRId64 " k%" PRId64 " g%" PRId64, (int)d->kind,
        trm_dtype_name(d->x), trm_dtype_name(d->w), trm_dtype_name(d->y), d->batch, d->channels,
        d->filters, d->group);
    for (int i = 0; i < d->spatial; i++)
        PUT(" %" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64, d->in[i],
            d->kernel[i], d->stride[i], d->dilation[i], d->pad_begin[i], d->pad_end[i]);
    for (int i = 0; i < d->spatial; i++)
        PUT("%c%" PRId64, i == 0 ? '>' : ',', d->out[i]);
    for (int i = 0; i < d->step_count; i++)
        PUT(" %s,%d,%d,%a,%a", trm_op_get(d->steps[i].op)->name, (int)d->steps[i].operand,
            (int)d->steps[i].dtype, (double)d->steps[i].alpha, (double)d->steps[i].beta);
#undef PUT
    if (n >= max)
        text[0] = 0;
}

static trm_status choose(trm_cuda *cuda, trmi_dnn_plan *p, const trmi_dnn_graph *g)
{
    dnn_state *s = cuda->dnn;
    char key[TRMI_PLAN_KEY_MAX + 1], engine[TRMI_DNN_ENGINE_TEXT];
    trmi_dnn_candidates *c;
    const void *kept;
    size_t bytes;
    int best = 0;
    trm_status st;

    key_of(&p->desc, key);
    kept = key[0] == 0 ? NULL : trmi_cuda_plan_cache_find(s->cache, key, &bytes);
    if (kept != NULL && bytes < sizeof(engine)) {
        memcpy(engine, kept, bytes);
        engine[bytes] = 0;
        if (trmi_cuda_dnn_candidate(g, s->device, engine, &p->chosen) == TRM_OK)
            return TRM_OK;
    }
    c = trm_calloc(1, sizeof(*c));
    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "cuDNN's candidates");
    TRM_TRY(st,
            trmi_cuda_dnn_candidates(&p->desc, g, s->device, TRMI_DNN_CANDIDATES_MAX, BUILD_MS, c),
            done);
    if (c->count > 1)
        TRM_TRY(st, measure(cuda, p, c, &best), done);
    p->chosen = c->list[best];
    c->list[best].plan = NULL;
    if (key[0] != 0 && p->chosen.engine[0] != 0)
        trmi_cuda_plan_cache_put(s->cache, key, p->chosen.engine, strlen(p->chosen.engine));
done:
    trmi_cuda_dnn_candidates_fini(c);
    trm_free(c);
    return st;
}

trm_status trmi_cuda_dnn_plan(trm_cuda *cuda, const trmi_dnn_desc *desc, trmi_dnn_plan **plan_out)
{
    dnn_state *s;
    trmi_dnn_graph *g = NULL;
    trmi_dnn_plan *p;
    trm_status st;

    if (cuda->dnn == NULL)
        TRM_CHECK(dnn_init(cuda));
    s = cuda->dnn;
    for (p = s->plans; p != NULL; p = p->next) {
        /* zeroed before they are filled: padding counts as equal */
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c) */
        if (memcmp(&p->desc, desc, sizeof(*desc)) != 0)
            continue;
        if (p->chosen.plan == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "cuDNN has no engine for this convolution");
        *plan_out = p;
        return TRM_OK;
    }
    p = trm_calloc(1, sizeof(*p));
    g = trm_calloc(1, sizeof(*g));
    if (p == NULL || g == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "cuDNN's plan");
        goto done;
    }
    p->desc = *desc;
    TRM_TRY(st, trmi_cuda_dnn_graph_init(desc, g), done);
    pointers_init(p, g);
    st = choose(cuda, p, g);
done:
    if (g != NULL)
        trmi_cuda_dnn_graph_fini(g);
    trm_free(g);
    if (st != TRM_OK && st != TRM_ERR_UNSUPPORTED) {
        if (p != NULL)
            plan_free(p);
        return st;
    }
    p->next = s->plans;
    s->plans = p;
    *plan_out = p;
    return st;
}
