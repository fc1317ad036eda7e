/* If, Loop and Scan. Bodies are closed graphs (model/graph.h) with engines of their own, on a
 * device whose memory is the host's; their results are copied into the dynamic buffers of the node,
 * because the next iteration reuses the body's arena. */
#include "worker/engine_impl.h"

#include <string.h>

#define ARGS_MAX 256

/* Tensors that live over iterations. */
struct kept {
    trm_tensor desc;
    unsigned char *bytes;
    size_t used, max;
};

static trm_status kept_reserve(struct kept *k, size_t bytes)
{
    size_t max = bytes + bytes / 2 + TRM_ALIGN;
    unsigned char *grown;

    if (bytes <= k->max && k->bytes != NULL)
        return TRM_OK;
    grown = trm_aligned_malloc(max);
    if (grown == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes for a loop", max);
    if (k->used > 0)
        memcpy(grown, k->bytes, k->used);
    trm_aligned_free(k->bytes);
    k->bytes = grown;
    k->max = max;
    return TRM_OK;
}

static trm_status kept_set(struct kept *k, const trm_tensor *t)
{
    size_t bytes;

    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    k->used = 0;
    TRM_CHECK(kept_reserve(k, bytes));
    if (bytes > 0)
        memcpy(k->bytes, t->data, bytes);
    k->used = bytes;
    k->desc = *t;
    k->desc.data = k->bytes;
    return TRM_OK;
}

static void kept_free(struct kept *k, int count)
{
    for (int i = 0; i < count; i++)
        trm_aligned_free(k[i].bytes);
}

static void swap_sets(struct kept *a, struct kept *b, int count)
{
    for (int i = 0; i < count; i++) {
        struct kept k = a[i];

        a[i] = b[i];
        b[i] = k;
    }
}

static trmi_place place_of(const trm_engine *e)
{
    return trmi_engine_splits(e) ? TRMI_HOST : TRMI_DEVICE;
}

static trm_status give(trm_engine *e, int dynamic, const trm_tensor *t)
{
    void *to;
    size_t bytes;

    if (dynamic < 0)
        return TRM_OK;
    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    TRM_CHECK(trmi_dynamic_alloc(e, dynamic, place_of(e), t->dtype, t->rank, t->dims, &to));
    if (bytes > 0)
        memcpy(to, t->data, bytes);
    return TRM_OK;
}

static trm_status body_of(trm_engine *e, const trm_node *node, const char *name, int want_inputs,
                          trm_engine **body_out)
{
    const trm_attr *a = trm_attr_find(&node->attrs, name);

    if (a == NULL || a->kind != TRM_ATTR_GRAPH)
        return trm_fail(TRM_ERR_BAD_FILE, "attribute '%s' is missing or no graph", name);
    if (a->v.graph->input_count != want_inputs)
        return trm_fail(TRM_ERR_BAD_FILE, "body '%s' takes %d inputs, the node gives %d",
                        a->v.graph->name, a->v.graph->input_count, want_inputs);
    if (a->v.graph->output_count > ARGS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "body '%s' has %d outputs: at most %d",
                        a->v.graph->name, a->v.graph->output_count, ARGS_MAX);
    return trmi_body_engine(e, a->v.graph, body_out);
}

static trm_status condition_of(const trm_tensor *t, const char *what, unsigned char *out)
{
    if (t->dtype != TRM_DTYPE_BOOL || trm_tensor_numel(t) != 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s wants one bool", what);
    *out = *(const unsigned char *)t->data != 0;
    return TRM_OK;
}

static trm_status run_if(trm_engine *e, const trm_node *node, const trm_tensor *in,
                         const int *out_dynamic)
{
    trm_tensor results[ARGS_MAX];
    trm_engine *body;
    unsigned char taken = 0;

    TRM_CHECK(condition_of(&in[0], "the condition of If", &taken));
    TRM_CHECK(
        body_of(e, node, taken ? "then_branch" : "else_branch", node->input_count - 1, &body));
    if (body->graph->output_count < node->output_count)
        return trm_fail(TRM_ERR_BAD_FILE, "branch '%s' has %d outputs, the node wants %d",
                        body->graph->name, body->graph->output_count, node->output_count);
    TRM_CHECK(trmi_engine_execute(body, in + 1, results, NULL));
    for (int i = 0; i < node->output_count; i++)
        TRM_CHECK(give(e, out_dynamic[i], &results[i]));
    return TRM_OK;
}

static trm_status append(struct kept *stack, const trm_tensor *t, int64_t iteration)
{
    size_t bytes;

    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    if (iteration == 0)
        stack->desc = *t;
    else if (!trm_tensor_same_shape(&stack->desc, t))
        return trm_fail(TRM_ERR_INVALID_ARG, "a scan output changes its shape between iterations");
    TRM_CHECK(kept_reserve(stack, stack->used + bytes));
    if (bytes > 0)
        memcpy(stack->bytes + stack->used, t->data, bytes);
    stack->used += bytes;
    return TRM_OK;
}

/* Hands over [count, ...] stacked results with the new dim at `axis` (reversed in time if asked).
 */
static trm_status give_stacked(trm_engine *e, int dynamic, const struct kept *stack,
                               const trm_tensor *declared, int64_t count, int64_t axis,
                               bool reversed)
{
    const trm_tensor *one = count > 0 ? &stack->desc : declared;
    int64_t dims[TRM_RANK_MAX] = {0};
    int rank = (one->rank < 0 ? 0 : one->rank) + 1;
    size_t outer = 1, inner;
    unsigned char *to;
    void *memory;

    if (dynamic < 0)
        return TRM_OK;
    if (axis < 0)
        axis += rank;
    if (rank > TRM_RANK_MAX || axis < 0 || axis >= rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "scan output axis %lld of rank %d", (long long)axis,
                        rank);
    for (int i = 0, k = 0; i < rank; i++)
        dims[i] = i == axis ? count : one->dims[k++] < 0 ? 0 : one->dims[k - 1];
    TRM_CHECK(trmi_dynamic_alloc(e, dynamic, place_of(e), one->dtype, rank, dims, &memory));
    if (count == 0)
        return TRM_OK;
    to = memory;
    for (int64_t i = 0; i < axis; i++)
        outer *= (size_t)dims[i];
    inner = outer == 0 ? 0 : stack->used / (size_t)count / outer;
    for (int64_t t = 0; t < count && inner > 0; t++) {
        int64_t at = reversed ? count - 1 - t : t;

        for (size_t o = 0; o < outer; o++)
            memcpy(to + (o * (size_t)count + (size_t)at) * inner,
                   stack->bytes + ((size_t)t * outer + o) * inner, inner);
    }
    return TRM_OK;
}

static trm_status run_loop(trm_engine *e, const trm_node *node, const trm_tensor *in,
                           const int *out_dynamic)
{
    int captures = (int)trm_attr_int(&node->attrs, "captures", 0);
    int carried = node->input_count - 2 - captures;
    struct kept now[ARGS_MAX], next[ARGS_MAX], stacks[ARGS_MAX];
    trm_tensor args[ARGS_MAX], results[ARGS_MAX];
    int64_t iteration = 0, trips = INT64_MAX;
    unsigned char go_on = 1;
    trm_engine *body;
    trm_status st = TRM_OK;
    int scans;

    if (carried < 0)
        return trm_fail(TRM_ERR_BAD_FILE, "Loop with %d inputs and %d captures", node->input_count,
                        captures);
    TRM_CHECK(body_of(e, node, "body", node->input_count, &body));
    scans = body->graph->output_count - 1 - carried;
    if (scans < 0 || carried + scans < node->output_count)
        return trm_fail(
            TRM_ERR_BAD_FILE,
            "body '%s' has %d outputs: want the condition, %d carried values and the scans",
            body->graph->name, body->graph->output_count, carried);
    memset(now, 0, sizeof(now));
    memset(next, 0, sizeof(next));
    memset(stacks, 0, sizeof(stacks));
    if (in[0].dtype != TRM_DTYPE_NONE) {
        if (trm_tensor_numel(&in[0]) != 1)
            return trm_fail(TRM_ERR_INVALID_ARG, "the trip count of Loop wants one number");
        trips = trm_tensor_get_i64(&in[0], 0);
    }
    if (in[1].dtype != TRM_DTYPE_NONE)
        TRM_CHECK(condition_of(&in[1], "the condition of Loop", &go_on));
    for (int i = 0; i < carried; i++)
        TRM_TRY(st, kept_set(&now[i], &in[2 + i]), done);
    for (int i = 0; i < captures; i++)
        args[2 + carried + i] = in[2 + carried + i];
    for (; iteration < trips && go_on; iteration++) {
        args[0] = (trm_tensor){.dtype = TRM_DTYPE_I64, .data = &iteration};
        args[1] = (trm_tensor){.dtype = TRM_DTYPE_BOOL, .data = &go_on};
        for (int i = 0; i < carried; i++)
            args[2 + i] = now[i].desc;
        TRM_TRY(st, trmi_engine_execute(body, args, results, NULL), done);
        for (int i = 0; i < carried;
             i++) /* two sets: a body may hand its inputs back in another order */
            TRM_TRY(st, kept_set(&next[i], &results[1 + i]), done);
        for (int i = 0; i < scans; i++)
            TRM_TRY(st, append(&stacks[i], &results[1 + carried + i], iteration), done);
        TRM_TRY(st, condition_of(&results[0], "the condition from a Loop's body", &go_on), done);
        swap_sets(now, next, carried);
    }
    for (int i = 0; i < carried && i < node->output_count; i++)
        TRM_TRY(st, give(e, out_dynamic[i], &now[i].desc), done);
    for (int i = 0; i < scans && carried + i < node->output_count; i++)
        TRM_TRY(st,
                give_stacked(e, out_dynamic[carried + i], &stacks[i],
                             &body->graph->values[body->graph->outputs[1 + carried + i]].desc,
                             iteration, 0, false),
                done);
done:
    kept_free(now, carried);
    kept_free(next, carried);
    kept_free(stacks, scans);
    return st;
}

/* Copies slice t of `in` along `axis` into `slice`. */
static trm_status take_slice(const trm_tensor *in, int axis, int64_t t, struct kept *slice)
{
    size_t outer = trm_tensor_count(in, 0, axis);
    size_t inner = trm_tensor_count(in, axis + 1, in->rank) * trm_dtype_bytes(in->dtype);
    size_t length = (size_t)in->dims[axis];

    slice->used = 0;
    TRM_CHECK(kept_reserve(slice, outer * inner));
    for (size_t o = 0; o < outer && inner > 0; o++)
        memcpy(slice->bytes + o * inner,
               (const unsigned char *)in->data + (o * length + (size_t)t) * inner, inner);
    slice->used = outer * inner;
    slice->desc = *in;
    slice->desc.rank = in->rank - 1;
    for (int i = axis; i + 1 < in->rank; i++)
        slice->desc.dims[i] = in->dims[i + 1];
    slice->desc.data = slice->bytes;
    return TRM_OK;
}

static int64_t nth(const trm_node *node, const char *name, int i)
{
    size_t count;
    const int64_t *v = trm_attr_ints(&node->attrs, name, &count);

    return v != NULL && (size_t)i < count ? v[i] : 0;
}

static trm_status run_scan(trm_engine *e, const trm_node *node, const trm_tensor *in,
                           const int *out_dynamic)
{
    int captures = (int)trm_attr_int(&node->attrs, "captures", 0);
    int scan_inputs = (int)trm_attr_int(&node->attrs, "num_scan_inputs", 0);
    int states = node->input_count - captures - scan_inputs;
    struct kept now[ARGS_MAX], next[ARGS_MAX], stacks[ARGS_MAX], slices[ARGS_MAX];
    trm_tensor args[ARGS_MAX], results[ARGS_MAX];
    int axes[ARGS_MAX];
    int64_t length = -1;
    trm_engine *body;
    trm_status st = TRM_OK;
    int scans;

    if (scan_inputs < 1 || states < 0)
        return trm_fail(TRM_ERR_BAD_FILE, "Scan with %d inputs, %d of them scanned",
                        node->input_count, scan_inputs);
    TRM_CHECK(body_of(e, node, "body", node->input_count, &body));
    scans = body->graph->output_count - states;
    if (scans < 0 || body->graph->output_count < node->output_count)
        return trm_fail(TRM_ERR_BAD_FILE, "body '%s' has %d outputs", body->graph->name,
                        body->graph->output_count);
    for (int i = 0; i < scan_inputs; i++) {
        const trm_tensor *t = &in[states + i];
        int64_t axis = nth(node, "scan_input_axes", i);

        axes[i] = (int)(axis < 0 ? axis + t->rank : axis);
        if (axes[i] < 0 || axes[i] >= t->rank)
            return trm_fail(TRM_ERR_INVALID_ARG, "scan input axis %lld of rank %d", (long long)axis,
                            t->rank);
        if (length >= 0 && t->dims[axes[i]] != length)
            return trm_fail(TRM_ERR_INVALID_ARG, "scan inputs of %lld and %lld steps",
                            (long long)length, (long long)t->dims[axes[i]]);
        length = t->dims[axes[i]];
    }
    memset(now, 0, sizeof(now));
    memset(next, 0, sizeof(next));
    memset(stacks, 0, sizeof(stacks));
    memset(slices, 0, sizeof(slices));
    for (int i = 0; i < states; i++)
        TRM_TRY(st, kept_set(&now[i], &in[i]), done);
    for (int i = 0; i < captures; i++)
        args[states + scan_inputs + i] = in[states + scan_inputs + i];
    for (int64_t t = 0; t < length; t++) {
        for (int i = 0; i < states; i++)
            args[i] = now[i].desc;
        for (int i = 0; i < scan_inputs; i++) {
            bool back = nth(node, "scan_input_directions", i) != 0;

            TRM_TRY(st, take_slice(&in[states + i], axes[i], back ? length - 1 - t : t, &slices[i]),
                    done);
            args[states + i] = slices[i].desc;
        }
        TRM_TRY(st, trmi_engine_execute(body, args, results, NULL), done);
        for (int i = 0; i < states; i++)
            TRM_TRY(st, kept_set(&next[i], &results[i]), done);
        for (int i = 0; i < scans; i++)
            TRM_TRY(st, append(&stacks[i], &results[states + i], t), done);
        swap_sets(now, next, states);
    }
    for (int i = 0; i < states && i < node->output_count; i++)
        TRM_TRY(st, give(e, out_dynamic[i], &now[i].desc), done);
    for (int i = 0; i < scans && states + i < node->output_count; i++)
        TRM_TRY(st,
                give_stacked(e, out_dynamic[states + i], &stacks[i],
                             &body->graph->values[body->graph->outputs[states + i]].desc, length,
                             nth(node, "scan_output_axes", i),
                             nth(node, "scan_output_directions", i) != 0),
                done);
done:
    kept_free(now, states);
    kept_free(next, states);
    kept_free(stacks, scans);
    kept_free(slices, scan_inputs);
    return st;
}

trm_status trmi_control_run(trm_engine *e, const trm_node *node, const trm_tensor *in,
                            const int *out_dynamic)
{
    if (node->input_count > ARGS_MAX - 4)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%d inputs: at most %d", node->input_count,
                        ARGS_MAX - 4);
    switch (node->op) {
    case TRM_OP_If:
        return run_if(e, node, in, out_dynamic);
    case TRM_OP_Loop:
        return run_loop(e, node, in, out_dynamic);
    case TRM_OP_Scan:
        return run_scan(e, node, in, out_dynamic);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "operator %s is no control flow",
                        trm_op_get(node->op)->name);
    }
}
