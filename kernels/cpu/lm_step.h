/* The step that kernels of language models read (kernels/language.h). */
#ifndef TRM_KERNELS_CPU_LM_STEP_H
#define TRM_KERNELS_CPU_LM_STEP_H

#include "base/status.h"
#include "kernels/language.h"

/* The step at the address in *input, whose sequences must lie in [0, rows): INVALID_ARG. */
TRM_MUST_USE trm_status trmi_lm_step(const void *input, size_t rows, const trm_step **step_out);

#endif
