/* What feed.c needs of a device with memory of its own: the step's block and the graph's inputs in
 * it, the KV cache. Steps go to the device in one copy each, enqueued on the engine's stream; host
 * ends are a ring, so that a step can be made while those before it are under way. One owner. */
#ifndef TRM_WORKER_LANGUAGE_FEED_DEVICE_H
#define TRM_WORKER_LANGUAGE_FEED_DEVICE_H

#include "kernels/language.h"
#include "worker/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_feed_device trmi_feed_device;

/* inputs: [TRM_STEP_SELF + 1] which input of the engine's graph it is, -1: none. `slots`: of
 * samplers, 0: this rank draws nothing. */
TRM_MUST_USE trm_status trmi_feed_device_create(trm_device *device, trm_engine *engine,
                                                const int *inputs, int slots, int64_t vocabulary,
                                                trmi_feed_device **feed_out);
/* Steps' blocks are likely to take so many bytes: they get that much at once, so that the block
 * does not move, with which what was captured would be captured again. */
void trmi_feed_device_expect(trmi_feed_device *f, size_t bytes);
void trmi_feed_device_destroy(trmi_feed_device *f); /* takes NULL; the engine is still there */
/* Zeroed device memory for the cache, freed with `f`. NO_MEMORY: what is missing. */
TRM_MUST_USE trm_status trmi_feed_device_cache(trmi_feed_device *f, size_t bytes,
                                               void **memory_out);
/* Fills in the step's slot_tokens and (where `counts`) slot_counts. */
TRM_MUST_USE trm_status trmi_feed_device_slots(trmi_feed_device *f, trm_step *step, bool counts);
/* Enqueues the step: everything `step` points to may change on return. */
TRM_MUST_USE trm_status trmi_feed_device_send(trmi_feed_device *f, const trm_step *step);

#ifdef __cplusplus
}
#endif
#endif
