/* Attributes of sliding windows. */
#include "kernels/reference/window.h"

#include <inttypes.h>
#include <string.h>

static trm_status read_list(const trm_attrs *attrs, const char *name, size_t want,
                            int64_t otherwise, int64_t min, int64_t *values)
{
    size_t count;
    const int64_t *given = trm_attr_ints(attrs, name, &count);

    if (given != NULL && count != want)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s has %zu values: want %zu", name, count, want);
    for (size_t i = 0; i < want; i++) {
        values[i] = given == NULL ? otherwise : given[i];
        if (values[i] < min || values[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s[%zu] is %" PRId64 ": want %" PRId64 " or more",
                            name, i, values[i], min);
    }
    return TRM_OK;
}

static int64_t extent_of(const trm_window *w, int i)
{
    return (w->kernel[i] - 1) * w->dilation[i] + 1;
}

int64_t trm_window_pad_needed(const trm_window *w, int i)
{
    return (w->out[i] - 1) * w->stride[i] + extent_of(w, i) - w->in[i] - w->pad_begin[i];
}

trm_status trm_window_parse(const trm_attrs *attrs, const int64_t *kernel, const trm_tensor *x,
                            const trm_tensor *y, bool transposed, trm_window *w)
{
    const char *auto_pad = trm_attr_string(attrs, "auto_pad", "NOTSET");
    int64_t pads[2 * TRM_SPATIAL_MAX];
    size_t n, given = 0;

    memset(w, 0, sizeof(*w));
    if (x->rank < 3 || x->rank != y->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "input of rank %d, output of rank %d: want 3 or more",
                        x->rank, y->rank);
    w->spatial = x->rank - 2;
    n = (size_t)w->spatial;
    for (size_t i = 0; i < n; i++) {
        w->in[i] = x->dims[i + 2];
        w->out[i] = y->dims[i + 2];
        if (kernel != NULL)
            w->kernel[i] = kernel[i];
    }
    if (kernel == NULL)
        TRM_CHECK(read_list(attrs, "kernel_shape", n, 1, 1, w->kernel));
    TRM_CHECK(read_list(attrs, "strides", n, 1, 1, w->stride));
    TRM_CHECK(read_list(attrs, "dilations", n, 1, 1, w->dilation));
    TRM_CHECK(read_list(attrs, "pads", 2 * n, 0, -TRM_DIM_MAX, pads));
    (void)trm_attr_ints(attrs, "output_shape", &given);
    for (int i = 0; i < w->spatial; i++) {
        bool upper = strcmp(auto_pad, "SAME_UPPER") == 0;
        int64_t total;

        w->pad_begin[i] = pads[i];
        w->pad_end[i] = pads[i + w->spatial];
        if (strcmp(auto_pad, "VALID") == 0)
            w->pad_begin[i] = w->pad_end[i] = 0;
        if (strncmp(auto_pad, "SAME", 4) != 0 && !(transposed && given > 0))
            continue;
        if (transposed) { /* what the full output has more than the one wanted */
            size_t count;
            const int64_t *op = trm_attr_ints(attrs, "output_padding", &count);

            total = w->stride[i] * (w->in[i] - 1) + extent_of(w, i) - w->out[i] +
                    (op != NULL && (size_t)i < count ? op[i] : 0);
            if (total < 0)
                total = 0;
            w->pad_begin[i] = upper ? total / 2 : total - total / 2;
        } else {
            total = (w->out[i] - 1) * w->stride[i] + extent_of(w, i) - w->in[i];
            if (total < 0)
                total = 0;
            w->pad_begin[i] = upper ? total / 2 : total - total / 2;
        }
        w->pad_end[i] = total - w->pad_begin[i];
    }
    return TRM_OK;
}
