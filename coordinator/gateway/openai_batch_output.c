/* The outputs of a batch: a line for each request, in a file of answers and one of failures. A line
 * is written whole or not at all. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_batch_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static trm_status room(trmi_batch_run *r, size_t bytes)
{
    char *more;

    if (bytes <= r->buffer_max)
        return TRM_OK;
    more = trm_realloc(r->buffer, bytes, 1);
    if (more == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a line of %zu bytes", bytes);
    r->buffer = more;
    r->buffer_max = bytes;
    return TRM_OK;
}

static trm_status append(int fd, const char *data, size_t bytes)
{
    size_t done = 0;
    struct stat before;
    int why = 0;

    if (fstat(fd, &before) != 0)
        return trm_fail(TRM_ERR_IO, "an output: %s", strerror(errno));
    while (done < bytes && why == 0) {
        ssize_t n = write(fd, data + done, bytes - done);

        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && errno != EINTR)
            why = errno;
    }
    if (why == 0)
        return TRM_OK;
    if (done > 0 && ftruncate(fd, before.st_size) != 0)
        return trm_fail(TRM_ERR_IO, "cannot write or cut an output: %s", strerror(why));
    return trm_fail(TRM_ERR_IO, "cannot write an output: %s", strerror(why));
}

trm_status trmi_batch_write_line(trmi_batch_run *r, int line, int status, const char *request_id,
                                 const void *body, size_t bytes, const char *code,
                                 const char *message)
{
    const trmi_batch_line *l = &r->lines[line];
    char id[TRMI_OPENAI_ID_BYTES];
    const char *unused_code, *unused_param;
    trmi_batch_request q = {.id = NULL};
    char *error = NULL;
    size_t want, used = 0;
    json_t *o;
    int fd = status == 200 ? r->out_fd : r->err_fd;
    trm_status st;

    TRM_TRY(st,
            trmi_batch_request_read(r->text + l->at, l->bytes, r->batch->endpoint, r->body_max, &q,
                                    &unused_code, &unused_param),
            out);
    TRM_TRY(st, trmi_openai_new_id("batch_req_", id), out);
    if (code != NULL) {
        o = json_pack("{s:s,s:o}", "code", code, "message", trmi_openai_string(message));
        error = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
        json_decref(o);
        if (error == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "a line");
            goto out;
        }
    }
    if (!trm_add_ok(bytes, q.custom_id_bytes + 256 + (error != NULL ? strlen(error) : 0), &want)) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a line");
        goto out;
    }
    TRM_TRY(st, room(r, want), out);
    used = (size_t)snprintf(r->buffer, r->buffer_max,
                            "{\"id\":\"%s\",\"custom_id\":%.*s,\"response\":", id,
                            (int)q.custom_id_bytes, q.custom_id);
    if (error != NULL) {
        used +=
            (size_t)snprintf(r->buffer + used, r->buffer_max - used, "null,\"error\":%s}\n", error);
    } else {
        used += (size_t)snprintf(r->buffer + used, r->buffer_max - used,
                                 "{\"status_code\":%d,\"request_id\":\"%s\",\"body\":", status,
                                 request_id);
        memcpy(r->buffer + used, body, bytes);
        for (size_t i = used; i < used + bytes; i++) /* JSON has line ends between tokens only */
            if (r->buffer[i] == '\n' || r->buffer[i] == '\r')
                r->buffer[i] = ' ';
        used += bytes;
        used += (size_t)snprintf(r->buffer + used, r->buffer_max - used, "},\"error\":null}\n");
    }
    st = append(fd, r->buffer, used);

out:
    free(error);
    trm_free(q.id);
    return st;
}

static trm_status publish_one(trmi_batch_run *r, int fd, const char *id, const char *what,
                              bool *out)
{
    trmi_openai_file *file;
    struct stat info;
    char name[128];
    trm_status st;

    *out = false;
    if (fd < 0 || fstat(fd, &info) != 0 || info.st_size == 0)
        return TRM_OK;
    if (fsync(fd) != 0)
        return trm_fail(TRM_ERR_IO, "an output: %s", strerror(errno));
    snprintf(name, sizeof(name), "%s_%s.jsonl", r->batch->id, what);
    file = trm_calloc(1, sizeof(*file));
    if (file == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a file");
    snprintf(file->id, sizeof(file->id), "%s", id);
    snprintf(file->purpose, sizeof(file->purpose), "batch_output");
    file->owner = trm_strdup(r->batch->owner);
    file->filename = trm_strdup(name);
    file->created = time(NULL);
    file->bytes = (size_t)info.st_size;
    st = file->owner != NULL && file->filename != NULL ? trmi_openai_add_file(r->f, file)
                                                       : trm_fail(TRM_ERR_NO_MEMORY, "a file");
    if (st != TRM_OK)
        trmi_openai_file_free(file);
    *out = st == TRM_OK;
    return st;
}

trm_status trmi_batch_publish(trmi_batch_run *r, bool *output_out, bool *error_out)
{
    TRM_CHECK(publish_one(r, r->out_fd, r->batch->output, "output", output_out));
    return publish_one(r, r->err_fd, r->batch->error, "error", error_out);
}
