/* Logging to standard error, or to TRM_LOG_FILE ("%r" becomes the rank). Level from TRM_LOG or
 * trm_log_set_level. Line: time level rank/size host:pid subsystem file:line text. Shared: any
 * thread. */
#ifndef TRM_BASE_LOG_H
#define TRM_BASE_LOG_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trm_log_level {
    TRM_LOG_ERROR,
    TRM_LOG_WARN,  /* needs a human */
    TRM_LOG_INFO,  /* state changes */
    TRM_LOG_DEBUG, /* grows with objects */
    TRM_LOG_TRACE  /* grows with tokens; compiled out unless TRM_CHECKED */
} trm_log_level;

/* Reads TRM_LOG, TRM_LOG_SUBSYS, TRM_LOG_FILE. Rank and size go into the prefix (size 1: no rank
 * shown). */
void trm_log_init(int rank, int size);
TRM_MUST_USE trm_status trm_log_set_level(const char *name); /* error|warn|info|debug|trace */
bool trmi_log_enabled(trm_log_level level, const char *subsys);
void trmi_log_at(trm_log_level level, const char *subsys, const char *file, int line,
                 const char *fmt, ...) TRM_PRINTF(5, 6);

#define TRM_LOG(level, subsys, ...)                                                                \
    do {                                                                                           \
        if (trmi_log_enabled((level), (subsys)))                                                   \
            trmi_log_at((level), (subsys), __FILE__, __LINE__, __VA_ARGS__);                       \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
