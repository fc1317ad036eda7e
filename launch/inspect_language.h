/* inspect_language.c: what a language model is, to standard output; with cuda: and what of it runs
 * on such a device. */
#ifndef TRM_LAUNCH_INSPECT_LANGUAGE_H
#define TRM_LAUNCH_INSPECT_LANGUAGE_H

#include "base/status.h"

TRM_MUST_USE trm_status trm_inspect_language(const char *path, bool cuda);

#endif
