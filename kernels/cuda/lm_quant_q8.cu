/* Products with Q8_0 and Q2_K weights: lm_quant.cuh. */
#include "kernels/cuda/lm_quant.cuh"

TRMI_LMQ_DEFINE(q8_0, Q8_0)
TRMI_LMQ_DEFINE(q2_k, Q2_K)
