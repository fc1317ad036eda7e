/* Order, bounds and replay of the requests of a hub. */
#include "coordinator/backlog.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS 12

struct step {
    char
        what; /* a: add, s: start the head, r: requeue, x: remove, m: move to queue 1, b: abandon */
    int item; /* and of `s`: who must be the head */
    int32_t priority;
};

static const struct order_case {
    const char *name;
    struct step steps[16];
    const char *want; /* items in the order in which they leave queue 0 */
} orders[] = {
    {"none", {{0}}, ""},
    {"arrival", {{'a', 0, 0}, {'a', 1, 0}, {'a', 2, 0}}, "012"},
    {"priority", {{'a', 0, 0}, {'a', 1, 5}, {'a', 2, -5}, {'a', 3, 5}, {'a', 4, 0}}, "13042"},
    {"replays first", {{'a', 0, 0}, {'s', 0, 0}, {'a', 1, 9}, {'a', 2, 0}, {'r', 0, 0}}, "012"},
    {"replays by arrival",
     {{'a', 0, 0}, {'a', 1, 0}, {'s', 0, 0}, {'s', 1, 0}, {'a', 2, 1}, {'r', 1, 0}, {'r', 0, 0}},
     "012"},
    {"out of the middle",
     {{'a', 0, 0}, {'a', 1, 0}, {'a', 2, 0}, {'a', 3, 0}, {'x', 1, 0}, {'x', 3, 0}},
     "02"},
    {"another queue", {{'a', 0, 0}, {'a', 1, 0}, {'a', 2, 0}, {'m', 1, 0}}, "02"},
    {"abandoned", {{'a', 0, 0}, {'a', 1, 0}, {'s', 0, 0}, {'b', 0, 0}}, "1"},
    {"running", {{'a', 0, 0}, {'a', 1, 0}, {'s', 0, 0}}, "1"},
};

static void add(trm_backlog *b, trm_backlog_item *items, int i, int32_t priority)
{
    items[i] =
        (trm_backlog_item){.id = (uint64_t)i + 1, .priority = priority, .deadline_us = 1000 - i};
    ck_assert_int_eq(trm_backlog_add(b, &items[i], 0), TRM_OK);
}

START_TEST(order)
{
    const struct order_case *t = &orders[_i];
    trm_backlog_item items[ITEMS], *head;
    trm_backlog *b = NULL;
    char got[ITEMS + 1] = "";
    size_t n = 0;

    ck_assert_int_eq(trm_backlog_create(100, &b), TRM_OK);
    for (const struct step *s = t->steps; s->what != 0; s++) {
        trm_backlog_item *i = &items[s->item];

        switch (s->what) {
        case 'a':
            add(b, items, s->item, s->priority);
            break;
        case 's':
            ck_assert_ptr_eq(trm_backlog_head(b, 0), i);
            trm_backlog_start(b, i);
            break;
        case 'r':
            trm_backlog_requeue(b, i);
            break;
        case 'x':
            trm_backlog_remove(b, i);
            ck_assert_ptr_null(trm_backlog_find(b, i->id));
            break;
        case 'm':
            ck_assert_int_eq(trm_backlog_move(b, i, 1), TRM_OK);
            ck_assert_ptr_eq(trm_backlog_head(b, 1), i);
            break;
        default:
            trm_backlog_abandon(b, i);
            ck_assert_ptr_eq(trm_backlog_find(b, i->id), i);
            break;
        }
    }
    while ((head = trm_backlog_head(b, 0)) != NULL) {
        got[n++] = (char)('0' + (head - items));
        trm_backlog_start(b, head);
        trm_backlog_remove(b, head);
    }
    got[n] = '\0';
    ck_assert_msg(strcmp(got, t->want) == 0, "%s: %s, wanted %s", t->name, got, t->want);
    trm_backlog_destroy(b);
}
END_TEST

START_TEST(bounds)
{
    trm_backlog_item items[ITEMS], more = {.id = 99};
    trm_backlog *b = NULL;

    ck_assert_int_eq(trm_backlog_create(3, &b), TRM_OK);
    for (int i = 0; i < 3; i++)
        add(b, items, i, 0);
    ck_assert_int_eq(trm_backlog_add(b, &more, 0), TRM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(trm_message(), "queue is full"));
    ck_assert_int_eq(more.state, TRM_BACKLOG_OUT);
    ck_assert_int_eq(trm_backlog_add(b, &more, 1), TRM_OK); /* there is room at a replica */
    trm_backlog_start(b, &items[0]);
    trm_backlog_start(b, &more);
    ck_assert_int_eq(trm_backlog_waiting(b), 2);
    ck_assert_int_eq(trm_backlog_running(b), 2);
    add(b, items, 3, 0);
    trm_backlog_requeue(b, &items[0]); /* never refused */
    ck_assert_int_eq(trm_backlog_waiting(b), 4);
    trm_backlog_abandon(b, &more);
    ck_assert_int_eq(trm_backlog_running(b), 0);
    ck_assert_int_eq(trm_backlog_abandoned(b), 1);
    trm_backlog_remove(b, &more);
    trm_backlog_remove(b, &more); /* it is out already */
    ck_assert_int_eq(trm_backlog_abandoned(b), 0);
    trm_backlog_destroy(b);
    trm_backlog_destroy(NULL);
}
END_TEST

START_TEST(deadlines)
{
    trm_backlog_item items[ITEMS];
    trm_backlog *b = NULL;

    ck_assert_int_eq(trm_backlog_create(100, &b), TRM_OK);
    ck_assert(trm_backlog_next_deadline_us(b) == INT64_MAX);
    for (int i = 0; i < 5; i++) /* 1000, 999, ... */
        add(b, items, i, 0);
    ck_assert_int_eq((int)trm_backlog_next_deadline_us(b), 996);
    ck_assert_ptr_null(trm_backlog_overdue(b, 995));
    trm_backlog_start(b, &items[4]); /* running ones have a deadline too */
    ck_assert_ptr_eq(trm_backlog_overdue(b, 996), &items[4]);
    trm_backlog_abandon(b, &items[4]); /* answered ones have none */
    ck_assert_ptr_eq(trm_backlog_overdue(b, 5000), &items[3]);
    trm_backlog_remove(b, &items[3]);
    ck_assert_int_eq((int)trm_backlog_next_deadline_us(b), 998);
    trm_backlog_destroy(b);
}
END_TEST

/* Many steps beside a plain list. */
START_TEST(random_steps)
{
    enum { COUNT = 300 };
    trm_backlog_item *items = trm_calloc(COUNT, sizeof(*items));
    trm_backlog *b = NULL;
    unsigned seed = 7;
    uint64_t next = 1;
    int seen;

    ck_assert_int_eq(trm_backlog_create(COUNT, &b), TRM_OK);
    for (int step = 0; step < 20000; step++) {
        trm_backlog_item *i = &items[rand_r(&seed) % COUNT], *best = NULL;

        if (i->state == TRM_BACKLOG_OUT) {
            memset(i, 0, sizeof(*i));
            i->id = next;
            next += rand_r(&seed) % 3 == 0 ? 8192u : 1u; /* some share a bucket */
            i->priority = rand_r(&seed) % 3;
            i->deadline_us = rand_r(&seed) % 1000;
            ck_assert_int_eq(trm_backlog_add(b, i, 0), TRM_OK);
        } else if (i->state == TRM_BACKLOG_RUNS && rand_r(&seed) % 2 == 0) {
            trm_backlog_requeue(b, i);
        } else {
            trm_backlog_remove(b, i);
        }
        for (int k = 0; k < COUNT; k++) {
            trm_backlog_item *o = &items[k];

            if (o->state != TRM_BACKLOG_WAITS)
                continue;
            if (best == NULL || (o->attempts > 0) > (best->attempts > 0) ||
                ((o->attempts > 0) == (best->attempts > 0) &&
                 (o->priority > best->priority ||
                  (o->priority == best->priority && o->order < best->order))))
                best = o;
        }
        ck_assert_ptr_eq(trm_backlog_head(b, 0), best);
        if (best != NULL && rand_r(&seed) % 3 == 0)
            trm_backlog_start(b, best);
    }
    seen = 0;
    for (trm_backlog_item *i = trm_backlog_next(b, NULL); i != NULL; i = trm_backlog_next(b, i))
        seen++;
    ck_assert_int_eq(seen, trm_backlog_waiting(b) + trm_backlog_running(b));
    trm_backlog_destroy(b);
    trm_free(items);
}
END_TEST

/* Parts of a first attempt and of a second, '|' between parts; what the client gets in all. */
static const struct replay_case {
    const char *name, *first, *second, *client;
    bool differs;
} replays[] = {
    {"nothing was given", "", "ab|cd", "abcd", false},
    {"the same parts", "ab|cd", "ab|cd|ef", "abcdef", false},
    {"other borders", "ab|cd", "a|bc|de|f", "abcdef", false},
    {"one large part", "ab|cd", "abcdef", "abcdef", false},
    {"all was given", "ab|cd", "ab|cd", "abcd", false},
    {"less comes", "ab|cd", "ab", "abcd", false},
    {"another byte", "ab|cd", "ab|cx|ef", "abcd", true},
    {"another byte in a large part", "ab", "xbcdef", "ab", true},
};

/* False: refused. */
static bool feed(trm_backlog_item *i, const char *parts, char *client, int *tokens)
{
    while (*parts != '\0') {
        size_t n = strcspn(parts, "|"), skip = 0, at = strlen(client);
        uint32_t new_tokens = 0;

        if (trm_backlog_part(i, parts, n, (uint32_t)n, &skip, &new_tokens) != TRM_OK)
            return false;
        ck_assert_uint_le(skip, n);
        memcpy(client + at, parts + skip, n - skip);
        client[at + n - skip] = '\0';
        *tokens += (int)new_tokens;
        parts += n + (parts[n] == '|');
    }
    return true;
}

START_TEST(replay)
{
    const struct replay_case *t = &replays[_i];
    trm_backlog_item i = {.id = 1};
    trm_backlog *b = NULL;
    char client[64] = "";
    int tokens = 0;

    ck_assert_int_eq(trm_backlog_create(10, &b), TRM_OK);
    ck_assert_int_eq(trm_backlog_add(b, &i, 0), TRM_OK);
    trm_backlog_start(b, &i);
    ck_assert(feed(&i, t->first, client, &tokens));
    trm_backlog_requeue(b, &i);
    trm_backlog_start(b, &i);
    ck_assert_int_eq(i.attempts, 2);
    ck_assert_msg(feed(&i, t->second, client, &tokens) != t->differs, "%s", t->name);
    ck_assert_msg(strcmp(client, t->client) == 0, "%s: %s", t->name, client);
    ck_assert_int_eq(tokens, (int)strlen(t->client)); /* each is counted once */
    trm_backlog_destroy(b);
}
END_TEST

START_TEST(no_memory)
{
    for (int fail = 0; fail < 5; fail++) {
        trm_backlog_item i = {.id = 1};
        trm_backlog *b = NULL;
        trm_status st;

        trm_alloc_fail_after(fail);
        st = trm_backlog_create(10, &b);
        if (st == TRM_OK)
            st = trm_backlog_add(b, &i, 0);
        trm_alloc_fail_after(-1);
        ck_assert_int_eq(st, fail < 4 ? TRM_ERR_NO_MEMORY : TRM_OK);
        ck_assert(b == NULL || trm_backlog_waiting(b) == (st == TRM_OK));
        trm_backlog_destroy(b);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("backlog");
    TCase *t = tcase_create("backlog");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, order, 0, (int)(sizeof(orders) / sizeof(orders[0])));
    tcase_add_test(t, bounds);
    tcase_add_test(t, deadlines);
    tcase_add_test(t, random_steps);
    tcase_add_loop_test(t, replay, 0, (int)(sizeof(replays) / sizeof(replays[0])));
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
