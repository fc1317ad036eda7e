/* Steps: announced by the leader, run stage after stage, collected by the leader.
 *
 * What a rank waits for comes in the order of steps, from one rank each time: the step plan from
 * the leader, crossing tensors from the same shard of the stage before, results from shard 0 of a
 * stage. So nothing has to be matched, only checked. */
#define _GNU_SOURCE
#include "worker/replica_impl.h"

#include "worker/engine_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A lost rank or a lost device ends the replica. */
static bool is_the_end(trm_status st)
{
    return st == TRM_ERR_COMM || st == TRM_ERR_DEVICE;
}

/* The engine runs several steps at once, and there is nobody to pass anything on to. */
static bool overlaps(const trm_replica *r)
{
    return r->size == 1 && r->depth > 1;
}

static trm_status lost_device(trm_replica *r)
{
    char host[64] = "?";
    trm_device_info info;

    r->options.device->ops->info(r->options.device, &info);
    if (gethostname(host, sizeof(host) - 1) != 0)
        snprintf(host, sizeof(host), "?");
    return trm_fail_context(TRM_ERR_COMM, "host %s, %s", host, info.name);
}

static trm_status broken(trm_replica *r, trm_status st)
{
    if (is_the_end(st))
        r->broken = true;
    /* for everybody else this rank is lost */
    return st == TRM_ERR_DEVICE ? lost_device(r) : st;
}

/* Whatever ended a step's message half-way (no memory for it, say), others have had it and wait. */
static trm_status half_sent(trm_replica *r, trm_status st)
{
    if (st != TRM_OK && !is_the_end(st))
        st = trm_fail_context(TRM_ERR_COMM, "a step that only some ranks know of");
    return broken(r, st);
}

static trm_status is_usable(const trm_replica *r)
{
    if (r->broken)
        return trm_fail(TRM_ERR_COMM, "the replica has lost a rank");
    if (r->rank != 0 || r->stopped)
        return trm_fail(TRM_ERR_CANCELLED, r->stopped ? "the replica has been stopped"
                                                      : "only the leader starts steps");
    return TRM_OK;
}

static trm_status explained(const trm_replica *r, trm_status st)
{
    if (st == TRM_ERR_NO_MEMORY && r->options.no_memory != NULL)
        r->options.no_memory(r->options.ctx);
    return st;
}

/* Room for `bytes` in a buffer that grows. */
static trm_status grow(void **memory, size_t *max, size_t bytes)
{
    if (bytes <= *max && *memory != NULL)
        return TRM_OK;
    trm_aligned_free(*memory);
    *max = 0;
    *memory = trm_aligned_malloc(bytes + TRM_ALIGN);
    if (*memory == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes of a step", bytes);
    *max = bytes;
    return TRM_OK;
}

static trm_status receive(trm_replica *r, int from, bool idle, trmi_message_kind want,
                          uint64_t step)
{
    const void *data;
    size_t bytes;
    trmi_message_head *h = &r->message.head;

    TRM_CHECK(trm_comm_receive(r->options.replica, from, idle, &data, &bytes));
    if (trmi_message_parse(data, bytes, &r->message) != TRM_OK)
        return trm_fail(TRM_ERR_COMM, "from rank %d of the replica: %s", from, trm_message());
    if (h->kind == TRMI_MESSAGE_STOP && want == TRMI_MESSAGE_STEP)
        return TRM_OK;
    if ((h->kind != want &&
         !(h->kind == TRMI_MESSAGE_FAILED && want == TRMI_MESSAGE_DATA && h->status != TRM_OK)) ||
        h->step != step)
        return trm_fail(TRM_ERR_COMM,
                        "rank %d of the replica sent message %u of step %" PRIu64
                        " where %d of %" PRIu64 " was awaited",
                        from, h->kind, h->step, want, step);
    return TRM_OK;
}

static trmi_message_head failed_head(uint64_t step, trm_status st, const char *text)
{
    trmi_message_head h = {.kind = TRMI_MESSAGE_FAILED, .step = step, .status = (int32_t)st};

    snprintf(h.text, sizeof(h.text), "%s", text);
    return h;
}

/* Passes on what crosses and what the leader awaits, or that it failed. */
static trm_status pass_on(trm_replica *r, uint64_t step, trm_status st, const char *text)
{
    trmi_message_head head = {.kind = TRMI_MESSAGE_DATA, .step = step};
    bool last = r->stage + 1 == r->pipeline;

    if (st != TRM_OK)
        head = failed_head(step, st, text);
    if (!last) {
        for (int i = 0; i < r->cross_count && st == TRM_OK; i++)
            r->send[i] = r->out[r->cross[i]];
        head.count = st == TRM_OK ? r->cross_count : 0;
        TRM_CHECK(trmi_message_send(r->options.replica, r->rank + r->tensor, &head, r->send, true,
                                    &r->scratch));
    }
    if (r->stage == 0 || r->shard != 0 || (r->result_count == 0 && !last))
        return TRM_OK;
    for (int i = 0; i < r->result_count && st == TRM_OK; i++)
        r->send[i] = r->out[r->results[i]];
    head.count = st == TRM_OK ? r->result_count : 0;
    return trmi_message_send(r->options.replica, 0, &head, r->send, true, &r->scratch);
}

/* ---- the leader ---- */

/* Tells every other rank that a step begins, and stage 0's shards its inputs. */
static trm_status announce(trm_replica *r, uint64_t step, const trm_tensor *inputs)
{
    trmi_message_head head = {
        .kind = TRMI_MESSAGE_STEP, .step = step, .count = r->local->input_count};

    for (int i = 0; i < r->local->input_count; i++)
        r->in[i] = inputs[r->in_from[i]];
    for (int to = 1; to < r->size; to++)
        TRM_CHECK(trmi_message_send(r->options.replica, to, &head, r->in, false, &r->scratch));
    for (int i = 0; i < r->local->input_count && r->tensor > 1; i++) {
        size_t bytes;

        TRM_CHECK(trm_tensor_bytes(&r->in[i], &bytes));
        if (bytes > 0)
            TRM_CHECK(trm_comm_broadcast(r->options.stage, r->in[i].data, bytes, 0));
    }
    return TRM_OK;
}

static trm_status keep(trm_replica *r, struct trmi_under_way *u, int output, const trm_tensor *t)
{
    size_t bytes;

    (void)r;
    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    TRM_CHECK(grow(&u->memory[output], &u->bytes[output], bytes));
    if (bytes > 0)
        memcpy(u->memory[output], t->data, bytes);
    u->kept[output] = *t;
    u->kept[output].data = u->memory[output];
    return TRM_OK;
}

/* The outputs that the leader has itself. With stages they are copied: the next step's would
 * overwrite them. */
static trm_status keep_own(trm_replica *r, struct trmi_under_way *u, const trm_tensor *inputs)
{
    for (int i = 0; i < r->graph->output_count; i++) {
        const struct trmi_origin *o = &r->origins[i];

        if (o->stage < 0 && o->constant)
            TRM_CHECK(trm_graph_constant(r->graph, o->index, &u->kept[i]));
        else if (o->stage < 0)
            TRM_CHECK(keep(r, u, i, &inputs[o->index]));
        else if (o->stage == 0 && overlaps(r))
            continue; /* collect has it */
        else if (o->stage == 0 && r->pipeline == 1)
            u->kept[i] = r->out[r->results[o->index]];
        else if (o->stage == 0)
            TRM_CHECK(keep(r, u, i, &r->out[r->results[o->index]]));
    }
    return TRM_OK;
}

trm_status trm_replica_submit(trm_replica *r, const trm_tensor *inputs)
{
    struct trmi_under_way *u = &r->ring[(r->first + r->under_way) % r->depth];

    TRM_CHECK(is_usable(r));
    TRM_CHECK(trm_replica_check(r, inputs));
    if (r->under_way == r->depth)
        return trm_fail(TRM_ERR_CANCELLED, "%d steps are under way: collect one first", r->depth);
    u->number = r->next_step;
    u->text[0] = '\0';
    u->submitted = false;
    TRM_CHECK(half_sent(r, announce(r, u->number, inputs)));
    r->next_step++;
    u->st = explained(r, overlaps(r) ? trm_engine_submit(r->engine, r->in)
                                     : trm_engine_run(r->engine, r->in, r->out));
    if (is_the_end(u->st))
        return broken(r, u->st);
    if (u->st == TRM_OK && overlaps(r))
        u->submitted = true;
    if (u->st == TRM_OK)
        u->st = keep_own(r, u, inputs);
    if (u->st != TRM_OK)
        snprintf(u->text, sizeof(u->text), "%s", trm_message());
    if (r->pipeline > 1)
        TRM_CHECK(half_sent(r, pass_on(r, u->number, u->st, u->text)));
    r->under_way++;
    return TRM_OK;
}

/* What stage `s` sends of the oldest step. */
static trm_status collect_stage(trm_replica *r, struct trmi_under_way *u, int s,
                                trm_tensor *outputs)
{
    const trmi_message_head *h = &r->message.head;

    TRM_CHECK(receive(r, s * r->tensor, false, TRMI_MESSAGE_DATA, u->number));
    if (h->kind == TRMI_MESSAGE_FAILED) {
        if (u->st == TRM_OK) {
            u->st = (trm_status)h->status;
            snprintf(u->text, sizeof(u->text), "%s", h->text);
        }
        return TRM_OK;
    }
    if (h->count != r->results_of[s])
        return trm_fail(TRM_ERR_COMM, "stage %d sent %d outputs, want %d", s, h->count,
                        r->results_of[s]);
    for (int i = 0; i < r->graph->output_count; i++)
        if (r->origins[i].stage == s)
            outputs[i] = r->message.tensors[r->origins[i].index];
    return TRM_OK;
}

trm_status trm_replica_collect(trm_replica *r, trm_tensor *outputs)
{
    struct trmi_under_way *u = &r->ring[r->first];

    TRM_CHECK(is_usable(r));
    if (r->under_way == 0)
        return trm_fail(TRM_ERR_CANCELLED, "no step is under way");
    for (int s = 1; s < r->pipeline; s++)
        if (r->results_of[s] > 0 || s + 1 == r->pipeline)
            TRM_CHECK(broken(r, collect_stage(r, u, s, outputs)));
    r->first = (r->first + 1) % r->depth;
    r->under_way--;
    if (u->submitted) {
        trm_status st = trm_engine_collect(r->engine, r->out);

        if (is_the_end(st))
            return broken(r, st);
        TRM_CHECK(st);
        for (int i = 0; i < r->graph->output_count; i++)
            if (r->origins[i].stage == 0)
                u->kept[i] = r->out[r->results[r->origins[i].index]];
    }
    if (u->st != TRM_OK)
        return trm_fail(u->st, "%s", u->text);
    for (int i = 0; i < r->graph->output_count; i++)
        if (r->origins[i].stage <= 0)
            outputs[i] = u->kept[i];
    return TRM_OK;
}

trm_status trm_replica_run(trm_replica *r, const trm_tensor *inputs, trm_tensor *outputs)
{
    TRM_CHECK(is_usable(r));
    if (r->under_way > 0)
        return trm_fail(TRM_ERR_CANCELLED, "%d steps are under way: collect them first",
                        r->under_way);
    TRM_CHECK(trm_replica_submit(r, inputs));
    return trm_replica_collect(r, outputs);
}

trm_status trm_replica_stop(trm_replica *r)
{
    trmi_message_head head = {.kind = TRMI_MESSAGE_STOP};

    if (r->stopped || r->broken || r->rank != 0)
        return TRM_OK;
    r->stopped = true;
    for (int to = 1; to < r->size; to++)
        TRM_CHECK(
            broken(r, trmi_message_send(r->options.replica, to, &head, NULL, false, &r->scratch)));
    return TRM_OK;
}

trm_status trm_replica_pause(trm_replica *r)
{
    TRM_CHECK(trm_replica_stop(r));
    r->stopped = false;
    return TRM_OK;
}

/* ---- everybody else ---- */

static trm_status take_broadcast(trm_replica *r)
{
    if (r->message.head.count != r->local->input_count)
        return trm_fail(TRM_ERR_COMM, "a step of %d inputs, this rank's graph has %d",
                        r->message.head.count, r->local->input_count);
    for (int i = 0; i < r->local->input_count; i++) {
        size_t bytes;

        r->in[i] = r->message.tensors[i];
        TRM_CHECK(trm_tensor_bytes(&r->in[i], &bytes));
        if (grow(&r->in_memory[i], &r->in_bytes[i], bytes) != TRM_OK)
            return trm_fail(TRM_ERR_COMM, "%s", trm_message()); /* out of step with the others */
        r->in[i].data = r->in_memory[i];
        if (bytes > 0)
            TRM_CHECK(trm_comm_broadcast(r->options.stage, r->in_memory[i], bytes, 0));
    }
    return TRM_OK;
}

static trm_status follow_step(trm_replica *r)
{
    uint64_t step = r->next_step++;
    char text[TRMI_REPLICA_TEXT] = "";
    trm_status st = TRM_OK;

    if (r->stage == 0) {
        TRM_CHECK(take_broadcast(r));
    } else {
        TRM_CHECK(receive(r, r->rank - r->tensor, false, TRMI_MESSAGE_DATA, step));
        st = (trm_status)r->message.head.status;
        if (r->message.head.kind == TRMI_MESSAGE_FAILED)
            return pass_on(r, step, st, r->message.head.text);
        if (r->message.head.count != r->local->input_count)
            return trm_fail(TRM_ERR_COMM, "%d tensors came from the stage before, want %d",
                            r->message.head.count, r->local->input_count);
        for (int i = 0; i < r->local->input_count; i++)
            r->in[i] = r->message.tensors[r->in_from[i]];
    }
    st = explained(r, trm_engine_run(r->engine, r->in, r->out));
    if (is_the_end(st))
        return broken(r, st);
    if (st != TRM_OK)
        snprintf(text, sizeof(text), "%s", trm_message());
    return pass_on(r, step, st, text);
}

trm_status trm_replica_follow(trm_replica *r)
{
    if (r->rank == 0)
        return trm_fail(TRM_ERR_CANCELLED, "the leader does not follow");
    for (;;) {
        TRM_CHECK(receive(r, 0, true, TRMI_MESSAGE_STEP, r->next_step));
        if (r->message.head.kind == TRMI_MESSAGE_STOP)
            return TRM_OK;
        TRM_CHECK(follow_step(r));
    }
}
