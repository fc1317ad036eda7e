/* Sums by the tree with the residual and the norm that follow, between devices. */
#include "kernels/cuda/group_impl.h"
#include "kernels/cuda/group_tree.h"

#if TRMI_HAVE_NCCL

/* Launches that such a sum may take; what is longer is quicker as a sum and a norm. */
#define LAUNCHES_MAX 4

size_t trmi_cuda_group_reduce_tree_norm_rows(const trm_device_group *base, size_t width, int leaves,
                                             const int *counts)
{
    const struct trmi_group *g = (const struct trmi_group *)base;
    int parts[TRM_DEVICE_GROUP_RANKS_MAX];
    trmi_group_tree tree;

    if (base->size < 2 || g->peers == NULL || !g->peers->met ||
        trmi_cuda_group_tree_plan(leaves, counts, base->size, &tree, parts) != TRM_OK)
        return 0;
    return LAUNCHES_MAX * trmi_cuda_group_tree_norm_rows(width, &tree);
}

trm_status trmi_cuda_group_reduce_tree_norm(trm_device_group *base, trm_stream *s, const void *in,
                                            size_t rows, int leaves, const int *counts,
                                            const trm_group_norm *norm)
{
    const struct trmi_group *g = (const struct trmi_group *)base;
    cudaStream_t stream = s != NULL ? s->stream : g->cuda->stream;
    int parts[TRM_DEVICE_GROUP_RANKS_MAX];
    trm_group_norm now = *norm;
    const float *from = in;
    trmi_group_tree tree;
    size_t most, n;

    TRM_CHECK(trmi_cuda_group_tree_plan(leaves, counts, base->size, &tree, parts));
    most = trmi_cuda_group_tree_norm_rows(norm->width, &tree);
    if (base->size < 2 || g->peers == NULL || !g->peers->met || rows > LAUNCHES_MAX * most)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "a sum and norm of %zu rows of %zu in one step between %d ranks", rows,
                        norm->width, base->size);
    for (size_t at = 0; at < rows; at += n) {
        size_t first = at * norm->width;

        n = rows - at < most ? rows - at : most;
        now.residual = (const float *)norm->residual + first;
        now.sum = norm->sum == NULL ? NULL : (float *)norm->sum + first;
        now.normed = (float *)norm->normed + first;
        TRM_CHECK(trmi_cuda_group_tree_norm(stream, from + first, rows * norm->width, n, &now,
                                            &tree, &g->peers->sum));
    }
    return TRM_OK;
}

#endif
