/* fp32 row functions for any x86-64. */
#define TRMI_VEC_TABLE trmi_vec_base
#include "kernels/cpu/vector_rows.h"
