/* The hub with replicas that are threads: ordinary requests, every other way in which one can end,
 * and the hub's own start and end. */
#define _GNU_SOURCE
#include "tests/coordinator/hub_rig.h"

/* ---- ordinary ---- */
START_TEST(normal)
{
    struct rig g;
    struct call c[20], s;
    trm_hub_model_info *infos, one;
    trm_hub_info info;
    int n;

    rig_init(&g, 2);
    g.o.metrics = (trm_metrics *)&g; /* the fake's functions do not look at it */
    rig_start(&g);
    ck_assert_int_eq(trm_hub_wait_ready(g.hub, 0), TRM_OK);
    for (int i = 0; i < 20; i++)
        ck_assert_msg(call(&g, &c[i], (trm_wire_request){0}, "0 hello") == TRM_OK, "%s",
                      trm_message());
    for (int i = 0; i < 20; i++) {
        wait_answer(&c[i], TRM_OK);
        ck_assert_ptr_nonnull(strstr(c[i].body, ":0 hello"));
        ck_assert_str_eq(c[i].model, "m");
        for (int k = 0; k < i; k++) /* a tag each */
            ck_assert_int_ne(strncmp(c[i].body, c[k].body, 24), 0);
    }
    ck_assert_int_gt(atomic_load(&g.r[0]->answers), 0); /* both work */
    ck_assert_int_gt(atomic_load(&g.r[1]->answers), 0);
    ck_assert_int_eq(call(&g, &s, (trm_wire_request){.stream = true}, "5 x"), TRM_OK);
    wait_answer(&s, TRM_OK);
    check_stream(&s, 5);
    ck_assert_int_eq(s.parts, 5);
    ck_assert_int_eq(
        call(&g, &s,
             (trm_wire_request){
                 .version = 1, .tag = "0123456789abcdef01234567", .seed = 9, .created = 5},
             "0 x"),
        TRM_OK);
    wait_answer(&s, TRM_OK);
    ck_assert_str_eq(s.body, "0123456789abcdef01234567:9:0 x");
    ck_assert_int_eq(atomic_load(&ended_count), 22);

    ck_assert_int_eq(trm_hub_models(g.hub, &infos, &n), TRM_OK);
    ck_assert_int_eq(n, 1);
    ck_assert_int_eq(infos[0].state, TRM_MODEL_READY);
    ck_assert_int_eq(infos[0].replicas, 2);
    ck_assert_int_eq((int)infos[0].running, 0);
    trm_hub_models_free(infos, n);
    ck_assert_int_eq(trm_hub_find_model(g.hub, "m", 0, &one), TRM_OK);
    ck_assert_str_eq(one.metadata, "{\"kind\": \"generate\"}");
    ck_assert_uint_gt(one.loaded_at, 0);
    trm_free(one.metadata);
    ck_assert_int_eq(trm_hub_find_model(g.hub, "m", 2, &one), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_hub_get_info(g.hub, &info), TRM_OK);
    ck_assert(info.ready && !info.draining);
    ck_assert_int_eq(info.replicas, 2);
    ck_assert_str_eq(info.replica[0].state, "ready");
    ck_assert_str_eq(info.replica[0].host, "here");
    trm_hub_info_fini(&info);
    UNTIL(atomic_load(&stats_named) > 0 && atomic_load(&stats_unnamed) > 0);
    ck_assert(!trm_hub_stop(g.hub));
    UNTIL(atomic_load(&g.r[0]->stopped) && atomic_load(&g.r[1]->stopped));
    ck_assert(!atomic_load(&g.r[0]->stop_lost));
    rig_end(&g);
}
END_TEST

static const struct refused {
    const char *name;
    trm_wire_request wire;
    const char *model;
    trm_status want;
    const char *says;
} refusals[] = {
    {"unknown model", {0}, "n", TRM_ERR_NOT_FOUND, "no model 'n'"},
    {"unknown version", {.version = 7}, "m", TRM_ERR_NOT_FOUND, "version 7"},
    {"not loaded", {.version = 2}, "m", TRM_ERR_COMM, "not loaded"},
    {"empty name", {0}, "", TRM_ERR_INVALID_ARG, "name"},
    {"unknown kind", {.kind = (trm_request_kind)99}, "m", TRM_ERR_INVALID_ARG, "kind"},
    {"negative version", {.version = -1}, "m", TRM_ERR_INVALID_ARG, "version"},
    {"too many tensors", {.tensor_count = 257}, "m", TRM_ERR_INVALID_ARG, "257"},
};

START_TEST(refusal)
{
    const struct refused *t = &refusals[_i];
    struct rig g;
    struct call c;
    trm_wire_request w = t->wire;

    rig_init(&g, 1);
    g.models[1] = (trm_hub_model){.name = "m", .version = 2, .path = "/m/2"};
    g.o.model_count = 2;
    rig_start(&g);
    w.model = t->model;
    ck_assert_msg(call(&g, &c, w, "0 x") == t->want, "%s: %s", t->name, trm_message());
    ck_assert_msg(strstr(trm_message(), t->says) != NULL, "%s: %s", t->name, trm_message());
    rig_end(&g);
    ck_assert_int_eq(c.answers, 0);
}
END_TEST

START_TEST(tensors)
{
    static const int64_t elems = 64 << 10; /* 256 KiB */
    float *x = trm_malloc((size_t)elems, sizeof(*x));
    trm_wire_tensor t = {.name = "x",
                         .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {elems}, .data = x}};
    struct rig g;
    struct call c[4];

    for (int64_t i = 0; i < elems; i++)
        x[i] = (float)i;
    rig_init(&g, 2);
    g.r[0]->shares = _i != 1; /* 0: both, 1: neither, 2: one of two, and it dies */
    g.r[1]->shares = _i == 0;
    rig_start(&g);
    if (_i == 2)
        atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(
            call(&g, &c[i],
                 (trm_wire_request){.kind = TRM_REQUEST_INFER, .tensors = &t, .tensor_count = 1},
                 ""),
            TRM_OK);
    if (_i == 2) {
        UNTIL(atomic_load(&g.r[0]->requests) > 0);
        atomic_store(&g.r[0]->die, true);
    }
    for (int i = 0; i < 4; i++) {
        wait_answer(&c[i], TRM_OK);
        ck_assert_int_eq(c[i].outputs, 1);
        ck_assert(c[i].first == 0 && c[i].last == (float)(elems - 1));
    }
    if (_i == 0) {
        ck_assert_int_eq(atomic_load(&g.r[0]->shared_seen) + atomic_load(&g.r[1]->shared_seen), 4);
        UNTIL(atomic_load(&g.r[0]->releases) + atomic_load(&g.r[1]->releases) == 4);
    }
    if (_i == 1)
        ck_assert_int_eq(atomic_load(&g.r[0]->shared_seen), 0);
    rig_end(&g);
    trm_free(x);
}
END_TEST

/* ---- ends that are not ordinary ---- */
START_TEST(cancel)
{
    struct rig g;
    struct call running, waiting, own, after;

    rig_init(&g, 1);
    g.r[0]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &running, (trm_wire_request){.stream = true}, "3 r"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) == 1);
    ck_assert_int_eq(call(&g, &waiting, (trm_wire_request){0}, "0 w"), TRM_OK);
    trm_hub_cancel(g.hub, waiting.id);
    wait_answer(&waiting, TRM_ERR_CANCELLED);
    trm_hub_cancel(g.hub, running.id);
    trm_hub_cancel(g.hub, running.id);
    wait_answer(&running, TRM_ERR_CANCELLED);
    trm_hub_cancel(g.hub, running.id);
    trm_hub_cancel(g.hub, 4711);
    UNTIL(atomic_load(&g.r[0]->cancels) == 1); /* the waiting one was never told of */
    atomic_store(&g.r[0]->hold, false);
    call_init(&own); /* from its own part */
    own.cancel_at = g.hub;
    ck_assert_int_eq(submit(&g, &own, (trm_wire_request){.stream = true}, "100000 o", &own.id),
                     TRM_OK);
    wait_answer(&own, TRM_ERR_CANCELLED);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_OK); /* credit is back */
    wait_answer(&after, TRM_OK);
    rig_end(&g);
    ck_assert_int_eq(running.answers + waiting.answers + own.answers, 3);
}
END_TEST

START_TEST(deadline)
{
    struct rig g;
    struct call running, waiting, after;

    rig_init(&g, 1);
    g.r[0]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &running, (trm_wire_request){.deadline_ms = 60}, "0 r"), TRM_OK);
    ck_assert_int_eq(call(&g, &waiting, (trm_wire_request){.deadline_ms = 30}, "0 w"), TRM_OK);
    wait_answer(&waiting, TRM_ERR_TIMEOUT);
    wait_answer(&running, TRM_ERR_TIMEOUT);
    atomic_store(&g.r[0]->hold, false);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_OK);
    wait_answer(&after, TRM_OK);
    rig_end(&g);
}
END_TEST

START_TEST(queue_full)
{
    struct rig g;
    struct call c[5];

    rig_init(&g, 1);
    g.o.queue_max = 2;
    g.r[0]->credits = 2;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 4; i++) /* two run, two wait: even where the hub has not looked yet */
        ck_assert_msg(call(&g, &c[i], (trm_wire_request){0}, "0 x") == TRM_OK, "%d: %s", i,
                      trm_message());
    UNTIL(atomic_load(&g.r[0]->requests) == 2);
    ck_assert_int_eq(call(&g, &c[4], (trm_wire_request){0}, "0 x"), TRM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(trm_message(), "queue is full"));
    atomic_store(&g.r[0]->hold, false);
    for (int i = 0; i < 4; i++)
        wait_answer(&c[i], TRM_OK);
    rig_end(&g);
}
END_TEST

START_TEST(priorities)
{
    static const struct {
        int32_t priority;
        const char *text;
    } rows[] = {{0, "0 a"}, {0, "0 d"}, {-5, "0 f"}, {0, "0 e"}, {7, "0 b"}, {7, "0 c"}};
    struct rig g;
    struct call c[6];

    rig_init(&g, 1);
    g.r[0]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(
            call(&g, &c[i], (trm_wire_request){.priority = rows[i].priority}, rows[i].text),
            TRM_OK);
        if (i == 0)
            UNTIL(atomic_load(&g.r[0]->requests) == 1);
    }
    atomic_store(&g.r[0]->hold, false);
    for (int i = 0; i < 6; i++)
        wait_answer(&c[i], TRM_OK);
    trm_hub_stop(g.hub);
    fake_join(g.r[0]);
    ck_assert_str_eq(g.r[0]->order, "abcdef");
    rig_end(&g);
}
END_TEST

/* ---- start and end ---- */
START_TEST(start)
{
    struct rig g;
    trm_status st;

    rig_init(&g, 1);
    if (_i == 0)
        g.models[0].settings = "{\"fail\": 1}";
    if (_i == 1)
        g.o.join_ms = 30;
    rig_create(&g);
    if (_i != 1)
        rig_join(&g, 0, "0/1");
    if (_i == 2)
        atomic_store(&g.r[0]->hold_loads, true);
    st = trm_hub_wait_ready(g.hub, _i == 2 ? trm_now_us() + 30000 : trm_deadline_us(PATIENCE_MS));
    if (_i == 0) {
        ck_assert_int_eq(st, TRM_ERR_BAD_FILE);
        ck_assert_ptr_nonnull(strstr(trm_message(), "the fake will not"));
    } else {
        ck_assert_int_eq(st, _i == 1 ? TRM_ERR_COMM : TRM_ERR_TIMEOUT);
    }
    rig_end(&g);
}
END_TEST

START_TEST(not_created)
{
    struct rig g;
    static const trm_status wants[] = {TRM_ERR_COMM, TRM_ERR_COMM, TRM_ERR_INVALID_ARG,
                                       TRM_ERR_NOT_FOUND};
    trm_hub *hub = NULL;
    trm_status st;

    rig_init(&g, 1);
    if (_i == 0)
        g.o.endpoint = "nonsense://x";
    if (_i == 1)
        g.o.public_endpoint = "tcp://300.1.2.3:*";
    if (_i == 2)
        g.models[0].name = "";
    if (_i == 3)
        g.models[0].path = NULL;
    ck_assert_int_eq(trm_link_context_create(&g.context), TRM_OK);
    g.o.context = g.context;
    st = trm_hub_create(&g.o, &hub);
    ck_assert_int_eq(st, wants[_i]);
    ck_assert_ptr_null(hub);
    ck_assert_uint_gt(strlen(trm_message()), 0);
    rig_end(&g);
}
END_TEST

START_TEST(drain)
{
    struct rig g;
    struct call c, after;

    rig_init(&g, 1);
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 a"), TRM_OK);
    ck_assert_int_eq(trm_hub_drain(g.hub, trm_now_us() + 30000), TRM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(trm_message(), "1 request"));
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_ERR_COMM);
    atomic_store(&g.r[0]->hold, false);
    ck_assert_int_eq(trm_hub_drain(g.hub, trm_deadline_us(PATIENCE_MS)), TRM_OK);
    ck_assert_int_eq(answers(&c), 1);
    rig_end(&g);
}
END_TEST

START_TEST(stop_with_requests)
{
    struct rig g;
    struct call c[8], after;
    struct end e = {0};
    trm_hub_model again = {.name = "m", .version = 1};

    rig_init(&g, 2);
    rig_start(&g);
    for (int i = 0; i < 2; i++) {
        atomic_store(&g.r[i]->hold, true);
        atomic_store(&g.r[i]->hold_loads, true);
    }
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){0}, "0 a"), TRM_OK);
    ck_assert_int_eq(trm_hub_load(g.hub, &again, &e, on_done), TRM_OK);
    trm_hub_cancel(g.hub, c[3].id);
    (void)trm_hub_stop(g.hub);
    for (int i = 0; i < 8; i++) {
        ck_assert_int_eq(c[i].answers, 1);
        ck_assert(c[i].status == TRM_ERR_COMM || (i == 3 && c[i].status == TRM_ERR_CANCELLED));
    }
    ck_assert_int_eq(atomic_load(&e.count), 1);
    ck_assert_int_eq(e.st, TRM_ERR_COMM);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_ERR_COMM);
    trm_hub_cancel(g.hub, c[0].id);
    rig_end(&g);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("requests"), *e = tcase_create("start and end");

    tcase_add_test(t, normal);
    tcase_add_loop_test(t, refusal, 0, (int)(sizeof(refusals) / sizeof(refusals[0])));
    tcase_add_loop_test(t, tensors, 0, 3);
    tcase_add_test(t, cancel);
    tcase_add_test(t, deadline);
    tcase_add_test(t, queue_full);
    tcase_add_test(t, priorities);
    tcase_add_loop_test(e, start, 0, 3);
    tcase_add_loop_test(e, not_created, 0, 4);
    tcase_add_test(e, drain);
    tcase_add_test(e, stop_with_requests);
    return run_cases("hub", (TCase *[]){t, e}, 2);
}
