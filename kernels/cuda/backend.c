/* The CUDA device: memory, streams, events, captured graphs, and the dispatch to kernels. Where the
 * module begins: trm_cuda_module_get. */
#include "base/log.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/group.h"
#include "kernels/cuda/lm_linear.h"
#include "kernels/cuda/lm_step.h"
#include "kernels/cuda/notes.h"
#include "kernels/cuda_module.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <string.h>

struct trm_event {
    cudaEvent_t event;
};

struct trm_capture {
    cudaGraphExec_t exec;
};

bool trmi_gpu_overlaps; /* gpu.cuh: one device a process */

static cudaStream_t stream_of(const trm_device *d, const trm_stream *s)
{
    return s != NULL ? s->stream : ((const trm_cuda *)d)->stream;
}

static void cuda_info(trm_device *d, trm_device_info *info)
{
    const trm_cuda *cuda = (const trm_cuda *)d;

    memset(info, 0, sizeof(*info));
    snprintf(info->name, sizeof(info->name), "%s (cuda:%d, sm_%d)", cuda->name, cuda->ordinal,
             cuda->capability);
    info->memory_bytes = cuda->memory_bytes;
    info->threads = 1;
    if (cudaDeviceGetPCIBusId(info->identity, (int)sizeof(info->identity), cuda->ordinal) !=
        cudaSuccess)
        info->identity[0] = '\0';
    info->bf16_fast = cuda->capability >= 80;
}

static bool cuda_supports(trm_device *d, const trm_op_desc *desc)
{
    (void)d;
    if (trmi_cuda_kernel_of(desc->op) != NULL)
        return true;
    (void)trm_fail(TRM_ERR_UNSUPPORTED, "operator %s has no CUDA kernel",
                   trm_op_get(desc->op)->name);
    return false;
}

static trm_status cuda_prepare(trm_device *d, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trmi_cuda_prepare prepare = trmi_cuda_kernel_of(desc->op);

    if (prepare == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "operator %s has no CUDA kernel",
                        trm_op_get(desc->op)->name);
    return prepare((trm_cuda *)d, desc, kernel_out);
}

/* ---- memory ---- */

static trm_status cuda_alloc(trm_device *d, trm_memory_kind kind, size_t bytes, void **memory_out)
{
    size_t free_bytes = 0, all_bytes = 0;
    void *p = NULL;
    cudaError_t e;

    (void)d;
    if (bytes == 0)
        bytes = 1;
    if (kind == TRM_MEMORY_PINNED) {
        e = cudaMallocHost(&p, bytes);
        if (e == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes of pinned host memory", bytes);
        }
    } else {
        e = cudaMalloc(&p, bytes);
        if (e == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            (void)cudaMemGetInfo(&free_bytes, &all_bytes);
            return trm_fail(TRM_ERR_NO_MEMORY,
                            "%.1f MB of device memory: %.1f MB of %.1f MB are free",
                            (double)bytes / 1e6, (double)free_bytes / 1e6, (double)all_bytes / 1e6);
        }
    }
    TRM_CHECK(trmi_cuda_check(e, "allocation"));
    *memory_out = p;
    return TRM_OK;
}

static trm_status cuda_memory_free(trm_device *d, size_t *bytes_out)
{
    size_t all_bytes;

    (void)d;
    return TRMI_CUDA(cudaMemGetInfo(bytes_out, &all_bytes));
}

static void cuda_free(trm_device *d, trm_memory_kind kind, void *memory)
{
    cudaError_t e;

    (void)d;
    if (memory == NULL)
        return;
    e = kind == TRM_MEMORY_PINNED ? cudaFreeHost(memory) : cudaFree(memory);
    if (e != cudaSuccess) { /* of a lost device, again and again: it has been told */
        TRM_LOG(TRM_LOG_DEBUG, "cuda", "free: %s", cudaGetErrorString(e));
        (void)cudaGetLastError();
    }
}

static trm_status cuda_copy_in(trm_device *d, trm_stream *s, void *to, const void *from,
                               size_t bytes)
{
    if (bytes == 0)
        return TRM_OK;
    return trmi_cuda_check(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_of(d, s)), "copy in");
}

static trm_status cuda_copy_out(trm_device *d, trm_stream *s, void *to, const void *from,
                                size_t bytes)
{
    if (bytes == 0)
        return TRM_OK;
    return trmi_cuda_check(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_of(d, s)), "copy out");
}

static trm_status cuda_fill_zero(trm_device *d, trm_stream *s, void *to, size_t bytes)
{
    if (bytes == 0)
        return TRM_OK;
    return trmi_cuda_check(cudaMemsetAsync(to, 0, bytes, stream_of(d, s)), "fill");
}

static trm_status cuda_upload(trm_device *d, void *to, const void *from, size_t bytes)
{
    return trmi_cuda_upload((trm_cuda *)d, to, from, bytes);
}

static trm_status cuda_copy_within(trm_device *d, trm_stream *s, void *to, const void *from,
                                   size_t bytes)
{
    if (bytes == 0 || to == from)
        return TRM_OK;
    return trmi_cuda_check(
        cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(d, s)), "copy");
}

/* ---- streams and events ---- */

static trm_status cuda_stream_create(trm_device *d, trm_stream **stream_out)
{
    trm_stream *s = trm_calloc(1, sizeof(*s));
    trm_status st;

    (void)d;
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "stream");
    st = TRMI_CUDA(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    if (st != TRM_OK) {
        trm_free(s);
        return st;
    }
    *stream_out = s;
    return TRM_OK;
}

static void cuda_stream_destroy(trm_device *d, trm_stream *s)
{
    (void)d;
    if (s == NULL)
        return;
    (void)cudaStreamDestroy(s->stream);
    trm_free(s);
}

static trm_status cuda_stream_wait(trm_device *d, trm_stream *s)
{
    return trmi_cuda_check(cudaStreamSynchronize(stream_of(d, s)), "a step");
}

static trm_status cuda_event_create(trm_device *d, trm_event **event_out)
{
    trm_event *e = trm_calloc(1, sizeof(*e));
    trm_status st;

    (void)d;
    if (e == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "event");
    st = TRMI_CUDA(cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming));
    if (st != TRM_OK) {
        trm_free(e);
        return st;
    }
    *event_out = e;
    return TRM_OK;
}

static void cuda_event_destroy(trm_device *d, trm_event *e)
{
    (void)d;
    if (e == NULL)
        return;
    (void)cudaEventDestroy(e->event);
    trm_free(e);
}

static trm_status cuda_event_record(trm_device *d, trm_event *e, trm_stream *s)
{
    return trmi_cuda_check(cudaEventRecord(e->event, stream_of(d, s)), "event");
}

static trm_status cuda_event_wait(trm_device *d, trm_event *e, trm_stream *s)
{
    return trmi_cuda_check(cudaStreamWaitEvent(stream_of(d, s), e->event, 0), "event wait");
}

static trm_status cuda_event_done(trm_device *d, trm_event *e, bool *done_out)
{
    cudaError_t error = cudaEventQuery(e->event);

    (void)d;
    *done_out = error == cudaSuccess;
    if (error == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* the runtime keeps it, and the next launch would find it */
        return TRM_OK;
    }
    return trmi_cuda_check(error, "a step");
}

/* ---- captured graphs ---- */

static trm_status cuda_capture_begin(trm_device *d, trm_stream *s)
{
    /* thread local: other threads of the process may allocate meanwhile */
    return trmi_cuda_check(
        cudaStreamBeginCapture(stream_of(d, s), cudaStreamCaptureModeThreadLocal), "capture");
}

static trm_status cuda_capture_end(trm_device *d, trm_stream *s, trm_capture **capture_out)
{
    trm_capture *c = NULL;
    cudaGraph_t graph = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_check(cudaStreamEndCapture(stream_of(d, s), &graph), "end of a capture"));
    c = trm_calloc(1, sizeof(*c));
    if (c == NULL) {
        (void)cudaGraphDestroy(graph);
        return trm_fail(TRM_ERR_NO_MEMORY, "capture");
    }
    st = TRMI_CUDA(cudaGraphInstantiate(&c->exec, graph, 0));
    (void)cudaGraphDestroy(graph);
    if (st != TRM_OK) {
        trm_free(c);
        return st;
    }
    *capture_out = c;
    return TRM_OK;
}

static trm_status cuda_capture_launch(trm_device *d, trm_capture *c, trm_stream *s)
{
    return trmi_cuda_check(cudaGraphLaunch(c->exec, stream_of(d, s)), "graph launch");
}

static void cuda_capture_destroy(trm_device *d, trm_capture *c)
{
    (void)d;
    if (c == NULL)
        return;
    (void)cudaGraphExecDestroy(c->exec);
    trm_free(c);
}

/* ---- notes ---- */

static size_t cuda_notes_bytes(trm_device *d)
{
    return trmi_cuda_notes_bytes((trm_cuda *)d);
}

static trm_status cuda_notes_fetch(trm_device *d, trm_stream *s, void *host, size_t bytes)
{
    return trmi_cuda_notes_fetch((trm_cuda *)d, stream_of(d, s), host, bytes);
}

static trm_status cuda_notes_check(trm_device *d, const void *host, size_t bytes)
{
    return trmi_cuda_notes_check((const trm_cuda *)d, host, bytes);
}

/* ---- NVTX: free where no profiler listens ---- */

static void cuda_mark_begin(trm_device *d, const char *name)
{
    (void)d;
    (void)nvtxRangePushA(name);
}

static void cuda_mark_end(trm_device *d)
{
    (void)d;
    (void)nvtxRangePop();
}

/* ---- life ---- */

static void cuda_destroy(trm_device *d)
{
    trm_cuda *cuda = (trm_cuda *)d;

    if (cuda == NULL)
        return;
    TRM_ASSERT(cuda->packs == NULL); /* the kernels that held them are gone */
    trmi_cuda_staging_fini(cuda);
    trmi_cuda_notes_fini(cuda);
    if (cuda->dnn_fini != NULL)
        cuda->dnn_fini(cuda);
    if (cuda->blaslt_fini != NULL)
        cuda->blaslt_fini(cuda);
    if (cuda->stream != NULL)
        (void)cudaStreamDestroy(cuda->stream);
    trm_free(cuda);
}

static const trm_device_ops cuda_ops = {
    .name = "cuda",
    .info = cuda_info,
    .supports = cuda_supports,
    .prepare = cuda_prepare,
    .prepare_reorder = trmi_cuda_prepare_reorder,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .copy_in = cuda_copy_in,
    .copy_out = cuda_copy_out,
    .fill_zero = cuda_fill_zero,
    .group = &trmi_cuda_group_ops,
    .prepare_blocks = trmi_cuda_prepare_blocks,
    .upload = cuda_upload,
    .copy_within = cuda_copy_within,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_wait = cuda_stream_wait,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .event_done = cuda_event_done,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .capture_launch = cuda_capture_launch,
    .capture_destroy = cuda_capture_destroy,
    .notes_bytes = cuda_notes_bytes,
    .notes_fetch = cuda_notes_fetch,
    .notes_check = cuda_notes_check,
    .mark_begin = cuda_mark_begin,
    .step_encode = trmi_cuda_step_encode,
    .step_send = trmi_cuda_step_send,
    .step_input_at = trmi_cuda_step_input_at,
    .memory_free = cuda_memory_free,
    .mark_end = cuda_mark_end,
    .destroy = cuda_destroy,
};

static trm_status describe(trm_cuda *cuda)
{
    static const struct {
        enum cudaDeviceAttr attribute;
        size_t at;
    } rows[] = {
        {cudaDevAttrMultiProcessorCount, offsetof(trm_cuda, multiprocessors)},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, offsetof(trm_cuda, shared_bytes_max)},
    };
    struct cudaDeviceProp *p = trm_calloc(1, sizeof(*p));
    trm_status st = TRM_OK;

    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "device properties");
    TRM_TRY(st, TRMI_CUDA(cudaGetDeviceProperties(p, cuda->ordinal)), done);
    snprintf(cuda->name, sizeof(cuda->name), "%.90s", p->name);
    cuda->capability = p->major * 10 + p->minor;
    cuda->memory_bytes = p->totalGlobalMem;
    cuda->l2_bytes = (size_t)p->l2CacheSize;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        TRM_TRY(st,
                TRMI_CUDA(cudaDeviceGetAttribute((int *)(void *)((char *)cuda + rows[i].at),
                                                 rows[i].attribute, cuda->ordinal)),
                done);
    if (cuda->capability < 80)
        st = trm_fail(TRM_ERR_UNSUPPORTED,
                      "cuda:%d (%s) has compute capability %d.%d: the backend needs 8.0 or newer",
                      cuda->ordinal, cuda->name, p->major, p->minor);
done:
    trm_free(p);
    return st;
}

static trm_status create(const trm_cuda_options *options, trm_device *host, trm_device **device_out)
{
    trm_cuda *cuda = trm_calloc(1, sizeof(*cuda));
    trm_status st;

    if (cuda == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "cuda device");
    cuda->base.ops = &cuda_ops;
    cuda->base.host = host;
    cuda->base.rounding = trmi_lmc_rounding;
    cuda->ordinal = options->device;
    TRM_TRY(st, TRMI_CUDA(cudaSetDevice(cuda->ordinal)), fail);
    TRM_TRY(st, describe(cuda), fail);
    TRM_TRY(st, TRMI_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking)), fail);
    trmi_gpu_overlaps = cuda->capability >= 90 && trmi_cuda_overlap_compiled();
    *device_out = &cuda->base;
    return TRM_OK;
fail:
    cuda_destroy(&cuda->base);
    return st;
}

static void versions(char *text, size_t bytes)
{
    int runtime = 0;

    (void)cudaRuntimeGetVersion(&runtime);
    snprintf(text, bytes, "CUDA runtime %d.%d", runtime / 1000, runtime % 1000 / 10);
}

__attribute__((visibility("default"))) const trm_cuda_module *trm_cuda_module_get(void);
const trm_cuda_module *trm_cuda_module_get(void)
{
    static const trm_cuda_module module = {.abi = TRM_CUDA_MODULE_ABI,
                                           .device_bytes = sizeof(trm_device),
                                           .ops_bytes = sizeof(trm_device_ops),
                                           .kernel_bytes = sizeof(trm_kernel),
                                           .op_count = TRM_OP_COUNT,
                                           .create = create,
                                           .versions = versions};

    return &module;
}
