/* The rewrites of canon.c, by file. Each changes the node in place, or emits everything itself and
 * sets b->done. */
#ifndef TRM_MODEL_ONNX_CANON_IMPL_H
#define TRM_MODEL_ONNX_CANON_IMPL_H

#include "model/onnx/onnx_impl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_EVERY INT64_MAX /* a row for every opset */

typedef trm_status (*trmi_rewrite)(trmi_build *b);

/* canon_forms.c */
trm_status trmi_canon_axes(trmi_build *b);
trm_status trmi_canon_split(trmi_build *b);
trm_status trmi_canon_slice(trmi_build *b);
trm_status trmi_canon_pad(trmi_build *b);
trm_status trmi_canon_clip(trmi_build *b);
trm_status trmi_canon_topk(trmi_build *b);
trm_status trmi_canon_reshape(trmi_build *b);
trm_status trmi_canon_tile(trmi_build *b);
trm_status trmi_canon_dft(trmi_build *b);
trm_status trmi_canon_dropout(trmi_build *b);
trm_status trmi_canon_upsample(trmi_build *b);
/* canon_meaning.c */
trm_status trmi_canon_resize(trmi_build *b);
trm_status trmi_canon_softmax(trmi_build *b);
trm_status trmi_canon_batchnorm(trmi_build *b);
trm_status trmi_canon_groupnorm(trmi_build *b);
trm_status trmi_canon_roialign(trmi_build *b);
trm_status trmi_canon_gridsample(trmi_build *b);
trm_status trmi_canon_lp(trmi_build *b);
trm_status trmi_canon_selu(trmi_build *b);
trm_status trmi_canon_concat(trmi_build *b);
trm_status trmi_canon_cast(trmi_build *b);
trm_status trmi_canon_scan(trmi_build *b);
trm_status trmi_canon_constant_of_shape(trmi_build *b);
trm_status trmi_canon_bias_gelu(trmi_build *b);
trm_status trmi_canon_quick_gelu(trmi_build *b);
/* canon_broadcast.c */
trm_status trmi_canon_broadcast(trmi_build *b);
trm_status trmi_canon_prelu(trmi_build *b);

#ifdef __cplusplus
}
#endif
#endif
