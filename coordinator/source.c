/* Finds the source for a path. */
#include "coordinator/source.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *extension;
    trm_status (*open)(const char *path, trm_source **source_out);
} formats[] = {
    {"png", trmi_source_image}, {"jpg", trmi_source_image},    {"jpeg", trmi_source_image},
    {"txt", trmi_source_list},  {"lst", trmi_source_list},     {"jsonl", trmi_source_jsonl},
    {"npy", trmi_source_npy},   {"ndjson", trmi_source_jsonl}, {"npz", trmi_source_npz},
};

trm_status trm_source_open(const char *path, trm_source **source_out)
{
    const char *extension = trm_path_extension(path);

    if (trm_path_is_dir(path))
        return trmi_source_folder(path, source_out);
    if (!trm_path_exists(path))
        return trm_fail(TRM_ERR_NOT_FOUND, "input '%s' does not exist", path);
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (strcasecmp(extension, formats[i].extension) == 0)
            return trm_path_is_file(path)
                       ? formats[i].open(path, source_out)
                       : trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is not a regular file", path);
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "input '%s': want a folder of images, an image (.png .jpg .jpeg), a list of "
                    "images (.txt), .jsonl, .npy or .npz",
                    path);
}

/* One that cannot be read here stays a path: the replica says what is wrong with it. */
static void send_bytes(trm_source *s, trm_wire_record *r)
{
    trm_file_unref(s->sent);
    s->sent = NULL;
    if (r->kind != TRM_RECORD_IMAGE_PATH || trm_file_open(r->bytes, &s->sent) != TRM_OK)
        return;
    r->kind = TRM_RECORD_IMAGE_BYTES;
    r->bytes = trm_file_data(s->sent);
    r->byte_count = trm_file_bytes(s->sent);
}

trm_status trm_source_next(trm_source *s, trm_wire_record *record_out, bool *end_out)
{
    memset(record_out, 0, sizeof(*record_out));
    *end_out = false;
    TRM_CHECK(s->ops->next(s, record_out, end_out));
    if (s->send_bytes && !*end_out)
        send_bytes(s, record_out);
    return TRM_OK;
}

trm_status trm_source_skip(trm_source *s, int64_t count)
{
    trm_wire_record record;
    bool end = false;

    if (s->ops->skip != NULL)
        return s->ops->skip(s, count);
    for (int64_t i = 0; i < count && !end; i++)
        TRM_CHECK(trm_source_next(s, &record, &end));
    return TRM_OK;
}

trm_status trm_source_identity(const trm_source *s, const char *path, uint64_t *hash_out)
{
    trm_hash h;

    trm_hash_init(&h, 0);
    trm_hash_text(&h, s->ops->name);
    if (trm_path_is_dir(path) && s->ops->identify != NULL)
        TRM_CHECK(s->ops->identify(s, &h));
    else
        TRM_CHECK(trm_hash_file(&h, path));
    *hash_out = trm_hash_value(&h);
    return TRM_OK;
}

void trm_source_close(trm_source *s)
{
    if (s == NULL)
        return;
    trm_file_unref(s->sent);
    s->ops->close(s);
}
