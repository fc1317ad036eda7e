/* Rotary frequencies and their scalings, after transformers' modeling_rope_utils.py: the same
 * fp32 steps in the same order, since an error of one unit in the last place of a frequency grows
 * with the position. Linear, NTK-aware ("dynamic"), YaRN (Peng et al. 2023, section 3), LongRoPE
 * (Ding et al. 2024) and Llama 3.1's.
 *
 * Two of them depend on the length of the sequence in the reference: NTK-aware and LongRoPE. Here
 * the model's context decides once, so that a token's bits do not depend on how long its sequence
 * will get, and keys in the cache stay valid: LongRoPE's long factors where the context is over the
 * original one, NTK-aware's base for the context. */
#include "model/architectures/blocks.h"

#include <math.h>

static bool positive(double x)
{
    return isfinite(x) && x > 0.0;
}

static trm_status bad(const char *what, double value)
{
    return trm_fail(TRM_ERR_BAD_FILE, "rope: %s is %g, want a positive number", what, value);
}

/* base ^ (2 i / rotary) */
static void powers(double base, int64_t rotary, float *out)
{
    for (int64_t i = 0; i < rotary / 2; i++)
        out[i] = (float)pow((double)(float)base, (double)((float)(2 * i) / (float)rotary));
}

static void plain(double base, int64_t rotary, float *f)
{
    powers(base, rotary, f);
    for (int64_t i = 0; i < rotary / 2; i++)
        f[i] = 1.0f / f[i];
}

static void llama3(const trm_lm_config *c, int64_t rotary, float *f)
{
    double low = c->rope_low_freq_factor, high = c->rope_high_freq_factor;
    double old = (double)c->rope_original_context;
    float longest = (float)(old / low), shortest = (float)(old / high);
    float factor = (float)c->rope_factor;

    for (int64_t i = 0; i < rotary / 2; i++) {
        float wave = (float)(2.0 * M_PI) / f[i];
        float scaled = wave > longest ? f[i] / factor : f[i];

        if (!(wave < shortest) && !(wave > longest)) {
            float smooth = ((float)old / wave - (float)low) / (float)(high - low);

            scaled = (1.0f - smooth) * scaled / factor + smooth * scaled;
        }
        f[i] = scaled;
    }
}

static double yarn_scale(double factor, double by)
{
    return factor <= 1.0 ? 1.0 : 0.1 * by * log(factor) + 1.0;
}

/* the dim that turns `turns` times within the original context */
static double yarn_dim(const trm_lm_config *c, double turns, int64_t rotary)
{
    return (double)rotary * log((double)c->rope_original_context / (turns * 2.0 * M_PI)) /
           (2.0 * log(c->rope_theta));
}

static void yarn(const trm_lm_config *c, double factor, int64_t rotary, float *f, float *scale_out)
{
    double fast = c->rope_beta_fast > 0.0 ? c->rope_beta_fast : 32.0;
    double slow = c->rope_beta_slow > 0.0 ? c->rope_beta_slow : 1.0;
    double low = fmax(floor(yarn_dim(c, fast, rotary)), 0.0);
    double high = fmin(ceil(yarn_dim(c, slow, rotary)), (double)(rotary - 1));
    double scale = c->rope_attention_factor;

    if (low == high)
        high += 0.001;
    powers(c->rope_theta, rotary, f);
    for (int64_t i = 0; i < rotary / 2; i++) {
        float ramp = ((float)i - (float)low) / (float)(high - low), keep, kept, scaled;

        ramp = ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp;
        keep = 1.0f - ramp;
        kept = 1.0f / f[i];
        scaled = 1.0f / ((float)factor * f[i]);
        f[i] = scaled * (1.0f - keep) + kept * keep;
    }
    if (scale == 0.0)
        scale =
            c->rope_mscale != 0.0 && c->rope_mscale_all_dim != 0.0
                ? yarn_scale(factor, c->rope_mscale) / yarn_scale(factor, c->rope_mscale_all_dim)
                : yarn_scale(factor, 1.0);
    *scale_out = (float)scale;
}

static trm_status longrope(const trm_lm_config *c, double factor, const double *by, int64_t rotary,
                           float *f, float *scale_out)
{
    double scale = c->rope_attention_factor;

    if (by == NULL || c->rope_factor_count != rotary / 2)
        return trm_fail(TRM_ERR_BAD_FILE, "rope: LongRoPE has %lld factors, want %lld",
                        (long long)(by == NULL ? 0 : c->rope_factor_count),
                        (long long)(rotary / 2));
    powers(c->rope_theta, rotary, f);
    for (int64_t i = 0; i < rotary / 2; i++) {
        if (!positive(by[i]))
            return bad("a factor of LongRoPE", by[i]);
        f[i] = 1.0f / ((float)by[i] * f[i]);
    }
    if (scale == 0.0)
        scale =
            factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log((double)c->rope_original_context));
    *scale_out = (float)scale;
    return TRM_OK;
}

/* What the scaling needs. */
static trm_status check(const trm_lm_config *c, double *factor_out)
{
    double factor = c->rope_factor;
    bool original = c->rope_scaling == TRM_ROPE_YARN || c->rope_scaling == TRM_ROPE_LONGROPE ||
                    c->rope_scaling == TRM_ROPE_LLAMA3;

    /* LongRoPE with a given scale: a table of factors and no more (GGUF's of Llama 3.1) */
    if (c->rope_scaling == TRM_ROPE_LONGROPE && c->rope_attention_factor > 0.0) {
        *factor_out = 1.0;
        return TRM_OK;
    }
    if (original && c->rope_original_context < 2)
        return bad("the original context", (double)c->rope_original_context);
    if (factor == 0.0 && original && c->rope_scaling != TRM_ROPE_LLAMA3)
        factor = (double)c->context / (double)c->rope_original_context;
    if (c->rope_scaling != TRM_ROPE_NONE && !positive(factor))
        return bad("factor", factor);
    if (c->rope_scaling == TRM_ROPE_LLAMA3) {
        if (!positive(c->rope_low_freq_factor))
            return bad("low_freq_factor", c->rope_low_freq_factor);
        if (!positive(c->rope_high_freq_factor - c->rope_low_freq_factor))
            return bad("high_freq_factor - low_freq_factor",
                       c->rope_high_freq_factor - c->rope_low_freq_factor);
    }
    *factor_out = factor;
    return TRM_OK;
}

trm_status trmi_rope_frequencies(const trm_lm_config *c, int64_t context, bool local,
                                 float *frequencies, float *scale_out)
{
    int64_t rotary = trmi_arch_rotary(c);
    double base = local ? c->rope_local_theta : c->rope_theta, factor = 1.0, longer;

    *scale_out = 1.0f;
    if (!positive(base) || base == 1.0)
        return trm_fail(TRM_ERR_BAD_FILE, "rope: theta is %g, want a positive number but 1", base);
    if (!local)
        TRM_CHECK(check(c, &factor));
    if (local || c->rope_scaling == TRM_ROPE_NONE) {
        plain(base, rotary, frequencies);
    } else if (c->rope_scaling == TRM_ROPE_LINEAR) {
        plain(base, rotary, frequencies);
        for (int64_t i = 0; i < rotary / 2; i++)
            frequencies[i] /= (float)factor;
    } else if (c->rope_scaling == TRM_ROPE_DYNAMIC) {
        longer = context > c->context ? (double)context / (double)c->context : 1.0;
        if (rotary > 2)
            base *= pow(factor * longer - (factor - 1.0), (double)rotary / (double)(rotary - 2));
        plain(base, rotary, frequencies);
    } else if (c->rope_scaling == TRM_ROPE_YARN) {
        yarn(c, factor, rotary, frequencies, scale_out);
    } else if (c->rope_scaling == TRM_ROPE_LONGROPE) {
        TRM_CHECK(longrope(c, factor,
                           context > c->rope_original_context ? c->rope_long : c->rope_short,
                           rotary, frequencies, scale_out));
    } else {
        plain(base, rotary, frequencies);
        llama3(c, rotary, frequencies);
    }
    for (int64_t i = 0; i < rotary / 2; i++)
        if (!isfinite(frequencies[i]))
            return bad("a frequency", (double)frequencies[i]);
    return positive((double)*scale_out) ? TRM_OK : bad("the scale", (double)*scale_out);
}
