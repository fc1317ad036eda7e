/* Requests of a language model, a line each: JSON objects as they are, or prompts of a text file.
 */
#define _GNU_SOURCE
#include "base/file.h"
#include "coordinator/source.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_MAX_BYTES ((size_t)64 << 20)

struct requests {
    trm_source base;
    FILE *file;
    bool text; /* a prompt a line */
    char *line, *wrapped;
    size_t line_max;
    int64_t number, index; /* of the line last read, of the record */
    char name[256], message[512];
};

static void requests_close(trm_source *s)
{
    struct requests *m = (struct requests *)s;

    if (m->file != NULL)
        fclose(m->file);
    free(m->line);
    free(m->wrapped);
    trm_free(m);
}

/* The next line that is not blank, without its end; *bytes_out 0: there is none. */
static trm_status read_line(struct requests *m, size_t *bytes_out)
{
    for (;;) {
        ssize_t n = getline(&m->line, &m->line_max, m->file);

        *bytes_out = 0;
        if (n < 0 && ferror(m->file))
            return trm_fail(TRM_ERR_IO, "input after line %lld: %s", (long long)m->number,
                            strerror(errno));
        if (n < 0)
            return TRM_OK;
        m->number++;
        while (n > 0 && (m->line[n - 1] == '\n' || m->line[n - 1] == '\r'))
            n--;
        m->line[n] = '\0';
        if ((size_t)n > strspn(m->line, " \t")) {
            *bytes_out = (size_t)n;
            return TRM_OK;
        }
    }
}

/* What the record is called: its id, if that is a text or a number. */
static void take_name(struct requests *m, const json_t *o)
{
    const json_t *id = json_object_get(o, "custom_id");

    if (id == NULL)
        id = json_object_get(o, "id");
    if (json_is_string(id))
        snprintf(m->name, sizeof(m->name), "%s", json_string_value(id));
    else if (json_is_integer(id))
        snprintf(m->name, sizeof(m->name), "%lld", (long long)json_integer_value(id));
}

static trm_status check_json(struct requests *m, size_t bytes)
{
    json_error_t error;
    json_t *o = json_loadb(m->line, bytes, JSON_REJECT_DUPLICATES, &error);
    trm_status st = TRM_OK;

    if (o == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "not JSON at column %d: %s", error.column, error.text);
    if (!json_is_object(o))
        st = trm_fail(TRM_ERR_BAD_FILE, "want a JSON object");
    take_name(m, o);
    json_decref(o);
    return st;
}

static trm_status wrap_text(struct requests *m, size_t bytes)
{
    json_t *o = json_pack("{s:s%}", "text", m->line, bytes);

    free(m->wrapped);
    m->wrapped = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return m->wrapped == NULL ? trm_fail(TRM_ERR_BAD_FILE, "the text is not UTF-8") : TRM_OK;
}

static trm_status requests_next(trm_source *s, trm_wire_record *record_out, bool *end_out)
{
    struct requests *m = (struct requests *)s;
    size_t bytes;
    trm_status st;

    TRM_CHECK(read_line(m, &bytes));
    if (bytes == 0) {
        *end_out = true;
        return TRM_OK;
    }
    snprintf(m->name, sizeof(m->name), "%lld", (long long)m->index++);
    record_out->name = m->name;
    if (bytes > LINE_MAX_BYTES)
        st = trm_fail(TRM_ERR_BAD_FILE, "over 64 MiB");
    else
        st = m->text ? wrap_text(m, bytes) : check_json(m, bytes);
    if (st != TRM_OK) {
        snprintf(m->message, sizeof(m->message), "line %lld: %.450s", (long long)m->number,
                 trm_message());
        record_out->kind = TRM_RECORD_ERROR;
        record_out->message = m->message;
        return TRM_OK;
    }
    record_out->kind = TRM_RECORD_REQUEST;
    record_out->bytes = m->text ? m->wrapped : m->line;
    record_out->byte_count = m->text ? strlen(m->wrapped) : bytes;
    return TRM_OK;
}

static trm_status requests_skip(trm_source *s, int64_t count)
{
    struct requests *m = (struct requests *)s;
    size_t bytes = 1;

    for (int64_t i = 0; i < count && bytes > 0; i++) {
        TRM_CHECK(read_line(m, &bytes));
        m->index++;
    }
    return TRM_OK;
}

static const trm_source_ops requests_ops = {
    .name = "requests", .next = requests_next, .skip = requests_skip, .close = requests_close};

static trm_status check_path(const char *path, bool *text_out)
{
    const char *extension = trm_path_extension(path);

    *text_out = strcasecmp(extension, "txt") == 0;
    if (!trm_path_exists(path))
        return trm_fail(TRM_ERR_NOT_FOUND, "input '%s' does not exist", path);
    if (!*text_out && strcasecmp(extension, "jsonl") != 0 && strcasecmp(extension, "ndjson") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "input '%s': a language model wants .jsonl (a request a line) or .txt (a "
                        "prompt a line)",
                        path);
    return trm_path_is_file(path)
               ? TRM_OK
               : trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is not a regular file", path);
}

trm_status trm_source_open_requests(const char *path, trm_source **source_out)
{
    struct requests *m;
    bool text = false;
    size_t bytes = 0;
    trm_status st;

    TRM_CHECK(check_path(path, &text));
    m = trm_calloc(1, sizeof(*m));
    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "source of requests");
    m->base.ops = &requests_ops;
    m->base.count = -1;
    m->text = text;
    m->file = fopen(path, "re");
    if (m->file == NULL) {
        st = trm_fail(TRM_ERR_IO, "input '%s': %s", path, strerror(errno));
        goto fail;
    }
    TRM_TRY(st, read_line(m, &bytes), fail);
    if (bytes == 0) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is empty: want one %s a line", path,
                      text ? "prompt" : "JSON object");
        goto fail;
    }
    rewind(m->file);
    m->number = 0;
    *source_out = &m->base;
    return TRM_OK;
fail:
    requests_close(&m->base);
    return st;
}
