/* Deformable convolution, region pooling, unpooling, causal convolution. */
#include "kernels/reference/region.h"

#include <math.h>

static double sample(const trm_tensor *x, size_t plane, int64_t rows, int64_t columns,
                     double at_row, double at_column)
{
    double row0 = floor(at_row), column0 = floor(at_column), sum = 0.0;

    if (!(at_row > -1.0 && at_row < (double)rows && at_column > -1.0 &&
          at_column < (double)columns))
        return 0.0;
    for (int dr = 0; dr < 2; dr++)
        for (int dc = 0; dc < 2; dc++) {
            int64_t row = (int64_t)row0 + dr, column = (int64_t)column0 + dc;
            double weight =
                (1.0 - fabs(at_row - (double)row)) * (1.0 - fabs(at_column - (double)column));

            if (row >= 0 && row < rows && column >= 0 && column < columns)
                sum += weight * trm_tensor_get_f64(x, plane + (size_t)row * (size_t)columns +
                                                          (size_t)column);
        }
    return sum;
}

void trm_deform_conv_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[0], *w = &r->in[1], *offset = &r->in[2], *bias = &r->in[3];
    const trm_tensor *mask = &r->in[4];
    const trm_window *win = &r->window;
    size_t channels = (size_t)x->dims[1], filters = (size_t)w->dims[0];
    size_t space_in = (size_t)(win->in[0] * win->in[1]);
    size_t space = (size_t)(win->out[0] * win->out[1]);
    size_t kh = (size_t)win->kernel[0], kw = (size_t)win->kernel[1], taps = kh * kw;
    size_t c_group = channels / (size_t)r->group, m_group = filters / (size_t)r->group;
    size_t offset_groups = (size_t)r->i[0], c_offset = channels / offset_groups;

    for (size_t i = begin; i < end; i++) {
        size_t s = i % space, m = i / space % filters, n = i / space / filters;
        size_t first = m / m_group * c_group;
        int64_t row0 = (int64_t)(s / (size_t)win->out[1]) * win->stride[0] - win->pad_begin[0];
        int64_t column0 = (int64_t)(s % (size_t)win->out[1]) * win->stride[1] - win->pad_begin[1];
        double sum = bias->dtype == TRM_DTYPE_NONE ? 0.0 : trm_tensor_get_f64(bias, m);

        for (size_t c = first; c < first + c_group; c++)
            for (size_t t = 0; t < taps; t++) {
                size_t at = n * offset_groups * taps + c / c_offset * taps + t;
                double row = (double)(row0 + (int64_t)(t / kw) * win->dilation[0]) +
                             trm_tensor_get_f64(offset, (at * 2) * space + s);
                double column = (double)(column0 + (int64_t)(t % kw) * win->dilation[1]) +
                                trm_tensor_get_f64(offset, (at * 2 + 1) * space + s);
                double v =
                    sample(x, (n * channels + c) * space_in, win->in[0], win->in[1], row, column);

                if (mask->dtype != TRM_DTYPE_NONE)
                    v *= trm_tensor_get_f64(mask, at * space + s);
                sum += v * trm_tensor_get_f64(w, (m * c_group + c - first) * taps + t);
            }
        trm_ref_store(r, i, sum);
    }
}

/* Bin `at` of `bins` over [start, start + extent), cut to [0, limit). */
static void bin_range(int64_t at, int64_t bins, int64_t start, int64_t extent, int64_t limit,
                      int64_t *from, int64_t *to)
{
    double size = (double)extent / (double)bins;
    double lo = floor((double)at * size) + (double)start;
    double hi = ceil((double)(at + 1) * size) + (double)start;

    *from = (int64_t)fmin(fmax(lo, 0.0), (double)limit);
    *to = (int64_t)fmin(fmax(hi, 0.0), (double)limit);
}

static int64_t corner(const trm_tensor *rois, size_t i, double scale)
{
    double v = round(trm_tensor_get_f64(rois, i) * scale);

    return v > 1e9 ? 1000000000 : v > -1e9 ? (int64_t)v : -1000000000; /* NaN too */
}

void trm_max_roi_pool_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[0], *rois = &r->in[1], *y = &r->out[0];
    int64_t rows = x->dims[2], columns = x->dims[3];
    size_t channels = (size_t)x->dims[1], height = (size_t)y->dims[2], width = (size_t)y->dims[3];

    for (size_t i = begin; i < end; i++) {
        size_t pw = i % width, ph = i / width % height, c = i / width / height % channels;
        size_t roi = i / width / height / channels;
        double image = trm_tensor_get_f64(rois, roi * 5), best = -INFINITY;
        int64_t x1 = corner(rois, roi * 5 + 1, r->f[0]), y1 = corner(rois, roi * 5 + 2, r->f[0]);
        int64_t x2 = corner(rois, roi * 5 + 3, r->f[0]), y2 = corner(rois, roi * 5 + 4, r->f[0]);
        int64_t from_row, to_row, from_column, to_column;

        bin_range((int64_t)ph, (int64_t)height, y1, y2 - y1 + 1 > 1 ? y2 - y1 + 1 : 1, rows,
                  &from_row, &to_row);
        bin_range((int64_t)pw, (int64_t)width, x1, x2 - x1 + 1 > 1 ? x2 - x1 + 1 : 1, columns,
                  &from_column, &to_column);
        if (!(image >= 0.0 && image < (double)x->dims[0]))
            to_row = from_row;
        for (int64_t row = from_row; row < to_row; row++)
            for (int64_t column = from_column; column < to_column; column++)
                best = fmax(best,
                            trm_tensor_get_f64(
                                x, (((size_t)image * channels + c) * (size_t)rows + (size_t)row) *
                                           (size_t)columns +
                                       (size_t)column));
        trm_ref_store(r, i, best > -INFINITY ? best : 0.0);
    }
}

void trm_max_unpool_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[0], *indices = &r->in[1];
    trm_tensor y = r->out[0];
    size_t count = trm_tensor_numel(x);

    (void)begin;
    (void)end;
    for (size_t i = 0; i < trm_tensor_numel(&y); i++)
        trm_tensor_set_f64(&y, i, 0.0);
    for (size_t i = 0; i < count; i++) {
        int64_t at = trm_tensor_get_i64(indices, i);
        size_t to = 0, step = 1;
        bool inside = at >= 0;

        for (int d = x->rank - 1; d >= 0; d--) {
            int64_t dim = d < 2 ? x->dims[d] : r->window.out[d - 2], index = at % dim;

            at /= dim;
            inside = inside && index < y.dims[d];
            to += inside ? (size_t)index * step : 0;
            step *= (size_t)y.dims[d];
        }
        if (inside && at == 0)
            trm_tensor_set_f64(&y, to, trm_tensor_get_f64(x, i));
    }
}

void trm_causal_conv_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[0], *w = &r->in[1], *bias = &r->in[2], *past = &r->in[3];
    trm_tensor y = r->out[0], state = r->out[1];
    size_t channels = (size_t)x->dims[1], length = (size_t)x->dims[2], taps = (size_t)w->dims[2];
    size_t before = taps - 1;

    for (size_t i = begin; i < end; i++) {
        size_t c = i % channels;

        for (size_t t = 0; t < length + before; t++) {
            /* t < length: output t; behind it: the state, which is padded input t */
            bool is_state = t >= length;
            double sum = 0.0;

            for (size_t k = 0; k < (is_state ? 1 : taps); k++) {
                size_t at = t + k; /* in the padded input */
                double v = 0.0;

                if (at >= before)
                    v = trm_tensor_get_f64(x, i * length + at - before);
                else if (past->dtype != TRM_DTYPE_NONE)
                    v = trm_tensor_get_f64(past, i * before + at);
                sum += is_state ? v : v * trm_tensor_get_f64(w, c * taps + k);
            }
            if (is_state) {
                if (state.dtype != TRM_DTYPE_NONE && state.data != NULL)
                    trm_tensor_set_f64(&state, i * before + t - length, sum);
                continue;
            }
            if (bias->dtype != TRM_DTYPE_NONE)
                sum += trm_tensor_get_f64(bias, c);
            if (r->b[0])
                sum = sum / (1.0 + exp(-sum));
            trm_tensor_set_f64(&y, i * length + t, sum);
        }
    }
}
