/* NonMaxSuppression. The number of results is known on the host before they are written, so that
 * their memory can be asked for: one wait a run. */
#include "kernels/cuda/select.h"

#include <math.h>
#include <string.h>

#define SCRATCH_MAX ((size_t)256 << 20) /* of all blocks: long lists get fewer of them */

struct nms {
    trmi_cuda_kernel base;
    trmi_nms p;
    bool has_most, has_iou, has_score;
    size_t counts_at, offsets_at, chosen_at; /* in the workspace */
};

static trm_status nms_run(trm_kernel *k, trm_stream *s, const void *const *in,
                          const trm_output_sink *sink, void *workspace)
{
    const struct nms *n = (const struct nms *)k;
    cudaStream_t stream = trmi_cuda_stream(k, s);
    size_t lines = n->p.batches * n->p.classes;
    unsigned char *memory = workspace;
    int64_t result[2] = {0, 0}, dims[2] = {0, 3};
    trmi_nms p = n->p;
    uint32_t bits;
    float iou;
    void *y;

    p.boxes = in[0];
    p.scores = in[1];
    p.most = n->has_most ? in[2] : NULL;
    p.iou = n->has_iou ? in[3] : NULL;
    p.score = n->has_score ? in[4] : NULL;
    p.scratch = memory;
    p.counts = (uint32_t *)(void *)(memory + n->counts_at);
    p.offsets = (int64_t *)(void *)(memory + n->offsets_at);
    p.chosen = (uint32_t *)(void *)(memory + n->chosen_at);
    if (lines > 0 && p.n > 0) {
        TRM_CHECK(trmi_cuda_nms_launch(&p, stream));
        TRM_CHECK(TRMI_CUDA(cudaMemcpyAsync(result, p.offsets + lines, sizeof(result),
                                            cudaMemcpyDeviceToHost, stream)));
        TRM_CHECK(TRMI_CUDA(cudaStreamSynchronize(stream)));
    } else if (p.iou != NULL) {
        TRM_CHECK(TRMI_CUDA(
            cudaMemcpyAsync(&result[1], p.iou, sizeof(float), cudaMemcpyDeviceToHost, stream)));
        TRM_CHECK(TRMI_CUDA(cudaStreamSynchronize(stream)));
    }
    bits = (uint32_t)result[1];
    memcpy(&iou, &bits, sizeof(iou));
    if (iou < 0 || iou > 1 || isnan(iou))
        return trm_fail(TRM_ERR_INVALID_ARG, "NonMaxSuppression: iou_threshold %g, want 0 to 1",
                        (double)iou);
    dims[0] = result[0];
    TRM_CHECK(sink->alloc(sink->ctx, 0, 2, dims, &y));
    if (dims[0] == 0)
        return TRM_OK;
    TRM_CHECK(trmi_cuda_nms_write_launch(&p, y, stream));
    return TRMI_CUDA(cudaStreamSynchronize(stream));
}

static const trm_kernel_ops nms_ops = {
    .name = "cuda nms", .run_dynamic = nms_run, .destroy = trmi_cuda_kernel_free};

static trm_status nms_check(const trm_op_desc *desc)
{
    const trm_tensor *b = &desc->inputs[0], *sc = &desc->inputs[1];
    int64_t center = trm_attr_int(desc->attrs, "center_point_box", 0);

    if (b->dtype != TRM_DTYPE_F32)
        return trmi_cuda_bad_dtype(desc, 0, "f32");
    if (sc->dtype != TRM_DTYPE_F32)
        return trmi_cuda_bad_dtype(desc, 1, "f32");
    if (b->rank != 3 || sc->rank != 3 || b->dims[2] != 4 || b->dims[0] != sc->dims[0] ||
        b->dims[1] != sc->dims[2])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "NonMaxSuppression '%s': want boxes [n, b, 4] and scores [n, classes, b]",
                        desc->name);
    if (b->dims[1] > INT64_C(1) << 28)
        return trm_fail(TRM_ERR_UNSUPPORTED, "NonMaxSuppression '%s': %lld boxes", desc->name,
                        (long long)b->dims[1]);
    if (center != 0 && center != 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "NonMaxSuppression '%s': center_point_box is %lld, want 0 or 1", desc->name,
                        (long long)center);
    for (int i = 2; i < 5; i++) {
        trm_dtype dtype = trmi_cuda_has_input(desc, i) ? desc->inputs[i].dtype : TRM_DTYPE_NONE;
        bool ok = i > 2 ? dtype == TRM_DTYPE_F32 : dtype == TRM_DTYPE_I64 || dtype == TRM_DTYPE_I32;

        if (dtype != TRM_DTYPE_NONE && (!ok || trm_tensor_numel(&desc->inputs[i]) != 1))
            return trm_fail(TRM_ERR_INVALID_ARG, "NonMaxSuppression '%s': input %d must be one %s",
                            desc->name, i, i == 2 ? "i64 or i32" : "f32");
    }
    return TRM_OK;
}

/* Room of a line's list: every box, or as many as may be chosen where that is known. */
static uint32_t nms_capacity(const trm_op_desc *desc, uint32_t n)
{
    int64_t most;

    if (!trmi_cuda_has_input(desc, 2))
        return 0;
    if (desc->inputs[2].data == NULL)
        return n;
    most = trm_tensor_get_i64(&desc->inputs[2], 0);
    return most <= 0 ? 0 : most < n ? (uint32_t)most : n;
}

trm_status trmi_cuda_nms(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    size_t lines, scratch, blocks, bytes, chosen;
    struct nms *n;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(nms_check(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*n), &nms_ops, &n));
    n->p.batches = (size_t)desc->inputs[0].dims[0];
    n->p.n = (uint32_t)desc->inputs[0].dims[1];
    n->p.classes = (size_t)desc->inputs[1].dims[1];
    n->p.capacity = nms_capacity(desc, n->p.n);
    n->p.center = trm_attr_int(desc->attrs, "center_point_box", 0) == 1;
    n->has_most = trmi_cuda_has_input(desc, 2);
    n->has_iou = trmi_cuda_has_input(desc, 3);
    n->has_score = trmi_cuda_has_input(desc, 4);
    n->p.most_is_i32 = n->has_most && desc->inputs[2].dtype == TRM_DTYPE_I32;
    lines = n->p.batches * n->p.classes;
    scratch = trmi_nms_scratch(n->p.n);
    blocks = (size_t)cuda->multiprocessors;
    if (blocks > SCRATCH_MAX / (scratch + 1))
        blocks = SCRATCH_MAX / (scratch + 1);
    blocks = blocks > lines ? lines : blocks;
    blocks = blocks < 1 ? 1 : blocks;
    n->p.blocks = (int)blocks;
    n->offsets_at = blocks * scratch; /* a multiple of 256 */
    n->counts_at = n->offsets_at + (lines + 2) * sizeof(int64_t);
    n->chosen_at = n->counts_at + lines * sizeof(uint32_t);
    if (!trm_mul_ok(lines * sizeof(uint32_t), (size_t)n->p.capacity, &chosen) ||
        !trm_add_ok(n->chosen_at, chosen, &bytes)) {
        trmi_cuda_kernel_free(&n->base.base);
        return trm_fail(TRM_ERR_UNSUPPORTED, "NonMaxSuppression '%s': lists overflow", desc->name);
    }
    n->base.base.workspace_bytes = bytes;
    n->base.base.uncapturable = true;
    *kernel_out = &n->base.base;
    return TRM_OK;
}
