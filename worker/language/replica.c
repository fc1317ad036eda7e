/* See replica.h: its life, and the leader. */
#define _GNU_SOURCE
#include "worker/language/replica_impl.h"

#include "base/log.h"
#include "kernels/device_group.h"
#include "parallel/device_group.h"
#include "worker/model_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STEP_TIMEOUT_MS 120000
#define GROUP_TIMEOUT_MS 60000
#define PROGRAMS_MAX                                                                               \
    128 /* sizes of steps that stay bound: the grid of token rows times that of picks in use */

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

trm_status trm_lm_plan_inputs(const trm_graph *g, int64_t tokens, int64_t picks,
                              trm_tensor **inputs_out)
{
    trm_tensor *in = trm_calloc((size_t)g->input_count + 1, sizeof(*in));

    if (in == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "shapes of a step");
    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];

        in[i] = v->desc;
        in[i].data = NULL;
        for (int d = 0; d < in[i].rank; d++)
            if (in[i].dims[d] < 0)
                in[i].dims[d] =
                    strcmp(v->name, "rows") == 0 || strcmp(v->name, "step") == 0 ? picks : tokens;
    }
    *inputs_out = in;
    return TRM_OK;
}

#define HEADS_BYTES 4096 /* of a message: its head and descriptors */

/* The same on every rank: all have the same kind of device. */
static bool may_overlap(const trm_lm_replica *r)
{
    return trm_engine_depth_of(r->model->device) > 1 && (r->draws_there || r->options.encoder);
}

static trm_status reserve(trm_lm_replica *r)
{
    const trm_plan *plan = r->model->plan;
    trm_comm_needs needs = {.messages = r->depth + 2};

    if (r->size == 1)
        return TRM_OK;
    needs.slot_bytes = plan->slot_bytes;
    needs.message_bytes = plan->message_bytes;
    if (r->pipeline > 1 && may_overlap(r)) { /* decisions run ahead of what crosses */
        size_t results = (size_t)trm_lm_grid(r->options.picks) * sizeof(trm_sampled);

        if (!r->options.encoder && results > needs.message_bytes)
            needs.message_bytes = results;
        r->room_bytes = needs.message_bytes;
        needs.message_bytes += needs.message_bytes / 16 + HEADS_BYTES; /* rows are padded */
        needs.messages = 2 * r->depth + 2;
    }
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

/* The largest step's buffers are the largest: none grows while steps run, and on a device with
 * memory of its own the cache is given what they and the weights leave. Weights are packed here;
 * what binding takes beside that is a few milliseconds. */
static trm_status bind_largest(trm_lm_replica *r)
{
    const trm_lm_replica_options *o = &r->options;
    int picks = trm_lm_grid(o->encoder ? o->batch : o->picks);
    trm_tensor *in = NULL;
    trm_status st;

    st = trm_lm_plan_inputs(r->local, trm_lm_grid(o->step_tokens), picks, &in);
    if (st == TRM_OK)
        st = trm_engine_bind(r->engine, in);
    trm_free(in);
    return st;
}

static trm_status begin_here(trm_lm_replica *r, int pages)
{
    const trm_lm_replica_options *o = &r->options;
    trm_lm_feed_options fo = {.pages = pages,
                              .graph = r->local,
                              .engine = r->engine,
                              .kv_dtype = o->kv_dtype,
                              .batch = o->batch,
                              .step_tokens = o->step_tokens,
                              .picks = o->picks,
                              .device = r->model->device,
                              .language = r->model->language,
                              .samples =
                                  r->stage + 1 == r->pipeline && (r->shard == 0 || r->draws_there)};

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
    r->draws_there = !options->encoder && draws(m->device);
    r->overlaps = may_overlap(r);
    r->depth = r->pipeline > 1 ? r->pipeline + 1 : r->overlaps ? trm_engine_depth_of(m->device) : 1;
    TRM_TRY(st, reserve(r), fail);
    TRM_TRY(st, agree(r, open_group(r)), fail);
    if (r->pipeline > 1 && r->tensor > 1 && r->group == NULL)
        r->overlaps = false;
    TRM_TRY(st, agree(r, make_engine(r)), fail);
    TRM_TRY(st, agree(r, bind_largest(r)), fail);
    *replica_out = r;
    return TRM_OK;
fail:
    trm_lm_replica_destroy(r);
    return st;
}

trm_status trm_lm_replica_begin(trm_lm_replica *r, int pages, int context)
{
    r->context = context;
    return agree(r, begin_here(r, pages));
}

void trm_lm_replica_destroy(trm_lm_replica *r)
{
    if (r == NULL)
        return;
    if (r->broken && r->group != NULL) /* kernels that wait for a lost peer end */
        r->group->ops->abandon(r->group);
    TRM_LOG(TRM_LOG_DEBUG, "language",
            "stage %d, shard %d: %" PRIu64 " steps, %" PRIu64 " of them begun behind another",
            r->stage, r->shard, r->stats.steps, r->stats.behind);
    trm_lm_feed_destroy(r->feed);
    trm_engine_destroy(r->engine);
    trm_device_group_close(r->group);
    if (r->owns_local)
        trm_graph_destroy(r->local);
    trm_lm_step_fini(&r->step);
    trm_free(r->out);
    trm_free(r->send);
    for (int i = 0; r->ring != NULL && i < r->depth; i++)
        trm_free(r->ring[i].encoded);
    trm_free(r->ring);
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
    /* the stage that reads tokens draws them */
    return r->draws_there && r->overlaps && r->pipeline == 1;
}

void trm_lm_replica_get_stats(const trm_lm_replica *r, trm_lm_replica_stats *stats_out)
{
    *stats_out = r->stats;
}

bool trm_lm_replica_captures(const trm_lm_replica *r)
{
    return trm_engine_captures(r->engine);
}

const trm_engine *trm_lm_replica_engine(const trm_lm_replica *r)
{
    return r->engine;
}

trm_status trm_lm_replica_step(const trm_lm_replica *r, trm_lm_step *step_out)
{
    const trm_lm_replica_options *o = &r->options;
    int64_t pages =
        o->encoder ? 0 : (int64_t)o->batch * ((r->context + TRM_KV_PAGE - 1) / TRM_KV_PAGE + 1);

    if (pages > INT32_MAX / 4)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "--max-batch %d of contexts of %d tokens: a step cannot name so many pages",
                        o->batch, r->context);
    return trm_lm_step_init(step_out, o->step_tokens, o->batch, o->picks, (int)pages, o->batch,
                            trm_lm_feed_has_types(r->model->graph));
}

/* ---- the leader ---- */

static bool passes_on(const trm_lm_replica *r) /* what has ended here is not over */
{
    return r->pipeline > 1;
}

/* The decision, to the ring and to every other rank. */
static trm_status announce(trm_lm_replica *r, trmi_stage_step *u, const trm_lm_step *step)
{
    trmi_message_head head = {.kind = TRMI_MESSAGE_DECISION, .step = r->next_step, .count = 1};
    trm_tensor t = {.dtype = TRM_DTYPE_U8, .rank = 1};

    if (r->size == 1)
        return TRM_OK;
    TRM_CHECK(trm_lm_step_encode(step, &u->encoded, &u->encoded_max, &u->encoded_bytes));
    if (r->room_bytes > 0 && u->encoded_bytes > r->room_bytes)
        TRM_CHECK(trmi_stage_drain(r));
    t.dims[0] = (int64_t)u->encoded_bytes;
    t.data = u->encoded;
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
    trmi_stage_step *u = trmi_stage_at(r, r->next_step);
    bool moved;

    if (r->broken || r->stopped || r->rank != 0)
        return trm_fail(r->broken ? TRM_ERR_COMM : TRM_ERR_CANCELLED,
                        r->broken ? "the replica has lost a rank"
                                  : "only the leader of a replica that runs starts steps");
    if (r->next_step - r->collected == (uint64_t)r->depth)
        return trm_fail(TRM_ERR_CANCELLED, "%d steps are under way: collect one first", r->depth);
    clock_gettime(CLOCK_MONOTONIC, &u->since);
    u->pick_count = step->pick_count;
    u->part_rows = step->part_rows;
    TRM_CHECK(trmi_stage_broken(r, announce(r, u, step)));
    r->next_step++;
    if (passes_on(r))
        TRM_CHECK(trmi_stage_advance(r, &moved));
    /* without stages it is begun now; with stages where the device takes it */
    if (r->begun + 1 == r->next_step && (!passes_on(r) || trmi_stage_has_room(r, step)))
        TRM_CHECK(trmi_stage_begin(r, step));
    return passes_on(r) ? trmi_stage_advance(r, &moved) : TRM_OK;
}

/* The last stage's results of step `u`, out of the message that came. */
static trm_status read_results(trm_lm_replica *r, trmi_stage_step *u, trm_tensor *result)
{
    const trmi_message_head *h = &r->message.head;

    if ((h->kind != TRMI_MESSAGE_DATA && h->kind != TRMI_MESSAGE_FAILED) || h->step != r->collected)
        return trmi_stage_unexpected(r, (r->pipeline - 1) * r->tensor, r->collected);
    if (h->kind == TRMI_MESSAGE_FAILED) {
        u->st = (trm_status)h->status;
        snprintf(u->text, sizeof(u->text), "%s", h->text);
        return TRM_OK;
    }
    if (h->count != 1)
        return trm_fail(TRM_ERR_COMM, "the last stage sent %d results", h->count);
    *result = r->message.tensors[0];
    return TRM_OK;
}

/* While steps of stage 0 are to be passed on they and the results are both looked for. */
static trm_status collect_last(trm_lm_replica *r, trmi_stage_step *u, trm_tensor *result)
{
    int last = (r->pipeline - 1) * r->tensor;
    trmi_stage_rest rest = {0};
    bool came = false, moved;

    while (!came) {
        TRM_CHECK(trmi_stage_advance(r, &moved));
        if (r->ended == r->next_step) {
            TRM_CHECK(trmi_stage_receive(r, last, false, NULL));
            break;
        }
        TRM_CHECK(trmi_stage_receive(r, last, false, &came));
        if (moved)
            rest = (trmi_stage_rest){0};
        else if (!came)
            trmi_stage_rest_turn(&rest);
    }
    return read_results(r, u, result);
}

trm_status trm_lm_replica_collect(trm_lm_replica *r, trm_lm_results *results_out)
{
    trmi_stage_step *u = trmi_stage_at(r, r->collected);
    trm_tensor result = {.dtype = TRM_DTYPE_NONE};
    struct timespec now;

    if (r->next_step == r->collected)
        return trm_fail(TRM_ERR_CANCELLED, "no step is under way");
    if (passes_on(r)) {
        TRM_CHECK(trmi_stage_broken(r, collect_last(r, u, &result)));
    } else {
        TRM_CHECK(trmi_stage_end(r));
        result = trm_lm_feed_result(r->feed);
    }
    r->collected++;
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
    if (passes_on(r)) /* they finish what they know of, for which they want all of it */
        TRM_CHECK(trmi_stage_broken(r, trmi_stage_drain(r)));
    for (int to = 1; to < r->size; to++)
        TRM_CHECK(trmi_stage_broken(
            r, trmi_message_send(r->model->replica_comm, to, &head, NULL, false, &r->scratch)));
    return TRM_OK;
}

trm_status trm_lm_replica_pause(trm_lm_replica *r)
{
    TRM_CHECK(trm_lm_replica_stop(r));
    r->stopped = false;
    return TRM_OK;
}
