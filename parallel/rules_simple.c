/* Operators that work on each element by itself. */
#include "parallel/rules_impl.h"

/* Every dim of output 0; inputs by broadcasting. */
void trmi_rules_elementwise(trmi_rules *r)
{
    const trm_tensor *y = trmi_rules_out(r, 0);

    for (int d = 0; y != NULL && d < y->rank; d++) {
        trm_axis *a = trmi_rules_axis(r, "elements", y->dims[d], TRMI_WEIGHT_NONE);

        for (int i = 0; i < r->n->input_count; i++)
            trmi_broadcast_in(r, a, i, y->rank, d, 1);
        trmi_carry_out(r, a, 0, d);
    }
}

void trmi_rules_add(trmi_rules *r)
{
    trmi_rules_elementwise(r);
    if (r->n->input_count <= 32)
        trmi_linear(r, r->n->input_count == 32 ? UINT32_MAX : (1u << r->n->input_count) - 1);
}

void trmi_rules_mul(trmi_rules *r)
{
    trmi_rules_elementwise(r);
    if (r->n->inputs[0] == r->n->inputs[1])
        return;
    trmi_linear(r, 1);
    trmi_linear(r, 2);
}

void trmi_rules_div(trmi_rules *r)
{
    const trm_tensor *y = trmi_rules_out(r, 0);

    trmi_rules_elementwise(r);
    if (y != NULL && trm_dtype_is_float(y->dtype))
        trmi_linear(r, 1);
}

void trmi_rules_linear_unary(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *y = trmi_rules_out(r, 0);

    trmi_rules_elementwise(r);
    if (x != NULL && y != NULL &&
        (r->n->op != TRM_OP_Cast || (trm_dtype_is_float(x->dtype) && trm_dtype_is_float(y->dtype))))
        trmi_linear(r, 1);
}

/* In inference it copies; the mask is all ones. Ratio and mode are scalars. */
void trmi_rules_dropout(trmi_rules *r)
{
    const trm_tensor *y = trmi_rules_out(r, 0);

    if (trmi_rules_has(r, 2))
        return; /* training mode draws random numbers */
    for (int d = 0; y != NULL && d < y->rank; d++) {
        trm_axis *a = trmi_rules_axis(r, "elements", y->dims[d], TRMI_WEIGHT_NONE);

        trmi_carry_in(r, a, 0, d);
        trmi_carry_out(r, a, 0, d);
        trmi_carry_out(r, a, 1, d);
    }
}

/* Scales and zero points: one, or one a slice of `axis`. */
void trmi_rules_quantize(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *scale = trmi_rules_in(r, 1);
    int axis;

    if (x == NULL || scale == NULL || scale->rank > 1 ||
        trm_attr_int(&r->n->attrs, "block_size", 0) != 0)
        return;
    axis = trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", 1), x->rank);
    if (axis < 0 && scale->rank == 1 && scale->dims[0] != 1)
        return;
    for (int d = 0; d < x->rank; d++) {
        trm_axis *a = trmi_rules_axis(r, "elements", x->dims[d], TRMI_WEIGHT_NONE);

        trmi_carry_in(r, a, 0, d);
        trmi_carry_out(r, a, 0, d);
        for (int i = 1; i < 3 && d == axis && scale->rank == 1 && scale->dims[0] != 1; i++)
            if (trmi_rules_has(r, i))
                trmi_carry_in(r, a, i, 0);
    }
}
