/* inspect_language.c: what a language model is, to standard output. */
#ifndef TRM_LAUNCH_INSPECT_LANGUAGE_H
#define TRM_LAUNCH_INSPECT_LANGUAGE_H

#include "base/status.h"

TRM_MUST_USE trm_status trm_inspect_language(const char *path);

#endif
