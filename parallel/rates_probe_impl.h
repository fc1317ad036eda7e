/* Inside the probe: its memory, a prepared trial, and one timing of it. */
#ifndef TRM_PARALLEL_RATES_PROBE_IMPL_H
#define TRM_PARALLEL_RATES_PROBE_IMPL_H

#include "parallel/rates_impl.h"

#define TRMI_PROBE_IO_MAX 12

typedef struct trmi_probe {
    trm_device *device;
    int threads;
    void *data;                    /* constants */
    void *pool[TRMI_PROBE_IO_MAX]; /* inputs, outputs, workspace: grow as needed */
    size_t pool_bytes[TRMI_PROBE_IO_MAX];
    unsigned char *evict;
    size_t evict_bytes, near_bytes;   /* all of it, the part that pushes out near caches */
    double cpu_us, wall_us, phase_us; /* begin_phase */
} trmi_probe;

typedef struct trmi_ready {
    trmi_trial trial;
    trm_kernel *kernel;
    const void *in[8];
    void *out[4];
    void *workspace;
    size_t in_bytes[8], weight_bytes;
} trmi_ready;

/* `data`: with constants of its own; else the caller sets p->data to another probe's. */
TRM_MUST_USE trm_status trmi_probe_open(trmi_probe *p, trm_device *device, int threads, bool data);
void trmi_probe_close(trmi_probe *p); /* the device stays */
double trmi_probe_now_us(void);
/* A phase lasts for `us` of this thread's CPU time, twice that where others take the CPU. */
void trmi_probe_phase(trmi_probe *p, double us);
bool trmi_probe_over(const trmi_probe *p);
/* r->kernel is the caller's, also after a failure. */
TRM_MUST_USE trm_status trmi_probe_prepare(trmi_probe *p, int index, trm_dtype dtype,
                                           trm_arena *arena, trmi_ready *r);
/* Pushes everything out of the caches, then makes the inputs that a producer has just made. */
void trmi_probe_scene(trmi_probe *p, const trmi_ready *r);
TRM_MUST_USE trm_status trmi_probe_run(const trmi_ready *r);
/* `*us_io`: the least so far, 0: none. */
TRM_MUST_USE trm_status trmi_probe_time(trmi_probe *p, const trmi_ready *r, double *us_io);
/* The crowded case of the trials that are marked for it. `p` has one thread. */
TRM_MUST_USE trm_status trmi_probe_crowd(trmi_probe *p, int cpus, trm_arena *arena, trm_rates *r);

#endif
