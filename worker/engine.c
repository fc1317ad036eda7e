/* The executor as an object: its buffers, constants and the engines of bodies. */
#define _GNU_SOURCE
#include "worker/engine_impl.h"

#include "base/log.h"

#include <stdatomic.h>

static _Atomic uint64_t next_engine_id = 1; /* relaxed: only uniqueness matters */

static trm_status create_last_use(trm_engine *e)
{
    const trm_graph *g = e->graph;

    e->last_use = trm_malloc((size_t)g->value_count + 1, sizeof(int));
    if (e->last_use == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "engine");
    for (int v = 0; v < g->value_count; v++)
        e->last_use[v] = -1;
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].input_count; i++)
            if (g->nodes[n].inputs[i] != TRM_NO_VALUE)
                e->last_use[g->nodes[n].inputs[i]] = n;
    for (int i = 0; i < g->output_count; i++)
        e->last_use[g->outputs[i]] = TRMI_FOREVER;
    return TRM_OK;
}

trm_status trm_engine_create(trm_graph *graph, trm_device *device,
                             const trm_engine_options *options, trm_engine **engine_out)
{
    trm_engine *e = trm_calloc(1, sizeof(*e));
    trm_status st;

    if (e == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "engine");
    e->graph = graph;
    e->device = device;
    if (options != NULL)
        e->options = *options;
    if (e->options.programs_max <= 0)
        e->options.programs_max = 16;
    e->id = atomic_fetch_add_explicit(&next_engine_id, 1, memory_order_relaxed);
    e->root.level = -1;
    e->constants = trm_calloc((size_t)graph->value_count + 1, sizeof(void *));
    e->copies = trm_calloc((size_t)graph->output_count + 1, sizeof(trmi_buffer));
    e->talks = e->options.comm != NULL && trmi_collective_talks(graph);
    e->plain_collectives = trm_calloc((size_t)graph->node_count + 1, sizeof(bool));
    if (e->constants == NULL || e->copies == NULL || e->plain_collectives == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "engine");
        goto fail;
    }
    TRM_TRY(st, create_last_use(e), fail);
    if (trm_device_host(device) != NULL)
        TRM_TRY(st, trm_evaluator_create(trm_device_host(device), &e->evaluator), fail);
    if (trmi_engine_splits(e))
        TRM_TRY(st, trmi_flights_create(e), fail);
    *engine_out = e;
    return TRM_OK;
fail:
    trm_engine_destroy(e);
    return st;
}

void trmi_buffer_free(trm_engine *e, trmi_place place, trmi_buffer *b)
{
    if (b->memory != NULL)
        e->device->ops->free(e->device, place == TRMI_HOST ? TRM_MEMORY_PINNED : TRM_MEMORY_DEVICE,
                             b->memory);
    b->memory = NULL;
    b->bytes = 0;
}

void trm_engine_destroy(trm_engine *e)
{
    if (e == NULL)
        return;
    if (trmi_engine_splits(e) && trmi_engine_settle(e) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "engine", "end: %s", trm_message());
    while (e->root.children != NULL) {
        trmi_segment *s = e->root.children;

        e->root.children = s->next;
        trmi_segment_destroy(e, s);
    }
    for (int i = 0; i < e->body_count; i++)
        trm_engine_destroy(e->bodies[i]);
    for (int p = 0; p < TRMI_PLACES; p++) {
        for (int i = 0; i < e->level_count; i++)
            trmi_buffer_free(e, p, &e->arenas[p][i]);
        trmi_buffer_free(e, p, &e->workspace[p]);
        trm_free(e->arenas[p]);
    }
    for (int i = 0; i < e->dynamic_max; i++)
        trmi_buffer_free(e, e->dynamics[i].place, &e->dynamics[i]);
    for (int v = 0; e->constants != NULL && v < e->graph->value_count; v++)
        if (e->constants[v] != NULL)
            e->device->ops->free(e->device, TRM_MEMORY_DEVICE, e->constants[v]);
    for (int i = 0; e->copies != NULL && i < e->graph->output_count; i++)
        trmi_buffer_free(e, TRMI_DEVICE, &e->copies[i]);
    trmi_flights_destroy(e);
    trm_evaluator_destroy(&e->evaluator);
    trm_free(e->dynamics);
    trm_free(e->constants);
    trm_free(e->copies);
    trm_free(e->plain_collectives);
    trm_free(e->last_use);
    trm_free(e->slot_pointers);
    trm_free(e->key);
    trm_free(e->bodies);
    trm_free(e->body_graphs);
    trm_free(e);
}

trm_status trmi_buffer_grow(trm_engine *e, trmi_place place, trmi_buffer *b, size_t bytes)
{
    trm_memory_kind kind = place == TRMI_HOST ? TRM_MEMORY_PINNED : TRM_MEMORY_DEVICE;
    size_t before = b->memory != NULL ? b->bytes : 0;
    void *memory = NULL;
    trm_status st;

    if (bytes <= b->bytes && b->memory != NULL)
        return TRM_OK;
    if (trmi_engine_splits(e)) {
        TRM_CHECK(trmi_engine_settle(e)); /* what was enqueued may still use it */
        trmi_buffer_free(e, place, b);    /* room for the larger one */
        e->moves++;
    }
    st = e->device->ops->alloc(e->device, kind, bytes, &memory);
    if (st != TRM_OK) { /* programs that are bound go on with what they had */
        if (b->memory == NULL && before > 0 &&
            e->device->ops->alloc(e->device, kind, before, &b->memory) == TRM_OK)
            b->bytes = before;
        return st;
    }
    trmi_buffer_free(e, place, b);
    b->memory = memory;
    b->bytes = bytes;
    return TRM_OK;
}

trm_status trmi_dynamic_alloc(trm_engine *e, int dynamic, trmi_place place, trm_dtype dtype,
                              int rank, const int64_t *dims, void **data_out)
{
    trmi_buffer *b = &e->dynamics[dynamic];
    size_t bytes;

    b->desc = (trm_tensor){.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++)
        b->desc.dims[i] = dims[i];
    TRM_CHECK(trm_tensor_bytes(&b->desc, &bytes));
    if (b->place != place && b->memory != NULL) {
        TRM_CHECK(trmi_engine_settle(e));
        trmi_buffer_free(e, b->place, b);
    }
    b->place = place;
    if (bytes > b->bytes ||
        b->memory == NULL) /* grow with slack, so that slowly growing results settle */
        TRM_CHECK(trmi_buffer_grow(e, place, b, trm_align_up(bytes + bytes / 4, TRM_ALIGN)));
    b->desc.data = b->memory;
    *data_out = b->memory;
    return TRM_OK;
}

trm_status trmi_body_engine(trm_engine *e, trm_graph *body, trm_engine **engine_out)
{
    trm_engine_options options;
    trm_engine **bodies;
    const trm_graph **graphs;

    for (int i = 0; i < e->body_count; i++) {
        if (e->body_graphs[i] == body) {
            *engine_out = e->bodies[i];
            return TRM_OK;
        }
    }
    bodies = trm_realloc(e->bodies, (size_t)e->body_count + 1, sizeof(*bodies));
    if (bodies != NULL)
        e->bodies = bodies;
    graphs = trm_realloc(e->body_graphs, (size_t)e->body_count + 1, sizeof(*graphs));
    if (graphs != NULL)
        e->body_graphs = graphs;
    if (bodies == NULL || graphs == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "engine of body '%s'", body->name);
    options = e->options;
    options.weight_space = 0; /* its value numbers are its own */
    /* bodies take and give host tensors, often small ones and many times: they run there */
    TRM_CHECK(
        trm_engine_create(body, trm_device_host(e->device), &options, &e->bodies[e->body_count]));
    e->body_graphs[e->body_count] = body;
    *engine_out = e->bodies[e->body_count++];
    return TRM_OK;
}
