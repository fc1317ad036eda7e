/* The file is text: its format, what it is for, an entry a line (key, tab, hexadecimal bytes), and
 * a checksum. Written beside its place and renamed, so that a reader sees all of it or the old one;
 * what other processes have added meanwhile is read again before that, and kept. */
#define _GNU_SOURCE
#include "kernels/cuda/plan_cache.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FORMAT "trireme-plans 1"
#define FILE_BYTES_MAX ((size_t)16 << 20)
#define SAVE_SECONDS 2 /* at most one write in this time while shapes are being measured */

typedef struct entry {
    struct entry *next;
    uint64_t hash; /* of the key */
    char *key;
    unsigned char *value;
    size_t bytes;
    bool own; /* put by this process: a file's entry does not replace it */
} entry;

struct trmi_plan_cache {
    entry *entries;
    char *path, *about; /* path NULL: no folder to keep it in */
    bool dirty, failed; /* failed: the file could not be written; said once */
    int64_t saved_at;   /* seconds */
};

static uint64_t hash_bytes(const char *text, size_t n)
{
    uint64_t h = 1469598103934665603u; /* FNV-1a */

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)text[i]) * 1099511628211u;
    return h;
}

static char *cache_folder(void)
{
    const char *own = getenv("TRM_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *base, *path;

    if (own != NULL && own[0] != '\0')
        return trm_strdup(own);
    if (xdg != NULL && xdg[0] == '/')
        return trm_path_join(xdg, "trireme");
    if (home == NULL || home[0] != '/')
        return NULL;
    base = trm_path_join(home, ".cache");
    path = base == NULL ? NULL : trm_path_join(base, "trireme");
    trm_free(base);
    return path;
}

static int64_t seconds(void)
{
    struct timespec t;

    return clock_gettime(CLOCK_MONOTONIC, &t) == 0 ? (int64_t)t.tv_sec : 0;
}

/* ---- entries ---- */

static bool key_ok(const char *key)
{
    size_t n = strnlen(key, TRMI_PLAN_KEY_MAX + 1);

    if (n == 0 || n > TRMI_PLAN_KEY_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (key[i] < ' ' || key[i] > '~')
            return false;
    return true;
}

static entry *entry_of(const trmi_plan_cache *c, const char *key)
{
    uint64_t hash = hash_bytes(key, strlen(key));

    for (entry *e = c->entries; e != NULL; e = e->next)
        if (e->hash == hash && strcmp(e->key, key) == 0)
            return e;
    return NULL;
}

static void entry_free(entry *e)
{
    trm_free(e->key);
    trm_free(e->value);
    trm_free(e);
}

/* False: no memory; nothing has changed. */
static bool keep(trmi_plan_cache *c, const char *key, const void *value, size_t bytes, bool own)
{
    entry *e = entry_of(c, key);
    unsigned char *copy = trm_malloc(bytes + 1, 1);

    if (copy == NULL)
        return false;
    if (bytes > 0)
        memcpy(copy, value, bytes);
    if (e == NULL) {
        e = trm_calloc(1, sizeof(*e));
        if (e != NULL)
            e->key = trm_strdup(key);
        if (e == NULL || e->key == NULL) {
            trm_free(e);
            trm_free(copy);
            return false;
        }
        e->hash = hash_bytes(key, strlen(key));
        e->next = c->entries;
        c->entries = e;
    }
    trm_free(e->value);
    e->value = copy;
    e->bytes = bytes;
    e->own = own;
    return true;
}

/* ---- reading ---- */

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "key\thex": false where the line is torn. */
static bool read_line(trmi_plan_cache *c, char *line)
{
    unsigned char value[TRMI_PLAN_BYTES_MAX];
    char *tab = strchr(line, '\t');
    const entry *there;
    size_t n;

    if (tab == NULL)
        return false;
    *tab = '\0';
    n = strlen(tab + 1);
    if (!key_ok(line) || n % 2 != 0 || n / 2 > sizeof(value))
        return false;
    for (size_t i = 0; i < n / 2; i++) {
        int high = digit_of(tab[1 + 2 * i]), low = digit_of(tab[2 + 2 * i]);

        if (high < 0 || low < 0)
            return false;
        value[i] = (unsigned char)(high << 4 | low);
    }
    there = entry_of(c, line);
    if (there != NULL && there->own)
        return true;
    return keep(c, line, value, n / 2, false);
}

/* NULL: a good file; else what is wrong with it. */
static const char *parse(trmi_plan_cache *c, char *text, size_t bytes)
{
    char *last = NULL, *line, *next = NULL;
    size_t about = strlen(c->about);

    if (strlen(text) != bytes || strncmp(text, FORMAT "\n", sizeof(FORMAT)) != 0)
        return "of another version";
    for (char *at = strstr(text, "\nend "); at != NULL; at = strstr(at + 1, "\nend "))
        last = at;
    if (last == NULL || strtoull(last + 5, NULL, 16) != hash_bytes(text, (size_t)(last + 1 - text)))
        return "torn";
    text += sizeof(FORMAT);
    if (strncmp(text, c->about, about) != 0 || text[about] != '\n')
        return "of another GPU or library";
    last[1] = '\0';
    for (line = strtok_r(text + about, "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next))
        if (!read_line(c, line))
            return "torn";
    return NULL;
}

/* Adds what the file has; whatever is wrong with it only means that there is less. */
static void load(trmi_plan_cache *c)
{
    trm_file *file = NULL;
    const char *wrong = "too large";
    size_t bytes;
    char *text;

    if (c->path == NULL || !trm_path_is_file(c->path) || trm_file_open(c->path, &file) != TRM_OK)
        return;
    bytes = trm_file_bytes(file);
    text = bytes > FILE_BYTES_MAX ? NULL : trm_malloc(bytes + 1, 1);
    if (text != NULL) {
        if (bytes > 0)
            memcpy(text, trm_file_data(file), bytes);
        text[bytes] = '\0';
        wrong = parse(c, text, bytes);
        trm_free(text);
    }
    trm_file_unref(file);
    if (wrong != NULL)
        TRM_LOG(TRM_LOG_INFO, "cuda", "%s: %s: it will be written anew", c->path, wrong);
}

/* ---- writing ---- */

static bool make_folders(const char *path)
{
    char *copy = trm_strdup(path);
    bool ok = copy != NULL;

    for (char *at = ok ? strchr(copy + 1, '/') : NULL; at != NULL && ok; at = strchr(at + 1, '/')) {
        *at = '\0';
        ok = mkdir(copy, 0755) == 0 || errno == EEXIST;
        *at = '/';
    }
    trm_free(copy);
    return ok;
}

static void print(FILE *f, const trmi_plan_cache *c)
{
    fprintf(f, FORMAT "\n%s\n", c->about);
    for (const entry *e = c->entries; e != NULL; e = e->next) {
        fprintf(f, "%s\t", e->key);
        for (size_t i = 0; i < e->bytes; i++)
            fprintf(f, "%02x", e->value[i]);
        fputc('\n', f);
    }
}

static bool write_beside(const char *beside, const char *text, size_t bytes)
{
    FILE *f = fopen(beside, "we");
    bool wrote;

    if (f == NULL)
        return false;
    wrote = fwrite(text, 1, bytes, f) == bytes &&
            fprintf(f, "end %016llx\n", (unsigned long long)hash_bytes(text, bytes)) > 0;
    return fclose(f) == 0 && wrote;
}

static void save(trmi_plan_cache *c)
{
    size_t name_bytes, bytes = 0;
    char *beside, *text = NULL;
    FILE *f;
    bool ok = false;

    c->saved_at = seconds();
    c->dirty = false;
    if (c->path == NULL || c->failed)
        return;
    load(c);
    name_bytes = strlen(c->path) + 32;
    beside = trm_malloc(name_bytes, 1);
    f = beside != NULL && make_folders(c->path) ? open_memstream(&text, &bytes) : NULL;
    if (f != NULL) {
        print(f, c);
        snprintf(beside, name_bytes, "%s.%d", c->path, (int)getpid());
        ok = fclose(f) == 0 && bytes < FILE_BYTES_MAX && write_beside(beside, text, bytes) &&
             rename(beside, c->path) == 0;
        if (!ok)
            (void)unlink(beside);
        free(text); /* from open_memstream */
    }
    trm_free(beside);
    if (!ok) {
        c->failed = true;
        TRM_LOG(TRM_LOG_INFO, "cuda", "%s: not written: %s", c->path, strerror(errno));
    }
}

/* ---- public ---- */

trm_status trmi_cuda_plan_cache_open(const char *library, const char *version, const char *gpu,
                                     trmi_plan_cache **cache_out)
{
    trmi_plan_cache *c = trm_calloc(1, sizeof(*c));
    size_t about_bytes = strlen(library) + strlen(version) + strlen(gpu) + 8;
    char name[96], *folder;

    if (c != NULL)
        c->about = trm_malloc(about_bytes, 1);
    if (c == NULL || c->about == NULL) {
        trm_free(c);
        return trm_fail(TRM_ERR_NO_MEMORY, "plan cache");
    }
    snprintf(c->about, about_bytes, "%s %s, %s", library, version, gpu);
    for (char *at = c->about; *at != '\0'; at++)
        if (*at < ' ')
            *at = ' ';
    snprintf(name, sizeof(name), "plans-%.32s-%016llx", library,
             (unsigned long long)hash_bytes(c->about, strlen(c->about)));
    folder = cache_folder();
    c->path = folder == NULL ? NULL : trm_path_join(folder, name);
    trm_free(folder);
    c->saved_at = seconds();
    load(c);
    *cache_out = c;
    return TRM_OK;
}

const void *trmi_cuda_plan_cache_find(const trmi_plan_cache *cache, const char *key,
                                      size_t *bytes_out)
{
    const entry *e = entry_of(cache, key);

    *bytes_out = e == NULL ? 0 : e->bytes;
    return e == NULL ? NULL : e->value;
}

void trmi_cuda_plan_cache_put(trmi_plan_cache *cache, const char *key, const void *value,
                              size_t bytes)
{
    if (!key_ok(key) || bytes > TRMI_PLAN_BYTES_MAX || !keep(cache, key, value, bytes, true))
        return;
    cache->dirty = true;
    if (seconds() - cache->saved_at >= SAVE_SECONDS)
        save(cache);
}

void trmi_cuda_plan_cache_close(trmi_plan_cache *cache)
{
    if (cache == NULL)
        return;
    if (cache->dirty)
        save(cache);
    while (cache->entries != NULL) {
        entry *e = cache->entries;

        cache->entries = e->next;
        entry_free(e);
    }
    trm_free(cache->path);
    trm_free(cache->about);
    trm_free(cache);
}
