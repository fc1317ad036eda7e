/* Products with Q5_K and Q6_K weights: lm_quant.cuh. */
#include "kernels/cuda/lm_quant.cuh"

TRMI_LMQ_DEFINE(q5_k, Q5_K)
TRMI_LMQ_DEFINE(q6_k, Q6_K)
