/* fp32 row functions for avx2. */
#define TRMI_VEC_TABLE trmi_vec_avx2
#include "kernels/cpu/vector_rows.h"
