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

/* Vector loads of a GPU want more than a cache line's alignment, and its copies 256 bytes. */
static size_t align_of(const trm_engine *e, trmi_place place)
{
    return place == TRMI_DEVICE && trmi_engine_splits(e) ? 256 : TRM_ALIGN;
}

static trm_status add_storage(struct binder *b, trmi_place place, size_t bytes, int death,
                              int *storage_out)
{
    trmi_segment *s = b->s;
    size_t align = align_of(b->e, place);
    int *count = &s->storage_count[place];
    trmi_storage *all =
        trmi_bind_grow(s, s->storages[place], *count, &s->storage_max[place], sizeof(trmi_storage));

    if (all == NULL)
        return trmi_bind_no_memory();
    s->storages[place] = all;
    /* room for vector loads that run over the end, and distinct addresses for empty tensors */
    all[*count] = (trmi_storage){
        .bytes = trm_align_up(bytes + TRM_ALIGN, align), .birth = b->node, .death = death};
    *storage_out = (*count)++;
    return TRM_OK;
}

int trmi_bind_last_use(const struct binder *b, int value)
{
    return b->e->last_use[value] < b->node ? b->node : b->e->last_use[value];
}

trm_status trmi_bind_buffer(struct binder *b, trmi_place place, const trm_tensor *desc, int death,
                            int *slot_out)
{
    size_t bytes;
    int storage = 0;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    TRM_CHECK(add_storage(b, place, bytes, death, &storage));
    return trmi_bind_slot(b->s, place == TRMI_DEVICE ? TRMI_SOURCE_ARENA : TRMI_SOURCE_HOST_ARENA,
                          storage, NULL, slot_out);
}

trm_status trmi_bind_same(trmi_segment *s, int slot, int *slot_out)
{
    const trmi_slot *p = &s->slots[slot - s->slot_begin];

    return trmi_bind_slot(s, p->source, p->index, p->fixed, slot_out);
}

trmi_storage *trmi_bind_storage(const trmi_segment *s, int slot)
{
    const trmi_slot *p;

    if (slot < s->slot_begin)
        return NULL;
    p = &s->slots[slot - s->slot_begin];
    return p->source == TRMI_SOURCE_ARENA        ? &s->storages[TRMI_DEVICE][p->index]
           : p->source == TRMI_SOURCE_HOST_ARENA ? &s->storages[TRMI_HOST][p->index]
                                                 : NULL;
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

static trm_status upload(trm_engine *e, const void *from, size_t bytes, void **memory_out)
{
    trm_device *d = e->device;
    trm_status st;

    TRM_CHECK(d->ops->alloc(d, TRM_MEMORY_DEVICE, bytes + TRM_ALIGN, memory_out));
    st = d->ops->upload(d, *memory_out, from, bytes);
    if (st != TRM_OK) {
        d->ops->free(d, TRM_MEMORY_DEVICE, *memory_out);
        *memory_out = NULL;
    }
    return st;
}

/* A constant of the graph in device memory: there once, for all programs. */
static trm_status upload_constant(trm_engine *e, int value, const void **p_out)
{
    trm_tensor t;
    size_t bytes;
    trm_status st;

    if (e->constants[value] == NULL) {
        TRM_CHECK(trm_graph_constant_borrow(e->graph, value, &t));
        st = trm_tensor_bytes(&t, &bytes);
        if (st == TRM_OK)
            st = upload(e, t.data, bytes, &e->constants[value]);
        trm_graph_constant_return(e->graph, value);
        TRM_CHECK(st);
        e->constant_bytes += bytes;
    }
    *p_out = e->constants[value];
    return TRM_OK;
}

/* A value that binding has found out: the segment's own. */
static trm_status upload_known(struct binder *b, const trm_tensor *t, const void **p_out)
{
    trmi_fixed *f = trm_arena_alloc(b->s->arena, 1, sizeof(*f));
    size_t bytes;

    if (f == NULL)
        return trmi_bind_no_memory();
    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    TRM_CHECK(upload(b->e, t->data, bytes, &f->memory));
    f->next = b->s->fixed;
    b->s->fixed = f;
    *p_out = f->memory;
    return TRM_OK;
}

/* A slot in `place` for a value that is known on the host: a constant or a bound value. */
static trm_status materialise(struct binder *b, int value, trmi_place place, int *slot_out)
{
    trm_engine *e = b->e;
    const trmi_state *st = &b->s->state[value];
    const void *p = st->desc.data;
    trm_tensor kept;

    if (place == TRMI_DEVICE && trmi_engine_splits(e)) {
        if (trm_graph_is_constant(e->graph, value))
            TRM_CHECK(upload_constant(e, value, &p));
        else
            TRM_CHECK(upload_known(b, &st->desc, &p));
    } else if (e->graph->values[value].lazy != NULL) { /* steps read it in place: it stays */
        TRM_CHECK(trm_graph_constant(e->graph, value, &kept));
    }
    return trmi_bind_slot(b->s, TRMI_SOURCE_FIXED, 0, p, slot_out);
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

trmi_place trmi_bind_place(const struct binder *b, int value)
{
    const trmi_state *st = &b->s->state[value];

    return st->slot == TRMI_NO_SLOT ? TRMI_DEVICE : st->place;
}

static bool find_alternative(const trmi_segment *s, int value, trm_layout layout, trmi_place place,
                             int *slot_out)
{
    for (int i = 0; i < s->alternative_count; i++) {
        const trmi_alternative *a = &s->alternatives[i];

        if (a->value == value && a->layout == layout && a->place == place) {
            *slot_out = a->slot;
            return true;
        }
    }
    return false;
}

static trm_status add_alternative(struct binder *b, int value, trm_layout layout, trmi_place place,
                                  int slot)
{
    trmi_segment *s = b->s;
    trmi_alternative *alts = trmi_bind_grow(s, s->alternatives, s->alternative_count,
                                            &s->alternative_max, sizeof(*alts));

    if (alts == NULL)
        return trmi_bind_no_memory();
    s->alternatives = alts;
    alts[s->alternative_count++] =
        (trmi_alternative){.value = value, .slot = slot, .layout = layout, .place = place};
    return TRM_OK;
}

/* A step that makes slot `to` of slot `from`; the kernel is the step's from now on. */
static trm_status move_step(struct binder *b, trm_kernel *k, trmi_place place, int from, int to)
{
    trmi_step *step = trmi_bind_step(b, TRM_NO_VALUE, 1, 1);

    if (step == NULL) {
        trm_kernel_destroy(k);
        return trmi_bind_no_memory();
    }
    step->kernel = k;
    step->place = place;
    step->in_slots[0] = from;
    step->out_slots[0] = to;
    if (k->workspace_bytes > b->s->workspace_bytes[place])
        b->s->workspace_bytes[place] = k->workspace_bytes;
    return TRM_OK;
}

trm_status trmi_bind_copy(struct binder *b, const trm_tensor *desc, int death, trmi_place place,
                          int from, int *slot_out)
{
    trm_kernel *k = NULL;
    size_t bytes;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    TRM_CHECK(trmi_bind_buffer(b, place, desc, death, slot_out));
    TRM_CHECK(trmi_copy_prepare(b->e->device, place, bytes, &k));
    b->s->copied_bytes += bytes;
    /* both ways are enqueued by the device */
    return move_step(b, k, TRMI_DEVICE, from, *slot_out);
}

/* The plain tensor in slot `from` of the other place, in `place`. */
static trm_status copy_over(struct binder *b, int value, trmi_place place, int from, int *slot_out)
{
    trm_tensor to = b->s->state[value].desc;

    to.layout = TRM_LAYOUT_PLAIN;
    TRM_CHECK(trmi_bind_copy(b, &to, trmi_bind_last_use(b, value), place, from, slot_out));
    return add_alternative(b, value, TRM_LAYOUT_PLAIN, place, *slot_out);
}

static trm_status reorder(struct binder *b, const trm_tensor *from_desc, int value,
                          trm_layout layout, trmi_place place, int from, int *slot_out)
{
    trm_device *d = place == TRMI_HOST ? trm_device_host(b->e->device) : b->e->device;
    trm_tensor to = *from_desc;
    trm_kernel *k = NULL;

    to.layout = layout;
    TRM_CHECK(trmi_bind_buffer(b, place, &to, trmi_bind_last_use(b, value), slot_out));
    TRM_CHECK(d->ops->prepare_reorder(d, from_desc, &to, &k));
    TRM_CHECK(move_step(b, k, place, from, *slot_out));
    return add_alternative(b, value, layout, place, *slot_out);
}

/* A slot of the value in `place`, in whatever layout it has there. */
static trm_status find_place(struct binder *b, int value, trmi_place place, int *slot_out,
                             trm_layout *layout_out)
{
    trmi_state *st = &b->s->state[value];
    int there;

    *layout_out = TRM_LAYOUT_PLAIN;
    if (st->slot == TRMI_NO_SLOT) {
        TRM_CHECK(materialise(b, value, place, &st->slot));
        st->place = place;
    }
    if (st->place == place) {
        *slot_out = st->slot;
        *layout_out = st->desc.layout;
        return TRM_OK;
    }
    if (find_alternative(b->s, value, TRM_LAYOUT_PLAIN, place, slot_out))
        return TRM_OK;
    if (st->desc.data != NULL) { /* known: no copy while running */
        TRM_CHECK(materialise(b, value, place, slot_out));
        return add_alternative(b, value, TRM_LAYOUT_PLAIN, place, *slot_out);
    }
    TRM_CHECK(trmi_bind_layout(b, value, TRM_LAYOUT_PLAIN, st->place, &there));
    return copy_over(b, value, place, there, slot_out);
}

trm_status trmi_bind_layout(struct binder *b, int value, trm_layout layout, trmi_place place,
                            int *slot_out)
{
    trm_tensor from = b->s->state[value].desc, to = from;
    int slot;

    if (b->s->state[value].place != place || b->s->state[value].desc.layout != layout)
        if (find_alternative(b->s, value, layout, place, slot_out))
            return TRM_OK;
    TRM_CHECK(find_place(b, value, place, &slot, &from.layout));
    to.layout = layout;
    if (from.layout == layout || (is_plain_in_fact(&from) && is_plain_in_fact(&to))) {
        *slot_out = slot;
        return TRM_OK;
    }
    return reorder(b, &from, value, layout, place, slot, slot_out);
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
