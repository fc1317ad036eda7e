/* See replica.h. Everything that a rank waits for comes in the order of steps from one rank each
 * time, as in worker/replica_run.c. */
#define _GNU_SOURCE
#include "worker/language/replica.h"

#include "base/log.h"
#include "kernels/device_group.h"
#include "parallel/device_group.h"
#include "worker/language/feed.h"
#include "worker/model_layout.h"
#include "worker/replica_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STEP_TIMEOUT_MS 120000
#define GROUP_TIMEOUT_MS 60000
#define PROGRAMS_MAX                                                                               \
    128 /* sizes of steps that stay bound: the grid of token rows times that of picks in use */

struct under_way {
    uint64_t number;
    int pick_count, part_rows;
    bool fed; /* its inputs were made */
    trm_status st;
    char text[TRMI_REPLICA_TEXT];
    struct timespec since;
};

struct trm_lm_replica {
    trm_lm_replica_options options;
    trm_tensor_model *model;
    int tensor, pipeline, stage, shard, rank, size, depth;
    trm_graph *local;
    bool owns_local;
    trm_device_group *group; /* of the stage's devices; NULL: over host memory */
    trm_engine *engine;
    trm_lm_feed *feed;
    trm_lm_step step; /* followers: the one that came */
    trm_tensor *out, *send;
    void *encoded;
    size_t encoded_max;
    trmi_scratch scratch;
    trmi_message message;
    struct under_way *ring;
    int first, under_way;
    uint64_t next_step;
    bool draws_there; /* the graph ends with TrmSample: tokens are on the device first */
    bool overlaps;    /* the engine has a step under way while the next one is made */
    bool stopped, broken;
};

/* ---- life ---- */

size_t trm_lm_page_bytes(const trm_graph *g, trm_dtype kv_dtype)
{
    size_t bytes = 0;

    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];

        if (node->op == TRM_OP_TrmPagedAttention && trm_attr_int(&node->attrs, "encoder", 0) == 0)
            bytes += trm_kv_page_bytes(trm_attr_int(&node->attrs, "kv_heads", 0),
                                       trm_attr_int(&node->attrs, "head_dim", 0), kv_dtype);
    }
    return bytes;
}

static trm_status reserve(trm_lm_replica *r)
{
    const trm_plan *plan = r->model->plan;
    trm_comm_needs needs = {.messages = r->depth + 2};

    if (r->size == 1)
        return TRM_OK;
    needs.slot_bytes = plan->slot_bytes;
    needs.message_bytes = plan->message_bytes;
    trm_comm_set_timeout(r->model->replica_comm, STEP_TIMEOUT_MS);
    TRM_CHECK(trm_comm_reserve(r->model->replica_comm, &needs));
    if (r->tensor == 1)
        return TRM_OK;
    trm_comm_set_timeout(r->model->stage_comm, STEP_TIMEOUT_MS);
    return trm_comm_reserve(r->model->stage_comm, &needs);
}

/* Whether the device can draw tokens itself. */
static bool draws(trm_device *device)
{
    const trm_op_desc desc = {.op = TRM_OP_TrmSample, .name = "sample"};

    return !device->host_memory && device->ops->step_encode != NULL &&
           device->ops->supports(device, &desc);
}

/* The last stage's graph goes on to tokens. */
static trm_status add_sample(trm_graph *g)
{
    const int last = g->outputs[g->output_count - 1];
    trm_tensor desc = {.dtype = TRM_DTYPE_U8, .rank = 2};
    int inputs[2] = {last, TRM_NO_VALUE}, sampled, node, outputs[1];

    for (int i = 0; i < g->input_count; i++)
        if (strcmp(g->values[g->inputs[i]].name, "step") == 0)
            inputs[1] = g->inputs[i];
    if (inputs[1] == TRM_NO_VALUE || g->output_count != 1)
        return trm_fail(TRM_ERR_INTERNAL, "a stage with logits and without a step");
    desc.dims[0] = g->values[last].desc.dims[0];
    desc.dims[1] = (int64_t)sizeof(trm_step_sampled);
    TRM_CHECK(trm_graph_add_value(g, "sampled", &desc, &sampled));
    outputs[0] = sampled;
    TRM_CHECK(trm_graph_add_node(g, TRM_OP_TrmSample, "sample", inputs, 2, outputs, 1, &node));
    TRM_CHECK(trm_graph_set_outputs(g, outputs, 1));
    return trm_graph_sort(g);
}

static trm_status make_engine(trm_lm_replica *r)
{
    trm_engine_options eo = {.programs_max = PROGRAMS_MAX,
                             .profile = r->options.profile,
                             .comm = r->tensor > 1 ? r->model->stage_comm : NULL,
                             .group = r->group};

    if (r->size == 1) {
        r->local = r->model->graph;
        TRM_CHECK(trm_pass_finish(r->local));
    } else {
        TRM_CHECK(trm_plan_graph(r->model->plan, r->model->graph, r->stage, r->shard, &r->local));
        r->owns_local = true;
    }
    if (r->draws_there && r->stage + 1 == r->pipeline)
        TRM_CHECK(add_sample(r->local));
    TRM_CHECK(trm_pass_round_language(r->local, r->model->device->rounding));
    return trm_engine_create(r->local, r->model->device, &eo, &r->engine);
}

/* Shards with devices of their own exchange data over the devices' links. */
static trm_status open_group(trm_lm_replica *r)
{
    if (r->tensor == 1 || r->model->device->host_memory)
        return TRM_OK;
    return trm_device_group_open(r->model->stage_comm, r->model->device, GROUP_TIMEOUT_MS,
                                 &r->group);
}

static trm_status create_here(trm_lm_replica *r)
{
    const trm_lm_replica_options *o = &r->options;
    trm_lm_feed_options fo = {.pages = o->pages,
                              .kv_dtype = o->kv_dtype,
                              .batch = o->batch,
                              .step_tokens = o->step_tokens,
                              .picks = o->picks,
                              .device = r->model->device,
                              .language = r->model->language,
                              .samples =
                                  r->stage + 1 == r->pipeline && (r->shard == 0 || r->draws_there)};

    TRM_CHECK(make_engine(r));
    fo.graph = r->local;
    fo.engine = r->engine;
    TRM_CHECK(trm_lm_feed_create(&fo, &r->feed));
    TRM_CHECK(trm_lm_replica_step(r, &r->step));
    r->out = trm_calloc((size_t)r->local->output_count + 1, sizeof(*r->out));
    r->send = trm_calloc((size_t)r->local->output_count + 2, sizeof(*r->send));
    r->ring = trm_calloc((size_t)r->depth, sizeof(*r->ring));
    if (r->out == NULL || r->send == NULL || r->ring == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "replica");
    return TRM_OK;
}

static trm_status agree(trm_lm_replica *r, trm_status st)
{
    return r->size == 1 ? st : trm_comm_agree(r->model->replica_comm, st);
}

trm_status trm_lm_replica_create(const trm_lm_replica_options *options,
                                 trm_lm_replica **replica_out)
{
    trm_lm_replica *r = trm_calloc(1, sizeof(*r));
    const trm_tensor_model *m = options->model;
    trm_status st;

    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "replica");
    r->options = *options;
    r->model = options->model;
    r->tensor = m->plan == NULL ? 1 : m->parallel.tensor;
    r->pipeline = m->plan == NULL ? 1 : m->parallel.pipeline;
    r->size = r->tensor * r->pipeline;
    r->stage = r->size == 1 ? 0 : m->place.stage;
    r->shard = r->size == 1 ? 0 : m->place.shard;
    r->rank = r->stage * r->tensor + r->shard;
    r->draws_there = options->pages > 0 && draws(m->device);
    r->overlaps = r->pipeline == 1 && trm_engine_depth_of(m->device) > 1 &&
                  (r->draws_there || options->pages == 0);
    r->depth = r->overlaps        ? trm_engine_depth_of(m->device)
               : r->pipeline == 1 ? 1
                                  : r->pipeline + 1;
    TRM_TRY(st, reserve(r), fail);
    TRM_TRY(st, agree(r, open_group(r)), fail);
    TRM_TRY(st, agree(r, create_here(r)), fail);
    *replica_out = r;
    return TRM_OK;
fail:
    trm_lm_replica_destroy(r);
    return st;
}

void trm_lm_replica_destroy(trm_lm_replica *r)
{
    if (r == NULL)
        return;
    if (r->broken && r->group != NULL) /* kernels that wait for a lost peer end */
        r->group->ops->abandon(r->group);
    trm_lm_feed_destroy(r->feed);
    trm_engine_destroy(r->engine);
    trm_device_group_close(r->group);
    if (r->owns_local)
        trm_graph_destroy(r->local);
    trm_lm_step_fini(&r->step);
    trm_free(r->out);
    trm_free(r->send);
    trm_free(r->ring);
    trm_free(r->encoded);
    trm_free(r->scratch.bytes);
    trm_free(r->scratch.pieces);
    trm_free(r->message.tensors);
    trm_free(r);
}

bool trm_lm_replica_leads(const trm_lm_replica *r)
{
    return r->rank == 0;
}

int trm_lm_replica_depth(const trm_lm_replica *r)
{
    return r->depth;
}

bool trm_lm_replica_looks_ahead(const trm_lm_replica *r)
{
    return r->draws_there && r->overlaps; /* the stage that reads tokens draws them */
}

const trm_engine *trm_lm_replica_engine(const trm_lm_replica *r)
{
    return r->engine;
}

trm_status trm_lm_replica_step(const trm_lm_replica *r, trm_lm_step *step_out)
{
    const trm_lm_replica_options *o = &r->options;
    int64_t pages =
        o->pages == 0 ? 0 : (int64_t)o->batch * ((o->context + TRM_KV_PAGE - 1) / TRM_KV_PAGE + 1);

    if (pages > INT32_MAX / 4)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--max-batch %d of contexts of %d tokens: a step cannot name so many pages",
                        o->batch, o->context);
    return trm_lm_step_init(step_out, o->step_tokens, o->batch, o->picks, (int)pages, o->batch,
                            trm_lm_feed_has_types(r->model->graph));
}

/* ---- a step on this rank ---- */

static trm_status broken(trm_lm_replica *r, trm_status st)
{
    if (st == TRM_ERR_COMM || st == TRM_ERR_DEVICE)
        r->broken = true;
    return st == TRM_ERR_DEVICE ? trm_fail_context(TRM_ERR_COMM, "the device") : st;
}

static trm_status receive(trm_lm_replica *r, int from, bool idle, uint64_t step)
{
    trmi_message_head *h = &r->message.head;
    const void *data;
    size_t bytes;

    TRM_CHECK(trm_comm_receive(r->model->replica_comm, from, idle, &data, &bytes));
    if (trmi_message_parse(data, bytes, &r->message) != TRM_OK)
        return trm_fail(TRM_ERR_COMM, "from rank %d of the replica: %s", from, trm_message());
    if (h->kind == TRMI_MESSAGE_STOP)
        return TRM_OK;
    if ((h->kind != TRMI_MESSAGE_DATA && h->kind != TRMI_MESSAGE_FAILED) || h->step != step)
        return trm_fail(TRM_ERR_COMM,
                        "rank %d of the replica sent message %u of step %" PRIu64
                        " where step %" PRIu64 " was awaited",
                        from, h->kind, h->step, step);
    return TRM_OK;
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
static trm_status pass_on(trm_lm_replica *r, uint64_t number, trm_status st, const char *text)
{
    trmi_message_head head = head_of(number, st, text);
    bool last = r->stage + 1 == r->pipeline;
    trm_tensor result;

    if (!last) {
        for (int i = 0; i < r->local->output_count && st == TRM_OK; i++)
            if (!trm_lm_feed_is_fed(r->local->values[r->local->outputs[i]].name))
                r->send[head.count++] = r->out[i];
        return trmi_message_send(r->model->replica_comm, r->rank + r->tensor, &head, r->send, true,
                                 &r->scratch);
    }
    if (r->shard != 0 || r->rank == 0)
        return TRM_OK;
    if (st == TRM_OK) {
        result = trm_lm_feed_result(r->feed);
        head.count = 1;
    }
    return trmi_message_send(r->model->replica_comm, 0, &head, &result, true, &r->scratch);
}

/* ---- a step on this rank: begun, and ended ---- */

static struct under_way *newest(trm_lm_replica *r)
{
    return &r->ring[(r->first + r->under_way) % r->depth];
}

/* Weights are packed when the first step is bound. */
static trm_status explained(trm_lm_replica *r, trm_status st)
{
    if (st == TRM_ERR_NO_MEMORY)
        trmi_layout_explain(r->model);
    return st;
}

/* Crossing tensors are in r->message. Without overlap the step has run on return. */
static trm_status start(trm_lm_replica *r, const trm_lm_step *step, struct under_way *u)
{
    trm_tensor *in;
    trm_status st;

    trm_lm_feed_begin(r->feed, step);
    u->pick_count = step->pick_count;
    u->part_rows = step->part_rows;
    u->fed = false;
    st = explained(r, trm_lm_feed_inputs(r->feed, step, r->message.tensors,
                                         r->stage > 0 ? r->message.head.count : 0, &in));
    if (st != TRM_OK) /* the other shards may have made theirs */
        return in == NULL ? st : trm_engine_give_up(r->engine, in, st);
    u->fed = true;
    if (r->overlaps)
        return explained(r, trm_engine_submit(r->engine, in));
    st = explained(r, trm_engine_run(r->engine, in, r->out));
    if (st != TRM_OK)
        trm_lm_feed_nothing(r->feed, u->pick_count);
    u->fed = false;
    return st != TRM_OK || r->stage + 1 < r->pipeline
               ? st
               : trm_lm_feed_outputs(r->feed, step->picks, step->pick_count, r->out);
}

/* The oldest step. */
static trm_status end(trm_lm_replica *r, const struct under_way *u)
{
    trm_status st = u->st;

    if (r->overlaps && st == TRM_OK) {
        st = trm_engine_collect(r->engine, r->out);
        if (st == TRM_OK)
            return trm_lm_feed_outputs(r->feed, NULL, u->pick_count, r->out);
    }
    if (st != TRM_OK && u->fed)
        trm_lm_feed_nothing(r->feed, u->pick_count);
    return st;
}

static void note(struct under_way *u, trm_status st)
{
    u->st = st;
    u->text[0] = '\0';
    if (st != TRM_OK)
        snprintf(u->text, sizeof(u->text), "%s", trm_message());
}

/* ---- the leader ---- */

static trm_status announce(trm_lm_replica *r, uint64_t number, const trm_lm_step *step)
{
    trmi_message_head head = {.kind = TRMI_MESSAGE_DATA, .step = number, .count = 1};
    trm_tensor t = {.dtype = TRM_DTYPE_U8, .rank = 1};
    size_t bytes;

    if (r->size == 1)
        return TRM_OK;
    TRM_CHECK(trm_lm_step_encode(step, &r->encoded, &r->encoded_max, &bytes));
    t.dims[0] = (int64_t)bytes;
    t.data = r->encoded;
    for (int to = 1; to < r->size; to++) {
        trm_status st = trmi_message_send(r->model->replica_comm, to, &head, &t, true, &r->scratch);

        if (st != TRM_OK)
            return st == TRM_ERR_COMM
                       ? st
                       : trm_fail_context(TRM_ERR_COMM, "a step that only some ranks know of");
    }
    return TRM_OK;
}

trm_status trm_lm_replica_submit(trm_lm_replica *r, const trm_lm_step *step)
{
    struct under_way *u = newest(r);

    if (r->broken || r->stopped || r->rank != 0)
        return trm_fail(r->broken ? TRM_ERR_COMM : TRM_ERR_CANCELLED,
                        r->broken ? "the replica has lost a rank"
                                  : "only the leader of a replica that runs starts steps");
    if (r->under_way == r->depth)
        return trm_fail(TRM_ERR_CANCELLED, "%d steps are under way: collect one first", r->depth);
    clock_gettime(CLOCK_MONOTONIC, &u->since);
    u->number = r->next_step;
    TRM_CHECK(broken(r, announce(r, u->number, step)));
    r->next_step++;
    note(u, start(r, step, u));
    if (u->st == TRM_ERR_COMM || u->st == TRM_ERR_DEVICE)
        return broken(r, u->st);
    if (r->size > 1)
        TRM_CHECK(broken(r, pass_on(r, u->number, u->st, u->text)));
    r->under_way++;
    return TRM_OK;
}

/* The last stage's results. */
static trm_status collect_last(trm_lm_replica *r, struct under_way *u, trm_tensor *result)
{
    TRM_CHECK(receive(r, (r->pipeline - 1) * r->tensor, false, u->number));
    if (r->message.head.kind == TRMI_MESSAGE_FAILED) {
        u->st = (trm_status)r->message.head.status;
        snprintf(u->text, sizeof(u->text), "%s", r->message.head.text);
        return TRM_OK;
    }
    if (r->message.head.count != 1)
        return trm_fail(TRM_ERR_COMM, "the last stage sent %d results", r->message.head.count);
    *result = r->message.tensors[0];
    return TRM_OK;
}

trm_status trm_lm_replica_collect(trm_lm_replica *r, trm_lm_results *results_out)
{
    struct under_way *u = &r->ring[r->first];
    trm_tensor result = {.dtype = TRM_DTYPE_NONE};
    struct timespec now;

    if (r->under_way == 0)
        return trm_fail(TRM_ERR_CANCELLED, "no step is under way");
    if (r->pipeline > 1) {
        TRM_CHECK(broken(r, collect_last(r, u, &result)));
    } else {
        bool began = u->st == TRM_OK;
        trm_status st = end(r, u);

        if (began)
            note(u, st);
        if (u->st == TRM_ERR_COMM || u->st == TRM_ERR_DEVICE)
            return broken(r, u->st);
        result = trm_lm_feed_result(r->feed);
    }
    r->first = (r->first + 1) % r->depth;
    r->under_way--;
    if (u->st != TRM_OK)
        return trm_fail(u->st, "%s", u->text);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return trm_lm_feed_results(&result, u->pick_count, u->part_rows,
                               (double)(now.tv_sec - u->since.tv_sec) * 1e6 +
                                   (double)(now.tv_nsec - u->since.tv_nsec) / 1e3,
                               results_out);
}

trm_status trm_lm_replica_stop(trm_lm_replica *r)
{
    trmi_message_head head = {.kind = TRMI_MESSAGE_STOP};

    if (r->stopped || r->broken || r->rank != 0)
        return TRM_OK;
    r->stopped = true;
    for (int to = 1; to < r->size; to++)
        TRM_CHECK(broken(
            r, trmi_message_send(r->model->replica_comm, to, &head, NULL, false, &r->scratch)));
    return TRM_OK;
}

trm_status trm_lm_replica_pause(trm_lm_replica *r)
{
    TRM_CHECK(trm_lm_replica_stop(r));
    r->stopped = false;
    return TRM_OK;
}

/* ---- everybody else ---- */

/* Steps that this rank has begun and the leader may have seen the end of. What they come to is the
 * same here as there. */
static trm_status end_oldest(trm_lm_replica *r)
{
    struct under_way *u = &r->ring[r->first];
    trm_status st = end(r, u);

    r->first = (r->first + 1) % r->depth;
    r->under_way--;
    return st == TRM_ERR_COMM || st == TRM_ERR_DEVICE ? broken(r, st) : TRM_OK;
}

/* The leader's decision, out of the message, whose memory the next one takes. */
static trm_status read_step(trm_lm_replica *r)
{
    const trm_tensor *t = r->message.tensors;
    size_t bytes;

    if (r->message.head.count != 1 || t->dtype != TRM_DTYPE_U8)
        return trm_fail(TRM_ERR_COMM, "a step came damaged: %d tensors", r->message.head.count);
    bytes = trm_tensor_numel(t);
    if (bytes > r->encoded_max) {
        trm_free(r->encoded);
        r->encoded_max = 0;
        r->encoded = trm_malloc(bytes, 2);
        if (r->encoded == NULL)
            return trm_fail(TRM_ERR_COMM, "no memory for a step of %zu bytes, which others run",
                            bytes);
        r->encoded_max = 2 * bytes;
    }
    if (bytes > 0)
        memcpy(r->encoded, t->data, bytes);
    if (trm_lm_step_decode(&r->step, r->encoded, bytes) != TRM_OK)
        return trm_fail(TRM_ERR_COMM, "a step came damaged: %s", trm_message());
    return TRM_OK;
}

static trm_status follow_step(trm_lm_replica *r)
{
    uint64_t number = r->next_step++;
    struct under_way *u;

    TRM_CHECK(broken(r, read_step(r)));
    while (r->under_way > 0 && (r->under_way == r->depth || !trm_lm_feed_ahead(r->feed, &r->step)))
        TRM_CHECK(end_oldest(r));
    u = newest(r);
    if (r->stage > 0) {
        TRM_CHECK(receive(r, r->rank - r->tensor, false, number));
        if (r->message.head.kind == TRMI_MESSAGE_FAILED)
            return pass_on(r, number, (trm_status)r->message.head.status, r->message.head.text);
    }
    note(u, start(r, &r->step, u));
    if (u->st == TRM_ERR_COMM || u->st == TRM_ERR_DEVICE)
        return broken(r, u->st);
    if (r->overlaps)
        r->under_way++;
    return pass_on(r, number, u->st, u->text);
}

trm_status trm_lm_replica_follow(trm_lm_replica *r)
{
    if (r->rank == 0)
        return trm_fail(TRM_ERR_CANCELLED, "the leader does not follow");
    for (;;) {
        TRM_CHECK(receive(r, 0, true, r->next_step));
        if (r->message.head.kind == TRMI_MESSAGE_STOP) {
            while (r->under_way > 0)
                TRM_CHECK(end_oldest(r));
            return TRM_OK;
        }
        TRM_CHECK(follow_step(r));
    }
}
