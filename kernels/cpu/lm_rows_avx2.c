/* Row functions of language models for avx2. */
#define TRMI_LM_ROWS_TABLE trmi_lm_rows_avx2
#include "kernels/cpu/lm_rows_body.h"
