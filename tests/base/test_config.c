/* Configuration: a cluster-like table, and one bad file per rejection with its message. */
#include "base/config.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct model_cfg {
    const char *name, *path;
    int64_t max_batch, max_delay_us, kv_cache_bytes;
    trm_config_list mean;
    int dtype;
} model_cfg;
typedef struct limits_cfg {
    int64_t body_bytes;
    bool strict;
    double ratio;
} limits_cfg;
typedef struct root_cfg {
    trm_config_list models;
    const limits_cfg *limits, *extra;
    int64_t threads;
    const trm_config_node *groups;
    trm_config_list tags;
} root_cfg;

#define AT(type, field) .offset = offsetof(type, field)
static const trm_config_row model_rows[] = {
    {"name", TRM_CONFIG_STRING, AT(model_cfg, name), .flags = TRM_CONFIG_REQUIRED,
     .help = "how requests call it"},
    {"path", TRM_CONFIG_STRING, AT(model_cfg, path), .otherwise = "model.onnx"},
    {"max_batch", TRM_CONFIG_INT, AT(model_cfg, max_batch), .otherwise = "32", .min = 1,
     .max = 4096},
    {"max_delay", TRM_CONFIG_DURATION, AT(model_cfg, max_delay_us), .otherwise = "5ms"},
    {"kv_cache", TRM_CONFIG_BYTES, AT(model_cfg, kv_cache_bytes), .otherwise = "auto",
     .choices = "auto"},
    {"mean", TRM_CONFIG_LIST, AT(model_cfg, mean), .item = TRM_CONFIG_FLOAT, .min = 1, .max = 4,
     .item_min = -10, .item_max = 10, .flags = TRM_CONFIG_ONE_OK},
    {"dtype", TRM_CONFIG_CHOICE, AT(model_cfg, dtype), .otherwise = "fp32",
     .choices = "fp32|bf16|int8"},
};
static const trm_config_section model_section = {"a model", sizeof(model_cfg), model_rows, 7};
static const trm_config_row limits_rows[] = {
    {"body", TRM_CONFIG_BYTES, AT(limits_cfg, body_bytes), .otherwise = "32MiB"},
    {"strict", TRM_CONFIG_BOOL, AT(limits_cfg, strict), .otherwise = "true"},
    {"ratio", TRM_CONFIG_FLOAT, AT(limits_cfg, ratio), .otherwise = "0.5", .min = 0, .max = 1},
};
static const trm_config_section limits_section = {"limits", sizeof(limits_cfg), limits_rows, 3};
static const trm_config_row root_rows[] = {
    {"models", TRM_CONFIG_LIST, AT(root_cfg, models), .item = TRM_CONFIG_MAP,
     .section = &model_section},
    {"limits", TRM_CONFIG_MAP, AT(root_cfg, limits), .section = &limits_section},
    {"extra", TRM_CONFIG_MAP, AT(root_cfg, extra), .section = &limits_section,
     .flags = TRM_CONFIG_OPTIONAL},
    {"threads", TRM_CONFIG_INT, AT(root_cfg, threads), .otherwise = "auto", .choices = "auto",
     .min = 1, .max = 1024},
    {"groups", TRM_CONFIG_NODE, AT(root_cfg, groups)},
    {"tags", TRM_CONFIG_LIST, AT(root_cfg, tags), .item = TRM_CONFIG_STRING},
};
static const trm_config_section root_section = {"the file", sizeof(root_cfg), root_rows, 6};

static trm_status parse(const char *text, trm_config **config)
{
    return trm_config_parse(text, strlen(text), "c.yaml", &root_section, config);
}

START_TEST(reads_everything)
{
    static const char text[] =
        "models:\n"
        "  - { name: a, max_batch: 8, max_delay: 1.5s, mean: [0.5, -1e-1] }\n"
        "  - name: \"b c\"\n"
        "    kv_cache: \"256MiB\"\n"
        "    mean: 0.25\n"
        "    dtype: bf16\n"
        "threads: 3\n"
        "extra: { strict: false }\n"
        "groups: { fast: [1, 2] }\n"
        "tags: [x, 7, 'y z']\n";
    trm_config *c;
    const root_cfg *r;
    const model_cfg *m;

    ck_assert_msg(parse(text, &c) == TRM_OK, "%s", trm_message());
    r = trm_config_get(c);
    ck_assert_int_eq(r->models.count, 2);
    m = r->models.items;
    ck_assert_str_eq(m[0].name, "a");
    ck_assert_str_eq(m[0].path, "model.onnx");
    ck_assert_int_eq(m[0].max_batch, 8);
    ck_assert_int_eq(m[0].max_delay_us, 1500000);
    ck_assert_int_eq(m[0].kv_cache_bytes, -1);
    ck_assert_int_eq(m[0].mean.count, 2);
    ck_assert(((const double *)m[0].mean.items)[1] == -0.1);
    ck_assert_str_eq(m[1].name, "b c");
    ck_assert_int_eq(m[1].kv_cache_bytes, 256 << 20);
    ck_assert_int_eq(m[1].max_delay_us, 5000);
    ck_assert_int_eq(m[1].mean.count, 1);
    ck_assert_int_eq(m[1].dtype, 1);
    ck_assert_int_eq(r->threads, 3);
    ck_assert_int_eq(r->limits->body_bytes, 32 << 20);
    ck_assert(r->limits->strict && r->limits->ratio == 0.5);
    ck_assert(!r->extra->strict);
    ck_assert_int_eq(r->tags.count, 3);
    ck_assert_str_eq(((const char *const *)r->tags.items)[1], "7");
    ck_assert_int_eq(r->groups->kind, TRM_CONFIG_KIND_MAP);
    ck_assert_str_eq(trm_config_find(c, "groups.fast.1")->text, "2");
    ck_assert_ptr_null(trm_config_find(c, "groups.slow"));
    ck_assert_int_eq(trm_config_fail(c, "models.1.mean", "too grey"), TRM_ERR_CONFIG);
    ck_assert_str_eq(trm_message(), "c.yaml:5:11: too grey");
    trm_config_destroy(c);
}
END_TEST

START_TEST(empty_is_defaults)
{
    static const char *const texts[] = {"", "# nothing\n", "---\n", "{}", "limits:\n"};
    trm_config *c;
    const root_cfg *r;

    ck_assert_msg(parse(texts[_i], &c) == TRM_OK, "%s", trm_message());
    r = trm_config_get(c);
    ck_assert(r->models.count == 0 && r->limits->strict && r->extra == NULL && r->threads == -1);
    trm_config_destroy(c);
}
END_TEST

START_TEST(aliases_refer)
{
    trm_config *c;
    const root_cfg *r;

    ck_assert_msg(parse("models: [&m { name: a, max_batch: 9 }, *m]\n", &c) == TRM_OK, "%s",
                  trm_message());
    r = trm_config_get(c);
    ck_assert_int_eq(((const model_cfg *)r->models.items)[1].max_batch, 9);
    trm_config_destroy(c);
}
END_TEST

static const struct {
    const char *text, *message;
} bad_rows[] = {
    {"limits: { bdy: 1 }", "c.yaml:1:11: key 'bdy' unknown in limits; did you mean 'body'? known: "
                           "body, strict, ratio"},
    {"threds: 1", "did you mean 'threads'?"},
    {"zzz: 1", "key 'zzz' unknown in the file; known: models, limits, extra, threads"},
    {"threads: 1\ntags: []\nthreads: 2",
     "c.yaml:3:1: key 'threads' is given twice, first in line 1"},
    {"threads: two", "c.yaml:1:10: key 'threads' is 'two'; right is a whole number, or auto"},
    {"threads: '2'", "right is a whole number"},
    {"threads: 2.5", "right is a whole number"},
    {"threads: 0", "key 'threads' is 0; right is 1 to 1024"},
    {"threads: 99999999999999999999", "right is a whole number"},
    {"threads:", "key 'threads' has no value"},
    {"threads: [1]", "key 'threads' is a list; right is a whole number"},
    {"models: 3", "key 'models' is 3; right is a list"},
    {"models: [3]", "key 'models' is 3; right is a map"},
    {"models: [{}]", "c.yaml:1:10: a model lacks key 'name': how requests call it"},
    {"models: [{name: a, mean: [1,2,3,4,5]}]", "has 5 items; right is 1 to 4"},
    {"models: [{name: a, mean: [nan]}]", "right is a number"},
    {"models: [{name: a, mean: [11]}]", "right is -10 to 10"},
    {"models: [{name: a, dtype: fp33}]", "right is one of fp32|bf16|int8"},
    {"models: [{name: a, max_delay: 5}]", "right is a duration such as"},
    {"models: [{name: a, max_delay: 5 parsecs}]", "right is a duration such as"},
    {"models: [{name: a, kv_cache: 12XB}]", "right is a size such as"},
    {"models: [{name: a, kv_cache: -1}]", "right is a size such as"},
    {"limits: { strict: yes }", "right is true or false"},
    {"limits: { ratio: 1e400 }", "right is a number"},
    {"limits: { ratio: 1.5 }", "right is 0 to 1"},
    {"limits: 5", "key 'limits' is 5; right is a map"},
    {"[1, 2]", "the file is a list; right is a map"},
    {"threads: !!int 3", "tags"},
    {"threads: 1\n---\nthreads: 2", "second document"},
    {"a: &a [*a]", "refers to no complete"},
    {"? [1]\n: 2", "a key must be a plain word"},
    {"threads: 1\n  tags: [", "c.yaml:2:"},
    {"\t\x01", "c.yaml:1:"},
    {"tags: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nested too deeply"},
};

START_TEST(refuses)
{
    trm_config *c;

    ck_assert_int_eq(parse(bad_rows[_i].text, &c), TRM_ERR_CONFIG);
    ck_assert_msg(strstr(trm_message(), bad_rows[_i].message) != NULL, "'%s' lacks '%s'",
                  trm_message(), bad_rows[_i].message);
    ck_assert_ptr_nonnull(strstr(trm_message(), "c.yaml:"));
}
END_TEST

START_TEST(missing_file)
{
    trm_config *c;

    ck_assert_int_eq(trm_config_load("/nowhere/c.yaml", &root_section, &c), TRM_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(trm_message(), "/nowhere/c.yaml"));
}
END_TEST

/* Each level refers ten times to the one before: 10^9 values of a file of 300 bytes. */
START_TEST(billion_laughs)
{
    char text[4096];
    size_t n = (size_t)snprintf(text, sizeof(text), "groups:\n  - &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    trm_config *c;

    for (int i = 1; i < 9; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "  - &a%d [", i);
        for (int j = 0; j < 10; j++)
            n += (size_t)snprintf(text + n, sizeof(text) - n, "%s*a%d", j > 0 ? "," : "", i - 1);
        n += (size_t)snprintf(text + n, sizeof(text) - n, "]\n");
    }
    ck_assert_msg(parse(text, &c) == TRM_OK, "%s", trm_message());
    trm_config_destroy(c);
}
END_TEST

/* Fails the Nth allocation until none fails: a status each time, and nothing left over. */
START_TEST(no_memory)
{
    trm_config *c = NULL;
    int64_t live = trm_alloc_live();

    for (int64_t n = 0;; n++) {
        trm_status st;

        trm_alloc_fail_after(n);
        st = parse("models: [&m { name: a, max_batch: 9 }, *m]\n", &c);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            break;
        ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    trm_config_destroy(c);
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

START_TEST(units)
{
    int64_t v;

    ck_assert_int_eq(trm_config_bytes("1.5GiB", "--memory", &v), TRM_OK);
    ck_assert_int_eq(v, 1610612736);
    ck_assert_int_eq(trm_config_bytes("80 GB", "--memory", &v), TRM_OK);
    ck_assert_int_eq(v, 80000000000);
    ck_assert_int_eq(trm_config_duration_us("250us", "--wait", &v), TRM_OK);
    ck_assert_int_eq(v, 250);
    ck_assert_int_eq(trm_config_duration_us("0", "--wait", &v), TRM_OK);
    ck_assert_int_eq(trm_config_bytes("0x10", "--memory", &v), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_config_bytes("", "--memory", &v), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_config_bytes("99999999TiB", "--memory", &v), TRM_ERR_INVALID_ARG);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("config");
    TCase *t = tcase_create("config");
    SRunner *r;
    int failed;

    tcase_add_test(t, reads_everything);
    tcase_add_loop_test(t, empty_is_defaults, 0, 5);
    tcase_add_test(t, aliases_refer);
    tcase_add_loop_test(t, refuses, 0, sizeof(bad_rows) / sizeof(bad_rows[0]));
    tcase_add_test(t, missing_file);
    tcase_add_test(t, billion_laughs);
    tcase_add_test(t, no_memory);
    tcase_add_test(t, units);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
