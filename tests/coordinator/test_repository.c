/* Control of models over a hub that is a fake. */
#define _GNU_SOURCE
#include "tests/coordinator/gateway_kit.h"

#include <check.h>

static trm_http_exchange *post(const char *target, const char *body)
{
    return kit_call(trmi_repository_routes(), "POST", target, NULL, body, strlen(body));
}

static void expect(trm_http_exchange *x, int status, const char *data)
{
    ck_assert_int_eq(x->answers, 1);
    ck_assert_msg(x->status == status && strcmp(x->data, data) == 0, "%d %s\nwanted %d %s",
                  x->status, x->data, status, data);
    kit_free(x);
}

START_TEST(list)
{
    trm_hub_model_info *m;

    kit_reset();
    expect(post("/v2/repository/index", ""), 200, "[]");
    kit_model("a", 1, TRM_MODEL_READY, "");
    kit_model("b", 1, TRM_MODEL_LOADING, "");
    m = kit_model("b", 2, TRM_MODEL_FAILED, "");
    snprintf(m->reason, sizeof(m->reason), "no such file");
    kit_model("c", 1, TRM_MODEL_UNLOADED, "");
    expect(
        post("/v2/repository/index", "{\"ready\":false}"), 200,
        "[{\"name\":\"a\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"},"
        "{\"name\":\"b\",\"version\":\"1\",\"state\":\"LOADING\",\"reason\":\"\"},"
        "{\"name\":\"b\",\"version\":\"2\",\"state\":\"UNAVAILABLE\",\"reason\":\"no such file\"},"
        "{\"name\":\"c\",\"version\":\"1\",\"state\":\"UNAVAILABLE\",\"reason\":\"\"}]");
    expect(post("/v2/repository/index", "{\"ready\":true}"), 200,
           "[{\"name\":\"a\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"}]");
    expect(post("/v2/repository/index", "{\"ready\":1}"), 400,
           "{\"error\":\"\\\"ready\\\" wants true or false\"}");
    expect(post("/v2/repository/index", "[]"), 400, "{\"error\":\"the body is no JSON object\"}");
    kit_gateway.options.admin = false; /* looking is allowed */
    expect(post("/v2/repository/index", "{\"ready\":true}"), 200,
           "[{\"name\":\"a\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"}]");
}
END_TEST

/* A config and what the hub is told of it. */
static const struct load_row {
    const char *body;
    bool has_settings;
    const char *settings;
    int64_t version;
} loads[] = {
    {"", false, "", 0},
    {"{}", false, "", 0},
    {"{\"parameters\":{}}", false, "", 0},
    {"{\"parameters\":{\"config\":\"{\\\"name\\\":\\\"m\\\",\\\"backend\\\":\\\"x\\\"}\"}}", false,
     "", 0},
    {"{\"parameters\":{\"config\":\"{\\\"max_batch_size\\\":4}\"}}", true, "{\"max_batch\":4}", 0},
    {"{\"parameters\":{\"config\":\"{\\\"version\\\":3,\\\"dtype\\\":\\\"bf16\\\"}\"}}", true,
     "{\"dtype\":\"bf16\"}", 3},
    {"{\"parameters\":{\"config\":\"{\\\"version_policy\\\":{\\\"specific\\\":{\\\"versions\\\":[2]"
     "}"
     "},\\\"dynamic_batching\\\":{\\\"max_queue_delay_microseconds\\\":2500,"
     "\\\"preferred_batch_size\\\":[2,4]}}\"}}",
     true, "{\"max_delay\":\"2500us\",\"max_delay_ms\":-1,\"preferred_batches\":[2,4]}", 2},
};

START_TEST(load)
{
    const struct load_row *row = &loads[_i];
    trm_http_exchange *x;

    kit_reset();
    x = post("/v2/repository/models/m/load", row->body);
    ck_assert_msg(kit_hub.load_pending && x->answers == 0, "%s", x->data);
    ck_assert_str_eq(kit_hub.load_name, "m");
    ck_assert_int_eq(kit_hub.load_has_settings, row->has_settings);
    ck_assert_str_eq(kit_hub.load_settings, row->settings);
    ck_assert_int_eq(kit_hub.load_version, row->version);
    kit_hub.load_done(kit_hub.load_ctx, TRM_OK, "");
    expect(x, 200, "");
}
END_TEST

static const struct bad_row {
    const char *body, *message;
} bad[] = {
    {"{", "the body is not JSON"},
    {"7", "the body is"},
    {"{\"parameters\":7}", "\\\"parameters\\\" wants an object"},
    {"{\"parameters\":{\"config\":{}}}", "\\\"config\\\" wants a string that holds JSON"},
    {"{\"parameters\":{\"config\":\"[]\"}}", "\\\"config\\\" holds no JSON object"},
    {"{\"parameters\":{\"config\":\"{\"}}", "\\\"config\\\" holds no JSON object"},
    {"{\"parameters\":{\"other\":1}}", "'other' is no parameter of load"},
    {"{\"parameters\":{\"file:1/model.onnx\":\"AA\"}}", "files of a model cannot be sent"},
    {"{\"parameters\":{\"config\":\"{\\\"path\\\":\\\"/etc\\\"}\"}}", "'path' cannot be set"},
    {"{\"parameters\":{\"config\":\"{\\\"labels\\\":\\\"/etc\\\"}\"}}", "'labels' cannot be set"},
    {"{\"parameters\":{\"config\":\"{\\\"settings\\\":{}}\"}}", "'settings' cannot be set"},
    {"{\"parameters\":{\"config\":\"{\\\"name\\\":\\\"n\\\"}\"}}", "config: 'name' wants 'm'"},
    {"{\"parameters\":{\"config\":\"{\\\"version\\\":0}\"}}", "config: 'version' wants"},
    {"{\"parameters\":{\"config\":\"{\\\"max_batch_size\\\":-1}\"}}",
     "config: 'max_batch_size' wants"},
    {"{\"parameters\":{\"config\":\"{\\\"dynamic_batching\\\":7}\"}}",
     "config: 'dynamic_batching' wants an object"},
    {"{\"parameters\":{\"config\":\"{\\\"dynamic_batching\\\":{\\\"max_queue_delay_"
     "microseconds\\\":"
     "\\\"x\\\"}}\"}}",
     "config: 'max_queue_delay_microseconds' wants"},
    {"{\"parameters\":{\"config\":\"{\\\"version_policy\\\":{\\\"latest\\\":{}}}\"}}",
     "config: 'version_policy' wants"},
};

START_TEST(refused)
{
    trm_http_exchange *x;

    kit_reset();
    x = post("/v2/repository/models/m/load", bad[_i].body);
    ck_assert(!kit_hub.load_pending);
    ck_assert_int_eq(x->answers, 1);
    ck_assert_msg(x->status == 400 && strstr(x->data, bad[_i].message) != NULL, "%d %s", x->status,
                  x->data);
    kit_free(x);
}
END_TEST

START_TEST(outcomes)
{
    static const struct {
        trm_status st;
        int status;
    } rows[] = {{TRM_ERR_BAD_FILE, 400},    {TRM_ERR_IO, 400},       {TRM_ERR_CONFIG, 400},
                {TRM_ERR_NOT_FOUND, 404},   {TRM_ERR_COMM, 503},     {TRM_ERR_INVALID_ARG, 400},
                {TRM_ERR_UNSUPPORTED, 400}, {TRM_ERR_NO_MEMORY, 503}};
    static const char *const verbs[] = {"/v2/repository/models/m/load",
                                        "/v2/repository/models/m/unload"};

    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
            trm_http_exchange *x;

            kit_reset();
            x = post(verbs[v], "");
            kit_hub.load_done(kit_hub.load_ctx, rows[i].st, "why");
            expect(x, rows[i].status, "{\"error\":\"why\"}");
            kit_hub.load = TRM_ERR_NOT_FOUND;
            expect(post(verbs[v], ""), 404, "{\"error\":\"said by the hub\"}");
        }
        kit_reset();
        kit_gateway.options.admin = false;
        expect(post(verbs[v], ""), 403,
               "{\"error\":\"load and unload are switched off (gateway: admin)\"}");
        ck_assert(!kit_hub.load_pending);
    }
}
END_TEST

START_TEST(unload)
{
    trm_http_exchange *x;

    kit_reset();
    x = post("/v2/repository/models/m/unload", "{\"parameters\":{\"unload_dependents\":false}}");
    ck_assert_int_eq(kit_hub.load_version, 0);
    kit_hub.load_done(kit_hub.load_ctx, TRM_OK, "");
    expect(x, 200, "");
    x = post("/v2/repository/models/m/unload", "{\"parameters\":{\"version\":2}}");
    ck_assert_int_eq(kit_hub.load_version, 2);
    kit_hub.load_done(kit_hub.load_ctx, TRM_OK, "");
    expect(x, 200, "");
    expect(post("/v2/repository/models/m/unload", "{\"parameters\":{\"version\":0}}"), 400,
           "{\"error\":\"\\\"version\\\" wants an integer from 1 up\"}");
    for (int i = 0; i < 3; i++) /* only those with a key that may */
        ck_assert_int_eq(trmi_repository_routes().routes[i].flags, i == 0 ? 0 : TRM_HTTP_ADMIN);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("repository");
    TCase *tc = tcase_create("repository");
    SRunner *runner;
    int failures;

    tcase_add_test(tc, list);
    tcase_add_loop_test(tc, load, 0, (int)(sizeof(loads) / sizeof(*loads)));
    tcase_add_loop_test(tc, refused, 0, (int)(sizeof(bad) / sizeof(*bad)));
    tcase_add_test(tc, outcomes);
    tcase_add_test(tc, unload);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? 0 : 1;
}
