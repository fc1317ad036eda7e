/* The input of a batch: its lines are checked before the first is run, and after a restart found
 * again in what had been written. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_batch_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Looked at in one go; the thread has other batches, too. */
#define CHECK_LINES 1000
#define CHECK_BYTES ((size_t)8 << 20)

static trm_status open_output(const trmi_batch_run *r, const char *id, int *fd_out)
{
    char *path = trmi_openai_data_path(r->f, id);

    *fd_out = path != NULL ? open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    trm_free(path);
    return *fd_out >= 0 ? TRM_OK
                        : trm_fail(TRM_ERR_IO, "cannot write an output: %s", strerror(errno));
}

trm_status trmi_batch_run_open(struct trmi_openai_files *f, trmi_openai_batch *batch,
                               trmi_batch_run **run_out)
{
    trmi_batch_run *r = trm_calloc(1, sizeof(*r));
    const trmi_openai_file *input;
    size_t offset = 0, bytes = 0;
    char *path = NULL;
    trm_status st = TRM_OK;

    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a batch");
    r->f = f;
    r->batch = batch;
    r->out_fd = r->err_fd = -1;
    r->body_max = f->g->options.http.body_max > 0 ? f->g->options.http.body_max : (size_t)32 << 20;
    pthread_mutex_lock(&f->mu);
    input = trmi_openai_find_file(f, batch->owner, batch->input);
    if (input != NULL) {
        offset = input->offset;
        bytes = input->bytes;
    }
    pthread_mutex_unlock(&f->mu);
    path = trmi_openai_data_path(f, batch->input);
    r->seen = json_object();
    r->errors = json_array();
    if (path == NULL || r->seen == NULL || r->errors == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a batch");
        goto fail;
    }
    if (input == NULL) {
        st = trm_fail(TRM_ERR_NOT_FOUND, "the input file '%s' is gone", batch->input);
        goto fail;
    }
    TRM_TRY(st, trm_file_open(path, &r->file), fail);
    if (offset > trm_file_bytes(r->file) || bytes > trm_file_bytes(r->file) - offset) {
        st = trm_fail(TRM_ERR_BAD_FILE, "the input file '%s' is cut", batch->input);
        goto fail;
    }
    r->text = (const char *)trm_file_data(r->file) + offset;
    r->bytes = bytes;
    TRM_TRY(st, open_output(r, batch->output, &r->out_fd), fail);
    TRM_TRY(st, open_output(r, batch->error, &r->err_fd), fail);
    trm_free(path);
    *run_out = r;
    return TRM_OK;

fail:
    trm_free(path);
    trmi_batch_run_close(r);
    return st;
}

/* An output that stays empty, or of a batch that is not to be gone on with, is not kept. */
static void close_output(const trmi_batch_run *r, int fd, const char *id, bool published)
{
    struct stat info;
    char *path;

    if (fd < 0)
        return;
    if (!published &&
        (trmi_batch_final(r->batch->status) || (fstat(fd, &info) == 0 && info.st_size == 0))) {
        path = trmi_openai_data_path(r->f, id);
        if (path != NULL)
            (void)unlink(path);
        trm_free(path);
    }
    (void)close(fd);
}

void trmi_batch_run_close(trmi_batch_run *r)
{
    if (r == NULL)
        return;
    close_output(r, r->out_fd, r->batch->output, r->batch->has_output);
    close_output(r, r->err_fd, r->batch->error, r->batch->has_error);
    trm_file_unref(r->file);
    json_decref(r->seen);
    json_decref(r->errors);
    trm_free(r->lines);
    trm_free(r->buffer);
    trm_free(r);
}

void trmi_batch_add_error(trmi_batch_run *r, const char *code, const char *param, int line_no,
                          const char *message)
{
    json_t *line = line_no > 0 ? json_integer(line_no) : json_null();

    if (json_array_size(r->errors) < TRMI_OPENAI_BATCH_ERRORS)
        json_array_append_new(r->errors, json_pack("{s:s,s:o,s:s?,s:o}", "code", code, "message",
                                                   trmi_openai_string(message), "param",
                                                   param != NULL && param[0] != '\0' ? param : NULL,
                                                   "line", line));
    else
        json_decref(line);
}

static trm_status add_line(trmi_batch_run *r, size_t at, size_t bytes)
{
    if (r->count == r->max) {
        int max = r->max == 0 ? 256 : 2 * r->max;
        trmi_batch_line *more = trm_realloc(r->lines, (size_t)max, sizeof(*more));

        if (more == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%d lines", max);
        r->lines = more;
        r->max = max;
    }
    r->lines[r->count++] = (trmi_batch_line){.at = at, .bytes = (uint32_t)bytes};
    return TRM_OK;
}

static trm_status check_line(trmi_batch_run *r, size_t at, size_t bytes)
{
    const char *line = r->text + at, *code, *param;
    trmi_batch_request q;
    char message[128];
    trm_status st;

    if (bytes > r->body_max + 4096) {
        snprintf(message, sizeof(message), "the line has %zu bytes, wanted at most %zu", bytes,
                 r->body_max + 4096);
        trmi_batch_add_error(r, "invalid_json_line", NULL, r->line_no, message);
        return TRM_OK;
    }
    st = trmi_batch_request_read(line, bytes, r->batch->endpoint, r->body_max, &q, &code, &param);
    if (st == TRM_ERR_NO_MEMORY)
        return st;
    if (st != TRM_OK) {
        trmi_batch_add_error(r, code, param, r->line_no, trm_message());
        return TRM_OK;
    }
    if (json_object_get(r->seen, q.id) != NULL)
        trmi_batch_add_error(r, "duplicate_custom_id", "custom_id", r->line_no,
                             "another line has this custom_id");
    else if (json_object_set_new(r->seen, q.id, json_integer(r->count)) != 0)
        st = trm_fail(TRM_ERR_NO_MEMORY, "a line");
    else
        st = add_line(r, at, bytes);
    trm_free(q.id);
    return st;
}

/* The next line of [at, bytes); what stands in it without the blanks around. */
static size_t next_line(const char *text, size_t bytes, size_t at, size_t *from_out,
                        size_t *length_out)
{
    const char *end = memchr(text + at, '\n', bytes - at);
    size_t stop = end != NULL ? (size_t)(end - text) : bytes, from = at, to = stop;

    while (from < to && (text[from] == ' ' || text[from] == '\t' || text[from] == '\r'))
        from++;
    while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t' || text[to - 1] == '\r'))
        to--;
    *from_out = from;
    *length_out = to - from;
    return end != NULL ? stop + 1 : bytes;
}

trm_status trmi_batch_check_some(trmi_batch_run *r, bool *done_out)
{
    size_t start = r->at;

    *done_out = false;
    if (r->at == 0 && r->bytes >= 3 && memcmp(r->text, "\xef\xbb\xbf", 3) == 0)
        r->at = 3;
    for (int i = 0; i < CHECK_LINES && r->at - start < CHECK_BYTES && r->at < r->bytes; i++) {
        size_t from, length;

        r->at = next_line(r->text, r->bytes, r->at, &from, &length);
        r->line_no++;
        if (length == 0)
            continue;
        if (r->count == TRMI_OPENAI_BATCH_LINES) {
            char message[64];

            snprintf(message, sizeof(message), "more than %d lines", TRMI_OPENAI_BATCH_LINES);
            trmi_batch_add_error(r, "too_many_tasks", NULL, r->line_no, message);
            r->at = r->bytes;
            break;
        }
        TRM_CHECK(check_line(r, from, length));
        if (json_array_size(r->errors) == TRMI_OPENAI_BATCH_ERRORS)
            r->at = r->bytes;
    }
    trm_file_release(r->file, (size_t)(r->text - (const char *)trm_file_data(r->file)) + start,
                     r->at - start);
    if (r->at < r->bytes)
        return TRM_OK;
    if (r->count == 0 && json_array_size(r->errors) == 0)
        trmi_batch_add_error(r, "empty_file", NULL, 0, "the input file has no lines");
    *done_out = true;
    return TRM_OK;
}

/* Lines of one output. What is behind the last whole line of ours was torn. */
static trm_status resume_from(trmi_batch_run *r, int fd, const char *id, int *count_out)
{
    char *path = trmi_openai_data_path(r->f, id);
    trm_file *file = NULL;
    const char *text;
    size_t bytes, at = 0;
    trm_status st = path != NULL ? trm_file_open(path, &file) : TRM_ERR_NO_MEMORY;

    trm_free(path);
    if (st != TRM_OK)
        return st;
    text = (const char *)trm_file_data(file);
    bytes = trm_file_bytes(file);
    while (at < bytes) {
        const char *end = memchr(text + at, '\n', bytes - at);
        const json_t *index;
        char *custom;

        if (end == NULL ||
            trmi_batch_line_id(text + at, (size_t)(end - text) - at, &custom) != TRM_OK)
            break;
        index = json_object_get(r->seen, custom);
        trm_free(custom);
        if (index != NULL) {
            trmi_batch_line *line = &r->lines[json_integer_value(index)];

            *count_out += line->state != TRMI_LINE_DONE;
            line->state = TRMI_LINE_DONE;
        }
        at = (size_t)(end - text) + 1;
    }
    if (at < bytes && ftruncate(fd, (off_t)at) != 0)
        st = trm_fail(TRM_ERR_IO, "cannot cut an output: %s", strerror(errno));
    trm_file_unref(file);
    return st;
}

trm_status trmi_batch_resume(trmi_batch_run *r, int *completed_out, int *failed_out)
{
    *completed_out = *failed_out = 0;
    TRM_CHECK(resume_from(r, r->out_fd, r->batch->output, completed_out));
    TRM_CHECK(resume_from(r, r->err_fd, r->batch->error, failed_out));
    json_decref(r->seen);
    r->seen = NULL;
    return TRM_OK;
}
