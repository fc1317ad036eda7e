/* A server with a few routes, and a client that writes and reads bytes of a socket. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif
#ifndef TRM_TESTS_COORDINATOR_HTTP_KIT_H
#define TRM_TESTS_COORDINATOR_HTTP_KIT_H

#include "base/wait.h"
#include "coordinator/gateway/http.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

/* ---- what the server tells metrics.h: each test program defines it by this kit ---- */
typedef struct kit_counts {
    int exchanges, last_status, open; /* atomic */
    size_t last_in, last_out;         /* atomic */
} kit_counts;
extern kit_counts kit_seen;
#define KIT_METRICS                                                                                \
    kit_counts kit_seen;                                                                           \
    void trm_metrics_http(trm_metrics *m, const char *route, int status, uint64_t us,              \
                          size_t bytes_in, size_t bytes_out)                                       \
    {                                                                                              \
        (void)m;                                                                                   \
        (void)us;                                                                                  \
        ck_assert_ptr_nonnull(route);                                                              \
        __atomic_store_n(&kit_seen.last_status, status, __ATOMIC_RELAXED);                         \
        __atomic_store_n(&kit_seen.last_in, bytes_in, __ATOMIC_RELAXED);                           \
        __atomic_store_n(&kit_seen.last_out, bytes_out, __ATOMIC_RELAXED);                         \
        __atomic_add_fetch(&kit_seen.exchanges, 1, __ATOMIC_RELEASE);                              \
    }                                                                                              \
    void trm_metrics_connections(trm_metrics *m, int open)                                         \
    {                                                                                              \
        (void)m;                                                                                   \
        __atomic_store_n(&kit_seen.open, open, __ATOMIC_RELAXED);                                  \
    }

/* Sleeps until *value is at least `wanted`, 20 s at most. */
static inline void kit_wait(const int *value, int wanted)
{
    int64_t until = trm_deadline_us(20000);

    while (__atomic_load_n(value, __ATOMIC_ACQUIRE) < wanted) {
        const struct timespec nap = {0, 2000000};

        ck_assert_msg(trm_now_us() < until, "waited for %d, it is %d", wanted, *value);
        nanosleep(&nap, NULL);
    }
}

static inline int kit_get(const int *value)
{
    return __atomic_load_n(value, __ATOMIC_ACQUIRE);
}

static inline void kit_nap(int ms)
{
    const struct timespec nap = {ms / 1000, ms % 1000 * 1000000L};

    nanosleep(&nap, NULL);
}

/* ---- the client ---- */
typedef struct kit_client {
    int fd;
    char *data; /* read, not yet looked at; terminated */
    size_t bytes, capacity;
    bool ended;
} kit_client;

static inline kit_client kit_connect_small(int port, int receive_bytes)
{
    kit_client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval most = {20, 0};
    int one = 1;

    ck_assert_int_ge(c.fd, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (receive_bytes > 0)
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
    ck_assert_msg(connect(c.fd, (struct sockaddr *)&to, sizeof(to)) == 0, "connect: %s",
                  strerror(errno));
    c.capacity = 65536;
    c.data = calloc(1, c.capacity + 1);
    ck_assert_ptr_nonnull(c.data);
    return c;
}

static inline kit_client kit_connect(int port)
{
    return kit_connect_small(port, 0);
}

static inline void kit_close(kit_client *c)
{
    close(c->fd);
    free(c->data);
    memset(c, 0, sizeof(*c));
    c->fd = -1;
}

/* False: the server has closed. */
static inline bool kit_send(kit_client *c, const void *data, size_t bytes)
{
    const char *at = data;

    while (bytes > 0) {
        ssize_t n = send(c->fd, at, bytes, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        bytes -= (size_t)n;
    }
    return true;
}

static inline void kit_ask(kit_client *c, const char *text)
{
    ck_assert(kit_send(c, text, strlen(text)));
}

/* More bytes; false: the end. */
static inline bool kit_more(kit_client *c)
{
    ssize_t n;

    if (c->bytes == c->capacity) {
        c->capacity *= 2;
        c->data = realloc(c->data, c->capacity + 1);
        ck_assert_ptr_nonnull(c->data);
    }
    do
        n = recv(c->fd, c->data + c->bytes, c->capacity - c->bytes, 0);
    while (n < 0 && errno == EINTR);
    ck_assert_msg(n >= 0 || errno == ECONNRESET, "no answer: %s; so far '%.300s'", strerror(errno),
                  c->data);
    if (n <= 0) {
        c->ended = true;
        return false;
    }
    c->bytes += (size_t)n;
    c->data[c->bytes] = '\0';
    return true;
}

typedef struct kit_answer {
    int status;
    bool chunked, until_close;
    char head[4096];
    char *body; /* free() */
    size_t bytes;
} kit_answer;

static inline const char *kit_header(const kit_answer *a, const char *name, char *out, size_t most)
{
    const char *at = strcasestr(a->head, name);

    if (at == NULL)
        return NULL;
    at += strlen(name) + 1;
    while (*at == ' ')
        at++;
    snprintf(out, most, "%.*s", (int)strcspn(at, "\r"), at);
    return out;
}

static inline void kit_drop(kit_client *c, size_t bytes)
{
    c->bytes -= bytes;
    memmove(c->data, c->data + bytes, c->bytes + 1);
}

static inline void kit_need(kit_client *c, size_t bytes)
{
    while (c->bytes < bytes)
        ck_assert_msg(kit_more(c), "the server closed inside an answer: %zu of %zu bytes", c->bytes,
                      bytes);
}

static inline void kit_read_chunks(kit_client *c, kit_answer *a)
{
    for (;;) {
        size_t chunk, head;
        char *eol;

        while ((eol = strstr(c->data, "\r\n")) == NULL)
            ck_assert(kit_more(c));
        head = (size_t)(eol + 2 - c->data);
        chunk = strtoul(c->data, NULL, 16);
        kit_need(c, head + chunk + 2);
        a->body = realloc(a->body, a->bytes + chunk + 1);
        ck_assert_ptr_nonnull(a->body);
        memcpy(a->body + a->bytes, c->data + head, chunk);
        a->bytes += chunk;
        a->body[a->bytes] = '\0';
        kit_drop(c, head + chunk + 2);
        if (chunk == 0)
            return;
    }
}

/* False: the server has closed before an answer. */
static inline bool kit_read_head(kit_client *c, kit_answer *a)
{
    char *end, text[32];
    size_t n;

    memset(a, 0, sizeof(*a));
    while ((end = strstr(c->data, "\r\n\r\n")) == NULL)
        if (!kit_more(c))
            return false;
    n = (size_t)(end + 4 - c->data);
    ck_assert_uint_lt(n, sizeof(a->head));
    memcpy(a->head, c->data, n);
    kit_drop(c, n);
    ck_assert_int_eq(sscanf(a->head, "HTTP/1.%*d %d", &a->status), 1);
    a->chunked = kit_header(a, "\r\nTransfer-Encoding:", text, sizeof(text)) != NULL;
    return true;
}

static inline bool kit_read_of(kit_client *c, kit_answer *a, bool head)
{
    char text[32];

    do
        if (!kit_read_head(c, a))
            return false;
    while (a->status == 100);
    a->body = calloc(1, 1);
    if (head || a->status == 204)
        return true;
    if (a->chunked) {
        kit_read_chunks(c, a);
    } else if (kit_header(a, "\r\nContent-Length:", text, sizeof(text)) != NULL) {
        a->bytes = strtoul(text, NULL, 10);
        kit_need(c, a->bytes);
        a->body = realloc(a->body, a->bytes + 1);
        ck_assert_ptr_nonnull(a->body);
        memcpy(a->body, c->data, a->bytes);
        a->body[a->bytes] = '\0';
        kit_drop(c, a->bytes);
    } else {
        a->until_close = true;
        while (kit_more(c)) {
        }
        free(a->body);
        a->bytes = c->bytes;
        a->body = strdup(c->data);
        kit_drop(c, c->bytes);
    }
    return true;
}

static inline bool kit_read(kit_client *c, kit_answer *a)
{
    return kit_read_of(c, a, false);
}

static inline void kit_answer_fini(kit_answer *a)
{
    free(a->body);
    a->body = NULL;
}

/* Sends `text` on a connection of its own and gives the answer's status; 0: closed without one. */
static inline int kit_status(int port, const char *text)
{
    kit_client c = kit_connect(port);
    kit_answer a;
    int status = 0;

    kit_ask(&c, text);
    if (kit_read_of(&c, &a, strncmp(text, "HEAD", 4) == 0)) {
        status = a.status;
        kit_answer_fini(&a);
    }
    kit_close(&c);
    return status;
}

/* ---- threads that answer ---- */
typedef struct kit_job {
    trm_http_exchange *x;
    void (*run)(trm_http_exchange *x);
} kit_job;

static inline void *kit_job_run(void *ctx)
{
    kit_job *job = ctx;

    job->run(job->x);
    free(job);
    return NULL;
}

static inline void kit_on_thread(trm_http_exchange *x, void (*run)(trm_http_exchange *x))
{
    kit_job *job = malloc(sizeof(*job));
    pthread_t thread;

    ck_assert_ptr_nonnull(job);
    *job = (kit_job){x, run};
    ck_assert_int_eq(pthread_create(&thread, NULL, kit_job_run, job), 0);
    pthread_detach(thread);
}

/* A folder for a test's files; its name is in a static buffer. */
static inline const char *kit_file(const char *name, const char *content, mode_t mode)
{
    static char dir[64], path[160];
    FILE *f;

    if (dir[0] == '\0') {
        snprintf(dir, sizeof(dir), "/tmp/trm-http-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(dir));
    }
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    if (content != NULL) {
        f = fopen(path, "w");
        ck_assert_ptr_nonnull(f);
        fputs(content, f);
        fclose(f);
        ck_assert_int_eq(chmod(path, mode), 0);
    }
    return path;
}

#ifdef __cplusplus
}
#endif
#endif
