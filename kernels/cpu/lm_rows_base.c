/* Row functions of language models for the least instruction set. */
#define TRMI_LM_ROWS_TABLE trmi_lm_rows_base
#include "kernels/cpu/lm_rows_body.h"
