/* GridSample, AffineGrid, RoiAlign and Col2Im: all in PLAIN. */
#include "kernels/cuda/image.h"

#include <inttypes.h>
#include <string.h>

#define ROI_GRID_MAX 65536

/* UNSUPPORTED unless the first `inputs` inputs are floats. */
static trm_status want_floats(const trm_op_desc *desc, int inputs)
{
    for (int i = 0; i < inputs; i++)
        if (!trm_dtype_is_float(desc->inputs[i].dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
    return TRM_OK;
}

/* INTERNAL if output 0's inferred dims differ from what the kernel will write. */
static trm_status expect(const trm_op_desc *desc, int rank, const int64_t *dims)
{
    const trm_tensor *y = &desc->outputs[0];
    bool same = y->rank == rank;

    for (int i = 0; i < rank && same; i++)
        same = y->dims[i] == dims[i];
    if (!same)
        return trm_fail(TRM_ERR_INTERNAL, "%s '%s': the output has another shape than inferred",
                        trm_op_get(desc->op)->name, desc->name);
    return TRM_OK;
}

static int name_index(const char *name, const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

/* ---- GridSample ---- */

struct grid_sample {
    trmi_cuda_kernel base;
    trmi_grid_sample g;
};

static trm_status grid_sample_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    (void)workspace;
    return trmi_cuda_grid_sample_launch(&((const struct grid_sample *)k)->g, in[0], in[1], out[0],
                                        trmi_cuda_stream(k, s));
}

static const trm_kernel_ops grid_sample_ops = {
    .name = "cuda grid sample", .run = grid_sample_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_grid_sample(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const char *const modes[] = {"linear", "nearest", "cubic", "bilinear",
                                        "",       "bicubic", NULL};
    static const char *const paddings[] = {"zeros", "border", "reflection", NULL};
    static const int taps[] = {2, 1, 4};
    const trm_tensor *x = &desc->inputs[0], *grid = &desc->inputs[1];
    int mode = name_index(trm_attr_string(desc->attrs, "mode", "linear"), modes);
    int padding = name_index(trm_attr_string(desc->attrs, "padding_mode", "zeros"), paddings);
    int spatial = x->rank - 2;
    int64_t want[TRM_RANK_MAX];
    struct grid_sample *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(want_floats(desc, 2));
    if (mode < 0 || padding < 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "GridSample '%s': mode '%s', padding_mode '%s'",
                        desc->name, trm_attr_string(desc->attrs, "mode", "linear"),
                        trm_attr_string(desc->attrs, "padding_mode", "zeros"));
    if (spatial < 1 || spatial > 3 || grid->rank != x->rank || grid->dims[0] != x->dims[0] ||
        grid->dims[spatial + 1] != spatial)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "GridSample '%s': want x [n, c, spatial...] with 1 to 3 spatial dims and a "
                        "grid [n, spatial..., dims]",
                        desc->name);
    want[0] = x->dims[0];
    want[1] = x->dims[1];
    for (int i = 0; i < spatial; i++) {
        want[2 + i] = grid->dims[1 + i];
        if (x->dims[2 + i] == 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "GridSample '%s': input dim %d is 0", desc->name,
                            2 + i);
        if (x->dims[2 + i] > INT32_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "GridSample '%s': input dim %d is %" PRId64,
                            desc->name, 2 + i, x->dims[2 + i]);
    }
    TRM_CHECK(expect(desc, x->rank, want));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &grid_sample_ops, &k));
    k->g.dtype = x->dtype;
    k->g.grid_dtype = grid->dtype;
    k->g.spatial = spatial;
    k->g.taps = taps[mode % 3];
    k->g.padding = padding;
    k->g.align_corners = trm_attr_int(desc->attrs, "align_corners", 0) != 0;
    for (int i = 0; i < 3; i++)
        k->g.dims[i] = i < 3 - spatial ? 1 : (int32_t)x->dims[2 + i - (3 - spatial)];
    k->g.images = (size_t)x->dims[0];
    k->g.channels = (size_t)x->dims[1];
    k->g.points = trm_tensor_count(grid, 1, grid->rank - 1);
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- AffineGrid ---- */

struct affine_grid {
    trmi_cuda_kernel base;
    trmi_affine_grid a;
};

static trm_status affine_grid_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    (void)workspace;
    return trmi_cuda_affine_grid_launch(&((const struct affine_grid *)k)->a, in[0], out[0],
                                        trmi_cuda_stream(k, s));
}

static const trm_kernel_ops affine_grid_ops = {
    .name = "cuda affine grid", .run = affine_grid_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_affine_grid(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *theta = &desc->inputs[0];
    int64_t shape[5], want[5];
    struct affine_grid *k;
    int count, spatial;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(want_floats(desc, 1));
    TRM_CHECK(trmi_cuda_ints(desc, 1, shape, 5, &count));
    spatial = count - 2;
    if (spatial < 2 || theta->rank != 3 || theta->dims[0] != shape[0] ||
        theta->dims[1] != spatial || theta->dims[2] != spatial + 1)
        return trm_fail(
            TRM_ERR_INVALID_ARG,
            "AffineGrid '%s': want theta [n, d, d + 1] and a size of d + 2 numbers, d 2 "
            "or 3",
            desc->name);
    want[0] = shape[0];
    for (int i = 0; i < spatial; i++)
        want[1 + i] = shape[2 + i];
    want[spatial + 1] = spatial;
    TRM_CHECK(expect(desc, spatial + 2, want));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &affine_grid_ops, &k));
    k->a.dtype = theta->dtype;
    k->a.out_dtype = desc->outputs[0].dtype;
    k->a.align_corners = trm_attr_int(desc->attrs, "align_corners", 0) != 0;
    k->a.spatial = spatial;
    k->a.images = (size_t)shape[0];
    k->a.points = trm_tensor_count(&desc->outputs[0], 1, spatial + 1);
    memcpy(k->a.dims, shape + 2, (size_t)spatial * sizeof(int64_t));
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- RoiAlign ---- */

struct roi_align {
    trmi_cuda_kernel base;
    trmi_roi_align a;
};

static trm_status roi_align_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    (void)workspace;
    return trmi_cuda_roi_align_launch(&((const struct roi_align *)k)->a, in[0], in[1], in[2],
                                      out[0], trmi_cuda_stream(k, s));
}

static const trm_kernel_ops roi_align_ops = {
    .name = "cuda roi align", .run = roi_align_run, .destroy = trmi_cuda_kernel_free};

static trm_status roi_align_check(const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *r = &desc->inputs[1], *y = &desc->outputs[0];
    const trm_tensor *batch = &desc->inputs[2];
    const char *mode = trm_attr_string(desc->attrs, "mode", "avg");
    const char *coords =
        trm_attr_string(desc->attrs, "coordinate_transformation_mode", "half_pixel");
    int64_t ratio = trm_attr_int(desc->attrs, "sampling_ratio", 0);

    TRM_CHECK(want_floats(desc, 2));
    if (batch->dtype != TRM_DTYPE_I32 && batch->dtype != TRM_DTYPE_I64)
        return trmi_cuda_bad_dtype(desc, 2, "i32 or i64");
    if (x->rank != 4 || r->rank != 2 || r->dims[1] != 4 || batch->rank != 1 ||
        batch->dims[0] != r->dims[0] || y->rank != 4 || y->dims[0] != r->dims[0] ||
        y->dims[1] != x->dims[1] || (trm_tensor_numel(y) > 0 && trm_tensor_numel(x) == 0))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "RoiAlign '%s': want x [n, c, h, w], rois [r, 4], batch indices [r]",
                        desc->name);
    if ((strcmp(mode, "avg") != 0 && strcmp(mode, "max") != 0) || ratio < 0 || ratio > ROI_GRID_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "RoiAlign '%s': mode '%s', sampling_ratio %" PRId64,
                        desc->name, mode, ratio);
    if (strcmp(coords, "half_pixel") != 0 && strcmp(coords, "output_half_pixel") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "RoiAlign '%s': coordinate_transformation_mode '%s', want half_pixel or "
                        "output_half_pixel",
                        desc->name, coords);
    for (int i = 2; i < 4; i++)
        if (x->dims[i] > INT32_MAX || y->dims[i] > INT32_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "RoiAlign '%s': dim %d", desc->name, i);
    return TRM_OK;
}

trm_status trmi_cuda_roi_align(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    struct roi_align *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(roi_align_check(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &roi_align_ops, &k));
    k->a.dtype = x->dtype;
    k->a.roi_dtype = desc->inputs[1].dtype;
    k->a.batch_dtype = desc->inputs[2].dtype;
    k->a.images = (size_t)x->dims[0];
    k->a.channels = (size_t)x->dims[1];
    k->a.regions = (size_t)desc->inputs[1].dims[0];
    k->a.height = (int32_t)x->dims[2];
    k->a.width = (int32_t)x->dims[3];
    k->a.out_h = (int32_t)y->dims[2];
    k->a.out_w = (int32_t)y->dims[3];
    k->a.ratio = (int32_t)trm_attr_int(desc->attrs, "sampling_ratio", 0);
    k->a.scale = trm_attr_float(desc->attrs, "spatial_scale", 1);
    k->a.half_pixel =
        trm_attr_string(desc->attrs, "coordinate_transformation_mode", "half_pixel")[0] == 'h';
    k->a.average = trm_attr_string(desc->attrs, "mode", "avg")[0] == 'a';
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- Col2Im ---- */

struct col2im {
    trmi_cuda_kernel base;
    trmi_col2im c;
};

static trm_status col2im_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    (void)workspace;
    return trmi_cuda_col2im_launch(&((const struct col2im *)k)->c, in[0], out[0],
                                   trmi_cuda_stream(k, s));
}

static const trm_kernel_ops col2im_ops = {
    .name = "cuda col2im", .run = col2im_run, .destroy = trmi_cuda_kernel_free};

/* Attribute list of `count` numbers into out, else the default. */
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

/* The numbers of one dim; multiplies the block's size and the positions. */
static trm_status col2im_dim(const trm_op_desc *desc, trmi_col2im *c, int i, const int64_t *image,
                             const int64_t *kernel, const int64_t *pads, int64_t *block,
                             int64_t *positions)
{
    int64_t span;

    if (kernel[i] < 1 || kernel[i] > INT32_MAX || image[i] < 1 || image[i] > INT32_MAX ||
        *block > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': block %" PRId64 ", image %" PRId64,
                        desc->name, kernel[i], image[i]);
    span = image[i] + pads[i] + pads[c->spatial + i] - c->dilation[i] * (kernel[i] - 1) - 1;
    if (span < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': block larger than image in dim %d",
                        desc->name, i);
    if (!trm_mul_ok(*positions, span / c->stride[i] + 1, positions))
        return trm_fail(TRM_ERR_INVALID_ARG, "Col2Im '%s': image overflows", desc->name);
    if (image[i] + pads[i] > INT32_MAX || *positions > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Col2Im '%s': image of %" PRId64, desc->name,
                        image[i]);
    c->pad[i] = (int32_t)pads[i];
    c->image[i] = (int32_t)image[i];
    c->kernel[i] = (int32_t)kernel[i];
    c->steps[i] = (int32_t)(span / c->stride[i] + 1);
    *block *= kernel[i];
    return TRM_OK;
}

static trm_status col2im_read(const trm_op_desc *desc, trmi_col2im *c)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t image[TRM_RANK_MAX], kernel[TRM_RANK_MAX], numbers[2 * TRM_RANK_MAX];
    int64_t want[TRM_RANK_MAX], block = 1, positions = 1;
    int kernel_count;

    TRM_CHECK(trmi_cuda_ints(desc, 1, image, TRM_RANK_MAX - 2, &c->spatial));
    TRM_CHECK(trmi_cuda_ints(desc, 2, kernel, TRM_RANK_MAX - 2, &kernel_count));
    if (x->rank != 3 || c->spatial < 1 || kernel_count != c->spatial)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Col2Im '%s': want columns [n, c * block, positions], image_shape and "
                        "block_shape of one length",
                        desc->name);
    TRM_CHECK(list(desc, "dilations", c->spatial, 1, 1, numbers));
    for (int i = 0; i < c->spatial; i++)
        c->dilation[i] = (int32_t)numbers[i];
    TRM_CHECK(list(desc, "strides", c->spatial, 1, 1, numbers));
    for (int i = 0; i < c->spatial; i++)
        c->stride[i] = (int32_t)numbers[i];
    TRM_CHECK(list(desc, "pads", 2 * c->spatial, 0, 0, numbers));
    for (int i = 0; i < c->spatial; i++) {
        TRM_CHECK(col2im_dim(desc, c, i, image, kernel, numbers, &block, &positions));
        want[2 + i] = image[i];
    }
    if (x->dims[1] % block != 0 || x->dims[2] != positions)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Col2Im '%s': columns of %" PRId64 " x %" PRId64 ", want a multiple of "
                        "%" PRId64 " x %" PRId64,
                        desc->name, x->dims[1], x->dims[2], block, positions);
    want[0] = x->dims[0];
    want[1] = x->dims[1] / block;
    TRM_CHECK(expect(desc, 2 + c->spatial, want));
    c->dtype = x->dtype;
    c->planes = (size_t)(want[0] * want[1]);
    c->block = (size_t)block;
    c->positions = (size_t)positions;
    c->pixels = trm_tensor_count(&desc->outputs[0], 2, 2 + c->spatial);
    return TRM_OK;
}

trm_status trmi_cuda_col2im(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trmi_col2im c = {.planes = 0};
    struct col2im *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(want_floats(desc, 1));
    TRM_CHECK(col2im_read(desc, &c));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &col2im_ops, &k));
    k->c = c;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
