/* A gateway's store of files in a folder of its own, and calls of its endpoints. Included once a
 * test program. */
#ifndef TRM_TESTS_COORDINATOR_OPENAI_WORLD_H
#define TRM_TESTS_COORDINATOR_OPENAI_WORLD_H

#include "openai_kit.h"

#define LINES 40

struct world {
    trm_hub hub;
    trm_gateway g;
    char folder[64], inner[96];
    int seen[LINES];
};

static inline void world_open(struct world *w)
{
    w->g.options.files = w->inner;
    ck_assert_msg(trmi_openai_files_open(&w->g) == TRM_OK, "%s", trm_message());
}

static inline void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    snprintf(w->folder, sizeof(w->folder), "/tmp/trm-openai-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->folder));
    snprintf(w->inner, sizeof(w->inner), "%s/files", w->folder);
    kit_hub_start(&w->hub);
    w->hub.seen = w->seen;
    w->hub.seen_max = LINES;
    w->g.hub = &w->hub;
    w->g.options.batch_requests = 4;
    world_open(w);
}

static inline void world_fini(struct world *w)
{
    char command[160];

    trmi_openai_files_close(&w->g);
    kit_hub_stop(&w->hub);
    snprintf(command, sizeof(command), "rm -rf '%s'", w->folder);
    ck_assert_int_eq(system(command), 0);
}

/* One call; the answer's JSON, NULL where it has none. */
static inline json_t *call(struct world *w, const char *method, const char *pattern,
                           const char *key, const char *id, const char *query, const char *body,
                           int *status_out)
{
    trm_http_exchange x;
    json_t *o;

    kit_exchange_init(&x, &w->g, body);
    x.key = key;
    x.names[0] = id != NULL ? "id" : NULL;
    x.names[1] = id;
    x.headers[0] = "content-type";
    x.headers[1] = "multipart/form-data";
    if (query != NULL) {
        x.queries[0] = query;
        x.queries[1] = strchr(query, '\0') + 1; /* "name\0value" */
    }
    kit_call(&x, trmi_openai_files_routes(), method, pattern);
    *status_out = x.status;
    o = json_loads(x.out, 0, NULL);
    if (o == NULL)
        o = json_stringn(x.out, x.out_bytes);
    kit_exchange_fini(&x);
    return o;
}

static inline void upload(struct world *w, const char *key, const char *purpose,
                          const char *content, char id_out[TRMI_OPENAI_ID_BYTES])
{
    size_t n = strlen(content) + strlen(purpose) + 32;
    char *body = malloc(n);
    int status;
    json_t *o;

    snprintf(body, n, "%s\n../x/in.jsonl\n%s", purpose, content);
    o = call(w, "POST", "/v1/files", key, NULL, NULL, body, &status);
    ck_assert_int_eq(status, 200);
    ck_assert_str_eq(json_string_value(json_object_get(o, "filename")), "in.jsonl");
    ck_assert_int_eq(json_integer_value(json_object_get(o, "bytes")), (json_int_t)strlen(content));
    snprintf(id_out, TRMI_OPENAI_ID_BYTES, "%s", json_string_value(json_object_get(o, "id")));
    json_decref(o);
    free(body);
}

static inline char *content_of(struct world *w, const char *key, const char *id)
{
    int status;
    trm_http_exchange x;
    char *text;

    kit_exchange_init(&x, &w->g, NULL);
    x.key = key;
    x.names[0] = "id";
    x.names[1] = id;
    kit_call(&x, trmi_openai_files_routes(), "GET", "/v1/files/{id}/content");
    status = x.status;
    text = strdup(x.out);
    kit_exchange_fini(&x);
    ck_assert_int_eq(status, 200);
    return text;
}

#endif
