/* The gateway as a whole, over real sockets: every API at one port, errors in the form of the path,
 * keys, requests of several threads, clients that go, draining and stopping. The hub is a fake with
 * a thread of its own that gives tensors back. */
#define _GNU_SOURCE
#include "coordinator/gateway/gateway_impl.h"

#include "base/wait.h"

#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- the hub ---- */
enum { WAITING_MAX = 256 };
struct waiting {
    trm_hub_request request;
    uint64_t id;
    trm_arena *arena;
    trm_wire_answer answer;
    bool cancelled;
};
static struct fake {
    pthread_mutex_t mu;
    pthread_t thread;
    struct waiting waiting[WAITING_MAX]; /* guarded by mu, as all below */
    int count;
    uint64_t next;
    bool hold; /* nothing is answered but what is cancelled */
    bool stop;
    int cancels;
} hub = {.mu = PTHREAD_MUTEX_INITIALIZER};

static bool take(struct waiting *out)
{
    bool found = false;

    pthread_mutex_lock(&hub.mu);
    for (int i = 0; i < hub.count && !found; i++) {
        if (hub.hold && !hub.waiting[i].cancelled)
            continue;
        *out = hub.waiting[i];
        hub.waiting[i] = hub.waiting[--hub.count];
        found = true;
    }
    pthread_mutex_unlock(&hub.mu);
    return found;
}

static void *hub_main(void *ctx)
{
    const struct timespec nap = {0, 500000};
    bool stop = false;

    (void)ctx;
    while (!stop) {
        struct waiting w;

        if (take(&w)) {
            if (w.cancelled) {
                w.answer.status = TRM_ERR_CANCELLED;
                w.answer.message = "cancelled";
            }
            w.request.answer(w.request.ctx, &w.answer);
            trm_arena_destroy(w.arena);
            continue;
        }
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&hub.mu);
        stop = hub.stop;
        pthread_mutex_unlock(&hub.mu);
    }
    return NULL;
}

trm_status trm_hub_submit(trm_hub *h, const trm_hub_request *request, uint64_t *id_out)
{
    const trm_wire_request *wire = request->wire;
    struct waiting w = {.request = *request};
    trm_wire_tensor *out;

    (void)h;
    if (strcmp(wire->model, "m") != 0)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", wire->model);
    ck_assert_int_eq(trm_arena_create(0, &w.arena), TRM_OK);
    out = trm_arena_alloc(w.arena, (size_t)wire->tensor_count + 1, sizeof(*out));
    for (int i = 0; i < wire->tensor_count; i++) {
        size_t bytes = 0;

        ck_assert_int_eq(trm_tensor_bytes(&wire->tensors[i].tensor, &bytes), TRM_OK);
        out[i] = wire->tensors[i];
        out[i].name = trm_arena_strdup(w.arena, wire->tensors[i].name);
        out[i].tensor.data = trm_arena_alloc(w.arena, bytes + 1, 1);
        memcpy(out[i].tensor.data, wire->tensors[i].tensor.data, bytes);
    }
    w.answer = (trm_wire_answer){.message = "",
                                 .model = "m",
                                 .version = 1,
                                 .outputs = out,
                                 .output_count = wire->tensor_count};
    pthread_mutex_lock(&hub.mu);
    ck_assert_int_lt(hub.count, WAITING_MAX);
    *id_out = w.id = ++hub.next;
    hub.waiting[hub.count++] = w;
    pthread_mutex_unlock(&hub.mu);
    return TRM_OK;
}

void trm_hub_cancel(trm_hub *h, uint64_t id)
{
    (void)h;
    pthread_mutex_lock(&hub.mu);
    for (int i = 0; i < hub.count; i++) {
        if (hub.waiting[i].id != id || hub.waiting[i].cancelled)
            continue;
        hub.waiting[i].cancelled = true;
        hub.cancels++;
    }
    pthread_mutex_unlock(&hub.mu);
}

trm_status trm_hub_models(trm_hub *h, trm_hub_model_info **infos_out, int *count_out)
{
    (void)h;
    *infos_out = NULL;
    *count_out = 0;
    return TRM_OK;
}

void trm_hub_models_free(trm_hub_model_info *infos, int count)
{
    (void)infos;
    (void)count;
}

trm_status trm_hub_find_model(trm_hub *h, const char *name, int64_t version,
                              trm_hub_model_info *info_out)
{
    (void)h;
    (void)version;
    (void)info_out;
    return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", name);
}

trm_status trm_hub_load(trm_hub *h, const trm_hub_model *model, void *ctx,
                        void (*done)(void *ctx, trm_status st, const char *message))
{
    (void)h;
    (void)ctx;
    (void)done;
    return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", model->name);
}

trm_status trm_hub_unload(trm_hub *h, const char *name, int64_t version, void *ctx,
                          void (*done)(void *ctx, trm_status st, const char *message))
{
    trm_hub_model model = {.name = name, .version = version};

    return trm_hub_load(h, &model, ctx, done);
}

trm_status trm_hub_get_info(trm_hub *h, trm_hub_info *info_out)
{
    (void)h;
    memset(info_out, 0, sizeof(*info_out));
    info_out->ready = true;
    return TRM_OK;
}

void trm_hub_info_fini(trm_hub_info *info)
{
    (void)info;
}

/* ---- the server ---- */
static trm_gateway *start(const char *keys)
{
    char told[] = "{\"groups\":[]}";
    trm_gateway_options options = {.http = {.listen = "127.0.0.1:0", .keys_path = keys},
                                   .admin = true,
                                   .version = "1",
                                   .configuration = told};
    trm_gateway *g = NULL;

    hub.stop = hub.hold = false;
    hub.cancels = 0;
    ck_assert_int_eq(pthread_create(&hub.thread, NULL, hub_main, NULL), 0);
    ck_assert_msg(trm_gateway_start(&options, &g) == TRM_OK, "%s", trm_message());
    memset(told, 'x', sizeof(told)); /* the gateway has copied it */
    return g;
}

static void stop(trm_gateway *g)
{
    trm_gateway_stop(g);
    pthread_mutex_lock(&hub.mu);
    hub.stop = true;
    pthread_mutex_unlock(&hub.mu);
    pthread_join(hub.thread, NULL);
    ck_assert_int_eq(hub.count, 0);
}

/* ---- the client ---- */
struct response {
    int status;
    char *text; /* all of it; ended by a NUL */
    const char *body;
    size_t body_bytes;
};

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void tell(int fd, const char *head, const void *body, size_t bytes)
{
    char text[1024];
    const char *p = body;
    int n =
        snprintf(text, sizeof(text),
                 "%s\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", head, bytes);

    ck_assert_int_eq(send(fd, text, (size_t)n, MSG_NOSIGNAL), n);
    while (bytes > 0) {
        ssize_t sent = send(fd, p, bytes, MSG_NOSIGNAL);

        ck_assert_int_gt(sent, 0);
        p += sent;
        bytes -= (size_t)sent;
    }
}

static struct response hear(int fd)
{
    struct response r = {0};
    size_t bytes = 0, room = 0;
    ssize_t n;

    do {
        if (room - bytes < 4096)
            r.text = realloc(r.text, room = room * 2 + 8192);
        n = recv(fd, r.text + bytes, room - bytes - 1, 0);
        bytes += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    close(fd);
    r.text[bytes] = '\0';
    r.body = strstr(r.text, "\r\n\r\n");
    ck_assert_msg(strncmp(r.text, "HTTP/1.1 ", 9) == 0 && r.body != NULL, "'%s'", r.text);
    r.status = (int)strtol(r.text + 9, NULL, 10);
    r.body += 4;
    r.body_bytes = bytes - (size_t)(r.body - r.text);
    return r;
}

static void expect(trm_gateway *g, const char *head, const char *body, int status, const char *part)
{
    int fd = dial(trm_http_port(trm_gateway_http(g)));
    struct response r;

    tell(fd, head, body, strlen(body));
    r = hear(fd);
    ck_assert_msg(r.status == status && strstr(r.body, part) != NULL, "%s: %s\nwanted %d %s", head,
                  r.text, status, part);
    free(r.text);
}

START_TEST(apis)
{
    trm_gateway *g = start(NULL);

    expect(g, "GET /v2 HTTP/1.1", "", 200, "{\"name\":\"trireme\",\"version\":\"1\",");
    expect(g, "GET /v2/health/ready HTTP/1.1", "", 200, "true");
    expect(g, "GET /ping HTTP/1.1", "", 200, "Healthy");
    expect(g, "GET /version HTTP/1.1", "", 200, "\"configuration\":{\"groups\":[]}");
    expect(g, "GET /v1/models HTTP/1.1", "", 200, "\"data\":[]");
    expect(g, "GET /v2/nothing HTTP/1.1", "", 404, "{\"error\":\"");
    expect(g, "GET /v1/nothing HTTP/1.1", "", 404, "{\"error\":{\"message\":\"");
    expect(g, "DELETE /v2 HTTP/1.1", "", 405, "{\"error\":\"");
    expect(g, "GET /v2/models/none HTTP/1.1", "", 404, "{\"error\":\"no model 'none'\"}");
    expect(g, "POST /v2/models/none/infer HTTP/1.1", "{}", 400, "no \\\"inputs\\\"");
    expect(g, "GET /v2/models/stats HTTP/1.1", "", 200, "{\"model_stats\":[]}");
    expect(g, "POST /v2/repository/models/none/load HTTP/1.1", "{}", 404, "no model 'none'");
    expect(g, "POST /predictions/none HTTP/1.1\r\nContent-Type: image/png", "x", 404,
           "{\"error\":\"no model 'none'\"}");
    trm_gateway_set_draining(g);
    expect(g, "GET /v2/health/ready HTTP/1.1", "", 503, "false");
    expect(g, "GET /v2/health/live HTTP/1.1", "", 200, "true");
    stop(g);
}
END_TEST

#define CLIENTS 8
#define ROUNDS 40

static void one_json(int port, int seed)
{
    char body[256], want[256];
    int fd = dial(port);
    struct response r;

    snprintf(
        body, sizeof(body),
        "{\"id\":\"%d\",\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\",\"data\":"
        "[%d,0.1]}]}",
        seed, seed);
    tell(fd, "POST /v2/models/m/infer HTTP/1.1", body, strlen(body));
    r = hear(fd);
    snprintf(
        want, sizeof(want),
        "{\"id\":\"%d\",\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"x\","
        "\"datatype\":\"FP32\",\"shape\":[2],\"data\":[%d.0,0.1]}]}",
        seed, seed);
    ck_assert_msg(r.status == 200 && strcmp(r.body, want) == 0, "%s", r.text);
    free(r.text);
}

/* `count` floats as they are, and back. */
static void one_binary(int port, int seed, int count)
{
    size_t bytes = (size_t)count * sizeof(float);
    char *body = malloc(bytes + 300), head[200];
    int fd = dial(port), n;
    struct response r;

    n = snprintf(body, 300,
                 "{\"inputs\":[{\"name\":\"x\",\"shape\":[%d],\"datatype\":\"FP32\",\"parameters\":"
                 "{\"binary_data_size\":%zu}}],\"parameters\":{\"binary_data_output\":true}}",
                 count, bytes);
    for (int i = 0; i < count; i++) {
        float f = (float)(i + seed) / 3.0f;

        memcpy(body + n + (size_t)i * sizeof(f), &f, sizeof(f));
    }
    snprintf(head, sizeof(head),
             "POST /v2/models/m/infer HTTP/1.1\r\nInference-Header-Content-Length: %d", n);
    tell(fd, head, body, (size_t)n + bytes);
    r = hear(fd);
    ck_assert_msg(r.status == 200 && r.body_bytes > bytes, "%.300s", r.text);
    ck_assert_int_eq(memcmp(r.body + r.body_bytes - bytes, body + n, bytes), 0);
    ck_assert_ptr_nonnull(strstr(r.text, "Inference-Header-Content-Length: "));
    free(r.text);
    free(body);
}

static void *client(void *ctx)
{
    const int *arg = ctx;

    for (int i = 0; i < ROUNDS; i++) {
        if (i % 2 == 0)
            one_json(arg[0], arg[1] * ROUNDS + i);
        else
            one_binary(arg[0], arg[1] * ROUNDS + i, i == 1 ? 300000 : 10);
    }
    return NULL;
}

START_TEST(traffic)
{
    trm_gateway *g = start(NULL);
    pthread_t threads[CLIENTS];
    int args[CLIENTS][2];

    for (int i = 0; i < CLIENTS; i++) {
        args[i][0] = trm_http_port(trm_gateway_http(g));
        args[i][1] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, client, args[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    stop(g);
}
END_TEST

static const char one[] =
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}";

static void wait_for(const int *value, int wanted)
{
    const struct timespec nap = {0, 2000000};
    int64_t until = trm_deadline_us(20000);
    int seen = 0;

    while (seen < wanted) {
        ck_assert_msg(trm_now_us() < until, "waited for %d, it is %d", wanted, seen);
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&hub.mu);
        seen = *value;
        pthread_mutex_unlock(&hub.mu);
    }
}

START_TEST(clients_go)
{
    trm_gateway *g = start(NULL);
    int fds[4];

    hub.hold = true;
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(trm_http_port(trm_gateway_http(g)));
        tell(fds[i], "POST /v2/models/m/infer HTTP/1.1", one, sizeof(one) - 1);
    }
    wait_for(&hub.count, 4);
    close(fds[0]);
    close(fds[1]);
    wait_for(&hub.cancels, 2);
    stop(g); /* the other two are cut, and so cancelled */
    ck_assert_int_eq(hub.cancels, 4);
    close(fds[2]);
    close(fds[3]);
}
END_TEST

START_TEST(keys)
{
    char path[] = "/tmp/trireme-keys-XXXXXX";
    int fd = mkstemp(path);
    static const char text[] = "user 0123456789abcdef0123\nroot abcdef0123456789abcd admin\n";
    trm_gateway *g;

    ck_assert_int_eq(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    g = start(path);
#define USER "\r\nAuthorization: Bearer 0123456789abcdef0123"
#define ROOT "\r\nAuthorization: Bearer abcdef0123456789abcd"
    expect(g, "GET /v2/health/live HTTP/1.1", "", 200, "true");
    expect(g, "GET /v2/health/ready HTTP/1.1", "", 200, "true");
    expect(g, "GET /v2 HTTP/1.1", "", 401, "{\"error\":\"");
    expect(g, "GET /v1/models HTTP/1.1", "", 401, "{\"error\":{\"message\":\"");
    expect(g, "POST /v2/models/m/infer HTTP/1.1", one, 401, "{\"error\":\"");
    expect(g, "POST /predictions/m HTTP/1.1", "x", 401, "{\"error\":\"");
    expect(g, "POST /v2/repository/index HTTP/1.1", "", 401, "{\"error\":\"");
    expect(g, "GET /v2 HTTP/1.1" USER, "", 200, "trireme");
    expect(g, "POST /v2/models/m/infer HTTP/1.1" USER, one, 200, "\"data\":[1.0]");
    expect(g, "POST /v2/repository/models/n/load HTTP/1.1" USER, "", 403, "{\"error\":\"");
    expect(g, "POST /v2/repository/models/n/unload HTTP/1.1" USER, "", 403, "{\"error\":\"");
    expect(g, "POST /v2/repository/models/n/load HTTP/1.1" ROOT, "", 404, "no model 'n'");
    stop(g);
    unlink(path);
}
END_TEST

START_TEST(does_not_start)
{
    trm_gateway_options options = {.http = {.listen = "no such place"}};
    int64_t live = trm_alloc_live();
    trm_gateway *g = NULL;

    ck_assert_int_ne(trm_gateway_start(&options, &g), TRM_OK);
    ck_assert_ptr_null(g);
    ck_assert_int_eq(trm_alloc_live(), live);
    trm_gateway_stop(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway");
    TCase *tc = tcase_create("gateway");
    SRunner *runner;
    int failures;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, apis);
    tcase_add_test(tc, traffic);
    tcase_add_test(tc, clients_go);
    tcase_add_test(tc, keys);
    tcase_add_test(tc, does_not_start);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? 0 : 1;
}
