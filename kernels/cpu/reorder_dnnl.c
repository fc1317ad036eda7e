/* Conversions between layouts and float dtypes of one logical tensor. */
#include "kernels/cpu/dnnl_util.h"

trm_status trmi_cpu_prepare_reorder(trm_device *d, const trm_tensor *from, const trm_tensor *to,
                                    trm_kernel **kernel_out)
{
    (void)d;
    (void)from;
    (void)to;
    (void)kernel_out;
    return trm_fail(TRM_ERR_UNSUPPORTED, "reorder");
}
