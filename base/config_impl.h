/* Shared by the files of base/config. */
#ifndef TRM_BASE_CONFIG_IMPL_H
#define TRM_BASE_CONFIG_IMPL_H

#include "base/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Parses YAML text to a tree in `arena`; an empty document is an empty map. */
TRM_MUST_USE trm_status trmi_config_tree(const char *text, size_t bytes, const char *name,
                                         trm_arena *arena, const trm_config_node **root_out);

/* A plain number with an optional unit of a fixed table. False: not of that form. */
bool trmi_config_bytes(const char *text, int64_t *bytes_out);
bool trmi_config_duration(const char *text, int64_t *us_out);

#ifdef __cplusplus
}
#endif
#endif
