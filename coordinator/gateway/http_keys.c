/* Keys and what each may have under way.
 *
 * Only SHA-256 sums are kept. A presented key is summed and compared with every entry, each in
 * constant time, so that the time of an answer tells nothing about a key. */
#include "coordinator/gateway/http_impl.h"

#include "base/file.h"
#include "base/log.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUM_BYTES = 32, FILE_MAX = 1 << 20, SHORT_KEY = 16, BUCKETS = 256 };

typedef struct entry {
    unsigned char sum[SUM_BYTES];
    trmi_http_key key;
} entry;

struct trmi_http_keys {
    entry *entries;
    int count;
};

/* ---- the file ---- */
typedef struct word {
    const char *text;
    size_t bytes;
} word;

/* Blank-separated words of a line up to a '#'; most + 1 where there are more. */
static int words_of(const char *line, size_t bytes, word *words, int most)
{
    int n = 0;

    for (size_t i = 0; i < bytes;) {
        size_t from;

        while (i < bytes && (line[i] == ' ' || line[i] == '\t' || line[i] == '\r'))
            i++;
        if (i == bytes || line[i] == '#')
            break;
        from = i;
        while (i < bytes && line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            i++;
        if (n == most)
            return most + 1;
        words[n++] = (word){line + from, i - from};
    }
    return n;
}

static trm_status sum_of(const char *key, size_t bytes, unsigned char *sum)
{
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, key, bytes, sum) != 0)
        return trm_fail(TRM_ERR_INTERNAL, "SHA-256 is not to be had");
    return TRM_OK;
}

static int hex_value(char c)
{
    const char *digits = "0123456789abcdef", *at;

    at = c == '\0' ? NULL : strchr(digits, tolower((unsigned char)c));
    return at == NULL ? -1 : (int)(at - digits);
}

static trm_status key_parse(word w, const char *where, int line, unsigned char *sum)
{
    static const char prefix[] = "sha256:";
    size_t skip = sizeof(prefix) - 1;

    if (w.bytes < skip || memcmp(w.text, prefix, skip) != 0) {
        for (size_t i = 0; i < w.bytes; i++)
            if (w.text[i] <= ' ' || w.text[i] == 0x7f)
                return trm_fail(TRM_ERR_CONFIG,
                                "%s:%d: a key is visible ASCII only: byte %zu is not", where, line,
                                i + 1);
        if (w.bytes < SHORT_KEY)
            TRM_LOG(TRM_LOG_WARN, "http", "%s:%d: a key of %zu characters is soon guessed", where,
                    line, w.bytes);
        return sum_of(w.text, w.bytes, sum);
    }
    if (w.bytes - skip != 2 * (size_t)SUM_BYTES)
        return trm_fail(TRM_ERR_CONFIG, "%s:%d: sha256: wants %d hexadecimal digits, there are %zu",
                        where, line, 2 * SUM_BYTES, w.bytes - skip);
    for (size_t i = 0; i < SUM_BYTES; i++) {
        int high = hex_value(w.text[skip + 2 * i]), low = hex_value(w.text[skip + 2 * i + 1]);

        if (high < 0 || low < 0)
            return trm_fail(TRM_ERR_CONFIG, "%s:%d: sha256: wants hexadecimal digits", where, line);
        sum[i] = (unsigned char)(high * 16 + low);
    }
    return TRM_OK;
}

static trm_status line_parse(const char *text, size_t bytes, const char *where, int line,
                             trmi_http_keys *k)
{
    entry *e = &k->entries[k->count];
    word w[3];
    int n = words_of(text, bytes, w, 3);

    if (n == 0)
        return TRM_OK;
    if (n == 1 || n > 3 || (n == 3 && (w[2].bytes != 5 || memcmp(w[2].text, "admin", 5) != 0)))
        return trm_fail(TRM_ERR_CONFIG, "%s:%d: a line is NAME KEY or NAME KEY admin", where, line);
    if (w[0].bytes > TRMI_HTTP_KEY_NAME_MAX)
        return trm_fail(TRM_ERR_CONFIG, "%s:%d: a name has at most %d characters", where, line,
                        TRMI_HTTP_KEY_NAME_MAX);
    for (size_t i = 0; i < w[0].bytes; i++)
        if (!isalnum((unsigned char)w[0].text[i]) && strchr("_.-@", w[0].text[i]) == NULL)
            return trm_fail(TRM_ERR_CONFIG, "%s:%d: a name is letters, digits and _.-@", where,
                            line);
    TRM_CHECK(key_parse(w[1], where, line, e->sum));
    memcpy(e->key.name, w[0].text, w[0].bytes);
    e->key.name[w[0].bytes] = '\0';
    e->key.admin = n == 3;
    for (int i = 0; i < k->count; i++)
        if (memcmp(k->entries[i].sum, e->sum, SUM_BYTES) == 0)
            return trm_fail(TRM_ERR_CONFIG, "%s:%d: the key of '%s' again", where, line,
                            k->entries[i].key.name);
    k->count++;
    return TRM_OK;
}

trm_status trmi_http_keys_parse(const char *text, size_t bytes, const char *where,
                                trmi_http_keys **keys_out)
{
    trmi_http_keys *k = NULL;
    size_t lines = 1;
    trm_status st;
    int line = 0;

    for (size_t i = 0; i < bytes; i++)
        lines += text[i] == '\n';
    k = trm_calloc(1, sizeof(*k));
    if (k != NULL)
        k->entries = trm_calloc(lines, sizeof(*k->entries));
    if (k == NULL || k->entries == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "%s: %zu lines of keys", where, lines);
        goto fail;
    }
    for (size_t i = 0; i < bytes;) {
        const char *end = memchr(text + i, '\n', bytes - i);
        size_t length = end == NULL ? bytes - i : (size_t)(end - text) - i;

        TRM_TRY(st, line_parse(text + i, length, where, ++line, k), fail);
        i += length + 1;
    }
    if (k->count == 0) {
        st = trm_fail(TRM_ERR_CONFIG, "%s: no key in it: nobody could ask anything", where);
        goto fail;
    }
    *keys_out = k;
    return TRM_OK;

fail:
    trmi_http_keys_free(k);
    return st;
}

trm_status trmi_http_keys_load(const char *path, trmi_http_keys **keys_out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    char *text = NULL;
    size_t bytes = 0;
    trm_status st;

    if (fd < 0)
        return trm_fail(TRM_ERR_CONFIG, "keys file '%s': %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > FILE_MAX) {
        st = trm_fail(TRM_ERR_CONFIG, "keys file '%s' is no ordinary file of at most 1 MiB", path);
        goto done;
    }
    if ((info.st_mode & 077) != 0) {
        st = trm_fail(TRM_ERR_CONFIG,
                      "keys file '%s' has mode %04o: others may read or write it; chmod 600 it",
                      path, (unsigned)info.st_mode & 07777);
        goto done;
    }
    text = trm_malloc((size_t)info.st_size + 1, 1);
    if (text == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "keys file '%s'", path);
        goto done;
    }
    while (bytes < (size_t)info.st_size) {
        ssize_t n = read(fd, text + bytes, (size_t)info.st_size - bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            st = trm_fail(TRM_ERR_CONFIG, "keys file '%s': %s", path, strerror(errno));
            goto done;
        }
        if (n == 0)
            break;
        bytes += (size_t)n;
    }
    st = trmi_http_keys_parse(text, bytes, path, keys_out);
done:
    if (text != NULL)
        gnutls_memset(text, 0, bytes);
    trm_free(text);
    (void)close(fd);
    return st;
}

void trmi_http_keys_free(trmi_http_keys *k)
{
    if (k == NULL)
        return;
    trm_free(k->entries);
    trm_free(k);
}

int trmi_http_keys_count(const trmi_http_keys *k)
{
    return k->count;
}

bool trmi_http_keys_find(const trmi_http_keys *k, const char *key, trmi_http_key *key_out)
{
    unsigned char sum[SUM_BYTES];
    int found = -1;

    if (sum_of(key, strlen(key), sum) != TRM_OK)
        return false;
    for (int i = 0; i < k->count; i++)
        if (gnutls_memcmp(k->entries[i].sum, sum, SUM_BYTES) == 0)
            found = i;
    if (found >= 0)
        *key_out = k->entries[found].key;
    return found >= 0;
}

/* ---- how many at once ---- */
typedef struct holder {
    struct holder *next;
    int running;
    char name[];
} holder;

struct trmi_http_limits {
    int most;
    pthread_mutex_t mu;
    holder *buckets[BUCKETS]; /* guarded by mu; only those with something running */
};

trm_status trmi_http_limits_create(int most, trmi_http_limits **limits_out)
{
    trmi_http_limits *l = trm_calloc(1, sizeof(*l));

    if (l == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "http: limits");
    l->most = most;
    pthread_mutex_init(&l->mu, NULL);
    *limits_out = l;
    return TRM_OK;
}

void trmi_http_limits_destroy(trmi_http_limits *l)
{
    if (l == NULL)
        return;
    for (int i = 0; i < BUCKETS; i++)
        while (l->buckets[i] != NULL) {
            holder *first = l->buckets[i];

            l->buckets[i] = first->next;
            trm_free(first);
        }
    pthread_mutex_destroy(&l->mu);
    trm_free(l);
}

static holder **holder_find(trmi_http_limits *l, const char *name)
{
    uint32_t h = 2166136261U; /* FNV-1a; whoever makes names collide only slows himself down */
    holder **at;

    for (const char *c = name; *c != '\0'; c++)
        h = (h ^ (unsigned char)*c) * 16777619U;
    at = &l->buckets[h % BUCKETS];
    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

bool trmi_http_limits_enter(trmi_http_limits *l, const char *name)
{
    holder **at;
    bool ok;

    pthread_mutex_lock(&l->mu);
    at = holder_find(l, name);
    if (*at == NULL) {
        size_t bytes = strlen(name) + 1;

        *at = trm_calloc(1, sizeof(**at) + bytes);
        if (*at != NULL)
            memcpy((*at)->name, name, bytes);
    }
    ok = *at != NULL && (*at)->running < l->most;
    if (ok)
        (*at)->running++;
    pthread_mutex_unlock(&l->mu);
    return ok;
}

void trmi_http_limits_leave(trmi_http_limits *l, const char *name)
{
    holder **at, *h;

    pthread_mutex_lock(&l->mu);
    at = holder_find(l, name);
    h = *at;
    if (h != NULL && --h->running == 0) {
        *at = h->next;
        trm_free(h);
    }
    pthread_mutex_unlock(&l->mu);
}
