/* Who the replicas are, what they have, and who gets a request. */
#include "coordinator/fleet.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

static trm_fleet *fleet; /* of a test */

static void set_up(void)
{
    fleet = trm_calloc(1, sizeof(*fleet));
    ck_assert_ptr_nonnull(fleet);
}

static void tear_down(void)
{
    trm_fleet_fini(fleet);
    trm_free(fleet);
}

static trm_fleet_replica *join(const char *peer, int64_t now)
{
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "h", .rank = 2, .pid = 5};
    trm_fleet_replica *r, *old;

    ck_assert_msg(trm_fleet_join(fleet, peer, &hello, now, &r, &old) == TRM_OK, "%s",
                  trm_message());
    ck_assert_ptr_null(old);
    return r;
}

static trm_fleet_model *know(const char *name, int64_t version)
{
    trm_fleet_model *m;

    ck_assert_int_eq(trm_fleet_know(fleet, name, version, "/p", NULL, &m), TRM_OK);
    return m;
}

static trm_fleet_copy *copy(trm_fleet_model *m, trm_fleet_role role)
{
    trm_fleet_copy *c;

    ck_assert_int_eq(trm_fleet_add_copy(fleet, m, role, &c), TRM_OK);
    return c;
}

static trm_status tell(trm_fleet_replica *r, uint32_t slot, trm_model_state state, uint32_t credits)
{
    trm_wire_model model = {.slot = slot,
                            .state = state,
                            .message = state == TRM_MODEL_FAILED ? "why" : "",
                            .metadata = "{}",
                            .credits = credits};
    trm_wire_message m = {.kind = TRM_WIRE_MODEL, .u.model = &model};
    bool changed;

    return trm_fleet_hear(fleet, r, &m, 0, 77, &changed);
}

static void give(trm_fleet_replica *r, trm_fleet_copy *c, uint32_t credits)
{
    ck_assert_int_eq(trm_fleet_add_place(r, c, 0), TRM_OK);
    if (credits > 0)
        ck_assert_msg(tell(r, c->slot, TRM_MODEL_READY, credits) == TRM_OK, "%s", trm_message());
}

/* ---- who may join ---- */
static const struct join_case {
    const char *name, *before, *peer;
    trm_status want;
    bool replaces;
} joins[] = {
    {"first", NULL, "1/1", TRM_OK, false},
    {"another number", "2/9", "1/1", TRM_OK, false},
    {"newer epoch", "1/1", "1/2", TRM_OK, true},
    {"same", "1/1", "1/1", TRM_ERR_INVALID_ARG, false},
    {"older epoch", "1/3", "1/2", TRM_ERR_INVALID_ARG, false},
    {"no epoch", NULL, "1", TRM_ERR_INVALID_ARG, false},
    {"empty epoch", NULL, "1/", TRM_ERR_INVALID_ARG, false},
    {"empty", NULL, "", TRM_ERR_INVALID_ARG, false},
    {"negative", NULL, "-1/1", TRM_ERR_INVALID_ARG, false},
    {"signed", NULL, "+1/1", TRM_ERR_INVALID_ARG, false},
    {"trailing", NULL, "1/1x", TRM_ERR_INVALID_ARG, false},
    {"large", NULL, "99999999999999999999/1", TRM_ERR_INVALID_ARG, false},
    {"large epoch", NULL, "1/99999999999", TRM_ERR_INVALID_ARG, false},
    {"text", NULL, "a/b", TRM_ERR_INVALID_ARG, false},
};

START_TEST(joining)
{
    const struct join_case *t = &joins[_i];
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "h"};
    trm_fleet_replica *before = t->before != NULL ? join(t->before, 0) : NULL, *r, *old = NULL;

    ck_assert_msg(trm_fleet_join(fleet, t->peer, &hello, 0, &r, &old) == t->want, "%s", t->name);
    ck_assert_msg(old == (t->replaces ? before : NULL), "%s", t->name);
    if (t->want == TRM_OK)
        ck_assert_ptr_eq(trm_fleet_by_peer(fleet, t->peer), r);
}
END_TEST

START_TEST(forgetting)
{
    trm_fleet_replica *a = join("1/1", 0), *b = join("2/1", 0), *old;
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "h"};
    trm_fleet_replica *r;

    trm_fleet_give_up(fleet, a, "x", true, 10);
    trm_fleet_give_up(fleet, b, "y", false, 10);
    ck_assert_int_eq(fleet->lost, 1);
    ck_assert_int_eq(trm_fleet_alive(fleet), 0);
    ck_assert_int_eq(trm_fleet_join(fleet, "1/2", &hello, 20, &r, &old), TRM_OK);
    ck_assert_ptr_null(old); /* it is dead already */
    trm_fleet_forget(fleet, 20);
    ck_assert_int_eq(fleet->replica_count, 3);
    trm_fleet_forget(fleet, 11 + TRM_FLEET_REMEMBER_US);
    ck_assert_int_eq(fleet->replica_count, 2); /* the newest of a number stays */
    ck_assert_ptr_null(trm_fleet_by_peer(fleet, "1/1"));
    ck_assert_int_eq(trm_fleet_join(fleet, "2/1", &hello, 20, &r, &old), TRM_ERR_INVALID_ARG);
}
END_TEST

/* ---- limits ---- */
static const struct overdue_case {
    const char *name;
    int64_t heard, moved;
    bool work;
    trm_wire_phase phase;
    const char *says; /* NULL: not overdue */
    bool loads;       /* a model, beside the executor */
} overdues[] = {
    {"well", 900, 900, true, TRM_PHASE_STEADY, NULL, false},
    {"silent", 100, 900, false, TRM_PHASE_STEADY, "nothing heard", false},
    {"idle for long", 900, 0, false, TRM_PHASE_STEADY, NULL, false},
    {"stuck", 900, 700, true, TRM_PHASE_STEADY, "stuck", false},
    {"stuck in idle", 900, 700, true, TRM_PHASE_IDLE, "stuck", false},
    {"slow first step", 900, 700, true, TRM_PHASE_FIRST_STEP, NULL, false},
    {"slow load", 900, 700, true, TRM_PHASE_LOADING, NULL, false},
    {"stuck first step", 900, -1100, true, TRM_PHASE_FIRST_STEP, "stuck", false},
    {"slow load, idle executor", 900, 700, false, TRM_PHASE_IDLE, NULL, true},
    {"stuck load, idle executor", 900, -1100, false, TRM_PHASE_IDLE, "stuck", true},
    {"stuck beside a load", 900, 700, true, TRM_PHASE_STEADY, "stuck", true},
};

START_TEST(overdue)
{
    const struct overdue_case *t = &overdues[_i];
    const trm_fleet_limits limits = {.silence_us = 500, .stuck_us = 200};
    trm_fleet_replica *r = join("1/1", 0);
    trm_fleet_copy *c = copy(know("m", 1), TRM_FLEET_CURRENT);
    trm_fleet_replica *late;

    give(r, c, 1);
    r->heard_us = t->heard;
    r->phase = t->phase;
    r->in_flight = t->work;
    if (t->loads)
        ck_assert_int_eq(trm_fleet_add_place(r, copy(know("n", 1), TRM_FLEET_CURRENT), t->moved),
                         TRM_OK);
    r->moved_us = t->moved;
    late = trm_fleet_overdue(fleet, &limits, 1000);
    ck_assert_msg(late == (t->says != NULL ? r : NULL), "%s", t->name);
    if (t->says != NULL)
        ck_assert_msg(strstr(trm_message(), t->says) != NULL, "%s: %s", t->name, trm_message());
    trm_fleet_forgive(fleet, 2000);
    ck_assert_msg(trm_fleet_overdue(fleet, &limits, 1000) == NULL, "%s", t->name);
}
END_TEST

/* ---- picks ---- */
static const struct pick_case {
    const char *name;
    struct {
        uint32_t credits, in_flight; /* credits 0: it is still loading */
        int other;                   /* requests of another model */
        bool draining;
    } r[3];
    int warm; /* had the prefix last; -1: none */
    int want; /* -1: wait */
} picks[] = {
    {"none is ready", {{0, 0, 0, false}}, -1, -1},
    {"no credit", {{2, 2, 0, false}, {1, 1, 0, false}}, -1, -1},
    {"the only one with credit", {{2, 2, 0, false}, {4, 3, 0, false}}, -1, 1},
    {"the least used part", {{4, 2, 0, false}, {16, 3, 0, false}, {2, 1, 0, false}}, -1, 1},
    {"other models count", {{4, 1, 3, false}, {4, 1, 0, false}}, -1, 1},
    {"draining", {{4, 0, 0, true}, {4, 3, 0, false}}, -1, 1},
    {"warm", {{8, 0, 0, false}, {8, 2, 0, false}}, 1, 1},
    {"warm, but too much to do", {{8, 0, 0, false}, {8, 3, 0, false}}, 1, 0},
    {"warm, but no credit", {{8, 1, 0, false}, {2, 2, 0, false}}, 1, 0},
    {"warm, but draining", {{8, 1, 0, false}, {8, 0, 0, true}}, 1, 0},
};

START_TEST(picking)
{
    const struct pick_case *t = &picks[_i];
    trm_fleet_copy *c = copy(know("m", 1), TRM_FLEET_CURRENT),
                   *other = copy(know("n", 1), TRM_FLEET_CURRENT);
    trm_fleet_replica *r[3], *got;
    uint64_t prefix = t->warm >= 0 ? trm_fleet_prefix(c->model, "abc", 3) : 0;
    uint32_t credit = 0;

    for (int i = 0; i < 3; i++) {
        char peer[16];

        snprintf(peer, sizeof(peer), "%d/1", i);
        r[i] = join(peer, 0);
        give(r[i], c, t->r[i].credits);
        give(r[i], other, 100);
        if (!t->r[i].draining)
            credit += t->r[i].credits - t->r[i].in_flight;
        for (int k = 0; k < t->r[i].other; k++)
            trm_fleet_sent(fleet, r[i], other, 0, 0);
        for (uint32_t k = 0; k < t->r[i].in_flight; k++)
            trm_fleet_sent(fleet, r[i], c, 0, 0);
    }
    if (t->warm >= 0) {
        trm_fleet_sent(fleet, r[t->warm], c, prefix, 0);
        trm_fleet_answered(r[t->warm], c);
    }
    for (int i = 0; i < 3; i++)
        if (t->r[i].draining)
            r[i]->state = TRM_FLEET_DRAINING;
    ck_assert_msg(trm_fleet_free_credit(fleet, c) == credit, "%s", t->name);
    got = trm_fleet_pick(fleet, c, prefix);
    ck_assert_msg(got == (t->want >= 0 ? r[t->want] : NULL), "%s: %s", t->name,
                  got != NULL ? got->peer : "none");
    if (t->warm >= 0) {
        trm_fleet_give_up(fleet, r[t->warm], "", true, 0);
        got = trm_fleet_pick(fleet, c, prefix);
        ck_assert_msg(got != r[t->warm], "%s", t->name);
    }
}
END_TEST

START_TEST(turns)
{
    trm_fleet_copy *c = copy(know("m", 1), TRM_FLEET_CURRENT);
    trm_fleet_replica *r[3], *got[6];

    for (int i = 0; i < 3; i++) {
        char peer[16];

        snprintf(peer, sizeof(peer), "%d/1", i);
        r[i] = join(peer, 0);
        give(r[i], c, 2);
    }
    for (int i = 0; i < 6; i++) { /* idle ones by turns */
        got[i] = trm_fleet_pick(fleet, c, 0);
        trm_fleet_sent(fleet, got[i], c, 0, 0);
        trm_fleet_answered(got[i], c);
    }
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_eq(got[i], got[i + 3]);
        ck_assert_ptr_ne(got[i], got[(i + 1) % 3]);
    }
    ck_assert_uint_ne(trm_fleet_prefix(c->model, "abc", 3), trm_fleet_prefix(c->model, "abd", 3));
    ck_assert_uint_ne(trm_fleet_prefix(c->model, "", 0), 0);
}
END_TEST

/* ---- models, copies, places ---- */
START_TEST(models)
{
    trm_fleet_model *m, *v1 = know("m", 1), *v2 = know("m", 2);
    trm_fleet_replica *r = join("1/1", 0);
    trm_fleet_copy *a, *b, *next;
    char long_name[200];

    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    ck_assert_int_eq(trm_fleet_know(fleet, "x", 1, NULL, NULL, &m), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_fleet_know(fleet, "x", 0, "/p", NULL, &m), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_fleet_know(fleet, long_name, 1, "/p", NULL, &m), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_fleet_know(fleet, "", 1, "/p", NULL, &m), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_fleet_know(fleet, "m", 1, "/q", "{1}", &m), TRM_OK);
    ck_assert_ptr_eq(m, v1);
    ck_assert_str_eq(m->path, "/q");
    ck_assert_ptr_null(trm_fleet_route(fleet, "n", 0));
    ck_assert_ptr_eq(trm_fleet_route(fleet, "m", 0), v2); /* newest known */
    ck_assert_int_eq(trm_fleet_model_state(v1), TRM_MODEL_UNLOADED);

    a = copy(v1, TRM_FLEET_CURRENT);
    ck_assert_int_eq(trm_fleet_model_state(v1), TRM_MODEL_LOADING);
    ck_assert_str_eq(trm_fleet_replica_state_name(fleet, r), "joining");
    ck_assert(trm_fleet_hope(fleet, v1) && !trm_fleet_hope(fleet, v2));
    give(r, a, 0);
    ck_assert_int_eq(trm_fleet_loading(fleet, v1), 1);
    ck_assert_str_eq(trm_fleet_replica_state_name(fleet, r), "loading");
    ck_assert_int_eq(tell(r, a->slot, TRM_MODEL_READY, 3), TRM_OK);
    ck_assert_int_eq(trm_fleet_model_state(v1), TRM_MODEL_READY);
    ck_assert_str_eq(trm_fleet_replica_state_name(fleet, r), "ready");
    ck_assert_str_eq(v1->metadata, "{}");
    ck_assert_uint_eq(v1->loaded_at, 77);
    ck_assert_ptr_eq(trm_fleet_route(fleet, "m", 0), v1); /* newest ready */

    b = copy(v2, TRM_FLEET_CURRENT);
    give(r, b, 0);
    ck_assert_int_eq(tell(r, b->slot, TRM_MODEL_FAILED, 0), TRM_OK);
    ck_assert_int_eq(trm_fleet_model_state(v2), TRM_MODEL_FAILED);
    ck_assert_str_eq(v2->reason, "why");
    ck_assert(!trm_fleet_hope(fleet, v2));
    ck_assert_int_eq(tell(r, b->slot, TRM_MODEL_READY, 1), TRM_ERR_COMM);

    next = copy(v2, TRM_FLEET_PENDING); /* fails while UNLOAD is on its way */
    give(r, next, 0);
    trm_fleet_retire(next);
    ck_assert(trm_fleet_displace(r, next, 0));
    ck_assert_int_eq(tell(r, next->slot, TRM_MODEL_FAILED, 0), TRM_OK);
    ck_assert_int_eq(tell(r, next->slot, TRM_MODEL_UNLOADED, 0), TRM_OK);
    ck_assert_int_eq(next->places, 0);
    trm_fleet_drop(fleet, next);

    next = copy(v1, TRM_FLEET_PENDING);
    ck_assert_uint_gt(next->slot, b->slot);
    give(r, next, 1);
    trm_fleet_promote(next, 78);
    ck_assert_ptr_eq(v1->current, next);
    ck_assert_int_eq(a->role, TRM_FLEET_RETIRED);
    ck_assert_int_eq(v1->retired, 1);
    ck_assert(trm_fleet_displace(r, a, 0));
    ck_assert(!trm_fleet_displace(r, a, 0));
    ck_assert_int_eq(tell(r, a->slot, TRM_MODEL_READY, 1), TRM_OK); /* it crossed UNLOAD */
    ck_assert_int_eq(tell(r, a->slot, TRM_MODEL_UNLOADED, 0), TRM_OK);
    ck_assert_int_eq(a->places, 0);
    trm_fleet_drop(fleet, a);
    ck_assert_int_eq(v1->retired, 0);
    trm_fleet_retire(next);
    ck_assert_int_eq(trm_fleet_model_state(v1), TRM_MODEL_DRAINING);
    trm_fleet_give_up(fleet, r, "gone", true, 5);
    ck_assert_int_eq(next->places, 0);
    ck_assert_int_eq(next->ready, 0);
    ck_assert_str_eq(trm_fleet_replica_state_name(fleet, r), "dead");
}
END_TEST

static const struct nonsense_case {
    const char *name;
    trm_wire_kind kind;
    uint32_t slot; /* MODEL; 1 is loading, 2 is ready */
    trm_model_state state;
    uint32_t credits;
    trm_status want;
} nonsense[] = {
    {"a batch", TRM_WIRE_BATCH, 0, 0, 0, TRM_ERR_COMM},
    {"a request", TRM_WIRE_REQUEST, 0, 0, 0, TRM_ERR_COMM},
    {"a load", TRM_WIRE_LOAD, 0, 0, 0, TRM_ERR_COMM},
    {"ready of batch scoring", TRM_WIRE_READY, 0, 0, 0, TRM_ERR_COMM},
    {"unknown slot", TRM_WIRE_MODEL, 9, TRM_MODEL_READY, 1, TRM_ERR_COMM},
    {"slot 0", TRM_WIRE_MODEL, 0, TRM_MODEL_READY, 1, TRM_ERR_COMM},
    {"ready without credit", TRM_WIRE_MODEL, 1, TRM_MODEL_READY, 0, TRM_ERR_COMM},
    {"unloaded unasked", TRM_WIRE_MODEL, 2, TRM_MODEL_UNLOADED, 0, TRM_ERR_COMM},
    {"unknown state", TRM_WIRE_MODEL, 2, (trm_model_state)9, 0, TRM_ERR_COMM},
    {"failed with requests", TRM_WIRE_MODEL, 2, TRM_MODEL_FAILED, 0, TRM_ERR_COMM},
    {"loading", TRM_WIRE_MODEL, 1, TRM_MODEL_LOADING, 0, TRM_OK},
    {"other credits", TRM_WIRE_MODEL, 2, TRM_MODEL_READY, 9, TRM_OK},
    {"drain", TRM_WIRE_DRAIN, 0, 0, 0, TRM_OK},
    {"beat", TRM_WIRE_HEARTBEAT, 0, 0, 0, TRM_OK},
};

START_TEST(hearing)
{
    const struct nonsense_case *t = &nonsense[_i];
    trm_fleet_replica *r = join("1/1", 0);
    trm_fleet_copy *a = copy(know("a", 1), TRM_FLEET_CURRENT),
                   *b = copy(know("b", 1), TRM_FLEET_CURRENT);
    trm_wire_model model = {
        .slot = t->slot, .state = t->state, .message = "", .metadata = "", .credits = t->credits};
    trm_wire_message m = {.kind = t->kind};
    bool changed;

    give(r, a, 0);
    give(r, b, 2);
    trm_fleet_sent(fleet, r, b, 0, 0);
    if (t->kind == TRM_WIRE_MODEL)
        m.u.model = &model;
    ck_assert_msg(trm_fleet_hear(fleet, r, &m, 50, 0, &changed) == t->want, "%s", t->name);
    ck_assert_int_eq((int)r->heard_us, 50);
    if (t->kind == TRM_WIRE_DRAIN)
        ck_assert(changed && trm_fleet_pick(fleet, b, 0) == NULL);
}
END_TEST

START_TEST(no_memory)
{
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "h"};

    for (int fail = 0; fail < 12; fail++) {
        trm_fleet_replica *r, *old;
        trm_fleet_model *m = NULL;
        trm_fleet_copy *c;
        trm_status st;

        trm_alloc_fail_after(fail);
        st = trm_fleet_know(fleet, "m", 1, "/p", NULL, &m);
        if (st == TRM_OK)
            st = trm_fleet_add_copy(fleet, m, TRM_FLEET_CURRENT, &c);
        if (st == TRM_OK)
            st = trm_fleet_join(fleet, "1/1", &hello, 0, &r, &old);
        if (st == TRM_OK)
            st = trm_fleet_add_place(r, c, 0);
        trm_alloc_fail_after(-1);
        ck_assert_int_eq(st, fail < 11 ? TRM_ERR_NO_MEMORY : TRM_OK);
        trm_fleet_fini(fleet);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fleet");
    TCase *t = tcase_create("fleet");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, joining, 0, (int)(sizeof(joins) / sizeof(joins[0])));
    tcase_add_test(t, forgetting);
    tcase_add_loop_test(t, overdue, 0, (int)(sizeof(overdues) / sizeof(overdues[0])));
    tcase_add_loop_test(t, picking, 0, (int)(sizeof(picks) / sizeof(picks[0])));
    tcase_add_test(t, turns);
    tcase_add_test(t, models);
    tcase_add_loop_test(t, hearing, 0, (int)(sizeof(nonsense) / sizeof(nonsense[0])));
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
