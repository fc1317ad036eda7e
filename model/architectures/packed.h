/* Linear weights that other libraries have quantised and packed into safetensors, as constants of
 * this project's block types. Nothing is converted on disk or at once: a constant's blocks are made
 * when a kernel packs them, and only those of a rank's part.
 *
 *   GPTQ   (AutoGPTQ, GPTQModel)  qweight I32 [K * bits / 32, N], along K; qzeros I32 [K / group,
 *          N * bits / 32]; scales [K / group, N]; w = scale * (q - (zero + 1)), without + 1 in
 *          format "gptq_v2"; g_idx [K] must count up by groups (act-order checkpoints are refused)
 *
 *   AWQ    (AutoAWQ, "gemm")  qweight I32 [K, N / 8], qzeros I32 [K / group, N / 8]: nibble i of a
 *          word is column (0 2 4 6 1 3 5 7)[i]; scales [K / group, N]; w = scale * (q - zero)
 *
 *   INTS   (compressed-tensors, "pack-quantized", symmetric)  weight_packed I32 [N, K * bits / 32],
 *          q = stored - 2^(bits - 1); weight_scale [N, K / group]
 *
 *   FP8    weight e4m3 [N, K]; weight_scale of one, [N] or [N, 1]; or weight_scale_inv of blocks of
 *          128 x 128 (DeepSeek)
 *
 * 4 bits become Q4_0 where all zero points are 8, else Q5_0, whose range holds q - zero exactly; 8
 * bits Q8_0. Scales are kept as fp16, which they are in most files. FP8 becomes F8_ROW, with scales
 * of blocks F8_128, as it is: scales are fp32. Where K is no multiple of 32, or of 128, it becomes
 * BF16: value * scale rounded once. */
#ifndef TRM_MODEL_ARCHITECTURES_PACKED_H
#define TRM_MODEL_ARCHITECTURES_PACKED_H

#include "model/architectures/blocks.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The weight [outputs, inputs] of `l` (its part) where the checkpoint packs it; *value_out
 * TRM_NO_VALUE where it does not. BAD_FILE: tensors that do not fit each other; UNSUPPORTED: says
 * what. */
TRM_MUST_USE trm_status trmi_arch_packed(trm_lm_build *b, const trmi_linear *l, int *value_out);
/* The same of all experts' matrices [experts, rows, columns], a tensor (or what stands for it) for
 * each of them. */
TRM_MUST_USE trm_status trmi_arch_packed_experts(trm_lm_build *b, trmi_role role, int64_t rows,
                                                 int64_t columns, int *value_out);

#ifdef __cplusplus
}
#endif
#endif
