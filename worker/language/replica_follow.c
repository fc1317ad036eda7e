/* Everybody but the leader: takes what comes and runs it. See replica_impl.h.
 *
 * Two ranks send: the leader its decisions, the same shard of the stage before what crosses. Where
 * that shard is the leader itself both come from one rank: the decisions in order, what crosses in
 * order, and a step's decision before what crosses of it. */
#include "worker/language/replica_impl.h"

#include <string.h>

static int before(const trm_lm_replica *r)
{
    return r->rank - r->tensor;
}

/* A decision waits in the ring until its turn comes. */
static trm_status keep_decision(trm_lm_replica *r)
{
    const trm_tensor *t = r->message.tensors;
    trmi_stage_step *u = trmi_stage_at(r, r->next_step);
    size_t bytes;

    if (r->message.head.step != r->next_step || r->next_step - r->ended == (uint64_t)r->depth)
        return trmi_stage_unexpected(r, 0, r->next_step);
    if (r->message.head.count != 1 || t->dtype != TRM_DTYPE_U8)
        return trm_fail(TRM_ERR_COMM, "a step came damaged: %d tensors", r->message.head.count);
    bytes = trm_tensor_numel(t);
    if (bytes > u->encoded_max || u->encoded == NULL) {
        trm_free(u->encoded);
        u->encoded_max = 0;
        u->encoded = trm_malloc(bytes + 1, 2);
        if (u->encoded == NULL)
            return trm_fail(TRM_ERR_COMM, "no memory for a step of %zu bytes, which others run",
                            bytes);
        u->encoded_max = 2 * bytes;
    }
    if (bytes > 0)
        memcpy(u->encoded, t->data, bytes);
    u->encoded_bytes = bytes;
    r->next_step++;
    return TRM_OK;
}

/* What crosses: the next step begins, or is known to fail. */
static trm_status take_crossing(trm_lm_replica *r)
{
    const trmi_message_head *h = &r->message.head;
    trmi_stage_step *u = trmi_stage_at(r, r->begun);

    if (r->begun == r->next_step || h->step != r->begun ||
        (h->kind == TRMI_MESSAGE_FAILED && h->status == TRM_OK))
        return trmi_stage_unexpected(r, before(r), r->begun);
    if (h->kind == TRMI_MESSAGE_DATA) {
        TRM_CHECK(trmi_stage_next(r));
        return trmi_stage_begin(r, &r->step);
    }
    u->number = r->begun++;
    u->fed = u->submitted = false;
    u->st = (trm_status)h->status;
    memcpy(u->text, h->text, sizeof(u->text));
    return TRM_OK;
}

static trm_status take(trm_lm_replica *r, int from)
{
    uint32_t kind = r->message.head.kind;

    if (from == 0 && kind == TRMI_MESSAGE_STOP) {
        r->stopping = true;
        return TRM_OK;
    }
    if (from == 0 && kind == TRMI_MESSAGE_DECISION)
        return keep_decision(r);
    if (r->stage > 0 && from == before(r) &&
        (kind == TRMI_MESSAGE_DATA || kind == TRMI_MESSAGE_FAILED))
        return take_crossing(r);
    return trmi_stage_unexpected(r, from, r->begun);
}

static trm_status wait_for(trm_lm_replica *r, int from, bool idle)
{
    TRM_CHECK(trmi_stage_receive(r, from, idle, NULL));
    return take(r, from);
}

static trm_status look_for(trm_lm_replica *r, int from, bool *came_out)
{
    TRM_CHECK(trmi_stage_receive(r, from, false, came_out));
    return *came_out ? take(r, from) : TRM_OK;
}

/* While the device computes: what has come that can be used now. */
static trm_status try_both(trm_lm_replica *r, bool *came_out)
{
    bool crosses = r->stage > 0 && r->begun < r->next_step, both = crosses && before(r) == 0;

    *came_out = false;
    if (!r->stopping && !both && r->next_step - r->ended < (uint64_t)r->depth)
        TRM_CHECK(look_for(r, 0, came_out));
    if (*came_out || !crosses)
        return TRM_OK;
    TRM_CHECK(trmi_stage_next(r));
    return trmi_stage_has_room(r, &r->step) ? look_for(r, before(r), came_out) : TRM_OK;
}

/* With stages others wait for what this rank has begun. Without, only its own ring does. */
static trm_status wait_while_running(trm_lm_replica *r)
{
    trmi_stage_rest rest = {0};
    bool moved = false;

    if (r->pipeline == 1)
        return trmi_stage_end(r);
    while (!moved) {
        TRM_CHECK(try_both(r, &moved));
        if (!moved)
            TRM_CHECK(trmi_stage_advance(r, &moved));
        if (!moved)
            trmi_stage_rest_turn(&rest);
    }
    return TRM_OK;
}

static trm_status follow(trm_lm_replica *r)
{
    for (;;) {
        uint64_t waiting = r->next_step - r->begun, running = r->begun - r->ended;
        bool moved;

        TRM_CHECK(trmi_stage_advance(r, &moved));
        if (moved)
            continue;
        if (waiting + running == 0 && r->stopping)
            return TRM_OK;
        if (running > 0 &&
            (r->pipeline > 1 || waiting > 0 || r->stopping || running == (uint64_t)r->depth))
            TRM_CHECK(wait_while_running(r));
        else if (waiting > 0)
            TRM_CHECK(wait_for(r, before(r), false));
        else
            TRM_CHECK(wait_for(r, 0, true));
    }
}

trm_status trm_lm_replica_follow(trm_lm_replica *r)
{
    if (r->rank == 0)
        return trm_fail(TRM_ERR_CANCELLED, "the leader does not follow");
    r->stopping = false;
    return trmi_stage_broken(r, follow(r));
}
