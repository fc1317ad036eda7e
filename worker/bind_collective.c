/* Binding collectives: over the devices or the hosts, and sums that a norm follows. */
#include "worker/bind_impl.h"

#include "kernels/device_group.h"

#include <string.h>

/* Over the devices' own links where there is a group of them, else staged through host memory. */
trm_status trmi_bind_prepare_collective(struct binder *b, const trm_node *n, trm_op_desc *desc,
                                        trmi_place *place_out, trm_kernel **kernel_out)
{
    trm_engine *e = b->e;
    bool local = n->op == TRM_OP_TrmShard;
    trm_layout layout;
    trm_status st;

    if (trmi_engine_splits(e) && e->device->ops->prepare_blocks != NULL &&
        (local || e->options.group != NULL)) {
        layout = b->in[0].layout;
        TRM_CHECK(trmi_collective_prepare(e, b->node, desc, kernel_out));
        st = trmi_collective_on_device(e, desc, *kernel_out, kernel_out);
        if (st == TRM_OK)
            return st;
        trm_kernel_destroy(*kernel_out);
        *kernel_out = NULL;
        if (st != TRM_ERR_UNSUPPORTED || desc->output_count > 1)
            return st;
        b->in[0].layout = layout;
    }
    if (trmi_engine_splits(e)) {
        *place_out = TRMI_HOST;
        trmi_bind_arrive_on_host(b, n);
    }
    return trmi_collective_prepare(e, b->node, desc, kernel_out);
}

/* ---- a sum, the residual and a norm ---- */

/* The devices do it all in one step. The same on every rank: it follows from the node and the rows,
 * and from what the group has agreed on. */
static bool is_one_step(const struct binder *b, const trm_node *n)
{
    const trm_engine *e = b->e;
    const trm_device_group *g = e->options.group;
    size_t count = 0;
    const int64_t *leaves = trm_attr_ints(&n->attrs, "counts", &count);
    int counts[TRM_DEVICE_GROUP_RANKS_MAX];

    if (!trmi_engine_splits(e) || e->device->ops->prepare_blocks == NULL || g == NULL ||
        g->ops->reduce_tree_norm_rows == NULL || leaves == NULL || count != (size_t)g->size ||
        count > TRM_DEVICE_GROUP_RANKS_MAX || b->out[1].dtype != TRM_DTYPE_F32 ||
        e->last_use[n->outputs[1]] < 0)
        return false;
    for (size_t r = 0; r < count; r++) {
        if (leaves[r] < 0 || leaves[r] > INT32_MAX)
            return false;
        counts[r] = (int)leaves[r];
    }
    return (size_t)b->in[1].dims[0] <=
           g->ops->reduce_tree_norm_rows(g, (size_t)b->in[1].dims[1],
                                         (int)trm_attr_int(&n->attrs, "leaves", 0), counts);
}

/* The sum alone, into a buffer that is lent to the norm. */
static trm_status bind_sum(struct binder *b, const trm_node *n, const trm_tensor *sum)
{
    trm_node part = *n;
    int nowhere = TRM_NO_VALUE;
    trmi_step *step;
    bool dynamic;

    part.outputs = &nowhere;
    part.input_count = part.output_count = 1;
    b->out[0] = *sum;
    TRM_CHECK(trmi_bind_kernel(b, &part, &dynamic));
    step = &b->s->steps[b->s->step_count - 1];
    TRM_CHECK(trmi_bind_buffer(b, step->place, sum, b->node, &step->out_slots[0]));
    b->lent.slot = step->out_slots[0];
    b->lent.place = step->place;
    return TRM_OK;
}

static trm_status bind_add_norm(struct binder *b, const trm_node *n)
{
    trm_node part = *n;
    int inputs[4] = {n->inputs[1], TRM_NO_VALUE};
    bool dynamic;
    trm_status st;

    for (int i = 2; i < n->input_count; i++)
        inputs[i] = n->inputs[i];
    part.op = TRM_OP_TrmAddNorm;
    part.inputs = inputs;
    b->lent.there = true;
    b->lent.input = 1;
    st = trmi_bind_kernel(b, &part, &dynamic);
    b->lent.there = false;
    return st;
}

trm_status trmi_bind_tree_norm(struct binder *b, const trm_node *n)
{
    trm_tensor in[4], out[2], sum = b->in[1];
    bool dynamic;

    if (is_one_step(b, n))
        return trmi_bind_kernel(b, n, &dynamic);
    sum.layout = TRM_LAYOUT_PLAIN;
    sum.data = NULL;
    memcpy(in, b->in, (size_t)n->input_count * sizeof(*in));
    memcpy(out, b->out, sizeof(out));
    TRM_CHECK(bind_sum(b, n, &sum));
    /* the parts make way for the residual, which makes way for the sum */
    b->in[0] = in[1];
    b->in[1] = sum;
    for (int i = 2; i < n->input_count; i++)
        b->in[i] = in[i];
    memcpy(b->out, out, sizeof(out));
    b->keys[0] = b->keys[1];
    b->keys[1] = 0;
    return bind_add_norm(b, n);
}
