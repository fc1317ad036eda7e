/* Normalisation in one floating type, included by norm.c once a type: T, NAME(x), SUM(x, n),
 * SQUARES(x, n), DEVIATIONS(x, n, mean), NORMALISE(out, x, n, mean, scale, gain, bias), SQRT(x). No
 * include guard. x may be out. */

/* LayerNormalization, RMSNormalization: one row. */
static void NAME(layer)(const norm_kernel *k, T *out, const T *x, const T *gain, const T *bias,
                        T *mean_out, T *inverse_out)
{
    T mean = k->centre ? SUM(x, k->n) / (T)k->n : 0;
    T squares = k->centre ? DEVIATIONS(x, k->n, mean) : SQUARES(x, k->n);
    T inverse = 1 / SQRT(squares / (T)k->n + (T)k->epsilon);

    NORMALISE(out, x, k->n, mean, inverse, gain, bias);
    *mean_out = mean;
    *inverse_out = inverse;
}

/* InstanceNormalization, GroupNormalization: row `r` is one group of `channels` of `spatial`
 * elements. */
static void NAME(group)(const norm_kernel *k, T *out, const T *x, size_t r, const T *gain,
                        const T *bias)
{
    T mean = SUM(x, k->n) / (T)k->n;
    T inverse = 1 / SQRT(DEVIATIONS(x, k->n, mean) / (T)k->n + (T)k->epsilon);

    for (size_t c = 0; c < k->channels; c++) {
        size_t at = k->per_group ? r % k->groups : r % k->groups * k->channels + c;
        const T scale = inverse * gain[at], shift = bias[at];
        const T *from = x + c * k->spatial;
        T *to = out + c * k->spatial;

        _Pragma("GCC ivdep") for (size_t i = 0; i < k->spatial; i++) to[i] =
            (from[i] - mean) * scale + shift;
    }
}

/* LpNormalization of n elements `step` apart; a zero vector stays zero. */
static void NAME(lp)(const norm_kernel *k, T *out, const T *x, size_t step)
{
    T norm = 0;

    for (size_t i = 0; i < k->n; i++)
        norm +=
            k->p == 1 ? (x[i * step] < 0 ? -x[i * step] : x[i * step]) : x[i * step] * x[i * step];
    if (k->p != 1)
        norm = SQRT(norm);
    for (size_t i = 0; i < k->n; i++)
        out[i * step] = norm == 0 ? 0 : x[i * step] / norm;
}

static void NAME(range)(void *ctx, size_t begin, size_t end)
{
    const norm_job *job = ctx;
    const norm_kernel *k = job->k;
    const T *x = job->x, *gain = job->gain, *bias = job->bias;
    T *out = job->out, *mean = job->mean, *inverse = job->inverse;

    for (size_t r = begin; r < end; r++) {
        T m, v;

        switch (k->op) {
        case TRM_OP_LayerNormalization:
        case TRM_OP_RMSNormalization:
            NAME(layer)(k, out + r * k->n, x + r * k->n, gain, bias, &m, &v);
            if (mean != NULL)
                mean[r] = m;
            if (inverse != NULL)
                inverse[r] = v;
            break;
        case TRM_OP_LpNormalization: {
            size_t at = r / k->spatial * k->n * k->spatial + r % k->spatial;

            NAME(lp)(k, out + at, x + at, k->spatial);
            break;
        }
        default:
            NAME(group)(k, out + r * k->n, x + r * k->n, r, gain, bias);
        }
    }
}
