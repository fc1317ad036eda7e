/* fp32 row functions for avx512. */
#define TRMI_VEC_TABLE trmi_vec_avx512
#include "kernels/cpu/vector_rows.h"
