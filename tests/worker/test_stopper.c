/* Stop strings: the same end however the text is cut; nothing of a stop string is let out early. */
#include "base/memory.h"
#include "worker/language/sampler.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    const char *stops[4];
    const char *text;
    const char *out, *with; /* with: the stop string included */
    int which;              /* -1: no stop */
} cases[] = {
    {"none there", {"###"}, "plain text", "plain text", "plain text", -1},
    {"no stops", {NULL}, "plain # text", "plain # text", "plain # text", -1},
    {"at the end", {"###"}, "text###", "text", "text###", 0},
    {"in between", {"###"}, "text###more###", "text", "text###", 0},
    {"at once", {"a"}, "abc", "", "a", 0},
    {"beginning only", {"###"}, "text##", "text##", "text##", -1},
    {"false start", {"ab#ab!"}, "xab#ab#ab!y", "xab#", "xab#ab#ab!", 0},
    {"overlap", {"aab"}, "aaab", "a", "aaab", 0},
    {"second", {"xyz", "stop"}, "a stop b", "a ", "a stop", 1},
    {"first to end wins", {"bcdef", "cd"}, "abcdef", "ab", "abcd", 1},
    {"same end, longer", {"cd", "bcd"}, "abcd", "a", "abcd", 1},
    {"one in another", {"abcd", "bc"}, "xabcd", "xa", "xabc", 1},
    {"newlines", {"\n\n"}, "a\nb\n\nc", "a\nb", "a\nb\n\n", 0},
    {"unicode",
     {"\xe7\x95\x8c!"},
     "\xe4\xb8\x96\xe7\x95\x8c?\xe7\x95\x8c!x",
     "\xe4\xb8\x96\xe7\x95\x8c?",
     "\xe4\xb8\x96\xe7\x95\x8c?\xe7\x95\x8c!",
     0},
    {"long",
     {"0123456789"},
     "012345678012345678901234567890",
     "012345678",
     "0123456780123456789",
     0},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static size_t count_stops(int which)
{
    size_t n = 0;

    while (n < 4 && cases[which].stops[n] != NULL)
        n++;
    return n;
}

/* Whole code points only, if the text as a whole is. */
static bool is_whole(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes;) {
        unsigned char c = (unsigned char)text[i];
        size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

        if ((c & 0xc0) == 0x80 || n > bytes - i)
            return false;
        i += n;
    }
    return true;
}

static void run(int which, size_t piece, bool include)
{
    const char *text = cases[which].text, *want = include ? cases[which].with : cases[which].out;
    size_t bytes = strlen(text), used = 0, n = 0;
    const char *part = NULL;
    char out[128];
    bool stopped = false;
    int met = -1, now = -1;
    trm_stopper *s;

    ck_assert(trm_stopper_create(cases[which].stops, count_stops(which), &s) == TRM_OK);
    for (size_t at = 0; at < bytes && !stopped; at += piece) {
        size_t some = bytes - at < piece ? bytes - at : piece;

        ck_assert(trm_stopper_push(s, text + at, some, include, &part, &n, &stopped, &now) ==
                  TRM_OK);
        ck_assert(is_whole(part, n));
        memcpy(out + used, part, n);
        used += n;
        met = stopped ? now : met;
        ck_assert_msg(used <= strlen(want) && memcmp(out, want, used) == 0,
                      "%s by %zu: '%.*s' came out", cases[which].name, piece, (int)used, out);
    }
    if (!stopped) {
        trm_stopper_finish(s, &part, &n);
        memcpy(out + used, part, n);
        used += n;
    } else { /* nothing more, whatever comes */
        ck_assert(trm_stopper_push(s, "abc", 3, include, &part, &n, &stopped, &now) == TRM_OK);
        ck_assert(n == 0 && stopped);
    }
    ck_assert_msg(used == strlen(want) && memcmp(out, want, used) == 0 && met == cases[which].which,
                  "%s by %zu: '%.*s', stop %d", cases[which].name, piece, (int)used, out, met);
    trm_stopper_destroy(s);
}

START_TEST(ends_where_it_should)
{
    for (size_t piece = 1; piece < 12; piece++) {
        run(_i, piece, false);
        run(_i, piece, true);
    }
}
END_TEST

START_TEST(lets_out_what_it_can)
{
    const char *stops[] = {"</end>"}, *part;
    bool stopped;
    trm_stopper *s;
    size_t n;
    int which;

    ck_assert(trm_stopper_create(stops, 1, &s) == TRM_OK);
    ck_assert(trm_stopper_push(s, "text </e", 8, false, &part, &n, &stopped, &which) == TRM_OK);
    ck_assert(n == 5 && memcmp(part, "text ", 5) == 0);
    ck_assert(trm_stopper_push(s, "ls", 2, false, &part, &n, &stopped, &which) == TRM_OK);
    ck_assert(n == 5 && memcmp(part, "</els", 5) == 0);
    ck_assert(trm_stopper_push(s, "e \xc3", 3, false, &part, &n, &stopped, &which) == TRM_OK);
    ck_assert(n == 2 && memcmp(part, "e ", 2) == 0); /* half a letter waits */
    ck_assert(trm_stopper_push(s, "\xa9", 1, false, &part, &n, &stopped, &which) == TRM_OK);
    ck_assert(n == 2 && memcmp(part, "\xc3\xa9", 2) == 0);
    ck_assert(!stopped && which == -1);
    trm_stopper_finish(s, &part, &n);
    ck_assert_uint_eq(n, 0);
    trm_stopper_destroy(s);
}
END_TEST

START_TEST(refuses_empty_stops)
{
    const char *stops[] = {"a", ""};
    trm_stopper *s;

    ck_assert(trm_stopper_create(stops, 2, &s) == TRM_ERR_INVALID_ARG);
    ck_assert(trm_stopper_create(stops, 65, &s) == TRM_ERR_INVALID_ARG);
}
END_TEST

START_TEST(memory_may_run_out)
{
    const char *stops[] = {"ab", "cd"}, *part;
    int64_t live = trm_alloc_live();
    trm_status st = TRM_ERR_NO_MEMORY;
    trm_stopper *s;
    bool stopped;
    size_t n;
    int which;

    for (int calls = 0; st == TRM_ERR_NO_MEMORY && calls < 100; calls++) {
        s = NULL;
        trm_alloc_fail_after(calls);
        st = trm_stopper_create(stops, 2, &s);
        if (st == TRM_OK)
            st = trm_stopper_push(s, "xa", 2, false, &part, &n, &stopped, &which);
        trm_alloc_fail_after(-1);
        trm_stopper_destroy(s);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    ck_assert(st == TRM_OK);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("worker/stopper");
    TCase *c = tcase_create("stops");
    SRunner *r;
    int failed;

    tcase_add_loop_test(c, ends_where_it_should, 0, (int)CASES);
    tcase_add_test(c, lets_out_what_it_can);
    tcase_add_test(c, refuses_empty_stops);
    tcase_add_test(c, memory_may_run_out);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
