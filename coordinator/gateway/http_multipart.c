/* multipart/form-data (RFC 7578, RFC 2046 section 5.1) in memory: nothing of a part's data is
 * copied. */
#define _GNU_SOURCE
#include "coordinator/gateway/http.h"

#include <string.h>
#include <strings.h>

enum { BOUNDARY_MAX = 70, PARTS_MAX = 256, HEAD_MAX = 8192 };

typedef struct span {
    const char *at, *end;
} span;

static span trimmed(span s)
{
    while (s.at < s.end && (*s.at == ' ' || *s.at == '\t'))
        s.at++;
    while (s.at < s.end && (s.end[-1] == ' ' || s.end[-1] == '\t'))
        s.end--;
    return s;
}

static bool same(span s, const char *text)
{
    size_t n = strlen(text);

    return (size_t)(s.end - s.at) == n && strncasecmp(s.at, text, n) == 0;
}

/* The next "; name=value" of *rest; value without its quotes, still escaped. False: none is left or
 * it is malformed (then *rest is not empty). */
static bool next_parameter(span *rest, span *name, span *value, bool *quoted)
{
    span r = trimmed(*rest);

    while (r.at < r.end && *r.at == ';') {
        r.at++;
        r = trimmed(r);
    }
    if (r.at == r.end) {
        *rest = r;
        return false;
    }
    name->at = r.at;
    while (r.at < r.end && *r.at != '=' && *r.at != ';')
        r.at++;
    if (r.at == r.end || *r.at != '=')
        return false;
    name->end = r.at++;
    *name = trimmed(*name);
    r = trimmed(r);
    *quoted = r.at < r.end && *r.at == '"';
    if (*quoted) {
        value->at = ++r.at;
        while (r.at < r.end && *r.at != '"')
            r.at += *r.at == '\\' && r.end - r.at > 1 ? 2 : 1;
        if (r.at >= r.end)
            return false;
        value->end = r.at++;
    } else {
        value->at = r.at;
        while (r.at < r.end && *r.at != ';')
            r.at++;
        value->end = r.at;
        *value = trimmed(*value);
    }
    *rest = r;
    return true;
}

/* Browsers write %22, %0D and %0A inside names, others a backslash before a quote; a lone backslash
 * is a character (paths of Windows). */
static char *value_copy(trm_arena *arena, span v, bool quoted)
{
    char *out = trm_arena_alloc(arena, (size_t)(v.end - v.at) + 1, 1);
    size_t to = 0;

    if (out == NULL)
        return NULL;
    for (const char *c = v.at; c < v.end; c++) {
        if (quoted && *c == '\\' && v.end - c > 1 && (c[1] == '"' || c[1] == '\\'))
            c++;
        if (quoted && v.end - c > 2 && c[0] == '%' && c[1] == '2' && c[2] == '2') {
            out[to++] = '"';
            c += 2;
            continue;
        }
        out[to++] = *c;
    }
    return out;
}

static trm_status boundary_of(const char *content_type, char *out, size_t *bytes_out)
{
    span rest = {content_type, content_type + strlen(content_type)}, name, value;
    span type = {rest.at, rest.at + strcspn(content_type, ";")};
    bool quoted;

    if (!same(trimmed(type), "multipart/form-data"))
        return trm_fail(TRM_ERR_INVALID_ARG, "the content type is not multipart/form-data");
    rest.at = type.end;
    while (next_parameter(&rest, &name, &value, &quoted)) {
        size_t n = (size_t)(value.end - value.at);

        if (!same(name, "boundary"))
            continue;
        if (n == 0 || n > BOUNDARY_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a boundary of %zu bytes, 1 to %d may",
                            n, BOUNDARY_MAX);
        memcpy(out, "\r\n--", 4);
        memcpy(out + 4, value.at, n);
        *bytes_out = n + 4;
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "multipart: the content type names no boundary");
}

static trm_status disposition(span value, trm_arena *arena, trm_http_part *part)
{
    span type = value, name, v;
    bool quoted;

    while (type.at < type.end && *type.at != ';')
        type.at++;
    if (!same(trimmed((span){value.at, type.at}), "form-data"))
        return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a part is not form-data");
    while (next_parameter(&type, &name, &v, &quoted)) {
        const char **to = same(name, "name")       ? &part->name
                          : same(name, "filename") ? &part->filename
                                                   : NULL;

        if (to == NULL)
            continue;
        if (*to != NULL || memchr(v.at, '\0', (size_t)(v.end - v.at)) != NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a name twice or with a zero byte");
        *to = value_copy(arena, v, quoted);
        if (*to == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "multipart: a part's name");
    }
    if (type.at != type.end)
        return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a malformed Content-Disposition");
    return TRM_OK;
}

/* Header lines of a part: [at, end) without the empty line. */
static trm_status part_head(span head, trm_arena *arena, trm_http_part *part)
{
    static const char wanted[] = "Content-Disposition";

    while (head.at < head.end) {
        const char *eol = memmem(head.at, (size_t)(head.end - head.at), "\r\n", 2);
        span line = {head.at, eol == NULL ? head.end : eol};
        const char *colon = memchr(line.at, ':', (size_t)(line.end - line.at));

        if (colon == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a header line without ':'");
        if (same((span){line.at, colon}, wanted)) {
            if (part->name != NULL)
                return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a part has two dispositions");
            TRM_CHECK(disposition(trimmed((span){colon + 1, line.end}), arena, part));
        }
        head.at = eol == NULL ? head.end : eol + 2;
    }
    if (part->name == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a part has no name");
    return TRM_OK;
}

/* Behind a delimiter: "--" ends, blanks and a line end go on. Sets *last; NULL: malformed. */
static const char *delimiter_end(const char *at, const char *end, bool *last)
{
    *last = end - at >= 2 && at[0] == '-' && at[1] == '-';
    if (*last)
        return at + 2;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    return end - at >= 2 && at[0] == '\r' && at[1] == '\n' ? at + 2 : NULL;
}

static trm_status parse(const char *body, size_t bytes, const char *delimiter, size_t mark,
                        trm_arena *arena, trm_http_part *parts, int *count_out)
{
    const char *end = body + bytes, *at;
    bool last = false;
    int n = 0;

    /* the first delimiter may stand at the very start, without its line end */
    if (bytes >= mark - 2 && memcmp(body, delimiter + 2, mark - 2) == 0)
        at = body + (mark - 2);
    else
        at = (at = memmem(body, bytes, delimiter, mark)) == NULL ? NULL : at + mark;
    if (at == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "multipart: the boundary does not occur");
    for (;;) {
        const char *data, *stop, *head_end;
        size_t left;

        at = delimiter_end(at, end, &last);
        if (at == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a broken boundary line");
        if (last)
            break;
        if (n == PARTS_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: over %d parts", PARTS_MAX);
        left = (size_t)(end - at);
        head_end = memmem(at, left < HEAD_MAX ? left : HEAD_MAX, "\r\n\r\n", 4);
        if (head_end == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a part's head does not end");
        TRM_CHECK(part_head((span){at, head_end}, arena, &parts[n]));
        data = head_end + 4;
        /* an empty part's delimiter begins with the line end that ends the head */
        stop = memmem(head_end + 2, (size_t)(end - head_end) - 2, delimiter, mark);
        if (stop == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "multipart: a part does not end");
        parts[n].data = data;
        parts[n++].bytes = stop < data ? 0 : (size_t)(stop - data);
        at = stop + mark;
    }
    *count_out = n;
    return TRM_OK;
}

trm_status trm_http_multipart(const char *content_type, const void *body, size_t bytes,
                              trm_arena *arena, const trm_http_part **parts_out, int *count_out)
{
    char delimiter[BOUNDARY_MAX + 4];
    trm_http_part *parts;
    size_t mark = 0;
    int count = 0;

    if (content_type == NULL || body == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "multipart: no content type or no body");
    TRM_CHECK(boundary_of(content_type, delimiter, &mark));
    parts = trm_arena_alloc(arena, PARTS_MAX, sizeof(*parts));
    if (parts == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "multipart: parts");
    TRM_CHECK(parse(body, bytes, delimiter, mark, arena, parts, &count));
    *parts_out = parts;
    *count_out = count;
    return TRM_OK;
}
