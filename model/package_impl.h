/* Shared by the files of model/package. */
#ifndef TRM_MODEL_PACKAGE_IMPL_H
#define TRM_MODEL_PACKAGE_IMPL_H

#include "model/package.h"

#ifdef __cplusplus
extern "C" {
#endif

/* OK if the file can be an ONNX model; else the error says what it is, and what to do. */
TRM_MUST_USE trm_status trmi_package_check_format(const trm_file *file);
/* The model file of a folder, in memory from trm_malloc. */
TRM_MUST_USE trm_status trmi_package_find_model(const char *folder, char **path_out);
/* Finds and applies the YAML beside package->model_path; needs the graph, which it checks names
 * against. */
TRM_MUST_USE trm_status trmi_package_read_yaml(trm_package *package);

#ifdef __cplusplus
}
#endif
#endif
