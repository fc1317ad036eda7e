/* trm_shape_infer: one node, with the checks that every rule relies on. */
#include "model/shape/rule.h"

static trm_status check_counts(trmi_io io)
{
    const trm_op_info *op = trm_op_get(io->node->op);
    int operands = trmi_shape_operands(io);

    if (operands < op->in_min ||
        (op->in_max < operands && op->in_max != TRM_ARGS_ANY && (op->flags & TRM_OPF_CONTROL) == 0))
        return trmi_shape_bad(io, "%d inputs, want %d to %d", operands, op->in_min, op->in_max);
    for (int i = 0; i < op->in_min; i++)
        if (!trmi_shape_has(io, i) && (op->flags & TRM_OPF_CONTROL) == 0)
            return trmi_shape_bad(io, "input %d is missing", i);
    if (io->node->output_count < op->out_min ||
        (op->out_max < io->node->output_count && op->out_max != TRM_ARGS_ANY))
        return trmi_shape_bad(io, "%d outputs, want %d to %d", io->node->output_count, op->out_min,
                              op->out_max);
    for (int i = 0; i < io->node->input_count; i++)
        if (trmi_shape_has(io, i) && io->in[i].rank > TRM_RANK_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d has %d dims, at most %d",
                            op->name, io->node->name, i, io->in[i].rank, TRM_RANK_MAX);
    return TRM_OK;
}

static trm_status check_outputs(trmi_io io)
{
    for (int k = 0; k < io->node->output_count; k++)
        for (int i = 0; i < io->out[k].rank; i++)
            if (io->out[k].dims[i] > TRM_DIM_MAX)
                return trmi_shape_bad(io, "dim %d of output %d would be %lld, at most 2^40", i, k,
                                      (long long)io->out[k].dims[i]);
    return TRM_OK;
}

/* What a post-op adds or multiplies must broadcast to the output, which keeps its shape. */
static trm_status check_posts(trmi_io io)
{
    for (int p = 0; p < io->node->post_count; p++) {
        int i = io->node->posts[p].input;
        trm_tensor shape;

        if (i < 0 || io->node->output_count < 1 || io->out[0].rank < 0)
            continue;
        if (i >= io->node->input_count)
            return trmi_shape_bad(io, "post-op %d reads input %d", p, i);
        shape = io->out[0];
        TRM_CHECK(trmi_shape_broadcast(io, &shape, &io->in[i]));
        for (int d = 0; d < shape.rank; d++)
            if (shape.rank > io->out[0].rank ||
                trmi_shape_differ(shape.dims[d], io->out[0].dims[d]))
                return trmi_shape_bad(io,
                                      "the operand of post-op %d does not broadcast to the "
                                      "output",
                                      p);
    }
    return TRM_OK;
}

trm_status trm_shape_infer(const trm_shape_io *io)
{
    trm_shape_rule rule = trm_shape_rule_get(io->node->op);

    for (int k = 0; k < io->node->output_count; k++) {
        io->out[k] = (trm_tensor){.rank = -1};
        if (io->out_values_known != NULL)
            io->out_values_known[k] = false;
    }
    if (rule == NULL)
        return TRM_OK;
    TRM_CHECK(check_counts(io));
    TRM_CHECK(rule(io));
    TRM_CHECK(check_outputs(io));
    return check_posts(io);
}
