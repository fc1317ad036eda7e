/* Geometry of sliding windows, shared by convolutions and pools. */
#include "model/shape/rule.h"

#include <string.h>

/* Attribute `name`: `count` values >= `least`, or `otherwise` everywhere. */
static trm_status read_ints(trmi_io io, const char *name, int count, int64_t least,
                            int64_t otherwise, int64_t *to, bool *found_out)
{
    size_t n;
    const int64_t *v = trm_attr_ints(&io->node->attrs, name, &n);

    if (found_out != NULL)
        *found_out = v != NULL;
    for (int i = 0; i < count; i++)
        to[i] = otherwise;
    if (v == NULL)
        return TRM_OK;
    if (n != (size_t)count)
        return trmi_shape_bad(io, "attribute '%s' has %zu entries, want %d", name, n, count);
    for (int i = 0; i < count; i++) {
        if (v[i] < least || v[i] > TRM_DIM_MAX)
            return trmi_shape_bad(io, "attribute '%s' has entry %lld, want at least %lld", name,
                                  (long long)v[i], (long long)least);
        to[i] = v[i];
    }
    return TRM_OK;
}

trm_status trmi_window_kernel(trmi_io io, int spatial, int64_t *kernel, bool *found_out)
{
    return read_ints(io, "kernel_shape", spatial, 1, TRM_DIM_UNKNOWN, kernel, found_out);
}

trm_status trmi_window_read(trmi_io io, int spatial, trmi_window *w)
{
    const char *pad = trm_attr_string(&io->node->attrs, "auto_pad", "NOTSET");
    int64_t pads[2 * TRM_RANK_MAX];

    w->rank = spatial;
    TRM_CHECK(read_ints(io, "strides", spatial, 1, 1, w->stride, NULL));
    TRM_CHECK(read_ints(io, "dilations", spatial, 1, 1, w->dilation, NULL));
    TRM_CHECK(read_ints(io, "pads", 2 * spatial, -TRM_DIM_MAX, 0, pads, NULL));
    for (int i = 0; i < spatial; i++) {
        w->pad_begin[i] = pads[i];
        w->pad_end[i] = pads[spatial + i];
    }
    w->ceil = trm_attr_int(&io->node->attrs, "ceil_mode", 0) != 0;
    if (strncmp(pad, "SAME_", 5) == 0)
        w->pad = TRMI_PAD_SAME;
    else if (strcmp(pad, "VALID") == 0)
        w->pad = TRMI_PAD_VALID;
    else if (pad[0] == '\0' || strcmp(pad, "NOTSET") == 0)
        w->pad = TRMI_PAD_EXPLICIT;
    else
        return trmi_shape_bad(io, "auto_pad is '%s', want NOTSET, SAME_UPPER, SAME_LOWER or VALID",
                              pad);
    return TRM_OK;
}

static int64_t symbolic_out(trmi_io io, int64_t in, int64_t net, int64_t stride)
{
    /* (in + net) / stride + 1, with one constant where stride is 1 */
    if (stride == 1)
        net++;
    in = net >= 0 ? trmi_shape_op(io, '+', in, net) : trmi_shape_op(io, '-', in, -net);
    if (stride == 1)
        return in;
    return trmi_shape_op(io, '+', trmi_shape_op(io, '/', in, stride), 1);
}

trm_status trmi_window_out(trmi_io io, const trmi_window *w, int i, int64_t in, int64_t *out)
{
    int64_t extent, net;
    int64_t begin = w->pad == TRMI_PAD_VALID ? 0 : w->pad_begin[i];
    int64_t end = w->pad == TRMI_PAD_VALID ? 0 : w->pad_end[i];

    *out = TRM_DIM_UNKNOWN;
    if (w->pad == TRMI_PAD_SAME) { /* ceil(in / stride), whatever the kernel */
        *out = w->stride[i] == 1
                   ? in
                   : trmi_shape_op(io, '/', trmi_shape_op(io, '+', in, w->stride[i] - 1),
                                   w->stride[i]);
        return TRM_OK;
    }
    if (w->kernel[i] < 0)
        return TRM_OK;
    if (w->kernel[i] > TRM_DIM_MAX ||
        __builtin_mul_overflow(w->kernel[i] - 1, w->dilation[i], &extent) || extent > TRM_DIM_MAX)
        return trmi_shape_bad(io, "kernel of %lld with dilation %lld is too large",
                              (long long)w->kernel[i], (long long)w->dilation[i]);
    extent++;
    net = begin + end - extent;
    if (in < 0) {
        if (in != TRM_DIM_UNKNOWN)
            *out = symbolic_out(io, in, w->ceil ? net + w->stride[i] - 1 : net, w->stride[i]);
        return TRM_OK;
    }
    if (in > TRM_DIM_MAX || in + net < 0) {
        if (in == 0) { /* nothing in, nothing out */
            *out = 0;
            return TRM_OK;
        }
        return trmi_shape_bad(io,
                              "spatial axis %d: a window of %lld does not fit %lld with padding "
                              "%lld",
                              i, (long long)extent, (long long)in, (long long)(begin + end));
    }
    *out = (in + net) / w->stride[i] + 1;
    /* the last window of ceil mode must start inside the data or its left padding */
    if (w->ceil && (in + net) % w->stride[i] != 0 && *out * w->stride[i] < in + begin)
        ++*out;
    return TRM_OK;
}
