/* Matching of paths against patterns. The path is cut into segments while it is still encoded, so
 * that "a%2Fb" is one segment; names are decoded afterwards. */
#define _GNU_SOURCE
#include "coordinator/gateway/http_impl.h"

#include <stdlib.h>
#include <string.h>

static trm_status pattern_parse(const char *text, int route, trmi_http_pattern *p)
{
    const char *at = text;
    int names = 0;

    memset(p, 0, sizeof(*p));
    p->route = route;
    if (*at != '/')
        return trm_fail(TRM_ERR_INVALID_ARG, "route '%s' does not begin with '/'", text);
    while (*at == '/') {
        const char *end = ++at;

        while (*end != '\0' && *end != '/')
            end++;
        if (p->count == TRMI_HTTP_SEGMENTS_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "route '%s' has over %d segments", text,
                            TRMI_HTTP_SEGMENTS_MAX);
        p->segments[p->count].text = at;
        p->segments[p->count].bytes = (size_t)(end - at);
        if (*at == '{') {
            if (end[-1] != '}' || end - at < 3 || ++names > TRMI_HTTP_NAMES_MAX)
                return trm_fail(TRM_ERR_INVALID_ARG, "route '%s': a bad or one too many {name}",
                                text);
            p->segments[p->count].kind = TRMI_HTTP_NAME;
            p->segments[p->count].text = at + 1;
            p->segments[p->count].bytes = (size_t)(end - at) - 2;
            if (end - at > 5 && memcmp(end - 4, "...}", 4) == 0) {
                if (*end != '\0')
                    return trm_fail(TRM_ERR_INVALID_ARG, "route '%s': {name...} is not last", text);
                p->segments[p->count].kind = TRMI_HTTP_REST;
                p->segments[p->count].bytes -= 3;
            }
        }
        p->count++;
        at = end;
    }
    return TRM_OK;
}

/* Literal before {name} before {name...}, from the left. */
static int by_rank(const void *a, const void *b)
{
    const trmi_http_pattern *p = a, *q = b;

    for (int i = 0; i < p->count && i < q->count; i++)
        if (p->segments[i].kind != q->segments[i].kind)
            return p->segments[i].kind < q->segments[i].kind ? -1 : 1;
    if (p->count != q->count)
        return p->count > q->count ? -1 : 1;
    return p->route < q->route ? -1 : 1;
}

trm_status trmi_http_table_init(trmi_http_table *t, const trm_http_route *routes, int count)
{
    trm_status st = TRM_OK;

    memset(t, 0, sizeof(*t));
    t->patterns = trm_calloc((size_t)count, sizeof(*t->patterns));
    if (t->patterns == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "http: %d routes", count);
    t->routes = routes;
    t->count = count;
    for (int i = 0; i < count && st == TRM_OK; i++)
        st = pattern_parse(routes[i].pattern, i, &t->patterns[i]);
    if (st != TRM_OK)
        trmi_http_table_fini(t);
    else
        qsort(t->patterns, (size_t)count, sizeof(*t->patterns), by_rank);
    return st;
}

void trmi_http_table_fini(trmi_http_table *t)
{
    trm_free(t->patterns);
    t->patterns = NULL;
    t->count = 0;
}

static bool pattern_match(const trmi_http_pattern *p, const char *raw, trmi_http_match *m)
{
    const char *at = raw;

    m->name_count = 0;
    for (int i = 0; i < p->count; i++) {
        const char *end;

        if (*at != '/')
            return false;
        at++;
        end = p->segments[i].kind == TRMI_HTTP_REST ? at + strlen(at) : strchrnul(at, '/');
        if (p->segments[i].kind == TRMI_HTTP_LITERAL) {
            if ((size_t)(end - at) != p->segments[i].bytes ||
                memcmp(at, p->segments[i].text, p->segments[i].bytes) != 0)
                return false;
        } else {
            if (end == at)
                return false;
            m->names[m->name_count].name = p->segments[i].text;
            m->names[m->name_count].name_bytes = p->segments[i].bytes;
            m->names[m->name_count].raw = at;
            m->names[m->name_count++].raw_bytes = (size_t)(end - at);
        }
        at = end;
    }
    return *at == '\0';
}

static void allow_add(trmi_http_match *m, const char *method)
{
    size_t used = strlen(m->allow);

    if (strstr(m->allow, method) != NULL || used + strlen(method) + 3 > sizeof(m->allow))
        return;
    memcpy(m->allow + used, used > 0 ? ", " : "", used > 0 ? 3 : 1);
    used = strlen(m->allow);
    memcpy(m->allow + used, method, strlen(method) + 1);
}

void trmi_http_table_match(const trmi_http_table *t, const char *method, const char *raw_path,
                           trmi_http_match *match)
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    trmi_http_match one;

    match->route = -1;
    match->name_count = 0;
    match->allow[0] = '\0';
    for (int i = 0; i < t->count; i++) {
        const trm_http_route *row = &t->routes[t->patterns[i].route];

        if (!pattern_match(&t->patterns[i], raw_path, &one))
            continue;
        if (strcmp(row->method, wanted) == 0) {
            *match = one;
            match->route = t->patterns[i].route;
            match->allow[0] = '\0';
            return;
        }
        allow_add(match, row->method);
        if (strcmp(row->method, "GET") == 0)
            allow_add(match, "HEAD");
    }
    if (match->allow[0] != '\0')
        allow_add(match, "OPTIONS");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

ssize_t trmi_http_decode(const char *raw, size_t bytes, char *out)
{
    size_t to = 0;

    for (size_t i = 0; i < bytes; i++) {
        char c = raw[i];

        if (c == '%') {
            int high = bytes - i > 2 ? hex_digit(raw[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(raw[i + 2]) : -1;

            if (high < 0 || low < 0)
                return -1;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (c == '\0')
            return -1;
        out[to++] = c;
    }
    out[to] = '\0';
    return (ssize_t)to;
}
