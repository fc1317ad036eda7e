/* The HTTP server: answers from other threads, streams, slow readers, clients that leave, stopping
 * with exchanges under way, TLS, multipart bodies. */
#define _GNU_SOURCE
#include "tests/coordinator/http_kit.h"

#include <gnutls/gnutls.h>
#include <sys/wait.h>

KIT_METRICS

static trm_http *server;
static int port;
static int gone_count, ended_count, begun_count; /* atomic */

/* ---- handlers ---- */
static void add(int *count)
{
    __atomic_add_fetch(count, 1, __ATOMIC_RELEASE);
}

static void now(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_answer(x, 200, "text/plain", "now", 3);
}

static int64_t number(trm_http_exchange *x, const char *name, int64_t fallback)
{
    const char *text = trm_http_query(x, name);

    return text == NULL ? fallback : strtoll(text, NULL, 10);
}

/* n pieces of `size` bytes, `wait` ms between them; each piece is its number, padded */
static void run_stream(trm_http_exchange *x)
{
    int64_t n = number(x, "n", 10), size = number(x, "size", 16), wait = number(x, "wait", 0);
    char *piece = malloc((size_t)size + 1);

    ck_assert_ptr_nonnull(piece);
    trm_http_stream_begin(x, 200, "text/event-stream");
    add(&begun_count);
    for (int64_t i = 0; i < n; i++) {
        memset(piece, '.', (size_t)size);
        snprintf(piece, (size_t)size, "%lld", (long long)i);
        if (!trm_http_stream_write(x, piece, (size_t)size))
            break;
        if (wait > 0)
            kit_nap((int)wait);
    }
    free(piece);
    trm_http_stream_end(x);
    add(&ended_count);
}

static void on_gone_count(void *ctx)
{
    (void)ctx;
    add(&gone_count);
}

static void stream(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_on_gone(x, NULL, on_gone_count);
    kit_on_thread(x, run_stream);
}

static void stream_here(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    run_stream(x);
}

static trm_http_exchange *kept[64];
static int kept_count; /* atomic */

static void keep(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_on_gone(x, NULL, on_gone_count);
    if (trm_http_query(x, "stream") != NULL) {
        trm_http_stream_begin(x, 200, "text/plain");
        if (trm_http_query(x, "first") != NULL)
            ck_assert(trm_http_stream_write(x, "first", 5));
    }
    kept[kept_count] = x;
    add(&kept_count);
}

/* Answers inside the call that tells it that the client is gone. */
static void on_gone_answer(void *ctx)
{
    trm_http_answer((trm_http_exchange *)ctx, 499, "text/plain", "", 0);
    add(&gone_count);
}

static void keep_until_gone(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_on_gone(x, x, on_gone_answer);
    add(&kept_count);
}

/* Answers from one thread while another may just be telling it that the client is gone. */
static void run_racing(trm_http_exchange *x)
{
    kit_nap((int)number(x, "wait", 0));
    trm_http_answer(x, 200, "text/plain", "raced", 5);
    add(&ended_count);
}

static void racing(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_on_gone(x, NULL, on_gone_count);
    add(&kept_count);
    kit_on_thread(x, run_racing);
}

static const trm_http_route routes[] = {
    {"GET", "/now", now, 0},          {"GET", "/stream", stream, 0},
    {"GET", "/here", stream_here, 0}, {"GET", "/keep", keep, 0},
    {"POST", "/keep", keep, 0},       {"GET", "/gone", keep_until_gone, 0},
    {"GET", "/racing", racing, 0},
};

static trm_http_options options(void)
{
    return (trm_http_options){.listen = "127.0.0.1:0",
                              .routes = routes,
                              .requests_per_key = 1000,
                              .route_count = (int)(sizeof(routes) / sizeof(routes[0]))};
}

static void up(const trm_http_options *o)
{
    OK(trm_http_start(o, &server));
    port = trm_http_port(server);
}

static void setup(void)
{
    trm_http_options o = options();

    gone_count = ended_count = begun_count = kept_count = 0;
    up(&o);
}

static void teardown(void)
{
    trm_http_stop(server);
    server = NULL;
    ck_assert_int_eq(trm_alloc_live(), 0);
}

static void release_kept(void)
{
    int count = __atomic_exchange_n(&kept_count, 0, __ATOMIC_ACQ_REL);

    for (int i = 0; i < count; i++)
        if (trm_http_query(kept[i], "stream") != NULL)
            trm_http_stream_end(kept[i]);
        else
            trm_http_answer(kept[i], 200, "text/plain", "kept", 4);
}

/* ---- streams ---- */
START_TEST(streams)
{
    static const struct {
        const char *request;
        size_t bytes;
    } rows[] = {
        {"GET /stream?n=0", 0},
        {"GET /stream?n=1&size=1", 1},
        {"GET /stream?n=20&size=40&wait=2", 800},
        {"GET /stream?n=1000&size=100", 100000},
        {"GET /stream?n=3&size=2000000", 6000000},
        {"GET /here?n=5&size=10", 50},
        {"GET /here?n=40&size=10000", 400000},
    };
    kit_client c = kit_connect(port);
    kit_answer a;
    char text[256];

    for (int round = 0; round < 3; round++) {
        snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: h\r\n\r\n", rows[_i].request);
        kit_ask(&c, text);
        ck_assert(kit_read(&c, &a));
        ck_assert(a.chunked);
        ck_assert_uint_eq(a.bytes, rows[_i].bytes);
        kit_answer_fini(&a);
    }
    snprintf(text, sizeof(text), "%s HTTP/1.0\r\nHost: h\r\n\r\n", rows[_i].request);
    kit_ask(&c, text);
    ck_assert(kit_read(&c, &a)); /* an old client: the end of the connection is the end */
    ck_assert(a.until_close);
    ck_assert_uint_eq(a.bytes, rows[_i].bytes);
    kit_answer_fini(&a);
    kit_close(&c);
    ck_assert_int_eq(kit_get(&gone_count), 0);
}
END_TEST

/* Head and each piece come at once, not when more has gathered. */
START_TEST(pieces_come_at_once)
{
    kit_client c = kit_connect(port);
    kit_answer a;

    kit_ask(&c, "GET /keep?stream HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read_head(&c, &a));
    ck_assert_int_eq(a.status, 200);
    kit_wait(&kept_count, 1);
    for (int i = 0; i < 50; i++) {
        ck_assert(trm_http_stream_write(kept[0], "data", 4));
        kit_need(&c, 9);
        ck_assert_int_eq(strncmp(c.data, "4\r\ndata\r\n", 9), 0);
        kit_drop(&c, 9);
    }
    release_kept();
    kit_need(&c, 5);
    ck_assert_str_eq(c.data, "0\r\n\r\n");
    kit_close(&c);
}
END_TEST

START_TEST(many_streams)
{
    enum { MANY = 64 };
    kit_client c[MANY];
    kit_answer a;

    for (int i = 0; i < MANY; i++) {
        c[i] = kit_connect(port);
        kit_ask(&c[i], "GET /stream?n=50&size=50&wait=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    for (int i = 0; i < MANY; i++) {
        ck_assert(kit_read(&c[i], &a));
        ck_assert_uint_eq(a.bytes, 2500);
        kit_answer_fini(&a);
        kit_close(&c[i]);
    }
    ck_assert_int_eq(kit_get(&gone_count), 0);
}
END_TEST

/* A reader that does not read is cut when write_buffer is full; others are served meanwhile. */
START_TEST(slow_reader)
{
    trm_http_options o = options();
    kit_client slow, c;
    kit_answer a;

    trm_http_stop(server);
    o.write_buffer = 100000;
    up(&o);
    slow = kit_connect_small(port, 4096);
    kit_ask(&slow, "GET /stream?n=1000000&size=4000 HTTP/1.1\r\nHost: h\r\n\r\n");
    kit_wait(&begun_count, 1);
    c = kit_connect(port);
    for (int i = 0; i < 20; i++) {
        kit_ask(&c, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
        ck_assert(kit_read(&c, &a));
        kit_answer_fini(&a);
    }
    kit_wait(&gone_count, 1);
    kit_wait(&ended_count, 1);
    while (kit_more(&slow)) {
    }
    kit_close(&slow);
    kit_close(&c);
    ck_assert_int_eq(kit_get(&gone_count), 1);
}
END_TEST

START_TEST(too_much_at_once)
{
    trm_http_options o = options();
    kit_client c;

    trm_http_stop(server);
    o.write_buffer = 100000;
    up(&o);
    c = kit_connect(port);
    kit_ask(&c, "GET /keep?stream&first HTTP/1.1\r\nHost: h\r\n\r\n");
    kit_wait(&kept_count, 1);
    kit_nap(50); /* so that the stream is suspended */
    ck_assert(!trm_http_stream_write(kept[0], kept, 100001));
    ck_assert(!trm_http_stream_write(kept[0], "x", 1));
    kit_wait(&gone_count, 1);
    release_kept();
    while (kit_more(&c)) {
    }
    kit_close(&c);
}
END_TEST

START_TEST(head_of_a_stream)
{
    kit_client c = kit_connect(port);
    kit_answer a;

    kit_ask(&c, "HEAD /stream?n=5 HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read_of(&c, &a, true));
    ck_assert_int_eq(a.status, 200);
    kit_answer_fini(&a);
    kit_wait(&ended_count, 1);
    kit_ask(&c, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&c, &a));
    ck_assert_str_eq(a.body, "now");
    kit_answer_fini(&a);
    kit_close(&c);
}
END_TEST

/* ---- clients that leave ---- */
static const struct leave_row {
    const char *name, *request;
    bool half; /* closes its sending side only */
} leave_rows[] = {
    {"while it waits", "GET /keep HTTP/1.1\r\nHost: h\r\n\r\n", false},
    {"half closed", "GET /keep HTTP/1.1\r\nHost: h\r\n\r\n", true},
    {"with a body", "POST /keep HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", false},
    {"with more requests behind", "GET /keep HTTP/1.1\r\nHost: h\r\n\r\nGET /now HTTP/1.1\r\n",
     false},
    {"before the stream's first piece", "GET /keep?stream HTTP/1.1\r\nHost: h\r\n\r\n", false},
    {"in the stream", "GET /keep?stream&first HTTP/1.1\r\nHost: h\r\n\r\n", false},
};

START_TEST(leaving)
{
    kit_client c = kit_connect(port);

    kit_ask(&c, leave_rows[_i].request);
    kit_wait(&kept_count, 1);
    kit_nap(20);
    ck_assert_int_eq(kit_get(&gone_count), 0);
    if (leave_rows[_i].half)
        shutdown(c.fd, SHUT_WR);
    else
        kit_close(&c);
    kit_wait(&gone_count, 1);
    if (trm_http_query(kept[0], "stream") != NULL)
        ck_assert(!trm_http_stream_write(kept[0], "more", 4));
    ck_assert_str_eq(trm_http_header(kept[0], "host"), "h"); /* still valid */
    release_kept();
    if (leave_rows[_i].half)
        kit_close(&c);
    ck_assert_int_eq(kit_status(port, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n"), 200);
    ck_assert_int_eq(kit_get(&gone_count), 1);
}
END_TEST

/* The last bytes and the end come together, inside a head or a body: the connection is let go. */
START_TEST(leaving_inside_a_request)
{
    static const char *const texts[] = {
        "GET /no", "GET /now HTTP/1.1\r\nHost: h\r\n",
        "POST /keep HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        "POST /keep HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"};
    int64_t until = trm_deadline_us(20000);

    for (int i = 0; i < 40; i++) {
        kit_client c = kit_connect(port);

        kit_ask(&c, texts[i % 4]);
        kit_close(&c);
    }
    kit_nap(100); /* so that they have been accepted */
    while (kit_get(&kit_seen.open) > 0) {
        ck_assert_msg(trm_now_us() < until, "%d connections are left", kit_get(&kit_seen.open));
        kit_nap(5);
    }
    ck_assert_int_eq(kit_get(&kept_count), 0);
}
END_TEST

START_TEST(leaving_while_pieces_come)
{
    kit_client c = kit_connect(port);

    kit_ask(&c, "GET /stream?n=1000000&size=100&wait=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    kit_need(&c, 500);
    kit_close(&c);
    kit_wait(&gone_count, 1);
    kit_wait(&ended_count, 1);
}
END_TEST

START_TEST(answer_inside_gone)
{
    kit_client c = kit_connect(port);

    kit_ask(&c, "GET /gone HTTP/1.1\r\nHost: h\r\n\r\n");
    kit_wait(&kept_count, 1);
    kit_close(&c);
    kit_wait(&gone_count, 1);
}
END_TEST

/* Told late: registered after the client has left. */
START_TEST(gone_before_it_is_asked)
{
    kit_client c = kit_connect(port);
    int second = 0;

    kit_ask(&c, "GET /keep HTTP/1.1\r\nHost: h\r\n\r\n");
    kit_wait(&kept_count, 1);
    kit_close(&c);
    kit_wait(&gone_count, 1);
    trm_http_on_gone(kept[0], &second, on_gone_count); /* once is enough */
    ck_assert_int_eq(kit_get(&gone_count), 1);
    release_kept();
}
END_TEST

START_TEST(leaving_and_answering_race)
{
    for (int round = 0; round < 40; round++) {
        kit_client c = kit_connect(port);
        char text[80];

        snprintf(text, sizeof(text), "GET /racing?wait=%d HTTP/1.1\r\nHost: h\r\n\r\n",
                 round % 4 * 90);
        kit_ask(&c, text);
        if (round % 2 == 0)
            kit_nap(1);
        kit_close(&c);
    }
    kit_wait(&ended_count, 40);
    ck_assert_int_eq(kit_get(&kept_count), 40);
}
END_TEST

/* ---- stopping ---- */
static void *answer_soon(void *ctx)
{
    (void)ctx;
    kit_nap(100);
    release_kept();
    return NULL;
}

START_TEST(stopping_under_way)
{
    enum { MANY = 12 };
    kit_client c[MANY], idle = kit_connect(port), half = kit_connect(port);
    kit_answer a;
    pthread_t thread;

    kit_ask(&idle, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&idle, &a));
    kit_answer_fini(&a);
    kit_ask(&half, "POST /keep HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc");
    for (int i = 0; i < MANY; i++) {
        static const char *const requests[] = {"GET /keep", "GET /keep?stream",
                                               "GET /keep?stream&first"};
        char text[80];

        c[i] = kit_connect(port);
        snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: h\r\n\r\n", requests[i % 3]);
        kit_ask(&c[i], text);
    }
    kit_wait(&kept_count, MANY);
    ck_assert_int_eq(pthread_create(&thread, NULL, answer_soon, NULL), 0);
    trm_http_stop(server); /* returns only when all have been answered */
    server = NULL;
    ck_assert_int_eq(kit_get(&kept_count), 0);
    ck_assert_int_eq(kit_get(&gone_count), MANY);
    pthread_join(thread, NULL);
    ck_assert(!kit_more(&idle));
    kit_close(&idle);
    kit_close(&half);
    for (int i = 0; i < MANY; i++)
        kit_close(&c[i]);
}
END_TEST

START_TEST(quiescing)
{
    kit_client idle = kit_connect(port), waiting = kit_connect(port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    kit_answer a;
    int fd;

    kit_ask(&idle, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&idle, &a));
    ck_assert_ptr_null(strcasestr(a.head, "Connection: close"));
    kit_answer_fini(&a);
    kit_ask(&waiting, "GET /keep HTTP/1.1\r\nHost: h\r\n\r\n");
    kit_wait(&kept_count, 1);
    trm_http_quiesce(server);
    kit_ask(&idle, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    ck_assert(kit_read(&idle, &a));
    ck_assert_int_eq(a.status, 200);
    ck_assert_ptr_nonnull(strcasestr(a.head, "Connection: close"));
    kit_answer_fini(&a);
    ck_assert(!kit_more(&idle));
    release_kept();
    ck_assert(kit_read(&waiting, &a));
    ck_assert_str_eq(a.body, "kept");
    kit_answer_fini(&a);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_ne(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    close(fd);
    kit_close(&idle);
    kit_close(&waiting);
}
END_TEST

/* ---- TLS ---- */
static bool make_certificate(const char *cert, const char *key)
{
    char command[600];
    int rc;

    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
             "-subj /CN=localhost -keyout %s -out %s >/dev/null 2>&1",
             key, cert);
    rc = system(command); // NOLINT(cert-env33-c): a fixed command of a test
    return rc != -1 && WIFEXITED(rc) && WEXITSTATUS(rc) == 0;
}

static void tls_ask(int fd, gnutls_certificate_credentials_t cred)
{
    static const char request[] = "GET /stream?n=3&size=4 HTTP/1.1\r\nHost: h\r\n\r\n";
    gnutls_session_t session = NULL;
    char text[4096];
    size_t at = 0;
    int rc;

    ck_assert_int_eq(gnutls_init(&session, GNUTLS_CLIENT), 0);
    gnutls_set_default_priority(session);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, cred);
    gnutls_transport_set_int(session, fd);
    do
        rc = gnutls_handshake(session);
    while (rc < 0 && gnutls_error_is_fatal(rc) == 0);
    ck_assert_msg(rc == 0, "%s", gnutls_strerror(rc));
    ck_assert_int_gt(gnutls_record_send(session, request, sizeof(request) - 1), 0);
    text[0] = '\0';
    while (memmem(text, at, "\r\n0\r\n\r\n", 7) == NULL) {
        ssize_t n = gnutls_record_recv(session, text + at, sizeof(text) - 1 - at);

        ck_assert_msg(n > 0 || n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED, "%zd", n);
        at += n > 0 ? (size_t)n : 0;
        text[at] = '\0';
    }
    ck_assert_ptr_nonnull(strstr(text, "HTTP/1.1 200"));
    gnutls_deinit(session);
}

START_TEST(tls)
{
    char *cert = strdup(kit_file("cert.pem", "x", 0600));
    char *key = strdup(kit_file("key.pem", "x", 0600));
    char *other = strdup(kit_file("other.pem", "x", 0600));
    char *scrap = strdup(kit_file("scrap.pem", "nonsense", 0600));
    gnutls_certificate_credentials_t cred = NULL;
    trm_http_options o = options();
    trm_http *h = NULL;
    kit_client c;

    if (!make_certificate(cert, key) || !make_certificate(scrap, other)) {
        fprintf(stderr, "tls: no openssl to make a certificate: not tested\n");
        goto done;
    }
    o.cert_path = cert;
    ck_assert_int_eq(trm_http_start(&o, &h), TRM_ERR_CONFIG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "the key is missing"));
    o.key_path = "/nonexistent/key.pem";
    ck_assert_int_eq(trm_http_start(&o, &h), TRM_ERR_CONFIG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "/nonexistent/key.pem"));
    o.key_path = other;
    ck_assert_int_eq(trm_http_start(&o, &h), TRM_ERR_CONFIG);
    ck_assert_ptr_nonnull(strstr(trm_message(), other));
    kit_file("scrap.pem", "nonsense", 0600);
    o.key_path = scrap;
    ck_assert_int_eq(trm_http_start(&o, &h), TRM_ERR_CONFIG);
    trm_http_stop(server);
    o.key_path = key;
    up(&o);
    ck_assert_int_eq(strncmp(trm_http_url(server), "https://127.0.0.1:", 18), 0);
    ck_assert_int_eq(gnutls_certificate_allocate_credentials(&cred), 0);
    for (int i = 0; i < 3; i++) {
        c = kit_connect(port);
        tls_ask(c.fd, cred);
        kit_close(&c);
    }
    gnutls_certificate_free_credentials(cred);
    c = kit_connect(port); /* plain text to it */
    kit_ask(&c, "GET /now HTTP/1.1\r\nHost: h\r\n\r\n");
    while (kit_more(&c)) {
    }
    ck_assert_ptr_null(strstr(c.data, "HTTP/1.1 200"));
    kit_close(&c);
done:
    free(cert);
    free(key);
    free(other);
    free(scrap);
}
END_TEST

/* ---- multipart ---- */
static const struct part_row {
    const char *name, *type, *body;
    int count; /* -1: refused */
    const char *names, *data;
} part_rows[] = {
    {"two", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
     "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n"
     "Content-Type: text/plain\r\n\r\n{}\r\n\r\n--x\r\n--b--\r\n",
     2, "purpose,file:a.jsonl", "batch|{}\r\n\r\n--x"},
    {"empty data", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--b--", 1, "a", ""},
    {"data without its line", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n--b--", 1, "a", ""},
    {"preamble, blanks, epilogue", "Multipart/Form-Data; charset=x; boundary=\"b c\"",
     "hello\r\n--b c \t\r\nContent-disposition: Form-Data; Name=\"a\"\r\n\r\nx\r\n--b c--\r\nbye",
     1, "a", "x"},
    {"escapes", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=\"a\\\"b%22c\\d\"\r\n\r\nx\r\n--b--", 1,
     "a\"b\"c\\d", "x"},
    {"none", "multipart/form-data; boundary=b", "--b--", 0, "", ""},
    {"other type", "application/json", "--b--", -1, NULL, NULL},
    {"no boundary", "multipart/form-data", "--b--", -1, NULL, NULL},
    {"empty boundary", "multipart/form-data; boundary=", "----", -1, NULL, NULL},
    {"long boundary",
     "multipart/form-data; boundary="
     "12345678901234567890123456789012345678901234567890123456789012345678901",
     "--b--", -1, NULL, NULL},
    {"boundary does not occur", "multipart/form-data; boundary=b", "--c--", -1, NULL, NULL},
    {"no end", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx", -1, NULL, NULL},
    {"head without end", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=a\r\n--b--", -1, NULL, NULL},
    {"no name", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--", -1, NULL, NULL},
    {"no disposition", "multipart/form-data; boundary=b", "--b\r\nA: b\r\n\r\nx\r\n--b--", -1, NULL,
     NULL},
    {"line without colon", "multipart/form-data; boundary=b", "--b\r\nA\r\n\r\nx\r\n--b--", -1,
     NULL, NULL},
    {"open quote", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--b--", -1, NULL, NULL},
    {"name twice", "multipart/form-data; boundary=b",
     "--b\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\nx\r\n--b--", -1, NULL, NULL},
};

START_TEST(multipart)
{
    const struct part_row *row = &part_rows[_i];
    const trm_http_part *parts = NULL;
    char names[256] = "", data[256] = "";
    trm_arena *arena = NULL;
    trm_status st;
    int count = -1;

    OK(trm_arena_create(0, &arena));
    st = trm_http_multipart(row->type, row->body, strlen(row->body), arena, &parts, &count);
    if (row->count < 0) {
        ck_assert_msg(st == TRM_ERR_INVALID_ARG, "%s", row->name);
    } else {
        ck_assert_msg(st == TRM_OK, "%s: %s", row->name, trm_message());
        ck_assert_int_eq(count, row->count);
        for (int i = 0; i < count; i++) {
            size_t n = strlen(names), d = strlen(data);

            snprintf(names + n, sizeof(names) - n, "%s%s%s%s", i > 0 ? "," : "", parts[i].name,
                     parts[i].filename ? ":" : "", parts[i].filename ? parts[i].filename : "");
            snprintf(data + d, sizeof(data) - d, "%s%.*s", i > 0 ? "|" : "", (int)parts[i].bytes,
                     (const char *)parts[i].data);
        }
        ck_assert_str_eq(names, row->names);
        ck_assert_str_eq(data, row->data);
    }
    trm_arena_destroy(arena);
}
END_TEST

#define COUNT(rows) ((int)(sizeof(rows) / sizeof((rows)[0])))

int main(void)
{
    Suite *s = suite_create("http_stream");
    TCase *t = tcase_create("http_stream"), *m = tcase_create("multipart");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, streams, 0, 7);
    tcase_add_test(t, pieces_come_at_once);
    tcase_add_test(t, many_streams);
    tcase_add_test(t, slow_reader);
    tcase_add_test(t, too_much_at_once);
    tcase_add_test(t, head_of_a_stream);
    tcase_add_loop_test(t, leaving, 0, COUNT(leave_rows));
    tcase_add_test(t, leaving_inside_a_request);
    tcase_add_test(t, leaving_while_pieces_come);
    tcase_add_test(t, answer_inside_gone);
    tcase_add_test(t, gone_before_it_is_asked);
    tcase_add_test(t, leaving_and_answering_race);
    tcase_add_test(t, stopping_under_way);
    tcase_add_test(t, quiescing);
    tcase_add_test(t, tls);
    suite_add_tcase(s, t);
    tcase_add_loop_test(m, multipart, 0, COUNT(part_rows));
    suite_add_tcase(s, m);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
