/* Col2Im: sums columns [n, c * block, positions] back into images [n, c, image...], any number of
 * spatial dims. The inverse walk of a convolution's unfolding. */
#include "kernels/cpu/data.h"

#include <inttypes.h>
#include <string.h>

#define SPATIAL_MAX (TRM_RANK_MAX - 2)

struct col2im {
    trm_kernel base;
    trmi_float_io io;
    int spatial;
    size_t planes, block, positions, pixels;
    int64_t image[SPATIAL_MAX], kernel[SPATIAL_MAX], steps[SPATIAL_MAX]; /* steps: positions */
    int64_t dilation[SPATIAL_MAX], pad[SPATIAL_MAX], stride[SPATIAL_MAX];
};

struct col2im_job {
    const struct col2im *c;
    const float *x;
    float *y;
};

static void col2im_planes(void *ctx, size_t begin, size_t end)
{
    const struct col2im_job *job = (const struct col2im_job *)ctx;
    const struct col2im *c = job->c;

    for (size_t plane = begin; plane < end; plane++) {
        const float *x = job->x + plane * c->block * c->positions;
        float *y = job->y + plane * c->pixels;

        memset(y, 0, c->pixels * sizeof(float));
        for (size_t b = 0; b < c->block; b++) {
            for (size_t p = 0; p < c->positions; p++) {
                size_t rest_b = b, rest_p = p, at = 0, scale = 1;
                bool inside = true;

                for (int d = c->spatial - 1; d >= 0; d--) {
                    int64_t k = (int64_t)(rest_b % (size_t)c->kernel[d]);
                    int64_t o = (int64_t)(rest_p % (size_t)c->steps[d]);
                    int64_t i = o * c->stride[d] - c->pad[d] + k * c->dilation[d];

                    rest_b /= (size_t)c->kernel[d];
                    rest_p /= (size_t)c->steps[d];
                    inside = inside && i >= 0 && i < c->image[d];
                    at += (size_t)i * scale;
                    scale *= (size_t)c->image[d];
                }
                if (inside)
                    y[at] += x[b * c->positions + p];
            }
        }
    }
}

static trm_status col2im_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    struct col2im *c = (struct col2im *)k;
    const float *in32[TRMI_FLOAT_INPUTS];
    struct col2im_job job = {.c = c};

    (void)s;
    job.y = trmi_float_begin(&c->io, in, out[0], workspace, in32);
    job.x = in32[0];
    trm_team_for(c->planes, 8192 / (c->block * c->positions + 1) + 1, col2im_planes, &job);
    trmi_float_end(&c->io, job.y, out[0]);
    return TRM_OK;
}

static const trm_kernel_ops col2im_ops = {
    .name = "col2im", .run = col2im_run, .destroy = trmi_kernel_free};

/* Attribute list of `count` positive (or, pads, any) numbers into out, else the default. */
static trm_status list(const trm_op_desc *desc, const char *name, int count, int64_t otherwise,
                       int64_t least, int64_t *out)
{
    size_t n;
    const int64_t *v = trm_attr_ints(desc->attrs, name, &n);

    if (v != NULL && n != (size_t)count)
        return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': %zu %s, want %d", desc->name, n, name,
                        count);
    for (int i = 0; i < count; i++) {
        out[i] = v == NULL ? otherwise : v[i];
        if (out[i] < least || out[i] > INT32_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': %s %" PRId64, desc->name, name,
                            out[i]);
    }
    return TRM_OK;
}

trm_status trmi_cpu_col2im(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct col2im c = {.planes = 0}, *made;
    int64_t pads[2 * SPATIAL_MAX], want[TRM_RANK_MAX], block = 1, positions = 1;
    int kernel_count;
    size_t bytes;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_float_io_init(&c.io, desc, 1, &bytes));
    TRM_CHECK(trmi_data_ints(desc, 1, c.image, SPATIAL_MAX, &c.spatial));
    TRM_CHECK(trmi_data_ints(desc, 2, c.kernel, SPATIAL_MAX, &kernel_count));
    if (x->rank != 3 || c.spatial < 1 || kernel_count != c.spatial)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Col2Im '%s': want columns [n, c * block, positions], image_shape and "
                        "block_shape of one length",
                        desc->name);
    TRM_CHECK(list(desc, "dilations", c.spatial, 1, 1, c.dilation));
    TRM_CHECK(list(desc, "strides", c.spatial, 1, 1, c.stride));
    TRM_CHECK(list(desc, "pads", 2 * c.spatial, 0, 0, pads));
    for (int i = 0; i < c.spatial; i++) {
        int64_t span;

        if (c.kernel[i] < 1 || c.kernel[i] > INT32_MAX || c.image[i] < 1 ||
            c.image[i] > INT32_MAX || block > INT32_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': block %" PRId64 ", image %" PRId64,
                            desc->name, c.kernel[i], c.image[i]);
        c.pad[i] = pads[i];
        span = c.image[i] + pads[i] + pads[c.spatial + i] - c.dilation[i] * (c.kernel[i] - 1) - 1;
        if (span < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': block larger than image in dim %d",
                            desc->name, i);
        c.steps[i] = span / c.stride[i] + 1;
        block *= c.kernel[i];
        if (!trm_mul_ok(positions, c.steps[i], &positions))
            return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': image overflows", desc->name);
        want[2 + i] = c.image[i];
    }
    if (x->dims[1] % block != 0 || x->dims[2] != positions)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Col2Im '%s': columns of %" PRId64 " x %" PRId64 ", want a multiple of "
                        "%" PRId64 " x %" PRId64,
                        desc->name, x->dims[1], x->dims[2], block, positions);
    want[0] = x->dims[0];
    want[1] = x->dims[1] / block;
    TRM_CHECK(trmi_data_expect(desc, 0, 2 + c.spatial, want));
    c.planes = (size_t)(want[0] * want[1]);
    c.block = (size_t)block;
    c.positions = (size_t)positions;
    c.pixels = trm_tensor_count(&desc->outputs[0], 2, 2 + c.spatial);
    TRM_CHECK(trmi_kernel_new(sizeof(*made), &col2im_ops, &made));
    c.base = made->base;
    c.base.workspace_bytes = bytes;
    *made = c;
    *kernel_out = &made->base;
    return TRM_OK;
}
