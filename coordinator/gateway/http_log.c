/* The access log: one line an exchange, written by one call, so that lines of several writers do
 * not mix. */
#include "coordinator/gateway/http_impl.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATH_SHOWN = 512 };

static trm_status open_file(const char *path, int *fd_out)
{
    int fd = strcmp(path, "-") == 0
                 ? dup(STDERR_FILENO)
                 : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

    if (fd < 0)
        return trm_fail(TRM_ERR_CONFIG, "access log '%s': %s", path, strerror(errno));
    *fd_out = fd;
    return TRM_OK;
}

trm_status trmi_http_log_open(trmi_http_log *log, const char *path)
{
    trm_status st;

    pthread_mutex_init(&log->mu, NULL);
    log->fd = -1;
    log->path = NULL;
    if (path == NULL)
        return TRM_OK;
    log->path = trm_strdup(path);
    if (log->path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "http: access log");
    st = open_file(path, &log->fd);
    return st;
}

trm_status trmi_http_log_reopen(trmi_http_log *log)
{
    int fd = -1;

    if (log->path == NULL)
        return TRM_OK;
    TRM_CHECK(open_file(log->path, &fd));
    pthread_mutex_lock(&log->mu);
    if (log->fd >= 0)
        (void)close(log->fd);
    log->fd = fd;
    pthread_mutex_unlock(&log->mu);
    return TRM_OK;
}

void trmi_http_log_close(trmi_http_log *log)
{
    if (log->fd >= 0)
        (void)close(log->fd);
    log->fd = -1;
    trm_free(log->path);
    log->path = NULL;
    pthread_mutex_destroy(&log->mu);
}

/* Blanks, quotes, backslashes and what is not visible ASCII as \xNN: a path cannot forge a line. */
static void shown(const char *text, char *out, size_t bytes)
{
    size_t to = 0;

    for (; *text != '\0' && to + 5 < bytes; text++) {
        unsigned char c = (unsigned char)*text;

        if (c > ' ' && c < 0x7f && c != '"' && c != '\\')
            out[to++] = (char)c;
        else
            to += (size_t)snprintf(out + to, bytes - to, "\\x%02x", c);
    }
    out[to] = '\0';
}

void trmi_http_log_write(trmi_http_log *log, const trm_http_exchange *x, int status,
                         uint64_t bytes_out, int64_t us)
{
    char line[PATH_SHOWN + 320], path[PATH_SHOWN], method[24], when[32];
    struct timespec now;
    struct tm tm;
    int n;

    if (log->path == NULL)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    shown(x->path, path, sizeof(path));
    shown(x->method, method, sizeof(method));
    n = snprintf(line, sizeof(line),
                 "%s.%03ldZ %s %s %s %s %s %d %zu %" PRIu64 " %" PRId64 ".%03" PRId64 "\n", when,
                 now.tv_nsec / 1000000, x->id, x->key.name[0] != '\0' ? x->key.name : "-", x->peer,
                 method, path, status, x->body_bytes, bytes_out, us / 1000, us % 1000);
    if (n <= 0 || (size_t)n >= sizeof(line))
        return;
    pthread_mutex_lock(&log->mu);
    if (log->fd >= 0 && write(log->fd, line, (size_t)n) < 0)
        TRM_LOG(TRM_LOG_DEBUG, "http", "access log: %s", strerror(errno));
    pthread_mutex_unlock(&log->mu);
}
