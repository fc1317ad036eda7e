/* A gateway's store of files in a folder of its own, and calls of its endpoints. Included once a
 * test program. */
#ifndef TRM_TESTS_COORDINATOR_OPENAI_WORLD_H
#define TRM_TESTS_COORDINATOR_OPENAI_WORLD_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "openai_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

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

static inline int world_remove(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info;
    (void)kind;
    (void)at;
    return remove(path);
}

static inline void world_fini(struct world *w)
{
    trmi_openai_files_close(&w->g);
    kit_hub_stop(&w->hub);
    ck_assert_int_eq(nftw(w->folder, world_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* Adds to a file of the store, behind its back. */
static inline void world_append(const struct world *w, const char *name, const char *text)
{
    char path[400];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", w->inner, name);
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static inline bool world_has(const struct world *w, const char *name)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/%s", w->inner, name);
    return access(path, F_OK) == 0;
}

/* Adds to every content that no description speaks of: outputs of batches under way. */
static inline void world_tear(const struct world *w, const char *text)
{
    char path[128], name[300];
    DIR *dir;
    const struct dirent *e;

    snprintf(path, sizeof(path), "%s/files", w->inner);
    dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    while ((e = readdir(dir)) != NULL) {
        const char *dot = strstr(e->d_name, ".data");

        if (dot == NULL)
            continue;
        snprintf(name, sizeof(name), "files/%.*s.json", (int)(dot - e->d_name), e->d_name);
        if (world_has(w, name))
            continue;
        snprintf(name, sizeof(name), "files/%s", e->d_name);
        world_append(w, name, text);
    }
    closedir(dir);
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
