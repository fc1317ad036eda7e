/* LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization.
 *
 * Gain and bias are read as they lie where they have the normalised shape (or one value a channel)
 * and their dtype is x's or f32. Else constants are expanded on the host and kept as a pack, others
 * on the device, into the workspace. */
#include "kernels/cuda/norm.h"

#include <stdio.h>
#include <string.h>

typedef struct norm_affine {
    trmi_pack *pack; /* expanded constant */
    bool expand;     /* in the workspace, at each run */
    trm_dtype from;
    int64_t strides[TRM_RANK_MAX];
    size_t at; /* in the workspace */
} norm_affine;

typedef struct norm_kernel {
    trmi_cuda_kernel base;
    trmi_norm norm;
    bool has_bias;
    norm_affine affine[2]; /* gain, bias */
    trm_dtype work;        /* of expanded ones */
    int rank;
    int64_t dims[TRM_RANK_MAX]; /* of the gain as used */
} norm_kernel;

static trm_status norm_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const norm_kernel *k = (const norm_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);
    trmi_norm_args args = {.x = in[0], .y = out[0]};

    for (int i = 0; i < (k->has_bias ? 2 : 1); i++) {
        const norm_affine *a = &k->affine[i];
        const void *values = a->pack != NULL ? a->pack->memory : in[1 + i];

        if (a->expand) {
            void *to = (char *)workspace + a->at;

            TRM_CHECK(trmi_cuda_norm_expand(k->work, to, a->from, values, k->rank, k->dims,
                                            a->strides, stream));
            values = to;
        }
        *(i == 0 ? &args.gain : &args.bias) = values;
    }
    if (k->norm.mean_type != TRM_DTYPE_NONE)
        args.mean = out[1];
    if (k->norm.inverse_type != TRM_DTYPE_NONE)
        args.inverse = out[2];
    return trmi_cuda_norm_run(&k->norm, stream, &args, workspace);
}

static void norm_destroy(trm_kernel *base)
{
    norm_kernel *k = (norm_kernel *)base;

    for (int i = 0; i < 2; i++)
        trmi_cuda_pack_release(k->base.cuda, k->affine[i].pack);
    trm_free(k);
}

static const trm_kernel_ops norm_ops = {
    .name = "cuda norm", .run = norm_run, .destroy = norm_destroy};

/* Strides of `t` broadcast to the gain's shape. */
static trm_status broadcast(const norm_kernel *k, const trm_op_desc *desc, int input,
                            int64_t strides[TRM_RANK_MAX])
{
    const trm_tensor *t = &desc->inputs[input];
    int64_t step = 1;

    memset(strides, 0, TRM_RANK_MAX * sizeof(strides[0]));
    for (int d = t->rank - 1; d >= 0; d--) {
        int to = d + k->rank - t->rank;

        if (t->dims[d] != 1) {
            if (to < 0 || t->dims[d] != k->dims[to])
                return trm_fail(TRM_ERR_INVALID_ARG,
                                "%s '%s': input %d does not broadcast to the normalised shape",
                                trm_op_get(desc->op)->name, desc->name, input);
            strides[to] = step;
        }
        step *= t->dims[d];
    }
    return TRM_OK;
}

/* A constant, expanded and converted on the host. */
static trm_status pack_expanded(norm_kernel *k, const trm_op_desc *desc, int input, norm_affine *a)
{
    trm_tensor to = {.dtype = k->work, .rank = k->rank};
    size_t count, bytes, used = 0;
    char form[256];
    bool found;
    trm_status st;

    memcpy(to.dims, k->dims, sizeof(to.dims));
    count = trm_tensor_numel(&to);
    TRM_CHECK(trm_tensor_bytes(&to, &bytes));
    used = (size_t)snprintf(form, sizeof(form), "norm %s", trm_dtype_name(k->work));
    for (int d = 0; d < k->rank; d++)
        used += (size_t)snprintf(form + used, sizeof(form) - used, " %lld", (long long)k->dims[d]);
    TRM_CHECK(trmi_cuda_pack(k->base.cuda, desc->weight_keys != NULL ? desc->weight_keys[input] : 0,
                             form, bytes, &a->pack, &found));
    if (found)
        return TRM_OK;
    to.data = trm_malloc(1, bytes);
    if (to.data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s '%s': input %d expanded: %zu bytes",
                        trm_op_get(desc->op)->name, desc->name, input, bytes);
    for (size_t i = 0; i < count; i++) {
        size_t index = i, at = 0;

        for (int d = k->rank - 1; d >= 0; d--) {
            at += index % (size_t)k->dims[d] * (size_t)a->strides[d];
            index /= (size_t)k->dims[d];
        }
        trm_tensor_set_f64(&to, i, trm_tensor_get_f64(&desc->inputs[input], at));
    }
    st = trmi_cuda_upload(k->base.cuda, a->pack->memory, to.data, bytes);
    trm_free(to.data);
    return st;
}

/* Gain (input 1) and bias (input 2) of the shape k->rank, k->dims. Adds to *bytes what they take of
 * the workspace. */
static trm_status settle_affine(norm_kernel *k, trm_op_desc *desc, size_t *bytes)
{
    trm_dtype x = desc->inputs[0].dtype;
    int count = trmi_cuda_has_input(desc, 2) ? 2 : 1;
    size_t elems = 1;
    bool as_it_is = true;

    k->has_bias = count == 2;
    k->work = x == TRM_DTYPE_F64 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
    for (int d = 0; d < k->rank; d++)
        elems *= (size_t)k->dims[d];
    for (int i = 1; i <= count; i++) {
        const trm_tensor *t = &desc->inputs[i];

        if (!trm_dtype_is_float(t->dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
        if (trm_tensor_numel(t) != elems || t->dtype != desc->inputs[1].dtype ||
            (t->dtype != x && t->dtype != k->work))
            as_it_is = false;
    }
    k->norm.gain_type = as_it_is ? desc->inputs[1].dtype : k->work;
    for (int i = 1; i <= count && !as_it_is; i++) {
        norm_affine *a = &k->affine[i - 1];

        TRM_CHECK(broadcast(k, desc, i, a->strides));
        a->from = desc->inputs[i].dtype;
        if (desc->inputs[i].data != NULL) {
            TRM_CHECK(pack_expanded(k, desc, i, a));
            k->base.base.packed_inputs |= 1u << i;
            k->base.base.copied_inputs |= 1u << i;
            continue;
        }
        a->expand = true;
        a->at = *bytes;
        *bytes += trm_align_up(elems * trm_dtype_bytes(k->work), TRM_ALIGN);
    }
    return TRM_OK;
}

static trm_status settle_layer(norm_kernel *k, trm_op_desc *desc)
{
    const trm_tensor *in = &desc->inputs[0];
    int axis = 0;

    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", -1), in->rank, &axis));
    k->norm.centre = desc->op == TRM_OP_LayerNormalization;
    k->norm.rows = trm_tensor_count(in, 0, axis);
    k->norm.n = trm_tensor_count(in, axis, in->rank);
    k->rank = in->rank - axis;
    memcpy(k->dims, in->dims + axis, (size_t)k->rank * sizeof(k->dims[0]));
    for (int i = 1; i <= 2; i++) {
        if (!trmi_cuda_has_output(desc, i))
            continue;
        if (!trm_dtype_is_float(desc->outputs[i].dtype))
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': output %d is %s",
                            trm_op_get(desc->op)->name, desc->name, i,
                            trm_dtype_name(desc->outputs[i].dtype));
        *(i == 1 ? &k->norm.mean_type : &k->norm.inverse_type) = desc->outputs[i].dtype;
    }
    return TRM_OK;
}

static trm_status settle_group(norm_kernel *k, trm_op_desc *desc, trm_layout arrives)
{
    trm_tensor *in = &desc->inputs[0];
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
    if (arrives == TRM_LAYOUT_CHANNELS_LAST && in->rank > 2 && in->dims[0] <= 65535)
        in->layout = desc->outputs[0].layout = arrives;
    k->norm.centre = true;
    k->norm.channels_last = in->layout == TRM_LAYOUT_CHANNELS_LAST;
    k->norm.per_group = trm_attr_int(desc->attrs, "per_group", 0) != 0;
    k->norm.channels = (size_t)channels;
    k->norm.groups = (size_t)groups;
    k->norm.spatial = trm_tensor_count(in, 2, in->rank);
    k->norm.rows = (size_t)in->dims[0] * k->norm.groups;
    k->norm.n = groups > 0 ? (size_t)(channels / groups) * k->norm.spatial : 0;
    k->rank = 1;
    k->dims[0] = k->norm.per_group ? groups : channels;
    return TRM_OK;
}

trm_status trmi_cuda_norm(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout arrives = desc->inputs[0].layout;
    bool layer = desc->op == TRM_OP_LayerNormalization || desc->op == TRM_OP_RMSNormalization;
    norm_kernel *k = NULL;
    size_t affine_bytes = 0;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &norm_ops, &k));
    k->norm.dtype = desc->inputs[0].dtype;
    k->norm.gain_type = k->norm.dtype;
    k->norm.epsilon = (double)trm_attr_float(desc->attrs, "epsilon", 1e-5f);
    TRM_TRY(st, layer ? settle_layer(k, desc) : settle_group(k, desc, arrives), fail);
    TRM_TRY(st, trmi_cuda_norm_plan(cuda, &k->norm), fail);
    affine_bytes = trm_align_up(k->norm.workspace_bytes, TRM_ALIGN);
    TRM_TRY(st, settle_affine(k, desc, &affine_bytes), fail);
    k->base.base.workspace_bytes = affine_bytes;
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    norm_destroy(&k->base.base);
    return st;
}
