/* Products with Q5_0 and Q5_1 weights: lm_quant.cuh. */
#include "kernels/cuda/lm_quant.cuh"

TRMI_LMQ_DEFINE(q5_0, Q5_0)
TRMI_LMQ_DEFINE(q5_1, Q5_1)
