/* See lm_step.h. */
#include "kernels/cpu/lm_step.h"

trm_status trmi_lm_step(const void *input, size_t rows, const trm_step **step_out)
{
    const trm_step *step = (const trm_step *)(uintptr_t) * (const int64_t *)input;

    if (step == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "no step");
    if (step->sequence_count < 0 || step->sequence_count > step->sequences_padded)
        return trm_fail(TRM_ERR_INVALID_ARG, "a step of %d sequences, %d padded",
                        (int)step->sequence_count, (int)step->sequences_padded);
    for (int i = 0; i < step->sequence_count; i++) {
        const trm_step_sequence *q = &step->sequences[i];

        if (q->row < 0 || q->tokens < 0 || q->position < 0 ||
            (size_t)q->row + (size_t)q->tokens > rows || q->position > INT32_MAX - q->tokens)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "sequence %d of the step: %d tokens from row %d, position %d: there "
                            "are %zu rows",
                            i, (int)q->tokens, (int)q->row, (int)q->position, rows);
    }
    *step_out = step;
    return TRM_OK;
}
