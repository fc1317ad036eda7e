/* Families of products (kernels/cuda/lm.h) for tests that call them themselves. */
#include "kernels/cuda/lm.h"

extern "C" __attribute__((visibility("default"))) const trmi_lmc_family *trm_emu_family_quant(void)
{
    return &trmi_lmc_quant;
}
