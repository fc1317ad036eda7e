/* The HTTP server: routes, names, bodies, limits; what is malformed. Keys, the log and starting are
 * in test_http_server.c, streams, clients that leave and TLS in test_http_stream.c. */
#define _GNU_SOURCE
#include "tests/coordinator/http_kit.h"

KIT_METRICS

static trm_http *server;
static int port;

/* ---- handlers ---- */
static void say(void *ctx, trm_http_exchange *x)
{
    const char *model = trm_http_name(x, "model"), *rest = trm_http_name(x, "rest");
    const char *q = trm_http_query(x, "q"), *h = trm_http_header(x, "x-test");
    char text[2048];
    size_t bytes = 0;

    ck_assert_ptr_eq(ctx, trm_http_ctx(x));
    (void)trm_http_body(x, &bytes);
    snprintf(text, sizeof(text), "%s %s|%s|model=%s|rest=%s|q=%s|h=%s|key=%s|%zu",
             trm_http_method(x), trm_http_path(x), trm_http_route_pattern(x), model ? model : "-",
             rest ? rest : "-", q ? q : "-", h ? h : "-", trm_http_key_name(x), bytes);
    trm_http_set_header(x, "X-Extra", "one\r\nX-Evil: two");
    trm_http_answer(x, 200, "text/plain", text, strlen(text));
}

static void echo(void *ctx, trm_http_exchange *x)
{
    size_t bytes = 0;
    const void *body = trm_http_body(x, &bytes);

    (void)ctx;
    trm_http_answer(x, 200, "application/octet-stream", body, bytes);
}

static void echo_now(trm_http_exchange *x)
{
    echo(NULL, x);
}

static void echo_later(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    kit_on_thread(x, echo_now);
}

static int large_kept;
static char large_path[160];
static void large(void *ctx, trm_http_exchange *x)
{
    const char *path = trm_http_body_path(x);
    size_t bytes = 0;
    const unsigned char *body = trm_http_body(x, &bytes);
    struct stat info;
    uint64_t sum = 0;

    (void)ctx;
    ck_assert_ptr_nonnull(path);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq((size_t)info.st_size, bytes);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    snprintf(large_path, sizeof(large_path), "%s", path);
    for (size_t i = 0; i < bytes; i++)
        sum += body[i];
    large_kept++;
    trm_http_answer_json(
        x, 200, json_pack("{s:I,s:I}", "bytes", (json_int_t)bytes, "sum", (json_int_t)sum));
}

static void file(void *ctx, trm_http_exchange *x)
{
    int fd = open(kit_file("file", NULL, 0), O_RDONLY | O_CLOEXEC);

    (void)ctx;
    ck_assert_int_ge(fd, 0);
    trm_http_answer_file(x, 200, "text/plain", fd, 2, 5);
}

static const trm_http_route routes[] = {
    {"GET", "/", say, TRM_HTTP_OPEN},
    {"GET", "/health", say, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
    {"GET", "/metrics", say, TRM_HTTP_LIGHT},
    {"GET", "/v2/models/{model}", say, 0},
    {"POST", "/v2/models/{model}/infer", say, 0},
    {"GET", "/v2/models/stats", say, 0},
    {"GET", "/rest/{rest...}", say, 0},
    {"POST", "/echo", echo, 0},
    {"PUT", "/echo", echo, 0},
    {"DELETE", "/echo", echo, 0},
    {"POST", "/later", echo_later, 0},
    {"POST", "/large", large, TRM_HTTP_LARGE},
    {"GET", "/file", file, 0},
};

static char *error_body(void *ctx, const char *path, int status, const char *message)
{
    char *text = NULL;

    (void)ctx;
    if (strncmp(path, "/v1", 3) == 0 && asprintf(&text, "v1 %d %s", status, message) > 0) {
        char *own = trm_strdup(text);

        free(text);
        return own;
    }
    return NULL;
}

static trm_http_options options(void)
{
    return (trm_http_options){.listen = "127.0.0.1:0",
                              .body_max = 100000,
                              .upload_max = 3000000,
                              .routes = routes,
                              .route_count = (int)(sizeof(routes) / sizeof(routes[0])),
                              .ctx = &server,
                              .error_body = error_body};
}

static void up(const trm_http_options *o)
{
    OK(trm_http_start(o, &server));
    port = trm_http_port(server);
    ck_assert_int_gt(port, 0);
}

static void setup(void)
{
    trm_http_options o = options();

    up(&o);
}

static void teardown(void)
{
    trm_http_stop(server);
    server = NULL;
    ck_assert_int_eq(trm_alloc_live(), 0);
}

/* ---- routes ---- */
static const struct path_row {
    const char *name, *request;
    int status;
    const char *body; /* starts with; NULL: not looked at */
} path_rows[] = {
    {"root", "GET / HTTP/1.1", 200, "GET /|/|"},
    {"literal", "GET /health HTTP/1.1", 200, "GET /health|/health|model=-"},
    {"name", "GET /v2/models/m1 HTTP/1.1", 200, "GET /v2/models/m1|/v2/models/{model}|model=m1|"},
    {"literal before name", "GET /v2/models/stats HTTP/1.1", 200,
     "GET /v2/models/stats|/v2/models/stats|model=-"},
    {"encoded", "GET /v2/models/a%20b%c3%a9 HTTP/1.1", 200,
     "GET /v2/models/a b\xc3\xa9|/v2/models/{model}|model=a b\xc3\xa9|"},
    {"encoded slash is inside", "GET /v2/models/org%2Fm HTTP/1.1", 200,
     "GET /v2/models/org/m|/v2/models/{model}|model=org/m|"},
    {"plus stays", "GET /v2/models/a+b HTTP/1.1", 200, "GET /v2/models/a+b|/v2/models/{model}|"},
    {"dots stay", "GET /rest/../x HTTP/1.1", 200,
     "GET /rest/../x|/rest/{rest...}|model=-|rest=../x"},
    {"rest", "GET /rest/a/b%2fc/d HTTP/1.1", 200,
     "GET /rest/a/b/c/d|/rest/{rest...}|model=-|rest=a/b/c/d|"},
    {"query", "GET /health?a=1&q=x%26y+z HTTP/1.1", 200,
     "GET /health|/health|model=-|rest=-|q=x&y z|"},
    {"query without value", "GET /health?q HTTP/1.1", 200,
     "GET /health|/health|model=-|rest=-|q=|"},
    {"absolute", "GET http://host/health?q=1 HTTP/1.1", 200,
     "GET /health|/health|model=-|rest=-|q=1"},
    {"http 1.0", "GET /health HTTP/1.0", 200, "GET /health"},
    {"empty name", "GET /v2/models/ HTTP/1.1", 404, "{\"error\":"},
    {"empty rest", "GET /rest/ HTTP/1.1", 404, NULL},
    {"trailing slash", "GET /health/ HTTP/1.1", 404, NULL},
    {"double slash", "GET //health HTTP/1.1", 404, NULL},
    {"too deep", "GET /v2/models/m/infer/x HTTP/1.1", 404, NULL},
    {"404 in another form", "GET /v1/nothing HTTP/1.1", 404, "v1 404 "},
    {"case matters", "GET /HEALTH HTTP/1.1", 404, NULL},
    {"broken %", "GET /v2/models/a%2 HTTP/1.1", 400, NULL},
    {"broken %%", "GET /v2/models/a%zz HTTP/1.1", 400, NULL},
    {"zero byte", "GET /v2/models/a%00b HTTP/1.1", 400, NULL},
    {"broken query", "GET /health?q=%f HTTP/1.1", 400, NULL},
    {"405", "DELETE /health HTTP/1.1", 405, "{\"error\":\"this path takes GET, HEAD, OPTIONS\"}"},
    {"405 of a name", "GET /v2/models/m/infer HTTP/1.1", 405, NULL},
    {"unknown method", "BREW /health HTTP/1.1", 405, NULL},
    {"asterisk", "OPTIONS * HTTP/1.1", 404, NULL},
};

START_TEST(paths)
{
    const struct path_row *row = &path_rows[_i];
    kit_client c = kit_connect(port);
    kit_answer a;
    char text[512], id[32];

    snprintf(text, sizeof(text), "%s\r\nHost: h\r\n\r\n", row->request);
    kit_ask(&c, text);
    ck_assert_msg(kit_read(&c, &a), "%s: no answer", row->name);
    ck_assert_msg(a.status == row->status, "%s: %d", row->name, a.status);
    if (row->body != NULL)
        ck_assert_msg(strncmp(a.body, row->body, strlen(row->body)) == 0, "%s: '%s'", row->name,
                      a.body);
    ck_assert_msg(kit_header(&a, "\r\nX-Request-Id:", id, sizeof(id)) != NULL && strlen(id) == 16,
                  "%s: no id", row->name);
    if (a.status == 405)
        ck_assert_ptr_nonnull(strstr(a.head, "\r\nAllow: "));
    if (a.status == 200) { /* a value cannot make a header of its own */
        ck_assert_ptr_null(strstr(a.head, "\r\nX-Evil"));
        ck_assert_ptr_nonnull(strstr(a.head, "\r\nX-Extra: one  X-Evil: two"));
    }
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

START_TEST(head_and_options)
{
    kit_client c = kit_connect(port);
    kit_answer a;
    char text[64];

    kit_ask(&c, "HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read_of(&c, &a, true));
    ck_assert_int_eq(a.status, 200);
    ck_assert_ptr_nonnull(kit_header(&a, "\r\nContent-Length:", text, sizeof(text)));
    ck_assert_str_ne(text, "0");
    kit_answer_fini(&a);
    kit_ask(&c, "OPTIONS /echo HTTP/1.1\r\nHost: h\r\n\r\n"); /* the connection goes on */
    ck_assert(kit_read(&c, &a));
    ck_assert_int_eq(a.status, 204);
    ck_assert_str_eq(kit_header(&a, "\r\nAllow:", text, sizeof(text)),
                     "POST, PUT, DELETE, OPTIONS");
    ck_assert_ptr_null(strstr(a.head, "Access-Control"));
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

START_TEST(bad_routes)
{
    static const char *const patterns[] = {"v1",
                                           "/{}",
                                           "/{a",
                                           "/{a...}/b",
                                           "/a{b}c/{",
                                           "",
                                           "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"};
    trm_http_route row = {"GET", patterns[_i], say, 0};
    trm_http_options o = {.listen = ":0", .routes = &row, .route_count = 1};
    trm_http *h = NULL;

    ck_assert_int_eq(trm_http_start(&o, &h), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_null(h);
}
END_TEST

/* ---- bodies ---- */
START_TEST(bodies)
{
    static const struct {
        const char *name, *path;
        size_t bytes;
    } rows[] = {
        {"none", "/echo", 0},           {"one", "/echo", 1},         {"small", "/echo", 1000},
        {"limit", "/echo", 100000},     {"later none", "/later", 0}, {"later small", "/later", 10},
        {"later all", "/later", 99999},
    };
    kit_client c = kit_connect(port);
    kit_answer a;
    char head[200], *body = malloc(rows[_i].bytes + 1);

    ck_assert_ptr_nonnull(body);
    for (size_t i = 0; i < rows[_i].bytes; i++)
        body[i] = (char)(i * 7 + i / 251);
    for (int round = 0; round < 3; round++) { /* keep-alive */
        snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n",
                 rows[_i].path, rows[_i].bytes);
        kit_ask(&c, head);
        ck_assert(kit_send(&c, body, rows[_i].bytes));
        ck_assert_msg(kit_read(&c, &a), "%s", rows[_i].name);
        ck_assert_int_eq(a.status, 200);
        ck_assert_uint_eq(a.bytes, rows[_i].bytes);
        ck_assert_int_eq(memcmp(a.body, body, a.bytes), 0);
        kit_answer_fini(&a);
    }
    free(body);
    kit_close(&c);
}
END_TEST

START_TEST(chunked_and_pipelined)
{
    kit_client c = kit_connect(port);
    kit_answer a;

    kit_ask(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                "3\r\nabc\r\n");
    kit_nap(20);
    kit_ask(&c, "5;ext=1\r\ndefgh\r\n0\r\nTrailer: x\r\n\r\n"
                "POST /later HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxy"
                "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
                "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n123"
                "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "abcdefgh");
    kit_answer_fini(&a);
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "xy");
    kit_answer_fini(&a);
    ck_assert(kit_read(&c, &a));
    ck_assert_int_eq(strncmp(a.body, "GET /health", 11), 0);
    kit_answer_fini(&a);
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "123");
    kit_answer_fini(&a);
    ck_assert(kit_read(&c, &a));
    ck_assert_int_eq(a.status, 404);
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

START_TEST(expect_continue)
{
    kit_client c = kit_connect(port);
    kit_answer a;

    kit_ask(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
                "Expect: 100-continue\r\n\r\n");
    ck_assert(kit_read_head(&c, &a));
    ck_assert_int_eq(a.status, 100);
    kit_ask(&c, "abc");
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "abc");
    kit_answer_fini(&a);
    kit_ask(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n"
                "Expect: 100-continue\r\n\r\n");
    ck_assert(kit_read_head(&c, &a));
    ck_assert_int_eq(a.status, 413); /* and no body is asked for */
    kit_close(&c);
}
END_TEST

/* A body too large: the whole of it is sent in one go, as most clients do, and the answer must
 * still arrive. */
START_TEST(too_large)
{
    static const struct {
        const char *name, *head;
        size_t bytes;
    } rows[] = {
        {"declared", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n", 4000000},
        {"just over", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100001\r\n\r\n", 100001},
        {"endless",
         "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3d0900\r\n", 4000000},
        {"upload", "POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 3000001\r\n\r\n", 3000001},
        {"upload chunked",
         "POST /large HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3d0900\r\n",
         4000000},
        {"huge", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999999999\r\n\r\n",
         100000},
    };
    kit_client c = kit_connect(port);
    kit_answer a;
    char *body = calloc(1, rows[_i].bytes);

    ck_assert_ptr_nonnull(body);
    kit_ask(&c, rows[_i].head);
    (void)kit_send(&c, body, rows[_i].bytes);
    ck_assert_msg(kit_read(&c, &a), "%s: no answer", rows[_i].name);
    ck_assert_msg(a.status == 413, "%s: %d", rows[_i].name, a.status);
    kit_answer_fini(&a);
    kit_close(&c);
    free(body);
    ck_assert_int_eq(kit_status(port, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
}
END_TEST

START_TEST(uploads)
{
    kit_client c = kit_connect(port);
    kit_answer a;
    size_t bytes = 2500000;
    char *body = malloc(bytes), want[64];
    uint64_t sum = 0;

    ck_assert_ptr_nonnull(body);
    for (size_t i = 0; i < bytes; i++) {
        body[i] = (char)(i % 253);
        sum += (unsigned char)body[i];
    }
    kit_ask(&c, "POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 2500000\r\n\r\n");
    ck_assert(kit_send(&c, body, bytes));
    ck_assert(kit_read(&c, &a));
    snprintf(want, sizeof(want), "{\"bytes\":2500000,\"sum\":%llu}", (unsigned long long)sum);
    ck_assert_str_eq(a.body, want);
    kit_answer_fini(&a);
    kit_ask(&c, "POST /large HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "{\"bytes\":0,\"sum\":0}");
    kit_answer_fini(&a);
    kit_close(&c);
    trm_http_stop(server);
    server = NULL;
    ck_assert_int_ne(access(large_path, F_OK), 0); /* the file went with the exchange */
    free(body);
}
END_TEST

START_TEST(files)
{
    kit_client c = kit_connect(port);
    kit_answer a;

    kit_file("file", "0123456789", 0600);
    kit_ask(&c, "GET /file HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "23456");
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

/* ---- malformed ---- */
static const struct bad_row {
    const char *name, *text;
    int status; /* 0: closed without an answer is right, too */
} bad_rows[] = {
    {"no host", "GET /health HTTP/1.1\r\n\r\n", 400},
    {"two lengths",
     "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde", 400},
    {"length and coding",
     "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
     "0\r\n\r\n",
     400},
    {"other coding", "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
    {"negative length", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400},
    {"length is text", "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400},
    {"length overflows",
     "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413},
    {"bad chunk", "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
     400},
    {"no method", " /health HTTP/1.1\r\nHost: h\r\n\r\n", 0},
    {"header without colon", "GET /health HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", 400},
    {"binary", "\x16\x03\x01\x02\x01\x01\xff\xfc\r\n\r\n\r\n", 0},
    {"no version", "GET /health\r\n\r\n", 0},
};

START_TEST(malformed)
{
    kit_client c = kit_connect(port);
    kit_answer a;

    kit_ask(&c, bad_rows[_i].text);
    if (bad_rows[_i].status == 0) /* more might come: say that it does not */
        shutdown(c.fd, SHUT_WR);
    if (kit_read(&c, &a)) {
        ck_assert_msg(a.status == bad_rows[_i].status ||
                          (bad_rows[_i].status == 0 && a.status >= 400),
                      "%s: %d", bad_rows[_i].name, a.status);
        kit_answer_fini(&a);
    } else {
        ck_assert_msg(bad_rows[_i].status == 0, "%s: no answer", bad_rows[_i].name);
    }
    kit_close(&c);
    ck_assert_int_eq(kit_status(port, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
}
END_TEST

START_TEST(head_too_large)
{
    kit_client c = kit_connect(port);
    char line[1100];
    kit_answer a;

    memset(line, 'a', sizeof(line));
    memcpy(line, "X: ", 3);
    memcpy(line + 1098, "\r\n", 2);
    kit_ask(&c, "GET /health HTTP/1.1\r\nHost: h\r\n");
    for (int i = 0; i < 80 && kit_send(&c, line, sizeof(line)); i++) {
    }
    shutdown(c.fd, SHUT_WR);
    if (kit_read(&c, &a)) { /* it may be lost: bytes that nobody reads reset a connection */
        ck_assert_int_ge(a.status, 400);
        kit_answer_fini(&a);
    }
    kit_close(&c);
    ck_assert_int_eq(kit_status(port, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
}
END_TEST

START_TEST(body_does_not_come)
{
    trm_http_options o = options();
    kit_client c;
    kit_answer a;

    trm_http_stop(server);
    o.idle_ms = 300;
    up(&o);
    c = kit_connect(port);
    kit_ask(&c, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    ck_assert(kit_read(&c, &a));
    ck_assert_int_eq(a.status, 408);
    kit_answer_fini(&a);
    ck_assert(!kit_more(&c));
    kit_close(&c);
    c = kit_connect(port); /* neither does the head: closed */
    kit_ask(&c, "POST /echo HTTP/1.1\r\nHost");
    ck_assert(!kit_more(&c));
    kit_close(&c);
}
END_TEST

#define COUNT(rows) ((int)(sizeof(rows) / sizeof((rows)[0])))

int main(void)
{
    Suite *s = suite_create("http");
    TCase *t = tcase_create("http");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, paths, 0, COUNT(path_rows));
    tcase_add_test(t, head_and_options);
    tcase_add_loop_test(t, bad_routes, 0, 7);
    tcase_add_loop_test(t, bodies, 0, 7);
    tcase_add_test(t, chunked_and_pipelined);
    tcase_add_test(t, expect_continue);
    tcase_add_loop_test(t, too_large, 0, 6);
    tcase_add_test(t, uploads);
    tcase_add_test(t, files);
    tcase_add_loop_test(t, malformed, 0, COUNT(bad_rows));
    tcase_add_test(t, head_too_large);
    tcase_add_test(t, body_does_not_come);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
