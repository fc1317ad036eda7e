/* The rates object: built in, and of this machine's CPU. */
#define _GNU_SOURCE
#include "parallel/rates_impl.h"

#include "base/log.h"
#include "base/team.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROBE_MS 5000 /* of measuring; what is left then is interpolated */
#define PROBES_MAX 4  /* until a busy machine is taken as it is */

/* ---- built in ---- */

/* A plain server core of these years (AVX-512 or two AVX2 units): what measured machines were
 * within a factor of two of. */
void trmi_rates_plain_cpu(trm_rates *r, int cpus)
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
    trmi_rates_plain_cpu(r, cpus < 1 ? 1 : (int)cpus);
    *rates_out = r;
    return TRM_OK;
}

void trm_rates_destroy(trm_rates *r)
{
    if (r != NULL) {
        trm_rates_destroy(r->gpu.host);
        trm_free(r->samples);
    }
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

bool trm_rates_is_gpu(const trm_rates *r)
{
    return r->gpu.is;
}

size_t trm_rates_usable_bytes(const trm_rates *r, size_t bytes)
{
    size_t reserve = bytes / 10 < TRMI_GPU_RESERVE ? bytes / 10 : TRMI_GPU_RESERVE;

    return r->gpu.is ? bytes - reserve : bytes;
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
    snprintf(r->machine, sizeof(r->machine), "%.*s,%s, %d cpus, " TRM_VERSION,
             comma == NULL ? (int)strlen(info.name) : (int)(comma - info.name), info.name,
             isa == NULL ? "" : isa + 1, r->cpus);
}

static double least(double a, double b)
{
    return a > 0 && (!(b > 0) || a < b) ? a : b;
}

static bool same_work(const trmi_work *a, const trmi_work *b)
{
    for (int i = 0; i < TRMI_FEATURES; i++)
        if (a->feature[i] != b->feature[i])
            return false;
    return a->kind == b->kind && a->flops == b->flops && a->bytes == b->bytes &&
           a->weights == b->weights;
}

void trmi_rates_merge(trm_rates *r, const trm_rates *other)
{
    if (other->threads != r->threads)
        return;
    for (int i = 0; i < other->sample_count; i++) {
        const trmi_sample *s = &other->samples[i];
        int at = 0;

        while (at < r->sample_count && !same_work(&r->samples[at].work, &s->work))
            at++;
        if (at == TRMI_SAMPLES_MAX)
            continue;
        if (at == r->sample_count)
            r->samples[r->sample_count++] = *s;
        for (int k = 0; k < TRMI_CASES; k++)
            r->samples[at].us[k] = least(r->samples[at].us[k], s->us[k]);
    }
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < TRMI_REACHES; i++)
            r->read_us_mb[k][i] = least(r->read_us_mb[k][i], other->read_us_mb[k][i]);
    for (int i = 0; i < 2; i++) {
        trmi_line *a = &r->link[TRM_LINK_HOST][i];
        const trmi_line *b = &other->link[TRM_LINK_HOST][i];

        a->alpha = least(a->alpha, b->alpha);
        a->beta = least(a->beta, b->beta);
    }
    r->probes += other->probes;
    if (other->undisturbed > r->undisturbed)
        r->undisturbed = other->undisturbed;
}

/* Whether what is cached will do; a probe on a busy machine is bettered a few times. */
static bool will_do(const trm_rates *r)
{
    int allowed = allowed_cpus();

    if (r->threads < allowed && r->threads < r->cpus)
        return false; /* measured by a rank bound to few CPUs: now more can be seen */
    return r->undisturbed >= TRMI_QUIET || r->probes >= PROBES_MAX || allowed < r->threads;
}

void trmi_rates_dated(trm_rates *r)
{
    time_t now = time(NULL);
    struct tm day;

    if (gmtime_r(&now, &day) != NULL)
        strftime(r->date, sizeof(r->date), "%Y-%m-%d", &day);
    snprintf(r->source, sizeof(r->source), "measured %s", r->date);
}

static trm_status measure(const trm_rates *old, const char *path, trm_rates **rates_out)
{
    trm_rates *r;
    trm_status st;

    TRM_CHECK(trmi_rates_builtin(&r));
    memcpy(r->machine, old->machine, sizeof(r->machine));
    st = trmi_rates_probe(PROBE_MS, r);
    if (st != TRM_OK) {
        trm_rates_destroy(r);
        return trm_fail_context(st, "measuring rates");
    }
    r->probes = 1;
    if (old->sample_count > 0)
        trmi_rates_merge(r, old);
    trmi_rates_dated(r);
    if (r->undisturbed < TRMI_QUIET)
        TRM_LOG(TRM_LOG_INFO, "rates", "measured on a busy machine: had %.0f %% of a CPU",
                100 * r->undisturbed);
    st = path == NULL ? trm_fail(TRM_ERR_NOT_FOUND, "no cache folder") : trmi_rates_store(path, r);
    if (st != TRM_OK)
        TRM_LOG(TRM_LOG_INFO, "rates", "not cached: %s", trm_message());
    *rates_out = r;
    return TRM_OK;
}

trm_status trm_rates_cpu(trm_device *device, bool refresh, trm_rates **rates_out)
{
    trm_rates *r, *fresh = NULL;
    trm_device *own = NULL;
    trm_status st = TRM_OK;
    char *path;

    TRM_CHECK(trmi_rates_builtin(&r));
    if (device == NULL) { /* naming the machine takes one; its making sets the team's size */
        int threads = trm_team_size();

        if (trm_device_cpu_create(threads, &own) != TRM_OK)
            own = NULL;
    }
    name_machine(device != NULL ? device : own, r);
    trm_device_destroy(own);
    path = trmi_rates_cache_path(r->machine);
    if (path != NULL && !refresh) {
        st = trmi_rates_load(path, r);
        if (st == TRM_OK)
            snprintf(r->source, sizeof(r->source), "cache, measured %s", r->date);
        else if (st != TRM_ERR_NOT_FOUND)
            TRM_LOG(TRM_LOG_INFO, "rates", "cache ignored: %s", trm_message());
    }
    st = TRM_OK;
    if (device != NULL && (r->sample_count == 0 || !will_do(r))) {
        st = measure(r, path, &fresh);
        if (st == TRM_OK) {
            trm_rates_destroy(r);
            r = fresh;
        }
    }
    trm_free(path);
    if (st == TRM_OK)
        *rates_out = r;
    else
        trm_rates_destroy(r);
    return st;
}
