/* What the server has: which model, and so what to ask it. */
#include "launch/bench_url_impl.h"

#include "base/wait.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_MAX ((size_t)8 << 20)
#define FETCH_TIMEOUT_S 30

const char *trmi_url_kind_name(trmi_url_kind kind)
{
    static const char *const names[] = {"completions", "chat", "embeddings", "infer", "predict"};

    return names[kind];
}

void trmi_url_set_up(CURL *easy, const trmi_url_options *o, const char *url,
                     struct curl_slist *headers)
{
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "trireme-bench");
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    if (o->insecure) {
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
}

struct fetched {
    char *data;
    size_t bytes;
};

static size_t keep(char *data, size_t size, size_t n, void *ctx)
{
    struct fetched *f = ctx;
    size_t bytes = size * n;
    char *grown;

    if (bytes > ANSWER_MAX - f->bytes)
        return 0; /* libcurl ends the transfer */
    grown = trm_realloc(f->data, f->bytes + bytes + 1, 1);
    if (grown == NULL)
        return 0;
    memcpy(grown + f->bytes, data, bytes);
    f->data = grown;
    f->bytes += bytes;
    return bytes;
}

trm_status trmi_url_fetch(const trmi_url_options *o, const trmi_url_target *t, const char *path,
                          const char *body, json_t **json_out, long *http_out)
{
    CURL *easy = curl_easy_init();
    struct fetched f = {0};
    char url[4096];
    CURLcode rc;

    *json_out = NULL;
    *http_out = 0;
    if (easy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a transfer");
    snprintf(url, sizeof(url), "%s%s", t->base, path);
    trmi_url_set_up(easy, o, url, t->headers);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)trm_scaled_ms(FETCH_TIMEOUT_S * 1000));
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &f);
    if (body != NULL)
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    rc = curl_easy_perform(easy);
    if (rc == CURLE_OK) {
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, http_out);
        if (f.data != NULL)
            *json_out = json_loadb(f.data, f.bytes, 0, NULL);
    }
    curl_easy_cleanup(easy);
    trm_free(f.data);
    if (rc != CURLE_OK)
        return trm_fail(TRM_ERR_COMM, "%s: %s", url, curl_easy_strerror(rc));
    return TRM_OK;
}

/* A key that the server does not take shows here first. */
static trm_status check_access(const trmi_url_options *o, const char *path, long http)
{
    if (http == 401 || http == 403)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s%s: %ld: %s", o->url, path, http,
                        o->key != NULL ? "the server does not take this --key"
                                       : "the server wants a key: --key KEY");
    return TRM_OK;
}

static trm_status set_header(trmi_url_target *t, const char *text)
{
    struct curl_slist *more = curl_slist_append(t->headers, text);

    if (more == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a header");
    t->headers = more;
    return TRM_OK;
}

static trm_status add_key(const trmi_url_options *o, trmi_url_target *t)
{
    char text[1100];

    if (o->key == NULL)
        return TRM_OK;
    if (strlen(o->key) > 1024 || strpbrk(o->key, "\r\n") != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "--key: want one line of at most 1,024 characters");
    snprintf(text, sizeof(text), "Authorization: Bearer %s", o->key);
    return set_header(t, text);
}

/* Of /v1/models: --model or the first that fits the API; `kind` is this program's own field. */
static const json_t *pick(const trmi_url_options *o, const json_t *list)
{
    const json_t *data = json_object_get(list, "data"), *m;
    size_t i;

    json_array_foreach(data, i, m)
    {
        const char *id = json_string_value(json_object_get(m, "id"));
        const char *kind = json_string_value(json_object_get(m, "kind"));
        bool tensor = kind != NULL && strcmp(kind, "tensor") == 0;

        if (id == NULL || (o->model != NULL && strcmp(id, o->model) != 0))
            continue;
        if (o->model != NULL || o->api == NULL || tensor == (strcmp(o->api, "v2") == 0))
            return m;
    }
    return NULL;
}

/* The first ready model of v2's repository, where /v1/models is not known. */
static trm_status first_of_index(const trmi_url_options *o, trmi_url_target *t, const char **out)
{
    json_t *list = NULL;
    const json_t *m;
    size_t i;
    long http;
    trm_status st = trmi_url_fetch(o, t, "/v2/repository/index", "{\"ready\": true}", &list, &http);

    if (st == TRM_OK)
        st = check_access(o, "/v2/repository/index", http);
    *out = NULL;
    json_array_foreach(list, i, m)
    {
        const char *name = json_string_value(json_object_get(m, "name"));
        const char *state = json_string_value(json_object_get(m, "state"));

        if (st == TRM_OK && *out == NULL && name != NULL &&
            (state == NULL || strcmp(state, "READY") == 0))
            *out = trm_arena_strdup(t->arena, name);
    }
    json_decref(list);
    return st;
}

static trm_status choose(const trmi_url_options *o, trmi_url_target *t)
{
    json_t *list = NULL;
    const json_t *m;
    const char *kind = NULL, *id = o->model;
    bool v2 = o->api != NULL && strcmp(o->api, "v2") == 0;
    long http = 0;
    trm_status st;

    TRM_CHECK(trmi_url_fetch(o, t, "/v1/models", NULL, &list, &http));
    TRM_TRY(st, check_access(o, "/v1/models", http), done);
    m = http == 200 ? pick(o, list) : NULL;
    if (m != NULL) {
        kind = json_string_value(json_object_get(m, "kind"));
        id = json_string_value(json_object_get(m, "id"));
    }
    if (o->api == NULL)
        v2 = (kind != NULL && strcmp(kind, "tensor") == 0) || http != 200;
    if (id == NULL)
        TRM_TRY(st, first_of_index(o, t, &id), done);
    if (id == NULL) {
        st = trm_fail(TRM_ERR_NOT_FOUND, "%s has no ready model%s%s", o->url,
                      o->api != NULL ? " for --api " : "", o->api != NULL ? o->api : "");
        goto done;
    }
    t->model = trm_arena_strdup(t->arena, id);
    if (t->model == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "a name");
    t->kind = v2 ? o->image != NULL ? TRMI_URL_PREDICT : TRMI_URL_INFER : TRMI_URL_COMPLETIONS;
    if (!v2 && (o->endpoint != NULL ? strcmp(o->endpoint, "embeddings") == 0
                                    : kind != NULL && strcmp(kind, "embed") == 0))
        t->kind = TRMI_URL_EMBEDDINGS;
    else if (!v2 && o->endpoint != NULL && strcmp(o->endpoint, "chat") == 0)
        t->kind = TRMI_URL_CHAT;
    t->stream = t->kind <= TRMI_URL_CHAT && !o->no_stream;

done:
    json_decref(list);
    return st;
}

/* A model's name as a segment of a path. */
static char *escaped(const trmi_url_target *t)
{
    CURL *easy = curl_easy_init();
    char *text = easy != NULL ? curl_easy_escape(easy, t->model, 0) : NULL;

    curl_easy_cleanup(easy);
    return text;
}

static trm_status get_metadata(const trmi_url_options *o, trmi_url_target *t, const char *name)
{
    char path[3200];
    long http;

    snprintf(path, sizeof(path), "/v2/models/%s", name);
    TRM_CHECK(trmi_url_fetch(o, t, path, NULL, &t->metadata, &http));
    TRM_CHECK(check_access(o, path, http));
    if (http != 200 || !json_is_object(t->metadata)) {
        const char *why = json_string_value(json_object_get(t->metadata, "error"));
        char line[200];

        trmi_url_one_line(why != NULL ? why : "no description of a model", line, sizeof(line));
        return trm_fail(TRM_ERR_NOT_FOUND, "%s%s: %ld: %s", t->base, path, http, line);
    }
    return TRM_OK;
}

static trm_status set_path(const trmi_url_options *o, trmi_url_target *t)
{
    static const char *const paths[] = {"/v1/completions", "/v1/chat/completions",
                                        "/v1/embeddings"};
    char path[3300], *name = escaped(t), *url;
    size_t n;
    trm_status st = TRM_OK;

    if (name == NULL || strlen(name) > 3000) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "--model: the name is too long");
        goto done;
    }
    if (t->kind == TRMI_URL_INFER)
        TRM_TRY(st, get_metadata(o, t, name), done);
    if (t->kind == TRMI_URL_INFER)
        snprintf(path, sizeof(path), "/v2/models/%s/infer", name);
    else if (t->kind == TRMI_URL_PREDICT)
        snprintf(path, sizeof(path), "/predictions/%s", name);
    else
        snprintf(path, sizeof(path), "%s", paths[t->kind]);
    n = strlen(t->base) + strlen(path) + 1;
    url = trm_arena_alloc(t->arena, n, 1);
    if (url == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a URL");
        goto done;
    }
    snprintf(url, n, "%s%s", t->base, path);
    t->path = url;

done:
    curl_free(name);
    return st;
}

trm_status trmi_url_target_find(const trmi_url_options *o, trmi_url_target *t)
{
    size_t n = strlen(o->url);
    char *base;

    while (n > 8 && o->url[n - 1] == '/')
        n--;
    if (n > 3 && strncmp(o->url + n - 3, "/v1", 3) == 0) /* as OpenAI's clients are given it */
        n -= 3;
    if (n > 512)
        return trm_fail(TRM_ERR_INVALID_ARG, "--url: it has over 512 characters");
    base = trm_arena_strndup(t->arena, o->url, n);
    if (base == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a URL");
    t->base = base;
    TRM_CHECK(add_key(o, t));
    TRM_CHECK(choose(o, t));
    TRM_CHECK(set_path(o, t));
    TRM_CHECK(set_header(t, "Expect:")); /* no round trip before a large body */
    if (t->kind <= TRMI_URL_EMBEDDINGS)
        return set_header(t, "Content-Type: application/json");
    return set_header(t, "Content-Type: application/octet-stream");
}

void trmi_url_target_fini(trmi_url_target *t)
{
    curl_slist_free_all(t->headers);
    json_decref(t->metadata);
    trm_arena_destroy(t->arena);
    memset(t, 0, sizeof(*t));
}
