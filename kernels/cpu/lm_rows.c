/* Dispatch of the row functions of language models, and what their prepare functions share. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

#include <string.h>

const trmi_lm_rows *trmi_lm_rows_get(void)
{
    trm_isa isa = trmi_cpu_isa();

    return isa >= TRM_ISA_AVX512 ? &trmi_lm_rows_avx512
           : isa >= TRM_ISA_AVX2 ? &trmi_lm_rows_avx2
                                 : &trmi_lm_rows_base;
}

trmi_lm_act trmi_lm_act_from_name(const char *name)
{
    static const char *const names[TRMI_LM_ACT_COUNT] = {
        [TRMI_LM_NONE] = "none",           [TRMI_LM_SILU] = "silu", [TRMI_LM_GELU] = "gelu",
        [TRMI_LM_GELU_TANH] = "gelu_tanh", [TRMI_LM_RELU] = "relu", [TRMI_LM_TANH] = "tanh",
        [TRMI_LM_SOFTCAP] = "softcap"};
    int i = 0;

    while (i < TRMI_LM_ACT_COUNT && strcmp(name, names[i]) != 0)
        i++;
    return (trmi_lm_act)i;
}

trm_status trmi_lm_want(const trm_op_desc *desc, int i, trm_dtype dtype, int rank)
{
    char text[TRM_SHAPE_TEXT_BYTES];

    if (!trmi_has_input(desc, i))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d is missing",
                        trm_op_get(desc->op)->name, desc->name, i);
    if (dtype != TRM_DTYPE_NONE && desc->inputs[i].dtype != dtype)
        return trmi_bad_dtype(desc, i, trm_dtype_name(dtype));
    if (desc->inputs[i].rank != rank || !trm_tensor_is_concrete(&desc->inputs[i]))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d is %s, want %d dims",
                        trm_op_get(desc->op)->name, desc->name, i,
                        trm_tensor_shape_text(&desc->inputs[i], text, sizeof(text)), rank);
    return TRM_OK;
}

trm_status trmi_lm_not_rounded(const trm_op_desc *desc)
{
    return trm_attr_find(desc->attrs, "rounds") == NULL
               ? TRM_OK
               : trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': rows rounded for products: not here",
                          trm_op_get(desc->op)->name, desc->name);
}

trm_status trmi_lm_begin(trm_op_desc *desc, int rank)
{
    char text[TRM_SHAPE_TEXT_BYTES];

    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(trmi_lm_not_rounded(desc));
    if (desc->output_count != 1 || desc->outputs[0].dtype != TRM_DTYPE_F32 ||
        desc->outputs[0].rank != rank || !trm_tensor_is_concrete(&desc->outputs[0]))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': output is %s %s, want f32 of %d dims",
                        trm_op_get(desc->op)->name, desc->name,
                        desc->output_count < 1 ? "none" : trm_dtype_name(desc->outputs[0].dtype),
                        desc->output_count < 1
                            ? ""
                            : trm_tensor_shape_text(&desc->outputs[0], text, sizeof(text)),
                        rank);
    return TRM_OK;
}
