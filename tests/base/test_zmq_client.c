/* docs/clients: a client that was built from them, and a fake of the public endpoint. The argument
 * is the client's command (the C one by default). */
#include "base/wire_serve.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static const char *client = TRM_ZMQ_CLIENT;
static void *context, *router;
static char endpoint[256];
static trm_arena *arena;

static void setup(void)
{
    size_t n = sizeof(endpoint);
    int wait_ms = 20000;

    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    context = zmq_ctx_new();
    router = zmq_socket(context, ZMQ_ROUTER);
    ck_assert_int_eq(zmq_setsockopt(router, ZMQ_RCVTIMEO, &wait_ms, sizeof(wait_ms)), 0);
    ck_assert_int_eq(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
    ck_assert_int_eq(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &n), 0);
}

static void teardown(void)
{
    zmq_close(router);
    zmq_ctx_term(context);
    trm_arena_destroy(arena);
}

struct peer {
    char id[256];
    size_t bytes;
    char frame[65536]; /* the request's bytes stay here */
};

static const trm_wire_request *receive(struct peer *p)
{
    trm_wire_message m;
    int n = zmq_recv(router, p->id, sizeof(p->id), 0);

    ck_assert_int_gt(n, 0);
    p->bytes = (size_t)n;
    n = zmq_recv(router, p->frame, sizeof(p->frame), 0);
    ck_assert(n > 0 && (size_t)n <= sizeof(p->frame));
    ck_assert_msg(trm_wire_decode(p->frame, (size_t)n, arena, &m) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(m.kind, TRM_WIRE_REQUEST);
    ck_assert_uint_eq(m.u.request->slot, 0);
    return m.u.request;
}

static void send_message(const struct peer *p, const trm_wire_message *m)
{
    trm_wire_buffer b = {0};

    ck_assert_int_eq(trm_wire_encode(m, &b), TRM_OK);
    ck_assert_int_gt(zmq_send(router, p->id, p->bytes, ZMQ_SNDMORE), 0);
    ck_assert_int_gt(zmq_send(router, b.data, b.bytes, 0), 0);
    trm_wire_buffer_fini(&b);
}

static FILE *start(const char *arguments)
{
    char command[1024];
    FILE *f;

    snprintf(command, sizeof(command), "%s %s %s", client, endpoint, arguments);
    f = popen(command, "r"); /* NOLINT(cert-env33-c): the words are this test's own */
    ck_assert_ptr_nonnull(f);
    return f;
}

static void expect(FILE *f, const char *want, bool good)
{
    char got[4096];
    size_t n = fread(got, 1, sizeof(got) - 1, f);

    got[n] = '\0';
    ck_assert_str_eq(got, want);
    ck_assert_int_eq(pclose(f) == 0, good);
}

START_TEST(infer)
{
    static float values[] = {1.5f, -2};
    static const trm_wire_tensor outputs[] = {
        {.name = "y",
         .tensor = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {1, 2}, .data = values}}};
    FILE *f = start("net 1x3 0.5 1 -2");
    struct peer p;
    const trm_wire_request *q = receive(&p);
    trm_wire_answer a = {.id = q->id, .model = "net", .outputs = outputs, .output_count = 1};
    float got[3];

    ck_assert_int_eq(q->kind, TRM_REQUEST_INFER);
    ck_assert_str_eq(q->model, "net");
    ck_assert_int_eq(q->tensor_count, 1);
    ck_assert_int_eq(q->tensors[0].tensor.dtype, TRM_DTYPE_F32);
    ck_assert_int_eq(q->tensors[0].tensor.rank, 2);
    ck_assert_int_eq(q->tensors[0].tensor.dims[1], 3);
    memcpy(got, q->tensors[0].tensor.data, sizeof(got));
    ck_assert(got[0] >= 0.5f && got[0] <= 0.5f && got[2] >= -2 && got[2] <= -2);
    send_message(&p, &(trm_wire_message){.kind = TRM_WIRE_ANSWER, .u.answer = &a});
    expect(f, "status 0 \n\"y\"[1, 2] 1.5 -2\n", true);
}
END_TEST

START_TEST(failure)
{
    FILE *f = start("net 1x2x2");
    struct peer p;
    const trm_wire_request *q = receive(&p);
    trm_wire_answer a = {.id = q->id, .status = TRM_ERR_NOT_FOUND, .message = "no model 'net'"};

    send_message(&p, &(trm_wire_message){.kind = TRM_WIRE_ANSWER, .u.answer = &a});
    expect(f, "status 3 no model 'net'\n", false);
}
END_TEST

/* only of clients that know completions: the Python one */
START_TEST(completion)
{
    static const char line[] = "{\"text\": \"hi\"}\n";
    FILE *f = start("lm 'Once upon'");
    struct peer p;
    const trm_wire_request *q = receive(&p);
    trm_wire_part part = {
        .id = q->id, .new_tokens = 1, .body = line, .body_bytes = sizeof(line) - 1};
    trm_wire_answer a = {.id = q->id, .model = "lm"};
    char body[256];

    ck_assert_int_eq(q->kind, TRM_REQUEST_COMPLETIONS);
    ck_assert(q->stream);
    ck_assert_uint_lt(q->body_bytes, sizeof(body));
    memcpy(body, q->body, q->body_bytes);
    body[q->body_bytes] = '\0';
    ck_assert_ptr_nonnull(strstr(body, "\"Once upon\""));
    send_message(&p, &(trm_wire_message){.kind = TRM_WIRE_PART, .u.part = &part});
    send_message(&p, &(trm_wire_message){.kind = TRM_WIRE_ANSWER, .u.answer = &a});
    expect(f, "{\"text\": \"hi\"}\nstatus 0 \n", true);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("zmq_client");
    TCase *tc = tcase_create("zmq_client");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, infer);
    tcase_add_test(tc, failure);
    if (argc > 1) {
        client = argv[1];
        tcase_add_test(tc, completion);
    }
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
