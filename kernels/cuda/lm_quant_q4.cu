/* Products with Q4_0 and Q4_1 weights: lm_quant.cuh. */
#include "kernels/cuda/lm_quant.cuh"

TRMI_LMQ_DEFINE(q4_0, Q4_0)
TRMI_LMQ_DEFINE(q4_1, Q4_1)
