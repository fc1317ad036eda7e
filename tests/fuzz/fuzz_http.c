/* libFuzzer: any bytes as a multipart body, a path against routes, a file of keys. The first byte
 * chooses. */
#include "coordinator/gateway/http_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void handle(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    (void)x;
}

static const trm_http_route routes[] = {
    {"GET", "/", handle, 0},
    {"GET", "/v1/models/{model}", handle, 0},
    {"POST", "/v2/models/{model}/versions/{version}/infer", handle, 0},
    {"GET", "/v2/models/stats", handle, 0},
    {"GET", "/files/{rest...}", handle, 0},
};

/* The type up to the first zero byte, then the body. */
static void multipart(const char *text, size_t bytes)
{
    const char *zero = memchr(text, '\0', bytes);
    const trm_http_part *parts = NULL;
    trm_arena *arena = NULL;
    int count = 0;

    if (zero == NULL || trm_arena_create(0, &arena) != TRM_OK)
        return;
    if (trm_http_multipart(text, zero + 1, bytes - (size_t)(zero + 1 - text), arena, &parts,
                           &count) == TRM_OK) {
        volatile size_t sum = 0; /* every part lies inside the body */

        for (int i = 0; i < count; i++) {
            sum += strlen(parts[i].name);
            for (size_t j = 0; j < parts[i].bytes; j++)
                sum += ((const unsigned char *)parts[i].data)[j];
        }
    }
    trm_arena_destroy(arena);
}

static void path(const char *text)
{
    trmi_http_table t;
    trmi_http_match m;
    char *out;

    if (trmi_http_table_init(&t, routes, sizeof(routes) / sizeof(routes[0])) != TRM_OK)
        return;
    trmi_http_table_match(&t, "GET", text, &m);
    out = malloc(strlen(text) + 1);
    if (out != NULL) {
        for (int i = 0; i < m.name_count && m.route >= 0; i++)
            (void)trmi_http_decode(m.names[i].raw, m.names[i].raw_bytes, out);
        (void)trmi_http_decode(text, strlen(text), out);
    }
    free(out);
    trmi_http_table_fini(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trmi_http_keys *keys = NULL;
    trmi_http_key key;
    char *text;

    if (bytes == 0)
        return 0;
    text = malloc(bytes); /* its own size, so that a read behind it is seen */
    if (text == NULL)
        return 0;
    memcpy(text, data + 1, bytes - 1);
    text[bytes - 1] = '\0';
    if (data[0] % 3 == 0) {
        multipart(text, bytes - 1);
    } else if (data[0] % 3 == 1) {
        path(text);
    } else if (trmi_http_keys_parse(text, bytes - 1, "fuzz", &keys) == TRM_OK) {
        (void)trmi_http_keys_find(keys, text, &key);
        trmi_http_keys_free(keys);
    }
    free(text);
    return 0;
}
