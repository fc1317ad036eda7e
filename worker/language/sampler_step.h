/* Sampling on a device that does it behind the graph (TrmSample): what a step's samplers are to its
 * kernels, and what comes back. Between feed.c and a trm_step; the same tokens as a trm_sampler a
 * slot gives on the host.
 *
 * Each step in turn: begin, fill; and took when its results are there, in the order of the steps.
 * A step may be filled before the results of the one before are taken, as the device knows the
 * tokens and counts them; but a constraint goes by the text so far: see `waits`.
 *
 * One owner. */
#ifndef TRM_WORKER_LANGUAGE_SAMPLER_STEP_H
#define TRM_WORKER_LANGUAGE_SAMPLER_STEP_H

#include "kernels/language.h"
#include "model/language/language.h"
#include "worker/language/step.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_SAMPLER_STEPS_AHEAD 4 /* steps that may be filled and not taken */

typedef struct trm_sampler_steps trm_sampler_steps;
/* batch: slots; picks: of a step, at most. language: borrowed; its tokenizer is read when the first
 * constraint comes; NULL: constraints fail. */
TRM_MUST_USE trm_status trm_sampler_steps_create(int batch, int picks, int64_t vocabulary,
                                                 trm_language *language,
                                                 trm_sampler_steps **steps_out);
void trm_sampler_steps_destroy(trm_sampler_steps *s); /* takes NULL */
/* Makes the step's new samplers; one that cannot be made fails its sequence later. */
void trm_sampler_steps_begin(trm_sampler_steps *s, const trm_lm_step *step);
/* Whether the device must have slot_counts for this step, which has begun. A slot of which this was
 * never said needs none. */
bool trm_sampler_steps_penalises(const trm_sampler_steps *s, const trm_lm_step *step);
/* Whether the step draws for a slot whose constraint wants the token of an earlier step that has
 * not been taken: take that first. */
bool trm_sampler_steps_waits(const trm_sampler_steps *s, const trm_lm_step *step);
/* Sets samples, sample_count, begins and begin_count of `to`; what they point to is valid until the
 * next fill, prompts as long as the step. A sequence that has failed has a row, too. INTERNAL: it
 * waits, or too many steps are on their way. */
TRM_MUST_USE trm_status trm_sampler_steps_fill(trm_sampler_steps *s, const trm_lm_step *step,
                                               trm_step *to);
/* The step that was filled last does not come to run: nobody takes it. */
void trm_sampler_steps_undo(trm_sampler_steps *s);
/* The results of the earliest step that was filled and not taken, as the device gave them: puts
 * TRM_SAMPLED_* where a sequence has failed, and leads constraints on. INTERNAL: no such step. */
TRM_MUST_USE trm_status trm_sampler_steps_took(trm_sampler_steps *s, trm_sampled *results,
                                               int count);

#ifdef __cplusplus
}
#endif
#endif
