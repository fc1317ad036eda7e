/* Log lines are built in one buffer and written with one write(2), so that lines of several ranks
 * do not mix. */
#define _GNU_SOURCE
#include "base/log.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};
static const char level_letters[] = "EWIDT";
static _Atomic int level_now = TRM_LOG_WARN;
static char subsystems[256]; /* written by trm_log_init only, before other threads exist */
static char host[64] = "?";
static int log_fd = STDERR_FILENO;
static int log_rank, log_size = 1;

trm_status trm_log_set_level(const char *name)
{
    for (int i = 0; i < 5; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            atomic_store_explicit(&level_now, i, memory_order_relaxed);
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "log level '%s': want error, warn, info, debug or trace",
                    name);
}

static void open_file(const char *pattern, int rank)
{
    char path[1024];
    size_t n = 0;
    int fd;

    for (const char *p = pattern; *p != '\0' && n + 16 < sizeof(path); p++) {
        if (p[0] == '%' && p[1] == 'r') {
            n += (size_t)snprintf(path + n, 16, "%d", rank);
            p++;
        } else {
            path[n++] = *p;
        }
    }
    path[n] = '\0';
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0)
        log_fd = fd;
    else
        fprintf(stderr, "trireme: cannot open TRM_LOG_FILE '%s'; logging to standard error\n",
                path);
}

void trm_log_init(int rank, int size)
{
    const char *level = getenv("TRM_LOG");
    const char *subsys = getenv("TRM_LOG_SUBSYS");
    const char *file = getenv("TRM_LOG_FILE");

    log_rank = rank;
    log_size = size;
    if (gethostname(host, sizeof(host)) != 0)
        snprintf(host, sizeof(host), "?");
    host[sizeof(host) - 1] = '\0';
    if (level != NULL && trm_log_set_level(level) != TRM_OK)
        fprintf(stderr, "trireme: TRM_LOG: %s\n", trm_message());
    if (subsys != NULL)
        snprintf(subsystems, sizeof(subsystems), "%s", subsys);
    if (file != NULL && log_fd == STDERR_FILENO)
        open_file(file, rank);
}

bool trmi_log_enabled(trm_log_level level, const char *subsys)
{
    const char *at;
    size_t n;

    if ((int)level > atomic_load_explicit(&level_now, memory_order_relaxed))
        return false;
    if (subsystems[0] == '\0' || level <= TRM_LOG_WARN)
        return true;
    n = strlen(subsys);
    for (at = subsystems; (at = strstr(at, subsys)) != NULL; at += n)
        if ((at == subsystems || at[-1] == ',') && (at[n] == '\0' || at[n] == ','))
            return true;
    return false;
}

void trmi_log_at(trm_log_level level, const char *subsys, const char *file, int line,
                 const char *fmt, ...)
{
    char buf[2048];
    struct timeval tv;
    struct tm tm;
    size_t n;
    int k;
    va_list args;

    gettimeofday(&tv, NULL);
    gmtime_r(&tv.tv_sec, &tm);
    n = strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%S", &tm);
    k = snprintf(buf + n, sizeof(buf) - n, ".%06ld %c ", (long)tv.tv_usec, level_letters[level]);
    n += (size_t)k;
    if (log_size > 1)
        n += (size_t)snprintf(buf + n, sizeof(buf) - n, "r%02d/%d ", log_rank, log_size);
    n += (size_t)snprintf(buf + n, sizeof(buf) - n, "%s:%d %s %s:%d ", host, (int)getpid(), subsys,
                          file, line);
    va_start(args, fmt);
    k = vsnprintf(buf + n, sizeof(buf) - n - 1, fmt, args);
    va_end(args);
    if (k > 0)
        n += (size_t)k < sizeof(buf) - n - 1 ? (size_t)k : sizeof(buf) - n - 2;
    buf[n++] = '\n';
    if (write(log_fd, buf, n) < 0)
        return; /* nowhere left to say it */
}
