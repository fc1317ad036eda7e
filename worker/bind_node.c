/* Binding one node: its value now if everything is known, else prepared kernels with their buffers.
 */
#include "worker/bind_impl.h"

#include "base/log.h"
#include "model/shape/shape.h"

#include <string.h>

#define HOST_VALUE_ELEMS_MAX                                                                       \
    65536 /* larger results are computed in the step, not while binding                            \
           */

static bool all_inputs_known(const trm_node *n, const trm_tensor *in)
{
    for (int i = 0; i < n->input_count; i++)
        if (in[i].dtype != TRM_DTYPE_NONE && in[i].data == NULL)
            return false;
    return true;
}

/* Computes small results now, if everything they depend on is known. */
static trm_status bind_on_host(struct binder *b, const trm_node *n, bool *done_out)
{
    trm_tensor results[TRMI_ARGS_MAX];
    trm_op_info const *info = trm_op_get(n->op);
    bool from_dims = n->op == TRM_OP_Shape || n->op == TRM_OP_Size;
    trm_status st;

    *done_out = false;
    if (b->e->evaluator.run == NULL ||
        (info->flags & (TRM_OPF_CONTROL | TRM_OPF_FOLD_OFF | TRM_OPF_COLLECTIVE)) != 0)
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
    st = b->e->evaluator.run(b->e->evaluator.ctx, n, b->in, results);
    if (st == TRM_ERR_NO_MEMORY)
        return st; /* not a property of the node: must not settle what the program looks like */
    if (st != TRM_OK)
        return TRM_OK; /* then it is a step, and complains there if it must */
    for (int i = 0; i < n->output_count; i++)
        if (n->outputs[i] != TRM_NO_VALUE && results[i].dtype != TRM_DTYPE_NONE)
            TRM_CHECK(trmi_bind_host_value(b, n->outputs[i], &results[i]));
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
    list = trmi_bind_grow(s, s->fetch, s->fetch_count, &s->fetch_max, sizeof(int));
    if (list == NULL)
        return trmi_bind_no_memory();
    s->fetch = list;
    list[s->fetch_count++] = value;
    return TRM_OK;
}

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

    st->place = trmi_bind_place(b, n->inputs[0]);
    TRM_CHECK(trmi_bind_layout(b, n->inputs[0], TRM_LAYOUT_PLAIN, st->place, &from));
    st->desc = b->out[0];
    storage = trmi_bind_storage(s, from);
    if (storage == NULL) {
        const trmi_slot *slot = from < s->slot_begin ? NULL : &s->slots[from - s->slot_begin];

        if (slot != NULL && slot->source != TRMI_SOURCE_DYNAMIC)
            return trmi_bind_slot(s, slot->source, slot->index, slot->fixed, &st->slot);
        return trmi_bind_slot(s, TRMI_SOURCE_SLOT, from, NULL, &st->slot);
    }
    if (trmi_bind_last_use(b, value) > storage->death)
        storage->death = trmi_bind_last_use(b, value);
    return trmi_bind_same(s, from, &st->slot);
}

/* True if a kernel that writes over input i would spoil another of its inputs: the same memory,
 * read in ways that the kernel does not allow to be overwritten. */
static bool spoils_another(const struct binder *b, const trm_node *n, const trm_kernel *k,
                           const trmi_step *step, int i, const trmi_storage *storage)
{
    for (int j = 0; j < n->input_count; j++)
        if (j != i && step->in_slots[j] >= 0 && (j >= 32 || (k->in_place >> j & 1u) == 0) &&
            trmi_bind_storage(b->s, step->in_slots[j]) == storage)
            return true;
    return false;
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
        storage = trmi_bind_storage(b->s, step->in_slots[i]);
        if (storage == NULL || storage->death != b->node ||
            spoils_another(b, n, k, step, i, storage))
            continue;
        storage->death = trmi_bind_last_use(b, n->outputs[0]);
        *st_out = trmi_bind_same(b->s, step->in_slots[i], slot_out);
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
        return trmi_bind_no_memory();
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
        s->state[n->outputs[i]].place = step->place;
        TRM_CHECK(trmi_bind_slot(s, TRMI_SOURCE_DYNAMIC, step->out_dynamic[i], NULL,
                                 &s->state[n->outputs[i]].slot));
    }
    return TRM_OK;
}

static trm_status bind_control(struct binder *b, const trm_node *n)
{
    trmi_place place = trmi_engine_splits(b->e) ? TRMI_HOST : TRMI_DEVICE;
    int in_slots[TRMI_ARGS_MAX];
    trmi_step *step;

    for (int i = 0; i < n->input_count; i++) {
        in_slots[i] = TRMI_NO_SLOT;
        if (n->inputs[i] != TRM_NO_VALUE)
            TRM_CHECK(trmi_bind_layout(b, n->inputs[i], TRM_LAYOUT_PLAIN, place, &in_slots[i]));
    }
    step = trmi_bind_step(b, b->node, n->input_count, n->output_count);
    if (step == NULL)
        return trmi_bind_no_memory();
    step->place = place;
    step->in_descs = trm_arena_alloc(b->s->arena, (size_t)n->input_count + 1, sizeof(trm_tensor));
    if (step->in_descs == NULL)
        return trmi_bind_no_memory();
    for (int i = 0; i < n->input_count; i++) {
        step->in_slots[i] = in_slots[i];
        step->in_descs[i] = b->in[i];
        step->in_descs[i].layout = TRM_LAYOUT_PLAIN;
    }
    return dynamic_outputs(b, n, step);
}

/* Lazy constants that the kernel will go on reading must stay. */
static trm_status keep_constants(struct binder *b, const trm_node *n, const trm_kernel *k)
{
    trm_graph *g = b->e->graph;
    trm_tensor t;

    for (int i = 0; i < n->input_count; i++)
        if (n->inputs[i] != TRM_NO_VALUE && g->values[n->inputs[i]].lazy != NULL &&
            (i >= 32 || (k->copied_inputs >> i & 1u) == 0))
            TRM_CHECK(trm_graph_constant(g, n->inputs[i], &t));
    return TRM_OK;
}

#define HOST_BYTES_MAX 65536 /* copies there and back, 10 us each, cost more than the work */

/* Small things that lie on the host already stay there. Not dense operators, which are worth the
 * way to the device; and what language models compute must not depend on where a sum over ranks has
 * left it. */
static bool stays_on_host(const struct binder *b, const trm_node *n)
{
    bool any = false;
    size_t all = 0, bytes;

    if (!trmi_engine_splits(b->e) || (trm_op_get(n->op)->flags & TRM_OPF_DENSE) != 0)
        return false;
    for (int i = 0; i < n->input_count; i++) {
        if (n->inputs[i] == TRM_NO_VALUE || b->in[i].data != NULL)
            continue;
        if (trmi_bind_place(b, n->inputs[i]) != TRMI_HOST ||
            trm_tensor_bytes(&b->in[i], &bytes) != TRM_OK)
            return false;
        any = true;
        all += bytes;
    }
    return any && all <= HOST_BYTES_MAX;
}

void trmi_bind_arrive_on_host(struct binder *b, const trm_node *n)
{
    for (int i = 0; i < n->input_count; i++)
        if (n->inputs[i] != TRM_NO_VALUE && trmi_bind_place(b, n->inputs[i]) != TRMI_HOST)
            b->in[i].layout = TRM_LAYOUT_PLAIN;
}

/* A kernel, and where it runs: on the device if it has one. */
static trm_status prepare(struct binder *b, const trm_node *n, trm_op_desc *desc,
                          trmi_place *place_out, trm_kernel **kernel_out)
{
    trm_engine *e = b->e;
    trm_device *host = trm_device_host(e->device);
    trm_tensor in[TRMI_ARGS_MAX], out[TRMI_ARGS_MAX];
    trm_status st;

    *place_out = TRMI_DEVICE;
    if ((trm_op_get(n->op)->flags & TRM_OPF_COLLECTIVE) != 0) {
        return trmi_bind_prepare_collective(b, n, desc, place_out, kernel_out);
    }
    if (!trmi_engine_splits(e))
        return e->device->ops->prepare(e->device, desc, kernel_out);
    if (!stays_on_host(b, n)) {
        memcpy(in, b->in, (size_t)n->input_count * sizeof(*in));
        memcpy(out, b->out, (size_t)n->output_count * sizeof(*out));
        st = e->device->ops->prepare(e->device, desc, kernel_out);
        /* the step in the device's memory is not in the host's form */
        if (st != TRM_ERR_UNSUPPORTED || (trm_op_get(n->op)->flags & TRM_OPF_STEP) != 0)
            return st;
        TRM_LOG(TRM_LOG_DEBUG, "bind", "'%s' (%s) runs on the host: %s", n->name,
                trm_op_get(n->op)->name, trm_message());
        memcpy(b->in, in, (size_t)n->input_count * sizeof(*in));
        memcpy(b->out, out, (size_t)n->output_count * sizeof(*out));
    }
    *place_out = TRMI_HOST;
    trmi_bind_arrive_on_host(b, n);
    return host->ops->prepare(host, desc, kernel_out);
}

/* The slot of input i that was lent, in `place`. */
static trm_status take_lent(struct binder *b, int i, trmi_place place, int *slot_out)
{
    if (b->lent.place != place)
        return trmi_bind_copy(b, &b->in[i], b->node, place, b->lent.slot, slot_out);
    *slot_out = b->lent.slot;
    return TRM_OK;
}

trm_status trmi_bind_kernel(struct binder *b, const trm_node *n, bool *dynamic_out)
{
    trmi_segment *s = b->s;
    trm_op_desc desc = {.op = n->op,
                        .attrs = &n->attrs,
                        .name = n->name,
                        .input_count = n->input_count,
                        .output_count = n->output_count,
                        .inputs = b->in,
                        .outputs = b->out,
                        .weight_keys = b->keys,
                        .post_count = n->post_count};
    int in_slots[TRMI_ARGS_MAX];
    trmi_place place = TRMI_DEVICE;
    trm_kernel *k = NULL;
    trmi_step *step;
    trm_status st = TRM_OK;

    memcpy(desc.posts, n->posts, sizeof(desc.posts));
    for (int i = 0; i < n->output_count; i++)
        if (!is_wanted(b, n->outputs[i]) && (i > 0 || n->output_count > 1))
            b->out[i].dtype = TRM_DTYPE_NONE;
    TRM_CHECK(prepare(b, n, &desc, &place, &k));
    *dynamic_out =
        k->ops->run_dynamic != NULL && (trm_op_get(n->op)->flags & TRM_OPF_DATA_SHAPE) != 0;
    if (place == TRMI_HOST || !trmi_engine_splits(b->e))
        st = keep_constants(b, n, k);
    for (int i = 0; i < n->input_count && st == TRM_OK; i++) {
        in_slots[i] = TRMI_NO_SLOT;
        if (b->lent.there && b->lent.input == i) {
            st = take_lent(b, i, place, &in_slots[i]);
            continue;
        }
        if (n->inputs[i] == TRM_NO_VALUE || (i < 32 && (k->packed_inputs >> i & 1u) != 0))
            continue;
        st = trmi_bind_layout(b, n->inputs[i], b->in[i].layout, place, &in_slots[i]);
    }
    if (st != TRM_OK) {
        trm_kernel_destroy(k);
        return st;
    }
    step = trmi_bind_step(b, b->node, n->input_count, n->output_count);
    if (step == NULL) {
        trm_kernel_destroy(k);
        return trmi_bind_no_memory();
    }
    step->kernel = k;
    step->place = place;
    step->collective =
        (trm_op_get(n->op)->flags & TRM_OPF_COLLECTIVE) != 0 && n->op != TRM_OP_TrmShard;
    if (k->workspace_bytes > s->workspace_bytes[place])
        s->workspace_bytes[place] = k->workspace_bytes;
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
        s->state[v].place = place;
        st = TRM_OK;
        if (i > 0 || !reuse_input(b, n, k, step, &s->state[v].slot, &st))
            st =
                trmi_bind_buffer(b, place, &b->out[i], trmi_bind_last_use(b, v), &s->state[v].slot);
        TRM_CHECK(st);
        step->out_slots[i] = s->state[v].slot;
    }
    return TRM_OK;
}

/* Lazy constants are made for the time a node is bound. */
static trm_status borrow_constants(struct binder *b, const trm_node *n, int *borrowed_out)
{
    trm_graph *g = b->e->graph;
    trm_tensor t;

    for (int i = 0; i < n->input_count; i++) {
        int v = n->inputs[i];

        if (v != TRM_NO_VALUE && g->values[v].lazy != NULL)
            TRM_CHECK(trm_graph_constant_borrow(g, v, &t));
        *borrowed_out = i + 1;
    }
    return TRM_OK;
}

static void return_constants(struct binder *b, const trm_node *n, int borrowed)
{
    trm_graph *g = b->e->graph;

    for (int i = 0; i < borrowed; i++)
        if (n->inputs[i] != TRM_NO_VALUE && g->values[n->inputs[i]].lazy != NULL)
            trm_graph_constant_return(g, n->inputs[i]);
}

/* Unique in the process; with a weight space also the same in all processes that share it. */
static uint64_t weight_key(const trm_engine *e, int value)
{
    uint64_t h = e->options.weight_space ^ ((uint64_t)value + 1) * 0x9e3779b97f4a7c15u;

    if (e->options.weight_space == 0)
        return (e->id << 32 | (uint64_t)(value + 1)) & ~TRM_WEIGHT_SHARED_KEY;
    h = (h ^ h >> 31) * 0xbf58476d1ce4e5b9u; /* a finaliser of SplitMix64 */
    h ^= h >> 29;
    return h | TRM_WEIGHT_SHARED_KEY;
}

static trm_status bind_node(struct binder *b, const trm_node *n, enum verdict *verdict_out);

trm_status trmi_bind_node(struct binder *b, enum verdict *verdict_out)
{
    const trm_node *n = &b->e->graph->nodes[b->node];
    int borrowed = 0;
    trm_status st;

    *verdict_out = GO_ON;
    if (n->input_count > TRMI_ARGS_MAX || n->output_count > TRMI_ARGS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%d inputs, %d outputs: at most %d", n->input_count,
                        n->output_count, TRMI_ARGS_MAX);
    st = borrow_constants(b, n, &borrowed);
    if (st == TRM_OK)
        st = bind_node(b, n, verdict_out);
    return_constants(b, n, borrowed);
    return st;
}

static trm_status bind_node(struct binder *b, const trm_node *n, enum verdict *verdict_out)
{
    const trm_op_info *info = trm_op_get(n->op);
    trm_shape_io io = {.node = n, .in = b->in, .out = b->out};
    bool done, dynamic;

    for (int i = 0; i < n->input_count; i++) {
        int v = n->inputs[i];

        b->in[i] = v == TRM_NO_VALUE ? (trm_tensor){.dtype = TRM_DTYPE_NONE, .rank = -1}
                                     : b->s->state[v].desc;
        b->keys[i] = trm_graph_is_constant(b->e->graph, v) ? weight_key(b->e, v) : 0;
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
    if ((info->flags & TRM_OPF_VIEW) != 0 && n->outputs[0] != TRM_NO_VALUE &&
        b->out[0].dtype == b->in[0].dtype && (n->output_count == 1 || !is_wanted(b, n->outputs[1])))
        return bind_view(b, n);
    if (n->op == TRM_OP_TrmReduceTree && n->input_count > 1)
        return trmi_bind_tree_norm(b, n);
    TRM_CHECK(trmi_bind_kernel(b, n, &dynamic));
    if (dynamic)
        *verdict_out = END_AFTER;
    return TRM_OK;
}
