/* Inside the CUDA backend's device group: NCCL's calls, taken from its library when a group is
 * first wanted, and the group object.
 *
 * Built without nccl.h, every group is refused as if the library were missing. */
#ifndef TRM_KERNELS_CUDA_GROUP_IMPL_H
#define TRM_KERNELS_CUDA_GROUP_IMPL_H

#include "kernels/cuda/group.h"
#include "kernels/cuda/group_sum.h"

#include <pthread.h>

#if __has_include(<nccl.h>)
#define TRMI_HAVE_NCCL 1
#include <nccl.h>
#else
#define TRMI_HAVE_NCCL 0
#endif

/* Device memory for sums of 16-bit floats and by the tree. */
#define TRMI_GROUP_BUFFER ((size_t)8 << 20)
/* Of all ranks together: a sum from everybody's whole. */
#define TRMI_GROUP_WHOLE ((size_t)1 << 20)

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_group_peers trmi_group_peers;

/* Memory that peers read (group_peers.c); NULL: peers have not met. */
struct trmi_group_peers {
    trmi_group_sum sum;
    trmi_group_words *words; /* pinned host memory; sum.words is the same for the device */
    bool met;
};

/* What a rank tells the others about its memory. */
typedef struct trmi_group_card {
    cudaIpcMemHandle_t handle;
    char device[64];
} trmi_group_card;

TRM_MUST_USE trm_status trmi_cuda_peers_own(trm_cuda *cuda, int rank, int size,
                                            trmi_group_peers **peers_out, trmi_group_card *card);
TRM_MUST_USE trm_status trmi_cuda_peers_meet(trm_cuda *cuda, trmi_group_peers *peers,
                                             const trmi_group_card *all);
/* COMM: a peer did not come to a sum. */
TRM_MUST_USE trm_status trmi_cuda_peers_check(const trmi_group_peers *peers);
/* Kernels that wait for peers give up. Takes NULL. */
void trmi_cuda_peers_stop(trmi_group_peers *peers);
/* well: nothing has failed: peers that still read from this rank are waited for, a moment. Takes
 * NULL. */
void trmi_cuda_peers_destroy(trmi_group_peers *peers, bool well);

#if TRMI_HAVE_NCCL

/* clang-format off */
#define TRMI_NCCL_CALLS(X)                                                                         \
    X(GetVersion) X(GetUniqueId) X(CommInitRankConfig) X(CommFinalize) X(CommDestroy)              \
    X(CommAbort) X(CommGetAsyncError) X(GetErrorString) X(GetLastError) X(AllReduce)               \
    X(AllGather) X(ReduceScatter) X(Reduce) X(Send) X(Recv) X(GroupStart) X(GroupEnd)
/* clang-format on */

typedef struct trmi_nccl {
#define TRMI_NCCL_MEMBER(name) __typeof__(&nccl##name) name;
    TRMI_NCCL_CALLS(TRMI_NCCL_MEMBER)
#undef TRMI_NCCL_MEMBER
    int version; /* 22809 is 2.28.9 */
} trmi_nccl;

struct trmi_group {
    trm_device_group base;
    trm_cuda *cuda;
    const trmi_nccl *nccl;
    ncclComm_t comm;
    unsigned char *buffer; /* TRMI_GROUP_BUFFER bytes of device memory, for one collective at a
                              time: all go to one stream, or to streams that wait for each other */
    trmi_group_peers *peers;
    bool ready, broken;
    pthread_t aborter; /* ncclCommAbort on a thread of its own: it waits for captured graphs, which
                          are destroyed meanwhile */
    bool aborting;
    char why[400]; /* it is broken */
};

/* UNSUPPORTED: the library is missing, or too old: the message says which. Any thread. */
TRM_MUST_USE trm_status trmi_cuda_nccl(const trmi_nccl **nccl_out);
/* What a call has returned; one that is in progress is polled for, not for ever. Any failure breaks
 * the group. */
TRM_MUST_USE trm_status trmi_cuda_nccl_settle(struct trmi_group *g, ncclResult_t r,
                                              const char *what);
/* The group is broken by r, or has been: COMM. */
TRM_MUST_USE trm_status trmi_cuda_nccl_broken(struct trmi_group *g, ncclResult_t r,
                                              const char *what);

/* ---- collectives (group_calls.c) ---- */
trm_status trmi_cuda_group_allreduce(trm_device_group *g, trm_stream *s, const void *in, void *out,
                                     size_t elems, trm_dtype dtype);
trm_status trmi_cuda_group_allgather(trm_device_group *g, trm_stream *s, const void *in, void *out,
                                     const size_t *bytes);
trm_status trmi_cuda_group_reduce_scatter(trm_device_group *g, trm_stream *s, const void *in,
                                          void *out, const size_t *elems, trm_dtype dtype);
trm_status trmi_cuda_group_alltoall(trm_device_group *g, trm_stream *s, const void *in,
                                    const size_t *send, void *out, const size_t *receive);
trm_status trmi_cuda_group_reduce_tree(trm_device_group *g, trm_stream *s, const void *in,
                                       void *out, size_t elems, int leaves,
                                       const int *counts); /* group_tree.c */
size_t trmi_cuda_group_reduce_tree_norm_rows(const trm_device_group *g, size_t width, int leaves,
                                             const int *counts); /* group_tree_norm.c */
trm_status trmi_cuda_group_reduce_tree_norm(trm_device_group *g, trm_stream *s, const void *in,
                                            size_t rows, int leaves, const int *counts,
                                            const trm_group_norm *norm);
#endif

#ifdef __cplusplus
}
#endif
#endif
