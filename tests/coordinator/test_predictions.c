/* Predictions over a hub that is a fake. */
#define _GNU_SOURCE
#include "tests/coordinator/gateway_kit.h"

#include <check.h>

static trm_http_exchange *post(const char *target, const char *type, const char *body)
{
    char header[200];
    const char *const headers[] = {header, NULL};

    snprintf(header, sizeof(header), "Content-Type: %s", type == NULL ? "" : type);
    return kit_call(trmi_predictions_routes(), "POST", target, type == NULL ? NULL : headers, body,
                    strlen(body));
}

static void expect(trm_http_exchange *x, int status, const char *data)
{
    ck_assert_int_eq(x->answers, 1);
    ck_assert_msg(x->status == status && strcmp(x->data, data) == 0, "%d %s\nwanted %d %s",
                  x->status, x->data, status, data);
    kit_free(x);
}

static const trm_wire_label labels[] = {
    {281, 0.5f, "tabby \"cat\""}, {134, 0.25f, "crane"}, {517, 0.125f, "crane"}, {7, 1e-9f, ""}};
static const trm_wire_answer answer = {
    .message = "", .model = "m", .version = 1, .labels = labels, .label_count = 4, .label_rows = 1};

static const struct image_row {
    const char *type, *body, *sent;
} images[] = {
    {NULL, "JPEG", "JPEG"},
    {"image/png", "PNG", "PNG"},
    {"IMAGE/JPEG", "JPEG", "JPEG"},
    {"application/octet-stream", "x", "x"},
    {"application/x-www-form-urlencoded", "x", "x"},
    {"multipart/form-data; boundary=b", "--b\r\nx; name=\"data\"\r\n\r\nPNG", "PNG"},
};

START_TEST(image)
{
    const struct image_row *row = &images[_i];
    trm_http_exchange *x;

    kit_reset();
    x = post("/predictions/m/3", row->type, row->body);
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_int_eq(kit_hub.kind, TRM_REQUEST_PREDICT);
    ck_assert_int_eq(kit_hub.version, 3);
    ck_assert_int_eq(kit_hub.tensor_count, 0);
    ck_assert_str_eq(kit_hub.body, row->sent);
    kit_answer(&answer);
    expect(x, 200,
           "{\"tabby \\\"cat\\\"\":0.5,\"crane\":0.25,\"crane (517)\":0.125,"
           "\"7\":1e-09}");
}
END_TEST

static const struct record_row {
    const char *body;
    trm_dtype dtype;
    int rank;
    int64_t dims[3];
} records[] = {
    {"{\"data\":[[1,2,3],[4,5,6]]}", TRM_DTYPE_I64, 2, {2, 3}},
    {"{\"data\":[1.5]}", TRM_DTYPE_F32, 1, {1}},
    {"{\"data\":[1,2.5]}", TRM_DTYPE_F32, 1, {2}},
    {"{\"data\":[true,false]}", TRM_DTYPE_BOOL, 1, {2}},
    {"{\"instances\":[[[1,2]]],\"other\":{\"data\":[7]}}", TRM_DTYPE_I64, 2, {1, 2}},
    {"{\"instances\":[7]}", TRM_DTYPE_I64, 0, {0}},
};

START_TEST(record)
{
    const struct record_row *row = &records[_i];
    trm_http_exchange *x;

    kit_reset();
    x = post("/predictions/m", "application/json; charset=utf-8", row->body);
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_int_eq(kit_hub.version, 0);
    ck_assert_int_eq(kit_hub.tensor_count, 1);
    ck_assert_str_eq(kit_hub.names[0], "");
    ck_assert_str_eq(kit_hub.body, "");
    ck_assert_int_eq(kit_hub.tensors[0].dtype, row->dtype);
    ck_assert_int_eq(kit_hub.tensors[0].rank, row->rank);
    for (int i = 0; i < row->rank; i++)
        ck_assert_int_eq(kit_hub.tensors[0].dims[i], row->dims[i]);
    kit_answer(&answer);
    ck_assert_int_eq(x->status, 200);
    kit_free(x);
}
END_TEST

static const struct bad_row {
    const char *target, *type, *body, *message;
} bad[] = {
    {"/predictions/m", "image/png", "", "no image in the body"},
    {"/predictions/m", "text/plain", "x", "Content-Type 'text/plain', want an image"},
    {"/predictions/m", "multipart/form-data; boundary=b", "x", "malformed form"},
    {"/predictions/m", "multipart/form-data; boundary=b", "--b\r\nname=\"a\"\r\n\r\n1",
     "no part \\\"data\\\""},
    {"/predictions/m?top=0", "image/png", "x", "top is '0', want 1 to"},
    {"/predictions/m?top=x", "image/png", "x", "top is 'x', want 1 to"},
    {"/predictions/m/0", "image/png", "x", "version '0', want"},
    {"/predictions/m", "application/json", "", "the body is not JSON"},
    {"/predictions/m", "application/json", "[1]", "the body is no JSON object"},
    {"/predictions/m", "application/json", "{}", "want {\\\"data\\\": nested lists"},
    {"/predictions/m", "application/json", "{\"data\":7}", "want {\\\"data\\\": nested lists"},
    {"/predictions/m", "application/json", "{\"data\":[1],\"instances\":[1]}", "want {\\\"data"},
    {"/predictions/m", "application/json", "{\"instances\":[[1],[2]]}", "holds 2 records"},
    {"/predictions/m", "application/json", "{\"data\":[]}", "no numbers in it"},
    {"/predictions/m", "application/json", "{\"data\":[[1],[2,3]]}", "at depth 2 has 2 entries"},
    {"/predictions/m", "application/json", "{\"data\":[[1],[[]]]}", "more than 2 deep"},
    {"/predictions/m", "application/json", "{\"data\":[[[]],[1]]}", ""},
    {"/predictions/m", "application/json", "{\"data\":[1,true]}", "true or false beside"},
    {"/predictions/m", "application/json", "{\"data\":[\"a\"]}", "want a number"},
    {"/predictions/m", "application/json", "{\"data\":[null]}", "want a number"},
    {"/predictions/m", "application/json", "{\"data\":[[[[[[[[[1]]]]]]]]]}", "more than 8 deep"},
    {"/predictions/m", "application/json", "{\"data\":[1e99]}", ""},
};

START_TEST(refused)
{
    trm_http_exchange *x;

    kit_reset();
    x = post(bad[_i].target, bad[_i].type, bad[_i].body);
    ck_assert(!kit_hub.pending);
    ck_assert_int_eq(x->answers, 1);
    ck_assert_msg(x->status == 400 && strstr(x->data, bad[_i].message) != NULL, "%d %s", x->status,
                  x->data);
    kit_free(x);
}
END_TEST

START_TEST(top_and_failures)
{
    trm_wire_answer failed = {.status = TRM_ERR_BAD_FILE, .message = "no image", .model = "m"};
    int64_t live = trm_alloc_live();
    trm_http_exchange *x;

    kit_reset();
    x = post("/predictions/m?top=2", "image/png", "x");
    kit_answer(&answer);
    expect(x, 200, "{\"tabby \\\"cat\\\"\":0.5,\"crane\":0.25}");
    x = post("/predictions/m?top=500", "image/png", "x");
    kit_answer(&answer);
    ck_assert_int_eq(x->status, 200);
    kit_free(x);
    x = post("/predictions/m", "image/png", "x");
    kit_answer(&failed);
    expect(x, 400, "{\"error\":\"no image\"}");
    kit_hub.submit = TRM_ERR_NOT_FOUND;
    expect(post("/predictions/m", "image/png", "x"), 404, "{\"error\":\"said by the hub\"}");
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

/* As curl sends them. */
START_TEST(curl)
{
    trm_http_exchange *x;

    kit_reset();
    x = post("/predictions/m", "application/x-www-form-urlencoded", "{\"data\":[1,2]}");
    ck_assert_int_eq(kit_hub.tensor_count, 1);
    kit_answer(&answer);
    ck_assert_int_eq(x->status, 200);
    kit_free(x);
    x = post("/predictions/m", "image/png", "{\"data\":[1,2]}");
    ck_assert_int_eq(kit_hub.tensor_count, 0);
    kit_answer(&answer);
    kit_free(x);
    x = kit_call(trmi_predictions_routes(), "PUT", "/predictions/m/2", NULL, "PNG", 3);
    ck_assert_int_eq(kit_hub.version, 2);
    ck_assert_str_eq(kit_hub.body, "PNG");
    kit_answer(&answer);
    ck_assert_int_eq(x->status, 200);
    kit_free(x);
}
END_TEST

START_TEST(ping)
{
    kit_reset();
    expect(kit_call(trmi_predictions_routes(), "GET", "/ping", NULL, NULL, 0), 200,
           "{\"status\":\"Healthy\"}");
    kit_hub.ready = false;
    expect(kit_call(trmi_predictions_routes(), "GET", "/ping", NULL, NULL, 0), 503,
           "{\"status\":\"Unhealthy\"}");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("predictions");
    TCase *tc = tcase_create("predictions");
    SRunner *runner;
    int failures;

    tcase_add_loop_test(tc, image, 0, (int)(sizeof(images) / sizeof(*images)));
    tcase_add_loop_test(tc, record, 0, (int)(sizeof(records) / sizeof(*records)));
    tcase_add_loop_test(tc, refused, 0, (int)(sizeof(bad) / sizeof(*bad)));
    tcase_add_test(tc, top_and_failures);
    tcase_add_test(tc, curl);
    tcase_add_test(tc, ping);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? 0 : 1;
}
