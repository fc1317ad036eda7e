/* The fast form of a quantised convolution; UNSUPPORTED: use the reference. */
#ifndef TRM_KERNELS_CPU_QLINEAR_H
#define TRM_KERNELS_CPU_QLINEAR_H

#include "kernels/cpu/cpu.h"
#include "kernels/reference/window.h"

TRM_MUST_USE trm_status trmi_qlinear_conv_dnnl(trm_cpu *cpu, trm_op_desc *desc, const trm_window *w,
                                               int64_t group, trm_kernel **kernel_out);

#endif
