/* Resize. CHANNELS_LAST stays where batch and channels are not resized. */
#include "kernels/cuda/image.h"

struct resize {
    trmi_cuda_kernel base;
    trmi_resize_plan plan;
    trmi_pack *tables; /* NULL: nothing is resized */
    size_t bytes;
    bool nearest, fused;
};

static trm_status resize_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    const struct resize *r = (const struct resize *)k;
    cudaStream_t stream = trmi_cuda_stream(k, s);

    if (r->plan.out_elems == 0)
        return TRM_OK;
    if (r->tables == NULL)
        return TRMI_CUDA(
            cudaMemcpyAsync(out[0], in[0], r->bytes, cudaMemcpyDeviceToDevice, stream));
    if (r->nearest)
        return trmi_cuda_resize_nearest_launch(&r->plan, in[0], out[0], stream);
    if (r->fused)
        return trmi_cuda_resize_fused_launch(&r->plan, in[0], out[0], stream);
    return trmi_cuda_resize_passes_launch(&r->plan, in[0], out[0], workspace, stream);
}

static void resize_destroy(trm_kernel *k)
{
    struct resize *r = (struct resize *)k;

    trmi_cuda_pack_release(r->base.cuda, r->tables);
    trmi_cuda_kernel_free(k);
}

static const trm_kernel_ops resize_ops = {
    .name = "cuda resize", .run = resize_run, .destroy = resize_destroy};

static trm_status resize_fill(struct resize *r, trmi_resize_tables *t, const trm_op_desc *desc)
{
    trm_cuda *cuda = r->base.cuda;
    bool found;

    r->nearest = t->nearest;
    if (t->size > 0) {
        TRM_CHECK(trmi_cuda_pack(cuda, 0, "resize tables", t->size, &r->tables, &found));
        TRM_CHECK(trmi_cuda_upload(cuda, r->tables->memory, t->bytes, t->size));
        trmi_resize_tables_place(t, r->tables->memory);
    }
    r->plan = t->plan;
    TRM_CHECK(trm_tensor_bytes(&desc->outputs[0], &r->bytes));
    if (r->tables == NULL || r->nearest)
        return TRM_OK;
    r->fused = trmi_cuda_resize_is_fused(&r->plan);
    if (!r->fused) {
        if (r->plan.dtype == TRM_DTYPE_BOOL)
            return trmi_cuda_bad_dtype(desc, 0, "a number, or mode nearest");
        r->base.base.workspace_bytes = 2 * r->plan.scratch_elems * sizeof(float);
        if (r->plan.dtype != TRM_DTYPE_F32)
            r->base.base.workspace_bytes += r->plan.in_elems * sizeof(float);
    }
    return TRM_OK;
}

trm_status trmi_cuda_resize(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    trm_layout arrives = x->layout;
    trmi_resize_tables tables = {.bytes = NULL};
    struct resize *r = NULL;
    bool moves = true;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc)); /* all plain */
    if (arrives == TRM_LAYOUT_CHANNELS_LAST && x->rank >= 3) {
        TRM_CHECK(trmi_resize_moves_channels(desc, &moves));
        if (!moves)
            x->layout = y->layout = arrives;
    }
    TRM_CHECK(trmi_resize_tables_make(desc, &tables));
    TRM_TRY(st, trmi_cuda_kernel_new(cuda, sizeof(*r), &resize_ops, &r), done);
    TRM_TRY(st, resize_fill(r, &tables, desc), done);
    *kernel_out = &r->base.base;
    r = NULL;
done:
    if (r != NULL)
        resize_destroy(&r->base.base);
    trm_free(tables.bytes);
    return st;
}
