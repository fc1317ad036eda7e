/* Asks cuDNN for a convolution: with all steps fused, or as many of them as it takes; with the
 * node's pads, or on a copy of x that has them (cuDNN's engines want the same pad at both ends),
 * and that has channels up to whole 16 bytes for 16-bit floats, which tensor cores want. */
#include "kernels/cuda/conv_impl.h"

#include "base/log.h"

#include <string.h>

/* How x reaches cuDNN. */
typedef struct form {
    bool pad_outside;         /* pads are in the copy */
    int64_t channels;         /* of x there */
    int64_t begin[3], end[3]; /* what cuDNN pads */
} form;

/* Pads with which (in + pads - extent) / stride + 1 is `out`: the same at both ends where that will
 * do. false: there are none, or cuDNN would not take them. */
static bool pads_of(const trm_window *w, bool transposed, form *f)
{
    for (int i = 0; i < w->spatial; i++) {
        int64_t big = transposed ? w->out[i] : w->in[i], small = transposed ? w->in[i] : w->out[i];
        int64_t extent = (w->kernel[i] - 1) * w->dilation[i] + 1, pad = w->pad_begin[i];
        int64_t end = (small - 1) * w->stride[i] + extent - big - pad; /* needed at least */

        if (end < pad && pad - end < w->stride[i])
            end = pad;
        if (end < 0 && -end < w->stride[i])
            end = 0;
        if (pad < 0 || end < 0 || pad >= extent || end >= extent)
            return false;
        f->begin[i] = pad;
        f->end[i] = end;
    }
    return true;
}

static void describe(const trmi_conv_kernel *k, const trm_window *w, const form *f, int fused,
                     trmi_dnn_desc *d)
{
    const trmi_conv_shape *s = &k->shape;
    const int spatial = w->spatial < 2 ? 2 : w->spatial, lead = spatial - w->spatial;

    memset(d, 0, sizeof(*d));
    d->kind = s->transposed ? TRMI_DNN_CONV_TRANSPOSED : TRMI_DNN_CONV;
    d->spatial = spatial;
    d->x = d->w = d->y = k->dtype;
    d->batch = s->batch;
    d->channels = f->channels;
    d->filters = s->filters;
    d->group = s->group;
    for (int i = 0; i < spatial; i++) {
        int j = i - lead;

        d->in[i] = d->out[i] = d->kernel[i] = d->stride[i] = d->dilation[i] = 1;
        if (j < 0)
            continue;
        d->in[i] = f->pad_outside
                       ? (w->out[j] - 1) * w->stride[j] + (w->kernel[j] - 1) * w->dilation[j] + 1
                       : w->in[j];
        d->out[i] = w->out[j];
        d->kernel[i] = w->kernel[j];
        d->stride[i] = w->stride[j];
        d->dilation[i] = w->dilation[j];
        d->pad_begin[i] = f->begin[j];
        d->pad_end[i] = f->end[j];
    }
    d->step_count = fused;
    for (int i = 0; i < fused; i++) {
        const trmi_conv_step *step = &k->steps[i];

        d->steps[i] = (trmi_dnn_step){.op = step->op, .alpha = step->alpha, .beta = step->beta};
        if (step->operand == TRMI_CONV_NO_OPERAND)
            continue;
        d->steps[i].operand = step->operand == TRMI_CONV_FULL ? TRMI_DNN_FULL : TRMI_DNN_CHANNEL;
        d->steps[i].dtype = k->dtype;
    }
}

/* How many steps cuDNN can be asked for: not those with an operand it is not told. */
static int askable(const trmi_conv_kernel *k)
{
    int n = 0;

    while (n < k->step_count && n < TRMI_DNN_STEPS_MAX && k->steps[n].operand != TRMI_CONV_ONE)
        n++;
    return n;
}

static void accept(trmi_conv_kernel *k, const trm_op_desc *desc, const trmi_dnn_desc *d,
                   const form *f)
{
    const trmi_conv_shape *s = &k->shape;
    const size_t taps = (size_t)s->kernel[0] * (size_t)s->kernel[1] * (size_t)s->kernel[2];
    const bool back = s->transposed;
    /* memory of ONNX's weights: [rows, columns, taps] */
    const size_t rows = (size_t)(back ? s->channels : s->filters);
    const size_t columns = (size_t)((back ? s->filters : s->channels) / s->group);
    const size_t wanted = (size_t)((back ? d->filters : d->channels) / d->group);
    const int lead = 3 - d->spatial;

    k->arrange = (trmi_conv_arrange){.dims = {1, rows, taps, wanted},
                                     .strides = {0, columns * taps, 1, taps},
                                     .valid = columns,
                                     .from = desc->inputs[1].dtype,
                                     .to = k->dtype};
    k->padded = f->pad_outside || f->channels != s->channels;
    if (!k->padded)
        return;
    k->padding = (trmi_conv_padding){.batch = s->batch,
                                     .from_channels = s->channels,
                                     .to_channels = (int)f->channels,
                                     .element_bytes = trm_dtype_bytes(k->dtype)};
    for (int i = 0; i < 3; i++) {
        k->padding.in[i] = s->in[i];
        k->padding.out[i] = i < lead ? 1 : (int)d->in[i - lead];
        k->padding.pad[i] = f->pad_outside ? s->pad[i] : 0;
    }
}

/* UNSUPPORTED where cuDNN has nothing; a failed device or a lack of memory stay what they are. */
static trm_status try_form(trmi_conv_kernel *k, const trm_op_desc *desc, const trm_window *w,
                           const form *f)
{
    trmi_dnn_desc d;
    trm_status st = TRM_ERR_UNSUPPORTED;

    for (int fused = askable(k); fused >= 0; fused--) {
        describe(k, w, f, fused, &d);
        st = trmi_cuda_dnn_plan(k->base.cuda, &d, &k->plan);
        if (st == TRM_OK) {
            k->fused = fused;
            accept(k, desc, &d, f);
            return TRM_OK;
        }
        k->plan = NULL;
        if (st == TRM_ERR_DEVICE || st == TRM_ERR_NO_MEMORY)
            return st;
        if (st != TRM_ERR_UNSUPPORTED)
            TRM_LOG(TRM_LOG_WARN, "cuda", "%s '%s': %s", trm_op_get(desc->op)->name, desc->name,
                    trm_message());
    }
    return TRM_ERR_UNSUPPORTED;
}

trm_status trmi_cuda_conv_dnn(trmi_conv_kernel *k, const trm_op_desc *desc, const trm_window *w)
{
    const trmi_conv_shape *s = &k->shape;
    const bool halves = k->dtype != TRM_DTYPE_F32 && s->group == 1 && !s->transposed;
    form forms[3];
    int count = 0;
    trm_status st = TRM_ERR_UNSUPPORTED;

    memset(forms, 0, sizeof(forms));
    /* tensor cores are fed 8 channels, or 4 by engines for first layers */
    if (halves && s->channels % 8 != 0 && s->channels != 4 && pads_of(w, false, &forms[count]))
        forms[count++].channels = s->channels < 4 ? 4 : ((int64_t)s->channels + 7) / 8 * 8;
    if (pads_of(w, s->transposed, &forms[count]))
        forms[count++].channels = s->channels;
    if (!s->transposed) {
        memset(&forms[count], 0, sizeof(forms[count]));
        forms[count].pad_outside = true;
        forms[count++].channels = halves ? ((int64_t)s->channels + 7) / 8 * 8 : s->channels;
    }
    for (int i = 0; i < count && st == TRM_ERR_UNSUPPORTED; i++)
        st = try_form(k, desc, w, &forms[i]);
    return st;
}
