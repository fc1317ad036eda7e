/* Images: a folder, a list file, a single file. Only paths travel; the replica reads the file. */
#define _GNU_SOURCE
#include "base/file.h"
#include "coordinator/source.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

struct images {
    trm_source base;
    char *folder; /* paths are relative to it */
    char **names; /* a folder's, or a single file's */
    int64_t at;
    FILE *list; /* or a list file */
    char *line;
    size_t line_max;
    char *path; /* of the record last given out */
};

static void images_close(trm_source *s)
{
    struct images *m = (struct images *)s;

    for (int64_t i = 0; m->names != NULL && i < m->base.count; i++)
        trm_free(m->names[i]);
    trm_free(m->names);
    if (m->list != NULL)
        fclose(m->list);
    free(m->line);
    trm_free(m->folder);
    trm_free(m->path);
    trm_free(m);
}

static trm_status give(struct images *m, const char *name, trm_wire_record *record_out)
{
    trm_free(m->path);
    m->path = trm_path_join(m->folder, name);
    if (m->path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "path of '%s'", name);
    record_out->kind = TRM_RECORD_IMAGE_PATH;
    record_out->name = name;
    record_out->bytes = m->path;
    record_out->byte_count = strlen(m->path);
    return TRM_OK;
}

static trm_status folder_next(trm_source *s, trm_wire_record *record_out, bool *end_out)
{
    struct images *m = (struct images *)s;

    if (m->at >= m->base.count) {
        *end_out = true;
        return TRM_OK;
    }
    return give(m, m->names[m->at++], record_out);
}

static trm_status folder_skip(trm_source *s, int64_t count)
{
    ((struct images *)s)->at += count;
    return TRM_OK;
}

/* Names and sizes. No times: they change where a data set is copied to a node before each run. */
static trm_status folder_identify(const trm_source *s, trm_hash *h)
{
    const struct images *m = (const struct images *)s;

    for (int64_t i = 0; i < m->base.count; i++) {
        char *path = trm_path_join(m->folder, m->names[i]);
        struct stat info;

        if (path == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "path of '%s'", m->names[i]);
        trm_hash_text(h, m->names[i]);
        trm_hash_u64(h, stat(path, &info) == 0 ? (uint64_t)info.st_size : UINT64_MAX);
        trm_free(path);
    }
    return TRM_OK;
}

static const trm_source_ops folder_ops = {.name = "images",
                                          .next = folder_next,
                                          .skip = folder_skip,
                                          .identify = folder_identify,
                                          .close = images_close};

/* The next line that is not empty, without its end. */
static trm_status list_next(trm_source *s, trm_wire_record *record_out, bool *end_out)
{
    struct images *m = (struct images *)s;

    for (;;) {
        ssize_t n = getline(&m->line, &m->line_max, m->list);

        if (n < 0 && ferror(m->list))
            return trm_fail(TRM_ERR_IO, "the list of images: %s", strerror(errno));
        if (n < 0) {
            *end_out = true;
            return TRM_OK;
        }
        if (strlen(m->line) != (size_t)n)
            return trm_fail(
                TRM_ERR_BAD_FILE,
                "the list of images holds a zero byte: want text, one image path a line");
        while (n > 0 && (m->line[n - 1] == '\n' || m->line[n - 1] == '\r'))
            m->line[--n] = '\0';
        if (n > 0)
            return give(m, m->line, record_out);
    }
}

static const trm_source_ops list_ops = {.name = "list", .next = list_next, .close = images_close};

static trm_status make(const trm_source_ops *ops, char *folder, struct images **images_out)
{
    struct images *m = trm_calloc(1, sizeof(*m));

    if (m == NULL || folder == NULL) {
        trm_free(m);
        trm_free(folder);
        return trm_fail(TRM_ERR_NO_MEMORY, "source of images");
    }
    m->base.ops = ops;
    m->base.images = true;
    m->folder = folder;
    *images_out = m;
    return TRM_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_image(const char *name)
{
    const char *e = trm_path_extension(name);

    return name[0] != '.' &&
           (strcasecmp(e, "png") == 0 || strcasecmp(e, "jpg") == 0 || strcasecmp(e, "jpeg") == 0);
}

static trm_status add_name(struct images *m, const char *name, int64_t *names_max)
{
    if (m->base.count == *names_max) {
        int64_t room = *names_max == 0 ? 256 : *names_max * 2;
        char **grown = trm_realloc(m->names, (size_t)room, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%lld file names", (long long)room);
        m->names = grown;
        *names_max = room;
    }
    m->names[m->base.count] = trm_strdup(name);
    if (m->names[m->base.count] == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "file name '%s'", name);
    m->base.count++;
    return TRM_OK;
}

trm_status trmi_source_folder(const char *path, trm_source **source_out)
{
    struct images *m = NULL;
    int64_t names_max = 0;
    struct dirent *entry;
    trm_status st;
    DIR *dir = opendir(path);

    if (dir == NULL)
        return trm_fail(TRM_ERR_IO, "input '%s': %s", path, strerror(errno));
    TRM_TRY(st, make(&folder_ops, trm_strdup(path), &m), fail);
    while ((entry = readdir(dir)) != NULL)
        if (is_image(entry->d_name))
            TRM_TRY(st, add_name(m, entry->d_name, &names_max), fail);
    if (m->base.count == 0) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "input '%s': no .png, .jpg or .jpeg file in it", path);
        goto fail;
    }
    qsort(m->names, (size_t)m->base.count, sizeof(*m->names), by_name);
    closedir(dir);
    *source_out = &m->base;
    return TRM_OK;

fail:
    closedir(dir);
    if (m != NULL)
        images_close(&m->base);
    return st;
}

trm_status trmi_source_image(const char *path, trm_source **source_out)
{
    struct images *m = NULL;
    int64_t names_max = 0;
    trm_status st;

    TRM_CHECK(make(&folder_ops, trm_strdup("."), &m));
    TRM_TRY(st, add_name(m, path, &names_max), fail);
    *source_out = &m->base;
    return TRM_OK;

fail:
    images_close(&m->base);
    return st;
}

trm_status trmi_source_list(const char *path, trm_source **source_out)
{
    trm_wire_record record;
    struct images *m = NULL;
    trm_status st;
    bool end;

    TRM_CHECK(make(&list_ops, trm_path_dir(path), &m));
    m->base.count = -1;
    m->list = fopen(path, "re");
    if (m->list == NULL) {
        st = trm_fail(TRM_ERR_IO, "input '%s': %s", path, strerror(errno));
        goto fail;
    }
    st = trm_source_next(&m->base, &record, &end);
    if (st != TRM_OK) {
        st = trm_fail_context(st, "input '%s'", path);
        goto fail;
    }
    if (end) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is empty: want one image path a line", path);
        goto fail;
    }
    rewind(m->list);
    *source_out = &m->base;
    return TRM_OK;

fail:
    images_close(&m->base);
    return st;
}
