/* Mixed precision. */
#include "model/passes/passes.h"

trm_status trm_pass_precision(trm_graph *g, trm_dtype dtype)
{
    (void)g;
    return trm_fail(TRM_ERR_UNSUPPORTED, "dtype %s: only f32 is supported", trm_dtype_name(dtype));
}
