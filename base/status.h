/* Status codes and the thread-local error message.
 *
 * Everything that can fail returns trm_status; results come back through trailing *_out arguments.
 * The function that first decides that something is an error calls trm_fail() with what it saw and
 * what it wanted; callers pass the code on, or prefix context with trm_fail_context(). Threads:
 * each thread has its own message. */
#ifndef TRM_BASE_STATUS_H
#define TRM_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_MUST_USE __attribute__((warn_unused_result))
#define TRM_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))

typedef enum trm_status {
    TRM_OK = 0,
    TRM_ERR_INVALID_ARG, /* a value given by the user or caller is wrong: name, shape, dtype, option
                          */
    TRM_ERR_BAD_FILE,    /* a file's content is malformed or hostile */
    TRM_ERR_NOT_FOUND,   /* a file, model, tensor or option does not exist */
    TRM_ERR_UNSUPPORTED, /* well formed, but beyond what Trireme does: the message lists what is
                            supported */
    TRM_ERR_CONFIG,      /* configuration file: message carries file:line */
    TRM_ERR_NO_MEMORY,
    TRM_ERR_IO,   /* read or write failed: disk full, permission */
    TRM_ERR_COMM, /* a rank or a link was lost */
    TRM_ERR_TIMEOUT,
    TRM_ERR_CANCELLED,
    TRM_ERR_INTERNAL, /* a bug in Trireme */
    TRM_ERR_DEVICE,   /* a device was lost, or keeps failing: nothing more is computed on it */
    TRM_STATUS_COUNT
} trm_status;

/* Short name, "ok", "invalid argument", ...; never NULL. */
const char *trm_status_name(trm_status status);

/* The process exit code for a status: 0 ok, 2 bad input decided before output is opened, 1 run-time
 * failure. */
int trm_status_exit_code(trm_status status);

/* Stores file, line and text as this thread's message and returns `status`. Text over 1,023 bytes
 * is cut. */
#ifdef __clang_analyzer__ /* says what the analyzer cannot see in another file: a failure is never \
                             TRM_OK */
#define trm_fail(status, ...)                                                                      \
    ((void)trmi_fail_at((status), __FILE__, __LINE__, __VA_ARGS__), (status))
#else
#define trm_fail(status, ...) trmi_fail_at((status), __FILE__, __LINE__, __VA_ARGS__)
#endif
trm_status trmi_fail_at(trm_status status, const char *file, int line, const char *fmt, ...)
    TRM_PRINTF(4, 5);

/* Puts "<text>: " before this thread's message; returns `status`. */
trm_status trm_fail_context(trm_status status, const char *fmt, ...) TRM_PRINTF(2, 3);

/* This thread's last message ("" if none); valid until the next trm_fail on this thread. */
const char *trm_message(void);
/* Where it was decided, "base/file.c:42"; valid as above. */
const char *trm_message_where(void);

#define TRM_TRY(st, call, label)                                                                   \
    do {                                                                                           \
        (st) = (call);                                                                             \
        if ((st) != TRM_OK)                                                                        \
            goto label;                                                                            \
    } while (0)

/* For code before the first acquisition: returns the status at once. */
#define TRM_CHECK(call)                                                                            \
    do {                                                                                           \
        trm_status trm_check_st = (call);                                                          \
        if (trm_check_st != TRM_OK)                                                                \
            return trm_check_st;                                                                   \
    } while (0)

/* A bug in the module itself. Prints and aborts in checked builds (TRM_CHECKED); compiled out
 * otherwise. */
#ifdef TRM_CHECKED
void trmi_assert_failed(const char *file, int line, const char *text) __attribute__((noreturn));
#define TRM_ASSERT(cond) ((cond) ? (void)0 : trmi_assert_failed(__FILE__, __LINE__, #cond))
#else
#define TRM_ASSERT(cond) ((void)0)
#endif

#ifdef __cplusplus
}
#endif
#endif
