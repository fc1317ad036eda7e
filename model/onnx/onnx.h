/* ONNX files.
 *
 * Everything is read straight from the mapped bytes with the byte cursor (protobuf.h); graphs nest
 * to a limit. A weight is an offset and a length in the file and never copied. Opsets 1 to the
 * newest: older forms are rewritten to the newest (attributes that became inputs, Upsample to
 * Resize, ...), so the rest of Trireme sees one form only; model-local functions are inlined.
 *
 * What newer semantics cannot say is an attribute of our own: Softmax, LogSoftmax and Hardmax of
 * opset < 13 have "flatten" = 1 (rows are all dims from `axis` on); GroupNormalization of opset 18
 * has "per_group" = 1 (scale and bias are [num_groups]); If, Loop and Scan have "captures". */
#ifndef TRM_MODEL_ONNX_ONNX_H
#define TRM_MODEL_ONNX_ONNX_H

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Imports a model. `file` is mapped by the caller and referenced by the graph; external data is
 * opened relative to the folder of trm_file_path(file) and must stay inside it. The graph is
 * sorted; shapes are as declared, not inferred. Errors: BAD_FILE (malformed: says where),
 * UNSUPPORTED (operator with its node, domain and opset; dtype), NO_MEMORY. */
TRM_MUST_USE trm_status trm_onnx_import(trm_file *file, trm_graph **graph_out);

/* Reads one serialised TensorProto (ONNX test data, calibration sets) into a plain host tensor
 * whose data lies in `arena`. */
TRM_MUST_USE trm_status trm_onnx_read_tensor(const void *data, size_t bytes, trm_arena *arena,
                                             trm_tensor *tensor_out, const char **name_out);

#ifdef __cplusplus
}
#endif
#endif
