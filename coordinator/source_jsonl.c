/* JSON lines. Nested lists become tensors: all integers give i64, any fraction f32, true/false
 * bool; the replica converts to what the model's input wants. */
#define _GNU_SOURCE
#include "base/file.h"
#include "coordinator/source.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES ((size_t)256 << 20)

struct lines {
    trm_source base;
    FILE *file;
    char *folder, *line, *path;
    size_t line_max;
    int64_t number; /* of the line last read */
    int64_t index;  /* of the record */
    json_t *object;
    trm_arena *arena; /* of the record last given out */
    trm_wire_tensor tensors[TRM_WIRE_TENSORS_MAX];
    char name[TRM_WIRE_TEXT_MAX + 1], message[512];
};

static void lines_close(trm_source *s)
{
    struct lines *m = (struct lines *)s;

    if (m->file != NULL)
        fclose(m->file);
    free(m->line);
    json_decref(m->object);
    trm_arena_destroy(m->arena);
    trm_free(m->folder);
    trm_free(m->path);
    trm_free(m);
}

/* Dims from the first element at each depth; what does not fit them is found when it is filled. */
static trm_status measure(const char *name, json_t *v, trm_tensor *t)
{
    while (json_is_array(v)) {
        if (t->rank == TRM_RANK_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "'%s': more than %d dims", name, TRM_RANK_MAX);
        t->dims[t->rank++] = (int64_t)json_array_size(v);
        if (json_array_size(v) == 0)
            break;
        v = json_array_get(v, 0);
    }
    return TRM_OK;
}

/* dtype of all leaves together; depth is bounded by jansson's own limit. */
static bool leaf_kind(json_t *v, bool *fraction, bool *integer, bool *boolean)
{
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++)
            if (!leaf_kind(json_array_get(v, i), fraction, integer, boolean))
                return false;
        return true;
    }
    *fraction = *fraction || json_is_real(v);
    *integer = *integer || json_is_integer(v);
    *boolean = *boolean || json_is_boolean(v);
    return json_is_number(v) || json_is_boolean(v);
}

static trm_status fill(const char *name, json_t *v, int depth, trm_tensor *t, size_t *at)
{
    if (depth < t->rank) {
        if (!json_is_array(v) || (int64_t)json_array_size(v) != t->dims[depth])
            return trm_fail(TRM_ERR_INVALID_ARG, "'%s': the lists at depth %d differ in length",
                            name, depth + 1);
        for (size_t i = 0; i < json_array_size(v); i++)
            TRM_CHECK(fill(name, json_array_get(v, i), depth + 1, t, at));
        return TRM_OK;
    }
    if (json_is_array(v))
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': the lists differ in depth", name);
    if (t->dtype == TRM_DTYPE_I64)
        trm_tensor_set_i64(t, *at, json_integer_value(v));
    else if (t->dtype == TRM_DTYPE_BOOL)
        trm_tensor_set_i64(t, *at, json_is_true(v));
    else
        trm_tensor_set_f64(t, *at, json_number_value(v));
    ++*at;
    return TRM_OK;
}

static trm_status to_tensor(struct lines *m, const char *name, json_t *v, trm_tensor *t)
{
    bool fraction = false, integer = false, boolean = false;
    size_t bytes = 0, at = 0;

    memset(t, 0, sizeof(*t));
    TRM_CHECK(measure(name, v, t));
    if (!leaf_kind(v, &fraction, &integer, &boolean) || (boolean && (fraction || integer)))
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': want nested lists of numbers", name);
    t->dtype = boolean ? TRM_DTYPE_BOOL : integer && !fraction ? TRM_DTYPE_I64 : TRM_DTYPE_F32;
    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    t->data = trm_arena_alloc_aligned(m->arena, bytes + 1);
    if (t->data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': %zu bytes", name, bytes);
    return fill(name, v, 0, t, &at);
}

static trm_status to_image(struct lines *m, json_t *image, trm_wire_record *record_out)
{
    if (!json_is_string(image))
        return trm_fail(TRM_ERR_INVALID_ARG, "\"image\": want the path of a file");
    m->path = trm_path_join(m->folder, json_string_value(image));
    if (m->path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "path of an image");
    record_out->kind = TRM_RECORD_IMAGE_PATH;
    record_out->bytes = m->path;
    record_out->byte_count = strlen(m->path);
    if (json_object_get(m->object, "id") == NULL)
        snprintf(m->name, sizeof(m->name), "%s", json_string_value(image));
    return TRM_OK;
}

static trm_status parse(struct lines *m, size_t bytes, trm_wire_record *record_out)
{
    json_t *id, *inputs, *value;
    json_error_t error;
    const char *key;
    int n = 0;

    m->object = json_loadb(m->line, bytes, JSON_REJECT_DUPLICATES, &error);
    if (m->object == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "column %d: %s", error.column, error.text);
    if (!json_is_object(m->object))
        return trm_fail(TRM_ERR_BAD_FILE, "want an object: {\"image\": ...} or {\"inputs\": ...}");
    id = json_object_get(m->object, "id");
    if (json_is_string(id))
        snprintf(m->name, sizeof(m->name), "%s", json_string_value(id));
    else if (json_is_integer(id))
        snprintf(m->name, sizeof(m->name), "%lld", (long long)json_integer_value(id));
    else if (id != NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "\"id\": want a string or an integer");
    value = json_object_get(m->object, "image");
    if (json_is_string(value))
        return to_image(m, value, record_out);
    inputs = json_object_get(m->object, "inputs");
    if (!json_is_object(inputs))
        inputs = m->object;
    json_object_foreach(inputs, key, value)
    {
        if (inputs == m->object && strcmp(key, "id") == 0)
            continue;
        if (n == TRM_WIRE_TENSORS_MAX)
            return trm_fail(TRM_ERR_BAD_FILE, "more than %d inputs", TRM_WIRE_TENSORS_MAX);
        /* "inputs" given as a bare list means the model's only input */
        m->tensors[n].name = inputs == m->object && strcmp(key, "inputs") == 0
                                 ? ""
                                 : trm_arena_strdup(m->arena, key);
        if (m->tensors[n].name == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "name of an input");
        TRM_CHECK(to_tensor(m, key, value, &m->tensors[n].tensor));
        n++;
    }
    if (n == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "no \"image\" and no input in it");
    record_out->kind = TRM_RECORD_TENSORS;
    record_out->tensors = m->tensors;
    record_out->tensor_count = n;
    return TRM_OK;
}

/* The next line that is not blank; *bytes_out 0: the end. */
static trm_status read_line(struct lines *m, size_t *bytes_out)
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
        if (m->line[strspn(m->line, " \t\r\n")] != '\0' || (size_t)n > strlen(m->line)) {
            *bytes_out = (size_t)n;
            return TRM_OK;
        }
    }
}

static trm_status lines_next(trm_source *s, trm_wire_record *record_out, bool *end_out)
{
    struct lines *m = (struct lines *)s;
    size_t bytes;
    trm_status st;

    json_decref(m->object);
    m->object = NULL;
    trm_free(m->path);
    m->path = NULL;
    trm_arena_destroy(m->arena);
    m->arena = NULL;
    TRM_CHECK(read_line(m, &bytes));
    if (bytes == 0) {
        *end_out = true;
        return TRM_OK;
    }
    TRM_CHECK(trm_arena_create(0, &m->arena));
    snprintf(m->name, sizeof(m->name), "%lld", (long long)m->index++);
    record_out->name = m->name;
    st = bytes > LINE_MAX_BYTES ? trm_fail(TRM_ERR_BAD_FILE, "over 256 MiB")
                                : parse(m, bytes, record_out);
    if (st == TRM_ERR_NO_MEMORY)
        return st;
    if (st != TRM_OK) {
        snprintf(m->message, sizeof(m->message), "line %lld: %.450s", (long long)m->number,
                 trm_message());
        record_out->kind = TRM_RECORD_ERROR;
        record_out->message = m->message;
    }
    return TRM_OK;
}

static trm_status lines_skip(trm_source *s, int64_t count)
{
    struct lines *m = (struct lines *)s;
    size_t bytes = 1;

    for (int64_t i = 0; i < count && bytes > 0; i++) {
        TRM_CHECK(read_line(m, &bytes));
        m->index++;
    }
    return TRM_OK;
}

static const trm_source_ops lines_ops = {
    .name = "jsonl", .next = lines_next, .skip = lines_skip, .close = lines_close};

trm_status trmi_source_jsonl(const char *path, trm_source **source_out)
{
    struct lines *m = trm_calloc(1, sizeof(*m));
    trm_wire_record first = {0};
    bool end = false;
    trm_status st;

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "source of lines");
    m->base.ops = &lines_ops;
    m->base.count = -1;
    m->folder = trm_path_dir(path);
    m->file = fopen(path, "re");
    if (m->file == NULL || m->folder == NULL) {
        st = trm_fail(TRM_ERR_IO, "input '%s': %s", path, strerror(errno));
        goto fail;
    }
    /* the first line says what kind of records these are, and whether the file is one of ours */
    TRM_TRY(st, lines_next(&m->base, &first, &end), fail);
    if (end) {
        st =
            trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is empty: want one JSON object a line", path);
        goto fail;
    }
    if (first.kind == TRM_RECORD_ERROR) {
        st = trm_fail(TRM_ERR_BAD_FILE, "input '%s', %s", path, m->message);
        goto fail;
    }
    m->base.images = first.kind == TRM_RECORD_IMAGE_PATH;
    rewind(m->file);
    m->number = m->index = 0;
    *source_out = &m->base;
    return TRM_OK;

fail:
    lines_close(&m->base);
    return st;
}
