/* Runs single nodes on host tensors: for constant folding and for shape arithmetic while binding.
 */
#include "model/shape/shape.h"
#include "worker/engine.h"

#include <string.h>

#define ARGS_MAX 256

struct evaluator {
    trm_device *device;
    void **outputs; /* of the last call */
    int output_count, output_max;
    trm_tensor *sink_descs;
};

static void drop_outputs(struct evaluator *ev)
{
    for (int i = 0; i < ev->output_count; i++)
        trm_aligned_free(ev->outputs[i]);
    ev->output_count = 0;
}

static trm_status new_output(struct evaluator *ev, const trm_tensor *desc, void **data_out)
{
    size_t bytes;
    void *p;

    TRM_CHECK(trm_tensor_bytes(desc, &bytes));
    if (ev->output_count == ev->output_max) {
        int max = ev->output_max == 0 ? 8 : ev->output_max * 2;
        void **grown = trm_realloc(ev->outputs, (size_t)max, sizeof(void *));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "evaluator");
        ev->outputs = grown;
        ev->output_max = max;
    }
    p = trm_aligned_malloc(bytes);
    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "folded tensor of %zu bytes", bytes);
    ev->outputs[ev->output_count++] = p;
    *data_out = p;
    return TRM_OK;
}

static trm_status sink_alloc(void *ctx, int output, int rank, const int64_t *dims, void **data_out)
{
    struct evaluator *ev = ctx;
    trm_tensor *d = &ev->sink_descs[output];

    d->rank = rank;
    for (int i = 0; i < rank; i++)
        d->dims[i] = dims[i];
    TRM_CHECK(new_output(ev, d, data_out));
    d->data = *data_out;
    return TRM_OK;
}

static trm_status run_prepared(struct evaluator *ev, trm_kernel *k, const trm_op_desc *desc,
                               trm_tensor *outputs)
{
    const void *in[ARGS_MAX];
    void *out[ARGS_MAX];
    void *workspace = trm_aligned_malloc(k->workspace_bytes);
    trm_output_sink sink = {.alloc = sink_alloc, .ctx = ev};
    trm_status st = TRM_OK;

    if (workspace == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "workspace of %zu bytes", k->workspace_bytes);
    for (int i = 0; i < desc->input_count; i++) {
        in[i] = i < 32 && (k->packed_inputs >> i & 1u) != 0 ? NULL : desc->inputs[i].data;
        if (desc->inputs[i].dtype != TRM_DTYPE_NONE && desc->inputs[i].layout != TRM_LAYOUT_PLAIN)
            st = trm_fail(TRM_ERR_UNSUPPORTED, "%s: folding in a blocked layout", desc->name);
    }
    for (int i = 0; i < desc->output_count && st == TRM_OK; i++) {
        out[i] = NULL;
        outputs[i] = desc->outputs[i];
        if (desc->outputs[i].layout != TRM_LAYOUT_PLAIN)
            st = trm_fail(TRM_ERR_UNSUPPORTED, "%s: folding in a blocked layout", desc->name);
        else if (desc->outputs[i].dtype != TRM_DTYPE_NONE && k->ops->run_dynamic == NULL)
            st = new_output(ev, &desc->outputs[i], &out[i]);
        outputs[i].data = out[i];
    }
    if (st == TRM_OK && k->ops->run_dynamic != NULL) {
        ev->sink_descs = outputs;
        st = k->ops->run_dynamic(k, NULL, in, &sink, workspace);
    } else if (st == TRM_OK) {
        st = k->ops->run(k, NULL, in, out, workspace);
    }
    trm_aligned_free(workspace);
    return st;
}

static trm_status evaluate(void *ctx, const trm_node *node, const trm_tensor *inputs,
                           trm_tensor *outputs)
{
    struct evaluator *ev = ctx;
    trm_tensor in[ARGS_MAX], out[ARGS_MAX];
    uint64_t keys[ARGS_MAX] = {0};
    trm_op_desc desc = {.op = node->op,
                        .attrs = &node->attrs,
                        .name = node->name,
                        .input_count = node->input_count,
                        .output_count = node->output_count,
                        .inputs = in,
                        .outputs = out,
                        .weight_keys = keys,
                        .post_count = node->post_count};
    trm_shape_io io = {.node = node, .in = inputs, .out = out};
    trm_kernel *k = NULL;
    trm_status st;

    if (node->input_count > ARGS_MAX || node->output_count > ARGS_MAX ||
        (trm_op_get(node->op)->flags & TRM_OPF_CONTROL) != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s is not folded", node->name);
    drop_outputs(ev);
    memset(out, 0, sizeof(out));
    for (int i = 0; i < node->output_count; i++)
        out[i].rank = -1;
    if (node->input_count > 0)
        memcpy(in, inputs, (size_t)node->input_count * sizeof(trm_tensor));
    memcpy(desc.posts, node->posts, sizeof(desc.posts));
    TRM_CHECK(trm_shape_infer(&io));
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] == TRM_NO_VALUE)
            out[i].dtype = TRM_DTYPE_NONE;
    TRM_CHECK(ev->device->ops->prepare(ev->device, &desc, &k));
    st = run_prepared(ev, k, &desc, outputs);
    trm_kernel_destroy(k);
    return st;
}

trm_status trm_evaluator_create(trm_device *device, trm_evaluator *evaluator_out)
{
    struct evaluator *ev;

    if (!device->host_memory)
        return trm_fail(TRM_ERR_UNSUPPORTED, "folding needs a device with host memory");
    ev = trm_calloc(1, sizeof(*ev));
    if (ev == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "evaluator");
    ev->device = device;
    evaluator_out->run = evaluate;
    evaluator_out->ctx = ev;
    return TRM_OK;
}

void trm_evaluator_destroy(trm_evaluator *evaluator)
{
    struct evaluator *ev = evaluator->ctx;

    if (ev == NULL)
        return;
    drop_outputs(ev);
    trm_free(ev->outputs);
    trm_free(ev);
    evaluator->ctx = NULL;
}
