/* Chat templates against Jinja2 through transformers (tests/oracles/templates.py), byte for byte.
 */
#include "base/file.h"
#include "base/memory.h"
#include "model/template/template.h"

#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA TRM_SOURCE_DIR "/tests/data/templates/"

/* What the case's template is: text in the case, or a file beside it. */
static trm_status compile(const json_t *c, trm_template **t)
{
    const json_t *text = json_object_get(c, "text");
    const char *file = json_string_value(json_object_get(c, "file"));
    char path[512], *data;
    size_t bytes;
    trm_status st;
    FILE *f;

    if (text != NULL)
        return trm_template_compile("case", json_string_value(text), json_string_length(text), t);
    snprintf(path, sizeof(path), DATA "%s", file);
    f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    data = malloc(1 << 20);
    ck_assert(data != NULL);
    bytes = fread(data, 1, 1 << 20, f);
    fclose(f);
    st = trm_template_compile(file, data, bytes, t);
    free(data);
    return st;
}

static bool matches(const json_t *root, const json_t *c)
{
    const char *input = json_string_value(json_object_get(c, "input"));
    const char *name = json_string_value(json_object_get(c, "name"));
    const json_t *variables = json_object_get(json_object_get(root, "inputs"), input);
    const json_t *want = json_object_get(c, "want");
    trm_template *t = NULL;
    char *text = NULL;
    size_t bytes = 0, i = 0;
    bool ok;
    trm_status st = compile(c, &t);

    if (st == TRM_OK)
        st = trm_template_render(t, variables, json_integer_value(json_object_get(root, "now")),
                                 &text, &bytes);
    if (want == NULL) { /* raised there */
        ok = st == TRM_ERR_INVALID_ARG || st == TRM_ERR_BAD_FILE || st == TRM_ERR_UNSUPPORTED;
        if (!ok)
            fprintf(stderr, "%s: should fail, is %s: %s\n", name, trm_status_name(st),
                    text != NULL ? text : "");
    } else {
        const char *w = json_string_value(want);
        size_t n = json_string_length(want);

        ok = st == TRM_OK && bytes == n && memcmp(w, text, n) == 0;
        while (st == TRM_OK && i < n && i < bytes && w[i] == text[i])
            i++;
        if (!ok)
            fprintf(stderr, "%s: %s\n  at byte %zu: '%.60s', wanted '%.60s'\n", name,
                    st == TRM_OK ? "differs" : trm_message(), i, st == TRM_OK ? text + i : "",
                    w + i);
    }
    trm_free(text);
    trm_template_destroy(t);
    return ok;
}

START_TEST(as_transformers_renders)
{
    json_error_t e;
    json_t *root = json_load_file(DATA "cases.json", JSON_ALLOW_NUL, &e);
    const json_t *cases = json_object_get(root, "cases");
    size_t bad = 0;

    ck_assert_msg(root != NULL, "%s", e.text);
    ck_assert_uint_gt(json_array_size(cases), 500);
    for (size_t i = 0; i < json_array_size(cases); i++)
        bad += !matches(root, json_array_get(cases, i));
    ck_assert_msg(bad == 0, "%zu of %zu cases differ", bad, json_array_size(cases));
    json_decref(root);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model/template");
    TCase *c = tcase_create("renderings");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_test(c, as_transformers_renders);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
