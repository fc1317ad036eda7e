/* Status names and the thread-local message. */
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_BYTES 1024

static _Thread_local char message[MESSAGE_BYTES];
static _Thread_local char where[96];

static const char *const names[TRM_STATUS_COUNT] = {
    [TRM_OK] = "ok",
    [TRM_ERR_INVALID_ARG] = "invalid argument",
    [TRM_ERR_BAD_FILE] = "bad file",
    [TRM_ERR_NOT_FOUND] = "not found",
    [TRM_ERR_UNSUPPORTED] = "unsupported",
    [TRM_ERR_CONFIG] = "bad configuration",
    [TRM_ERR_NO_MEMORY] = "out of memory",
    [TRM_ERR_IO] = "input/output error",
    [TRM_ERR_COMM] = "communication failure",
    [TRM_ERR_DEVICE] = "device lost",
    [TRM_ERR_TIMEOUT] = "timed out",
    [TRM_ERR_CANCELLED] = "cancelled",
    [TRM_ERR_INTERNAL] = "internal error",
};

const char *trm_status_name(trm_status status)
{
    if ((unsigned)status >= TRM_STATUS_COUNT)
        return "unknown status";
    return names[status];
}

int trm_status_exit_code(trm_status status)
{
    switch (status) {
    case TRM_OK:
        return 0;
    case TRM_ERR_INVALID_ARG:
    case TRM_ERR_BAD_FILE:
    case TRM_ERR_NOT_FOUND:
    case TRM_ERR_UNSUPPORTED:
    case TRM_ERR_CONFIG:
        return 2;
    default:
        return 1;
    }
}

/* Names from files may hold anything; a message is one line and steers no terminal. */
static void keep_one_line(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

trm_status trmi_fail_at(trm_status status, const char *file, int line, const char *fmt, ...)
{
    char fresh[MESSAGE_BYTES]; /* an argument may be the message that stands there */
    va_list args;

    snprintf(where, sizeof(where), "%s:%d", file, line);
    va_start(args, fmt);
    vsnprintf(fresh, sizeof(fresh), fmt, args);
    va_end(args);
    memcpy(message, fresh, sizeof(message));
    keep_one_line(message);
    return status;
}

trm_status trm_fail_context(trm_status status, const char *fmt, ...)
{
    char old[MESSAGE_BYTES];
    va_list args;
    int n;

    memcpy(old, message, sizeof(old));
    va_start(args, fmt);
    n = vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof(message))
        snprintf(message + n, sizeof(message) - (size_t)n, ": %s", old);
    keep_one_line(message);
    return status;
}

const char *trm_message(void)
{
    return message;
}

const char *trm_message_where(void)
{
    return where;
}

#ifndef TRM_CHECKED /* this program is not, but a module that it opens may be */
void trmi_assert_failed(const char *file, int line, const char *text) __attribute__((noreturn));
#endif
void trmi_assert_failed(const char *file, int line, const char *text)
{
    fprintf(stderr, "trireme: assertion failed at %s:%d: %s\n", file, line, text);
    abort();
}
