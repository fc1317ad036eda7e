/* LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization, LpNormalization.
 *
 * Work runs in fp32 (f64 for doubles). 16-bit inputs are converted into the workspace as a whole;
 * scale and bias too, and there they are also expanded to the normalised shape where the model
 * broadcasts them. Workspace: [x: elements if 16-bit][gain][bias][mean: rows][inverse: rows], each
 * 64-byte aligned. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

typedef struct norm_kernel {
    trm_kernel base;
    trm_op op;
    trm_dtype dtype, work;
    trm_dtype gain_dtype, bias_dtype, mean_dtype, inverse_dtype;
    bool centre, per_group;
    bool has_bias, want_mean, want_inverse;
    size_t rows, n; /* normalised rows and their length */
    size_t groups, channels,
        spatial;        /* a row is `channels` times `spatial`; `groups` rows an image */
    size_t gain_n;      /* elements of gain and bias as used */
    trmi_map expand[2]; /* gain, bias: from the model's shape to gain_n */
    double epsilon;
    int64_t p;
} norm_kernel;

typedef struct norm_job {
    const norm_kernel *k;
    const void *x, *gain, *bias;
    void *out, *mean, *inverse;
} norm_job;

#define T float
#define NAME(x) x##_f32
#define SUM(x, n) trmi_vec_get()->fold(TRMI_FOLD_SUM, x, n, 0.0f)
#define SQUARES(x, n) trmi_vec_get()->fold(TRMI_FOLD_SQUARE, x, n, 0.0f)
#define DEVIATIONS(x, n, mean) trmi_vec_get()->square_deviation(x, n, mean)
#define NORMALISE(o, x, n, m, s, g, b) trmi_vec_get()->normalise(o, x, n, m, s, g, b)
#define SQRT(x) sqrtf(x)
#include "kernels/cpu/norm_rows.h"
#undef T
#undef NAME
#undef SUM
#undef SQUARES
#undef DEVIATIONS
#undef NORMALISE
#undef SQRT

static double deviations(const double *x, size_t n, double mean)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

static double total(const double *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void normalise_f64(double *out, const double *x, size_t n, double mean, double scale,
                          const double *gain, const double *bias)
{
    for (size_t i = 0; i < n; i++)
        out[i] =
            (x[i] - mean) * scale * (gain != NULL ? gain[i] : 1) + (bias != NULL ? bias[i] : 0);
}

#define T double
#define NAME(x) x##_f64
#define SUM(x, n) total(x, n)
#define SQUARES(x, n) deviations(x, n, 0)
#define DEVIATIONS(x, n, mean) deviations(x, n, mean)
#define NORMALISE(o, x, n, m, s, g, b) normalise_f64(o, x, n, m, s, g, b)
#define SQRT(x) sqrt(x)
#include "kernels/cpu/norm_rows.h"

static void expand_row_f32(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                           const size_t *step)
{
    (void)p;
    for (size_t i = 0; i < n; i++)
        ((float *)out)[i] = ((const float *)in[0])[i * step[0]];
}

static void expand_row_f64(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                           const size_t *step)
{
    (void)p;
    for (size_t i = 0; i < n; i++)
        ((double *)out)[i] = ((const double *)in[0])[i * step[0]];
}

/* Takes `count` elements of the work dtype from the workspace. */
static void *take(char **workspace, const norm_kernel *k, size_t count)
{
    void *at = *workspace;

    *workspace += trm_align_up(count * trm_dtype_bytes(k->work), TRM_ALIGN);
    return at;
}

static trm_status norm_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    norm_kernel *k = (norm_kernel *)base;
    char *scratch = workspace;
    size_t elems = k->rows * k->n;
    norm_job job = {.k = k, .x = in[0], .out = out[0]};
    bool half = k->dtype != k->work;

    (void)s;
    if (elems == 0)
        return TRM_OK;
    if (half) {
        job.out = take(&scratch, k, elems);
        trmi_convert(k->work, job.out, k->dtype, in[0], elems);
        job.x = job.out;
    }
    for (int i = 0; i < (k->gain_n == 0 ? 0 : k->has_bias ? 2 : 1); i++) {
        const void *values = in[1 + i];

        if (k->expand[i].row != NULL) {
            void *to = take(&scratch, k, k->gain_n);

            trmi_map_run(&k->expand[i], to, &values);
            values = to;
        }
        *(i == 0 ? &job.gain : &job.bias) = values;
    }
    if (k->want_mean)
        job.mean = take(&scratch, k, k->rows);
    if (k->want_inverse)
        job.inverse = take(&scratch, k, k->rows);
    trm_team_for(k->rows, 1 + TRMI_GRAIN / (k->n + 1),
                 k->work == TRM_DTYPE_F64 ? range_f64 : range_f32, &job);
    if (half)
        trmi_convert(k->dtype, out[0], k->work, job.out, elems);
    if (k->want_mean)
        trmi_convert(k->mean_dtype, out[1], k->work, job.mean, k->rows);
    if (k->want_inverse)
        trmi_convert(k->inverse_dtype, out[2], k->work, job.inverse, k->rows);
    return TRM_OK;
}

static const trm_kernel_ops norm_ops = {
    .name = "norm", .run = norm_run, .destroy = trmi_kernel_free};

/* Scale (input 1) and bias (input 2): used as they lie, or converted and expanded to `shape`. */
static trm_status settle_gain(norm_kernel *k, const trm_op_desc *desc, const trm_tensor *shape)
{
    k->gain_n = trm_tensor_numel(shape);
    k->has_bias = trmi_has_input(desc, 2);
    for (int i = 0; i < (k->has_bias ? 2 : 1); i++) {
        const trm_tensor *t = &desc->inputs[1 + i];
        trm_tensor own = *t;
        const trm_tensor *list[1] = {&own};

        if (!trm_dtype_is_float(t->dtype))
            return trmi_bad_dtype(desc, 1 + i, "a float");
        while (own.rank > shape->rank && own.dims[0] == 1) { /* leading ones say nothing */
            own.rank--;
            memmove(own.dims, own.dims + 1, (size_t)own.rank * sizeof(own.dims[0]));
        }
        if (t->dtype == k->work && trm_tensor_numel(t) == k->gain_n)
            continue;
        TRM_CHECK(trmi_broadcast_init(&k->expand[i].shape, desc, shape, list, 1));
        k->expand[i].row = k->work == TRM_DTYPE_F64 ? expand_row_f64 : expand_row_f32;
        k->expand[i].stage = t->dtype == k->work ? TRM_DTYPE_NONE : k->work;
        k->expand[i].in_dtype[0] = t->dtype;
        k->expand[i].out_dtype = k->work;
    }
    return TRM_OK;
}

static trm_status settle_layer(norm_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *in = &desc->inputs[0];
    trm_tensor shape = {0};
    int axis = 0;

    TRM_CHECK(trmi_axis(desc, trm_attr_int(desc->attrs, "axis", -1), in->rank, &axis));
    k->centre = desc->op == TRM_OP_LayerNormalization;
    k->rows = trm_tensor_count(in, 0, axis);
    k->n = trm_tensor_count(in, axis, in->rank);
    shape.rank = in->rank - axis;
    memcpy(shape.dims, in->dims + axis, (size_t)shape.rank * sizeof(shape.dims[0]));
    TRM_CHECK(settle_gain(k, desc, &shape));
    k->want_mean = trmi_has_output(desc, 1);
    k->want_inverse = trmi_has_output(desc, 2);
    if (k->want_mean)
        k->mean_dtype = desc->outputs[1].dtype;
    if (k->want_inverse)
        k->inverse_dtype = desc->outputs[2].dtype;
    return TRM_OK;
}

static trm_status settle_group(norm_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *in = &desc->inputs[0];
    trm_tensor shape = {.rank = 1};
    int64_t channels, groups;

    if (in->rank < 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input of rank %d: want [N, C, ...]",
                        trm_op_get(desc->op)->name, desc->name, in->rank);
    channels = in->dims[1];
    groups = desc->op == TRM_OP_InstanceNormalization ? channels
                                                      : trm_attr_int(desc->attrs, "num_groups", 0);
    if (channels > 0 && (groups < 1 || channels % groups != 0))
        return trm_fail(
            TRM_ERR_INVALID_ARG, "%s '%s': %lld channels do not divide into %lld groups",
            trm_op_get(desc->op)->name, desc->name, (long long)channels, (long long)groups);
    k->per_group = trm_attr_int(desc->attrs, "per_group", 0) != 0;
    k->groups = (size_t)groups;
    k->channels = groups > 0 ? (size_t)(channels / groups) : 0;
    k->spatial = trm_tensor_count(in, 2, in->rank);
    k->rows = (size_t)in->dims[0] * k->groups;
    k->n = k->channels * k->spatial;
    shape.dims[0] = k->per_group ? groups : channels;
    return settle_gain(k, desc, &shape);
}

trm_status trmi_prepare_norm(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    size_t elem, elems = trm_tensor_numel(in);
    norm_kernel *k;
    trm_status st = TRM_OK;
    int axis = 0;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(in->dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &norm_ops, &k));
    k->op = desc->op;
    k->dtype = in->dtype;
    k->work = in->dtype == TRM_DTYPE_F64 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
    k->epsilon = (double)trm_attr_float(desc->attrs, "epsilon", 1e-5f);
    k->p = trm_attr_int(desc->attrs, "p", 2);
    switch (desc->op) {
    case TRM_OP_LayerNormalization:
    case TRM_OP_RMSNormalization:
        TRM_TRY(st, settle_layer(k, desc), fail);
        break;
    case TRM_OP_LpNormalization:
        TRM_TRY(st, trmi_axis(desc, trm_attr_int(desc->attrs, "axis", -1), in->rank, &axis), fail);
        k->n = (size_t)in->dims[axis];
        k->spatial = trm_tensor_count(in, axis + 1, in->rank);
        k->rows = trm_tensor_count(in, 0, axis) * k->spatial;
        break;
    default:
        TRM_TRY(st, settle_group(k, desc), fail);
    }
    elem = trm_dtype_bytes(k->work);
    k->base.workspace_bytes =
        2 * trm_align_up(k->gain_n * elem, TRM_ALIGN) + 2 * trm_align_up(k->rows * elem, TRM_ALIGN);
    if (k->dtype != k->work)
        k->base.workspace_bytes += trm_align_up(elems * elem, TRM_ALIGN);
    k->base.in_place = 1;
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
