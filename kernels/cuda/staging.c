/* Host bytes to the device through two pinned buffers: while one is on its way, the other is
 * filled, so that reading a weight from its file and copying it overlap and host memory stays
 * bounded. */
#include "kernels/cuda/cuda.h"

#include <string.h>

#define STAGE_BYTES ((size_t)8 << 20) /* two of them; PCIe is saturated from about 4 MiB on */
#define SMALL_BYTES 65536

struct trmi_staging {
    cudaStream_t stream;
    void *buffer[2];
    cudaEvent_t done[2];
    int next;
};

void trmi_cuda_staging_fini(trm_cuda *cuda)
{
    struct trmi_staging *s = cuda->stage;

    if (s == NULL)
        return;
    for (int i = 0; i < 2; i++) {
        if (s->done[i] != NULL)
            (void)cudaEventDestroy(s->done[i]);
        if (s->buffer[i] != NULL)
            (void)cudaFreeHost(s->buffer[i]);
    }
    if (s->stream != NULL)
        (void)cudaStreamDestroy(s->stream);
    trm_free(s);
    cuda->stage = NULL;
}

static trm_status staging_init(trm_cuda *cuda)
{
    struct trmi_staging *s = trm_calloc(1, sizeof(*s));
    trm_status st = TRM_OK;

    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "staging");
    cuda->stage = s;
    TRM_TRY(st, TRMI_CUDA(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking)), fail);
    for (int i = 0; i < 2; i++) {
        TRM_TRY(st, TRMI_CUDA(cudaMallocHost(&s->buffer[i], STAGE_BYTES)), fail);
        TRM_TRY(st, TRMI_CUDA(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming)), fail);
    }
    return TRM_OK;
fail:
    trmi_cuda_staging_fini(cuda);
    return st;
}

trm_status trmi_cuda_upload(trm_cuda *cuda, void *device_to, const void *host_from, size_t bytes)
{
    struct trmi_staging *s;
    size_t at = 0;

    if (bytes == 0)
        return TRM_OK;
    if (cuda->stage == NULL)
        TRM_CHECK(staging_init(cuda));
    s = cuda->stage;
    if (bytes <= SMALL_BYTES) { /* pageable memory of this size is copied before the call returns */
        TRM_CHECK(TRMI_CUDA(
            cudaMemcpyAsync(device_to, host_from, bytes, cudaMemcpyHostToDevice, s->stream)));
        return TRMI_CUDA(cudaStreamSynchronize(s->stream));
    }
    while (at < bytes) {
        int i = s->next;
        size_t n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;

        s->next = 1 - i;
        TRM_CHECK(TRMI_CUDA(cudaEventSynchronize(s->done[i])));
        memcpy(s->buffer[i], (const unsigned char *)host_from + at, n);
        TRM_CHECK(TRMI_CUDA(cudaMemcpyAsync((unsigned char *)device_to + at, s->buffer[i], n,
                                            cudaMemcpyHostToDevice, s->stream)));
        TRM_CHECK(TRMI_CUDA(cudaEventRecord(s->done[i], s->stream)));
        at += n;
    }
    return TRMI_CUDA(cudaStreamSynchronize(s->stream));
}
