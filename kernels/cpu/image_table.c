/* TrmImageTable: samples of images to floats by a table a channel. */
#include "kernels/cpu/data.h"

#define CHANNELS_MAX 4

struct image_table {
    trm_kernel base;
    size_t images, pixels, channels;
    bool last;
};

struct image_table_job {
    const struct image_table *k;
    const unsigned char *in;
    const float *table;
    float *out;
};

/* Pixels [begin, end) of all images. */
static void image_table_range(void *ctx, size_t begin, size_t end)
{
    const struct image_table_job *job = ctx;
    const struct image_table *k = job->k;

    for (size_t i = begin; i < end; i++) {
        const unsigned char *in = job->in + i * k->channels;
        size_t image = i / k->pixels, pixel = i % k->pixels;

        for (size_t c = 0; c < k->channels; c++)
            job->out[k->last ? i * k->channels + c
                             : (image * k->channels + c) * k->pixels + pixel] =
                job->table[c * 256 + in[c]];
    }
}

static trm_status image_table_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    const struct image_table *k = (const struct image_table *)base;
    struct image_table_job job = {.k = k, .in = in[0], .table = in[1], .out = out[0]};

    (void)s;
    (void)workspace;
    trm_team_for(k->images * k->pixels, 4096, image_table_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops image_table_ops = {
    .name = "image table", .run = image_table_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_image_table(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *image = &desc->inputs[0];
    struct image_table *k;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_no_posts(desc));
    if (image->dtype != TRM_DTYPE_U8 || desc->inputs[1].dtype != TRM_DTYPE_F32 ||
        image->dims[3] > CHANNELS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmImageTable '%s': wants u8 images of at most %d channels and an f32 "
                        "table",
                        desc->name, CHANNELS_MAX);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &image_table_ops, &k));
    k->images = (size_t)image->dims[0];
    k->pixels = (size_t)(image->dims[1] * image->dims[2]);
    k->channels = (size_t)image->dims[3];
    k->last = trm_attr_int(desc->attrs, "channels_last", 0) != 0;
    *kernel_out = &k->base;
    return TRM_OK;
}
