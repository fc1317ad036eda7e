/* Steps on a device with memory of its own. Two flights take turns: while one computes on the
 * engine's stream, the other's inputs go up on a stream of their own and the last one's outputs
 * come down on a third. All host ends are pinned buffers of the flight, so that no copy waits for
 * the host and the caller's memory is free when submit returns. */
#define _GNU_SOURCE
#include "worker/engine_impl.h"

#include "base/log.h"
#include "base/team.h"
#include "base/wait.h"
#include "kernels/device_group.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define SMALL_BYTES (256 << 10) /* below it another stream's events cost more than they save */
#define PARALLEL_BYTES ((size_t)1 << 20) /* copies in host memory that are worth the team */
#define SPIN_US 2000                     /* then naps: a step that long does not mind them */
#define NAP_NS 50000
#define STEP_TIMEOUT_MS 600000

static trm_status flight_create(trm_engine *e, trmi_flight *f)
{
    const trm_device_ops *ops = e->device->ops;
    size_t ins = (size_t)e->graph->input_count + 1, outs = (size_t)e->graph->output_count + 1;

    f->host_in = trm_calloc(ins, sizeof(trmi_buffer));
    f->device_in = trm_calloc(ins, sizeof(trmi_buffer));
    f->host_out = trm_calloc(outs, sizeof(trmi_buffer));
    f->device_out = trm_calloc(outs, sizeof(trmi_buffer));
    f->outputs = trm_calloc(outs, sizeof(trm_tensor));
    f->held = trm_calloc(ins, sizeof(trm_tensor));
    if (f->host_in == NULL || f->device_in == NULL || f->host_out == NULL ||
        f->device_out == NULL || f->outputs == NULL || f->held == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "engine");
    TRM_CHECK(ops->event_create(e->device, &f->uploaded));
    TRM_CHECK(ops->event_create(e->device, &f->computed));
    return ops->event_create(e->device, &f->downloaded);
}

trm_status trmi_flights_create(trm_engine *e)
{
    const trm_device_ops *ops = e->device->ops;

    TRM_CHECK(ops->stream_create(e->device, &e->stream));
    TRM_CHECK(ops->stream_create(e->device, &e->up));
    TRM_CHECK(ops->stream_create(e->device, &e->down));
    TRM_CHECK(ops->event_create(e->device, &e->settled));
    e->staged = trm_calloc((size_t)e->graph->input_count + 1, sizeof(trm_tensor));
    e->placed = trm_calloc((size_t)e->graph->input_count + 1, sizeof(*e->placed));
    e->out_places = trm_calloc((size_t)e->graph->output_count + 1, sizeof(trmi_place));
    if (e->staged == NULL || e->placed == NULL || e->out_places == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "engine");
    for (int i = 0; i < TRMI_FLIGHTS; i++)
        TRM_CHECK(flight_create(e, &e->flights[i]));
    return TRM_OK;
}

static void flight_destroy(trm_engine *e, trmi_flight *f)
{
    const trm_device_ops *ops = e->device->ops;

    for (int i = 0; i < e->graph->input_count && f->host_in != NULL && f->device_in != NULL; i++) {
        trmi_buffer_free(e, TRMI_HOST, &f->host_in[i]);
        trmi_buffer_free(e, TRMI_DEVICE, &f->device_in[i]);
    }
    for (int i = 0; i < e->graph->output_count && f->host_out != NULL && f->device_out != NULL;
         i++) {
        trmi_buffer_free(e, TRMI_HOST, &f->host_out[i]);
        trmi_buffer_free(e, TRMI_DEVICE, &f->device_out[i]);
    }
    trmi_buffer_free(e, TRMI_HOST, &f->host_notes);
    trm_free(f->host_in);
    trm_free(f->device_in);
    trm_free(f->host_out);
    trm_free(f->device_out);
    trm_free(f->outputs);
    trm_free(f->held);
    if (f->uploaded != NULL)
        ops->event_destroy(e->device, f->uploaded);
    if (f->computed != NULL)
        ops->event_destroy(e->device, f->computed);
    if (f->downloaded != NULL)
        ops->event_destroy(e->device, f->downloaded);
}

void trmi_flights_destroy(trm_engine *e)
{
    const trm_device_ops *ops = e->device->ops;
    trm_stream *const streams[] = {e->up, e->stream, e->down};

    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++)
        if (streams[i] != NULL && ops->stream_wait(e->device, streams[i]) != TRM_OK)
            TRM_LOG(TRM_LOG_DEBUG, "engine", "end: %s", trm_message());
    for (int i = 0; i < TRMI_FLIGHTS; i++)
        flight_destroy(e, &e->flights[i]);
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++)
        if (streams[i] != NULL)
            ops->stream_destroy(e->device, streams[i]);
    if (e->settled != NULL)
        ops->event_destroy(e->device, e->settled);
    trm_free(e->staged);
    trm_free(e->placed);
    trm_free(e->out_places);
}

/* ---- inputs ---- */

struct memory_copy {
    unsigned char *to;
    const unsigned char *from;
    size_t bytes;
};

static void copy_part(void *ctx, size_t begin, size_t end)
{
    const struct memory_copy *c = ctx;
    size_t from = begin * PARALLEL_BYTES, to = end * PARALLEL_BYTES;

    if (to > c->bytes)
        to = c->bytes;
    memcpy(c->to + from, c->from + from, to - from);
}

static void copy_host(void *to, const void *from, size_t bytes)
{
    struct memory_copy c = {.to = to, .from = from, .bytes = bytes};

    if (bytes <= PARALLEL_BYTES) {
        if (bytes > 0)
            memcpy(to, from, bytes);
        return;
    }
    trm_team_for((bytes + PARALLEL_BYTES - 1) / PARALLEL_BYTES, 1, copy_part, &c);
}

/* Whether the flight's buffers hold inputs of these shapes that are to be used again. */
static bool holds(const trm_engine *e, const trmi_flight *f, const trm_tensor *inputs)
{
    for (int i = 0; i < e->graph->input_count; i++)
        if (!e->hold || !f->filled || f->held[i].dtype != inputs[i].dtype ||
            !trm_tensor_same_shape(&f->held[i], &inputs[i]))
            return false;
    return e->hold;
}

void trm_engine_place_input(trm_engine *e, int input, void *memory)
{
    e->moves += e->placed[input] != memory;
    e->placed[input] = memory;
}

trm_stream *trm_engine_stream(const trm_engine *e)
{
    return e->stream;
}

void trm_engine_hold_inputs(trm_engine *e, bool hold)
{
    e->hold = hold;
}

/* To the device, on the stream that *stream_out tells. */
static trm_status upload(trm_engine *e, trmi_flight *f, const trm_tensor *inputs,
                         trm_stream **stream_out)
{
    const trm_device_ops *ops = e->device->ops;
    size_t all = 0, bytes;
    trm_stream *stream;

    for (int i = 0; i < e->graph->input_count; i++) {
        e->staged[i] = inputs[i];
        e->staged[i].data = e->placed[i];
        TRM_CHECK(trm_tensor_bytes(&inputs[i], &bytes));
        all += e->placed[i] == NULL ? bytes : 0;
    }
    stream = all > SMALL_BYTES ? e->up : e->stream;
    for (int i = 0; i < e->graph->input_count; i++) {
        if (e->placed[i] != NULL || e->last_use[e->graph->inputs[i]] < 0)
            continue; /* it is there, or nothing reads it */
        TRM_CHECK(trm_tensor_bytes(&inputs[i], &bytes));
        TRM_CHECK(trmi_buffer_grow(e, TRMI_HOST, &f->host_in[i], bytes + TRM_ALIGN));
        TRM_CHECK(trmi_buffer_grow(e, TRMI_DEVICE, &f->device_in[i], bytes + TRM_ALIGN));
        copy_host(f->host_in[i].memory, inputs[i].data, bytes);
        TRM_CHECK(
            ops->copy_in(e->device, stream, f->device_in[i].memory, f->host_in[i].memory, bytes));
        e->staged[i].data = f->device_in[i].memory;
    }
    *stream_out = stream;
    return TRM_OK;
}

/* Into e->staged: the inputs where the device reads them. After a failure those that are not there
 * have no data. */
static trm_status send_inputs(trm_engine *e, trmi_flight *f, const trm_tensor *inputs)
{
    const trm_device_ops *ops = e->device->ops;
    size_t n = (size_t)e->graph->input_count * sizeof(trm_tensor);
    trm_stream *stream;

    if (holds(e, f, inputs)) {
        memcpy(e->staged, f->held, n);
        return TRM_OK;
    }
    f->filled = false;
    TRM_CHECK(upload(e, f, inputs, &stream));
    memcpy(f->held, e->staged, n);
    f->filled = true;
    e->busy = true;
    if (stream == e->stream)
        return TRM_OK;
    TRM_CHECK(ops->event_record(e->device, f->uploaded, e->up));
    return ops->event_wait(e->device, f->uploaded, e->stream);
}

/* ---- outputs ---- */

static trm_status fetch_output(trm_engine *e, trmi_flight *f, int i, trm_stream *stream,
                               size_t bytes)
{
    const trm_device_ops *ops = e->device->ops;
    const void *from = f->outputs[i].data;

    TRM_CHECK(trmi_buffer_grow(e, TRMI_HOST, &f->host_out[i], bytes + TRM_ALIGN));
    f->outputs[i].data = f->host_out[i].memory;
    if (e->out_places[i] == TRMI_HOST) {
        TRM_CHECK(trmi_engine_settle(e));
        copy_host(f->host_out[i].memory, from, bytes);
        return TRM_OK;
    }
    if (stream == e->stream)
        return ops->copy_out(e->device, stream, f->host_out[i].memory, from, bytes);
    /* out of the arena first, which the next step may overwrite */
    TRM_CHECK(trmi_buffer_grow(e, TRMI_DEVICE, &f->device_out[i], bytes + TRM_ALIGN));
    TRM_CHECK(ops->copy_within(e->device, e->stream, f->device_out[i].memory, from, bytes));
    TRM_CHECK(ops->event_record(e->device, f->computed, e->stream));
    TRM_CHECK(ops->event_wait(e->device, f->computed, stream));
    return ops->copy_out(e->device, stream, f->host_out[i].memory, f->device_out[i].memory, bytes);
}

static trm_status fetch_notes(trm_engine *e, trmi_flight *f)
{
    const trm_device_ops *ops = e->device->ops;

    f->notes = ops->notes_bytes == NULL ? 0 : ops->notes_bytes(e->device);
    if (f->notes == 0)
        return TRM_OK;
    TRM_CHECK(trmi_buffer_grow(e, TRMI_HOST, &f->host_notes, f->notes));
    return ops->notes_fetch(e->device, e->stream, f->host_notes.memory, f->notes);
}

static trm_status fetch_outputs(trm_engine *e, trmi_flight *f)
{
    const trm_device_ops *ops = e->device->ops;
    size_t all = 0, bytes;
    trm_stream *stream;

    for (int i = 0; i < e->graph->output_count; i++) {
        TRM_CHECK(trm_tensor_bytes(&f->outputs[i], &bytes));
        all += bytes;
    }
    stream = all > SMALL_BYTES ? e->down : e->stream;
    for (int i = 0; i < e->graph->output_count; i++) {
        TRM_CHECK(trm_tensor_bytes(&f->outputs[i], &bytes));
        TRM_CHECK(fetch_output(e, f, i, stream, bytes));
    }
    e->busy = true;
    TRM_CHECK(fetch_notes(e, f));
    if (stream != e->stream && f->notes > 0) {
        TRM_CHECK(ops->event_record(e->device, f->computed, e->stream));
        TRM_CHECK(ops->event_wait(e->device, f->computed, stream));
    }
    return ops->event_record(e->device, f->downloaded, stream);
}

/* ---- steps ---- */

static trm_status submit(trm_engine *e, trmi_flight *f, const trm_tensor *inputs)
{
    trm_status st = send_inputs(e, f, inputs);

    e->caller = inputs;
    if (st != TRM_OK) /* others of the group may have sent theirs */
        return trmi_engine_stand_in(e, e->staged, st);
    TRM_CHECK(trmi_engine_execute(e, e->staged, f->outputs, e->out_places));
    TRM_CHECK(fetch_outputs(e, f));
    if (e->flight_count++ == 0)
        e->oldest_us = trm_now_us();
    return TRM_OK;
}

trm_status trmi_flight_submit(trm_engine *e, const trm_tensor *inputs)
{
    trmi_flight *f = &e->flights[(e->flight_first + e->flight_count) % TRMI_FLIGHTS];

    const trm_device_ops *ops = e->device->ops;
    trm_status st;

    if (ops->mark_begin != NULL)
        ops->mark_begin(e->device, "step");
    st = submit(e, f, inputs);
    if (ops->mark_end != NULL)
        ops->mark_end(e->device);
    return st;
}

trm_status trmi_flight_give_up(trm_engine *e, const trm_tensor *inputs, trm_status why)
{
    trmi_flight *f = &e->flights[(e->flight_first + e->flight_count) % TRMI_FLIGHTS];
    char text[512];

    if (e->flight_count == TRMI_FLIGHTS)
        return trm_fail(TRM_ERR_INTERNAL, "a step is given up that had no room to begin");
    snprintf(text, sizeof(text), "%s", trm_message());
    if (send_inputs(e, f, inputs) != TRM_OK) /* what a collective reads may be among them */
        TRM_LOG(TRM_LOG_DEBUG, "engine", "a step that is given up: %s", trm_message());
    e->caller = inputs;
    return trmi_engine_stand_in(e, e->staged, trm_fail(why, "%s", text));
}

/* Waited for since `start`. */
static trm_status look(trm_engine *e, trm_event *event, int64_t start, bool *done_out)
{
    trm_device_group *group = e->options.group;
    int64_t now;

    TRM_CHECK(e->device->ops->event_done(e->device, event, done_out));
    if (*done_out)
        return TRM_OK;
    if (group != NULL) { /* a dead peer shows here: the kernel that waits for it never ends */
        bool ready;

        TRM_CHECK(group->ops->poll(group, &ready));
    }
    now = trm_now_us();
    if (now - start > trm_scaled_ms(STEP_TIMEOUT_MS) * 1000)
        return trm_fail(TRM_ERR_DEVICE, "the device has not finished a step for %d s",
                        (int)((now - start) / 1000000));
    return TRM_OK;
}

static trm_status wait_for(trm_engine *e, trm_event *event)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    int64_t start = trm_now_us();
    bool done = false;

    for (;;) {
        TRM_CHECK(look(e, event, start, &done));
        if (done)
            return TRM_OK;
        if (trm_now_us() - start > SPIN_US)
            nanosleep(&nap, NULL);
    }
}

trm_status trmi_flight_ready(trm_engine *e, bool *ready_out)
{
    return look(e, e->flights[e->flight_first].downloaded, e->oldest_us, ready_out);
}

trm_status trmi_engine_wait(trm_engine *e)
{
    TRM_CHECK(e->device->ops->event_record(e->device, e->settled, e->stream));
    return wait_for(e, e->settled);
}

trm_status trmi_flight_collect(trm_engine *e, trm_tensor *outputs)
{
    trmi_flight *f = &e->flights[e->flight_first];

    e->flight_first = (e->flight_first + 1) % TRMI_FLIGHTS;
    e->flight_count--;
    TRM_CHECK(wait_for(e, f->downloaded));
    e->oldest_us = trm_now_us();
    if (e->flight_count == 0)
        e->busy = false; /* the event is behind everything */
    if (f->notes > 0)
        TRM_CHECK(e->device->ops->notes_check(e->device, f->host_notes.memory, f->notes));
    memcpy(outputs, f->outputs, (size_t)e->graph->output_count * sizeof(*outputs));
    return TRM_OK;
}
