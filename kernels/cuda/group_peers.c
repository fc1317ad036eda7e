/* Memory that the ranks of a host map from each other, for sums in one step.
 *
 * TRM_GROUP_TIMEOUT_MS: how long a sum waits on the device for a rank that does not come (30000;
 * scaled by TRM_DEADLINE_SCALE). */
#include "base/log.h"
#include "base/wait.h"
#include "kernels/cuda/group_impl.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SUM_TIMEOUT_MS 30000
#define LEAVE_TIMEOUT_MS 1000

_Static_assert(sizeof(trmi_group_card) <= TRM_DEVICE_GROUP_PEER_BYTES, "a rank's card");

static int64_t sum_timeout_ms(void)
{
    const char *text = getenv("TRM_GROUP_TIMEOUT_MS");
    long ms = text == NULL ? 0 : strtol(text, NULL, 10);

    return trm_scaled_ms(ms > 0 && ms <= 3600000 ? ms : SUM_TIMEOUT_MS);
}

static trm_status make_words(trmi_group_peers *p)
{
    void *host = NULL, *device = NULL;

    TRM_CHECK(TRMI_CUDA(cudaHostAlloc(&host, sizeof(*p->words), cudaHostAllocMapped)));
    p->words = host;
    memset(host, 0, sizeof(*p->words));
    TRM_CHECK(TRMI_CUDA(cudaHostGetDevicePointer(&device, host, 0)));
    p->sum.words = device;
    return TRM_OK;
}

static trm_status make_memory(trm_cuda *cuda, trmi_group_peers *p, trmi_group_card *card)
{
    void *memory = NULL;
    cudaError_t e;

    TRM_CHECK(TRMI_CUDA(cudaMalloc(&memory, sizeof(trmi_group_memory))));
    p->sum.memory[p->sum.rank] = memory;
    TRM_CHECK(TRMI_CUDA(cudaMemsetAsync(memory, 0, sizeof(trmi_group_memory), cuda->stream)));
    TRM_CHECK(TRMI_CUDA(cudaStreamSynchronize(cuda->stream))); /* before anybody maps it */
    TRM_CHECK(
        TRMI_CUDA(cudaDeviceGetPCIBusId(card->device, (int)sizeof(card->device), cuda->ordinal)));
    e = cudaIpcGetMemHandle(&card->handle, memory);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        return trm_fail(TRM_ERR_UNSUPPORTED, "device memory cannot be shared: %s",
                        cudaGetErrorString(e));
    }
    return TRM_OK;
}

trm_status trmi_cuda_peers_own(trm_cuda *cuda, int rank, int size, trmi_group_peers **peers_out,
                               trmi_group_card *card)
{
    trmi_group_peers *p;
    trm_status st;

    memset(card, 0, sizeof(*card));
    if (size > TRMI_GROUP_PEERS)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%d ranks: sums in one step are for at most %d", size,
                        TRMI_GROUP_PEERS);
    p = trm_calloc(1, sizeof(*p));
    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "device group");
    p->sum.rank = rank;
    p->sum.size = size;
    p->sum.limit_ns = (uint64_t)sum_timeout_ms() * 1000000;
    TRM_TRY(st, make_words(p), fail);
    TRM_TRY(st, make_memory(cuda, p, card), fail);
    *peers_out = p;
    return TRM_OK;
fail:
    trmi_cuda_peers_destroy(p, false);
    return st;
}

/* Two devices that this process sees must have access to each other; of a device that it does not
 * see, the mapping itself tells. */
static trm_status check_access(const trm_cuda *cuda, const char *device)
{
    int peer = -1, can = 0;

    if (cudaDeviceGetByPCIBusId(&peer, device) != cudaSuccess) {
        (void)cudaGetLastError();
        return TRM_OK;
    }
    if (peer == cuda->ordinal)
        return TRM_OK;
    TRM_CHECK(TRMI_CUDA(cudaDeviceCanAccessPeer(&can, cuda->ordinal, peer)));
    if (!can)
        return trm_fail(TRM_ERR_UNSUPPORTED, "cuda:%d has no access to the memory of cuda:%d",
                        cuda->ordinal, peer);
    return TRM_OK;
}

trm_status trmi_cuda_peers_meet(trm_cuda *cuda, trmi_group_peers *p, const trmi_group_card *all)
{
    for (int r = 0; r < p->sum.size; r++) {
        void *memory = NULL;
        cudaError_t e;

        if (r == p->sum.rank)
            continue;
        TRM_CHECK(check_access(cuda, all[r].device));
        e = cudaIpcOpenMemHandle(&memory, all[r].handle, cudaIpcMemLazyEnablePeerAccess);
        if (e != cudaSuccess) {
            (void)cudaGetLastError();
            return trm_fail(TRM_ERR_UNSUPPORTED, "rank %d's device memory cannot be mapped: %s", r,
                            cudaGetErrorString(e));
        }
        p->sum.memory[r] = memory;
    }
    p->met = true;
    TRM_LOG(TRM_LOG_INFO, "group", "sums up to %zu KiB are made in one step in peers' memory",
            TRMI_GROUP_SUM_BYTES / 1024);
    return TRM_OK;
}

trm_status trmi_cuda_peers_check(const trmi_group_peers *p)
{
    uint32_t late = p == NULL ? 0 : __atomic_load_n(&p->words->late, __ATOMIC_ACQUIRE);

    if (late == 0)
        return TRM_OK;
    return trm_fail(TRM_ERR_COMM, "rank %d has not come to a sum within %d ms", (int)late - 1,
                    (int)(p->sum.limit_ns / 1000000));
}

/* Whether all peers have read what this rank has put into its slots. */
static bool all_done(const trmi_group_memory *m, int rank, int size)
{
    for (int r = 0; r < size; r++)
        for (int b = 0; r != rank && b < TRMI_GROUP_BLOCKS; b++)
            if (m->done[r][b] != m->count[b])
                return false;
    return true;
}

static void await_readers(const trmi_group_peers *p)
{
    const struct timespec nap = {.tv_nsec = 200000};
    int64_t deadline = trm_deadline_us(LEAVE_TIMEOUT_MS);
    size_t bytes = offsetof(trmi_group_memory, slot);
    trmi_group_memory *m = trm_calloc(1, bytes); /* without slots */

    while (m != NULL && trm_now_us() < deadline) {
        if (cudaMemcpy(m, p->sum.memory[p->sum.rank], bytes, cudaMemcpyDeviceToHost) !=
                cudaSuccess ||
            all_done(m, p->sum.rank, p->sum.size))
            break;
        nanosleep(&nap, NULL);
    }
    trm_free(m);
}

void trmi_cuda_peers_stop(trmi_group_peers *p)
{
    if (p != NULL && p->words != NULL)
        __atomic_store_n(&p->words->stop, 1, __ATOMIC_RELEASE);
}

void trmi_cuda_peers_destroy(trmi_group_peers *p, bool well)
{
    if (p == NULL)
        return;
    if (!well)
        trmi_cuda_peers_stop(p);
    (void)cudaDeviceSynchronize(); /* no kernel of ours waits any more */
    if (p->met && well)
        await_readers(p);
    for (int r = 0; r < p->sum.size; r++)
        if (p->sum.memory[r] != NULL && r != p->sum.rank)
            (void)cudaIpcCloseMemHandle(p->sum.memory[r]);
    (void)cudaFree(p->sum.memory[p->sum.rank]);
    (void)cudaFreeHost(p->words);
    trm_free(p);
}
