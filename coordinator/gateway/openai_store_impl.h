/* Between openai_store.c and openai_store_text.c: descriptions on disk. */
#ifndef TRM_COORDINATOR_GATEWAY_OPENAI_STORE_IMPL_H
#define TRM_COORDINATOR_GATEWAY_OPENAI_STORE_IMPL_H

#include "coordinator/gateway/openai_impl.h"

#define TRMI_STORE_ID_DIGITS 24

bool trmi_store_id_ok(const char *id);
/* FOLDER/part/id extension; from trm_malloc, NULL: no memory. */
char *trmi_store_path(const struct trmi_openai_files *f, const char *part, const char *id,
                      const char *extension);
/* Writes part/id.json; takes `o` over (NULL: NO_MEMORY). */
TRM_MUST_USE trm_status trmi_store_write(const struct trmi_openai_files *f, const char *part,
                                         const char *id, json_t *o);
TRM_MUST_USE trm_status trmi_store_write_file(const struct trmi_openai_files *f,
                                              const trmi_openai_file *file);
TRM_MUST_USE trm_status trmi_store_read_file(const struct trmi_openai_files *f, const char *id,
                                             trmi_openai_file **file_out);
json_t *trmi_store_batch_text(const trmi_openai_batch *batch); /* under mu */
TRM_MUST_USE trm_status trmi_store_read_batch(const struct trmi_openai_files *f, const char *id,
                                              trmi_openai_batch **batch_out);

#endif
