/* Binding: turns the next stretch of nodes, with shapes known, into a segment of prepared kernels
 * and planned buffers. */
#include "worker/engine_impl.h"

#include "base/log.h"
#include "model/shape/shape.h"

#include <string.h>

#define ARGS_MAX 256
#define HOST_VALUE_ELEMS_MAX                                                                       \
    65536 /* larger results are computed in the step, not while binding                            \
           */

struct binder {
    trm_engine *e;
    trmi_segment *s;
    int node; /* being bound */
    trm_tensor in[ARGS_MAX], out[ARGS_MAX];
    uint64_t keys[ARGS_MAX];
};

enum verdict { GO_ON, END_BEFORE, END_AFTER };

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "binding a program");
}

static void *grow(trmi_segment *s, void *items, int count, int *max, size_t size)
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

static trm_status add_slot(trmi_segment *s, trmi_source source, int index, const void *fixed,
                           int *slot_out)
{
    trmi_slot *slots = grow(s, s->slots, s->slot_count, &s->slot_max, sizeof(trmi_slot));

    if (slots == NULL)
        return no_memory();
    s->slots = slots;
    slots[s->slot_count] = (trmi_slot){.source = source, .index = index, .fixed = fixed};
    *slot_out = s->slot_begin + s->slot_count++;
    return TRM_OK;
}

static trm_status add_storage(struct binder *b, size_t bytes, int death, int *storage_out)
{
    trmi_segment *s = b->s;
    trmi_storage *all =
        grow(s, s->storages, s->storage_count, &s->storage_max, sizeof(trmi_storage));

    if (all == NULL)
        return no_memory();
    s->storages = all;
    /* room for vector loads that run over the end, and distinct addresses for empty tensors */
    all[s->storage_count] = (trmi_storage){
        .bytes = trm_align_up(bytes + TRM_ALIGN, TRM_ALIGN), .birth = b->node, .death = death};
    *storage_out = s->storage_count++;
    return TRM_OK;
}

static int last_use(const struct binder *b, int value)
{
    return b->e->last_use[value] < b->node ? b->node : b->e->last_use[value];
}

static trm_status new_buffer(struct binder *b, const trm_tensor *desc, int death, int *slot_out)
{
    size_t bytes;
    int storage = 0;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    TRM_CHECK(add_storage(b, bytes, death, &storage));
    return add_slot(b->s, TRMI_SOURCE_ARENA, storage, NULL, slot_out);
}

static trmi_storage *own_storage(const trmi_segment *s, int slot)
{
    const trmi_slot *p;

    if (slot < s->slot_begin)
        return NULL;
    p = &s->slots[slot - s->slot_begin];
    return p->source == TRMI_SOURCE_ARENA ? &s->storages[p->index] : NULL;
}

static trmi_step *add_step(struct binder *b, int node, int in_count, int out_count)
{
    trmi_segment *s = b->s;
    trmi_step *steps = grow(s, s->steps, s->step_count, &s->step_max, sizeof(trmi_step));
    trmi_step *t;

    if (steps == NULL)
        return NULL;
    s->steps = steps;
    t = &steps[s->step_count];
    memset(t, 0, sizeof(*t));
    t->node = node;
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
    return add_slot(b->s, TRMI_SOURCE_FIXED, 0, p, &st->slot);
}

/* Blocked and channels-last forms of [N, C, 1, 1...] with whole blocks are the plain bytes. */
static bool is_plain_in_fact(const trm_tensor *t)
{
    int64_t block = t->layout == TRM_LAYOUT_BLOCK8 ? 8 : t->layout == TRM_LAYOUT_BLOCK16 ? 16 : 1;

    if (t->layout == TRM_LAYOUT_PLAIN)
        return true;
    return t->rank >= 2 && t->dims[1] % block == 0 && trm_tensor_count(t, 2, t->rank) == 1;
}

/* The slot that holds `value` in `layout`; adds a reorder step where no such copy exists yet. */
static trm_status slot_in_layout(struct binder *b, int value, trm_layout layout, int *slot_out)
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
    TRM_CHECK(new_buffer(b, &to, last_use(b, value), &slot));
    step = add_step(b, TRM_NO_VALUE, 1, 1);
    if (step == NULL)
        return no_memory();
    step->in_slots[0] = st->slot;
    step->out_slots[0] = slot;
    TRM_CHECK(b->e->device->ops->prepare_reorder(b->e->device, &st->desc, &to, &step->kernel));
    if (step->kernel->workspace_bytes > s->workspace_bytes)
        s->workspace_bytes = step->kernel->workspace_bytes;
    alts = grow(s, s->alternatives, s->alternative_count, &s->alternative_max, sizeof(*alts));
    if (alts == NULL)
        return no_memory();
    s->alternatives = alts;
    alts[s->alternative_count++] =
        (trmi_alternative){.value = value, .slot = slot, .layout = layout};
    *slot_out = slot;
    return TRM_OK;
}

/* ---- values known while binding ---- */

static bool all_inputs_known(const trm_node *n, const trm_tensor *in)
{
    for (int i = 0; i < n->input_count; i++)
        if (in[i].dtype != TRM_DTYPE_NONE && in[i].data == NULL)
            return false;
    return true;
}

static trm_status keep_host_value(struct binder *b, int value, const trm_tensor *t)
{
    size_t bytes;
    void *copy;

    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    copy = trm_arena_alloc_aligned(b->s->arena, bytes + TRM_ALIGN);
    if (copy == NULL)
        return no_memory();
    if (bytes > 0)
        memcpy(copy, t->data, bytes);
    b->s->state[value].desc = *t;
    b->s->state[value].desc.data = copy;
    b->s->state[value].slot = TRMI_NO_SLOT;
    return TRM_OK;
}

/* Computes small results now, if everything they depend on is known. */
static trm_status bind_on_host(struct binder *b, const trm_node *n, bool *done_out)
{
    trm_tensor results[ARGS_MAX];
    trm_op_info const *info = trm_op_get(n->op);
    bool from_dims = n->op == TRM_OP_Shape || n->op == TRM_OP_Size;

    *done_out = false;
    if (b->e->evaluator.run == NULL || (info->flags & (TRM_OPF_CONTROL | TRM_OPF_FOLD_OFF)) != 0)
        return TRM_OK;
    if (!from_dims && !all_inputs_known(n, b->in))
        return TRM_OK;
    if ((info->flags & TRM_OPF_DATA_SHAPE) == 0) {
        for (int i = 0; i < n->output_count; i++)
            if (n->outputs[i] != TRM_NO_VALUE &&
                (!trm_tensor_is_concrete(&b->out[i]) ||
                 trm_tensor_numel(&b->out[i]) > HOST_VALUE_ELEMS_MAX))
                return TRM_OK;
    }
    for (int i = 0; i < n->input_count; i++)
        if (!from_dims && b->in[i].dtype != TRM_DTYPE_NONE &&
            trm_tensor_numel(&b->in[i]) > HOST_VALUE_ELEMS_MAX)
            return TRM_OK;
    if (b->e->evaluator.run(b->e->evaluator.ctx, n, b->in, results) != TRM_OK)
        return TRM_OK; /* then it is a step, and complains there if it must */
    for (int i = 0; i < n->output_count; i++)
        if (n->outputs[i] != TRM_NO_VALUE && results[i].dtype != TRM_DTYPE_NONE)
            TRM_CHECK(keep_host_value(b, n->outputs[i], &results[i]));
    *done_out = true;
    return TRM_OK;
}

static trm_status want_fetched(struct binder *b, int value)
{
    trmi_segment *s = b->s;
    int *list;

    for (int i = 0; i < s->fetch_count; i++)
        if (s->fetch[i] == value)
            return TRM_OK;
    list = grow(s, s->fetch, s->fetch_count, &s->fetch_max, sizeof(int));
    if (list == NULL)
        return no_memory();
    s->fetch = list;
    list[s->fetch_count++] = value;
    return TRM_OK;
}

/* ---- nodes ---- */

static bool is_wanted(const struct binder *b, int value)
{
    return value != TRM_NO_VALUE && b->e->last_use[value] >= 0;
}

static trm_status bind_view(struct binder *b, const trm_node *n)
{
    trmi_segment *s = b->s;
    int from, value = n->outputs[0];
    trmi_storage *storage;
    trmi_state *st = &s->state[value];

    TRM_CHECK(slot_in_layout(b, n->inputs[0], TRM_LAYOUT_PLAIN, &from));
    st->desc = b->out[0];
    storage = own_storage(s, from);
    if (storage == NULL) {
        const trmi_slot *slot = from < s->slot_begin ? NULL : &s->slots[from - s->slot_begin];

        if (slot != NULL && slot->source != TRMI_SOURCE_DYNAMIC)
            return add_slot(s, slot->source, slot->index, slot->fixed, &st->slot);
        return add_slot(s, TRMI_SOURCE_SLOT, from, NULL, &st->slot);
    }
    if (last_use(b, value) > storage->death)
        storage->death = last_use(b, value);
    return add_slot(s, TRMI_SOURCE_ARENA, (int)(storage - s->storages), NULL, &st->slot);
}

/* Takes over the storage of an input that dies here, where the kernel allows it. */
static bool reuse_input(struct binder *b, const trm_node *n, const trm_kernel *k,
                        const trmi_step *step, int *slot_out, trm_status *st_out)
{
    const trm_tensor *out = &b->out[0];

    for (int i = 0; i < n->input_count && i < 32; i++) {
        trmi_storage *storage;

        if ((k->in_place >> i & 1u) == 0 || step->in_slots[i] < 0 || b->in[i].dtype != out->dtype ||
            b->in[i].layout != out->layout || !trm_tensor_same_shape(&b->in[i], out))
            continue;
        storage = own_storage(b->s, step->in_slots[i]);
        if (storage == NULL || storage->death != b->node)
            continue;
        storage->death = last_use(b, n->outputs[0]);
        *st_out =
            add_slot(b->s, TRMI_SOURCE_ARENA, (int)(storage - b->s->storages), NULL, slot_out);
        return true;
    }
    return false;
}

static trm_status dynamic_outputs(struct binder *b, const trm_node *n, trmi_step *step)
{
    trmi_segment *s = b->s;

    step->out_dynamic = trm_arena_alloc(s->arena, (size_t)n->output_count + 1, sizeof(int));
    step->out_dtypes = trm_arena_alloc(s->arena, (size_t)n->output_count + 1, sizeof(trm_dtype));
    s->learned = trm_arena_alloc(s->arena, (size_t)n->output_count + 1, sizeof(int));
    if (step->out_dynamic == NULL || step->out_dtypes == NULL || s->learned == NULL)
        return no_memory();
    for (int i = 0; i < n->output_count; i++) {
        step->out_dynamic[i] = TRMI_NO_SLOT;
        step->out_slots[i] = TRMI_NO_SLOT;
        step->out_dtypes[i] = b->out[i].dtype;
        if (!is_wanted(b, n->outputs[i]))
            continue;
        step->out_dynamic[i] = s->dynamic_begin + s->dynamic_count++;
        s->learned[s->learned_count++] = n->outputs[i];
        s->state[n->outputs[i]].desc = b->out[i];
        s->state[n->outputs[i]].desc.layout = TRM_LAYOUT_PLAIN;
        TRM_CHECK(add_slot(s, TRMI_SOURCE_DYNAMIC, step->out_dynamic[i], NULL,
                           &s->state[n->outputs[i]].slot));
    }
    return TRM_OK;
}

static trm_status bind_control(struct binder *b, const trm_node *n)
{
    int in_slots[ARGS_MAX];
    trmi_step *step;

    for (int i = 0; i < n->input_count; i++) {
        in_slots[i] = TRMI_NO_SLOT;
        if (n->inputs[i] != TRM_NO_VALUE)
            TRM_CHECK(slot_in_layout(b, n->inputs[i], TRM_LAYOUT_PLAIN, &in_slots[i]));
    }
    step = add_step(b, b->node, n->input_count, n->output_count);
    if (step == NULL)
        return no_memory();
    step->in_descs = trm_arena_alloc(b->s->arena, (size_t)n->input_count + 1, sizeof(trm_tensor));
    if (step->in_descs == NULL)
        return no_memory();
    for (int i = 0; i < n->input_count; i++) {
        step->in_slots[i] = in_slots[i];
        step->in_descs[i] = b->in[i];
        step->in_descs[i].layout = TRM_LAYOUT_PLAIN;
    }
    return dynamic_outputs(b, n, step);
}

static trm_status bind_kernel(struct binder *b, const trm_node *n, bool *dynamic_out)
{
    trmi_segment *s = b->s;
    trm_engine *e = b->e;
    trm_op_desc desc = {.op = n->op,
                        .attrs = &n->attrs,
                        .name = n->name,
                        .input_count = n->input_count,
                        .output_count = n->output_count,
                        .inputs = b->in,
                        .outputs = b->out,
                        .weight_keys = b->keys,
                        .post_count = n->post_count};
    int in_slots[ARGS_MAX];
    trm_kernel *k = NULL;
    trmi_step *step;
    trm_status st;

    memcpy(desc.posts, n->posts, sizeof(desc.posts));
    for (int i = 0; i < n->output_count; i++)
        if (!is_wanted(b, n->outputs[i]) && (i > 0 || n->output_count > 1))
            b->out[i].dtype = TRM_DTYPE_NONE;
    TRM_CHECK(e->device->ops->prepare(e->device, &desc, &k));
    *dynamic_out =
        k->ops->run_dynamic != NULL && (trm_op_get(n->op)->flags & TRM_OPF_DATA_SHAPE) != 0;
    for (int i = 0; i < n->input_count; i++) {
        in_slots[i] = TRMI_NO_SLOT;
        if (n->inputs[i] == TRM_NO_VALUE || (i < 32 && (k->packed_inputs >> i & 1u) != 0))
            continue;
        st = slot_in_layout(b, n->inputs[i], b->in[i].layout, &in_slots[i]);
        if (st != TRM_OK) {
            trm_kernel_destroy(k);
            return st;
        }
    }
    step = add_step(b, b->node, n->input_count, n->output_count);
    if (step == NULL) {
        trm_kernel_destroy(k);
        return no_memory();
    }
    step->kernel = k;
    if (k->workspace_bytes > s->workspace_bytes)
        s->workspace_bytes = k->workspace_bytes;
    if (n->input_count > 0)
        memcpy(step->in_slots, in_slots, (size_t)n->input_count * sizeof(int));
    if (*dynamic_out)
        return dynamic_outputs(b, n, step);
    for (int i = 0; i < n->output_count; i++) {
        int v = n->outputs[i];

        step->out_slots[i] = TRMI_NO_SLOT;
        if (v == TRM_NO_VALUE || b->out[i].dtype == TRM_DTYPE_NONE)
            continue;
        s->state[v].desc = b->out[i];
        s->state[v].desc.data = NULL;
        st = TRM_OK;
        if (i > 0 || !reuse_input(b, n, k, step, &s->state[v].slot, &st))
            st = new_buffer(b, &b->out[i], last_use(b, v), &s->state[v].slot);
        TRM_CHECK(st);
        step->out_slots[i] = s->state[v].slot;
    }
    return TRM_OK;
}

static trm_status bind_node(struct binder *b, enum verdict *verdict_out)
{
    const trm_node *n = &b->e->graph->nodes[b->node];
    const trm_op_info *info = trm_op_get(n->op);
    trm_shape_io io = {.node = n, .in = b->in, .out = b->out};
    bool done, dynamic;

    *verdict_out = GO_ON;
    if (n->input_count > ARGS_MAX || n->output_count > ARGS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%d inputs, %d outputs: at most %d", n->input_count,
                        n->output_count, ARGS_MAX);
    for (int i = 0; i < n->input_count; i++) {
        int v = n->inputs[i];

        b->in[i] = v == TRM_NO_VALUE ? (trm_tensor){.dtype = TRM_DTYPE_NONE, .rank = -1}
                                     : b->s->state[v].desc;
        b->keys[i] = trm_graph_is_constant(b->e->graph, v) ? b->e->id << 32 | (uint64_t)(v + 1) : 0;
        if (v != TRM_NO_VALUE && !trm_tensor_is_concrete(&b->in[i]))
            return trm_fail(TRM_ERR_INTERNAL, "input '%s' has no shape yet",
                            b->e->graph->values[v].name);
    }
    for (int i = 0; i < n->output_count; i++)
        b->out[i] = (trm_tensor){.dtype = TRM_DTYPE_NONE, .rank = -1};
    for (int i = 0; i < n->input_count && i < 32; i++) {
        if ((info->shape_inputs >> i & 1u) != 0 && b->in[i].dtype != TRM_DTYPE_NONE &&
            b->in[i].data == NULL) {
            TRM_CHECK(want_fetched(b, n->inputs[i]));
            *verdict_out = END_BEFORE;
        }
    }
    if (*verdict_out == END_BEFORE)
        return TRM_OK;
    if ((info->flags & TRM_OPF_CONTROL) == 0) {
        TRM_CHECK(trm_shape_infer(&io));
        for (int i = 0; i < n->output_count; i++)
            if ((info->flags & TRM_OPF_DATA_SHAPE) == 0 && is_wanted(b, n->outputs[i]) &&
                (b->out[i].dtype == TRM_DTYPE_NONE || !trm_tensor_is_concrete(&b->out[i])))
                return trm_fail(TRM_ERR_INTERNAL, "the shape of output %d was not inferred", i);
    }
    TRM_CHECK(bind_on_host(b, n, &done));
    if (done)
        return TRM_OK;
    if ((info->flags & TRM_OPF_CONTROL) != 0) {
        *verdict_out = END_AFTER;
        return bind_control(b, n);
    }
    if ((info->flags & TRM_OPF_VIEW) != 0 && b->out[0].dtype == b->in[0].dtype &&
        (n->output_count == 1 || !is_wanted(b, n->outputs[1])))
        return bind_view(b, n);
    TRM_CHECK(bind_kernel(b, n, &dynamic));
    if (dynamic)
        *verdict_out = END_AFTER;
    return TRM_OK;
}

/* ---- segments ---- */

static trm_status start_state(struct binder *b, const trmi_segment *parent)
{
    trm_engine *e = b->e;
    trm_graph *g = e->graph;
    trmi_segment *s = b->s;

    if (parent == &e->root) {
        for (int v = 0; v < g->value_count; v++) {
            s->state[v].slot = TRMI_NO_SLOT;
            s->state[v].desc.rank = -1;
            if (e->last_use[v] >= 0 && trm_graph_is_constant(g, v))
                TRM_CHECK(trm_graph_constant(g, v, &s->state[v].desc));
        }
        for (int i = 0; i < g->input_count; i++) {
            trmi_state *st = &s->state[g->inputs[i]];

            st->desc = e->inputs[i];
            st->desc.data = NULL;
            st->desc.layout = TRM_LAYOUT_PLAIN;
            TRM_CHECK(add_slot(s, TRMI_SOURCE_INPUT, i, NULL, &st->slot));
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
            return no_memory();
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

        for (int k = i; k < parent->fetch_count; k++) {
            TRM_CHECK(trm_tensor_bytes(&s->state[parent->fetch[k]].desc, &bytes));
            after += bytes;
        }
        t.data = e->key + e->key_bytes - after;
        TRM_CHECK(keep_host_value(b, parent->fetch[i], &t));
        s->state[parent->fetch[i]].slot = slot; /* the device copy stays */
    }
    return TRM_OK;
}

/* What later segments or the caller read must survive this one. */
static void keep_alive(struct binder *b)
{
    trmi_segment *s = b->s;

    for (int v = 0; v < b->e->graph->value_count; v++) {
        trmi_storage *p =
            s->state[v].slot == TRMI_NO_SLOT ? NULL : own_storage(s, s->state[v].slot);

        if (p != NULL && b->e->last_use[v] >= s->node_end)
            p->death = TRMI_FOREVER;
    }
    for (int i = 0; i < s->alternative_count; i++) {
        trmi_storage *p = own_storage(s, s->alternatives[i].slot);

        if (p != NULL && b->e->last_use[s->alternatives[i].value] >= s->node_end)
            p->death = TRMI_FOREVER;
    }
    for (int i = 0; i < s->fetch_count; i++) {
        trmi_storage *p = own_storage(s, s->state[s->fetch[i]].slot);

        if (p != NULL)
            p->death = TRMI_FOREVER;
    }
}

/* Outputs and fetched values are handed over plain. */
static trm_status finish(struct binder *b)
{
    trmi_segment *s = b->s;
    trm_graph *g = b->e->graph;

    b->node = s->node_end;
    for (int i = 0; i < s->fetch_count; i++) {
        trmi_state *st = &s->state[s->fetch[i]];
        int slot;

        TRM_CHECK(slot_in_layout(b, s->fetch[i], TRM_LAYOUT_PLAIN, &slot));
        st->slot = slot;
        st->desc.layout = TRM_LAYOUT_PLAIN;
    }
    if (!s->last)
        return TRM_OK;
    s->output_slots = trm_arena_alloc(s->arena, (size_t)g->output_count + 1, sizeof(int));
    if (s->output_slots == NULL)
        return no_memory();
    for (int i = 0; i < g->output_count; i++)
        TRM_CHECK(slot_in_layout(b, g->outputs[i], TRM_LAYOUT_PLAIN, &s->output_slots[i]));
    return TRM_OK;
}

static trm_status grow_engine(trm_engine *e, const trmi_segment *s)
{
    int slots = s->slot_begin + s->slot_count, dynamics = s->dynamic_begin + s->dynamic_count;

    if (s->level >= e->level_count) {
        trmi_buffer *arenas = trm_realloc(e->arenas, (size_t)s->level + 1, sizeof(*arenas));

        if (arenas == NULL)
            return no_memory();
        memset(arenas + e->level_count, 0,
               (size_t)(s->level + 1 - e->level_count) * sizeof(*arenas));
        e->arenas = arenas;
        e->level_count = s->level + 1;
    }
    if (dynamics > e->dynamic_max) {
        trmi_buffer *grown = trm_realloc(e->dynamics, (size_t)dynamics, sizeof(*grown));

        if (grown == NULL)
            return no_memory();
        memset(grown + e->dynamic_max, 0, (size_t)(dynamics - e->dynamic_max) * sizeof(*grown));
        e->dynamics = grown;
        e->dynamic_max = dynamics;
    }
    if (slots > e->slot_max) {
        void **grown = trm_realloc(e->slot_pointers, (size_t)slots, sizeof(void *));

        if (grown == NULL)
            return no_memory();
        e->slot_pointers = grown;
        e->slot_max = slots;
    }
    TRM_CHECK(trmi_buffer_grow(e, &e->arenas[s->level], s->arena_bytes + TRM_ALIGN));
    return trmi_buffer_grow(e, &e->workspace, s->workspace_bytes + TRM_ALIGN);
}

static trm_status bind_nodes(struct binder *b)
{
    trmi_segment *s = b->s;
    enum verdict verdict = GO_ON;

    for (b->node = s->node_begin; b->node < b->e->graph->node_count && verdict == GO_ON;
         b->node++) {
        const trm_node *n = &b->e->graph->nodes[b->node];
        trm_status st = bind_node(b, &verdict);

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
    trm_status st = TRM_OK;

    if (b == NULL)
        return no_memory();
    TRM_TRY(st, trm_arena_create(0, &arena), fail);
    s = trm_arena_alloc(arena, 1, sizeof(*s));
    if (s == NULL) {
        trm_arena_destroy(arena);
        st = no_memory();
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
        st = no_memory();
        goto fail;
    }
    s->key_bytes = e->key_bytes;
    if (e->key_bytes > 0)
        memcpy(s->key, e->key, e->key_bytes);
    TRM_TRY(st, start_state(b, parent), fail);
    TRM_TRY(st, bind_nodes(b), fail);
    TRM_TRY(st, finish(b), fail);
    keep_alive(b);
    s->arena_bytes = trmi_plan_offsets(s->storages, s->storage_count);
    TRM_TRY(st, grow_engine(e, s), fail);
    s->next = parent->children;
    parent->children = s;
    TRM_LOG(TRM_LOG_DEBUG, "bind", "graph '%s': nodes %d to %d, %d steps, arena %zu, workspace %zu",
            e->graph->name, s->node_begin, s->node_end, s->step_count, s->arena_bytes,
            s->workspace_bytes);
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
    for (int i = 0; i < s->step_count; i++)
        trm_kernel_destroy(s->steps[i].kernel);
    if (e->ran == s)
        e->ran = NULL;
    trm_arena_destroy(s->arena);
}
