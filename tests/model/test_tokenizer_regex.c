/* Oniguruma's dialect through PCRE2: pieces as the `tokenizers` library (0.23.3) splits them. */
#include "model/tokenizer/regex.h"

#include "base/memory.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* pattern, text, what Split with Isolated makes of it, with '/' between pieces */
static const struct {
    const char *pattern, *text, *pieces;
} rows[] = {
    {"\\p{N}{1,3}+", "1234567 12", "1234567/ /12"},
    {"a{2}?", "aaa", "aa/a"},
    {"a{,2}b", "aaab b", "a/aab/ /b"},
    {"a{x}", "a{x}aa", "a{x}/aa"},
    {"x(?i)a|b", "xAxBBb", "xA/xB/Bb"},
    {"(?m:a.b)", "a\nb", "a\nb"},
    {"a.b", "a\nb a-b", "a\nb /a-b"},
    {"^a$", "a\nb\na", "a/\nb\n/a"},
    {"[a-c&&[^b]]+", "abcab", "a/b/ca/b"},
    {"[^a-c&&b-d]+", "abcd e", "a/bc/d e"},
    {"[a[b-c]]+", "abcd", "abc/d"},
    {"[x\\s-]+", "a - x\302\205\341\240\216b", "a/ - x\302\205/\341\240\216b"},
    {"\\h+", "0aFg9", "0aF/g/9"},
    {"[^\\S\\r\\n]+", "a \n\t b", "a/ /\n/\t /b"},
    {"\\b\303\251\\w*\\b", "x\303\251 \303\251t\303\251 \303\251",
     "x\303\251 /\303\251t\303\251/ /\303\251"},
    {"\\p{^Lu}+", "ABcdE", "AB/cd/E"},
    {"\\P{L}+", "ab12c", "ab/12/c"},
    {"[\\p{Han}\\p{Hiragana}]+", "a\343\201\202\346\274\242b", "a/\343\201\202\346\274\242/b"},
    {"(?<=a)b+", "abbcbb", "a/bb/cbb"},
    {"(?>a+)b", "aab", "aab"},
    {"a++b|a", "aaab", "aaab"},
    {"[[:alpha:]_]+", "a_\303\2511", "a_\303\251/1"},
    {"[\\]\\[a]+", "a][b", "a][/b"},
    {"\\x41\\u0042\\x{43}", "ABC", "ABC"},
    {"a(?#no)b", "ab", "ab"},
    {"(?:a|b)**", "abx", "ab/x"},
    {"\\R", "a\r\nb\nc", "a/\r\n/b/\n/c"},
    {"[]a]+", "a]b", "a]/b"},
    {"\\s+$", "a  \nb ", "a/  /\nb/ "},
    {"'(?i:[sdmt]|ll)", "'S'LL'\305\277", "'S/'LL/'\305\277"},
};

START_TEST(splits_as_the_library)
{
    const char *pattern = rows[_i].pattern, *text = rows[_i].text;
    size_t count = strlen(text), at = 0, from = 0, n = 0, start = 0, end = 0;
    char got[256];
    trmi_regex *r;
    trmi_matcher *m;
    bool found = true;

    ck_assert_msg(trmi_regex_create(pattern, strlen(pattern), &r) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trmi_matcher_create(&m), TRM_OK);
    while (at < count) {
        found = from <= count;
        if (found)
            ck_assert_int_eq(trmi_regex_find(r, m, text, count, from, &found, &start, &end),
                             TRM_OK);
        if (found && start == end) { /* nothing is no piece */
            from = end + 1;
            continue;
        }
        if (!found)
            start = end = count;
        if (start > at)
            n += (size_t)snprintf(got + n, sizeof(got) - n, "%.*s/", (int)(start - at), text + at);
        if (end > start)
            n += (size_t)snprintf(got + n, sizeof(got) - n, "%.*s/", (int)(end - start),
                                  text + start);
        at = from = end;
    }
    got[n - 1] = '\0';
    ck_assert_msg(strcmp(got, rows[_i].pieces) == 0, "%s: %s, want %s", pattern, got,
                  rows[_i].pieces);
    trmi_matcher_destroy(m);
    trmi_regex_destroy(r);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

static const struct {
    const char *pattern;
    trm_status status;
    const char *message;
} bad_rows[] = {
    {"(a", TRM_ERR_UNSUPPORTED, "group without its end"},
    {"a)", TRM_ERR_UNSUPPORTED, "an end without its group"},
    {"[a", TRM_ERR_UNSUPPORTED, "class without its end"},
    {"[b-a]", TRM_ERR_UNSUPPORTED, "an empty range"},
    {"[a-\\d]", TRM_ERR_UNSUPPORTED, "ends in a set"},
    {"*a", TRM_ERR_UNSUPPORTED, "quantity of nothing"},
    {"a|+", TRM_ERR_UNSUPPORTED, "quantity of nothing"},
    {"a\\", TRM_ERR_UNSUPPORTED, "backslash at the end"},
    {"\\p{NoSuchThing}", TRM_ERR_UNSUPPORTED, "unknown property"},
    {"\\p{L", TRM_ERR_UNSUPPORTED, "property without a name"},
    {"\\pL", TRM_ERR_UNSUPPORTED, "property without braces"},
    {"\\x{110000}", TRM_ERR_UNSUPPORTED, "number of a character"},
    {"\\X", TRM_ERR_UNSUPPORTED, "escape that is not supported"},
    {"\\k<a>", TRM_ERR_UNSUPPORTED, "escape that is not supported"},
    {"(?~a)", TRM_ERR_UNSUPPORTED, "not supported"},
    {"(?<name>a)", TRM_ERR_UNSUPPORTED, "not supported"},
    {"(?x)a b", TRM_ERR_UNSUPPORTED, "not supported"},
    {"(?#a", TRM_ERR_UNSUPPORTED, "comment without its end"},
    {"(?<=a+)b", TRM_ERR_UNSUPPORTED, "lookbehind"},
    {"\xFF", TRM_ERR_BAD_FILE, "not UTF-8"},
};

START_TEST(refuses)
{
    const char *pattern = bad_rows[_i].pattern;
    trmi_regex *r;

    ck_assert_int_eq(trmi_regex_create(pattern, strlen(pattern), &r), bad_rows[_i].status);
    ck_assert_msg(strstr(trm_message(), bad_rows[_i].message) != NULL, "%s: %s", pattern,
                  trm_message());
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* Patterns that are large, or deep, are refused or work; none takes long. */
START_TEST(bounds_patterns)
{
    static const char *const parts[] = {"(",     "[",       "(?:", "(?i)",  "[^",    "a++",
                                        "(?=a)", "\\p{^L}", "[[",  "{1,2}", "(a*)*", "[a&&"};
    char *pattern = malloc(100000);
    const char *part = parts[_i];
    size_t n = 0;
    trmi_regex *r;

    ck_assert_ptr_nonnull(pattern);
    while (n + strlen(part) <= 60000) {
        memcpy(pattern + n, part, strlen(part));
        n += strlen(part);
    }
    if (trmi_regex_create(pattern, n, &r) == TRM_OK)
        trmi_regex_destroy(r);
    ck_assert_int_eq(trmi_regex_create(pattern, 65537, &r), TRM_ERR_UNSUPPORTED);
    free(pattern);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* What backtracks without end is an error, not a hang. */
START_TEST(bounds_matches)
{
    static const char *const patterns[] = {"(a+)+b", "(a|aa)+b", "(?:a*)*b", "((a+)*)*b"};
    char text[4096];
    trmi_regex *r;
    trmi_matcher *m;
    bool found;
    size_t start, end;

    memset(text, 'a', sizeof(text));
    ck_assert_int_eq(trmi_regex_create(patterns[_i], strlen(patterns[_i]), &r), TRM_OK);
    ck_assert_int_eq(trmi_matcher_create(&m), TRM_OK);
    if (trmi_regex_find(r, m, text, sizeof(text), 0, &found, &start, &end) == TRM_OK)
        ck_assert(!found); /* seen without trying: there is no b */
    text[sizeof(text) - 1] = 'b';
    (void)!trmi_regex_find(r, m, text, sizeof(text) - 1, 0, &found, &start, &end);
    trmi_matcher_destroy(m);
    trmi_regex_destroy(r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tokenizer_regex");
    TCase *c = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, splits_as_the_library, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_loop_test(c, refuses, 0, sizeof(bad_rows) / sizeof(bad_rows[0]));
    tcase_add_loop_test(c, bounds_patterns, 0, 12);
    tcase_add_loop_test(c, bounds_matches, 0, 4);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
