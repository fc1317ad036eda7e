/* A request: from its head to a whole body; and what handlers ask of it.
 *
 * All of a head is copied into one block: libmicrohttpd frees its own when the connection ends,
 * which may be before a handler has ended. */
#define _GNU_SOURCE
#include "coordinator/gateway/http_impl.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FIRST_CAPACITY = 65536 };

/* ---- the head ---- */
typedef struct head_size {
    size_t bytes;
    int headers, queries;
} head_size;

static enum MHD_Result measure(void *ctx, enum MHD_ValueKind kind, const char *name,
                               size_t name_bytes, const char *value, size_t value_bytes)
{
    head_size *s = ctx;

    (void)name;
    (void)value;
    s->bytes += name_bytes + value_bytes + 2;
    if (kind == MHD_HEADER_KIND)
        s->headers++;
    else
        s->queries++;
    return MHD_YES;
}

typedef struct head_copy {
    trm_http_exchange *x;
    char *at;
    bool bad; /* broken %XX in the query */
} head_copy;

static const char *copied(head_copy *c, const char *text, size_t bytes)
{
    char *start = c->at;

    memcpy(start, text, bytes);
    start[bytes] = '\0';
    c->at += bytes + 1;
    return start;
}

static const char *decoded(head_copy *c, const char *text, size_t bytes)
{
    char *start = c->at;
    ssize_t n = trmi_http_decode(text, bytes, start);

    if (n < 0) {
        c->bad = true;
        *start = '\0';
        n = 0;
    }
    c->at += n + 1;
    return start;
}

static enum MHD_Result copy_header(void *ctx, enum MHD_ValueKind kind, const char *name,
                                   size_t name_bytes, const char *value, size_t value_bytes)
{
    head_copy *c = ctx;
    trmi_http_pair *to = &c->x->headers[c->x->header_count++];

    (void)kind;
    to->name = copied(c, name, name_bytes);
    to->value = copied(c, value == NULL ? "" : value, value_bytes);
    return MHD_YES;
}

static enum MHD_Result copy_query(void *ctx, enum MHD_ValueKind kind, const char *name,
                                  size_t name_bytes, const char *value, size_t value_bytes)
{
    head_copy *c = ctx;
    trmi_http_pair *to = &c->x->queries[c->x->query_count++];

    (void)kind;
    to->name = decoded(c, name, name_bytes);
    to->value = decoded(c, value == NULL ? "" : value, value_bytes);
    return MHD_YES;
}

/* A request to a proxy's form, "GET http://host/path": servers must take it (RFC 9112, 3.2.2). */
static const char *without_origin(const char *url)
{
    const char *at;

    if (url[0] == '/' ||
        (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0))
        return url;
    at = strchr(strstr(url, "://") + 3, '/');
    return at == NULL ? "/" : at;
}

static bool head_fill(trm_http_exchange *x, struct MHD_Connection *mhd, const char *url,
                      const char *method, trmi_http_match *m)
{
    size_t method_bytes = strlen(method), url_bytes = strlen(url), pairs;
    head_size s = {0};
    head_copy c = {.x = x};

    MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, measure, &s);
    MHD_get_connection_values_n(mhd, MHD_GET_ARGUMENT_KIND, measure, &s);
    pairs = (size_t)(s.headers + s.queries) * sizeof(trmi_http_pair);
    /* names are cut out of the URL: as many bytes at most */
    x->block = trm_malloc(
        pairs + s.bytes + method_bytes + 2 * url_bytes + 2 * TRMI_HTTP_NAMES_MAX * 32 + 4, 1);
    if (x->block == NULL)
        return false;
    x->headers = (trmi_http_pair *)(void *)x->block;
    x->queries = x->headers + s.headers;
    c.at = x->block + pairs;
    x->method = copied(&c, method, method_bytes);
    x->path = decoded(&c, url, url_bytes);
    for (int i = 0; i < m->name_count; i++) {
        size_t most = m->names[i].name_bytes < 31 ? m->names[i].name_bytes : 31;

        x->names[i].name = copied(&c, m->names[i].name, most);
        x->names[i].value = decoded(&c, m->names[i].raw, m->names[i].raw_bytes);
    }
    x->name_count = m->name_count;
    MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, copy_header, &c);
    MHD_get_connection_values_n(mhd, MHD_GET_ARGUMENT_KIND, copy_query, &c);
    if (c.bad)
        trmi_http_refuse(x, 400, "the path or the query has a broken %%XX or a zero byte");
    return true;
}

void trmi_http_refuse(trm_http_exchange *x, int status, const char *fmt, ...)
{
    va_list args;

    if (x->early_status != 0)
        return; /* the first reason counts */
    x->early_status = status;
    va_start(args, fmt);
    vsnprintf(x->early_text, sizeof(x->early_text), fmt, args);
    va_end(args);
}

/* How the body is framed. What two servers could read in two ways is refused (RFC 9112, 6.3). */
static void head_framing(trm_http_exchange *x)
{
    int lengths = 0, codings = 0;

    x->declared = 0;
    for (int i = 0; i < x->header_count; i++) {
        const char *value = x->headers[i].value;

        if (strcasecmp(x->headers[i].name, "Content-Length") == 0) {
            char *end = NULL;
            unsigned long long n;

            lengths++;
            errno = 0;
            n = strtoull(value, &end, 10);
            if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || n >= SIZE_MAX)
                trmi_http_refuse(x, 400, "Content-Length is not a number");
            else
                x->declared = (size_t)n;
        } else if (strcasecmp(x->headers[i].name, "Transfer-Encoding") == 0) {
            codings++;
            if (strcasecmp(value, "chunked") != 0)
                trmi_http_refuse(x, 501, "the transfer coding is not 'chunked'");
        }
    }
    if (lengths + codings > 1)
        trmi_http_refuse(x, 400, "more than one of Content-Length and Transfer-Encoding");
    if (codings > 0)
        x->declared = SIZE_MAX;
    else if (x->declared > x->body_max)
        trmi_http_refuse(x, 413, "the body has %zu bytes, the limit is %zu", x->declared,
                         x->body_max);
}

/* ---- who asks ---- */
static const char *presented_key(const trm_http_exchange *x)
{
    const char *a = trm_http_header(x, "Authorization"), *key = trm_http_header(x, "X-Api-Key");

    if (a != NULL && strncasecmp(a, "Bearer ", 7) == 0) {
        for (a += 7; *a == ' '; a++) {
        }
        return a;
    }
    return key;
}

/* Without keys a page that a browser of this machine shows could unload models: browsers say
 * Origin. */
static void head_origin(trm_http_exchange *x)
{
    const char *origin = trm_http_header(x, "Origin"), *known = x->h->o.cors_origin;

    if ((x->route->flags & TRM_HTTP_ADMIN) == 0 || origin == NULL ||
        (known != NULL && strcmp(origin, known) == 0))
        return;
    trmi_http_refuse(x, 403, "a web page of '%.100s' may not administer: want a key, or cors",
                     origin);
}

static void head_key(trm_http_exchange *x)
{
    trm_http *h = x->h;
    const char *key;
    bool asked, found = false;
    bool open = (x->route->flags & TRM_HTTP_OPEN) != 0 ||
                (h->o.metrics_open && strcmp(x->route->pattern, "/metrics") == 0);

    key = presented_key(x);
    pthread_mutex_lock(&h->keys_mu);
    asked = h->keys != NULL;
    if (asked && key != NULL)
        found = trmi_http_keys_find(h->keys, key, &x->key);
    pthread_mutex_unlock(&h->keys_mu);
    if (!asked)
        head_origin(x);
    if (!asked || open)
        return;
    if (!found)
        trmi_http_refuse(x, 401, key == NULL ? "an API key is needed" : "the API key is not known");
    else if ((x->route->flags & TRM_HTTP_ADMIN) != 0 && !x->key.admin)
        trmi_http_refuse(x, 403, "the key '%s' may not administer", x->key.name);
}

static void head_limits(trm_http_exchange *x)
{
    if ((x->route->flags & (TRM_HTTP_OPEN | TRM_HTTP_LIGHT)) != 0 || x->early_status != 0)
        return;
    x->limited =
        trmi_http_limits_enter(x->h->limits, x->key.name[0] != '\0' ? x->key.name : x->peer);
    if (!x->limited)
        trmi_http_refuse(x, 429, "%d requests are under way already; come again later",
                         x->h->o.requests_per_key);
}

void trmi_http_leave_limits(trm_http_exchange *x)
{
    bool was;

    pthread_mutex_lock(&x->mu);
    was = x->limited;
    x->limited = false;
    pthread_mutex_unlock(&x->mu);
    if (was)
        trmi_http_limits_leave(x->h->limits, x->key.name[0] != '\0' ? x->key.name : x->peer);
}

/* A bijection of the counter, so no two are alike; and the seed makes those of two servers differ
 * (splitmix64: Steele, Lea, Flood 2014). */
static void make_id(trm_http *h, char *out, size_t bytes)
{
    uint64_t z = h->id_seed + ++h->id_next * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    snprintf(out, bytes, "%016" PRIx64, z ^ (z >> 31));
}

trm_http_exchange *trmi_http_exchange_create(trm_http *h, struct MHD_Connection *mhd,
                                             trmi_http_connection *c, const char *url,
                                             const char *method)
{
    trm_http_exchange *x = trm_calloc(1, sizeof(*x));
    const char *raw = without_origin(url);
    trmi_http_match m;

    if (x == NULL)
        return NULL;
    x->h = h;
    x->refs = 1;
    x->mhd = mhd;
    x->connection = c;
    x->body_fd = -1;
    x->start_us = x->moved_us = trm_now_us();
    memcpy(x->peer, c->peer, sizeof(x->peer));
    make_id(h, x->id, sizeof(x->id));
    x->head = strcmp(method, "HEAD") == 0;
    trmi_http_table_match(&h->table, method, raw, &m);
    if (!head_fill(x, mhd, raw, method, &m)) {
        trm_free(x);
        return NULL;
    }
    pthread_mutex_init(&x->mu, NULL);
    memcpy(x->allow, m.allow, sizeof(x->allow));
    x->body_max = h->o.body_max;
    if (m.route >= 0) {
        x->route = &h->table.routes[m.route];
        if ((x->route->flags & TRM_HTTP_LARGE) != 0)
            x->body_max = h->o.upload_max;
    }
    head_framing(x);
    if (m.route >= 0) {
        head_key(x);
        head_limits(x);
    } else if (m.allow[0] == '\0') {
        trmi_http_refuse(x, 404, "there is nothing at this path");
    } else if (strcmp(method, "OPTIONS") == 0) {
        trmi_http_refuse(x, 204, "%s", "");
    } else {
        trmi_http_refuse(x, 405, "this path takes %s", m.allow);
    }
    return x;
}

/* ---- the body ---- */
static bool body_to_file(trm_http_exchange *x, const char *data, size_t bytes)
{
    if (x->body_fd < 0) {
        const char *dir = getenv("TMPDIR");

        x->body_path =
            trm_path_join(dir != NULL && dir[0] == '/' ? dir : "/tmp", "trireme-upload-XXXXXX");
        if (x->body_path != NULL)
            x->body_fd = mkostemp(x->body_path, 0 /* 0600 */);
        if (x->body_fd < 0) {
            TRM_LOG(TRM_LOG_WARN, "http", "no file for an upload in %s: %s",
                    dir != NULL ? dir : "/tmp", strerror(errno));
            trm_free(x->body_path);
            x->body_path = NULL;
            trmi_http_refuse(x, 500, "the upload cannot be stored");
            return false;
        }
    }
    while (bytes > 0) { /* into the page cache: that does not hold the other connections up long */
        ssize_t n = write(x->body_fd, data, bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            TRM_LOG(TRM_LOG_WARN, "http", "upload: %s", strerror(errno));
            trmi_http_refuse(x, 507, "the upload cannot be stored");
            return false;
        }
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

bool trmi_http_body_add(trm_http_exchange *x, const char *data, size_t bytes)
{
    size_t total = x->body_bytes + bytes; /* no overflow: both are far below */

    if (total > x->body_max) {
        trmi_http_refuse(x, 413, "the body has over %zu bytes, the limit", x->body_max);
        return false;
    }
    if ((x->route->flags & TRM_HTTP_LARGE) != 0) {
        if (!body_to_file(x, data, bytes))
            return false;
    } else {
        if (total > x->body_capacity) { /* grows with what has come, not with what was promised */
            size_t wanted = x->body_capacity == 0 ? FIRST_CAPACITY : 2 * x->body_capacity;
            char *larger;

            if (x->declared != SIZE_MAX && wanted > x->declared)
                wanted = x->declared;
            if (wanted < total)
                wanted = total;
            larger = trm_realloc(x->body, wanted, 1);
            if (larger == NULL) {
                trmi_http_refuse(x, 503, "no memory for the body");
                return false;
            }
            x->body = larger;
            x->body_capacity = wanted;
        }
        memcpy(x->body + x->body_bytes, data, bytes);
    }
    x->body_bytes = total;
    return true;
}

void trmi_http_exchange_unref(trm_http_exchange *x)
{
    bool last;

    pthread_mutex_lock(&x->mu);
    last = --x->refs == 0;
    pthread_mutex_unlock(&x->mu);
    if (!last)
        return;
    if (x->response != NULL)
        MHD_destroy_response(x->response);
    while (x->extra != NULL) {
        trmi_http_header *first = x->extra;

        x->extra = first->next;
        trm_free(first);
    }
    if (x->body_map != NULL)
        (void)munmap(x->body_map, x->body_bytes);
    if (x->body_fd >= 0)
        (void)close(x->body_fd);
    if (x->body_path != NULL)
        (void)unlink(x->body_path); /* ENOENT: the handler has renamed it */
    pthread_mutex_destroy(&x->mu);
    trm_free(x->body_path);
    trm_free(x->body);
    trm_free(x->out);
    trm_free(x->block);
    trm_free(x);
}

/* ---- what handlers ask ---- */
const char *trm_http_method(const trm_http_exchange *x)
{
    return x->head ? "GET" : x->method;
}

const char *trm_http_path(const trm_http_exchange *x)
{
    return x->path;
}

const char *trm_http_route_pattern(const trm_http_exchange *x)
{
    return x->route == NULL ? "" : x->route->pattern;
}

static const char *find(const trmi_http_pair *pairs, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(pairs[i].name, name) == 0)
            return pairs[i].value;
    return NULL;
}

const char *trm_http_name(const trm_http_exchange *x, const char *name)
{
    return find(x->names, x->name_count, name);
}

const char *trm_http_query(const trm_http_exchange *x, const char *name)
{
    return find(x->queries, x->query_count, name);
}

const char *trm_http_header(const trm_http_exchange *x, const char *name)
{
    for (int i = 0; i < x->header_count; i++)
        if (strcasecmp(x->headers[i].name, name) == 0)
            return x->headers[i].value;
    return NULL;
}

const void *trm_http_body(const trm_http_exchange *x, size_t *bytes_out)
{
    trm_http_exchange *own = (trm_http_exchange *)(uintptr_t)x; /* the map is made when asked for */

    *bytes_out = x->body_bytes;
    if (x->body_fd < 0)
        return x->body == NULL ? "" : x->body;
    if (own->body_map == NULL && x->body_bytes > 0) {
        void *map = mmap(NULL, x->body_bytes, PROT_READ, MAP_PRIVATE, x->body_fd, 0);

        if (map == MAP_FAILED) {
            TRM_LOG(TRM_LOG_WARN, "http", "an upload cannot be mapped: %s", strerror(errno));
            *bytes_out = 0;
            return NULL;
        }
        own->body_map = map;
    }
    return own->body_map == NULL ? "" : own->body_map;
}

const char *trm_http_body_path(const trm_http_exchange *x)
{
    return x->body_path;
}

const char *trm_http_key_name(const trm_http_exchange *x)
{
    return x->key.name;
}

const char *trm_http_id(const trm_http_exchange *x)
{
    return x->id;
}

void *trm_http_ctx(const trm_http_exchange *x)
{
    return x->h->o.ctx;
}
