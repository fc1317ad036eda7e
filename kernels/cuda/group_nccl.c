/* Life of a device group: a communicator of NCCL that never blocks. Whatever NCCL reports breaks
 * the group for good; then it is aborted, which waits for nobody. */
#include "base/log.h"
#include "base/wait.h"
#include "kernels/cuda/group_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#if TRMI_HAVE_NCCL

#define CALL_TIMEOUT_MS 60000
#define FINISH_TIMEOUT_MS 2000
#define NAP_NS 20000

static struct trmi_group *self(trm_device_group *g)
{
    return (struct trmi_group *)g;
}

trm_status trmi_cuda_nccl_broken(struct trmi_group *g, ncclResult_t r, const char *what)
{
    if (!g->broken) {
        const char *last = g->nccl->GetLastError(g->comm);

        g->broken = true;
        snprintf(g->why, sizeof(g->why), "NCCL: %s: %s%s%.200s%s", what, g->nccl->GetErrorString(r),
                 last == NULL || last[0] == '\0' ? "" : " (", last == NULL ? "" : last,
                 last == NULL || last[0] == '\0' ? "" : ")");
    }
    return trm_fail(TRM_ERR_COMM, "%s", g->why);
}

trm_status trmi_cuda_nccl_settle(struct trmi_group *g, ncclResult_t r, const char *what)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    int64_t deadline;

    if (g->broken)
        return trm_fail(TRM_ERR_COMM, "%s", g->why);
    if (r == ncclSuccess)
        return TRM_OK;
    deadline = trm_deadline_us(CALL_TIMEOUT_MS);
    while (r == ncclInProgress) {
        ncclResult_t asked = g->nccl->CommGetAsyncError(g->comm, &r);

        if (asked != ncclSuccess)
            r = asked;
        if (r == ncclInProgress && trm_now_us() > deadline)
            return trmi_cuda_nccl_broken(g, ncclInProgress, what);
        if (r == ncclInProgress)
            nanosleep(&nap, NULL);
    }
    return r == ncclSuccess ? TRM_OK : trmi_cuda_nccl_broken(g, r, what);
}

static trm_status make_id(trm_device *d, void *id_out)
{
    const trmi_nccl *nccl;
    ncclUniqueId id;
    ncclResult_t r;

    (void)d;
    TRM_CHECK(trmi_cuda_nccl(&nccl));
    r = nccl->GetUniqueId(&id);
    if (r != ncclSuccess)
        return trm_fail(TRM_ERR_COMM, "NCCL: an id: %s", nccl->GetErrorString(r));
    memcpy(id_out, &id, sizeof(id));
    return TRM_OK;
}

/* Ends the communicator: in good order if nothing has failed, and not for long. */
static void end_communicator(struct trmi_group *g)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    int64_t deadline = trm_deadline_us(FINISH_TIMEOUT_MS);
    ncclResult_t r = ncclInProgress;

    if (g->aborting) {
        (void)pthread_join(g->aborter, NULL);
        g->comm = NULL;
    }
    if (g->comm == NULL)
        return;
    if (g->ready && !g->broken) {
        r = g->nccl->CommFinalize(g->comm);
        while (r == ncclInProgress && trm_now_us() < deadline) {
            nanosleep(&nap, NULL);
            if (g->nccl->CommGetAsyncError(g->comm, &r) != ncclSuccess)
                r = ncclInternalError;
        }
    }
    if (r == ncclSuccess)
        (void)g->nccl->CommDestroy(g->comm);
    else
        (void)g->nccl->CommAbort(g->comm);
    g->comm = NULL;
}

static void *abort_communicator(void *ctx)
{
    struct trmi_group *g = ctx;

    (void)g->nccl->CommAbort(g->comm);
    return NULL;
}

static void abandon(trm_device_group *base)
{
    struct trmi_group *g = self(base);

    g->broken = true;
    trmi_cuda_peers_stop(g->peers);
    if (g->comm != NULL && !g->aborting)
        g->aborting = pthread_create(&g->aborter, NULL, abort_communicator, g) == 0;
}

static void destroy(trm_device_group *base)
{
    struct trmi_group *g = self(base);
    bool well;

    if (g == NULL)
        return;
    well = g->ready && !g->broken && trmi_cuda_peers_check(g->peers) == TRM_OK;
    if (!well)
        g->broken = true;
    end_communicator(g);
    trmi_cuda_peers_destroy(g->peers, well);
    (void)cudaFree(g->buffer);
    trm_free(g);
}

static trm_status begin(trm_device *d, const void *id, int rank, int size,
                        trm_device_group **group_out)
{
    trm_cuda *cuda = (trm_cuda *)d;
    struct trmi_group *g = trm_calloc(1, sizeof(*g));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId nccl_id;
    void *buffer = NULL;
    ncclResult_t r;
    trm_status st;

    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "device group");
    g->base = (trm_device_group){.ops = &trmi_cuda_group_ops, .rank = rank, .size = size};
    g->cuda = cuda;
    TRM_TRY(st, trmi_cuda_nccl(&g->nccl), fail);
    TRM_TRY(st, TRMI_CUDA(cudaSetDevice(cuda->ordinal)), fail);
    TRM_TRY(st, TRMI_CUDA(cudaMalloc(&buffer, TRMI_GROUP_BUFFER)), fail);
    g->buffer = buffer;
    memcpy(&nccl_id, id, sizeof(nccl_id));
    config.blocking = 0;
    r = g->nccl->CommInitRankConfig(&g->comm, size, nccl_id, rank, &config);
    if (r != ncclSuccess && r != ncclInProgress) {
        st = trmi_cuda_nccl_broken(g, r, "a communicator");
        goto fail;
    }
    *group_out = &g->base;
    return TRM_OK;
fail:
    destroy(&g->base);
    return st;
}

static trm_status poll_group(trm_device_group *base, bool *ready_out)
{
    struct trmi_group *g = self(base);
    ncclResult_t state = ncclSuccess, r;

    *ready_out = false;
    if (g->broken)
        return trm_fail(TRM_ERR_COMM, "%s", g->why);
    r = g->nccl->CommGetAsyncError(g->comm, &state);
    if (r != ncclSuccess)
        return trmi_cuda_nccl_broken(g, r, "asking for errors");
    if (state == ncclInProgress) {
        *ready_out = g->ready; /* of a call that is on its way */
        return TRM_OK;
    }
    if (state != ncclSuccess)
        return trmi_cuda_nccl_broken(g, state, g->ready ? "a collective" : "starting");
    TRM_CHECK(trmi_cuda_peers_check(g->peers));
    if (!g->ready)
        TRM_LOG(TRM_LOG_INFO, "group", "NCCL %d.%d.%d: rank %d of %d, cuda:%d",
                g->nccl->version / 10000, g->nccl->version / 100 % 100, g->nccl->version % 100,
                base->rank, base->size, g->cuda->ordinal);
    *ready_out = g->ready = true;
    return TRM_OK;
}

static trm_status peer_own(trm_device_group *base, void *own_out)
{
    struct trmi_group *g = self(base);

    return trmi_cuda_peers_own(g->cuda, base->rank, base->size, &g->peers, own_out);
}

static trm_status peer_all(trm_device_group *base, const void *all)
{
    struct trmi_group *g = self(base);

    if (all != NULL)
        return trmi_cuda_peers_meet(g->cuda, g->peers, all);
    trmi_cuda_peers_destroy(g->peers, false);
    g->peers = NULL;
    return TRM_OK;
}

const trm_device_group_ops trmi_cuda_group_ops = {
    .name = "nccl",
    .id_bytes = NCCL_UNIQUE_ID_BYTES,
    .peer_bytes = sizeof(trmi_group_card),
    .make_id = make_id,
    .begin = begin,
    .poll = poll_group,
    .peer_own = peer_own,
    .peer_all = peer_all,
    .allreduce = trmi_cuda_group_allreduce,
    .allgather = trmi_cuda_group_allgather,
    .reduce_scatter = trmi_cuda_group_reduce_scatter,
    .alltoall = trmi_cuda_group_alltoall,
    .reduce_tree = trmi_cuda_group_reduce_tree,
    .reduce_tree_norm_rows = trmi_cuda_group_reduce_tree_norm_rows,
    .reduce_tree_norm = trmi_cuda_group_reduce_tree_norm,
    .abandon = abandon,
    .destroy = destroy,
};

#else

static trm_status no_id(trm_device *d, void *id_out)
{
    (void)d;
    (void)id_out;
    return trm_fail(TRM_ERR_UNSUPPORTED, "NCCL: the backend was built without nccl.h");
}

static trm_status no_begin(trm_device *d, const void *id, int rank, int size,
                           trm_device_group **group_out)
{
    (void)id;
    (void)rank;
    (void)size;
    (void)group_out;
    return no_id(d, NULL);
}

const trm_device_group_ops trmi_cuda_group_ops = {
    .name = "nccl", .id_bytes = 1, .make_id = no_id, .begin = no_begin};

#endif
