/* Pooling as a walk over each output's window. */
#include "kernels/reference/pool.h"

#include <math.h>

/* A window in progress: positions are unravelled tap by tap. */
typedef struct place {
    int64_t out[TRM_SPATIAL_MAX];
    size_t taps, plane; /* taps in a window; first element of the (n, c) plane */
} place;

static place place_of(const trm_ref *r, size_t i)
{
    const trm_window *w = &r->window;
    place p = {.taps = 1, .plane = 1};
    size_t space = 1;

    for (int d = w->spatial - 1; d >= 0; d--) {
        p.out[d] = (int64_t)(i % (size_t)w->out[d]);
        i /= (size_t)w->out[d];
        p.taps *= (size_t)w->kernel[d];
        space *= (size_t)w->in[d];
    }
    p.plane = i * space;
    return p;
}

/* Position of tap t: false where it lies outside the input. `padded_out`: whether it lies inside
 * the input with its given pads (which counts in an average), whatever ceil_mode adds beyond. */
static bool tap_at(const trm_window *w, const place *p, size_t t, int64_t *at, bool *padded_out)
{
    bool inside = true;

    *padded_out = true;
    for (int d = w->spatial - 1; d >= 0; d--) {
        int64_t k = (int64_t)(t % (size_t)w->kernel[d]);

        t /= (size_t)w->kernel[d];
        at[d] = p->out[d] * w->stride[d] - w->pad_begin[d] + k * w->dilation[d];
        inside = inside && at[d] >= 0 && at[d] < w->in[d];
        *padded_out = *padded_out && at[d] < w->in[d] + w->pad_end[d];
    }
    return inside;
}

static size_t flat(const trm_window *w, const int64_t *at)
{
    size_t index = 0;

    for (int d = 0; d < w->spatial; d++)
        index = index * (size_t)w->in[d] + (size_t)at[d];
    return index;
}

static size_t flat_column_major(const trm_window *w, const int64_t *at)
{
    size_t index = 0;

    for (int d = w->spatial - 1; d >= 0; d--)
        index = index * (size_t)w->in[d] + (size_t)at[d];
    return index;
}

void trm_max_pool_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_window *w = &r->window;
    trm_tensor y = r->out[0], indices = r->out[1];
    bool wanted = indices.dtype != TRM_DTYPE_NONE && indices.data != NULL;
    int64_t at[TRM_SPATIAL_MAX];
    bool padded;

    for (size_t i = begin; i < end; i++) {
        place p = place_of(r, i);
        double best = -INFINITY;
        size_t where = 0;
        bool first = true;

        for (size_t t = 0; t < p.taps; t++) {
            double v;

            if (!tap_at(w, &p, t, at, &padded))
                continue;
            v = trm_tensor_get_f64(&r->in[0], p.plane + flat(w, at));
            if (!first && !(v > best) && !isnan(v))
                continue;
            best = v;
            where = p.plane + (r->b[0] ? flat_column_major(w, at) : flat(w, at));
            first = false;
            if (isnan(v))
                break;
        }
        if (trm_dtype_is_float(y.dtype))
            trm_ref_store(r, i, best);
        else
            trm_tensor_set_i64(&y, i, first ? 0 : (int64_t)best);
        if (wanted)
            trm_tensor_set_i64(&indices, i, (int64_t)where);
    }
}

void trm_average_pool_reference(const trm_ref *r, size_t begin, size_t end)
{
    int64_t at[TRM_SPATIAL_MAX];

    for (size_t i = begin; i < end; i++) {
        place p = place_of(r, i);
        double sum = 0.0;
        size_t count = 0;

        for (size_t t = 0; t < p.taps; t++) {
            bool padded, inside = tap_at(&r->window, &p, t, at, &padded);

            if (inside)
                sum += trm_tensor_get_f64(&r->in[0], p.plane + flat(&r->window, at));
            count += inside || (r->b[0] && padded);
        }
        trm_ref_store(r, i, count == 0 ? 0.0 : sum / (double)count);
    }
}

void trm_lp_pool_reference(const trm_ref *r, size_t begin, size_t end)
{
    double power = (double)r->i[0];
    int64_t at[TRM_SPATIAL_MAX];

    for (size_t i = begin; i < end; i++) {
        place p = place_of(r, i);
        double sum = 0.0;
        bool padded;

        for (size_t t = 0; t < p.taps; t++)
            if (tap_at(&r->window, &p, t, at, &padded))
                sum +=
                    pow(fabs(trm_tensor_get_f64(&r->in[0], p.plane + flat(&r->window, at))), power);
        trm_ref_store(r, i, pow(sum, 1.0 / power));
    }
}
