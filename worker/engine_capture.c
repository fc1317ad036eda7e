/* Stretches of steps as captured graphs: what a device enqueues between two steps that the host
 * takes part in is recorded once and from then on launched as one, which takes the host out of the
 * step. Captured lazily, on the second run of a stretch: the first one lets libraries settle, and a
 * shape that comes once is never captured.
 *
 * A capture holds for the addresses it was made with. Arenas grow, inputs alternate between two
 * buffers, data-dependent tensors move: so a capture is kept with a hash of every address that the
 * stretch uses, two of them at most, and made anew when neither fits. */
#include "worker/engine_impl.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define STRETCH_MIN 2   /* a single launch gains nothing */
#define RECAPTURE_MAX 8 /* a stretch whose addresses keep changing is not worth it */

bool trm_engine_captures(const trm_engine *e)
{
    const char *asked = getenv("TRM_GRAPHS");

    return trmi_engine_splits(e) && !e->options.captures_off &&
           e->device->ops->capture_begin != NULL && (asked == NULL || strcmp(asked, "off") != 0);
}

/* Only enqueues: a device kernel, or a copy between a device and pinned host memory. */
static bool enqueues(const trm_engine *e, const trmi_segment *s, const trmi_step *step)
{
    if (step->kernel == NULL || step->place != TRMI_DEVICE || step->out_dynamic != NULL ||
        step->kernel->uncapturable)
        return false;
    /* the caller's own memory is not pinned, and elsewhere next time */
    for (int i = 0; i < step->in_count; i++) {
        int slot = step->in_slots[i];

        if (slot >= s->slot_begin &&
            s->slots[slot - s->slot_begin].source == TRMI_SOURCE_HOST_INPUT)
            return false;
    }
    (void)e;
    return true;
}

trm_status trmi_stretches_find(trm_engine *e, trmi_segment *s)
{
    int begin = 0;

    if (!trm_engine_captures(e) || s->step_count == 0)
        return TRM_OK;
    s->stretches = trm_arena_alloc(s->arena, (size_t)s->step_count, sizeof(trmi_stretch));
    if (s->stretches == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "captures");
    for (int i = 0; i <= s->step_count; i++) {
        if (i < s->step_count && enqueues(e, s, &s->steps[i]))
            continue;
        if (i - begin >= STRETCH_MIN)
            s->stretches[s->stretch_count++] = (trmi_stretch){.begin = begin, .end = i};
        begin = i + 1;
    }
    return TRM_OK;
}

void trmi_stretches_destroy(trm_engine *e, trmi_segment *s)
{
    for (int i = 0; i < s->stretch_count; i++)
        for (int k = 0; k < 2; k++)
            if (s->stretches[i].taken[k].capture != NULL)
                e->device->ops->capture_destroy(e->device, s->stretches[i].taken[k].capture);
    s->stretch_count = 0;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t hash_pointers(const trm_engine *e, const trmi_segment *s, const trmi_stretch *t)
{
    uint64_t h = mix(1, (uintptr_t)e->workspace[TRMI_DEVICE].memory);

    for (int i = t->begin; i < t->end; i++) {
        const trmi_step *step = &s->steps[i];

        for (int k = 0; k < step->in_count; k++)
            if (step->in_slots[k] >= 0)
                h = mix(h, (uintptr_t)e->slot_pointers[step->in_slots[k]]);
        for (int k = 0; k < step->out_count; k++)
            if (step->out_slots[k] >= 0)
                h = mix(h, (uintptr_t)e->slot_pointers[step->out_slots[k]]);
    }
    return h;
}

static trm_status run_steps(trm_engine *e, trmi_segment *s, const trmi_stretch *t)
{
    for (int i = t->begin; i < t->end; i++) {
        const trmi_step *step = &s->steps[i];
        const trm_node *n = step->node >= 0 ? &e->graph->nodes[step->node] : NULL;
        trm_status st = trmi_step_run(e, &s->steps[i]);

        if (st != TRM_OK)
            return n == NULL
                       ? st
                       : trm_fail_context(st, "node '%s' (%s)", n->name, trm_op_get(n->op)->name);
    }
    return TRM_OK;
}

/* Records the stretch; where that fails for a reason of the recording's own it is never tried
 * again, and the steps run one by one. */
static trm_status capture(trm_engine *e, trmi_segment *s, trmi_stretch *t, trm_capture **out)
{
    trm_device *d = e->device;
    trm_capture *c = NULL;
    trm_status st, ended;

    *out = NULL;
    st = d->ops->capture_begin(d, e->stream);
    if (st == TRM_OK) {
        st = run_steps(e, s, t);
        ended = d->ops->capture_end(d, e->stream, &c);
        if (st == TRM_OK)
            st = ended;
        else if (ended == TRM_OK)
            d->ops->capture_destroy(d, c);
    }
    if (st == TRM_ERR_DEVICE)
        return st;
    if (st != TRM_OK) {
        TRM_LOG(TRM_LOG_INFO, "engine", "graph '%s', steps %d to %d are not captured: %s",
                e->graph->name, t->begin, t->end, trm_message());
        t->refused = true;
        return TRM_OK;
    }
    *out = c;
    return TRM_OK;
}

trm_status trmi_stretch_run(trm_engine *e, trmi_segment *s, trmi_stretch *t)
{
    trm_device *d = e->device;
    uint64_t pointers;
    trm_capture *c = NULL;

    if (t->refused || t->runs++ == 0)
        return run_steps(e, s, t);
    pointers = hash_pointers(e, s, t);
    for (int k = 0; k < 2 && c == NULL; k++)
        if (t->taken[k].capture != NULL && t->taken[k].pointers == pointers)
            c = t->taken[k].capture;
    if (c == NULL) {
        int k = t->taken[0].capture == NULL ? 0 : t->taken[1].capture == NULL ? 1 : t->runs & 1;

        if (t->moves != e->moves) { /* buffers grow, but not for ever */
            t->moves = e->moves;
            t->recaptured = 0;
        }
        if (t->taken[k].capture != NULL) { /* a launch of it may be under way */
            if (++t->recaptured > RECAPTURE_MAX) {
                t->refused = true;
                return run_steps(e, s, t);
            }
            TRM_CHECK(trmi_engine_settle(e));
            d->ops->capture_destroy(d, t->taken[k].capture);
            t->taken[k].capture = NULL;
        }
        TRM_CHECK(capture(e, s, t, &c));
        if (c == NULL)
            return run_steps(e, s, t);
        t->taken[k].capture = c;
        t->taken[k].pointers = pointers;
    }
    e->busy = true;
    return d->ops->capture_launch(d, c, e->stream);
}
