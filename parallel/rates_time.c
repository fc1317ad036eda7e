/* Time from work: the baseline, what samples near it say, the team, company, far weights, bf16. */
#include "parallel/rates_impl.h"

#include <math.h>

const double trmi_reach_mib[TRMI_REACHES] = {8, 32, 96, 192};

/* The formula that samples correct. */
static double baseline_us(const trm_rates *r, const trmi_work *w, int threads)
{
    double gb_s = r->gb_s * threads, computing, reading;

    if (gb_s > r->gb_s_all)
        gb_s = r->gb_s_all;
    computing = w->flops / (r->gflops[0] * 1e3 * threads);
    reading = w->bytes / (gb_s * 1e3);
    /* packed weights stream in while their multiply-adds are done */
    return r->fixed_us +
           (w->kind == TRMI_LANGUAGE ? fmax(computing, reading) : computing + reading);
}

/* How much a doubling of each feature counts as distance. */
static const double weight[TRMI_CLASSES][TRMI_FEATURES] = {
    [TRMI_DENSE] = {1, 1, 1},
    [TRMI_PRODUCT] = {1, 1, 1, 0.5},
    [TRMI_CONV] = {1, 1, 0.7, 0.5, 3, 4},
    [TRMI_CONV_FEW] = {1, 1, 0.7, 0.5, 0.5, 1},
    [TRMI_DEPTHWISE] = {0.5, 0.5, 1, 0.5, 1, 4},
    [TRMI_GROUPED] = {1, 1, 0.7, 0.5, 1, 0.3},
    [TRMI_CONV_UP] = {1, 1, 0.7, 0.5, 1, 1},
    [TRMI_ATTENTION] = {0.3, 1, 1, 1},
    [TRMI_RECURRENT] = {0.3, 1, 1, 1},
    [TRMI_ADD] = {1},
    [TRMI_MATH] = {1},
    [TRMI_NORM] = {1, 0.3},
    [TRMI_SOFTMAX] = {1, 0.3},
    [TRMI_POOL] = {1, 0.5},
    [TRMI_REDUCE] = {1},
    [TRMI_MOVE] = {1},
    [TRMI_GATHER] = {1, 0.5},
    [TRMI_OTHER] = {1},
    [TRMI_LANGUAGE] = {1, 1, 1},
};

static double distance2(const trmi_work *a, const trmi_work *b)
{
    double d2 = 0;

    for (int i = 0; i < TRMI_FEATURES; i++) {
        double d = log2(a->feature[i] / b->feature[i]);

        d2 += weight[a->kind][i] * d * d;
    }
    return d2;
}

static trmi_class stands_for(trmi_class c)
{
    return c == TRMI_OTHER ? TRMI_MOVE : c;
}

/* A sample's logarithm: of measured over baseline, or of the other case over one thread alone. */
static bool log_of(const trm_rates *r, const trmi_sample *s, trmi_case which, bool over_alone,
                   double *log_out)
{
    double under = over_alone ? s->us[TRMI_ALONE]
                              : baseline_us(r, &s->work, which == TRMI_TEAM ? r->threads : 1);

    if (!(s->us[which] > 0) || !(under > 0))
        return false;
    *log_out = log(s->us[which] / under);
    return true;
}

/* That logarithm near `w`, sample `without` left out. False where nothing of the class was
 * measured.
 */
static bool near(const trm_rates *r, const trmi_work *work, trmi_case which, bool over_alone,
                 const trmi_sample *without, double *log_out)
{
    trmi_work w = *work;
    double sum = 0, weights = 0;

    w.kind = stands_for(w.kind);
    for (int i = 0; i < r->sample_count; i++) {
        const trmi_sample *s = &r->samples[i];
        double share, d2, value;

        if (s == without || s->work.kind != w.kind || !log_of(r, s, which, over_alone, &value))
            continue;
        d2 = distance2(&w, &s->work) + 0.01;
        share = 1 / (d2 * d2);
        sum += share * value;
        weights += share;
    }
    if (weights > 0)
        *log_out = sum / weights;
    return weights > 0;
}

static double alone_us(const trm_rates *r, const trmi_work *w)
{
    double correction;

    if (!near(r, w, TRMI_ALONE, false, NULL, &correction))
        return baseline_us(r, w, 1);
    return baseline_us(r, w, 1) * exp(correction) * TRMI_IN_STEP;
}

double trmi_rates_expect(const trm_rates *r, const trmi_sample *sample, trmi_case which)
{
    double base = baseline_us(r, &sample->work, which == TRMI_TEAM ? r->threads : 1), correction;

    return near(r, &sample->work, which, false, sample, &correction) ? base * exp(correction)
                                                                     : base;
}

/* Crowded over alone: of the samples near, of any class by share of time that bytes take. */
static double crowding(const trm_rates *r, const trmi_work *w)
{
    double sum = 0, weights = 0;
    double mine = log2((w->flops + 1) / (w->bytes + 1));

    for (int i = 0; i < r->sample_count; i++) {
        const trmi_sample *s = &r->samples[i];
        double d, near;

        if (!(s->us[TRMI_CROWDED] > 0) || !(s->us[TRMI_ALONE] > 0))
            continue;
        d = mine - log2((s->work.flops + 1) / (s->work.bytes + 1));
        near = 1 / (d * d + 0.25 + (s->work.kind == w->kind ? 0 : 4));
        sum += near * log(s->us[TRMI_CROWDED] / s->us[TRMI_ALONE]);
        weights += near;
    }
    if (weights > 0)
        return exp(sum / weights);
    /* not measured: bandwidth is shared */
    return w->flops / (r->gflops[0] * 1e3) > w->bytes / (r->gb_s * 1e3)
               ? 1.1
               : fmax(1.1, r->gb_s * r->cpus / r->gb_s_all);
}

/* Of one thread or the team, us to read a MiB of `mib` that are read in turn. */
static double read_at(const double *us_mb, double mib)
{
    int i = 0;

    if (mib <= trmi_reach_mib[0])
        return us_mb[0];
    while (i < TRMI_REACHES - 1 && mib > trmi_reach_mib[i + 1])
        i++;
    if (i == TRMI_REACHES - 1)
        return us_mb[i];
    return us_mb[i] + (us_mb[i + 1] - us_mb[i]) * log2(mib / trmi_reach_mib[i]) /
                          log2(trmi_reach_mib[i + 1] / trmi_reach_mib[i]);
}

double trmi_rates_far_us(const trm_rates *r, const trmi_work *w, int threads, int busy_ranks,
                         size_t step_bytes)
{
    double mib = step_bytes == 0 ? 1e6 : (double)step_bytes / 1048576;
    double alone, team, extra;

    if (!(w->weights > 0) || !(r->read_us_mb[0][0] > 0))
        return 0;
    alone = read_at(r->read_us_mb[0], mib);
    team = r->threads > 1 && r->read_us_mb[1][0] > 0 ? read_at(r->read_us_mb[1], mib) : alone;
    if (threads > 1 && r->read_us_mb[1][0] > 0) {
        extra = team - r->read_us_mb[1][TRMI_REACH_SAMPLES];
    } else {
        double shared = team * (busy_ranks < r->threads ? busy_ranks : r->threads);

        extra = (busy_ranks > 1 && shared > alone ? shared : alone) -
                r->read_us_mb[0][TRMI_REACH_SAMPLES];
    }
    return extra > 0 ? extra * w->weights / 1048576 : 0;
}

double trmi_rates_us(const trm_rates *r, const trmi_work *w, int threads, int busy_ranks,
                     trm_dtype dtype)
{
    double us;
    int used;

    threads = threads < 1 ? 1 : threads;
    busy_ranks = busy_ranks < 1 ? 1 : busy_ranks;
    us = alone_us(r, w);
    if (threads > 1) { /* by the power of the thread count that the team shows */
        int most = threads < r->cpus ? threads : r->cpus;
        double gain;

        if (r->threads > 1 && near(r, w, TRMI_TEAM, true, NULL, &gain))
            us *= exp(fmax(gain / log(r->threads), -1) * log(most)); /* at best divided evenly */
        else
            us *= baseline_us(r, w, most) / baseline_us(r, w, 1);
    }
    used = threads * busy_ranks;
    if (busy_ranks > 1 && r->cpus > 1) {
        double full = crowding(r, w), share = (double)(used - threads) / (r->cpus - 1);

        us *= 1 + (full - 1) * (share > 1 ? 1 : share);
    }
    if (used > r->cpus)
        us *= (double)used / r->cpus;
    if (dtype == TRM_DTYPE_BF16 && w->flops > 0 && w->kind <= TRMI_GROUPED) {
        double f32 = w->flops / (r->gflops[0] * 1e3), bf16 = w->flops / (r->gflops[1] * 1e3);
        double ratio = r->bf16[0] <= 0 ? bf16 / f32 : threads > 1 ? r->bf16[1] : r->bf16[0];
        double dense = f32 / threads / baseline_us(r, w, threads);

        us *= 1 - dense * (1 - ratio);
    }
    return us;
}
