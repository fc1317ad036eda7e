/* Memory for a segment being bound: slots, storages, copies in other layouts. */
#include "worker/bind_impl.h"

#include <string.h>

trm_status trmi_bind_no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "binding a program");
}

void *trmi_bind_grow(trmi_segment *s, void *items, int count, int *max, size_t size)
{
    int want = *max == 0 ? 32 : *max * 2;
    void *block;

    if (count < *max)
        return items;
    block = trm_arena_alloc(s->arena, (size_t)want, size);
    if (block == NULL)
        return NULL;
    if (count > 0)
        memcpy(block, items, (size_t)count * size);
    *max = want;
    return block;
}

trm_status trmi_bind_slot(trmi_segment *s, trmi_source source, int index, const void *fixed,
                          int *slot_out)
{
    trmi_slot *slots = trmi_bind_grow(s, s->slots, s->slot_count, &s->slot_max, sizeof(trmi_slot));

    if (slots == NULL)
        return trmi_bind_no_memory();
    s->slots = slots;
    slots[s->slot_count] = (trmi_slot){.source = source, .index = index, .fixed = fixed};
    *slot_out = s->slot_begin + s->slot_count++;
    return TRM_OK;
}

static trm_status add_storage(struct binder *b, size_t bytes, int death, int *storage_out)
{
    trmi_segment *s = b->s;
    trmi_storage *all =
        trmi_bind_grow(s, s->storages, s->storage_count, &s->storage_max, sizeof(trmi_storage));

    if (all == NULL)
        return trmi_bind_no_memory();
    s->storages = all;
    /* room for vector loads that run over the end, and distinct addresses for empty tensors */
    all[s->storage_count] = (trmi_storage){
        .bytes = trm_align_up(bytes + TRM_ALIGN, TRM_ALIGN), .birth = b->node, .death = death};
    *storage_out = s->storage_count++;
    return TRM_OK;
}

int trmi_bind_last_use(const struct binder *b, int value)
{
    return b->e->last_use[value] < b->node ? b->node : b->e->last_use[value];
}

trm_status trmi_bind_buffer(struct binder *b, const trm_tensor *desc, int death, int *slot_out)
{
    size_t bytes;
    int storage = 0;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    TRM_CHECK(add_storage(b, bytes, death, &storage));
    return trmi_bind_slot(b->s, TRMI_SOURCE_ARENA, storage, NULL, slot_out);
}

trmi_storage *trmi_bind_storage(const trmi_segment *s, int slot)
{
    const trmi_slot *p;

    if (slot < s->slot_begin)
        return NULL;
    p = &s->slots[slot - s->slot_begin];
    return p->source == TRMI_SOURCE_ARENA ? &s->storages[p->index] : NULL;
}

trmi_step *trmi_bind_step(struct binder *b, int node, int in_count, int out_count)
{
    trmi_segment *s = b->s;
    trmi_step *steps = trmi_bind_grow(s, s->steps, s->step_count, &s->step_max, sizeof(trmi_step));
    trmi_step *t;

    if (steps == NULL)
        return NULL;
    s->steps = steps;
    t = &steps[s->step_count];
    memset(t, 0, sizeof(*t));
    t->node = node;
    t->window_slot = TRMI_NO_SLOT;
    t->in_count = in_count;
    t->out_count = out_count;
    t->in_slots = trm_arena_alloc(s->arena, (size_t)in_count + 1, sizeof(int));
    t->out_slots = trm_arena_alloc(s->arena, (size_t)out_count + 1, sizeof(int));
    t->in = trm_arena_alloc(s->arena, (size_t)in_count + 1, sizeof(void *));
    t->out = trm_arena_alloc(s->arena, (size_t)out_count + 1, sizeof(void *));
    if (t->in_slots == NULL || t->out_slots == NULL || t->in == NULL || t->out == NULL)
        return NULL;
    s->step_count++; /* from here segment_destroy owns the step's kernel */
    return t;
}

/* A slot for a value that so far is only known on the host: a constant or a bound value. */
static trm_status materialise(struct binder *b, int value)
{
    trm_engine *e = b->e;
    trmi_state *st = &b->s->state[value];
    const void *p = st->desc.data;
    trm_tensor kept;

    if (e->graph->values[value].lazy != NULL) /* steps read it in place: it stays */
        TRM_CHECK(trm_graph_constant(e->graph, value, &kept));
    if (!e->device->host_memory) {
        size_t bytes;

        TRM_CHECK(trm_tensor_bytes(&st->desc, &bytes));
        if (e->constants[value] == NULL || !trm_graph_is_constant(e->graph, value)) {
            if (e->constants[value] != NULL)
                e->device->ops->free(e->device, TRM_MEMORY_DEVICE, e->constants[value]);
            e->constants[value] = NULL;
            TRM_CHECK(
                e->device->ops->alloc(e->device, TRM_MEMORY_DEVICE, bytes, &e->constants[value]));
            TRM_CHECK(e->device->ops->copy_in(e->device, NULL, e->constants[value], p, bytes));
        }
        p = e->constants[value];
    }
    return trmi_bind_slot(b->s, TRMI_SOURCE_FIXED, 0, p, &st->slot);
}

/* Blocked and channels-last forms of [N, C, 1, 1...] with whole blocks are the plain bytes. */
static bool is_plain_in_fact(const trm_tensor *t)
{
    int64_t block = t->layout == TRM_LAYOUT_BLOCK8 ? 8 : t->layout == TRM_LAYOUT_BLOCK16 ? 16 : 1;

    if (t->layout == TRM_LAYOUT_PLAIN)
        return true;
    if (t->layout == TRM_LAYOUT_CHANNELS_LAST && t->rank >= 2 && t->dims[1] == 1)
        return true;
    return t->rank >= 2 && t->dims[1] % block == 0 && trm_tensor_count(t, 2, t->rank) == 1;
}

/* The slot that holds `value` in `layout`; adds a reorder step where no such copy exists yet. */
trm_status trmi_bind_layout(struct binder *b, int value, trm_layout layout, int *slot_out)
{
    trmi_segment *s = b->s;
    trmi_state *st = &s->state[value];
    trm_tensor to = st->desc;
    trmi_alternative *alts;
    trmi_step *step;
    int slot;

    if (st->slot == TRMI_NO_SLOT)
        TRM_CHECK(materialise(b, value));
    to.layout = layout;
    if (st->desc.layout == layout || (is_plain_in_fact(&st->desc) && is_plain_in_fact(&to))) {
        *slot_out = st->slot;
        return TRM_OK;
    }
    for (int i = 0; i < s->alternative_count; i++) {
        if (s->alternatives[i].value == value && s->alternatives[i].layout == layout) {
            *slot_out = s->alternatives[i].slot;
            return TRM_OK;
        }
    }
    TRM_CHECK(trmi_bind_buffer(b, &to, trmi_bind_last_use(b, value), &slot));
    step = trmi_bind_step(b, TRM_NO_VALUE, 1, 1);
    if (step == NULL)
        return trmi_bind_no_memory();
    step->in_slots[0] = st->slot;
    step->out_slots[0] = slot;
    TRM_CHECK(b->e->device->ops->prepare_reorder(b->e->device, &st->desc, &to, &step->kernel));
    if (step->kernel->workspace_bytes > s->workspace_bytes)
        s->workspace_bytes = step->kernel->workspace_bytes;
    alts = trmi_bind_grow(s, s->alternatives, s->alternative_count, &s->alternative_max,
                          sizeof(*alts));
    if (alts == NULL)
        return trmi_bind_no_memory();
    s->alternatives = alts;
    alts[s->alternative_count++] =
        (trmi_alternative){.value = value, .slot = slot, .layout = layout};
    *slot_out = slot;
    return TRM_OK;
}

trm_status trmi_bind_host_value(struct binder *b, int value, const trm_tensor *t)
{
    size_t bytes;
    void *copy;

    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    copy = trm_arena_alloc_aligned(b->s->arena, bytes + TRM_ALIGN);
    if (copy == NULL)
        return trmi_bind_no_memory();
    if (bytes > 0)
        memcpy(copy, t->data, bytes);
    b->s->state[value].desc = *t;
    b->s->state[value].desc.data = copy;
    b->s->state[value].slot = TRMI_NO_SLOT;
    return TRM_OK;
}
