/* See lm_rows.h. */
#include "kernels/reference/lm_rows.h"

#include <math.h>
#include <string.h>

void trm_lm_norm_reference(bool layer, double epsilon, double offset, size_t n, const float *x,
                           const float *gain, const float *bias, double *out)
{
    double mean = 0.0, squares = 0.0;

    for (size_t i = 0; layer && i < n; i++)
        mean += (double)x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    for (size_t i = 0; i < n; i++)
        out[i] = ((double)x[i] - mean) / sqrt(squares / (double)n + epsilon) *
                     ((double)gain[i] + offset) +
                 (bias != NULL ? (double)bias[i] : 0.0);
}

void trm_lm_rope_reference(bool interleaved, double scale, size_t n, size_t half,
                           const float *frequencies, int32_t position, const float *x, double *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (double)x[i];
    for (size_t i = 0; i < half; i++) {
        size_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;
        double angle = (double)((float)position * frequencies[i]);
        double c = cos(angle) * scale, s = sin(angle) * scale;

        out[a] = (double)x[a] * c - (double)x[b] * s;
        out[b] = (double)x[b] * c + (double)x[a] * s;
    }
}

double trm_lm_act_reference(const char *act, double cap, double x)
{
    if (strcmp(act, "silu") == 0)
        return x / (1.0 + exp(-x));
    if (strcmp(act, "gelu") == 0)
        return 0.5 * x * erfc(-x / sqrt(2.0));
    if (strcmp(act, "gelu_tanh") == 0)
        return x / (1.0 + exp(-2.0 * sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x)));
    if (strcmp(act, "relu") == 0)
        return x < 0.0 ? 0.0 : x;
    if (strcmp(act, "tanh") == 0)
        return tanh(x);
    if (strcmp(act, "softcap") == 0)
        return cap * tanh(x / cap);
    return x;
}
