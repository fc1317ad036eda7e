/* Binding: turns the next stretch of nodes, with shapes known, into a segment of prepared kernels
 * and planned buffers. */
#include "worker/bind_impl.h"

#include "base/log.h"
#include "base/wait.h"

#include <string.h>

static trm_status add_host_input(struct binder *b, int input)
{
    trmi_segment *s = b->s;
    trmi_alternative *alts = trmi_bind_grow(s, s->alternatives, s->alternative_count,
                                            &s->alternative_max, sizeof(*alts));
    int slot;

    if (alts == NULL)
        return trmi_bind_no_memory();
    s->alternatives = alts;
    TRM_CHECK(trmi_bind_slot(s, TRMI_SOURCE_HOST_INPUT, input, NULL, &slot));
    alts[s->alternative_count++] = (trmi_alternative){.value = b->e->graph->inputs[input],
                                                      .slot = slot,
                                                      .layout = TRM_LAYOUT_PLAIN,
                                                      .place = TRMI_HOST};
    return TRM_OK;
}

static trm_status start_state(struct binder *b, const trmi_segment *parent)
{
    trm_engine *e = b->e;
    trm_graph *g = e->graph;
    trmi_segment *s = b->s;

    if (parent == &e->root) {
        for (int v = 0; v < g->value_count; v++) {
            s->state[v].slot = TRMI_NO_SLOT;
            s->state[v].place = TRMI_DEVICE;
            s->state[v].desc.rank = -1;
            if (e->last_use[v] >= 0 && g->values[v].lazy != NULL)
                s->state[v].desc = g->values[v].desc; /* made when a node reads it */
            else if (e->last_use[v] >= 0 && trm_graph_is_constant(g, v))
                TRM_CHECK(trm_graph_constant(g, v, &s->state[v].desc));
        }
        for (int i = 0; i < g->input_count; i++) {
            trmi_state *st = &s->state[g->inputs[i]];

            st->desc = e->inputs[i];
            st->desc.data = NULL;
            st->desc.layout = TRM_LAYOUT_PLAIN;
            TRM_CHECK(trmi_bind_slot(s, TRMI_SOURCE_INPUT, i, NULL, &st->slot));
            if (trmi_engine_splits(e)) /* the caller's copy is in the host place already */
                TRM_CHECK(add_host_input(b, i));
        }
        return TRM_OK;
    }
    memcpy(s->state, parent->state, (size_t)g->value_count * sizeof(trmi_state));
    s->slot_begin = parent->slot_begin + parent->slot_count;
    s->dynamic_begin = parent->dynamic_begin + parent->dynamic_count;
    if (parent->alternative_count > 0) {
        s->alternatives =
            trm_arena_alloc(s->arena, (size_t)parent->alternative_count, sizeof(trmi_alternative));
        if (s->alternatives == NULL)
            return trmi_bind_no_memory();
        memcpy(s->alternatives, parent->alternatives,
               (size_t)parent->alternative_count * sizeof(trmi_alternative));
        s->alternative_count = s->alternative_max = parent->alternative_count;
    }
    for (int i = 0; i < parent->learned_count; i++) {
        trm_tensor *d = &s->state[parent->learned[i]].desc;

        *d = e->dynamics[parent->dynamic_begin + i].desc;
        d->data = NULL;
    }
    for (int i = 0; i < parent->fetch_count;
         i++) { /* the key ends with the fetched bytes, in this order */
        size_t bytes, after = 0;
        trm_tensor t = s->state[parent->fetch[i]].desc;
        int slot = s->state[parent->fetch[i]].slot;
        trmi_place place = s->state[parent->fetch[i]].place;

        for (int k = i; k < parent->fetch_count; k++) {
            TRM_CHECK(trm_tensor_bytes(&s->state[parent->fetch[k]].desc, &bytes));
            after += bytes;
        }
        t.data = e->key + e->key_bytes - after;
        TRM_CHECK(trmi_bind_host_value(b, parent->fetch[i], &t));
        s->state[parent->fetch[i]].slot = slot; /* the copy that a step made stays */
        s->state[parent->fetch[i]].place = place;
    }
    return TRM_OK;
}

/* What later segments or the caller read must survive this one. */
static void keep_alive(struct binder *b)
{
    trmi_segment *s = b->s;

    for (int v = 0; v < b->e->graph->value_count; v++) {
        trmi_storage *p =
            s->state[v].slot == TRMI_NO_SLOT ? NULL : trmi_bind_storage(s, s->state[v].slot);

        if (p != NULL && b->e->last_use[v] >= s->node_end)
            p->death = TRMI_FOREVER;
    }
    for (int i = 0; i < s->alternative_count; i++) {
        trmi_storage *p = trmi_bind_storage(s, s->alternatives[i].slot);

        if (p != NULL && b->e->last_use[s->alternatives[i].value] >= s->node_end)
            p->death = TRMI_FOREVER;
    }
    for (int i = 0; i < s->fetch_count; i++) {
        trmi_storage *p = trmi_bind_storage(s, s->state[s->fetch[i]].slot);

        if (p != NULL)
            p->death = TRMI_FOREVER;
    }
}

/* Outputs and fetched values are handed over plain; what is fetched, to the host. */
static trm_status finish(struct binder *b)
{
    trmi_segment *s = b->s;
    trm_graph *g = b->e->graph;

    b->node = s->node_end;
    for (int i = 0; i < s->fetch_count; i++) {
        trmi_state *st = &s->state[s->fetch[i]];
        int slot;

        TRM_CHECK(trmi_bind_layout(b, s->fetch[i], TRM_LAYOUT_PLAIN,
                                   trmi_engine_splits(b->e) ? TRMI_HOST : TRMI_DEVICE, &slot));
        st->slot = slot;
        st->place = trmi_engine_splits(b->e) ? TRMI_HOST : TRMI_DEVICE;
        st->desc.layout = TRM_LAYOUT_PLAIN;
    }
    if (!s->last)
        return TRM_OK;
    s->output_slots = trm_arena_alloc(s->arena, (size_t)g->output_count + 1, sizeof(int));
    if (s->output_slots == NULL)
        return trmi_bind_no_memory();
    for (int i = 0; i < g->output_count; i++)
        TRM_CHECK(trmi_bind_layout(b, g->outputs[i], TRM_LAYOUT_PLAIN,
                                   trmi_bind_place(b, g->outputs[i]), &s->output_slots[i]));
    return TRM_OK;
}

static trm_status grow_engine(trm_engine *e, const trmi_segment *s)
{
    int slots = s->slot_begin + s->slot_count, dynamics = s->dynamic_begin + s->dynamic_count;

    for (int p = 0; p < TRMI_PLACES && s->level >= e->level_count; p++) {
        trmi_buffer *arenas = trm_realloc(e->arenas[p], (size_t)s->level + 1, sizeof(*arenas));

        if (arenas == NULL)
            return trmi_bind_no_memory();
        memset(arenas + e->level_count, 0,
               (size_t)(s->level + 1 - e->level_count) * sizeof(*arenas));
        e->arenas[p] = arenas;
    }
    if (s->level >= e->level_count)
        e->level_count = s->level + 1;
    if (dynamics > e->dynamic_max) {
        trmi_buffer *grown = trm_realloc(e->dynamics, (size_t)dynamics, sizeof(*grown));

        if (grown == NULL)
            return trmi_bind_no_memory();
        memset(grown + e->dynamic_max, 0, (size_t)(dynamics - e->dynamic_max) * sizeof(*grown));
        e->dynamics = grown;
        e->dynamic_max = dynamics;
    }
    if (slots > e->slot_max) {
        void **grown = trm_realloc(e->slot_pointers, (size_t)slots, sizeof(void *));

        if (grown == NULL)
            return trmi_bind_no_memory();
        e->slot_pointers = grown;
        e->slot_max = slots;
    }
    for (int p = 0; p < TRMI_PLACES; p++) {
        if (p == TRMI_HOST && !trmi_engine_splits(e))
            continue;
        TRM_CHECK(trmi_buffer_grow(e, p, &e->arenas[p][s->level], s->arena_bytes[p] + TRM_ALIGN));
        TRM_CHECK(trmi_buffer_grow(e, p, &e->workspace[p], s->workspace_bytes[p] + TRM_ALIGN));
    }
    return TRM_OK;
}

static trm_status bind_nodes(struct binder *b)
{
    trmi_segment *s = b->s;
    enum verdict verdict = GO_ON;

    for (b->node = s->node_begin; b->node < b->e->graph->node_count && verdict == GO_ON;
         b->node++) {
        const trm_node *n = &b->e->graph->nodes[b->node];
        trm_status st = trmi_bind_node(b, &verdict);

        if (st != TRM_OK)
            return trm_fail_context(st, "node '%s' (%s)", n->name, trm_op_get(n->op)->name);
        if (verdict == END_BEFORE)
            break;
    }
    s->node_end = b->node;
    s->last = s->node_end == b->e->graph->node_count && verdict == GO_ON;
    if (verdict == END_AFTER && s->node_end == b->e->graph->node_count)
        s->last = true; /* outputs of the last node may be dynamic: nothing is left to bind */
    return TRM_OK;
}

trm_status trmi_bind(trm_engine *e, trmi_segment *parent, trmi_segment **segment_out)
{
    struct binder *b = trm_calloc(1, sizeof(*b));
    trm_arena *arena = NULL;
    trmi_segment *s = NULL;
    int64_t since = trm_now_us();
    trm_status st = TRM_OK;

    if (b == NULL)
        return trmi_bind_no_memory();
    TRM_TRY(st, trm_arena_create(0, &arena), fail);
    s = trm_arena_alloc(arena, 1, sizeof(*s));
    if (s == NULL) {
        trm_arena_destroy(arena);
        st = trmi_bind_no_memory();
        goto fail;
    }
    s->arena = arena;
    s->parent = parent;
    s->level = parent->level + 1;
    s->node_begin = parent->node_end;
    b->e = e;
    b->s = s;
    b->node = s->node_begin;
    s->key = trm_arena_alloc(arena, e->key_bytes + 1, 1);
    s->state = trm_arena_alloc(arena, (size_t)e->graph->value_count + 1, sizeof(trmi_state));
    if (s->key == NULL || s->state == NULL) {
        st = trmi_bind_no_memory();
        goto fail;
    }
    s->key_bytes = e->key_bytes;
    if (e->key_bytes > 0)
        memcpy(s->key, e->key, e->key_bytes);
    TRM_TRY(st, start_state(b, parent), fail);
    TRM_TRY(st, bind_nodes(b), fail);
    TRM_TRY(st, finish(b), fail);
    keep_alive(b);
    trmi_collective_places(e, s);
    for (int p = 0; p < TRMI_PLACES; p++)
        s->arena_bytes[p] = trm_arena_plan(s->storages[p], s->storage_count[p]);
    TRM_TRY(st, trmi_stretches_find(e, s), fail);
    TRM_TRY(st, grow_engine(e, s), fail);
    s->next = parent->children;
    parent->children = s;
    s->linked = true;
    e->segment_count++;
    TRM_LOG(
        TRM_LOG_DEBUG, "bind",
        "graph '%s': nodes %d to %d, %d steps, arena %zu, workspace %zu, copied %zu, in %.1f ms",
        e->graph->name, s->node_begin, s->node_end, s->step_count, s->arena_bytes[TRMI_DEVICE],
        s->workspace_bytes[TRMI_DEVICE], s->copied_bytes, (double)(trm_now_us() - since) / 1e3);
    trm_free(b);
    *segment_out = s;
    return TRM_OK;
fail:
    if (s != NULL)
        trmi_segment_destroy(e, s);
    trm_free(b);
    return st;
}

void trmi_segment_destroy(trm_engine *e, trmi_segment *s)
{
    while (s->children != NULL) {
        trmi_segment *child = s->children;

        s->children = child->next;
        trmi_segment_destroy(e, child);
    }
    if (trmi_engine_splits(e) && trmi_engine_settle(e) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "bind", "before a program goes: %s", trm_message());
    trmi_stretches_destroy(e, s);
    for (int i = 0; i < s->step_count; i++)
        trm_kernel_destroy(s->steps[i].kernel);
    for (trmi_fixed *f = s->fixed; f != NULL; f = f->next)
        e->device->ops->free(e->device, TRM_MEMORY_DEVICE, f->memory);
    if (e->ran == s)
        e->ran = NULL;
    e->segment_count -= s->linked;
    trm_arena_destroy(s->arena);
}
