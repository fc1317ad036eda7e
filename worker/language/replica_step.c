/* A step on one rank: begun, ended, passed on. See replica_impl.h. */
#define _GNU_SOURCE
#include "worker/language/replica_impl.h"

#include "base/wait.h"
#include "worker/model_layout.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A step of a stage takes milliseconds: a nap is a small share of what was waited for already. */
#define SPIN_US TRM_WAIT_SPIN_US
#define NAP_LEAST_US 20
#define NAP_MOST_US 500
#define NAP_SHARE 32

void trmi_stage_rest_turn(trmi_stage_rest *rest)
{
    int64_t now = trm_now_us(), nap;

    if (rest->since_us == 0)
        rest->since_us = now;
    if (now - rest->since_us < SPIN_US) {
        (void)sched_yield(); /* who computes on this core goes first */
        return;
    }
    nap = (now - rest->since_us) / NAP_SHARE;
    usleep((useconds_t)(nap < NAP_LEAST_US ? NAP_LEAST_US : nap > NAP_MOST_US ? NAP_MOST_US : nap));
}

trm_status trmi_stage_broken(trm_lm_replica *r, trm_status st)
{
    if (trmi_stage_is_the_end(st))
        r->broken = true;
    return st == TRM_ERR_DEVICE ? trm_fail_context(TRM_ERR_COMM, "the device") : st;
}

void trmi_stage_note(trmi_stage_step *u, trm_status st)
{
    u->st = st;
    u->text[0] = '\0';
    if (st != TRM_OK)
        snprintf(u->text, sizeof(u->text), "%s", trm_message());
}

/* ---- messages ---- */

trm_status trmi_stage_receive(trm_lm_replica *r, int from, bool idle, bool *came_out)
{
    const void *data = NULL;
    size_t bytes = 0;

    if (came_out == NULL)
        TRM_CHECK(trm_comm_receive(r->model->replica_comm, from, idle, &data, &bytes));
    else
        TRM_CHECK(trm_comm_try_receive(r->model->replica_comm, from, came_out, &data, &bytes));
    if (came_out != NULL && !*came_out)
        return TRM_OK;
    if (trmi_message_parse(data, bytes, &r->message) != TRM_OK)
        return trm_fail(TRM_ERR_COMM, "from rank %d of the replica: %s", from, trm_message());
    return TRM_OK;
}

trm_status trmi_stage_unexpected(const trm_lm_replica *r, int from, uint64_t awaited)
{
    const trmi_message_head *h = &r->message.head;

    return trm_fail(TRM_ERR_COMM,
                    "rank %d of the replica sent message %u of step %" PRIu64 " where step %" PRIu64
                    " was awaited",
                    from, h->kind, h->step, awaited);
}

static trmi_message_head head_of(uint64_t step, trm_status st, const char *text)
{
    trmi_message_head h = {.kind = st == TRM_OK ? TRMI_MESSAGE_DATA : TRMI_MESSAGE_FAILED,
                           .step = step,
                           .status = (int32_t)st};

    if (st != TRM_OK)
        snprintf(h.text, sizeof(h.text), "%s", text);
    return h;
}

/* The residual stream to the next stage; results from the last one to the leader. */
static trm_status pass_on(trm_lm_replica *r, const trmi_stage_step *u)
{
    trmi_message_head head = head_of(u->number, u->st, u->text);
    bool last = r->stage + 1 == r->pipeline;
    trm_tensor result;

    if (!last) {
        for (int i = 0; i < r->local->output_count && u->st == TRM_OK; i++)
            if (!trm_lm_feed_is_fed(r->local->values[r->local->outputs[i]].name))
                r->send[head.count++] = r->out[i];
        return trmi_message_send(r->model->replica_comm, r->rank + r->tensor, &head, r->send, true,
                                 &r->scratch);
    }
    if (r->shard != 0 || r->rank == 0)
        return TRM_OK;
    if (u->st == TRM_OK) {
        result = trm_lm_feed_result(r->feed);
        head.count = 1;
    }
    return trmi_message_send(r->model->replica_comm, 0, &head, &result, true, &r->scratch);
}

/* ---- begun ---- */

/* What was wanted, and of what there was room for. */
static trm_status explained(trm_lm_replica *r, trm_status st)
{
    if (st == TRM_ERR_NO_MEMORY)
        trmi_layout_explain(r->model);
    return st;
}

bool trmi_stage_has_room(const trm_lm_replica *r, const trm_lm_step *step)
{
    uint64_t begun = r->begun - r->ended;

    if (begun == 0 || !r->overlaps)
        return begun == 0;
    return begun < (uint64_t)trm_engine_depth(r->engine) && trm_lm_feed_ahead(r->feed, step);
}

trm_status trmi_stage_next(trm_lm_replica *r)
{
    const trmi_stage_step *u = trmi_stage_at(r, r->begun);

    if (r->step_number == r->begun + 1)
        return TRM_OK;
    r->step_number = 0;
    if (trm_lm_step_decode(&r->step, u->encoded, u->encoded_bytes) != TRM_OK)
        return trm_fail(TRM_ERR_COMM, "a step came damaged: %s", trm_message());
    r->step_number = r->begun + 1;
    return TRM_OK;
}

/* Crossing tensors are in r->message. Without overlap the step has run on return. */
static trm_status start(trm_lm_replica *r, const trm_lm_step *step, trmi_stage_step *u)
{
    trm_tensor *in;
    trm_status st;

    trm_lm_feed_begin(r->feed, step);
    u->pick_count = step->pick_count;
    u->part_rows = step->part_rows;
    u->fed = false;
    u->submitted = false;
    st = explained(r, trm_lm_feed_inputs(r->feed, step, r->message.tensors,
                                         r->stage > 0 ? r->message.head.count : 0, &in));
    if (st != TRM_OK) /* the other shards may have made theirs */
        return in == NULL ? st : trm_engine_give_up(r->engine, in, st);
    u->fed = true;
    if (r->overlaps) {
        st = explained(r, trm_engine_submit(r->engine, in));
        u->submitted = st == TRM_OK;
        return st;
    }
    st = explained(r, trm_engine_run(r->engine, in, r->out));
    if (st != TRM_OK)
        trm_lm_feed_nothing(r->feed, u->pick_count);
    u->fed = false;
    return st != TRM_OK || r->stage + 1 < r->pipeline
               ? st
               : trm_lm_feed_outputs(r->feed, step->picks, step->pick_count, r->out);
}

trm_status trmi_stage_begin(trm_lm_replica *r, const trm_lm_step *step)
{
    trmi_stage_step *u = trmi_stage_at(r, r->begun);

    u->number = r->begun++;
    trmi_stage_note(u, start(r, step, u));
    if (trmi_stage_is_the_end(u->st))
        return trmi_stage_broken(r, u->st);
    r->stats.steps++;
    r->stats.behind += u->submitted && r->flying > 0;
    r->flying += u->submitted;
    return TRM_OK;
}

/* ---- ended ---- */

/* What the oldest step has come to. */
static trm_status finish(trm_lm_replica *r, trmi_stage_step *u)
{
    trm_status st = u->st;

    if (u->submitted) {
        u->submitted = false;
        r->flying--;
        st = trm_engine_collect(r->engine, r->out);
        if (st == TRM_OK) {
            u->fed = false;
            return trm_lm_feed_outputs(r->feed, NULL, u->pick_count, r->out);
        }
    }
    if (st != TRM_OK && u->fed)
        trm_lm_feed_nothing(r->feed, u->pick_count);
    u->fed = false;
    return st;
}

trm_status trmi_stage_end(trm_lm_replica *r)
{
    trmi_stage_step *u = trmi_stage_at(r, r->ended);
    bool began = u->st == TRM_OK;
    trm_status st = finish(r, u);

    if (began)
        trmi_stage_note(u, st);
    if (began && trmi_stage_is_the_end(u->st))
        return trmi_stage_broken(r, u->st);
    r->ended++;
    return trmi_stage_broken(r, pass_on(r, u));
}

/* ---- both ---- */

static trm_status is_over(trm_lm_replica *r, bool *over_out)
{
    *over_out = !trmi_stage_at(r, r->ended)->submitted;
    return *over_out ? TRM_OK : trmi_stage_broken(r, trm_engine_ready(r->engine, over_out));
}

trm_status trmi_stage_advance(trm_lm_replica *r, bool *moved_out)
{
    *moved_out = false;
    for (;;) {
        bool can = false;

        /* first what others wait for: with two steps begun the device has the second one already */
        if (r->ended < r->begun)
            TRM_CHECK(is_over(r, &can));
        if (can) {
            TRM_CHECK(trmi_stage_end(r));
            *moved_out = true;
            continue;
        }
        if (r->stage > 0 || r->begun == r->next_step)
            return TRM_OK;
        TRM_CHECK(trmi_stage_next(r));
        if (!trmi_stage_has_room(r, &r->step))
            return TRM_OK;
        TRM_CHECK(trmi_stage_begin(r, &r->step));
        *moved_out = true;
    }
}

trm_status trmi_stage_drain(trm_lm_replica *r)
{
    trmi_stage_rest rest = {0};

    while (r->ended < r->next_step) {
        bool moved;

        TRM_CHECK(trmi_stage_advance(r, &moved));
        if (moved)
            rest = (trmi_stage_rest){0};
        else
            trmi_stage_rest_turn(&rest);
    }
    return TRM_OK;
}
