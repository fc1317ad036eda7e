/* Row functions of language models for avx512. */
#define TRMI_LM_ROWS_TABLE trmi_lm_rows_avx512
#include "kernels/cpu/lm_rows_body.h"
