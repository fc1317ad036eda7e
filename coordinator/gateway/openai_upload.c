/* An upload to /v1/files: its parts are found, and the body as it came becomes the file. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_impl.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool part_is(const trm_http_part *p, const char *name)
{
    return p->name != NULL && strcmp(p->name, name) == 0;
}

static trm_status read_purpose(const trm_http_part *p, trmi_openai_file *file)
{
    const char *text = p != NULL ? p->data : NULL;

    if (text == NULL || p->bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "purpose is missing, wanted for example batch");
    if (p->bytes >= sizeof(file->purpose))
        return trm_fail(TRM_ERR_INVALID_ARG, "purpose has %zu bytes, wanted at most %zu", p->bytes,
                        sizeof(file->purpose) - 1);
    for (size_t i = 0; i < p->bytes; i++)
        if (!((text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9') ||
              text[i] == '_' || text[i] == '-'))
            return trm_fail(TRM_ERR_INVALID_ARG, "purpose is not a word, wanted for example batch");
    memcpy(file->purpose, text, p->bytes);
    file->purpose[p->bytes] = '\0';
    return TRM_OK;
}

/* The last component, at most 255 bytes, without control characters. */
static trm_status read_filename(const char *name, trmi_openai_file *file)
{
    size_t n;

    if (name == NULL)
        name = "";
    for (const char *p = name; *p != '\0'; p++)
        if (*p == '/' || *p == '\\')
            name = p + 1;
    n = strnlen(name, 255);
    if (n == 0) {
        name = "upload";
        n = strlen(name);
    }
    file->filename = trm_malloc(n + 1, 1);
    if (file->filename == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a file's name");
    for (size_t i = 0; i < n; i++)
        file->filename[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '_' : name[i];
    file->filename[n] = '\0';
    return TRM_OK;
}

static trm_status read_parts(const trm_http_exchange *x, const void *body, size_t bytes,
                             trm_arena *arena, trmi_openai_file *file,
                             const trm_http_part **content_out)
{
    const char *type = trm_http_header(x, "Content-Type");
    const trm_http_part *parts, *purpose = NULL, *content = NULL;
    int count;

    TRM_CHECK(trm_http_multipart(type != NULL ? type : "", body, bytes, arena, &parts, &count));
    for (int i = 0; i < count; i++) {
        if (part_is(&parts[i], "purpose"))
            purpose = &parts[i];
        if (part_is(&parts[i], "file"))
            content = &parts[i];
    }
    if (content == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "file is missing, wanted a part of that name");
    TRM_CHECK(read_purpose(purpose, file));
    TRM_CHECK(read_filename(content->filename, file));
    file->bytes = content->bytes;
    *content_out = content;
    return TRM_OK;
}

static trm_status write_content(const char *path, const void *data, size_t bytes)
{
    const char *p = data;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    trm_status st = TRM_OK;

    if (fd < 0)
        return trm_fail(TRM_ERR_IO, "cannot write a file: %s", strerror(errno));
    while (bytes > 0 && st == TRM_OK) {
        ssize_t n = write(fd, p, bytes < (1 << 20) ? bytes : (size_t)1 << 20);

        if (n < 0 && errno != EINTR)
            st = trm_fail(TRM_ERR_IO, "cannot write a file: %s", strerror(errno));
        if (n > 0) {
            p += n;
            bytes -= (size_t)n;
        }
    }
    if (close(fd) != 0 && st == TRM_OK)
        st = trm_fail(TRM_ERR_IO, "cannot write a file: %s", strerror(errno));
    return st;
}

/* The body as it came becomes the file, with the place of the content in it: nothing is copied
 * where the two folders lie on one file system. */
static trm_status keep(const char *data_path, const char *body_path, const void *body,
                       const trm_http_part *content, trmi_openai_file *file)
{
    if (body_path != NULL && rename(body_path, data_path) == 0) {
        file->offset = (size_t)((const char *)content->data - (const char *)body);
        return TRM_OK;
    }
    file->offset = 0;
    return write_content(data_path, content->data, content->bytes);
}

static void upload_work(struct trmi_openai_files *f, trm_http_exchange *x)
{
    trmi_openai_file *file = trm_calloc(1, sizeof(*file));
    const char *body_path = trm_http_body_path(x);
    const trm_http_part *content = NULL;
    const void *body = NULL;
    size_t bytes;
    trm_file *mapped = NULL;
    trm_arena *arena = NULL;
    char *data_path = NULL;
    json_t *o;
    trm_status st = file != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "a file");

    if (st != TRM_OK)
        goto fail;
    TRM_TRY(st, trm_arena_create(0, &arena), fail);
    if (body_path != NULL) {
        TRM_TRY(st, trm_file_open(body_path, &mapped), fail);
        body = trm_file_data(mapped);
        bytes = trm_file_bytes(mapped);
    } else {
        body = trm_http_body(x, &bytes);
    }
    TRM_TRY(st, read_parts(x, body, bytes, arena, file, &content), fail);
    TRM_TRY(st, trmi_openai_new_id("file-", file->id), fail);
    file->owner = trm_strdup(trm_http_key_name(x));
    data_path = trmi_openai_data_path(f, file->id);
    file->created = time(NULL);
    if (file->owner == NULL || data_path == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a file");
        goto fail;
    }
    st = keep(data_path, body_path, body, content, file);
    o = trmi_openai_file_json(file); /* before others can delete it */
    if (st == TRM_OK)
        st = trmi_openai_add_file(f, file);
    if (st != TRM_OK) {
        json_decref(o);
        (void)unlink(data_path);
        goto fail;
    }
    file = NULL;
    trm_file_unref(mapped);
    trm_arena_destroy(arena);
    trm_free(data_path);
    trm_http_answer_json(x, 200, o);
    return;

fail:
    trmi_openai_fail_status(x, st);
    trmi_openai_file_free(file);
    trm_file_unref(mapped);
    trm_arena_destroy(arena);
    trm_free(data_path);
}

void trmi_openai_upload(void *ctx, trm_http_exchange *x)
{
    struct trmi_openai_files *f = trmi_openai_files_of(x);

    (void)ctx;
    if (f != NULL)
        trmi_openai_later(f, x, upload_work);
}
