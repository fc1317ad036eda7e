/* Known labels of records, for accuracy: a CSV of file,label. Read once, then read-only. */
#ifndef TRM_COORDINATOR_TRUTH_H
#define TRM_COORDINATOR_TRUTH_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_truth trm_truth;
/* A first line "file,label" is a header. BAD_FILE names the line without a comma, or a file listed
 * twice. */
TRM_MUST_USE trm_status trm_truth_open(const char *path, trm_truth **truth_out);
void trm_truth_close(trm_truth *truth); /* takes NULL */
/* The label of a record, by its whole name or by the last component of it; NULL: not known. */
const char *trm_truth_label(const trm_truth *truth, const char *name);

#ifdef __cplusplus
}
#endif
#endif
