/* A replica as an object: this rank's graph and engine, and who gives what to whom. */
#include "worker/replica_impl.h"

#include "base/log.h"
#include "worker/engine_impl.h"

#include <stdio.h>
#include <string.h>

#define STEP_TIMEOUT_MS 120000
#define GROUP_TIMEOUT_MS 60000
#define STEPS_PATIENCE 20 /* predicted steps before a wait gives up, where that is longer */

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "replica");
}

/* ---- names: which values cross ---- */

/* A stage's names on the wire: two counts, then strings. */
static trm_status pack_names(const trm_graph *g, unsigned char **bytes_out, uint64_t *count_out)
{
    int32_t counts[2] = {g->input_count, g->output_count};
    size_t bytes = sizeof(counts), at = sizeof(counts);
    unsigned char *p;

    for (int i = 0; i < g->input_count; i++)
        bytes += strlen(g->values[g->inputs[i]].name) + 1;
    for (int i = 0; i < g->output_count; i++)
        bytes += strlen(g->values[g->outputs[i]].name) + 1;
    p = trm_malloc(bytes, 1);
    if (p == NULL)
        return no_memory();
    memcpy(p, counts, sizeof(counts));
    for (int i = 0; i < g->input_count + g->output_count; i++) {
        int v = i < g->input_count ? g->inputs[i] : g->outputs[i - g->input_count];
        size_t n = strlen(g->values[v].name) + 1;

        memcpy(p + at, g->values[v].name, n);
        at += n;
    }
    *bytes_out = p;
    *count_out = bytes;
    return TRM_OK;
}

static trm_status unpack_list(trm_arena *arena, int count, const unsigned char *p, size_t bytes,
                              size_t *at, struct trmi_names *names)
{
    if (count < 0 || (size_t)count > bytes)
        return trm_fail(TRM_ERR_COMM, "names of a stage: %d", count);
    names->names = trm_arena_alloc(arena, (size_t)count + 1, sizeof(char *));
    if (names->names == NULL)
        return no_memory();
    for (int i = 0; i < count; i++) {
        size_t n = strnlen((const char *)p + *at, bytes - *at);

        if (*at + n >= bytes)
            return trm_fail(TRM_ERR_COMM, "names of a stage: cut short");
        names->names[i] = trm_arena_strndup(arena, (const char *)p + *at, n);
        if (names->names[i] == NULL)
            return no_memory();
        *at += n + 1;
    }
    names->count = count;
    return TRM_OK;
}

static trm_status unpack_names(trm_replica *r, int stage, const unsigned char *p, size_t bytes)
{
    int32_t counts[2];
    size_t at = sizeof(counts);

    if (bytes < sizeof(counts))
        return trm_fail(TRM_ERR_COMM, "names of stage %d: cut short", stage);
    memcpy(counts, p, sizeof(counts));
    TRM_CHECK(unpack_list(r->arena, counts[0], p, bytes, &at, &r->ins[stage]));
    return unpack_list(r->arena, counts[1], p, bytes, &at, &r->outs[stage]);
}

/* Every rank learns what every stage reads and gives, from the stages' shard 0. */
static trm_status share_names(trm_replica *r)
{
    r->ins = trm_arena_alloc(r->arena, (size_t)r->pipeline, sizeof(*r->ins));
    r->outs = trm_arena_alloc(r->arena, (size_t)r->pipeline, sizeof(*r->outs));
    if (r->ins == NULL || r->outs == NULL)
        return no_memory();
    for (int s = 0; s < r->pipeline; s++) {
        unsigned char *bytes = NULL;
        uint64_t count = 0;
        trm_status st = TRM_OK;

        if (s == r->stage)
            st = pack_names(r->local, &bytes, &count);
        if (st == TRM_OK && r->pipeline > 1)
            st = trm_comm_broadcast(r->options.replica, &count, sizeof(count), s * r->tensor);
        if (st == TRM_OK && s != r->stage && (bytes = trm_malloc(count + 1, 1)) == NULL)
            st = no_memory();
        if (st == TRM_OK && r->pipeline > 1)
            st = trm_comm_broadcast(r->options.replica, bytes, count, s * r->tensor);
        if (st == TRM_OK)
            st = unpack_names(r, s, bytes, count);
        trm_free(bytes);
        if (st != TRM_OK)
            return st;
    }
    return TRM_OK;
}

static int find(const struct trmi_names *names, const char *name)
{
    for (int i = 0; i < names->count; i++)
        if (strcmp(names->names[i], name) == 0)
            return i;
    return -1;
}

static int find_input(const trm_graph *g, const char *name)
{
    for (int i = 0; i < g->input_count; i++)
        if (strcmp(g->values[g->inputs[i]].name, name) == 0)
            return i;
    return -1;
}

/* ---- tables ---- */

static trm_status connect_inputs(trm_replica *r)
{
    const struct trmi_names *mine = &r->ins[r->stage];

    r->in_from = trm_arena_alloc(r->arena, (size_t)mine->count + 1, sizeof(int));
    if (r->in_from == NULL)
        return no_memory();
    for (int i = 0; i < mine->count; i++) {
        r->in_from[i] = r->stage == 0 ? find_input(r->graph, mine->names[i]) : i;
        if (r->in_from[i] < 0)
            return trm_fail(TRM_ERR_INTERNAL, "stage 0 reads '%s', which is no input of the model",
                            mine->names[i]);
    }
    return TRM_OK;
}

static trm_status connect_next(trm_replica *r)
{
    const struct trmi_names *next, *mine = &r->outs[r->stage];

    if (r->stage + 1 == r->pipeline)
        return TRM_OK;
    next = &r->ins[r->stage + 1];
    r->cross = trm_arena_alloc(r->arena, (size_t)next->count + 1, sizeof(int));
    if (r->cross == NULL)
        return no_memory();
    for (int i = 0; i < next->count; i++) {
        r->cross[i] = find(mine, next->names[i]);
        if (r->cross[i] < 0)
            return trm_fail(TRM_ERR_INTERNAL, "stage %d reads '%s', which stage %d does not give",
                            r->stage + 1, next->names[i], r->stage);
    }
    r->cross_count = next->count;
    return TRM_OK;
}

/* Each output of the model comes from the first stage that has it. */
static trm_status connect_outputs(trm_replica *r)
{
    const trm_graph *g = r->graph;

    r->origins = trm_arena_alloc(r->arena, (size_t)g->output_count + 1, sizeof(*r->origins));
    r->results = trm_arena_alloc(r->arena, (size_t)g->output_count + 1, sizeof(int));
    r->results_of = trm_arena_alloc(r->arena, (size_t)r->pipeline, sizeof(int));
    if (r->origins == NULL || r->results == NULL || r->results_of == NULL)
        return no_memory();
    for (int i = 0; i < g->output_count; i++) {
        const char *name = g->values[g->outputs[i]].name;
        struct trmi_origin *o = &r->origins[i];

        for (o->stage = 0; o->stage < r->pipeline; o->stage++)
            if (find(&r->outs[o->stage], name) >= 0)
                break;
        if (o->stage < r->pipeline) {
            o->index = r->results_of[o->stage]++;
            if (o->stage == r->stage)
                r->results[r->result_count++] = find(&r->outs[r->stage], name);
            continue;
        }
        o->stage = -1;
        o->constant = trm_graph_is_constant(g, g->outputs[i]);
        o->index = o->constant ? g->outputs[i] : find_input(g, name);
        if (o->index < 0)
            return trm_fail(TRM_ERR_INTERNAL, "no stage gives output '%s'", name);
    }
    return TRM_OK;
}

static trm_status make_last_use(trm_replica *r)
{
    const trm_graph *g = r->graph;

    r->last_use = trm_arena_alloc(r->arena, (size_t)g->value_count + 1, sizeof(int));
    if (r->last_use == NULL)
        return no_memory();
    for (int v = 0; v < g->value_count; v++)
        r->last_use[v] = -1;
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] != TRM_NO_VALUE)
                r->last_use[g->nodes[n].inputs[i]] = n;
    for (int i = 0; i < g->output_count; i++)
        r->last_use[g->outputs[i]] = TRMI_FOREVER;
    return TRM_OK;
}

static trm_status make_ring(trm_replica *r)
{
    size_t outputs = (size_t)r->graph->output_count + 1;

    r->ring = trm_arena_alloc(r->arena, (size_t)r->depth, sizeof(*r->ring));
    if (r->ring == NULL)
        return no_memory();
    for (int i = 0; i < r->depth; i++) {
        struct trmi_under_way *u = &r->ring[i];

        u->kept = trm_arena_alloc(r->arena, outputs, sizeof(*u->kept));
        u->memory = trm_arena_alloc(r->arena, outputs, sizeof(*u->memory));
        u->bytes = trm_arena_alloc(r->arena, outputs, sizeof(*u->bytes));
        if (u->kept == NULL || u->memory == NULL || u->bytes == NULL)
            return no_memory();
    }
    return TRM_OK;
}

static trm_status make_room(trm_replica *r)
{
    size_t ins = (size_t)r->local->input_count + 1, outs = (size_t)r->local->output_count + 1;
    size_t send = (size_t)(r->cross_count + r->result_count + r->graph->input_count) + 1;

    r->in = trm_arena_alloc(r->arena, ins, sizeof(*r->in));
    r->out = trm_arena_alloc(r->arena, outs, sizeof(*r->out));
    r->send = trm_arena_alloc(r->arena, send, sizeof(*r->send));
    r->in_memory = trm_arena_alloc(r->arena, ins, sizeof(*r->in_memory));
    r->in_bytes = trm_arena_alloc(r->arena, ins, sizeof(*r->in_bytes));
    if (r->in == NULL || r->out == NULL || r->send == NULL || r->in_memory == NULL ||
        r->in_bytes == NULL)
        return no_memory();
    return make_ring(r);
}

/* ---- life ---- */

static bool has_packed_attention(trm_device *d)
{
    const trm_op_desc desc = {.op = TRM_OP_TrmAttentionPacked};

    return d->ops->supports(d, &desc);
}

static trm_status make_local(trm_replica *r)
{
    const trm_replica_options *o = &r->options;
    trm_engine_options eo = o->engine;

    if (o->local != NULL) {
        r->local = o->local;
    } else if (r->size == 1) {
        r->local = r->graph;
        TRM_CHECK(trm_pass_finish(r->local));
    } else {
        TRM_CHECK(trm_plan_graph(o->plan, r->graph, r->stage, r->shard, &r->local));
        r->owns_local = true;
    }
    if (o->local == NULL && (o->dtype == TRM_DTYPE_BF16 || o->dtype == TRM_DTYPE_F16))
        TRM_CHECK(trm_pass_precision(r->local, o->dtype));
    if (o->local == NULL && has_packed_attention(o->device))
        TRM_CHECK(trm_pass_pack_attention(r->local));
    eo.comm = r->tensor > 1 ? o->stage : NULL;
    eo.group = r->group;
    return trm_engine_create(r->local, o->device, &eo, &r->engine);
}

static trm_status check_options(const trm_replica *r)
{
    const trm_replica_options *o = &r->options;

    if (r->size > 1 && (o->replica == NULL || trm_comm_size(o->replica) != r->size ||
                        trm_comm_rank(o->replica) != r->rank))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "a replica of %d ranks wants a communicator of as many", r->size);
    if (r->tensor > 1 && (o->stage == NULL || trm_comm_size(o->stage) != r->tensor ||
                          trm_comm_rank(o->stage) != r->shard))
        return trm_fail(TRM_ERR_INVALID_ARG, "a stage of %d shards wants a communicator of as many",
                        r->tensor);
    return TRM_OK;
}

static trm_status reserve(trm_replica *r)
{
    const trm_plan *plan = r->options.plan;
    trm_comm_needs needs = {.messages = r->depth + 1};
    int64_t timeout = STEP_TIMEOUT_MS;

    if (plan == NULL || r->size == 1)
        return TRM_OK;
    needs.slot_bytes = plan->slot_bytes;
    needs.message_bytes = plan->message_bytes;
    if (plan->step_us * STEPS_PATIENCE / 1e3 > (double)timeout)
        timeout = (int64_t)(plan->step_us * STEPS_PATIENCE / 1e3);
    trm_comm_set_timeout(r->options.replica, timeout);
    TRM_CHECK(trm_comm_reserve(r->options.replica, &needs));
    if (r->tensor == 1)
        return TRM_OK;
    trm_comm_set_timeout(r->options.stage, timeout);
    return trm_comm_reserve(r->options.stage, &needs);
}

/* Shards with devices of their own exchange data over the devices' links. */
static trm_status open_group(trm_replica *r)
{
    if (r->tensor == 1 || r->options.device->host_memory)
        return TRM_OK;
    return trm_device_group_open(r->options.stage, r->options.device, GROUP_TIMEOUT_MS, &r->group);
}

static trm_status create_here(trm_replica *r)
{
    TRM_CHECK(trm_arena_create(0, &r->arena));
    TRM_CHECK(make_last_use(r)); /* of the graph before it is finished: inputs stay inputs */
    return make_local(r);
}

static trm_status connect(trm_replica *r)
{
    TRM_CHECK(connect_inputs(r));
    TRM_CHECK(connect_next(r));
    TRM_CHECK(connect_outputs(r));
    return make_room(r);
}

static trm_status agree(trm_replica *r, trm_status st)
{
    return r->size == 1 ? st : trm_comm_agree(r->options.replica, st);
}

trm_status trm_replica_create(const trm_replica_options *options, trm_replica **replica_out)
{
    trm_replica *r = trm_calloc(1, sizeof(*r));
    const trm_plan *plan = options->plan;
    trm_status st;

    if (r == NULL)
        return no_memory();
    r->options = *options;
    r->graph = options->graph;
    r->tensor = plan == NULL ? 1 : plan->parallel.tensor;
    r->pipeline = plan == NULL ? 1 : plan->parallel.pipeline;
    r->size = r->tensor * r->pipeline;
    r->stage = r->size == 1 ? 0 : options->place.stage;
    r->shard = r->size == 1 ? 0 : options->place.shard;
    r->rank = r->stage * r->tensor + r->shard;
    r->depth = 1;
    if (r->pipeline > 1)
        /* one more than there are stages: the leader need not wait for the very last message */
        r->depth = (plan->micro_batches > r->pipeline ? plan->micro_batches : r->pipeline) + 1;
    else if (r->size == 1 && !options->device->host_memory)
        r->depth = trm_engine_depth_of(options->device); /* the engine overlaps them */
    TRM_TRY(st, check_options(r), fail);
    TRM_TRY(st, reserve(r), fail);
    TRM_TRY(st, agree(r, open_group(r)), fail);
    TRM_TRY(st, agree(r, create_here(r)), fail);
    TRM_TRY(st, agree(r, share_names(r)), fail);
    TRM_TRY(st, agree(r, connect(r)), fail);
    r->options.plan = NULL;
    *replica_out = r;
    return TRM_OK;
fail:
    trm_replica_destroy(r);
    return st;
}

void trm_replica_destroy(trm_replica *r)
{
    if (r == NULL)
        return;
    if (r->broken && r->group != NULL) /* kernels that wait for a lost peer end */
        r->group->ops->abandon(r->group);
    trm_engine_destroy(r->engine);
    trm_device_group_close(r->group);
    if (r->owns_local)
        trm_graph_destroy(r->local);
    for (int i = 0; r->ring != NULL && i < r->depth; i++)
        for (int k = 0; r->ring[i].memory != NULL && k < r->graph->output_count; k++)
            trm_aligned_free(r->ring[i].memory[k]);
    for (int i = 0; r->in_memory != NULL && i < r->ins[r->stage].count; i++)
        trm_aligned_free(r->in_memory[i]);
    trm_free(r->scratch.bytes);
    trm_free(r->scratch.pieces);
    trm_free(r->message.tensors);
    trm_arena_destroy(r->arena);
    trm_free(r);
}

bool trm_replica_leads(const trm_replica *r)
{
    return r->rank == 0;
}

int trm_replica_depth(const trm_replica *r)
{
    return r->depth;
}

int trm_replica_under_way(const trm_replica *r)
{
    return r->under_way;
}

void trm_replica_hold_inputs(trm_replica *r, bool hold)
{
    trm_engine_hold_inputs(r->engine, hold);
}

const trm_engine *trm_replica_engine(const trm_replica *r)
{
    return r->engine;
}

trm_status trm_replica_check(const trm_replica *r, const trm_tensor *inputs)
{
    return trmi_inputs_check(r->graph, r->last_use, inputs);
}

static size_t comm_bytes(const trm_comm *c)
{
    return c == NULL ? 0 : 2 * trm_comm_slot_bytes(c);
}

void trm_replica_get_memory(const trm_replica *r, trm_replica_memory *m)
{
    trm_engine_stats stats;
    size_t most;

    memset(m, 0, sizeof(*m));
    trm_engine_get_stats(r->engine, &stats);
    m->activations = stats.arena_bytes;
    trm_graph_lazy_bytes(r->local, &m->weights_private, &most);
    m->weights_private += r->options.device->packed_bytes;
    m->weights_shared = r->options.device->shared_bytes;
    for (int v = 0; v < r->local->value_count; v++) {
        const trm_value *value = &r->local->values[v];

        if (value->desc.data == NULL || value->lazy != NULL || r->engine->last_use[v] < 0)
            continue;
        if (value->file != NULL)
            m->weights_mapped += value->bytes;
        else
            m->weights_private += value->bytes;
    }
    m->communicators = comm_bytes(r->options.replica) + comm_bytes(r->options.stage);
}
