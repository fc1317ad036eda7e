/* The probe's crowded case: one thread is timed while threads on the other CPUs run the same
 * kernel, as ranks side by side do. Each has a device, a kernel and buffers of its own. */
#include "base/team.h"
#include "parallel/rates_probe_impl.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define HELPERS_MAX 15 /* more CPUs than this do not change the picture */

typedef struct helper {
    trmi_probe p;
    trmi_ready r;
    pthread_t thread;
    bool started;
    atomic_bool *go_on;
    atomic_int *running;
} helper;

static void *keep_busy(void *arg)
{
    helper *h = arg;

    trm_team_init(1); /* the OpenMP setting of this thread; the size is 1 already */
    atomic_fetch_add(h->running, 1);
    while (atomic_load_explicit(h->go_on, memory_order_relaxed)) {
        trmi_probe_scene(&h->p, &h->r);
        if (trmi_probe_run(&h->r) != TRM_OK)
            break;
    }
    return NULL;
}

static trm_status crowd_one(trmi_probe *p, helper *helpers, int count, int index, trm_arena *arena,
                            double *us_out)
{
    atomic_bool go_on;
    atomic_int running;
    trmi_ready mine = {0};
    int started = 0;
    double us = 0;
    trm_status st;

    atomic_init(&go_on, true);
    atomic_init(&running, 0);
    TRM_TRY(st, trmi_probe_prepare(p, index, TRM_DTYPE_F32, arena, &mine), done);
    for (int i = 0; i < count; i++) {
        helper *h = &helpers[i];

        h->go_on = &go_on;
        h->running = &running;
        h->p.data = p->data; /* shared, read only */
        TRM_TRY(st, trmi_probe_prepare(&h->p, index, TRM_DTYPE_F32, arena, &h->r), done);
    }
    for (int i = 0; i < count; i++) {
        helpers[i].started = pthread_create(&helpers[i].thread, NULL, keep_busy, &helpers[i]) == 0;
        started += helpers[i].started;
    }
    for (double from = trmi_probe_now_us();
         atomic_load(&running) < started && trmi_probe_now_us() - from < 50000;)
        sched_yield();
    st = trmi_probe_time(p, &mine, &us);
    *us_out = started == count ? us : 0;
done:
    atomic_store(&go_on, false);
    for (int i = 0; i < count; i++) {
        if (helpers[i].started)
            pthread_join(helpers[i].thread, NULL);
        helpers[i].started = false;
        helpers[i].p.data = NULL;
        trm_kernel_destroy(helpers[i].r.kernel);
        memset(&helpers[i].r, 0, sizeof(helpers[i].r));
    }
    trm_kernel_destroy(mine.kernel);
    return st;
}

trm_status trmi_probe_crowd(trmi_probe *p, int cpus, trm_arena *arena, trm_rates *r)
{
    int count = cpus - 1 < HELPERS_MAX ? cpus - 1 : HELPERS_MAX, made = 0, at = 0;
    helper *helpers = trm_calloc((size_t)(count < 1 ? 1 : count), sizeof(*helpers));
    trm_status st = TRM_OK;

    if (helpers == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "probe");
    for (; made < count; made++) {
        trm_device *device;

        TRM_TRY(st, trm_device_cpu_create(1, &device), done);
        st = trmi_probe_open(&helpers[made].p, device, 1, false);
        if (st != TRM_OK) {
            trm_device_destroy(device);
            goto done;
        }
    }
    for (int i = 0; i < trmi_trial_count() && count > 0 && !trmi_probe_over(p); i++) {
        trmi_work w;
        trmi_trial t;

        if (!trmi_trial_crowded(i))
            continue;
        TRM_TRY(st, trmi_trial_make(i, TRM_DTYPE_F32, p->data, arena, &t), done);
        if (!trmi_work_of(&t.node, t.in, t.out, &w))
            continue;
        for (at = 0; at < r->sample_count; at++) /* measured alone? */
            if (memcmp(&r->samples[at].work, &w, sizeof(w)) == 0)
                break;
        if (at < r->sample_count)
            TRM_TRY(st, crowd_one(p, helpers, count, i, arena, &r->samples[at].us[TRMI_CROWDED]),
                    done);
    }
done:
    for (int i = 0; i < made; i++) {
        trm_device *device = helpers[i].p.device;

        trmi_probe_close(&helpers[i].p);
        trm_device_destroy(device);
    }
    trm_free(helpers);
    return st;
}
