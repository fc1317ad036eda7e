/* ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul: checks, then the exact reference. */
#include "kernels/cpu/qlinear.h"

#include "kernels/cpu/scalar.h"
#include "kernels/reference/quantized.h"

static const trm_dtype bytes[] = {TRM_DTYPE_U8, TRM_DTYPE_I8, TRM_DTYPE_NONE};

/* `t` has one element or one of `counts`. */
static trm_status want_count(const trm_op_desc *desc, int input, size_t count)
{
    const trm_tensor *t;

    if (input >= desc->input_count || desc->inputs[input].dtype == TRM_DTYPE_NONE)
        return TRM_OK;
    t = &desc->inputs[input];
    if (trm_tensor_numel(t) == 1 || trm_tensor_numel(t) == count)
        return TRM_OK;
    return trm_fail(TRM_ERR_INVALID_ARG, "%s: input %d has %zu elements: want 1 or %zu",
                    trm_op_get(desc->op)->name, input, trm_tensor_numel(t), count);
}

trm_status trmi_cpu_conv_integer(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    bool linear = desc->op == TRM_OP_QLinearConv;
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[linear ? 3 : 1];
    const trm_tensor *y = &desc->outputs[0];
    int64_t group = trm_attr_int(desc->attrs, "group", 1);
    trmi_scalar_kernel *k = NULL;
    trm_window window;
    trm_status st;

    TRM_CHECK(trmi_want_dtype(desc, 0, bytes));
    TRM_CHECK(trmi_want_dtype(desc, linear ? 3 : 1, bytes));
    TRM_CHECK(trm_window_parse(desc->attrs, w->dims + 2, x, y, false, &window));
    if (w->rank != x->rank || group < 1 || w->dims[1] * group != x->dims[1] ||
        w->dims[0] % group != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: group %lld does not fit the weights",
                        trm_op_get(desc->op)->name, (long long)group);
    TRM_CHECK(want_count(desc, 2, 1));
    TRM_CHECK(want_count(desc, linear ? 5 : 3, (size_t)w->dims[0]));
    if (linear) {
        TRM_CHECK(want_count(desc, 1, 1));
        TRM_CHECK(want_count(desc, 4, (size_t)w->dims[0]));
        TRM_CHECK(want_count(desc, 6, 1));
        TRM_CHECK(want_count(desc, 7, 1));
        TRM_CHECK(want_count(desc, 8, (size_t)w->dims[0]));
        st = trmi_qlinear_conv_dnnl(cpu, desc, &window, group, kernel_out);
        if (st != TRM_ERR_UNSUPPORTED)
            return st;
    }
    TRM_CHECK(trmi_scalar_new(desc,
                              linear ? trm_qlinear_conv_reference : trm_conv_integer_reference,
                              trm_tensor_numel(y), trm_tensor_count(w, 1, w->rank), &k));
    k->ref.window = window;
    k->ref.group = group;
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_matmul_integer(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    bool linear = desc->op == TRM_OP_QLinearMatMul;
    int bi = linear ? 3 : 1;
    const trm_tensor *a = &desc->inputs[0], *b = &desc->inputs[bi];
    trmi_scalar_kernel *k = NULL;
    size_t rows, columns, all_rows, all_columns;

    (void)cpu;
    TRM_CHECK(trmi_want_dtype(desc, 0, bytes));
    TRM_CHECK(trmi_want_dtype(desc, bi, bytes));
    if (a->rank < 1 || b->rank < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s of ranks %d and %d: want 1 or more",
                        trm_op_get(desc->op)->name, a->rank, b->rank);
    rows = a->rank == 1 ? 1 : (size_t)a->dims[a->rank - 2];
    columns = b->rank == 1 ? 1 : (size_t)b->dims[b->rank - 1];
    all_rows = a->rank > 2 ? trm_tensor_count(a, 0, a->rank - 1) : rows;
    all_columns = b->rank > 2 ? trm_tensor_count(b, 0, b->rank - 2) * columns : columns;
    for (int i = linear ? 1 : 2; i < desc->input_count; i++) {
        bool left = linear ? i < 3 || i > 5 : i == 2;
        trm_status st = want_count(desc, i, left ? rows : columns);

        if (i == bi)
            continue;
        if (st != TRM_OK)
            TRM_CHECK(want_count(desc, i, left ? all_rows : all_columns));
    }
    TRM_CHECK(
        trmi_scalar_new(desc, linear ? trm_qlinear_matmul_reference : trm_matmul_integer_reference,
                        trm_tensor_numel(&desc->outputs[0]), (size_t)a->dims[a->rank - 1], &k));
    *kernel_out = &k->base;
    return TRM_OK;
}
