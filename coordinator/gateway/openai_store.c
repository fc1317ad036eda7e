/* The store of files and batches: a folder that only this process uses.
 *
 *   lock                 held while it is open
 *   files/ID.json        what is known of a file      files/ID.data     its bytes
 *   batches/ID.json      a batch as it is now
 *
 * Descriptions are written beside their place and renamed into it, so that each is whole at any
 * time. A content without a description (an upload that was cut off, the output of a batch that is
 * not finished) is nobody's file; those of unfinished batches are kept at the start, the others
 * are removed. Reading and writing the descriptions: openai_store_text.c. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_impl.h"

#include "base/file.h"
#include "base/log.h"
#include "coordinator/gateway/openai_store_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

trm_status trmi_openai_new_id(const char *prefix, char id_out[TRMI_OPENAI_ID_BYTES])
{
    unsigned char bytes[TRMI_STORE_ID_DIGITS / 2];
    size_t n = strlen(prefix);

    if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
        return trm_fail(TRM_ERR_IO, "no random bytes: %s", strerror(errno));
    memcpy(id_out, prefix, n);
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(id_out + n + 2 * i, 3, "%02x", bytes[i]);
    return TRM_OK;
}

bool trmi_store_id_ok(const char *id)
{
    static const char *const prefixes[] = {"file-", "batch_"};

    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(prefixes[i]);

        if (strncmp(id, prefixes[i], n) == 0)
            return strlen(id) == n + TRMI_STORE_ID_DIGITS &&
                   strspn(id + n, "0123456789abcdef") == TRMI_STORE_ID_DIGITS;
    }
    return false;
}

char *trmi_store_path(const struct trmi_openai_files *f, const char *part, const char *id,
                      const char *extension)
{
    size_t n = strlen(f->folder) + strlen(part) + strlen(id) + strlen(extension) + 3;
    char *path = trm_malloc(n, 1);

    if (path != NULL)
        snprintf(path, n, "%s/%s%s%s%s", f->folder, part, id[0] != '\0' ? "/" : "", id, extension);
    return path;
}

char *trmi_openai_data_path(const struct trmi_openai_files *f, const char *id)
{
    return trmi_store_path(f, "files", id, ".data");
}

/* ---- finding; callers hold mu ---- */
trmi_openai_file *trmi_openai_find_file(struct trmi_openai_files *f, const char *owner,
                                        const char *id)
{
    for (int i = 0; i < f->file_count; i++)
        if (strcmp(f->files[i]->id, id) == 0)
            return owner == NULL || strcmp(f->files[i]->owner, owner) == 0 ? f->files[i] : NULL;
    return NULL;
}

trmi_openai_batch *trmi_openai_find_batch(struct trmi_openai_files *f, const char *owner,
                                          const char *id)
{
    for (int i = 0; i < f->batch_count; i++)
        if (strcmp(f->batches[i]->id, id) == 0)
            return owner == NULL || strcmp(f->batches[i]->owner, owner) == 0 ? f->batches[i] : NULL;
    return NULL;
}

void trmi_openai_file_free(trmi_openai_file *file)
{
    if (file == NULL)
        return;
    trm_free(file->owner);
    trm_free(file->filename);
    trm_free(file);
}

void trmi_openai_batch_free(trmi_openai_batch *batch)
{
    if (batch == NULL)
        return;
    trm_free(batch->owner);
    json_decref(batch->metadata);
    json_decref(batch->errors);
    trm_free(batch);
}

/* Room for one more pointer. */
static trm_status more_room(void ***list, int count, int *max)
{
    int wanted = count < 16 ? 16 : 2 * count;
    void **more;

    if (count < *max)
        return TRM_OK;
    more = trm_realloc(*list, (size_t)wanted, sizeof(*more));
    if (more == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a list of %d", wanted);
    *list = more;
    *max = wanted;
    return TRM_OK;
}

static void remove_path(char *path)
{
    if (path != NULL)
        (void)unlink(path);
    trm_free(path);
}

/* ---- files ---- */
trm_status trmi_openai_add_file(struct trmi_openai_files *f, trmi_openai_file *file)
{
    trmi_openai_file *old = NULL;
    int owned = 0;
    trm_status st = TRM_OK;

    pthread_mutex_lock(&f->mu);
    for (int i = 0; i < f->file_count; i++)
        owned += strcmp(f->files[i]->owner, file->owner) == 0;
    /* what a batch has computed is not thrown away for it */
    if (owned >= TRMI_OPENAI_FILES_MAX && strcmp(file->purpose, "batch_output") != 0)
        st = trm_fail(TRM_ERR_INVALID_ARG, "%d files are stored; delete some", owned);
    pthread_mutex_unlock(&f->mu);
    if (st != TRM_OK)
        return st;
    TRM_CHECK(trmi_store_write_file(f, file));
    pthread_mutex_lock(&f->mu);
    for (int i = 0; i < f->file_count && old == NULL; i++)
        if (strcmp(f->files[i]->id, file->id) == 0) {
            old = f->files[i];
            f->files[i] = file;
        }
    if (old == NULL) {
        st = more_room((void ***)&f->files, f->file_count, &f->file_max);
        if (st == TRM_OK)
            f->files[f->file_count++] = file;
    }
    pthread_mutex_unlock(&f->mu);
    trmi_openai_file_free(old);
    if (st != TRM_OK)
        remove_path(trmi_store_path(f, "files", file->id, ".json"));
    return st;
}

trm_status trmi_openai_delete_file(struct trmi_openai_files *f, const char *owner, const char *id)
{
    trmi_openai_file *file;
    trm_status st = TRM_OK;

    pthread_mutex_lock(&f->mu);
    file = trmi_openai_find_file(f, owner, id);
    if (file == NULL)
        st = trm_fail(TRM_ERR_NOT_FOUND, "no file '%.60s'", id);
    for (int i = 0; i < f->batch_count && st == TRM_OK; i++)
        if (!trmi_batch_final(f->batches[i]->status) && strcmp(f->batches[i]->input, id) == 0)
            st = trm_fail(TRM_ERR_INVALID_ARG, "the batch '%s' is not finished and needs the file",
                          f->batches[i]->id);
    for (int i = 0; i < f->file_count && st == TRM_OK; i++)
        if (f->files[i] == file) {
            memmove(&f->files[i], &f->files[i + 1],
                    (size_t)(f->file_count - i - 1) * sizeof(f->files[0]));
            f->file_count--;
            break;
        }
    pthread_mutex_unlock(&f->mu);
    if (st != TRM_OK)
        return st;
    remove_path(trmi_store_path(f, "files", file->id, ".json"));
    remove_path(trmi_openai_data_path(f, file->id));
    trmi_openai_file_free(file);
    return TRM_OK;
}

/* ---- batches ---- */
/* Forgets the oldest finished one where there are too many. Under mu. */
static trm_status batch_room(struct trmi_openai_files *f)
{
    TRM_CHECK(more_room((void ***)&f->batches, f->batch_count, &f->batch_max));
    if (f->batch_count < TRMI_OPENAI_BATCHES_MAX)
        return TRM_OK;
    for (int i = 0; i < f->batch_count; i++) {
        trmi_openai_batch *b = f->batches[i];

        if (!trmi_batch_final(b->status) || b->run)
            continue;
        memmove(&f->batches[i], &f->batches[i + 1],
                (size_t)(f->batch_count - i - 1) * sizeof(f->batches[0]));
        f->batch_count--;
        remove_path(trmi_store_path(f, "batches", b->id, ".json"));
        trmi_openai_batch_free(b);
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_TIMEOUT, "%d batches are not finished; come again later",
                    f->batch_count);
}

trm_status trmi_openai_add_batch(struct trmi_openai_files *f, trmi_openai_batch *batch)
{
    trm_status st = trmi_openai_save_batch(f, batch); /* nobody else knows it yet */

    if (st != TRM_OK)
        return st;
    pthread_mutex_lock(&f->mu);
    st = batch_room(f);
    if (st == TRM_OK)
        f->batches[f->batch_count++] = batch;
    pthread_mutex_unlock(&f->mu);
    if (st != TRM_OK)
        remove_path(trmi_store_path(f, "batches", batch->id, ".json"));
    return st;
}

trm_status trmi_openai_save_batch(struct trmi_openai_files *f, trmi_openai_batch *batch)
{
    json_t *o;

    pthread_mutex_lock(&f->mu);
    o = trmi_store_batch_text(batch);
    pthread_mutex_unlock(&f->mu);
    return trmi_store_write(f, "batches", batch->id, o);
}

/* ---- opening ---- */
static int by_age_file(const void *a, const void *b)
{
    const trmi_openai_file *p = *(trmi_openai_file *const *)a, *q = *(trmi_openai_file *const *)b;

    return p->created != q->created ? (p->created < q->created ? -1 : 1) : strcmp(p->id, q->id);
}

static int by_age_batch(const void *a, const void *b)
{
    const trmi_openai_batch *p = *(trmi_openai_batch *const *)a;
    const trmi_openai_batch *q = *(trmi_openai_batch *const *)b;

    return p->created != q->created ? (p->created < q->created ? -1 : 1) : strcmp(p->id, q->id);
}

static trm_status make_folder(const char *path)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return trm_fail(TRM_ERR_CONFIG, "cannot make the folder '%s': %s", path, strerror(errno));
    if (!trm_path_is_dir(path))
        return trm_fail(TRM_ERR_CONFIG, "'%s' is not a folder", path);
    return TRM_OK;
}

static trm_status make_part(struct trmi_openai_files *f, const char *part)
{
    char *path = trmi_store_path(f, part, "", "");
    trm_status st = path != NULL ? make_folder(path) : trm_fail(TRM_ERR_NO_MEMORY, "a path");

    trm_free(path);
    return st;
}

static trm_status lock_folder(struct trmi_openai_files *f)
{
    char *path = trmi_store_path(f, "lock", "", "");
    trm_status st = TRM_OK;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a path");
    f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->lock_fd < 0)
        st = trm_fail(TRM_ERR_CONFIG, "cannot write in '%s': %s", f->folder, strerror(errno));
    else if (flock(f->lock_fd, LOCK_EX | LOCK_NB) != 0)
        st = trm_fail(TRM_ERR_CONFIG, "the folder '%s' is in use by another process", f->folder);
    trm_free(path);
    return st;
}

/* Calls `each` with the id and the extension of every entry that is named as ours are. */
static trm_status walk(struct trmi_openai_files *f, const char *part,
                       trm_status (*each)(struct trmi_openai_files *f, const char *id,
                                          const char *extension))
{
    char *path = trmi_store_path(f, part, "", "");
    DIR *dir = path != NULL ? opendir(path) : NULL;
    const struct dirent *e;
    trm_status st = TRM_OK;

    trm_free(path);
    if (dir == NULL)
        return trm_fail(TRM_ERR_IO, "cannot read '%s/%s'", f->folder, part);
    while (st == TRM_OK && (e = readdir(dir)) != NULL) {
        const char *dot = strchr(e->d_name, '.');
        char id[TRMI_OPENAI_ID_BYTES];

        if (dot == NULL || (size_t)(dot - e->d_name) >= sizeof(id))
            continue;
        memcpy(id, e->d_name, (size_t)(dot - e->d_name));
        id[dot - e->d_name] = '\0';
        if (trmi_store_id_ok(id))
            st = each(f, id, dot);
    }
    closedir(dir);
    return st;
}

/* One that cannot be read is left where it is, and said: it must not keep the others away. */
static trm_status load_file(struct trmi_openai_files *f, const char *id, const char *extension)
{
    trmi_openai_file *file;

    if (strcmp(extension, ".json") != 0)
        return TRM_OK;
    if (trmi_store_read_file(f, id, &file) != TRM_OK) {
        TRM_LOG(TRM_LOG_WARN, "gateway", "file %s is left out: %s", id, trm_message());
        return TRM_OK;
    }
    if (more_room((void ***)&f->files, f->file_count, &f->file_max) != TRM_OK) {
        trmi_openai_file_free(file);
        return TRM_ERR_NO_MEMORY;
    }
    f->files[f->file_count++] = file;
    return TRM_OK;
}

static trm_status load_batch(struct trmi_openai_files *f, const char *id, const char *extension)
{
    trmi_openai_batch *batch;

    if (strcmp(extension, ".json") != 0)
        return TRM_OK;
    if (trmi_store_read_batch(f, id, &batch) != TRM_OK) {
        TRM_LOG(TRM_LOG_WARN, "gateway", "batch %s is left out: %s", id, trm_message());
        return TRM_OK;
    }
    if (more_room((void ***)&f->batches, f->batch_count, &f->batch_max) != TRM_OK) {
        trmi_openai_batch_free(batch);
        return TRM_ERR_NO_MEMORY;
    }
    f->batches[f->batch_count++] = batch;
    return TRM_OK;
}

/* A content that no description and no unfinished batch speaks of, or half a description. */
static trm_status sweep(struct trmi_openai_files *f, const char *id, const char *extension)
{
    bool wanted = strcmp(extension, ".json") == 0;

    if (strcmp(extension, ".data") == 0) {
        char *path = trmi_store_path(f, "files", id, ".json");

        wanted = path == NULL || trm_path_exists(path);
        trm_free(path);
        for (int i = 0; i < f->batch_count && !wanted; i++)
            wanted =
                !trmi_batch_final(f->batches[i]->status) &&
                (strcmp(f->batches[i]->output, id) == 0 || strcmp(f->batches[i]->error, id) == 0);
    }
    if (!wanted)
        remove_path(trmi_store_path(f, "files", id, extension));
    return TRM_OK;
}

static trm_status private_folder(struct trmi_openai_files *f)
{
    const char *tmp = getenv("TMPDIR");

    f->folder = trm_path_join(tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp", "trireme-files-XXXXXX");
    if (f->folder == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a path");
    if (mkdtemp(f->folder) == NULL) {
        trm_status st =
            trm_fail(TRM_ERR_IO, "cannot make a folder '%s': %s", f->folder, strerror(errno));

        trm_free(f->folder);
        f->folder = NULL;
        return st;
    }
    f->private_folder = true;
    return TRM_OK;
}

trm_status trmi_openai_store_open(struct trmi_openai_files *f, const char *folder)
{
    f->lock_fd = -1;
    if (folder == NULL) {
        TRM_CHECK(private_folder(f));
    } else {
        f->folder = trm_strdup(folder);
        if (f->folder == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a path");
        TRM_CHECK(make_folder(folder));
    }
    TRM_CHECK(lock_folder(f));
    TRM_CHECK(make_part(f, "files"));
    TRM_CHECK(make_part(f, "batches"));
    TRM_CHECK(walk(f, "files", load_file));
    TRM_CHECK(walk(f, "batches", load_batch));
    TRM_CHECK(walk(f, "files", sweep));
    if (f->file_count > 1)
        qsort(f->files, (size_t)f->file_count, sizeof(f->files[0]), by_age_file);
    if (f->batch_count > 1)
        qsort(f->batches, (size_t)f->batch_count, sizeof(f->batches[0]), by_age_batch);
    return TRM_OK;
}

static void remove_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_path(trm_path_join(folder, e->d_name));
    if (dir != NULL)
        closedir(dir);
    (void)rmdir(folder);
}

void trmi_openai_store_close(struct trmi_openai_files *f)
{
    if (f->private_folder) {
        static const char *const parts[] = {"files", "batches", ""};

        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
            char *path = trm_path_join(f->folder, parts[i]);

            if (path != NULL)
                remove_folder(path);
            trm_free(path);
        }
    }
    if (f->lock_fd >= 0)
        (void)close(f->lock_fd);
    f->lock_fd = -1;
    for (int i = 0; i < f->file_count; i++)
        trmi_openai_file_free(f->files[i]);
    for (int i = 0; i < f->batch_count; i++)
        trmi_openai_batch_free(f->batches[i]);
    trm_free(f->files);
    trm_free(f->batches);
    trm_free(f->folder);
    f->files = NULL;
    f->batches = NULL;
    f->file_count = f->batch_count = f->file_max = f->batch_max = 0;
    f->folder = NULL;
}
