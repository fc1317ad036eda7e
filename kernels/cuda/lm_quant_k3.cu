/* Products with Q3_K and Q4_K weights: lm_quant.cuh. */
#include "kernels/cuda/lm_quant.cuh"

TRMI_LMQ_DEFINE(q3_k, Q3_K)
TRMI_LMQ_DEFINE(q4_k, Q4_K)
