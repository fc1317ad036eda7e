/* oneDNN's engine, stream and status codes. */
#include "kernels/cpu/dnnl_util.h"

trm_status trmi_dnnl_status(dnnl_status_t status, const char *what)
{
    switch (status) {
    case dnnl_success:
        return TRM_OK;
    case dnnl_out_of_memory:
        return trm_fail(TRM_ERR_NO_MEMORY, "oneDNN %s: out of memory", what);
    case dnnl_unimplemented:
        return trm_fail(TRM_ERR_UNSUPPORTED, "oneDNN %s: not implemented", what);
    case dnnl_invalid_arguments:
        return trm_fail(TRM_ERR_INTERNAL, "oneDNN %s: invalid arguments", what);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "oneDNN %s: status %d", what, (int)status);
    }
}

trm_status trmi_dnnl_init(trm_cpu *cpu)
{
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    trm_status st;

    TRM_CHECK(trmi_dnnl_status(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine"));
    st = trmi_dnnl_status(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    if (st != TRM_OK) {
        dnnl_engine_destroy(engine);
        return st;
    }
    cpu->dnnl_engine = engine;
    cpu->dnnl_stream = stream;
    return TRM_OK;
}

void trmi_dnnl_fini(trm_cpu *cpu)
{
    dnnl_stream_destroy(trmi_cpu_stream(cpu));
    dnnl_engine_destroy(trmi_cpu_engine(cpu));
}
