/* The HTTP server: keys, what a key may have under way, CORS, the access log, starting. */
#define _GNU_SOURCE
#include "tests/coordinator/http_kit.h"

KIT_METRICS

static trm_http *server;
static int port;

/* ---- handlers ---- */
static void say(void *ctx, trm_http_exchange *x)
{
    char text[300];
    size_t bytes = 0;

    (void)ctx;
    (void)trm_http_body(x, &bytes);
    snprintf(text, sizeof(text), "|key=%s|%zu", trm_http_key_name(x), bytes);
    trm_http_answer(x, 200, "text/plain", text, strlen(text));
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

static const trm_http_route routes[] = {
    {"GET", "/", say, TRM_HTTP_OPEN},
    {"GET", "/health", say, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
    {"GET", "/metrics", say, TRM_HTTP_LIGHT},
    {"GET", "/v2/models/{model}", say, 0},
    {"POST", "/v2/models/{model}/infer", say, 0},
    {"POST", "/echo", say, 0},
    {"POST", "/admin", say, TRM_HTTP_ADMIN},
    {"GET", "/hold", hold, 0},
};

static trm_http_options options(void)
{
    return (trm_http_options){.listen = "127.0.0.1:0",
                              .routes = routes,
                              .route_count = (int)(sizeof(routes) / sizeof(routes[0]))};
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
    Suite *s = suite_create("http_server");
    TCase *t = tcase_create("http_server");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
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
