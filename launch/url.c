/* GET over libcurl's multi interface, which can wait for a key of the terminal beside the server.
 */
#include "launch/url.h"

#include "base/wait.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ANSWER_MAX ((size_t)64 << 20)
#define ANSWER_MS 5000

struct trm_url {
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers;
    char *base;
    bool has_key, global;
    char *data; /* of the answer that comes in */
    size_t bytes, room;
    char error[CURL_ERROR_SIZE];
};

static bool has_control(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++)
        if (*c <= 0x20 || *c == 0x7f)
            return true;
    return false;
}

static size_t keep(char *data, size_t size, size_t count, void *ctx)
{
    trm_url *u = ctx;
    size_t bytes = size * count;

    if (bytes > ANSWER_MAX - u->bytes)
        return 0;
    if (u->bytes + bytes > u->room) {
        size_t room = (u->bytes + bytes) * 2;
        char *grown = trm_realloc(u->data, room, 1);

        if (grown == NULL)
            return 0;
        u->data = grown;
        u->room = room;
    }
    memcpy(u->data + u->bytes, data, bytes);
    u->bytes += bytes;
    return bytes;
}

static trm_status set_base(trm_url *u, const char *base)
{
    const char *scheme = strstr(base, "://");
    size_t n = strlen(base);

    if (n == 0 || n > 2048 || has_control(base))
        return trm_fail(TRM_ERR_INVALID_ARG, "'%.100s' is no URL: want http://HOST:PORT", base);
    if (scheme != NULL && strncasecmp(base, "http://", 7) != 0 &&
        strncasecmp(base, "https://", 8) != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%.100s': want http:// or https://", base);
    while (n > 1 && base[n - 1] == '/')
        n--;
    u->base = trm_malloc(n + 8, 1);
    if (u->base == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a URL");
    snprintf(u->base, n + 8, "%s%.*s", scheme == NULL ? "http://" : "", (int)n, base);
    return TRM_OK;
}

static trm_status set_key(trm_url *u, const char *key)
{
    char header[1100];

    if (key == NULL)
        return TRM_OK;
    if (key[0] == '\0' || strlen(key) > 1000 || has_control(key))
        return trm_fail(TRM_ERR_INVALID_ARG, "--key: want 1 to 1000 characters without blanks");
    snprintf(header, sizeof(header), "Authorization: Bearer %s", key);
    u->headers = curl_slist_append(NULL, header);
    u->has_key = true;
    return u->headers == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "a header") : TRM_OK;
}

trm_status trm_url_open(const char *base, const char *key, bool insecure, trm_url **url_out)
{
    trm_url *u = trm_calloc(1, sizeof(*u));
    trm_status st;

    if (u == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a URL");
    TRM_TRY(st, set_base(u, base), fail);
    TRM_TRY(st, set_key(u, key), fail);
    u->global = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    u->multi = u->global ? curl_multi_init() : NULL;
    u->easy = u->global ? curl_easy_init() : NULL;
    if (u->multi == NULL || u->easy == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "libcurl");
        goto fail;
    }
    curl_easy_setopt(u->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(u->easy, CURLOPT_USERAGENT, "trireme");
    curl_easy_setopt(u->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(u->easy, CURLOPT_TIMEOUT_MS, (long)trm_scaled_ms(ANSWER_MS));
    curl_easy_setopt(u->easy, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(u->easy, CURLOPT_WRITEDATA, u);
    curl_easy_setopt(u->easy, CURLOPT_ERRORBUFFER, u->error);
    curl_easy_setopt(u->easy, CURLOPT_HTTPHEADER, u->headers);
    if (insecure) {
        curl_easy_setopt(u->easy, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(u->easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    *url_out = u;
    return TRM_OK;

fail:
    trm_url_close(u);
    return st;
}

void trm_url_close(trm_url *u)
{
    if (u == NULL)
        return;
    curl_easy_cleanup(u->easy);
    curl_multi_cleanup(u->multi);
    curl_slist_free_all(u->headers);
    if (u->global)
        curl_global_cleanup();
    trm_free(u->base);
    trm_free(u->data);
    trm_free(u);
}

const char *trm_url_base(const trm_url *u)
{
    return u->base;
}

static trm_status transfer(trm_url *u, const volatile int *stop, int wake_fd)
{
    struct curl_waitfd wake = {.fd = wake_fd, .events = CURL_WAIT_POLLIN};

    for (;;) {
        int running = 0, left = 0;
        const CURLMsg *m;

        if (curl_multi_perform(u->multi, &running) != CURLM_OK)
            return trm_fail(TRM_ERR_INTERNAL, "libcurl: a transfer that does not go on");
        m = curl_multi_info_read(u->multi, &left);
        if (m != NULL && m->data.result != CURLE_OK)
            return trm_fail(TRM_ERR_COMM, "%s: %s", u->base,
                            u->error[0] != '\0' ? u->error : curl_easy_strerror(m->data.result));
        if (m != NULL)
            return TRM_OK;
        /* a signal may come between the look and the sleep: never asleep for long */
        if (stop != NULL && *stop != 0)
            return TRM_ERR_CANCELLED;
        if (curl_multi_poll(u->multi, wake_fd < 0 ? NULL : &wake, wake_fd < 0 ? 0 : 1, 200, NULL) !=
            CURLM_OK)
            return trm_fail(TRM_ERR_INTERNAL, "libcurl: a wait that fails");
        if (wake_fd >= 0 && wake.revents != 0)
            return TRM_ERR_CANCELLED;
    }
}

/* What the answer means. */
static trm_status read_answer(trm_url *u, const char *path, json_t **json_out)
{
    json_t *o = u->bytes == 0 ? NULL : json_loadb(u->data, u->bytes, 0, NULL);
    const char *text = json_string_value(json_object_get(o, "error"));
    trm_status st = TRM_OK;
    long http = 0;

    curl_easy_getinfo(u->easy, CURLINFO_RESPONSE_CODE, &http);
    if (http == 401 || http == 403)
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s%s: %ld: %s", u->base, path, http,
                      u->has_key ? "the server does not take this --key"
                                 : "the server wants a key: --key KEY");
    else if (http >= 500 || http == 429)
        st = trm_fail(TRM_ERR_COMM, "%s%s: %ld: %.200s", u->base, path, http,
                      text == NULL ? "the server fails" : text);
    else if (http != 200 || !json_is_object(o))
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s%s: %ld, %s: is this a Trireme server?", u->base,
                      path, http, json_is_object(o) ? "no status" : "no JSON");
    if (st != TRM_OK) {
        json_decref(o);
        return st;
    }
    *json_out = o;
    return TRM_OK;
}

trm_status trm_url_get(trm_url *u, const char *path, const volatile int *stop, int wake_fd,
                       json_t **json_out)
{
    char url[4096];
    trm_status st;

    snprintf(url, sizeof(url), "%s%s", u->base, path);
    u->bytes = 0;
    u->error[0] = '\0';
    if (curl_easy_setopt(u->easy, CURLOPT_URL, url) != CURLE_OK ||
        curl_multi_add_handle(u->multi, u->easy) != CURLM_OK)
        return trm_fail(TRM_ERR_NO_MEMORY, "a transfer");
    st = transfer(u, stop, wake_fd);
    curl_multi_remove_handle(u->multi, u->easy);
    return st == TRM_OK ? read_answer(u, path, json_out) : st;
}
