/* Descriptions of files and batches: as the store keeps them, and as clients see them. What lies in
 * the folder is read like anything from outside: checked, or left out. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_store_impl.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DESCRIPTION_MAX ((size_t)1 << 20)

static const char *const status_names[TRMI_BATCH_STATUS_COUNT] = {
    [TRMI_BATCH_VALIDATING] = "validating", [TRMI_BATCH_IN_PROGRESS] = "in_progress",
    [TRMI_BATCH_FINALIZING] = "finalizing", [TRMI_BATCH_CANCELLING] = "cancelling",
    [TRMI_BATCH_COMPLETED] = "completed",   [TRMI_BATCH_FAILED] = "failed",
    [TRMI_BATCH_EXPIRED] = "expired",       [TRMI_BATCH_CANCELLED] = "cancelled",
};
/* The time of a status, as clients and the store call it. */
static const char *const time_names[TRMI_BATCH_STATUS_COUNT] = {
    [TRMI_BATCH_IN_PROGRESS] = "in_progress_at", [TRMI_BATCH_FINALIZING] = "finalizing_at",
    [TRMI_BATCH_CANCELLING] = "cancelling_at",   [TRMI_BATCH_COMPLETED] = "completed_at",
    [TRMI_BATCH_FAILED] = "failed_at",           [TRMI_BATCH_EXPIRED] = "expired_at",
    [TRMI_BATCH_CANCELLED] = "cancelled_at",
};

const char *trmi_batch_status_name(trmi_batch_status status)
{
    return status < TRMI_BATCH_STATUS_COUNT ? status_names[status] : "unknown";
}

/* ---- as clients see them ---- */
json_t *trmi_openai_file_json(const trmi_openai_file *file)
{
    return json_pack("{s:s,s:s,s:I,s:I,s:n,s:o,s:s,s:s}", "id", file->id, "object", "file", "bytes",
                     (json_int_t)file->bytes, "created_at", (json_int_t)file->created, "expires_at",
                     "filename", trmi_openai_string(file->filename), "purpose", file->purpose,
                     "status", "processed");
}

json_t *trmi_openai_batch_json(const trmi_openai_batch *b)
{
    json_t *errors = b->errors != NULL ? json_pack("{s:s,s:O}", "object", "list", "data", b->errors)
                                       : json_null();
    bool cancelling = b->cancel && b->status < TRMI_BATCH_FINALIZING; /* not yet seen to */
    json_t *o =
        json_pack("{s:s,s:s,s:s,s:o,s:s,s:s,s:s,s:s?,s:s?,s:I,s:I,s:O?,s:{s:i,s:i,s:i}}", "id",
                  b->id, "object", "batch", "endpoint", b->endpoint, "errors", errors,
                  "input_file_id", b->input, "completion_window", b->window, "status",
                  trmi_batch_status_name(cancelling ? TRMI_BATCH_CANCELLING : b->status),
                  "output_file_id", b->has_output ? b->output : NULL, "error_file_id",
                  b->has_error ? b->error : NULL, "created_at", (json_int_t)b->created,
                  "expires_at", (json_int_t)b->expires, "metadata", b->metadata, "request_counts",
                  "total", b->total, "completed", b->completed, "failed", b->failed);

    for (int i = 0; i < TRMI_BATCH_STATUS_COUNT && o != NULL; i++)
        if (time_names[i] != NULL)
            json_object_set_new(o, time_names[i],
                                b->at[i] > 0 ? json_integer(b->at[i]) : json_null());
    return o;
}

/* ---- writing ---- */
static trm_status write_whole(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t left = strlen(text);
    trm_status st = TRM_OK;

    if (fd < 0)
        return trm_fail(TRM_ERR_IO, "cannot write '%s': %s", path, strerror(errno));
    while (left > 0 && st == TRM_OK) {
        ssize_t n = write(fd, text, left);

        if (n < 0 && errno != EINTR)
            st = trm_fail(TRM_ERR_IO, "cannot write '%s': %s", path, strerror(errno));
        if (n > 0) {
            text += n;
            left -= (size_t)n;
        }
    }
    if (st == TRM_OK && fsync(fd) != 0)
        st = trm_fail(TRM_ERR_IO, "cannot write '%s': %s", path, strerror(errno));
    (void)close(fd);
    return st;
}

trm_status trmi_store_write(const struct trmi_openai_files *f, const char *part, const char *id,
                            json_t *o)
{
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    char *path = trmi_store_path(f, part, id, ".json");
    char *beside = trmi_store_path(f, part, id, ".new");
    trm_status st;

    if (text == NULL || path == NULL || beside == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "the description of %s", id);
        goto out;
    }
    TRM_TRY(st, write_whole(beside, text), out);
    if (rename(beside, path) != 0)
        st = trm_fail(TRM_ERR_IO, "cannot write '%s': %s", path, strerror(errno));

out:
    if (st != TRM_OK && beside != NULL)
        (void)unlink(beside);
    free(text);
    trm_free(path);
    trm_free(beside);
    json_decref(o);
    return st;
}

trm_status trmi_store_write_file(const struct trmi_openai_files *f, const trmi_openai_file *file)
{
    return trmi_store_write(f, "files", file->id,
                            json_pack("{s:o,s:o,s:s,s:I,s:I,s:I}", "owner",
                                      trmi_openai_string(file->owner), "filename",
                                      trmi_openai_string(file->filename), "purpose", file->purpose,
                                      "created", (json_int_t)file->created, "offset",
                                      (json_int_t)file->offset, "bytes", (json_int_t)file->bytes));
}

json_t *trmi_store_batch_text(const trmi_openai_batch *b)
{
    json_t *o = json_pack("{s:o,s:s,s:s,s:s,s:s,s:s,s:O?,s:O?,s:I,s:I,s:s,s:b,s:b,s:[i,i,i]}",
                          "owner", trmi_openai_string(b->owner), "input", b->input, "output",
                          b->output, "error", b->error, "endpoint", b->endpoint, "window",
                          b->window, "metadata", b->metadata, "errors", b->errors, "created",
                          (json_int_t)b->created, "expires", (json_int_t)b->expires, "status",
                          trmi_batch_status_name(b->status), "has_output", b->has_output,
                          "has_error", b->has_error, "counts", b->total, b->completed, b->failed);

    if (o != NULL && b->cancel)
        json_object_set_new(o, "cancel", json_true());
    for (int i = 0; i < TRMI_BATCH_STATUS_COUNT && o != NULL; i++)
        if (time_names[i] != NULL && b->at[i] > 0)
            json_object_set_new(o, time_names[i], json_integer(b->at[i]));
    return o;
}

/* ---- reading ---- */
static trm_status read_description(const struct trmi_openai_files *f, const char *part,
                                   const char *id, json_t **o_out)
{
    char *path = trmi_store_path(f, part, id, ".json");
    trm_file *file = NULL;
    json_error_t error;
    trm_status st = path != NULL ? trm_file_open(path, &file) : TRM_ERR_NO_MEMORY;

    if (st == TRM_OK && trm_file_bytes(file) > DESCRIPTION_MAX)
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s' has %zu bytes", path, trm_file_bytes(file));
    if (st == TRM_OK) {
        *o_out = json_loadb((const char *)trm_file_data(file), trm_file_bytes(file), 0, &error);
        if (!json_is_object(*o_out)) {
            json_decref(*o_out);
            *o_out = NULL;
            st = trm_fail(TRM_ERR_BAD_FILE, "'%s' is not a JSON object", path);
        }
    }
    trm_file_unref(file);
    trm_free(path);
    return st;
}

/* A string member into room of `bytes`; false: missing, or too long. */
static bool text_of(const json_t *o, const char *name, char *out, size_t bytes)
{
    const char *s = json_string_value(json_object_get(o, name));

    if (s == NULL || strlen(s) >= bytes)
        return false;
    memcpy(out, s, strlen(s) + 1);
    return true;
}

static bool copy_of(const json_t *o, const char *name, char **out)
{
    const char *s = json_string_value(json_object_get(o, name));

    *out = s != NULL ? trm_strdup(s) : NULL;
    return *out != NULL;
}

static bool id_of(const json_t *o, const char *name, char out[TRMI_OPENAI_ID_BYTES])
{
    return text_of(o, name, out, TRMI_OPENAI_ID_BYTES) && trmi_store_id_ok(out);
}

trm_status trmi_store_read_file(const struct trmi_openai_files *f, const char *id,
                                trmi_openai_file **file_out)
{
    trmi_openai_file *file = NULL;
    json_t *o = NULL;
    json_int_t offset, bytes;
    struct stat info;
    char *path = NULL;
    trm_status st;

    TRM_TRY(st, read_description(f, "files", id, &o), out);
    file = trm_calloc(1, sizeof(*file));
    path = trmi_openai_data_path(f, id);
    if (file == NULL || path == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a file");
        goto out;
    }
    offset = json_integer_value(json_object_get(o, "offset"));
    bytes = json_integer_value(json_object_get(o, "bytes"));
    file->created = json_integer_value(json_object_get(o, "created"));
    snprintf(file->id, sizeof(file->id), "%s", id);
    if (!copy_of(o, "owner", &file->owner) || !copy_of(o, "filename", &file->filename) ||
        !text_of(o, "purpose", file->purpose, sizeof(file->purpose)) || offset < 0 || bytes < 0) {
        st = trm_fail(TRM_ERR_BAD_FILE, "its description lacks something");
        goto out;
    }
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || offset > info.st_size ||
        bytes > info.st_size - offset) {
        st = trm_fail(TRM_ERR_BAD_FILE, "its content is missing or cut");
        goto out;
    }
    file->offset = (size_t)offset;
    file->bytes = (size_t)bytes;
    *file_out = file;
    file = NULL;

out:
    trmi_openai_file_free(file);
    trm_free(path);
    json_decref(o);
    return st;
}

static bool read_status(const json_t *o, trmi_batch_status *out)
{
    const char *s = json_string_value(json_object_get(o, "status"));

    for (int i = 0; i < TRMI_BATCH_STATUS_COUNT && s != NULL; i++)
        if (strcmp(s, status_names[i]) == 0) {
            *out = (trmi_batch_status)i;
            return true;
        }
    return false;
}

static int count_of(const json_t *counts, size_t i)
{
    json_int_t n = json_integer_value(json_array_get(counts, i));

    return n < 0 || n > TRMI_OPENAI_BATCH_LINES ? 0 : (int)n;
}

trm_status trmi_store_read_batch(const struct trmi_openai_files *f, const char *id,
                                 trmi_openai_batch **batch_out)
{
    trmi_openai_batch *b = NULL;
    json_t *o = NULL, *counts, *v;
    trm_status st;

    TRM_TRY(st, read_description(f, "batches", id, &o), out);
    b = trm_calloc(1, sizeof(*b));
    if (b == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a batch");
        goto out;
    }
    snprintf(b->id, sizeof(b->id), "%s", id);
    b->created = json_integer_value(json_object_get(o, "created"));
    b->expires = json_integer_value(json_object_get(o, "expires"));
    if (!copy_of(o, "owner", &b->owner) || !id_of(o, "input", b->input) ||
        !id_of(o, "output", b->output) || !id_of(o, "error", b->error) ||
        !text_of(o, "endpoint", b->endpoint, sizeof(b->endpoint)) ||
        !text_of(o, "window", b->window, sizeof(b->window)) || !read_status(o, &b->status)) {
        st = trm_fail(TRM_ERR_BAD_FILE, "its description lacks something");
        goto out;
    }
    for (int i = 0; i < TRMI_BATCH_STATUS_COUNT; i++)
        if (time_names[i] != NULL)
            b->at[i] = json_integer_value(json_object_get(o, time_names[i]));
    b->cancel = json_is_true(json_object_get(o, "cancel"));
    b->has_output = json_is_true(json_object_get(o, "has_output"));
    b->has_error = json_is_true(json_object_get(o, "has_error"));
    counts = json_object_get(o, "counts");
    b->total = count_of(counts, 0);
    b->completed = count_of(counts, 1);
    b->failed = count_of(counts, 2);
    v = json_object_get(o, "metadata");
    b->metadata = json_is_object(v) ? json_incref(v) : NULL;
    v = json_object_get(o, "errors");
    b->errors = json_is_array(v) ? json_incref(v) : NULL;
    *batch_out = b;
    b = NULL;

out:
    trmi_openai_batch_free(b);
    json_decref(o);
    return st;
}
