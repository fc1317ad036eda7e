/* Host bytes to the device through a ring of pinned buffers. The team's threads fill one piece
 * together while those before it are on their way, so a copy takes the time of the slower of the
 * two, and host memory stays bounded. One thread copies about 10 GB/s out of a mapped file (page
 * faults included), a generation 5 link takes 50 to 55: it wants six threads and more.
 *
 * Pieces are of a size that the cores' shared cache holds all of: the link then reads what the
 * threads have just written from there, and memory carries the file's bytes once. */
#define _GNU_SOURCE
#include "kernels/cuda/cuda.h"

#include "base/team.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STAGES 4
#define STAGE_BYTES ((size_t)8 << 20) /* PCIe is saturated from about 4 MiB on */
#define SMALL_BYTES 65536
#define GRAIN                                                                                      \
    ((size_t)128 << 10) /* of a thread's part: a region costs as much as copying 64 KiB            \
                         */
#define PROBES 8

struct trmi_staging {
    cudaStream_t stream;
    void *buffer[STAGES];
    cudaEvent_t done[STAGES];
    int next;
};

void trmi_cuda_staging_fini(trm_cuda *cuda)
{
    struct trmi_staging *s = cuda->stage;

    if (s == NULL)
        return;
    for (int i = 0; i < STAGES; i++) {
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
    for (int i = 0; i < STAGES; i++) {
        TRM_TRY(st, TRMI_CUDA(cudaMallocHost(&s->buffer[i], STAGE_BYTES)), fail);
        TRM_TRY(st, TRMI_CUDA(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming)), fail);
    }
    return TRM_OK;
fail:
    trmi_cuda_staging_fini(cuda);
    return st;
}

/* Asks for the whole of a source of which some page is not in memory (a file that is read for the
 * first time), so that the disk works on the later pieces while the first ones are copied. A hint:
 * what it fails to do, page faults do. A few pages are looked at, since asking for what is there
 * costs as much as looking at all of it. */
static void read_ahead(const unsigned char *from, size_t bytes)
{
    long size = sysconf(_SC_PAGESIZE);
    size_t page = size > 0 ? (size_t)size : 4096, before = (size_t)((uintptr_t)from % page);
    const unsigned char *first = from - before;
    size_t pages = (before + bytes + page - 1) / page;

    for (size_t i = 0; i < PROBES; i++) {
        const unsigned char *at = first + (pages - 1) * i / (PROBES - 1) * page;
        unsigned char resident = 1;

        /* system calls that change nothing, and yet take memory without const */
        if (mincore((void *)at, 1, &resident) == 0 && (resident & 1) == 0) {
            (void)madvise((void *)first, pages * page, MADV_WILLNEED);
            return;
        }
    }
}

struct filling {
    unsigned char *to;
    const unsigned char *from;
};

static void fill(void *ctx, size_t begin, size_t end)
{
    const struct filling *f = ctx;

    memcpy(f->to + begin, f->from + begin, end - begin);
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
    read_ahead(host_from, bytes);
    while (at < bytes) {
        int i = s->next;
        size_t n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
        struct filling f = {.to = s->buffer[i], .from = (const unsigned char *)host_from + at};

        s->next = (i + 1) % STAGES;
        TRM_CHECK(TRMI_CUDA(cudaEventSynchronize(s->done[i])));
        trm_team_for(n, GRAIN, fill, &f);
        TRM_CHECK(TRMI_CUDA(cudaMemcpyAsync((unsigned char *)device_to + at, s->buffer[i], n,
                                            cudaMemcpyHostToDevice, s->stream)));
        TRM_CHECK(TRMI_CUDA(cudaEventRecord(s->done[i], s->stream)));
        at += n;
    }
    return TRMI_CUDA(cudaStreamSynchronize(s->stream));
}
