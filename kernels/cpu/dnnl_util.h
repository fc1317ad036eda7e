/* oneDNN from C: engine, stream, status translation, memory descriptors from trm_tensor, argument
 * lists. */
#ifndef TRM_KERNELS_CPU_DNNL_UTIL_H
#define TRM_KERNELS_CPU_DNNL_UTIL_H

#include "kernels/cpu/cpu.h"

#include <dnnl.h>

static inline dnnl_engine_t trmi_cpu_engine(trm_cpu *cpu)
{
    return (dnnl_engine_t)cpu->dnnl_engine;
}
static inline dnnl_stream_t trmi_cpu_stream(trm_cpu *cpu)
{
    return (dnnl_stream_t)cpu->dnnl_stream;
}
/* OK, or the translated status with "oneDNN <what>: <its status>". dnnl_unimplemented becomes
 * UNSUPPORTED. */
trm_status trmi_dnnl_status(dnnl_status_t status, const char *what);

#endif
