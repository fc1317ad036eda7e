/* TrmImageTable. Images arrive with channels last, and what reads them on a GPU is a convolution
 * that wants them so: the result keeps that layout. */
#include "kernels/cuda/input_image.h"

struct image_table {
    trmi_cuda_kernel base;
    size_t images, pixels;
    int channels;
};

static trm_status image_table_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    const struct image_table *k = (const struct image_table *)base;

    (void)workspace;
    return trmi_cuda_image_table_run(in[0], in[1], out[0], k->images, k->pixels, k->channels, true,
                                     trmi_cuda_stream(base, s));
}

static const trm_kernel_ops image_table_ops = {
    .name = "image table", .run = image_table_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_image_table(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *image = &desc->inputs[0];
    struct image_table *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (image->dtype != TRM_DTYPE_U8)
        return trmi_cuda_bad_dtype(desc, 0, "u8");
    if (desc->inputs[1].dtype != TRM_DTYPE_F32)
        return trmi_cuda_bad_dtype(desc, 1, "f32");
    if (image->dims[3] > TRMI_INPUT_CHANNELS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmImageTable '%s': %lld channels: at most %d",
                        desc->name, (long long)image->dims[3], TRMI_INPUT_CHANNELS_MAX);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &image_table_ops, &k));
    k->images = (size_t)image->dims[0];
    k->pixels = (size_t)(image->dims[1] * image->dims[2]);
    k->channels = (int)image->dims[3];
    if (trm_attr_int(desc->attrs, "channels_last", 0) == 0)
        desc->outputs[0].layout = TRM_LAYOUT_CHANNELS_LAST;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
