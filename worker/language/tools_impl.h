/* Between tools.c (requests) and tool_parse.c (answers). */
#ifndef TRM_WORKER_LANGUAGE_TOOLS_IMPL_H
#define TRM_WORKER_LANGUAGE_TOOLS_IMPL_H

#include "worker/language/tools.h"

/* What stands around calls in a format. NULL: nothing. */
struct trmi_tool_mark {
    const char *begin, *end;
    unsigned formats; /* bits 1 << format */
};
#define TRMI_TOOL_MARKS 4
extern const struct trmi_tool_mark trmi_tool_marks[TRMI_TOOL_MARKS];
#define TRMI_TOOL_NAME_MAX 64

#endif
