/* Running programs: segments found or bound, steps executed, outputs handed back. */
#define _GNU_SOURCE
#include "worker/engine_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TAILS_MAX 8 /* segments kept for each program that may be kept */

/* ---- keys ---- */

static trm_status key_add(trm_engine *e, const void *bytes, size_t count)
{
    if (e->key_bytes + count > e->key_max) {
        size_t max = (e->key_bytes + count) * 2;
        unsigned char *grown = trm_realloc(e->key, max, 1);

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "shape key of %zu bytes", max);
        e->key = grown;
        e->key_max = max;
    }
    if (count > 0)
        memcpy(e->key + e->key_bytes, bytes, count);
    e->key_bytes += count;
    return TRM_OK;
}

static trm_status key_add_shape(trm_engine *e, const trm_tensor *t)
{
    int32_t head[2] = {t->dtype, t->rank};

    TRM_CHECK(key_add(e, head, sizeof(head)));
    return key_add(e, t->dims, (size_t)t->rank * sizeof(int64_t));
}

/* What the run of `s` has taught: dims of dynamic values, bytes of fetched ones. */
static trm_status learn(trm_engine *e, const trmi_segment *s)
{
    e->key_bytes = 0;
    if (s == &e->root) {
        for (int i = 0; i < e->graph->input_count; i++)
            TRM_CHECK(key_add_shape(e, &e->inputs[i]));
        return TRM_OK;
    }
    for (int i = 0; i < s->learned_count; i++)
        TRM_CHECK(key_add_shape(e, &e->dynamics[s->dynamic_begin + i].desc));
    for (int i = 0; i < s->fetch_count; i++) {
        const trmi_state *v = &s->state[s->fetch[i]];
        size_t bytes, at = e->key_bytes;

        /* a fetched value that is itself dynamic has its dims in the buffer's desc */
        const trm_tensor *desc = &v->desc;
        for (int k = 0; k < s->learned_count; k++)
            if (s->learned[k] == s->fetch[i])
                desc = &e->dynamics[s->dynamic_begin + k].desc;
        TRM_CHECK(trm_tensor_bytes(desc, &bytes));
        TRM_CHECK(key_add(e, NULL, 0));
        if (e->key_bytes + bytes > e->key_max) {
            unsigned char *grown = trm_realloc(e->key, (e->key_bytes + bytes) * 2, 1);

            if (grown == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "shape key of %zu bytes", bytes);
            e->key = grown;
            e->key_max = (at + bytes) * 2;
        }
        TRM_CHECK(trmi_engine_settle(e));
        if (bytes > 0) /* it was copied to the host place */
            memcpy(e->key + at, e->slot_pointers[v->slot], bytes);
        e->key_bytes += bytes;
    }
    return TRM_OK;
}

/* Destroys the child of `parent` that was found longest ago. */
static void drop_oldest(trm_engine *e, trmi_segment *parent)
{
    trmi_segment **oldest = &parent->children;

    for (trmi_segment **at = oldest; *at != NULL; at = &(*at)->next)
        if ((*at)->used < (*oldest)->used)
            oldest = at;
    if (*oldest != NULL) {
        trmi_segment *s = *oldest;

        *oldest = s->next;
        trmi_segment_destroy(e, s);
    }
}

/* Binds what follows `parent`, in step with the group's other ranks where there are any. */
static trm_status bind_together(trm_engine *e, trmi_segment *parent, trmi_segment **segment_out)
{
    for (;;) {
        bool again = false;
        trmi_segment *s = NULL;
        trm_status st = trmi_collective_agree(e, trmi_bind(e, parent, &s));

        if (st == TRM_OK && s != NULL)
            st = trmi_collective_layouts(e, s, &again);
        if (st == TRM_OK && !again && s != NULL) {
            *segment_out = s;
            return TRM_OK;
        }
        if (s != NULL) {
            parent->children = s->next;
            trmi_segment_destroy(e, s);
        }
        if (st != TRM_OK)
            return st;
    }
}

static trm_status find_or_bind(trm_engine *e, trmi_segment *parent, trmi_segment **segment_out)
{
    int siblings = 0;

    for (trmi_segment *s = parent->children; s != NULL; s = s->next, siblings++) {
        if (s->key_bytes == e->key_bytes &&
            (e->key_bytes == 0 || memcmp(s->key, e->key, e->key_bytes) == 0)) {
            s->used = ++e->clock;
            *segment_out = s;
            return TRM_OK;
        }
    }
    TRM_CHECK(bind_together(e, parent, segment_out));
    (*segment_out)->used = ++e->clock;
    /* after binding: the newcomer shares the packed weights of those that go */
    if (siblings >= e->options.programs_max)
        drop_oldest(e, parent);
    return TRM_OK;
}

/* Each segment has at most programs_max children, but a chain of data-dependent ones is a tree:
 * where it has grown large, only the heads of the programs stay. Between runs. */
static void trim(trm_engine *e)
{
    if (e->segment_count <= e->options.programs_max * TAILS_MAX)
        return;
    for (trmi_segment *s = e->root.children; s != NULL; s = s->next)
        while (s->children != NULL)
            drop_oldest(e, s);
}

/* ---- running ---- */

struct sink_context {
    trm_engine *e;
    const trmi_step *step;
};

static trm_status sink_alloc(void *ctx, int output, int rank, const int64_t *dims, void **data_out)
{
    struct sink_context *c = ctx;
    int dynamic = c->step->out_dynamic[output];

    if (dynamic < 0)
        return trm_fail(TRM_ERR_INTERNAL, "memory for output %d, which nobody wants", output);
    return trmi_dynamic_alloc(c->e, dynamic, c->step->place, c->step->out_dtypes[output], rank,
                              dims, data_out);
}

trm_status trmi_engine_settle(trm_engine *e)
{
    if (!e->busy)
        return TRM_OK;
    TRM_CHECK(trmi_engine_wait(e));
    e->busy = false;
    return TRM_OK;
}

static trm_status step_run(trm_engine *e, trmi_step *step)
{
    void *workspace = e->workspace[step->place].memory;
    trm_stream *stream = step->place == TRMI_DEVICE ? e->stream : NULL;

    if (step->window_slot != TRMI_NO_SLOT) {
        void *window = NULL;

        TRM_CHECK(trm_comm_slot_get(e->options.comm, step->window_bytes, &window));
        if (window != NULL)
            e->slot_pointers[step->window_slot] = window;
    }
    for (int i = 0; i < step->in_count; i++)
        step->in[i] = step->in_slots[i] < 0 ? NULL : e->slot_pointers[step->in_slots[i]];
    for (int i = 0; i < step->out_count; i++)
        step->out[i] = step->out_slots[i] < 0 ? NULL : e->slot_pointers[step->out_slots[i]];
    if (step->place == TRMI_HOST)
        TRM_CHECK(trmi_engine_settle(e)); /* its inputs may be on their way */
    else
        e->busy = trmi_engine_splits(e);
    if (step->kernel == NULL) {
        for (int i = 0; i < step->in_count; i++)
            step->in_descs[i].data = (void *)(uintptr_t)step->in[i];
        return trmi_control_run(e, &e->graph->nodes[step->node], step->in_descs, step->out_dynamic);
    }
    if (step->kernel->ops->run_dynamic != NULL && step->out_dynamic != NULL) {
        struct sink_context ctx = {.e = e, .step = step};
        trm_output_sink sink = {.alloc = sink_alloc, .ctx = &ctx};

        return step->kernel->ops->run_dynamic(step->kernel, stream, step->in, &sink, workspace);
    }
    return step->kernel->ops->run(step->kernel, stream, step->in, step->out, workspace);
}

trm_status trmi_step_run(trm_engine *e, trmi_step *step)
{
    const trm_device_ops *ops = e->device->ops;
    trm_status st;

    if (ops->mark_begin == NULL)
        return step_run(e, step);
    ops->mark_begin(e->device,
                    step->node >= 0 ? e->graph->nodes[step->node].name : step->kernel->ops->name);
    st = step_run(e, step);
    ops->mark_end(e->device);
    return st;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static unsigned char nothing[TRM_ALIGN]; /* where empty inputs lie; nobody reads or writes it */

static void set_pointers(trm_engine *e, const trmi_segment *s)
{
    for (int i = 0; i < s->slot_count; i++) {
        const trmi_slot *slot = &s->slots[i];
        void **p = &e->slot_pointers[s->slot_begin + i];

        switch (slot->source) {
        case TRMI_SOURCE_ARENA:
            *p = (unsigned char *)e->arenas[TRMI_DEVICE][s->level].memory +
                 s->storages[TRMI_DEVICE][slot->index].offset;
            break;
        case TRMI_SOURCE_HOST_ARENA:
            *p = (unsigned char *)e->arenas[TRMI_HOST][s->level].memory +
                 s->storages[TRMI_HOST][slot->index].offset;
            break;
        case TRMI_SOURCE_HOST_INPUT:
            *p = e->caller[slot->index].data;
            if (*p == NULL)
                *p = nothing;
            break;
        case TRMI_SOURCE_INPUT:
            *p = e->inputs[slot->index].data;
            if (*p == NULL)
                *p = nothing; /* an empty tensor: NULL would say that it is absent */
            break;
        case TRMI_SOURCE_FIXED:
            *p = (void *)(uintptr_t)slot->fixed;
            break;
        case TRMI_SOURCE_SLOT:
            *p = e->slot_pointers[slot->index];
            break;
        case TRMI_SOURCE_DYNAMIC:
            *p = NULL; /* set below, when its step has run */
            break;
        }
    }
}

static trm_status step_failed(const trm_engine *e, const trmi_step *step, trm_status st)
{
    const trm_node *n = step->node >= 0 ? &e->graph->nodes[step->node] : NULL;

    return n == NULL ? st
                     : trm_fail_context(st, "node '%s' (%s)", n->name, trm_op_get(n->op)->name);
}

static trm_status run_one(trm_engine *e, trmi_step *step)
{
    uint64_t start = e->options.profile ? now_ns() : 0;
    trm_status st = trmi_step_run(e, step);

    if (st == TRM_OK && e->options.profile && step->place == TRMI_DEVICE)
        st = trmi_engine_settle(e);
    if (e->options.profile) {
        step->ns += now_ns() - start;
        step->runs++;
    }
    return st == TRM_OK ? st : step_failed(e, step, st);
}

/* A broken communicator or a lost device: nothing more can be done together. */
static bool is_the_end(trm_status st)
{
    return st == TRM_ERR_COMM || st == TRM_ERR_DEVICE;
}

/* A larger program for which there was no room may have cost this one its buffers, where memory
 * that was given up for it did not come back (trmi_buffer_grow). */
static trm_status regain_buffers(trm_engine *e, const trmi_segment *s)
{
    for (int p = 0; p < TRMI_PLACES; p++) {
        trmi_buffer *arena = &e->arenas[p][s->level], *workspace = &e->workspace[p];
        trm_status st = TRM_OK;

        if (p == TRMI_HOST && !trmi_engine_splits(e))
            continue;
        if (arena->bytes < s->arena_bytes[p])
            st = trmi_buffer_grow(e, p, arena, s->arena_bytes[p] + TRM_ALIGN);
        if (workspace->bytes < s->workspace_bytes[p] && st == TRM_OK)
            st = trmi_buffer_grow(e, p, workspace, s->workspace_bytes[p] + TRM_ALIGN);
        if (st != TRM_OK) /* nothing to take part with */
            return e->talks ? trm_fail_context(TRM_ERR_COMM, "a program's buffers") : st;
    }
    return TRM_OK;
}

/* Whether a collective of the segment reads an input that is not there. */
static bool misses_input(const trm_engine *e, const trmi_segment *s)
{
    for (int i = 0; i < s->step_count; i++)
        for (int k = 0; k < s->steps[i].in_count && s->steps[i].collective; k++) {
            int slot = s->steps[i].in_slots[k];

            if (slot >= 0 && e->slot_pointers[slot] == nothing)
                return true;
        }
    return false;
}

/* After a failed step the others of the group still wait for this rank in their collectives: it
 * takes part in those, with whatever lies there, and then all agree that the step has failed.
 * `failed`, `text`: it had failed before it came here. */
static trm_status run_segment(trm_engine *e, trmi_segment *s, trm_status failed, char text[512])
{
    int next = 0; /* stretch */

    TRM_CHECK(regain_buffers(e, s));
    set_pointers(e, s);
    if (failed != TRM_OK && misses_input(e, s))
        return trm_fail(TRM_ERR_COMM, "%s, and the other ranks cannot be told", text);
    for (int i = 0; i < s->step_count; i++) {
        trmi_step *step = &s->steps[i];
        trm_status st;

        if (failed != TRM_OK && !step->collective)
            continue;
        while (next < s->stretch_count && s->stretches[next].begin < i)
            next++;
        if (next < s->stretch_count && s->stretches[next].begin == i && failed == TRM_OK &&
            !e->options.profile) {
            st = trmi_stretch_run(e, s, &s->stretches[next]);
            i = s->stretches[next].end - 1;
        } else {
            st = run_one(e, step);
        }
        if (st != TRM_OK) {
            if (!e->talks || is_the_end(st))
                return st;
            if (failed == TRM_OK)
                snprintf(text, 512, "%s", trm_message());
            failed = failed == TRM_OK ? st : failed;
        }
    }
    if (e->talks)
        TRM_CHECK(
            trmi_collective_agree(e, failed == TRM_OK ? TRM_OK : trm_fail(failed, "%s", text)));
    for (int i = 0; i < s->slot_count; i++)
        if (s->slots[i].source == TRMI_SOURCE_DYNAMIC)
            e->slot_pointers[s->slot_begin + i] = e->dynamics[s->slots[i].index].memory;
    return TRM_OK;
}

trm_status trmi_engine_execute(trm_engine *e, const trm_tensor *device_inputs,
                               trm_tensor *device_outputs, trmi_place *places_out)
{
    trmi_segment *s = &e->root;
    char text[512] = "";

    trim(e);
    e->inputs = device_inputs;
    do {
        TRM_CHECK(learn(e, s));
        TRM_CHECK(find_or_bind(e, s, &s));
        TRM_CHECK(run_segment(e, s, TRM_OK, text));
    } while (!s->last);
    for (int i = 0; i < e->graph->output_count; i++) {
        const trmi_state *v = &s->state[e->graph->outputs[i]];

        device_outputs[i] = v->desc;
        device_outputs[i].layout = TRM_LAYOUT_PLAIN;
        for (int k = 0; k < s->learned_count; k++)
            if (s->learned[k] == e->graph->outputs[i])
                device_outputs[i] = e->dynamics[s->dynamic_begin + k].desc;
        device_outputs[i].data = e->slot_pointers[s->output_slots[i]];
        if (places_out != NULL)
            places_out[i] = v->place;
    }
    e->ran = s;
    return TRM_OK;
}

trm_status trm_engine_bind(trm_engine *e, const trm_tensor *inputs)
{
    trmi_segment *s;

    e->inputs = inputs;
    TRM_CHECK(learn(e, &e->root));
    return find_or_bind(e, &e->root, &s);
}

trm_status trmi_engine_stand_in(trm_engine *e, const trm_tensor *device_inputs, trm_status why)
{
    trmi_segment *s = &e->root;
    char text[512];

    if (!e->talks || is_the_end(why))
        return why;
    snprintf(text, sizeof(text), "%s", trm_message());
    trim(e);
    e->inputs = device_inputs;
    TRM_CHECK(learn(e, s));
    TRM_CHECK(find_or_bind(e, s, &s));
    return run_segment(e, s, why, text);
}

trm_status trm_engine_give_up(trm_engine *e, const trm_tensor *inputs, trm_status why)
{
    if (!e->talks || is_the_end(why))
        return why;
    return trmi_engine_splits(e) ? trmi_flight_give_up(e, inputs, why)
                                 : trmi_engine_stand_in(e, inputs, why);
}

/* An output may be an input, or a view of one: the caller gets a copy, because what it was told is
 * that outputs stay until the next run. */
static trm_status own_outputs(trm_engine *e, const trm_tensor *inputs, trm_tensor *outputs)
{
    for (int i = 0; i < e->graph->output_count; i++) {
        trmi_buffer *copy = &e->copies[i];
        size_t bytes, in_bytes;

        TRM_CHECK(trm_tensor_bytes(&outputs[i], &bytes));
        for (int j = 0; j < e->graph->input_count && bytes > 0; j++) {
            const unsigned char *from = inputs[j].data, *at = outputs[i].data;

            TRM_CHECK(trm_tensor_bytes(&inputs[j], &in_bytes));
            if ((uintptr_t)at < (uintptr_t)from || (uintptr_t)at >= (uintptr_t)from + in_bytes)
                continue;
            TRM_CHECK(trmi_buffer_grow(e, TRMI_DEVICE, copy, bytes));
            memcpy(copy->memory, at, bytes);
            outputs[i].data = copy->memory;
            break;
        }
    }
    return TRM_OK;
}

trm_status trm_engine_run(trm_engine *e, const trm_tensor *inputs, trm_tensor *outputs)
{
    if (trmi_engine_splits(e)) {
        TRM_CHECK(trm_engine_submit(e, inputs));
        return trm_engine_collect(e, outputs);
    }
    TRM_CHECK(trm_engine_check(e, inputs));
    TRM_CHECK(trmi_engine_execute(e, inputs, outputs, NULL));
    return own_outputs(e, inputs, outputs);
}

int trm_engine_depth_of(const trm_device *device)
{
    return device->host_memory ? 1 : TRMI_FLIGHTS;
}

int trm_engine_depth(const trm_engine *e)
{
    return trm_engine_depth_of(e->device);
}

trm_status trm_engine_submit(trm_engine *e, const trm_tensor *inputs)
{
    if (!trmi_engine_splits(e))
        return trm_fail(TRM_ERR_UNSUPPORTED, "device '%s' is synchronous", e->device->ops->name);
    if (e->flight_count == TRMI_FLIGHTS)
        return trm_fail(TRM_ERR_CANCELLED, "%d steps are under way: collect one first",
                        e->flight_count);
    TRM_CHECK(trm_engine_check(e, inputs));
    return trmi_flight_submit(e, inputs);
}

trm_status trm_engine_ready(trm_engine *e, bool *ready_out)
{
    if (e->flight_count == 0)
        return trm_fail(TRM_ERR_CANCELLED, "no step is under way");
    return trmi_flight_ready(e, ready_out);
}

trm_status trm_engine_collect(trm_engine *e, trm_tensor *outputs)
{
    if (e->flight_count == 0)
        return trm_fail(TRM_ERR_CANCELLED, "no step is under way");
    return trmi_flight_collect(e, outputs);
}
