/* What chat templates are refused for: syntax, things undefined, limits; memory that runs out. */
#include "base/memory.h"
#include "model/template/template.h"

#include <check.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static trm_status render(const char *text, size_t bytes, char **out)
{
    json_t *variables = json_pack("{s:[i,i],s:{s:i},s:s}", "l", 1, 2, "d", "a", 1, "s", "text");
    trm_template *t = NULL;
    size_t n = 0;
    trm_status st = trm_template_compile("chat template of tiny", text, bytes, &t);

    *out = NULL;
    if (st == TRM_OK)
        st = trm_template_render(t, variables, 0, out, &n);
    trm_template_destroy(t);
    json_decref(variables);
    return st;
}

static const struct {
    const char *name, *text;
    trm_status status;
    const char *message; /* a part */
} refused[] = {
    {"line", "a\nb\n{{ 1 +\n}}\n", TRM_ERR_BAD_FILE, "chat template of tiny: line 4: "},
    {"unclosed block", "a\n{% if s %}\nb", TRM_ERR_BAD_FILE, "line 2: a block"},
    {"unclosed tag", "\n{{ s", TRM_ERR_BAD_FILE, "line 2: {{ without }}"},
    {"unclosed comment", "{# s", TRM_ERR_BAD_FILE, "{# without #}"},
    {"unclosed raw", "{% raw %}", TRM_ERR_BAD_FILE, "without {% endraw %}"},
    {"unclosed string", "{{ 's }}", TRM_ERR_BAD_FILE, "a string does not end"},
    {"bad bracket", "{{ (1] }}", TRM_ERR_BAD_FILE, "a bracket closes"},
    {"stray end", "{% endif %}", TRM_ERR_BAD_FILE, "no statement 'endif' is open here"},
    {"not UTF-8", "a\xff", TRM_ERR_BAD_FILE, "byte 1 is not UTF-8"},
    {"surrogate", "{{ '\\ud83d' }}", TRM_ERR_BAD_FILE, "an escape that is none"},
    {"big number", "{{ 12345678901234567890 }}", TRM_ERR_BAD_FILE, "beyond 64 bits"},
    {"repeated keyword", "{{ dict(a=1, a=2) }}", TRM_ERR_BAD_FILE, "'a' is repeated"},
    {"include", "{% include 'x' %}", TRM_ERR_UNSUPPORTED, "statement 'include'"},
    {"no filter", "\n{{ s|nope }}", TRM_ERR_UNSUPPORTED, "line 2: no filter 'nope'"},
    {"Jinja's filter", "{{ s|xmlattr }}", TRM_ERR_UNSUPPORTED, "Jinja has it, Trireme does not"},
    {"no test", "{{ s is nope }}", TRM_ERR_UNSUPPORTED, "no test 'nope'"},
    {"no method", "{{ s.encode() }}", TRM_ERR_UNSUPPORTED, "method 'encode' of str"},
    {"raised", "a\n{% for x in l %}\n{{ raise_exception('no ' ~ x) }}{% endfor %}",
     TRM_ERR_INVALID_ARG, "chat template of tiny: line 3: no 1"},
    {"in a macro", "{% macro m(x) %}\n{{ x.y.z }}\n{% endmacro %}\n\n{{ m(1) }}",
     TRM_ERR_INVALID_ARG, "line 2: 'int object' has no attribute 'y'"},
    {"undefined", "{{ nope.x }}", TRM_ERR_INVALID_ARG, "'nope' is undefined"},
    {"mutation", "{{ l.append(3) }}", TRM_ERR_INVALID_ARG, "is unsafe"},
    {"internals", "{{ s.__class__.x }}", TRM_ERR_INVALID_ARG, "is unsafe"},
    {"overflow", "{{ 2 ** 63 }}", TRM_ERR_UNSUPPORTED, "beyond 64 bits"},
    {"large range", "{{ range(100001) }}", TRM_ERR_INVALID_ARG, "range too big"},
    {"recursion", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", TRM_ERR_UNSUPPORTED,
     "nest more than 1000 levels"},
    {"recursive loop", "{% for x in l recursive %}{{ loop(l) }}{% endfor %}", TRM_ERR_UNSUPPORTED,
     "nest more than 1000 levels"},
    {"deep value",
     "{% set ns = namespace(l=[]) %}{% for i in range(2000) %}{% set ns.l = [ns.l] %}{% endfor %}"
     "{{ ns.l }}",
     TRM_ERR_UNSUPPORTED, "nest more than 1000 levels"},
    {"deep JSON",
     "{% set ns = namespace(l=[]) %}{% for i in range(2000) %}{% set ns.l = [ns.l] %}{% endfor %}"
     "{{ ns.l|tojson }}",
     TRM_ERR_UNSUPPORTED, "nest more than 1000 levels"},
    {"circle", "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}", TRM_ERR_UNSUPPORTED,
     "nest more than 1000 levels"},
    {"long repetition", "{{ 'x' * 1000000000000 }}", TRM_ERR_UNSUPPORTED, "a repetition is over"},
    {"doubling",
     "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}"
     "{% endfor %}",
     TRM_ERR_UNSUPPORTED, "bytes of values and text"},
    {"endless",
     "{% for a in range(100000) if a < 0 %}{% endfor %}"
     "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
     TRM_ERR_UNSUPPORTED, "more than"},
    {"wide number", "{{ '%1000000d' % 5 }}", TRM_ERR_UNSUPPORTED, "a width or precision"},
    {"wide field", "{{ '{:99999}'.format(5) }}", TRM_ERR_UNSUPPORTED, "a width or precision"},
};
#define REFUSED (sizeof(refused) / sizeof(refused[0]))

START_TEST(is_refused)
{
    int64_t live = trm_alloc_live();
    char *out;
    trm_status st = render(refused[_i].text, strlen(refused[_i].text), &out);

    ck_assert_msg(st == refused[_i].status, "%s: %s: %s", refused[_i].name, trm_status_name(st),
                  st == TRM_OK ? out : trm_message());
    ck_assert_msg(strstr(trm_message(), refused[_i].message) != NULL, "%s: %s", refused[_i].name,
                  trm_message());
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

/* One piece many times, and the same once more behind it. */
static const struct {
    const char *name, *before, *piece, *after;
} deep[] = {
    {"parentheses", "{{ ", "(", " }}"},
    {"lists", "{{ ", "[", " }}"},
    {"not", "{{ ", "not ", "1 }}"},
    {"signs", "{{ ", "-", "1 }}"},
    {"sums", "{{ 1", "+1", " }}"},
    {"powers", "{{ 1", "**1", " }}"},
    {"attributes", "{{ s", ".a", " }}"},
    {"subscripts", "{{ s", "[0]", " }}"},
    {"filters", "{{ s", "|list", " }}"},
    {"calls", "{{ s", "()", " }}"},
    {"ternaries", "{{ s", " if s else s", " }}"},
    {"ands", "{{ s", " and s", " }}"},
    {"blocks", "", "{% if s %}", ""},
    {"loops", "", "{% for x in l %}", ""},
    {"targets", "{% set ", "(", "a = 1 %}"},
    {"filter block", "{% filter list", "|list", " %}x{% endfilter %}"},
};

static trm_status render_deep(int which)
{
    size_t times = 100000, before = strlen(deep[which].before), piece = strlen(deep[which].piece),
           after = strlen(deep[which].after), bytes = before + times * piece + after;
    char *text = malloc(bytes + 1), *out;
    trm_status st;

    ck_assert(text != NULL);
    memcpy(text, deep[which].before, before);
    for (size_t i = 0; i < times; i++)
        memcpy(text + before + i * piece, deep[which].piece, piece);
    memcpy(text + before + times * piece, deep[which].after, after + 1);
    st = render(text, bytes, &out);
    trm_free(out);
    free(text);
    return st;
}

static void *all_deep(void *arg)
{
    size_t *refused_count = arg;
    char *out;

    for (size_t i = 0; i < sizeof(deep) / sizeof(deep[0]); i++) {
        trm_status st = render_deep((int)i);

        if (st != TRM_ERR_UNSUPPORTED && st != TRM_ERR_BAD_FILE)
            fprintf(stderr, "%s: %s\n", deep[i].name, trm_status_name(st));
        else
            ++*refused_count;
    }
    for (size_t i = 0; i < REFUSED; i++)
        (void)render(refused[i].text, strlen(refused[i].text), &out);
    return NULL;
}

START_TEST(no_template_exhausts_a_small_stack)
{
#ifdef __SANITIZE_ADDRESS__
    size_t stack = (size_t)16 << 20; /* larger frames */
#else
    size_t stack = (size_t)1 << 20;
#endif
    size_t count = 0;
    pthread_attr_t attr;
    pthread_t thread;

    ck_assert_int_eq(pthread_attr_init(&attr), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attr, stack), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, all_deep, &count), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    ck_assert_uint_eq(count, sizeof(deep) / sizeof(deep[0]));
}
END_TEST

START_TEST(long_texts_are_fine)
{
    static const char text[] =
        "{% set ns = namespace(s='') %}{% for i in range(90000) %}{% set ns.s = ns.s + "
        "'0123456789' %}{% endfor %}{{ ns.s|length }}";
    char *out;

    ck_assert_msg(render(text, sizeof(text) - 1, &out) == TRM_OK, "%s", trm_message());
    ck_assert_str_eq(out, "900000"); /* appended in place, not copied each time */
    trm_free(out);
}
END_TEST

START_TEST(memory_may_run_out)
{
    static const char text[] =
        "{% macro m(x) %}{{ x|upper }}{% endmacro %}{% for i in l %}"
        "{{ m('a' ~ i)|tojson }}{{ '%s' % i }}{% endfor %}{{ d|items|list }}";
    int64_t live = trm_alloc_live();
    trm_status st = TRM_ERR_NO_MEMORY;
    char *out = NULL;
    int calls;

    for (calls = 0; st == TRM_ERR_NO_MEMORY && calls < 1000; calls++) {
        trm_alloc_fail_after(calls);
        st = render(text, sizeof(text) - 1, &out);
        trm_alloc_fail_after(-1);
        ck_assert_msg(st == TRM_OK || st == TRM_ERR_NO_MEMORY, "call %d: %s", calls, trm_message());
    }
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
    ck_assert_int_gt(calls, 5);
    ck_assert_str_eq(out, "\"A1\"1\"A2\"2[('a', 1)]");
    trm_free(out);
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model/template limits");
    TCase *c = tcase_create("refusals");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, is_refused, 0, (int)REFUSED);
    tcase_add_test(c, no_template_exhausts_a_small_stack);
    tcase_add_test(c, long_texts_are_fine);
    tcase_add_test(c, memory_may_run_out);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
