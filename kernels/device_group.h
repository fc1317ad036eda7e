/* Collectives between devices of one kind, each owned by a rank: enqueued on a stream, device
 * memory in and out, nothing staged. A backend that has them fills trm_device_ops.group; NULL there
 * means that ranks exchange data through host memory.
 *
 * Making a group never blocks: rank 0 makes an id, which reaches the others by other means
 * (parallel/device_group), every rank begins, and polls until it is ready. Once it is, `poll` tells
 * of errors that no call has returned (a peer that died, a link that failed). After any failure the
 * group is only good for destroy, which does not wait for peers.
 *
 * Collectives: all ranks, same order, same arguments. Sums: the same bits on every rank. Threads:
 * one owner, the device's. */
#ifndef TRM_KERNELS_DEVICE_GROUP_H
#define TRM_KERNELS_DEVICE_GROUP_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_device_group trm_device_group;

#define TRM_DEVICE_GROUP_RANKS_MAX 64
#define TRM_DEVICE_GROUP_ID_BYTES 256   /* at most */
#define TRM_DEVICE_GROUP_PEER_BYTES 512 /* what a rank tells the others about its memory */

/* What follows a sum of rows in the same step: TrmReduceTree's second form (kernels/language.h).
 * All F32: residual, sum, normed [rows, width], weight, bias [width]; bias may be NULL, sum too, or
 * be the residual. */
typedef struct trm_group_norm {
    size_t width;
    bool layer;
    float epsilon, offset;
    const void *residual, *weight, *bias;
    void *sum, *normed;
} trm_group_norm;

typedef struct trm_device_group_ops {
    const char *name;  /* "nccl" */
    size_t id_bytes;   /* of an id, 1..TRM_DEVICE_GROUP_ID_BYTES */
    size_t peer_bytes; /* 0: peers need not meet */
    /* UNSUPPORTED: the library is not there: what is missing. Rank 0 of the group */
    trm_status (*make_id)(trm_device *d, void *id_out);
    /* Starts to bring the group up. */
    trm_status (*begin)(trm_device *d, const void *id, int rank, int size,
                        trm_device_group **group_out);
    /* *ready_out: every rank has come. COMM: the group is broken; the message says how. */
    trm_status (*poll)(trm_device_group *g, bool *ready_out);
    /* With peer_bytes, once the group is ready and all ranks are on one host: memory that peers may
     * read directly, for small sums. own: this rank's, peer_bytes; then all: [size][peer_bytes], in
     * rank order, or NULL: goes on without. UNSUPPORTED from either: then all get NULL. */
    trm_status (*peer_own)(trm_device_group *g, void *own_out);
    trm_status (*peer_all)(trm_device_group *g, const void *all);

    /* out[i] = sum over ranks of in[i], in fp32 for F16 and BF16; out may be in */
    trm_status (*allreduce)(trm_device_group *g, trm_stream *s, const void *in, void *out,
                            size_t elems, trm_dtype dtype);
    /* bytes[size]: contributions, which arrive in rank order, gapless */
    trm_status (*allgather)(trm_device_group *g, trm_stream *s, const void *in, void *out,
                            const size_t *bytes);
    /* sum, then rank r gets elems[r], in order */
    trm_status (*reduce_scatter)(trm_device_group *g, trm_stream *s, const void *in, void *out,
                                 const size_t *elems, trm_dtype dtype);
    /* in: send[r] bytes for rank r one after another; out: receive[r] from rank r */
    trm_status (*alltoall)(trm_device_group *g, trm_stream *s, const void *in, const size_t *send,
                           void *out, const size_t *receive);
    /* Optional: NULL: sums by the tree go over host memory. Nodes of the summation tree of
     * base/tree.h: rank r holds the maximal nodes inside its counts[r] leaves, which follow those
     * of the ranks before it. in: this rank's nodes, [nodes, elems] F32; out: their sum [elems] on
     * every rank, the additions being the tree's; out does not overlap in. counts: [size] */
    trm_status (*reduce_tree)(trm_device_group *g, trm_stream *s, const void *in, void *out,
                              size_t elems, int leaves, const int *counts);
    /* Optional, both or none: reduce_tree of [nodes, rows, width], then the residual and the norm,
     * in one step, with the bits that the device's kernels of TrmReduceTree and TrmAddNorm give one
     * after the other. reduce_tree_norm_rows: the most rows of which that is worth while; 0: none.
     * The same on every rank. */
    size_t (*reduce_tree_norm_rows)(const trm_device_group *g, size_t width, int leaves,
                                    const int *counts);
    trm_status (*reduce_tree_norm)(trm_device_group *g, trm_stream *s, const void *in, size_t rows,
                                   int leaves, const int *counts, const trm_group_norm *norm);
    /* After a loss: whatever waits on the device for a peer ends, so that the device's streams can
     * be waited for; the group is broken. Does not wait. */
    void (*abandon)(trm_device_group *g);
    void (*destroy)(trm_device_group *g);
} trm_device_group_ops;

/* Base of every group: embed it first. */
struct trm_device_group {
    const trm_device_group_ops *ops;
    int rank, size;
};

#ifdef __cplusplus
}
#endif
#endif
