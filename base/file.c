/* Mapped files, byte cursor, path helpers. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct trm_file {
    _Atomic int refs;
    char *path;
    const unsigned char *data;
    size_t bytes;
    bool mapped;
};

static trm_status file_new(const char *path, trm_file **file_out)
{
    trm_file *f = (trm_file *)trm_calloc(1, sizeof(*f));

    if (f == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "file '%s'", path);
    f->path = trm_strdup(path);
    if (f->path == NULL) {
        trm_free(f);
        return trm_fail(TRM_ERR_NO_MEMORY, "file '%s'", path);
    }
    atomic_init(&f->refs, 1);
    f->data = (const unsigned char *)"";
    *file_out = f;
    return TRM_OK;
}

trm_status trm_file_open(const char *path, trm_file **file_out)
{
    trm_file *f = NULL;
    struct stat info;
    void *map;
    trm_status st = TRM_OK;
    /* a named pipe without a writer must not hold us here; it is refused below */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        int e = errno;

        return trm_fail(e == ENOENT || e == ENOTDIR ? TRM_ERR_NOT_FOUND : TRM_ERR_INVALID_ARG,
                        "'%s': %s", path, strerror(e));
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(fd);
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' is not a regular file", path);
    }
    TRM_TRY(st, file_new(path, &f), done);
    if (info.st_size > 0) {
        map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            st = trm_fail(TRM_ERR_IO, "'%s': mmap of %lld bytes: %s", path, (long long)info.st_size,
                          strerror(errno));
            goto done;
        }
        f->data = (const unsigned char *)map;
        f->bytes = (size_t)info.st_size;
        f->mapped = true;
    }
    *file_out = f;
    f = NULL;
done:
    close(fd);
    trm_file_unref(f);
    return st;
}

trm_status trm_file_from_memory(const void *data, size_t bytes, const char *name,
                                trm_file **file_out)
{
    TRM_CHECK(file_new(name, file_out));
    (*file_out)->data = (const unsigned char *)data;
    (*file_out)->bytes = bytes;
    return TRM_OK;
}

trm_file *trm_file_ref(trm_file *file)
{
    atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed);
    return file;
}

void trm_file_unref(trm_file *file)
{
    /* acq_rel: the last owner sees all reads of the others finished before it unmaps */
    if (file == NULL || atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (file->mapped)
        munmap((void *)(uintptr_t)file->data, file->bytes);
    trm_free(file->path);
    trm_free(file);
}

const unsigned char *trm_file_data(const trm_file *file)
{
    return file->data;
}

void trm_file_release(const trm_file *file, size_t at, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = (at + page - 1) / page * page, to;

    if (!file->mapped || at > file->bytes || bytes > file->bytes - at)
        return;
    to = (at + bytes) / page * page;
    if (from < to) /* whole pages; read-only, so the next touch finds the file's bytes again */
        (void)madvise((void *)(uintptr_t)(file->data + from), to - from, MADV_DONTNEED);
}

size_t trm_file_bytes(const trm_file *file)
{
    return file->bytes;
}

const char *trm_file_path(const trm_file *file)
{
    return file->path;
}

const unsigned char *trm_cursor_bytes(trm_cursor *c, size_t bytes)
{
    const unsigned char *p = c->at;

    if (bytes > trm_cursor_left(c)) {
        c->failed = true;
        c->at = c->end;
        return NULL;
    }
    c->at += bytes;
    return p;
}

static uint64_t read_le(trm_cursor *c, size_t bytes)
{
    const unsigned char *p = trm_cursor_bytes(c, bytes);
    uint64_t v = 0;

    if (p != NULL)
        for (size_t i = 0; i < bytes; i++)
            v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t trm_cursor_u8(trm_cursor *c)
{
    return (uint8_t)read_le(c, 1);
}

uint16_t trm_cursor_u16(trm_cursor *c)
{
    return (uint16_t)read_le(c, 2);
}

uint32_t trm_cursor_u32(trm_cursor *c)
{
    return (uint32_t)read_le(c, 4);
}

uint64_t trm_cursor_u64(trm_cursor *c)
{
    return read_le(c, 8);
}

uint64_t trm_cursor_varint(trm_cursor *c)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t b = trm_cursor_u8(c);

        if (shift < 64)
            v |= (uint64_t)(b & 0x7fu) << shift;
        if ((b & 0x80u) == 0)
            return v;
    }
    c->failed = true;
    c->at = c->end;
    return 0;
}

trm_cursor trm_cursor_sub(trm_cursor *c, size_t bytes)
{
    const unsigned char *p = trm_cursor_bytes(c, bytes);
    trm_cursor sub = trm_cursor_make(p == NULL ? c->end : p, p == NULL ? 0 : bytes);

    sub.failed = c->failed;
    return sub;
}

char *trm_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    bool slash = n > 0 && dir[n - 1] != '/';
    char *path;

    if (name[0] == '/' || n == 0)
        return trm_strdup(name);
    path = (char *)trm_malloc(n + m + 2, 1);
    if (path == NULL)
        return NULL;
    memcpy(path, dir, n);
    if (slash)
        path[n++] = '/';
    memcpy(path + n, name, m + 1);
    return path;
}

static const char *last_component(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

char *trm_path_dir(const char *path)
{
    const char *last = last_component(path);
    char *dir;

    if (last == path)
        return trm_strdup(".");
    dir = trm_strdup(path);
    if (dir != NULL)
        dir[last - path == 1 ? 1 : last - path - 1] = '\0';
    return dir;
}

const char *trm_path_extension(const char *path)
{
    const char *last = last_component(path);
    const char *dot = strrchr(last, '.');

    return dot == NULL || dot == last ? "" : dot + 1;
}

char *trm_path_stem(const char *path)
{
    const char *ext = trm_path_extension(path);
    char *stem = trm_strdup(last_component(path));
    size_t n;

    if (stem != NULL && ext[0] != '\0') {
        n = strlen(stem) - strlen(ext) - 1;
        stem[n] = '\0';
    }
    return stem;
}

bool trm_path_is_dir(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool trm_path_is_file(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool trm_path_same(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool trm_path_exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0;
}
