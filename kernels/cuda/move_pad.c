/* Pad, CenterCropPad (which keep CHANNELS_LAST) and ReverseSequence. */
#include "kernels/cuda/move.h"

#include <inttypes.h>
#include <string.h>

struct pad {
    trmi_cuda_kernel base;
    bool has_value; /* input 2 gives the pad value */
    trmi_pad p;
};

static trm_status pad_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    const struct pad *p = (const struct pad *)k;

    (void)workspace;
    return trmi_cuda_pad(p->base.cuda, trmi_cuda_stream(k, s), &p->p, in[0],
                         p->has_value ? in[2] : NULL, out[0]);
}

static const trm_kernel_ops pad_ops = {
    .name = "pad", .run = pad_run, .destroy = trmi_cuda_kernel_free};

/* begin[i], end[i]: pads of axis i, negative crops. Cropping comes first: reflections see what is
 * left. */
static trm_status pad_new(trm_cuda *cuda, const trm_op_desc *desc, trmi_pad_mode mode,
                          const int64_t *begin, const int64_t *end, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    bool last = x->layout == TRM_LAYOUT_CHANNELS_LAST;
    int64_t want[TRM_RANK_MAX];
    struct pad *k;
    trmi_pad *p;

    for (int i = 0; i < x->rank; i++) {
        if (begin[i] < -TRM_DIM_MAX || begin[i] > TRM_DIM_MAX || end[i] < -TRM_DIM_MAX ||
            end[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': pads %" PRId64 ", %" PRId64 " of axis %d",
                            trm_op_get(desc->op)->name, desc->name, begin[i], end[i], i);
        want[i] = x->dims[i] + begin[i] + end[i];
    }
    TRM_CHECK(trmi_cuda_expect(desc, 0, x->rank, want));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &pad_ops, &k));
    p = &k->p;
    p->elem = trm_dtype_bytes(x->dtype);
    p->mode = mode;
    p->rank = x->rank;
    for (int at = 0; at < x->rank; at++) { /* in the order of memory */
        int i = !last || at == 0 ? at : at == x->rank - 1 ? 1 : at + 1;
        int64_t low = begin[i] < 0 ? -begin[i] : 0;
        int64_t high = x->dims[i] + (end[i] < 0 ? end[i] : 0);

        if (mode != TRMI_PAD_CONSTANT && want[i] > 0 && high <= low) {
            trmi_cuda_kernel_free(&k->base.base);
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': axis %d has nothing left to pad from",
                            trm_op_get(desc->op)->name, desc->name, i);
        }
        p->in_dims[at] = (size_t)x->dims[i];
        p->out_dims[at] = (size_t)want[i];
        p->begin[at] = begin[i] > 0 ? begin[i] : 0;
        p->low[at] = low;
        p->kept[at] = high > low ? high - low : 0;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* Asks for the layout that arrives, and plain parameters. */
static trm_status pad_begin(trm_op_desc *desc)
{
    trm_layout layout = trmi_cuda_move_layout(desc->inputs[0].layout, desc->inputs[0].rank);

    TRM_CHECK(trmi_cuda_begin(desc));
    desc->inputs[0].layout = desc->outputs[0].layout = layout;
    return TRM_OK;
}

trm_status trmi_cuda_pad_prepare(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    const trm_tensor *x = &desc->inputs[0];
    const char *mode = trm_attr_string(desc->attrs, "mode", "constant");
    int64_t pads[2 * TRM_RANK_MAX], axes[TRM_RANK_MAX];
    int64_t begin[TRM_RANK_MAX] = {0}, end[TRM_RANK_MAX] = {0};
    int pad_count, axis_count, m = 0;

    TRM_CHECK(pad_begin(desc));
    while (m < 4 && strcmp(mode, modes[m]) != 0)
        m++;
    if (m == 4)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "Pad '%s': mode '%s', want constant, reflect, edge or wrap", desc->name,
                        mode);
    TRM_CHECK(trmi_cuda_ints(desc, 1, pads, 2 * TRM_RANK_MAX, &pad_count));
    TRM_CHECK(trmi_cuda_ints(desc, 3, axes, TRM_RANK_MAX, &axis_count));
    if (!trmi_cuda_has_input(desc, 3)) {
        axis_count = x->rank;
        for (int i = 0; i < x->rank; i++)
            axes[i] = i;
    }
    if (pad_count != 2 * axis_count)
        return trm_fail(TRM_ERR_INVALID_ARG, "Pad '%s': %d pads for %d axes, want two an axis",
                        desc->name, pad_count, axis_count);
    if (trmi_cuda_has_input(desc, 2) &&
        (desc->inputs[2].dtype != x->dtype || trm_tensor_numel(&desc->inputs[2]) != 1))
        return trm_fail(TRM_ERR_INVALID_ARG, "Pad '%s': the pad value must be one %s", desc->name,
                        trm_dtype_name(x->dtype));
    for (int i = 0; i < axis_count; i++) {
        int axis;

        TRM_CHECK(trmi_cuda_axis(desc, axes[i], x->rank, &axis));
        begin[axis] = pads[i];
        end[axis] = pads[axis_count + i];
    }
    TRM_CHECK(pad_new(cuda, desc, (trmi_pad_mode)m, begin, end, kernel_out));
    ((struct pad *)*kernel_out)->has_value = trmi_cuda_has_input(desc, 2);
    return TRM_OK;
}

trm_status trmi_cuda_center_crop_pad(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t begin[TRM_RANK_MAX] = {0}, end[TRM_RANK_MAX] = {0}, shape[TRM_RANK_MAX];
    size_t axis_count;
    const int64_t *axes = trm_attr_ints(desc->attrs, "axes", &axis_count);
    int count;

    TRM_CHECK(pad_begin(desc));
    TRM_CHECK(trmi_cuda_ints(desc, 1, shape, TRM_RANK_MAX, &count));
    if ((axes != NULL && axis_count != (size_t)count) || (axes == NULL && count != x->rank))
        return trm_fail(TRM_ERR_INVALID_ARG, "CenterCropPad '%s': %d sizes, want one an axis",
                        desc->name, count);
    for (int i = 0; i < count; i++) {
        int64_t d;
        int axis = i;

        if (axes != NULL)
            TRM_CHECK(trmi_cuda_axis(desc, axes[i], x->rank, &axis));
        if (shape[i] < 0 || shape[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "CenterCropPad '%s': size %" PRId64 " of axis %d",
                            desc->name, shape[i], axis);
        d = shape[i] - x->dims[axis]; /* the odd one goes to the end, for crop and pad alike */
        begin[axis] = d / 2;
        end[axis] = d - d / 2;
    }
    return pad_new(cuda, desc, TRMI_PAD_CONSTANT, begin, end, kernel_out);
}

/* ---- ReverseSequence ---- */

struct reverse {
    trmi_move_checked base;
    trmi_reverse r;
};

static trm_status reverse_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    const struct reverse *r = (const struct reverse *)k;

    (void)workspace;
    return trmi_cuda_reverse(r->base.base.cuda, trmi_cuda_stream(k, s), &r->r, in[0], in[1], out[0],
                             trmi_cuda_move_notes(&r->base));
}

static const trm_kernel_ops reverse_ops = {
    .name = "reverse sequence", .run = reverse_run, .destroy = trmi_cuda_move_checked_free};

trm_status trmi_cuda_reverse_sequence(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t batch_axis = trm_attr_int(desc->attrs, "batch_axis", 1);
    int64_t time_axis = trm_attr_int(desc->attrs, "time_axis", 0);
    struct reverse *r;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
    if (x->rank < 2 || batch_axis < 0 || time_axis < 0 || batch_axis + time_axis != 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "ReverseSequence '%s': batch_axis %lld and time_axis %lld on rank %d, want "
                        "0 and 1",
                        desc->name, (long long)batch_axis, (long long)time_axis, x->rank);
    if (trm_tensor_numel(&desc->inputs[1]) != (size_t)x->dims[batch_axis])
        return trm_fail(TRM_ERR_INVALID_ARG, "ReverseSequence '%s': want one length a sequence",
                        desc->name);
    TRM_CHECK(trmi_cuda_move_checked_new(cuda, desc, false, sizeof(*r), &reverse_ops, &r));
    r->r =
        (trmi_reverse){.d0 = (size_t)x->dims[0],
                       .d1 = (size_t)x->dims[1],
                       .inner_bytes = trm_tensor_count(x, 2, x->rank) * trm_dtype_bytes(x->dtype),
                       .time_first = time_axis == 0,
                       .index_dtype = desc->inputs[1].dtype};
    *kernel_out = &r->base.base.base;
    return TRM_OK;
}
