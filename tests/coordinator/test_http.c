/* The HTTP server: routes, names, bodies, limits, keys, the log; what is malformed. Streams,
 * clients that leave and TLS are in test_http_stream.c. */
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

static trm_http_exchange *held[8];
static int held_count;
static void hold(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    held[held_count] = x;
    __atomic_add_fetch(&held_count, 1, __ATOMIC_RELEASE);
}

static void release_all(void)
{
    for (int i = 0; i < held_count; i++)
        trm_http_answer(held[i], 200, "text/plain", "held", 4);
    held_count = 0;
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
    {"POST", "/admin", echo, TRM_HTTP_ADMIN},
    {"GET", "/hold", hold, 0},
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

/* ---- keys ---- */
static const char keys_text[] =
    "# who may\n"
    "\n"
    "alice  alice-secret-0123456789   # a comment\n"
    "root\troot-secret-0123456789 admin\r\n"
    /* of "bob-secret" */
    "bob sha256:4dd57e8ed4a2b0bdcc6a9e2d8d1ed7a5a1ed1cd1c1a1ce5a1c1f1b1a1a1a1a1a";

static const struct key_row {
    const char *name, *request;
    int status;
} key_rows[] = {
    {"none", "GET /v2/models/m HTTP/1.1\r\n", 401},
    {"wrong", "GET /v2/models/m HTTP/1.1\r\nAuthorization: Bearer nobody\r\n", 401},
    {"part", "GET /v2/models/m HTTP/1.1\r\nAuthorization: Bearer alice-secret-012345678\r\n", 401},
    {"empty", "GET /v2/models/m HTTP/1.1\r\nAuthorization: Bearer \r\n", 401},
    {"basic", "GET /v2/models/m HTTP/1.1\r\nAuthorization: Basic YTpi\r\n", 401},
    {"bearer", "GET /v2/models/m HTTP/1.1\r\nAuthorization: Bearer alice-secret-0123456789\r\n",
     200},
    {"any case", "GET /v2/models/m HTTP/1.1\r\nauthorization: bearer alice-secret-0123456789\r\n",
     200},
    {"x-api-key", "GET /v2/models/m HTTP/1.1\r\nx-api-key: alice-secret-0123456789\r\n", 200},
    {"health is open", "GET /health HTTP/1.1\r\n", 200},
    {"root is open", "GET / HTTP/1.1\r\n", 200},
    {"metrics is not", "GET /metrics HTTP/1.1\r\n", 401},
    {"404 needs none", "GET /nothing HTTP/1.1\r\n", 404},
    {"admin: no key", "POST /admin HTTP/1.1\r\n", 401},
    {"admin: not alice", "POST /admin HTTP/1.1\r\nX-Api-Key: alice-secret-0123456789\r\n", 403},
    {"admin: root", "POST /admin HTTP/1.1\r\nX-Api-Key: root-secret-0123456789\r\n", 200},
    {"small body refused", "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n", 401},
};

static trm_http_options with_keys(void)
{
    trm_http_options o = options();

    o.keys_path = kit_file("keys", keys_text, 0600);
    return o;
}

START_TEST(keys)
{
    const struct key_row *row = &key_rows[_i];
    trm_http_options o = with_keys();
    kit_client c;
    kit_answer a;
    char text[512];

    trm_http_stop(server);
    up(&o);
    c = kit_connect(port);
    snprintf(text, sizeof(text), "%sHost: h\r\n\r\n%s", row->request,
             strstr(row->request, "Content-Length") != NULL ? "abc" : "");
    kit_ask(&c, text);
    ck_assert(kit_read(&c, &a));
    ck_assert_msg(a.status == row->status, "%s: %d", row->name, a.status);
    if (a.status == 401)
        ck_assert_ptr_nonnull(strstr(a.head, "\r\nWWW-Authenticate: Bearer"));
    if (a.status == 200 && strstr(row->request, "models") != NULL)
        ck_assert_ptr_nonnull(strstr(a.body, "|key=alice|"));
    kit_answer_fini(&a);
    kit_ask(&c, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"); /* the connection goes on */
    ck_assert(kit_read(&c, &a));
    ck_assert_int_eq(a.status, 200);
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

START_TEST(keys_reload)
{
    trm_http_options o = with_keys();
    const char *ask = "GET /v2/models/m HTTP/1.1\r\nHost: h\r\nX-Api-Key: carol-secret\r\n\r\n";

    o.metrics_open = true;
    trm_http_stop(server);
    up(&o);
    ck_assert_int_eq(kit_status(port, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
    ck_assert_int_eq(kit_status(port, ask), 401);
    kit_file("keys", "carol carol-secret", 0600);
    OK(trm_http_reload(server));
    ck_assert_int_eq(kit_status(port, ask), 200);
    kit_file("keys", "carol", 0600);
    ck_assert_int_eq(trm_http_reload(server), TRM_ERR_CONFIG);
    ck_assert_int_eq(kit_status(port, ask), 200); /* the old ones stay */
    kit_file("keys",                              /* of "hashed" */
             "d sha256:"
             "e4e47b8cd43bb2e4ec5d5a3d5d7ed7bb5d7ed7bb5d7ed7bb5d7ed7bb5d7ed7bb\n",
             0600);
    OK(trm_http_reload(server));
    ck_assert_int_eq(kit_status(port, ask), 401);
}
END_TEST

START_TEST(keys_hashed)
{
    /* SHA-256 of "abc": FIPS 180-4's example */
    const char *line = "d sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const char *ask = "GET /v2/models/m HTTP/1.1\r\nHost: h\r\nX-Api-Key: abc\r\n\r\n";
    trm_http_options o = options();

    o.keys_path = kit_file("keys", line, 0600);
    trm_http_stop(server);
    up(&o);
    ck_assert_int_eq(kit_status(port, ask), 200);
    ck_assert_int_eq(kit_status(port, "GET /hold HTTP/1.1\r\nHost: h\r\nX-Api-Key: abd\r\n\r\n"),
                     401);
}
END_TEST

START_TEST(bad_keys)
{
    static const struct {
        const char *name, *text;
        mode_t mode;
        const char *says;
    } rows[] = {
        {"mode", "a aaaaaaaaaaaaaaaaaaaa\n", 0644, "mode 0644"},
        {"empty", "# nothing\n", 0600, "no key"},
        {"one word", "\nalice\n", 0600, ":2: a line is"},
        {"other word", "a b root\n", 0600, ":1: a line is"},
        {"four words", "a b admin c\n", 0600, ":1: a line is"},
        {"name", "a/b cccccccccccccccccccc\n", 0600, "a name is"},
        {"long name",
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa k\n", 0600,
         "at most 64"},
        {"twice", "a kkkkkkkkkkkkkkkkkkkk\nb kkkkkkkkkkkkkkkkkkkk\n", 0600, ":2: the key of 'a'"},
        {"short hash", "a sha256:00\n", 0600, "64 hexadecimal"},
        {"bad hash", "a sha256:zz7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n",
         0600, "hexadecimal"},
        {"not visible", "a k\x01kkkkkkkkkkkkkkkkkkkkk\n", 0600, "byte 2"},
    };
    trm_http_options o = options();
    trm_http *h = NULL;

    o.keys_path = kit_file("keys", rows[_i].text, rows[_i].mode);
    ck_assert_msg(trm_http_start(&o, &h) == TRM_ERR_CONFIG, "%s", rows[_i].name);
    ck_assert_msg(strstr(trm_message(), rows[_i].says) != NULL, "%s: %s", rows[_i].name,
                  trm_message());
}
END_TEST

START_TEST(per_key)
{
    trm_http_options o = options();
    const char *ask = "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n";
    kit_client c[3];
    kit_answer a;
    char text[16];

    trm_http_stop(server);
    o.requests_per_key = 2;
    up(&o);
    for (int i = 0; i < 3; i++)
        c[i] = kit_connect(port);
    kit_ask(&c[0], ask);
    kit_ask(&c[1], ask);
    kit_wait(&held_count, 2);
    kit_ask(&c[2], ask);
    ck_assert(kit_read(&c[2], &a));
    ck_assert_int_eq(a.status, 429);
    ck_assert_str_eq(kit_header(&a, "\r\nRetry-After:", text, sizeof(text)), "1");
    kit_answer_fini(&a);
    kit_ask(&c[2], "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"); /* does not count */
    ck_assert(kit_read(&c[2], &a));
    ck_assert_int_eq(a.status, 200);
    kit_answer_fini(&a);
    release_all();
    for (int i = 0; i < 2; i++) {
        ck_assert(kit_read(&c[i], &a));
        ck_assert_str_eq(a.body, "held");
        kit_answer_fini(&a);
    }
    kit_ask(&c[2], ask); /* there is room again as soon as the answers are there */
    kit_wait(&held_count, 1);
    release_all();
    ck_assert(kit_read(&c[2], &a));
    ck_assert_int_eq(a.status, 200);
    kit_answer_fini(&a);
    for (int i = 0; i < 3; i++)
        kit_close(&c[i]);
}
END_TEST

START_TEST(cors)
{
    trm_http_options o = with_keys();
    kit_client c;
    kit_answer a;
    char text[64];

    trm_http_stop(server);
    o.cors_origin = "https://a.example";
    up(&o);
    c = kit_connect(port);
    kit_ask(&c, "OPTIONS /echo HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n"
                "Access-Control-Request-Method: POST\r\n"
                "Access-Control-Request-Headers: authorization, x-stainless-os\r\n\r\n");
    ck_assert(kit_read(&c, &a)); /* without a key: browsers send none */
    ck_assert_int_eq(a.status, 204);
    ck_assert_str_eq(kit_header(&a, "\r\nAccess-Control-Allow-Origin:", text, sizeof(text)),
                     "https://a.example");
    ck_assert_str_eq(kit_header(&a, "\r\nAccess-Control-Allow-Headers:", text, sizeof(text)),
                     "authorization, x-stainless-os");
    kit_answer_fini(&a);
    kit_ask(&c, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&c, &a));
    ck_assert_ptr_nonnull(strstr(a.head, "Access-Control-Allow-Origin: https://a.example"));
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

/* ---- the log; starting ---- */
START_TEST(access_log)
{
    trm_http_options o = with_keys();
    char line[1024] = "";
    FILE *f;

    trm_http_stop(server);
    o.access_log = strdup(kit_file("log", "", 0600));
    o.keys_path = kit_file("keys", keys_text, 0600);
    up(&o);
    kit_seen.exchanges = 0;
    ck_assert_int_eq(kit_status(port, "POST /v2/models/a%0Ab%20c/infer?secret=1 HTTP/1.1\r\n"
                                      "Host: h\r\nX-Api-Key: alice-secret-0123456789\r\n"
                                      "Content-Length: 6\r\n\r\nprompt"),
                     200);
    kit_wait(&kit_seen.exchanges, 1);
    trm_http_stop(server);
    server = NULL;
    f = fopen(o.access_log, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
    ck_assert_ptr_nonnull(
        strstr(line, " alice 127.0.0.1 POST /v2/models/a\\x0ab\\x20c/infer 200 6 "));
    ck_assert_ptr_null(strstr(line, "secret"));
    ck_assert_ptr_null(strstr(line, "prompt"));
    ck_assert_ptr_null(fgets(line, sizeof(line), f));
    fclose(f);
    free((void *)(uintptr_t)o.access_log);
    ck_assert_int_eq(kit_seen.last_status, 200);
    ck_assert_uint_eq(kit_seen.last_in, 6);
}
END_TEST

static const struct listen_row {
    const char *name, *listen;
    trm_status status;
    const char *says; /* message, or URL */
} listen_rows[] = {
    {"loopback by default", ":0", TRM_OK, "http://127.0.0.1:"},
    {"named", "localhost:0", TRM_OK, "http://"},
    {"all", "*:0", TRM_OK, "http://127.0.0.1:"},
    {"no port", "127.0.0.1", TRM_ERR_CONFIG, "HOST:PORT"},
    {"bad port", "127.0.0.1:x", TRM_ERR_CONFIG, "0 to 65535"},
    {"large port", "127.0.0.1:65536", TRM_ERR_CONFIG, "0 to 65535"},
    {"no number", "127.0.0.1:", TRM_ERR_CONFIG, "0 to 65535"},
    {"bare IPv6", "::1:80", TRM_ERR_CONFIG, "[ADDRESS]:PORT"},
    {"broken bracket", "[::1:80", TRM_ERR_CONFIG, "[HOST]:PORT"},
    {"not ours", "192.0.2.1:0", TRM_ERR_IO, "192.0.2.1"},
};

START_TEST(listening)
{
    trm_http_options o = options();
    trm_http *h = NULL;
    trm_status st;

    o.listen = listen_rows[_i].listen;
    st = trm_http_start(&o, &h);
    ck_assert_msg(st == listen_rows[_i].status, "%s: %s", listen_rows[_i].name, trm_message());
    ck_assert_msg(strstr(st == TRM_OK ? trm_http_url(h) : trm_message(), listen_rows[_i].says) !=
                      NULL,
                  "%s: %s", listen_rows[_i].name, st == TRM_OK ? trm_http_url(h) : trm_message());
    trm_http_stop(h);
}
END_TEST

START_TEST(port_taken)
{
    trm_http_options o = options();
    char address[32];
    trm_http *h = NULL;

    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    o.listen = address;
    ck_assert_int_eq(trm_http_start(&o, &h), TRM_ERR_IO);
    ck_assert_ptr_nonnull(strstr(trm_message(), "is taken"));
}
END_TEST

START_TEST(no_memory)
{
    trm_http_options o = with_keys();

    trm_http_stop(server);
    server = NULL;
    for (int i = 0; i < 40; i++) {
        trm_status st;

        trm_alloc_fail_after(i);
        st = trm_http_start(&o, &server);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            break;
        ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
        ck_assert_int_eq(trm_alloc_live(), 0);
    }
    ck_assert_ptr_nonnull(server);
}
END_TEST

START_TEST(statuses)
{
    static const int want[TRM_STATUS_COUNT] = {200, 400, 400, 404, 400, 500, 503,
                                               500, 503, 504, 499, 500, 503};

    ck_assert_int_eq(trm_http_status_of((trm_status)_i), want[_i]);
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
    tcase_add_loop_test(t, keys, 0, COUNT(key_rows));
    tcase_add_test(t, keys_reload);
    tcase_add_test(t, keys_hashed);
    tcase_add_loop_test(t, bad_keys, 0, 11);
    tcase_add_test(t, per_key);
    tcase_add_test(t, cors);
    tcase_add_test(t, access_log);
    tcase_add_loop_test(t, listening, 0, COUNT(listen_rows));
    tcase_add_test(t, port_taken);
    tcase_add_test(t, no_memory);
    tcase_add_loop_test(t, statuses, 0, TRM_STATUS_COUNT);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
