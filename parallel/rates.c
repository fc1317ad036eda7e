/* The rates object: where it comes from, and time from work. */
#define _GNU_SOURCE
#include "parallel/rates_impl.h"

#include "base/log.h"
#include "base/team.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROBE_MS 5000 /* of measuring; what is left then is interpolated */

const double trmi_reach_mib[TRMI_REACHES] = {8, 32, 96, 192};

/* ---- built in ---- */

/* A plain server core of these years (AVX-512 or two AVX2 units): what measured machines were
 * within a factor of two of. */
static void plain_cpu(trm_rates *r, int cpus)
{
    r->cpus = r->threads = cpus;
    r->gflops[0] = 90;
    r->gflops[1] = 180;
    r->gb_s = 9;
    r->gb_s_all = 9.0 * (cpus < 12 ? cpus : 12);
    r->fixed_us = 1;
    r->dispatch_us = 0.3;
    r->bf16[0] = r->bf16[1] = 0.5;
    /* shared window, 2 ranks, producer in place: 0.7 us at 2 KB, 7 at 64 KB, 77 at 1 MB; waking
     * and skew come on top. Messages are copied twice. Network: one switch, tcp. */
    r->link[TRM_LINK_HOST][0] = (trmi_line){3.0, 77.0 / 1048576};
    r->link[TRM_LINK_HOST][1] = (trmi_line){5.0, 200.0 / 1048576};
    r->link[TRM_LINK_NETWORK][0] = (trmi_line){20.0, 740.0 / 1048576};
    r->link[TRM_LINK_NETWORK][1] = (trmi_line){20.0, 700.0 / 1048576};
}

trm_status trmi_rates_builtin(trm_rates **rates_out)
{
    trm_rates *r = trm_calloc(1, sizeof(*r));
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (r != NULL)
        r->samples = trm_calloc(TRMI_SAMPLES_MAX, sizeof(*r->samples));
    if (r == NULL || r->samples == NULL) {
        trm_free(r);
        return trm_fail(TRM_ERR_NO_MEMORY, "rates");
    }
    snprintf(r->source, sizeof(r->source), "built in");
    r->memory_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    plain_cpu(r, cpus < 1 ? 1 : (int)cpus);
    *rates_out = r;
    return TRM_OK;
}

void trm_rates_destroy(trm_rates *r)
{
    if (r != NULL)
        trm_free(r->samples);
    trm_free(r);
}

const char *trm_rates_source(const trm_rates *r)
{
    return r->source;
}

size_t trm_rates_memory_bytes(const trm_rates *r)
{
    return r->memory_bytes;
}

/* ---- descriptions ---- */

static bool number(const char *text, const char *unit, double min, double max, double *value_out)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || strcmp(end, unit) != 0 || !(v >= min) || !(v <= max))
        return false;
    *value_out = v;
    return true;
}

trm_status trm_rates_describe(const char *device, trm_rates **rates_out)
{
    trm_rates *r = NULL;
    double v = 0;
    bool cpu =
        strncmp(device, "cpu:", 4) == 0 && number(device + 4, "", 1, 4096, &v) && v == floor(v);
    bool cuda = !cpu && strncmp(device, "cuda:", 5) == 0 &&
                (number(device + 5, "GiB", 1, 4096, &v) || number(device + 5, "", 1, 4096, &v));

    if (!cpu && !cuda)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "device '%s': want cpu:CORES (cpu:16) or cuda:MEMORY (cuda:80GiB)", device);
    TRM_CHECK(trmi_rates_builtin(&r));
    if (cpu) {
        plain_cpu(r, (int)v);
    } else {
        /* one accelerator of this memory: fp32 and bf16 dense rates and bandwidth of data sheets
         * (A100 80 GB: 19.5, 312 Tflop/s, 2.0 TB/s; H200 141 GB: 67, 990, 4.8), of which dense work
         * reaches about 60 %; launches of 3 us; NVLink collectives */
        bool hopper = v > 90;

        r->cpus = r->threads = 1;
        r->memory_bytes = (size_t)(v * 1073741824.0);
        r->gflops[0] = 0.6 * (hopper ? 67e3 : v > 45 ? 19.5e3 : 15e3);
        r->gflops[1] = 0.6 * (hopper ? 990e3 : v > 45 ? 312e3 : 120e3);
        r->gb_s = r->gb_s_all = 0.8 * (hopper ? 4800 : v > 45 ? 2000 : 600);
        r->fixed_us = 3;
        r->dispatch_us = 0.3;
        r->bf16[0] = r->bf16[1] = 0;
        r->link[TRM_LINK_HOST][0] = (trmi_line){10.0, 1e6 / 200e9};
        r->link[TRM_LINK_HOST][1] = (trmi_line){8.0, 1e6 / 200e9};
        r->link[TRM_LINK_NETWORK][0] = (trmi_line){20.0, 1e6 / 40e9};
        r->link[TRM_LINK_NETWORK][1] = (trmi_line){15.0, 1e6 / 40e9};
    }
    snprintf(r->source, sizeof(r->source), "data sheet (%s)", device);
    *rates_out = r;
    return TRM_OK;
}

/* ---- of this machine ---- */

static int allowed_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) != 0 ? 1 : CPU_COUNT(&set);
}

/* The name of the device without its threads ("CPU, 2 threads, isa"), the CPUs, and the version of
 * what is measured: kernels and the list of samples. */
static void name_machine(trm_device *device, trm_rates *r)
{
    trm_device_info info;
    const char *isa, *comma;

    if (device == NULL)
        return;
    device->ops->info(device, &info);
    comma = strchr(info.name, ',');
    isa = strrchr(info.name, ',');
    snprintf(r->machine, sizeof(r->machine), "%.*s,%s, %d cpus",
             comma == NULL ? (int)strlen(info.name) : (int)(comma - info.name), info.name,
             isa == NULL ? "" : isa + 1, r->cpus);
}

static trm_status measure(trm_device *device, trm_rates *r, const char *path)
{
    time_t now = time(NULL);
    struct tm day;
    trm_status st;

    TRM_CHECK(trmi_rates_probe(device, PROBE_MS, r));
    if (gmtime_r(&now, &day) != NULL)
        strftime(r->date, sizeof(r->date), "%Y-%m-%d", &day);
    snprintf(r->source, sizeof(r->source), "measured %s", r->date);
    st = path == NULL ? trm_fail(TRM_ERR_NOT_FOUND, "no cache folder") : trmi_rates_store(path, r);
    if (st != TRM_OK)
        TRM_LOG(TRM_LOG_INFO, "rates", "not cached: %s", trm_message());
    return TRM_OK;
}

trm_status trm_rates_cpu(trm_device *device, bool refresh, trm_rates **rates_out)
{
    trm_rates *r;
    trm_device *own = NULL;
    char *path;
    trm_status st;

    TRM_CHECK(trmi_rates_builtin(&r));
    if (device == NULL) { /* naming the machine takes one; its making sets the team's size */
        int threads = trm_team_size();

        if (trm_device_cpu_create(threads, &own) != TRM_OK)
            own = NULL;
    }
    name_machine(device != NULL ? device : own, r);
    trm_device_destroy(own);
    path = trmi_rates_cache_path(r->machine);
    st = path == NULL ? TRM_ERR_NOT_FOUND : TRM_OK;
    if (path != NULL && !refresh)
        st = trmi_rates_load(path, r);
    if (st == TRM_OK && !refresh) {
        snprintf(r->source, sizeof(r->source), "cache, measured %s", r->date);
        /* a rank bound to few CPUs measured it: now more can be seen */
        if (device != NULL && r->threads < allowed_cpus() && r->threads < r->cpus)
            st = TRM_ERR_NOT_FOUND;
    } else if (st == TRM_ERR_BAD_FILE) {
        TRM_LOG(TRM_LOG_INFO, "rates", "cache ignored: %s", trm_message());
    }
    if (device != NULL && (refresh || st != TRM_OK)) {
        trm_rates *fresh;

        st = trmi_rates_builtin(&fresh);
        if (st == TRM_OK) {
            memcpy(fresh->machine, r->machine, sizeof(r->machine));
            st = measure(device, fresh, path);
            trm_rates_destroy(st == TRM_OK ? r : fresh);
            r = st == TRM_OK ? fresh : r;
        }
        if (st != TRM_OK) {
            trm_free(path);
            trm_rates_destroy(r);
            return trm_fail_context(st, "measuring rates");
        }
    }
    trm_free(path);
    *rates_out = r;
    return TRM_OK;
}

/* ---- time ---- */

/* The formula that samples correct. */
static double baseline_us(const trm_rates *r, const trmi_work *w, int threads)
{
    double gb_s = r->gb_s * threads;

    if (gb_s > r->gb_s_all)
        gb_s = r->gb_s_all;
    return r->fixed_us + w->flops / (r->gflops[0] * 1e3 * threads) + w->bytes / (gb_s * 1e3);
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

/* log(measured / baseline) near `w`, `without` left out; 0 where nothing of the class was measured.
 */
static double correction(const trm_rates *r, const trmi_work *work, trmi_case which,
                         const trmi_sample *without)
{
    trmi_work w = *work;
    double sum = 0, weights = 0;

    w.kind = stands_for(w.kind);
    for (int i = 0; i < r->sample_count; i++) {
        const trmi_sample *s = &r->samples[i];
        double near, d2;
        int threads = which == TRMI_TEAM ? r->threads : 1;

        if (s == without || s->work.kind != w.kind || !(s->us[which] > 0))
            continue;
        d2 = distance2(&w, &s->work) + 0.01;
        near = 1 / (d2 * d2);
        sum += near * log(s->us[which] / baseline_us(r, &s->work, threads));
        weights += near;
    }
    return weights > 0 ? sum / weights : 0;
}

double trmi_rates_expect(const trm_rates *r, const trmi_sample *sample, trmi_case which)
{
    return baseline_us(r, &sample->work, which == TRMI_TEAM ? r->threads : 1) *
           exp(correction(r, &sample->work, which, sample));
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
    if (threads > 1) {
        extra = team - read_at(r->read_us_mb[1], trmi_reach_mib[TRMI_REACH_SAMPLES]);
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
    double alone, us, team;
    int used;

    threads = threads < 1 ? 1 : threads;
    busy_ranks = busy_ranks < 1 ? 1 : busy_ranks;
    alone = us = baseline_us(r, w, 1) * exp(correction(r, w, TRMI_ALONE, NULL));
    if (threads > 1) {
        /* where the team was not measured, what was learned of one thread holds */
        bool measured = r->threads > 1 && r->sample_count > 0;
        int most = threads < r->cpus ? threads : r->cpus;

        team = measured ? baseline_us(r, w, r->threads) * exp(correction(r, w, TRMI_TEAM, NULL))
                        : baseline_us(r, w, most) * exp(correction(r, w, TRMI_ALONE, NULL));
        us = measured ? alone * pow(team / alone, log(most) / log(r->threads)) : team;
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
