/* operator -> prepare function */
#include "kernels/cpu/cpu.h"

static const trmi_cpu_prepare table[TRM_OP_COUNT] = {
#define TRM_CPU_ROW(op, fn) [TRM_OP_##op] = fn,
#include "kernels/cpu/table.def"
#undef TRM_CPU_ROW
    [TRM_OP_NONE] = NULL,
};

trmi_cpu_prepare trmi_cpu_kernel(trm_op op)
{
    return (unsigned)op < TRM_OP_COUNT ? table[op] : NULL;
}
