/* The probe: runs trials on a device the way the executor would meet them and keeps the least time.
 *
 * Weights are constant and packed. In a network a kernel finds its input in the cache, since it has
 * just been made, and its weights further away: before each timed run other memory is read, twice
 * the second-level cache or, where weights are large, 32 MiB; then the inputs are written. What
 * else runs on the machine only makes runs longer, so a trial is run until its two best runs agree,
 * and those that stand out among their neighbours are tried again at the end.
 *
 * Three cases: one thread alone; one thread while threads on the other CPUs run the same kernel
 * (ranks side by side); the whole team. */
#define _GNU_SOURCE
#include "base/team.h"
#include "parallel/rates_probe_impl.h"

#include <sched.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RUNS 5              /* timed runs of a trial at most */
#define TRIALS_MIN 8        /* however slow the machine is */
#define AGREE 1.04          /* the two best runs are this near: enough */
#define TRIAL_US_MAX 150000 /* of one trial */
#define FAR_BYTES ((size_t)32 << 20)
#define LARGE_WEIGHTS ((size_t)256 << 10)

static double clock_us(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

double trmi_probe_now_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

/* What a kernel took. One thread is timed by its own clock, which stops while others have the CPU.
 */
static double kernel_clock_us(const trmi_probe *p)
{
    return clock_us(p->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}

void trmi_probe_phase(trmi_probe *p, double us)
{
    p->cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID);
    p->wall_us = trmi_probe_now_us();
    p->phase_us = us;
}

bool trmi_probe_over(const trmi_probe *p)
{
    return clock_us(CLOCK_THREAD_CPUTIME_ID) - p->cpu_us > p->phase_us ||
           trmi_probe_now_us() - p->wall_us > 2 * p->phase_us;
}

static trm_status pool_get(trmi_probe *p, int slot, size_t bytes, void **out)
{
    if (bytes > p->pool_bytes[slot] || p->pool[slot] == NULL) {
        trm_aligned_free(p->pool[slot]);
        p->pool_bytes[slot] = 0;
        p->pool[slot] = trm_aligned_malloc(bytes + 64);
        if (p->pool[slot] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "probe: %zu bytes", bytes);
        memset(p->pool[slot], 0, bytes);
        p->pool_bytes[slot] = bytes;
    }
    *out = p->pool[slot];
    return TRM_OK;
}

/* ---- one prepared trial ---- */

trm_status trmi_probe_prepare(trmi_probe *p, int index, trm_dtype dtype, trm_arena *arena,
                              trmi_ready *r)
{
    uint64_t keys[8] = {0};
    trm_op_desc desc;

    memset(r, 0, sizeof(*r));
    TRM_CHECK(trmi_trial_make(index, dtype, p->data, arena, &r->trial));
    desc = (trm_op_desc){.op = r->trial.node.op,
                         .attrs = &r->trial.node.attrs,
                         .name = "rates",
                         .input_count = r->trial.node.input_count,
                         .output_count = r->trial.node.output_count,
                         .inputs = r->trial.in,
                         .outputs = r->trial.out,
                         .weight_keys = keys};
    TRM_CHECK(p->device->ops->prepare(p->device, &desc, &r->kernel));
    for (int i = 0; i < desc.input_count; i++) {
        void *memory = NULL;

        TRM_CHECK(trm_tensor_bytes(&desc.inputs[i], &r->in_bytes[i]));
        r->weight_bytes += desc.inputs[i].data != NULL ? r->in_bytes[i] : 0;
        if (i < 32 && (r->kernel->packed_inputs >> i & 1u) != 0)
            continue;
        if (desc.inputs[i].data != NULL) {
            r->in[i] = desc.inputs[i].data;
            continue;
        }
        TRM_CHECK(pool_get(p, i, r->in_bytes[i], &memory));
        r->in[i] = memory;
    }
    for (int i = 0; i < desc.output_count; i++) {
        size_t bytes;

        TRM_CHECK(trm_tensor_bytes(&desc.outputs[i], &bytes));
        TRM_CHECK(pool_get(p, 8 + i, bytes, &r->out[i]));
    }
    return pool_get(p, TRMI_PROBE_IO_MAX - 1, r->kernel->workspace_bytes + 64, &r->workspace);
}

/* Whole cache lines, as kernels read weights. */
static void read_range(void *ctx, size_t begin, size_t end)
{
    const uint64_t *at = ctx;
    uint64_t sum[8] = {0};
    volatile uint64_t sink;

    for (size_t i = begin; i < end; i++)
        for (int k = 0; k < 8; k++)
            sum[k] += at[i * 8 + (size_t)k];
    sink = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
    (void)sink;
}

static void zero_range(void *ctx, size_t begin, size_t end)
{
    memset((unsigned char *)ctx + begin * 64, 0, (end - begin) * 64);
}

void trmi_probe_scene(trmi_probe *p, const trmi_ready *r)
{
    size_t bytes = r->weight_bytes < LARGE_WEIGHTS ? p->near_bytes : p->evict_bytes;

    trm_team_for(bytes / 64, 64, read_range, p->evict);
    for (int i = 0; i < r->trial.node.input_count; i++)
        if ((r->trial.warm >> i & 1) != 0 && r->in[i] != NULL && r->trial.in[i].data == NULL)
            trm_team_for(r->in_bytes[i] / 64, 64, zero_range, (void *)(uintptr_t)r->in[i]);
}

trm_status trmi_probe_run(const trmi_ready *r)
{
    return r->kernel->ops->run(r->kernel, NULL, r->in, r->out, r->workspace);
}

trm_status trmi_probe_time(trmi_probe *p, const trmi_ready *r, double *us_io)
{
    double begun = trmi_probe_now_us(), best = 0, second = 0;

    TRM_CHECK(trmi_probe_run(r)); /* first touches */
    for (int i = 0; i < RUNS; i++) {
        double from, us, elapsed;

        if (i > 0 && (trmi_probe_now_us() - begun > TRIAL_US_MAX || trmi_probe_over(p)))
            break;
        trmi_probe_scene(p, r);
        elapsed = trmi_probe_now_us();
        from = kernel_clock_us(p);
        TRM_CHECK(trmi_probe_run(r));
        us = kernel_clock_us(p) - from;
        elapsed = trmi_probe_now_us() - elapsed;
        us = elapsed < us ? elapsed : us;
        if (i == 0 || us < best) {
            second = best;
            best = us;
        } else if (i == 1 || us < second) {
            second = us;
        }
        if (i > 0 && second < best * AGREE + 0.2)
            break;
    }
    if (!(*us_io > 0) || best < *us_io)
        *us_io = best;
    return TRM_OK;
}

void trmi_probe_close(trmi_probe *p)
{
    for (int i = 0; i < TRMI_PROBE_IO_MAX; i++)
        trm_aligned_free(p->pool[i]);
    trm_aligned_free(p->evict);
    trm_aligned_free(p->data);
    memset(p, 0, sizeof(*p));
}

trm_status trmi_probe_open(trmi_probe *p, trm_device *device, int threads, bool data)
{
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);

    memset(p, 0, sizeof(*p));
    p->device = device;
    p->threads = threads;
    p->near_bytes = (size_t)(l2 < 262144 ? 1048576 : l2) * 2 * (size_t)threads;
    p->evict_bytes = p->near_bytes > FAR_BYTES ? p->near_bytes : FAR_BYTES;
    p->evict = trm_aligned_malloc(p->evict_bytes);
    if (data)
        p->data = trm_aligned_malloc(TRMI_TRIAL_BYTES);
    if (p->evict == NULL || (data && p->data == NULL)) {
        trmi_probe_close(p);
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    }
    memset(p->evict, 1, p->evict_bytes);
    for (size_t i = 0; data && i < TRMI_TRIAL_BYTES / sizeof(float); i++)
        ((float *)p->data)[i] = 0.01f * (float)(i % 17 + 1);
    return TRM_OK;
}

/* ---- the list ---- */

/* Trials in an order that thins out evenly when time runs out. */
static int shuffled(int i, int count)
{
    int step = 61;

    while (count % step == 0)
        step += 2;
    return (int)((long)i * step % count);
}

static trm_status measure(trmi_probe *p, int index, trm_dtype dtype, trm_arena *arena,
                          double *us_out, trmi_work *w)
{
    trmi_ready r = {0};
    trm_status st;

    TRM_TRY(st, trmi_probe_prepare(p, index, dtype, arena, &r), done);
    st = trmi_probe_time(p, &r, us_out);
    (void)trmi_work_of(&r.trial.node, r.trial.in, r.trial.out, w);
done:
    trm_kernel_destroy(r.kernel);
    return st;
}

/* All trials with p's threads into us[which]; makes the samples where none are there. */
static trm_status sweep(trmi_probe *p, trmi_case which, trm_arena *arena, trm_rates *r,
                        int *sample_of)
{
    int count = trmi_trial_count();

    for (int i = 0; i < count && (i < TRIALS_MIN || !trmi_probe_over(p)); i++) {
        int index = shuffled(i, count);
        trmi_work w = {0};
        double us = 0;

        if (which != TRMI_ALONE && sample_of[index] < 0)
            continue;
        if (which == TRMI_ALONE && r->sample_count >= TRMI_SAMPLES_MAX)
            break;
        TRM_CHECK(measure(p, index, TRM_DTYPE_F32, arena, &us, &w));
        if (which == TRMI_ALONE) {
            sample_of[index] = r->sample_count;
            r->samples[r->sample_count++] = (trmi_sample){.work = w};
        }
        r->samples[sample_of[index]].us[which] = us;
    }
    return TRM_OK;
}

/* Trials slower than their neighbours say are disturbed ones, or odd shapes: another look tells. */
static trm_status look_again(trmi_probe *p, trmi_case which, trm_arena *arena, trm_rates *r,
                             const int *sample_of)
{
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < trmi_trial_count() && !trmi_probe_over(p); i++) {
            trmi_work w = {0};
            trmi_sample *s = sample_of[i] < 0 ? NULL : &r->samples[sample_of[i]];

            if (s == NULL || !(s->us[which] > 0) ||
                s->us[which] < 1.25 * trmi_rates_expect(r, s, which))
                continue;
            TRM_CHECK(measure(p, i, TRM_DTYPE_F32, arena, &s->us[which], &w));
        }
    }
    return TRM_OK;
}

/* bf16 over f32 of a large product. */
static trm_status compare_bf16(trmi_probe *p, trmi_case which, trm_arena *arena, trm_rates *r)
{
    double f32 = 0, bf16 = 0, ratio = 1;
    trmi_work w;
    int i = 0;

    for (; i < trmi_trial_count(); i++) { /* the first crowded product with rows enough */
        trmi_trial t;

        if (!trmi_trial_crowded(i))
            continue;
        TRM_CHECK(trmi_trial_make(i, TRM_DTYPE_F32, p->data, arena, &t));
        if (trmi_work_of(&t.node, t.in, t.out, &w) && w.kind == TRMI_DENSE && w.feature[0] > 64)
            break;
    }
    TRM_CHECK(measure(p, i, TRM_DTYPE_F32, arena, &f32, &w));
    if (measure(p, i, TRM_DTYPE_BF16, arena, &bf16, &w) == TRM_OK && f32 > 0)
        ratio = bf16 / f32;
    /* the team gains what one thread gains, or it was disturbed */
    if (which == TRMI_ALONE || (ratio > r->bf16[0] / 2 && ratio < r->bf16[0] * 2))
        r->bf16[which == TRMI_TEAM] = ratio;
    return TRM_OK;
}

/* How far away weights are, by how many are read in turn. */
static trm_status read_far(const trmi_probe *p, trmi_case which, trm_rates *r)
{
    size_t bytes = (size_t)(trmi_reach_mib[TRMI_REACHES - 1] * 1048576);
    double *read = r->read_us_mb[which == TRMI_TEAM];
    unsigned char *memory = trm_aligned_malloc(bytes);

    if (memory == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe: %zu bytes", bytes);
    trm_team_for(bytes / 64, 64, zero_range, memory);
    for (int i = 0; i < TRMI_REACHES; i++) {
        size_t part = (size_t)(trmi_reach_mib[i] * 1048576);
        double best = 0;

        for (int k = 0; k < 4; k++) { /* the first brings it to where it stays */
            double from = kernel_clock_us(p), us;

            trm_team_for(part / 64, 64, read_range, memory);
            us = (kernel_clock_us(p) - from) / trmi_reach_mib[i];
            best = k == 1 || (k > 1 && us < best) ? us : best;
        }
        /* further is never nearer: what says so was disturbed */
        read[i] = i > 0 && best < read[i - 1] ? read[i - 1] : best;
    }
    trm_aligned_free(memory);
    return TRM_OK;
}

static int allowed_cpus(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) != 0 ? 1 : CPU_COUNT(&set);
}

/* A team whose threads do not get their CPUs at the same time tells nothing: what looks so on a
 * busy machine is not taken. On a quiet one a team that loses much was disturbed, too. */
static void check_team(trm_rates *r)
{
    for (int i = 0; i < TRMI_REACHES; i++) /* more readers are not slower */
        if (r->read_us_mb[1][i] > r->read_us_mb[0][i])
            r->read_us_mb[1][i] = r->read_us_mb[0][i];
    for (int i = 0; i < r->sample_count; i++) {
        double *us = r->samples[i].us, most = us[TRMI_ALONE] * 1.1 + 10;

        if (r->undisturbed < TRMI_QUIET && us[TRMI_TEAM] > 0.8 * us[TRMI_ALONE] &&
            us[TRMI_TEAM] > 20)
            us[TRMI_TEAM] = 0;
        else if (us[TRMI_TEAM] > most)
            us[TRMI_TEAM] = most;
    }
}

static trm_status probe_single(int cpus, double budget, trm_arena *arena, trm_rates *r,
                               int *sample_of)
{
    trm_device *device = NULL;
    trmi_probe p = {0};
    trm_status st;

    TRM_TRY(st, trm_device_cpu_create(1, &device), done);
    TRM_TRY(st, trmi_probe_open(&p, device, 1, true), done);
    trmi_probe_phase(&p,
                     budget * (cpus > 1 ? 0.5 : 1)); /* first touches of memory are not counted */
    TRM_TRY(st, sweep(&p, TRMI_ALONE, arena, r, sample_of), done);
    TRM_TRY(st, look_again(&p, TRMI_ALONE, arena, r, sample_of), done);
    r->undisturbed =
        (clock_us(CLOCK_THREAD_CPUTIME_ID) - p.cpu_us) / (trmi_probe_now_us() - p.wall_us + 1);
    TRM_TRY(st, compare_bf16(&p, TRMI_ALONE, arena, r), done);
    TRM_TRY(st, read_far(&p, TRMI_ALONE, r), done);
    r->bf16[1] = r->bf16[0];
    trmi_probe_phase(&p, budget * 0.15);
    st = trmi_probe_crowd(&p, cpus, arena, r);
done:
    trmi_probe_close(&p);
    trm_device_destroy(device);
    return st;
}

static trm_status probe_team(int cpus, double budget, trm_arena *arena, trm_rates *r,
                             int *sample_of)
{
    trm_device *device = NULL;
    trmi_probe p = {0};
    trm_status st;

    TRM_TRY(st, trm_device_cpu_create(cpus, &device), done);
    TRM_TRY(st, trmi_probe_open(&p, device, cpus, true), done);
    trmi_probe_phase(&p, budget * 0.35);
    TRM_TRY(st, sweep(&p, TRMI_TEAM, arena, r, sample_of), done);
    TRM_TRY(st, look_again(&p, TRMI_TEAM, arena, r, sample_of), done);
    TRM_TRY(st, compare_bf16(&p, TRMI_TEAM, arena, r), done);
    TRM_TRY(st, read_far(&p, TRMI_TEAM, r), done);
    check_team(r);
done:
    trmi_probe_close(&p);
    trm_device_destroy(device);
    return st;
}

trm_status trmi_rates_probe(int budget_ms, trm_rates *r)
{
    int before = trm_team_size(), cpus = allowed_cpus(), count = trmi_trial_count();
    double budget = budget_ms * 1e3;
    int *sample_of = trm_malloc((size_t)count, sizeof(int));
    trm_arena *arena = NULL;
    trm_status st;

    if (sample_of == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    for (int i = 0; i < count; i++)
        sample_of[i] = -1;
    r->sample_count = 0;
    r->threads = cpus;
    TRM_TRY(st, trm_arena_create(0, &arena), done);
    TRM_TRY(st, probe_single(cpus, budget, arena, r, sample_of), done);
    if (cpus > 1) {
        TRM_TRY(st, trmi_rates_probe_links(r), done);
        TRM_TRY(st, probe_team(cpus, budget, arena, r, sample_of), done);
    }
done:
    trm_arena_destroy(arena);
    trm_free(sample_of);
    trm_team_init(before);
    return st;
}
