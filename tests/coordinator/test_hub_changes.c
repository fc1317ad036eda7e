/* The hub while its cluster changes: replicas that are lost, models that are loaded, replaced and
 * unloaded under load. */
#define _GNU_SOURCE
#include "tests/coordinator/hub_rig.h"

/* ---- replicas that are lost ---- */
START_TEST(death_in_a_stream)
{
    struct rig g;
    struct call c[8];

    rig_init(&g, 2);
    rig_start(&g);
    atomic_store(&g.r[0]->die_at_parts, 13);
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){.stream = true}, "20 s"), TRM_OK);
    for (int i = 0; i < 8; i++) {
        wait_answer(&c[i], TRM_OK);
        check_stream(&c[i], 20);
    }
    fake_join(g.r[0]);
    ck_assert(trm_hub_stop(g.hub));
    rig_end(&g);
}
END_TEST

START_TEST(another_answer)
{
    struct rig g;
    struct call c;

    rig_init(&g, 2);
    g.r[1]->says_otherwise = true;
    rig_start(&g);
    atomic_store(&g.r[1]->hold, true);
    for (;;) { /* until one runs on replica 0; of a kind that is sent by turns */
        ck_assert_int_eq(call(&g, &c,
                              (trm_wire_request){.kind = TRM_REQUEST_EMBEDDINGS, .stream = true},
                              "100000 s"),
                         TRM_OK);
        UNTIL(atomic_load(&g.r[0]->requests) + atomic_load(&g.r[1]->requests) > 0);
        if (atomic_load(&g.r[0]->requests) > 0)
            break;
        trm_hub_cancel(g.hub, c.id);
        wait_answer(&c, TRM_ERR_CANCELLED);
        atomic_store(&g.r[1]->requests, 0);
    }
    UNTIL(parts(&c) > 2);
    atomic_store(&g.r[0]->die, true);
    atomic_store(&g.r[1]->hold, false);
    wait_answer(&c, TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(c.message, "differs"));
    rig_end(&g);
}
END_TEST

START_TEST(death_of_all)
{
    struct rig g;
    struct call c[6], after;

    rig_init(&g, 1);
    g.o.in_job = _i == 0;
    g.o.join_ms = _i == 1 ? 200 : PATIENCE_MS;
    g.r[0]->credits = 2;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){.stream = true}, "4 s"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) == 2);
    atomic_store(&g.r[0]->die, true);
    if (_i == 2) { /* a newcomer takes them */
        fake_join(g.r[0]);
        rig_join(&g, 1, "0/2");
    }
    for (int i = 0; i < 6; i++) {
        wait_answer(&c[i], _i == 2 ? TRM_OK : TRM_ERR_COMM);
        if (_i == 2)
            check_stream(&c[i], 4);
    }
    if (_i < 2) {
        ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 x"), TRM_ERR_COMM);
        ck_assert_ptr_nonnull(strstr(trm_message(), "no replica"));
    }
    rig_end(&g);
}
END_TEST

START_TEST(attempts)
{
    struct rig g;
    struct call c;

    rig_init(&g, 4);
    for (int i = 0; i < 4; i++)
        atomic_store(&g.r[i]->die_at_parts, 2);
    rig_start(&g);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){.stream = true}, "9 s"), TRM_OK);
    wait_answer(&c, TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(c.message, "3 replicas were lost"));
    ck_assert_int_eq(c.parts, 2);
    rig_end(&g);
}
END_TEST

static int dead_replicas(struct rig *g, char *reason, size_t bytes)
{
    trm_hub_info info;
    int n;

    ck_assert_int_eq(trm_hub_get_info(g->hub, &info), TRM_OK);
    n = info.dead_replicas;
    for (int i = 0; i < info.replicas; i++)
        if (strcmp(info.replica[i].state, "dead") == 0)
            snprintf(reason, bytes, "%s", info.replica[i].reason);
    trm_hub_info_fini(&info);
    return n;
}

START_TEST(given_up)
{
    static const char *const says[] = {"nothing heard", "msgpack|message", "stuck",
                                       "replaced by 0/2", "connection was closed"};
    struct rig g;
    struct call c;
    char reason[256] = "";

    rig_init(&g, 1);
    if (_i == 0)
        g.o.silence_ms = 1000;
    if (_i == 2)
        g.o.stuck_ms = 1000;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){.stream = true}, "4 s"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) == 1);
    if (_i == 0)
        atomic_store(&g.r[0]->mute, true);
    if (_i == 1)
        atomic_store(&g.r[0]->garbage, true);
    if (_i == 3)
        rig_join(&g, 1, "0/2");
    if (_i == 4)
        atomic_store(&g.r[0]->die, true);
    UNTIL(dead_replicas(&g, reason, sizeof(reason)) == 1);
    if (_i != 1)
        ck_assert_msg(strstr(reason, says[_i]) != NULL, "%s", reason);
    ck_assert_uint_gt(strlen(reason), 0);
    atomic_store(&g.r[0]->mute, false);
    atomic_store(&g.r[0]->hold, false); /* what it still says is ignored */
    if (_i != 3)
        rig_join(&g, 1, "0/2");
    wait_answer(&c, TRM_OK);
    check_stream(&c, 4);
    if (_i < 4) {
        UNTIL(atomic_load(&g.r[0]->stopped)); /* it lives, and is told to go */
        ck_assert(atomic_load(&g.r[0]->stop_lost));
    }
    rig_join(&g, 2, "0/1"); /* an old epoch is not let in */
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 x"), TRM_OK);
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq(atomic_load(&g.r[2]->loads), 0);
    rig_end(&g);
}
END_TEST

/* It hears the hub until the end, lest it ends the job that it is a rank of. */
START_TEST(given_up_in_a_job)
{
    char reason[256] = "";
    struct rig g;
    int beats;

    rig_init(&g, 1);
    g.o.in_job = true;
    g.o.silence_ms = 1000;
    rig_start(&g);
    atomic_store(&g.r[0]->mute, true);
    UNTIL(dead_replicas(&g, reason, sizeof(reason)) == 1);
    atomic_store(&g.r[0]->mute, false);
    UNTIL(atomic_load(&g.r[0]->drains) == 1);
    beats = atomic_load(&g.r[0]->beats);
    UNTIL(atomic_load(&g.r[0]->beats) > beats + 1);
    ck_assert(!atomic_load(&g.r[0]->stopped));
    ck_assert(trm_hub_stop(g.hub));
    UNTIL(atomic_load(&g.r[0]->stopped));
    rig_end(&g);
}
END_TEST

static trm_model_state state_of(struct rig *g, int64_t version)
{
    trm_hub_model_info info;

    ck_assert_int_eq(trm_hub_find_model(g->hub, "m", version, &info), TRM_OK);
    trm_free(info.metadata);
    return info.state;
}

/* ---- models ---- */
struct flood {
    struct rig *g;
    atomic_bool end;
    atomic_int sent;
    struct call *calls;
};
#define FLOOD_MAX 20000

static void *flood_main(void *ctx)
{
    struct flood *f = ctx;

    for (int i = 0; i < FLOOD_MAX && !atomic_load(&f->end); i++) {
        trm_status st = call(f->g, &f->calls[i], (trm_wire_request){.stream = i % 2 == 0}, "3 f");

        ck_assert_msg(st == TRM_OK, "%s", trm_message());
        atomic_store(&f->sent, i + 1);
        usleep(300);
    }
    return NULL;
}

START_TEST(reload_under_load)
{
    struct rig g;
    struct flood f = {.g = &g};
    struct end e[3] = {0};
    pthread_t thread;
    int sent;

    rig_init(&g, 2);
    rig_start(&g);
    f.calls = trm_calloc(FLOOD_MAX, sizeof(*f.calls));
    ck_assert_int_eq(pthread_create(&thread, NULL, flood_main, &f), 0);
    for (int i = 0; i < 3; i++) {
        trm_hub_model again = {.name = "m", .version = 1};
        int unloads = atomic_load(&g.r[0]->unloads);

        UNTIL(atomic_load(&f.sent) > 20 * (i + 1));
        ck_assert_int_eq(trm_hub_load(g.hub, &again, &e[i], on_done), TRM_OK);
        wait_end(&e[i], TRM_OK);
        UNTIL(atomic_load(&g.r[0]->unloads) > unloads); /* the old one has drained */
    }
    sent = atomic_load(&f.sent);
    UNTIL(atomic_load(&f.sent) > sent);
    atomic_store(&f.end, true);
    pthread_join(thread, NULL);
    sent = atomic_load(&f.sent);
    for (int i = 0; i < sent; i++) {
        wait_answer(&f.calls[i], TRM_OK);
        if (f.calls[i].parts > 0)
            check_stream(&f.calls[i], 3);
    }
    ck_assert_int_eq((int)f.calls[sent - 1].version, 4); /* the fake says its slot */
    ck_assert_int_eq(atomic_load(&g.r[1]->loads), 4);
    rig_end(&g);
    trm_free(f.calls);
}
END_TEST

START_TEST(unload)
{
    struct rig g;
    struct call running, waiting, refused, after;
    struct end e = {0}, twice = {0}, again = {0};
    trm_hub_model model = {.name = "m", .version = 1};
    trm_hub_info info;

    rig_init(&g, 2);
    g.r[0]->credits = g.r[1]->credits = 1;
    rig_start(&g);
    atomic_store(&g.r[0]->hold, true);
    atomic_store(&g.r[1]->hold, true);
    ck_assert_int_eq(call(&g, &running, (trm_wire_request){.stream = true}, "3 r"), TRM_OK);
    ck_assert_int_eq(call(&g, &refused, (trm_wire_request){.stream = true}, "3 r"), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->requests) + atomic_load(&g.r[1]->requests) == 2);
    ck_assert_int_eq(call(&g, &waiting, (trm_wire_request){0}, "0 w"), TRM_OK);
    ck_assert_int_eq(trm_hub_unload(g.hub, "m", 0, &e, on_done), TRM_OK);
    ck_assert_int_eq(trm_hub_unload(g.hub, "m", 1, &twice, on_done), TRM_OK);
    ck_assert_int_eq(state_of(&g, 0), TRM_MODEL_DRAINING);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_ERR_COMM);
    ck_assert_int_eq(atomic_load(&e.count), 0);
    atomic_store(&g.r[0]->hold, false);
    atomic_store(&g.r[1]->hold, false);
    wait_answer(&running, TRM_OK);
    wait_answer(&refused, TRM_OK);
    wait_answer(&waiting, TRM_OK);
    wait_end(&e, TRM_OK);
    wait_end(&twice, TRM_OK);
    ck_assert_int_eq(state_of(&g, 0), TRM_MODEL_UNLOADED);
    ck_assert_int_eq(trm_hub_get_info(g.hub, &info), TRM_OK);
    ck_assert(info.ready); /* it is not wanted any more */
    trm_hub_info_fini(&info);
    ck_assert_int_eq(trm_hub_unload(g.hub, "n", 0, &e, on_done), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_hub_load(g.hub, &model, &again, on_done), TRM_OK);
    wait_end(&again, TRM_OK);
    ck_assert_int_eq(call(&g, &after, (trm_wire_request){0}, "0 a"), TRM_OK);
    wait_answer(&after, TRM_OK);
    rig_end(&g);
}
END_TEST

START_TEST(failed_load)
{
    struct rig g;
    struct call c;
    struct end e[4] = {0};
    trm_hub_model bad = {.name = "m", .version = 1, .settings = "{\"fail\": 1}"},
                  good = {.name = "m", .version = 2, .path = "/m/2"},
                  unknown = {.name = "n", .version = 1},
                  mended = {.name = "m", .version = 1}; /* settings held for that load alone */

    rig_init(&g, 2);
    rig_start(&g);
    atomic_store(&g.r[0]->hold_loads, true);
    atomic_store(&g.r[1]->hold_loads, true);
    ck_assert_int_eq(trm_hub_load(g.hub, &bad, &e[0], on_done), TRM_OK);
    ck_assert_int_eq(trm_hub_load(g.hub, &bad, &e[0], on_done), TRM_ERR_INVALID_ARG);
    atomic_store(&g.r[0]->hold_loads, false);
    atomic_store(&g.r[1]->hold_loads, false);
    wait_end(&e[0], TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(e[0].message, "the fake will not"));
    ck_assert_int_eq(state_of(&g, 0), TRM_MODEL_READY); /* the old one stays */
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 a"), TRM_OK);
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq((int)c.version, 1);
    ck_assert_int_eq(trm_hub_load(g.hub, &unknown, &e[1], on_done), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_hub_load(g.hub, &good, &e[2], on_done), TRM_OK);
    wait_end(&e[2], TRM_OK);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){0}, "0 a"), TRM_OK); /* the newest */
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq((int)c.version, 3);
    ck_assert_int_eq(trm_hub_load(g.hub, &mended, &e[3], on_done), TRM_OK);
    wait_end(&e[3], TRM_OK);
    ck_assert_int_eq(call(&g, &c, (trm_wire_request){.version = 1}, "0 a"), TRM_OK);
    wait_answer(&c, TRM_OK);
    ck_assert_int_eq((int)c.version, 4);
    rig_end(&g);
}
END_TEST

START_TEST(joins_meanwhile)
{
    struct rig g;
    struct end e = {0};
    trm_hub_model again = {.name = "m", .version = 1};

    rig_init(&g, 1);
    rig_start(&g);
    atomic_store(&g.r[0]->hold_loads, true);
    ck_assert_int_eq(trm_hub_load(g.hub, &again, &e, on_done), TRM_OK);
    UNTIL(atomic_load(&g.r[0]->loads) == 2);
    rig_join(&g, 1, "1/1");
    UNTIL(atomic_load(&g.r[1]->loads) == 2); /* the current and the pending copy */
    ck_assert_int_eq(atomic_load(&e.count), 0);
    atomic_store(&g.r[0]->hold_loads, false);
    wait_end(&e, TRM_OK);
    UNTIL(atomic_load(&g.r[1]->unloads) == 1);
    rig_end(&g);
}
END_TEST

START_TEST(groups)
{
    struct rig g;
    struct call c[6];
    struct end e = {0};
    trm_hub_model again = {.name = "m", .version = 2};

    rig_init(&g, 2);
    g.o.join_ms = 200;
    g.models[0].replicas = 1; /* version 1 on replica 0, version 2 on replica 1 */
    g.models[1] = g.models[0];
    g.models[1].version = 2;
    g.models[1].first_replica = 1;
    g.o.model_count = 2;
    rig_start(&g);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(call(&g, &c[i], (trm_wire_request){.version = 1 + i % 2}, "0 a"), TRM_OK);
    for (int i = 0; i < 6; i++)
        wait_answer(&c[i], TRM_OK);
    ck_assert_int_eq(atomic_load(&g.r[0]->requests), 3);
    ck_assert_int_eq(atomic_load(&g.r[1]->requests), 3);
    ck_assert_int_eq(atomic_load(&g.r[0]->loads) + atomic_load(&g.r[1]->loads), 2);

    atomic_store(&g.r[1]->hold, true); /* one that names no version may go to another group */
    ck_assert_int_eq(call(&g, &c[0], (trm_wire_request){.version = 0}, "0 a"), TRM_OK);
    ck_assert_int_eq(call(&g, &c[1], (trm_wire_request){.version = 2}, "0 a"), TRM_OK);
    UNTIL(atomic_load(&g.r[1]->requests) == 5);
    atomic_store(&g.r[1]->die, true);
    wait_answer(&c[0], TRM_OK);
    wait_answer(&c[1], TRM_ERR_COMM);
    ck_assert_int_eq(trm_hub_load(g.hub, &again, &e, on_done), TRM_OK);
    wait_end(&e, TRM_ERR_COMM); /* nobody of its group comes */
    rig_end(&g);
}
END_TEST

int main(void)
{
    TCase *l = tcase_create("lost"), *m = tcase_create("models");

    tcase_add_test(l, death_in_a_stream);
    tcase_add_test(l, another_answer);
    tcase_add_loop_test(l, death_of_all, 0, 3);
    tcase_add_test(l, attempts);
    tcase_add_loop_test(l, given_up, 0, 5);
    tcase_add_test(l, given_up_in_a_job);
    tcase_add_test(m, reload_under_load);
    tcase_add_test(m, unload);
    tcase_add_test(m, failed_load);
    tcase_add_test(m, joins_meanwhile);
    tcase_add_test(m, groups);
    return run_cases("hub while things change", (TCase *[]){l, m}, 2);
}
