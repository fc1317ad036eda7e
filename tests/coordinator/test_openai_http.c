/* OpenAI's API as bytes on a socket: the real server, uploads, streams, clients that leave. */
#define _GNU_SOURCE
#include "openai_hub.h"

#include "http_kit.h"

static trm_hub hub;
static trm_gateway g;
static trm_http *server;
static trm_http_route routes[64];
static char folder[64];

static char *error_body(void *ctx, const char *path, int status, const char *message)
{
    (void)ctx;
    (void)path;
    return trmi_openai_error(status, message);
}

static void setup(void)
{
    trmi_routes a = trmi_openai_routes(), b = trmi_openai_files_routes();
    trm_http_options o = {.listen = "127.0.0.1:0", .ctx = &g, .error_body = error_body};

    snprintf(folder, sizeof(folder), "/tmp/trm-openai-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(setenv("TMPDIR", folder, 1), 0);
    kit_hub_start(&hub);
    memset(&g, 0, sizeof(g));
    g.hub = &hub;
    memcpy(routes, a.routes, (size_t)a.count * sizeof(routes[0]));
    memcpy(routes + a.count, b.routes, (size_t)b.count * sizeof(routes[0]));
    o.routes = routes;
    o.route_count = a.count + b.count;
    OK(trmi_openai_files_open(&g));
    OK(trm_http_start(&o, &server));
}

static void teardown(void)
{
    trm_http_stop(server);
    trmi_openai_files_close(&g);
    kit_hub_stop(&hub);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing was left in it */
}

static void ask(kit_client *c, const char *method, const char *path, const char *type,
                const char *body)
{
    size_t n = strlen(body) + strlen(path) + 256;
    char *text = malloc(n);

    snprintf(text, n,
             "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s",
             method, path, type, strlen(body), body);
    kit_ask(c, text);
    free(text);
}

static json_t *call(kit_client *c, const char *method, const char *path, const char *type,
                    const char *body, int status)
{
    kit_answer a;
    json_t *o;

    ask(c, method, path, type, body);
    ck_assert(kit_read(c, &a));
    ck_assert_msg(a.status == status, "%d: %s", a.status, a.body);
    o = json_loadb(a.body, a.bytes, 0, NULL);
    ck_assert_msg(o != NULL, "%s", a.body);
    kit_answer_fini(&a);
    return o;
}

#define JSON "application/json"

START_TEST(requests)
{
    kit_client c = kit_connect(trm_http_port(server));
    kit_answer a;
    json_t *o;
    char text[64];

    for (int i = 0; i < 3; i++) { /* one connection for all */
        o = call(&c, "POST", "/v1/completions", JSON, "{\"model\":\"good\",\"prompt\":\"x\"}", 200);
        ck_assert(json_is_object(json_object_get(o, "ok")));
        json_decref(o);
        ask(&c, "POST", "/v1/chat/completions", JSON, "{\"model\":\"good\",\"stream\":true}");
        ck_assert(kit_read(&c, &a));
        ck_assert_int_eq(a.status, 200);
        ck_assert_str_eq(kit_header(&a, "\r\nContent-Type:", text, sizeof(text)),
                         "text/event-stream");
        ck_assert_str_eq(kit_header(&a, "\r\nCache-Control:", text, sizeof(text)), "no-cache");
        ck_assert_str_eq(
            a.body, "data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: {\"n\":3}\n\ndata: [DONE]\n\n");
        kit_answer_fini(&a);
        o = call(&c, "POST", "/v1/completions", JSON, "{\"model\":", 400);
        json_decref(o);
        ask(&c, "POST", "/v1/completions", JSON, "{\"model\":\"full\"}");
        ck_assert(kit_read(&c, &a));
        ck_assert_int_eq(a.status, 429);
        ck_assert_ptr_nonnull(kit_header(&a, "\r\nRetry-After:", text, sizeof(text)));
        kit_answer_fini(&a);
        o = call(&c, "POST", "/v1/completions", JSON, "{\"model\":\"bad\",\"stream\":true}", 400);
        json_decref(o);
        o = call(&c, "GET", "/v1/models/a%2Fb:1", JSON, "", 404);
        ck_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "error"), "code")),
                         "model_not_found");
        json_decref(o);
        o = call(&c, "GET", "/v1/nothing", JSON, "", 404);
        ck_assert(json_is_object(json_object_get(o, "error")));
        json_decref(o);
    }
    kit_close(&c);
}
END_TEST

/* A client that closes before its answer: its request is cancelled. */
START_TEST(leaves)
{
    enum { CLIENTS = 20 };
    int64_t until = trm_deadline_us(20000);
    int cancels = 0;

    kit_hub_set_hold(&hub, true);
    for (int i = 0; i < CLIENTS; i++) {
        kit_client c = kit_connect(trm_http_port(server));

        ask(&c, "POST", "/v1/completions", JSON,
            i % 2 == 0 ? "{\"model\":\"good\",\"hold\":1}"
                       : "{\"model\":\"good\",\"hold\":1,\"stream\":true}");
        if (i % 4 >= 2)
            kit_nap(5);
        kit_close(&c);
    }
    while (cancels < CLIENTS) {
        ck_assert_msg(trm_now_us() < until, "%d of %d were cancelled", cancels, CLIENTS);
        kit_nap(5);
        pthread_mutex_lock(&hub.mu);
        cancels = hub.cancels + (hub.submitted < CLIENTS ? CLIENTS - hub.submitted : 0);
        pthread_mutex_unlock(&hub.mu);
    }
}
END_TEST

START_TEST(files_and_batches)
{
    static const char form[] =
        "--b0\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
        "--b0\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n"
        "Content-Type: application/octet-stream\r\n\r\n%s\r\n--b0--\r\n";
    static const char lines[] =
        "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\","
        "\"body\":{\"model\":\"good\"}}\n{\"custom_id\":\"b\",\"method\":"
        "\"POST\",\"url\":\"/v1/completions\",\"body\":{\"model\":\"bad\"}}\n";
    kit_client c = kit_connect(trm_http_port(server));
    int64_t until = trm_deadline_us(20000);
    char body[2048], path[256], id[64];
    kit_answer a;
    json_t *o;

    snprintf(body, sizeof(body), form, lines);
    o = call(&c, "POST", "/v1/files", "multipart/form-data; boundary=b0", body, 200);
    ck_assert_str_eq(json_string_value(json_object_get(o, "filename")), "in.jsonl");
    ck_assert_int_eq(json_integer_value(json_object_get(o, "bytes")), (json_int_t)strlen(lines));
    snprintf(id, sizeof(id), "%s", json_string_value(json_object_get(o, "id")));
    json_decref(o);
    snprintf(path, sizeof(path), "/v1/files/%s/content", id);
    ask(&c, "GET", path, JSON, "");
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, lines);
    kit_answer_fini(&a);
    snprintf(body, sizeof(body),
             "{\"input_file_id\":\"%s\",\"endpoint\":\"/v1/completions\",\"completion_window\":"
             "\"24h\"}",
             id);
    o = call(&c, "POST", "/v1/batches", JSON, body, 200);
    snprintf(path, sizeof(path), "/v1/batches/%s", json_string_value(json_object_get(o, "id")));
    for (;;) {
        json_decref(o);
        o = call(&c, "GET", path, JSON, "", 200);
        if (strcmp(json_string_value(json_object_get(o, "status")), "completed") == 0)
            break;
        ck_assert(trm_now_us() < until);
        kit_nap(2);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(
            path, sizeof(path), "/v1/files/%s/content",
            json_string_value(json_object_get(o, i == 0 ? "output_file_id" : "error_file_id")));
        ask(&c, "GET", path, JSON, "");
        ck_assert(kit_read(&c, &a));
        ck_assert_int_eq(a.status, 200);
        ck_assert_ptr_nonnull(
            strstr(a.body, i == 0 ? "\"custom_id\":\"a\",\"response\":{\"status_code\":200"
                                  : "\"custom_id\":\"b\",\"response\":{\"status_code\":400"));
        kit_answer_fini(&a);
    }
    json_decref(o);
    json_decref(call(&c, "POST", "/v1/files", "multipart/form-data; boundary=b1", body, 400));
    json_decref(call(&c, "POST", "/v1/files", JSON, "{}", 400));
    snprintf(path, sizeof(path), "/v1/files/%s", id);
    json_decref(call(&c, "DELETE", path, JSON, "", 200));
    json_decref(call(&c, "GET", path, JSON, "", 404));
    json_decref(call(&c, "GET", "/v1/files?limit=x", JSON, "", 400));
    o = call(&c, "GET", "/v1/files?purpose=batch_output&limit=1", JSON, "", 200);
    ck_assert(json_is_true(json_object_get(o, "has_more")));
    json_decref(o);
    kit_close(&c);
}
END_TEST

/* The server ends while uploads and requests are under way. */
START_TEST(ends)
{
    kit_client c[8];

    kit_hub_set_hold(&hub, true);
    for (int i = 0; i < 8; i++) {
        c[i] = kit_connect(trm_http_port(server));
        ask(&c[i], "POST", i % 2 == 0 ? "/v1/completions" : "/v1/files", JSON,
            "{\"model\":\"good\",\"hold\":1}");
    }
    trm_http_stop(server);
    server = NULL;
    for (int i = 0; i < 8; i++)
        kit_close(&c[i]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("openai over http");
    TCase *tc = tcase_create("all");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, requests);
    tcase_add_test(tc, leaves);
    tcase_add_test(tc, files_and_batches);
    tcase_add_test(tc, ends);
    suite_add_tcase(s, tc);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
