/* The hub's public endpoint with clients that use ZeroMQ directly, as other programs do, and with
 * ones that do what they like. */
#define _GNU_SOURCE
#include "coordinator/hub.h"
#include "tests/coordinator/hub_fake.h"

#include <jansson.h>
#include <zmq.h>

/* metrics: none are kept here, so none may be called */
static void never(void)
{
    ck_abort_msg("metrics were told something, and there are none");
}
void trm_metrics_ended(trm_metrics *m, const trm_metrics_request *r)
{
    (void)m, (void)r;
    never();
}
void trm_metrics_tokens(trm_metrics *m, const char *model, int64_t version, uint32_t tokens,
                        uint64_t us)
{
    (void)m, (void)model, (void)version, (void)tokens, (void)us;
    never();
}
void trm_metrics_models(trm_metrics *m, const trm_metrics_model_gauges *models, int count)
{
    (void)m, (void)models, (void)count;
    never();
}
void trm_metrics_stats(trm_metrics *m, const char *replica, const trm_wire_stats *stats,
                       const char *const *names, const int64_t *versions)
{
    (void)m, (void)replica, (void)stats, (void)names, (void)versions;
    never();
}
void trm_metrics_replica(trm_metrics *m, const char *replica, const char *state)
{
    (void)m, (void)replica, (void)state;
    never();
}
void trm_metrics_replica_gone(trm_metrics *m, const char *replica, bool lost)
{
    (void)m, (void)replica, (void)lost;
    never();
}

/* ---- the rig ---- */
static trm_link_context *context;
static trm_hub *hub;
static struct fake_replica *replica;
static void *zmq; /* the clients' own */

static void set_up(void)
{
    trm_hub_model m = {.name = "m", .version = 1, .path = "/m", .load = true};
    trm_hub_options o = {.endpoint = "inproc://hub",
                         .public_endpoint = "ipc",
                         .replicas = 1,
                         .silence_ms = 60000,
                         .models = &m,
                         .model_count = 1};

    ck_assert_int_eq(trm_link_context_create(&context), TRM_OK);
    o.context = context;
    ck_assert_msg(trm_hub_create(&o, &hub) == TRM_OK, "%s", trm_message());
    replica = trm_calloc(1, sizeof(*replica));
    replica->credits = 300;
    replica->shares = true;
    fake_start(replica, context, trm_hub_endpoint(hub), "0/1");
    ck_assert_int_eq(trm_hub_wait_ready(hub, trm_deadline_us(60000)), TRM_OK);
    zmq = zmq_ctx_new();
}

static void tear_down(void)
{
    trm_hub_destroy(hub);
    fake_join(replica);
    trm_free(replica);
    trm_link_context_destroy(context);
    zmq_ctx_term(zmq);
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        while (!(cond))                                                                            \
            usleep(500);                                                                           \
    } while (0)

/* A DEALER; `identity` of `bytes` bytes, 0: none is set. */
static void *client(const char *identity, size_t bytes)
{
    void *s = zmq_socket(zmq, ZMQ_DEALER);
    int linger = 0, one = 1;

    ck_assert_ptr_nonnull(s);
    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(s, ZMQ_RCVHWM, &one, sizeof(one));
    if (bytes > 0)
        ck_assert_int_eq(zmq_setsockopt(s, ZMQ_ROUTING_ID, identity, bytes), 0);
    ck_assert_int_eq(zmq_connect(s, trm_hub_public_endpoint(hub)), 0);
    return s;
}

static void send_message(void *s, const trm_wire_message *m)
{
    trm_wire_buffer b = {0};

    ck_assert_msg(trm_wire_encode(m, &b) == TRM_OK, "%s", trm_message());
    ck_assert_int_ge(zmq_send(s, b.data, b.bytes, 0), 0);
    trm_wire_buffer_fini(&b);
}

static void ask(void *s, uint64_t id, bool stream, const char *text)
{
    trm_wire_request q = {.id = id,
                          .kind = TRM_REQUEST_CHAT,
                          .model = "m",
                          .tag = "",
                          .stream = stream,
                          .body = text,
                          .body_bytes = strlen(text)};

    send_message(s, &(trm_wire_message){.kind = TRM_WIRE_REQUEST, .u.request = &q});
}

/* The next ANSWER, of *id, which ANY lets be found; *parts_out counts the PARTs before it. */
#define ANY (UINT64_MAX - 1)
static trm_status answer_of(void *s, uint64_t *id, int *parts_out, char *text, size_t text_bytes)
{
    for (*parts_out = 0;;) {
        zmq_msg_t f;
        trm_arena *arena;
        trm_wire_message m;
        trm_status st = TRM_OK;

        zmq_msg_init(&f);
        ck_assert_int_ge(zmq_msg_recv(&f, s, 0), 0);
        ck_assert_int_eq(trm_arena_create(1024, &arena), TRM_OK);
        ck_assert_msg(trm_wire_decode(zmq_msg_data(&f), zmq_msg_size(&f), arena, &m) == TRM_OK,
                      "%s", trm_message());
        if (m.kind == TRM_WIRE_PART) {
            ck_assert_uint_eq(m.u.part->id, *id);
            ++*parts_out;
        } else {
            ck_assert_int_eq(m.kind, TRM_WIRE_ANSWER);
            if (*id == ANY)
                *id = m.u.answer->id;
            ck_assert_uint_eq(m.u.answer->id, *id);
            st = m.u.answer->status;
            snprintf(text, text_bytes, "%s%.*s", m.u.answer->message, (int)m.u.answer->body_bytes,
                     (const char *)m.u.answer->body);
            for (int i = 0; i < m.u.answer->output_count; i++)
                ck_assert(!m.u.answer->outputs[i].shared);
        }
        trm_arena_destroy(arena);
        zmq_msg_close(&f);
        if (m.kind == TRM_WIRE_ANSWER)
            return st;
    }
}

static trm_status answer(void *s, uint64_t id, int *parts_out, char *text, size_t text_bytes)
{
    return answer_of(s, &id, parts_out, text, text_bytes);
}

static void check_alive(void *s, uint64_t id)
{
    char text[400];
    int parts;

    ask(s, id, true, "3 x");
    ck_assert_int_eq(answer(s, id, &parts, text, sizeof(text)), TRM_OK);
    ck_assert_int_eq(parts, 3);
}

/* ---- tests ---- */
static const struct name_case {
    const char *name, *identity;
    size_t bytes;
    bool served;
} names[] = {
    {"none", "", 0, true},
    {"text", "me", 2, true},
    {"bytes", "\x01\x00\xff", 3, true},
    {"like ours of bytes", "#01", 3, true},
    {"31 bytes with zero", "\x01\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 31, true},
    {"too long", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 64, false},
};

START_TEST(identities)
{
    const struct name_case *t = &names[_i];
    void *s = client(t->identity, t->bytes), *other = client("other", 5);
    char text[400];
    int parts;

    if (t->served) {
        check_alive(s, 5);
        ask(s, UINT64_MAX, false, "0 y"); /* the client's own ids */
        ck_assert_int_eq(answer(s, UINT64_MAX, &parts, text, sizeof(text)), TRM_OK);
        ck_assert_ptr_nonnull(strstr(text, ":0 y"));
    } else {
        ask(s, 5, false, "0 y");
    }
    check_alive(other, 5);
    zmq_close(s);
    zmq_close(other);
}
END_TEST

START_TEST(tensors)
{
    static float x[64 << 10]; /* large enough for shared memory between hub and replica */
    trm_wire_tensor t = {
        .name = "x", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {64 << 10}, .data = x}};
    trm_wire_request q = {.id = 1,
                          .kind = TRM_REQUEST_INFER,
                          .model = "m",
                          .tag = "",
                          .body = "",
                          .tensors = &t,
                          .tensor_count = 1};
    void *s = client("", 0);
    char text[400];
    int parts;

    send_message(s, &(trm_wire_message){.kind = TRM_WIRE_REQUEST, .u.request = &q});
    ck_assert_int_eq(answer(s, 1, &parts, text, sizeof(text)), TRM_OK);
    UNTIL(atomic_load(&replica->releases) == 1);
    ck_assert_int_eq(atomic_load(&replica->shared_seen), 1);
    t.shared = true; /* a stranger's references are not followed */
    send_message(s, &(trm_wire_message){.kind = TRM_WIRE_REQUEST, .u.request = &q});
    ck_assert_int_eq(answer(s, 1, &parts, text, sizeof(text)), TRM_ERR_INVALID_ARG);
    zmq_close(s);
}
END_TEST

static const struct hostile_case {
    const char *name, *bytes;
    size_t count;
    int64_t id; /* of the answer; -1: none */
} hostile[] = {
    {"nothing", "", 0, -1},
    {"one byte", "\x9f", 1, -1},
    {"text", "GET / HTTP/1.1\r\n\r\n", 18, -1},
    {"another version", "\x9f\x01\x0a\x07", 4, -1},
    {"cut after the kind", "\x9f\x02\x0a", 3, -1},
    {"cut after the id", "\x9f\x02\x0a\x07", 4, 7},
    {"cut in the id", "\x9f\x02\x0a\xcf\x01\x02", 6, -1},
    {"id of 16 bits", "\x9f\x02\x0a\xcd\x01\x02", 6, 0x102},
    {"id of 64 bits", "\x9f\x02\x0a\xcf\0\0\0\0\0\0\0\x09", 12, 9},
    {"id that is text", "\x9f\x02\x0a\xa1x", 5, -1},
    {"array of 16 bits", "\xdc\x00\x0f\x02\x0a\x07", 6, 7},
    {"array of 32 bits", "\xdd\x00\x00\x00\x0f\x02\x0a\x07", 8, -1},
    {"map", "\x8f\x02\x0a\x07", 4, -1},
    {"a cancel that is cut", "\x93\x02\x0b", 3, -1},
    {"a cancel of nothing", "\x93\x02\x0b\x07", 4, -1},
    {"a beat", "\x94\x02\x06\x00\x00", 5, -1},
    {"a stop", "\x93\x02\x09\x00", 4, -1},
    {"an unload", "\x93\x02\x0f\x01", 4, -1},
    {"a hello", "\x97\x02\x01\xa1h\x00\x01\xa0\x00", 9, -1},
};

START_TEST(hostile_frame)
{
    const struct hostile_case *t = &hostile[_i];
    void *s = client("", 0);
    char text[400] = "";
    int parts;

    ck_assert_int_ge(zmq_send(s, t->bytes, t->count, 0), 0);
    if (t->id >= 0)
        ck_assert_msg(answer(s, (uint64_t)t->id, &parts, text, sizeof(text)) == TRM_ERR_INVALID_ARG,
                      "%s: %s", t->name, text);
    ck_assert_int_ge(zmq_send(s, "a", 1, ZMQ_SNDMORE), 0); /* of two parts */
    ck_assert_int_ge(zmq_send(s, t->bytes, t->count, 0), 0);
    check_alive(s, 1000);
    zmq_close(s);
}
END_TEST

START_TEST(random_frames)
{
    void *s = client("", 0), *other = client("x", 1);
    unsigned seed = 11;

    for (int i = 0; i < 3000; i++) {
        unsigned char bytes[64] = {0x9f, 0x02, 0x0b}; /* never an id that could be answered */
        size_t n = 3 + (size_t)rand_r(&seed) % 60;

        for (size_t k = 3; k < n; k++)
            bytes[k] = (unsigned char)rand_r(&seed);
        ck_assert_int_ge(zmq_send(s, bytes, n, 0), 0);
    }
    check_alive(s, 5);
    check_alive(other, 5);
    zmq_close(s);
    zmq_close(other);
}
END_TEST

START_TEST(refused)
{
    static const struct {
        const char *model;
        int64_t version;
        trm_status want;
    } rows[] = {
        {"n", 0, TRM_ERR_NOT_FOUND}, {"m", 3, TRM_ERR_NOT_FOUND}, {"", 0, TRM_ERR_INVALID_ARG}};
    void *s = client("", 0);
    char text[400];
    int parts;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        trm_wire_request q = {.id = i,
                              .kind = TRM_REQUEST_CHAT,
                              .model = rows[i].model,
                              .version = rows[i].version,
                              .tag = "",
                              .body = ""};

        send_message(s, &(trm_wire_message){.kind = TRM_WIRE_REQUEST, .u.request = &q});
        ck_assert_int_eq(answer(s, i, &parts, text, sizeof(text)), rows[i].want);
    }
    check_alive(s, 9);
    zmq_close(s);
}
END_TEST

START_TEST(cancel_and_limits)
{
    bool seen[256] = {false};
    void *s = client("", 0), *other = client("", 0);
    char text[400];
    int parts;

    atomic_store(&replica->hold, true);
    for (uint64_t id = 0; id < 256; id++)
        ask(s, id, false, "0 h");
    ask(s, 256, false, "0 h");
    ck_assert_int_eq(answer(s, 256, &parts, text, sizeof(text)), TRM_ERR_TIMEOUT);
    ask(s, 7, false, "0 h");
    ck_assert_int_eq(answer(s, 7, &parts, text, sizeof(text)), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(text, "under way"));
    ask(other, 7, false, "0 h"); /* another client's ids are its own */
    send_message(other, &(trm_wire_message){.kind = TRM_WIRE_CANCEL, .u.id = 8});
    send_message(s, &(trm_wire_message){.kind = TRM_WIRE_CANCEL, .u.id = 8});
    ck_assert_int_eq(answer(s, 8, &parts, text, sizeof(text)), TRM_ERR_CANCELLED);
    atomic_store(&replica->hold, false);
    ck_assert_int_eq(answer(other, 7, &parts, text, sizeof(text)), TRM_OK);
    for (int i = 0; i < 255; i++) {
        uint64_t id = ANY;

        ck_assert_int_eq(answer_of(s, &id, &parts, text, sizeof(text)), TRM_OK);
        ck_assert(id < 256 && id != 8 && !seen[id]);
        seen[id] = true;
    }
    check_alive(s, 7);
    ck_assert_int_eq(atomic_load(&replica->cancels), 1);
    zmq_close(s);
    zmq_close(other);
}
END_TEST

START_TEST(vanished)
{
    void *s = client("", 0), *other = client("", 0);

    atomic_store(&replica->hold, true);
    for (uint64_t id = 0; id < 10; id++)
        ask(s, id, id % 2 == 0, "5 v");
    UNTIL(atomic_load(&replica->requests) == 10);
    zmq_close(s);
    atomic_store(&replica->hold, false);
    check_alive(other, 1);
    UNTIL(atomic_load(&replica->answers) == 11); /* each by itself or by CANCEL */
    check_alive(other, 2);
    zmq_close(other);
}
END_TEST

START_TEST(does_not_read)
{
    void *s = client("", 0), *other = client("", 0);

    for (uint64_t id = 0; id < 200; id++)
        ask(s, id, true, "200 a stream that nobody reads, and that is larger than all buffers");
    UNTIL(atomic_load(&replica->cancels) > 0);
    check_alive(other, 1);
    zmq_close(s);
    zmq_close(other);
}
END_TEST

START_TEST(stop)
{
    void *s = client("", 0);
    char text[400];
    int parts;

    atomic_store(&replica->hold, true);
    ask(s, 1, false, "0 h");
    UNTIL(atomic_load(&replica->requests) == 1);
    (void)trm_hub_stop(hub);
    ck_assert_int_eq(answer(s, 1, &parts, text, sizeof(text)), TRM_ERR_COMM);
    zmq_close(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hub's public endpoint");
    TCase *t = tcase_create("clients");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, identities, 0, (int)(sizeof(names) / sizeof(names[0])));
    tcase_add_test(t, tensors);
    tcase_add_loop_test(t, hostile_frame, 0, (int)(sizeof(hostile) / sizeof(hostile[0])));
    tcase_add_test(t, random_frames);
    tcase_add_test(t, refused);
    tcase_add_test(t, cancel_and_limits);
    tcase_add_test(t, vanished);
    tcase_add_test(t, does_not_read);
    tcase_add_test(t, stop);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
