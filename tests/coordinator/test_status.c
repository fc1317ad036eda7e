/* The page, the status as JSON, health, version and metrics, over a hub and a server that are
 * played here. */
#include "coordinator/gateway/gateway_impl.h"
#include "coordinator/gateway/status_page.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the server ---- */
struct trm_http_exchange {
    trm_gateway *gateway;
    int status; /* 0: not answered */
    char *body;
    char type[64], headers[1024];
};

void *trm_http_ctx(const trm_http_exchange *x)
{
    return x->gateway;
}
void trm_http_set_header(trm_http_exchange *x, const char *name, const char *value)
{
    size_t used = strlen(x->headers);

    ck_assert_int_eq(x->status, 0);
    snprintf(x->headers + used, sizeof(x->headers) - used, "%s: %s\n", name, value);
}
void trm_http_answer(trm_http_exchange *x, int status, const char *content_type, const void *data,
                     size_t bytes)
{
    ck_assert_int_eq(x->status, 0); /* exactly once */
    x->status = status;
    snprintf(x->type, sizeof(x->type), "%s", content_type);
    x->body = strndup(data, bytes);
}
void trm_http_answer_take(trm_http_exchange *x, int status, const char *content_type, void *data,
                          size_t bytes)
{
    trm_http_answer(x, status, content_type, data, bytes);
    trm_free(data);
}
void trm_http_answer_json(trm_http_exchange *x, int status, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);

    ck_assert_ptr_nonnull(text);
    trm_http_answer(x, status, "application/json", text, strlen(text));
    free(text);
    json_decref(o);
}
void trmi_gateway_fail(trm_http_exchange *x, trm_status st, const char *message)
{
    trm_http_answer(x, st == TRM_ERR_NOT_FOUND ? 404 : 500, "application/json", message,
                    strlen(message));
}

/* ---- the hub ---- */
static trm_hub_info hub_info;
static trm_status hub_fails;
static trm_hub_model_info hub_models[4];
static int hub_model_count, hub_lent; /* lent: lists that were not given back */

trm_status trm_hub_get_info(trm_hub *hub, trm_hub_info *info_out)
{
    (void)hub;
    if (hub_fails != TRM_OK)
        return trm_fail(hub_fails, "the hub is gone");
    *info_out = hub_info;
    hub_lent++;
    return TRM_OK;
}
void trm_hub_info_fini(trm_hub_info *info)
{
    memset(info, 0, sizeof(*info));
    hub_lent--;
}
trm_status trm_hub_models(trm_hub *hub, trm_hub_model_info **infos_out, int *count_out)
{
    (void)hub;
    *infos_out = hub_models;
    *count_out = hub_model_count;
    hub_lent++;
    return TRM_OK;
}
void trm_hub_models_free(trm_hub_model_info *infos, int count)
{
    (void)count;
    hub_lent -= infos != NULL;
}

/* ---- requests ---- */
static trm_gateway gateway;
static trm_http_exchange x;

static const trm_http_route *route_of(const char *path)
{
    trmi_routes routes = trmi_status_routes();

    for (int i = 0; i < routes.count; i++)
        if (strcmp(routes.routes[i].pattern, path) == 0)
            return &routes.routes[i];
    ck_abort_msg("no route %s", path);
    return NULL;
}

static json_t *get(const char *path)
{
    free(x.body);
    memset(&x, 0, sizeof(x));
    x.gateway = &gateway;
    route_of(path)->handle(&gateway, &x);
    ck_assert_int_ne(x.status, 0);
    ck_assert_int_eq(hub_lent, 0);
    return json_loads(x.body, 0, NULL);
}

static void add_model(const char *name, trm_model_state state, const char *reason, char *metadata)
{
    trm_hub_model_info *m = &hub_models[hub_model_count++];

    snprintf(m->name, sizeof(m->name), "%s", name);
    snprintf(m->reason, sizeof(m->reason), "%s", reason);
    m->version = 1;
    m->state = state;
    m->metadata = metadata;
    m->running = 2;
}

static void setup(void)
{
    static trm_hub_replica_info replicas[2] = {{.identity = "0/1",
                                                .host = "node",
                                                .rank = 1,
                                                .pid = 10,
                                                .state = "ready",
                                                .phase = "steady",
                                                .in_flight = 2,
                                                .done = 5},
                                               {.identity = "1/1",
                                                .host = "node",
                                                .state = "dead",
                                                .phase = "idle",
                                                .reason = "silent for 1.5 s\x1b[31m"}};

    hub_info = (trm_hub_info){.ready = true,
                              .replicas = 2,
                              .ready_replicas = 1,
                              .dead_replicas = 1,
                              .expected_replicas = 2,
                              .waiting = 3,
                              .running = 2,
                              .replica = replicas};
    gateway.options.version = "1.2.3";
    ck_assert_int_eq(trm_metrics_create(&gateway.metrics), TRM_OK);
}

static void teardown(void)
{
    trm_metrics_destroy(gateway.metrics);
    free(x.body);
}

/* ---- health ---- */
static const struct {
    const char *name;
    bool ready, hub_drains, gateway_drains;
    int ready_replicas;
    trm_model_state state;
    const char *reason; /* NULL: it is ready */
} healths[] = {
    {"ready", true, false, false, 1, TRM_MODEL_READY, NULL},
    {"no replica", false, false, false, 0, TRM_MODEL_LOADING, "0 of 2 replicas are ready"},
    {"loading", false, false, false, 1, TRM_MODEL_LOADING, "model a\"b version 1 is loading"},
    {"failed", false, false, false, 1, TRM_MODEL_FAILED, "model a\"b version 1 failed"},
    {"nothing wrong to see", false, false, false, 1, TRM_MODEL_READY, "1 of 2 replicas are ready"},
    {"the hub drains", true, true, false, 1, TRM_MODEL_READY, "draining"},
    {"the gateway drains", true, false, true, 1, TRM_MODEL_READY, "draining"},
};

START_TEST(health)
{
    static const char *const paths[2] = {"/health", "/health/ready"};
    json_t *o;

    hub_info.ready = healths[_i].ready;
    hub_info.draining = healths[_i].hub_drains;
    hub_info.ready_replicas = healths[_i].ready_replicas;
    gateway.draining = healths[_i].gateway_drains;
    add_model("a\"b", healths[_i].state, "/secret/path", NULL);
    add_model("other", TRM_MODEL_READY, "", NULL);
    for (int p = 0; p < 2; p++) {
        const char *reason;

        o = get(paths[p]);
        reason = json_string_value(json_object_get(o, "reason"));
        ck_assert_msg(x.status == (healths[_i].reason == NULL ? 200 : 503), "%s: %d",
                      healths[_i].name, x.status);
        ck_assert_msg(healths[_i].reason == NULL
                          ? reason == NULL
                          : strncmp(reason, healths[_i].reason, strlen(healths[_i].reason)) == 0,
                      "%s: %s", healths[_i].name, x.body);
        ck_assert_int_eq(json_is_true(json_object_get(o, "ready")), healths[_i].reason == NULL);
        ck_assert_int_eq(json_is_true(json_object_get(o, "live")), p == 0);
        ck_assert_ptr_null(strstr(x.body, "/secret/path")); /* nobody has shown a key */
        json_decref(o);
    }
    o = get("/health/live");
    ck_assert_int_eq(x.status, 200);
    json_decref(o);
    o = get("/status");
    ck_assert_int_eq(json_is_true(json_object_get(json_object_get(o, "cluster"), "ready")),
                     healths[_i].reason == NULL);
    json_decref(o);
}
END_TEST

START_TEST(a_hub_that_fails)
{
    hub_fails = TRM_ERR_COMM;
    json_decref(get("/status"));
    ck_assert_int_eq(x.status, 500);
    ck_assert_str_eq(x.body, "the hub is gone");
    json_decref(get("/health/ready"));
    ck_assert_int_eq(x.status, 500);
    json_decref(get("/health/live"));
    ck_assert_int_eq(x.status, 200);
}
END_TEST

/* only health and the page, which has no data, are for everybody */
START_TEST(keys)
{
    static const char *const open[] = {"/", "/health", "/health/live", "/health/ready"};
    static const char *const closed[] = {"/status", "/version", "/metrics"};

    for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++)
        ck_assert((route_of(open[i])->flags & TRM_HTTP_OPEN) != 0);
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++)
        ck_assert((route_of(closed[i])->flags & TRM_HTTP_OPEN) == 0);
    ck_assert_int_eq(trmi_status_routes().count, 7);
}
END_TEST

/* ---- status ---- */
START_TEST(status_merges)
{
    static char metadata[] = "{\"kind\":\"generate\",\"layout\":\"tensor=2\"}", broken[] = "{";
    trm_metrics_model_gauges gauges = {
        .model = "bad\xffname", .version = 1, .state = TRM_MODEL_READY, .running = 2};
    trm_wire_answer answer = {.status = TRM_OK, .new_tokens = 5};
    trm_metrics_request r = {.model = "bad\xffname",
                             .version = 1,
                             .kind = TRM_REQUEST_CHAT,
                             .answer = &answer,
                             .total_us = 1000};
    trm_wire_rank_stats rank = {.rank = 0, .host = "node", .device = "cpu", .memory_bytes = 1};
    trm_wire_stats stats = {.ranks = &rank, .rank_count = 1};
    json_t *o, *m, *replica;

    add_model("bad\xffname", TRM_MODEL_READY, "", metadata);
    add_model("listed", TRM_MODEL_UNLOADED, "nobody asked", broken);
    trm_metrics_models(gateway.metrics, &gauges, 1);
    trm_metrics_ended(gateway.metrics, &r);
    trm_metrics_stats(gateway.metrics, "0/1", &stats, NULL, NULL);
    trm_metrics_replica(gateway.metrics, "7/1", "ready"); /* the hub knows nothing of it */
    gateway.options.configuration = "{\"listen\":\"127.0.0.1:8080\"}";
    o = get("/status");
    ck_assert_int_eq(x.status, 200);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "models")), 2);
    m = json_array_get(json_object_get(o, "models"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(m, "name")), "bad?name");
    ck_assert_int_eq(json_integer_value(json_object_get(m, "requests")), 1);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(m, "metadata"), "layout")),
                     "tensor=2");
    m = json_array_get(json_object_get(o, "models"), 1);
    ck_assert_str_eq(json_string_value(json_object_get(m, "state")), "unloaded");
    ck_assert_str_eq(json_string_value(json_object_get(m, "reason")), "nobody asked");
    ck_assert(json_is_null(json_object_get(m, "metadata")));
    ck_assert_uint_eq(json_array_size(json_object_get(o, "replicas")), 2);
    replica = json_array_get(json_object_get(o, "replicas"), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(replica, "ranks")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(replica, "done")), 5);
    replica = json_array_get(json_object_get(o, "replicas"), 1);
    ck_assert_str_eq(json_string_value(json_object_get(replica, "state")), "dead");
    ck_assert_str_eq(json_string_value(json_object_get(replica, "reason")),
                     "silent for 1.5 s?[31m");
    ck_assert_uint_eq(json_array_size(json_object_get(replica, "ranks")), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(o, "cluster"), "waiting")),
                     3);
    ck_assert_str_eq(json_string_value(json_object_get(o, "version")), "1.2.3");
    ck_assert(json_is_object(json_object_get(o, "configuration")));
    ck_assert(json_is_object(json_object_get(o, "http")));
    json_decref(o);
}
END_TEST

START_TEST(replicas_in_order)
{
    /* a name without a number counts as 0 */
    static const char *const want[5] = {"0/1", "x", "2/3", "2/1", "10/1"};
    static trm_hub_replica_info replicas[5] = {{.identity = "10/1", .state = "ready", .phase = ""},
                                               {.identity = "2/1", .state = "dead", .phase = ""},
                                               {.identity = "x", .state = "ready", .phase = ""},
                                               {.identity = "2/3", .state = "ready", .phase = ""},
                                               {.identity = "0/1", .state = "ready", .phase = ""}};
    json_t *o, *list;

    hub_info.replica = replicas;
    hub_info.replicas = 5;
    o = get("/status");
    list = json_object_get(o, "replicas");
    for (size_t i = 0; i < 5; i++)
        ck_assert_str_eq(json_string_value(json_object_get(json_array_get(list, i), "identity")),
                         want[i]);
    json_decref(o);
}
END_TEST

START_TEST(without_metrics)
{
    json_t *o;

    trm_metrics_destroy(gateway.metrics);
    gateway.metrics = NULL;
    add_model("m", TRM_MODEL_READY, "", NULL);
    o = get("/status");
    ck_assert_int_eq(x.status, 200);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "models")), 1);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "replicas")), 2);
    json_decref(o);
    json_decref(get("/metrics"));
    ck_assert_int_eq(x.status, 404);
}
END_TEST

START_TEST(version_and_metrics)
{
    json_t *o = get("/version");

    ck_assert_str_eq(x.body, "{\"version\":\"1.2.3\"}");
    json_decref(o);
    gateway.options.configuration = "{\"models\":[]}";
    o = get("/version");
    ck_assert_str_eq(x.body, "{\"version\":\"1.2.3\",\"configuration\":{\"models\":[]}}");
    json_decref(o);
    gateway.options.configuration = "no JSON";
    o = get("/version");
    ck_assert_str_eq(x.body, "{\"version\":\"1.2.3\"}");
    json_decref(o);
    json_decref(get("/metrics"));
    ck_assert_int_eq(x.status, 200);
    ck_assert_str_eq(x.type, "text/plain; version=0.0.4; charset=utf-8");
    ck_assert_ptr_nonnull(strstr(x.body, "\ntrireme_build_info{version=\""));
}
END_TEST

/* nothing from elsewhere, and nothing that would take text of the server for markup */
START_TEST(the_page)
{
    static const char *const never[] = {
        "http:", "https:",       "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
        "eval(", "new Function", "src=",      "@import",   "localStorage"};
    FILE *f = fopen(TRM_SOURCE_DIR "/coordinator/gateway/status_page.html", "re");
    char *source;
    size_t bytes = 0;

    ck_assert_ptr_null(get("/"));
    ck_assert_int_eq(x.status, 200);
    ck_assert_str_eq(x.type, "text/html; charset=utf-8");
    ck_assert_ptr_nonnull(strstr(x.headers, "Content-Security-Policy: default-src 'none'"));
    ck_assert_ptr_nonnull(strstr(x.headers, "frame-ancestors 'none'"));
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        for (const char *s = x.body; (s = strstr(s, never[i])) != NULL; s++)
            ck_assert_msg(strncmp(s, "http://www.w3.org/2000/svg", 26) == 0, "%.60s", s);
    ck_assert_ptr_nonnull(f);
    source = calloc(1, trmi_status_page_bytes + 2);
    bytes = fread(source, 1, trmi_status_page_bytes + 1, f);
    fclose(f);
    ck_assert_uint_eq(bytes, trmi_status_page_bytes);
    ck_assert_int_eq(memcmp(source, trmi_status_page, bytes), 0);
    free(source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *tc = tcase_create("status");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, health, 0, sizeof(healths) / sizeof(healths[0]));
    tcase_add_test(tc, a_hub_that_fails);
    tcase_add_test(tc, keys);
    tcase_add_test(tc, status_merges);
    tcase_add_test(tc, replicas_in_order);
    tcase_add_test(tc, without_metrics);
    tcase_add_test(tc, version_and_metrics);
    tcase_add_test(tc, the_page);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
