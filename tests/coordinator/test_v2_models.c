/* v2's other endpoints over a hub that is a fake: the server, models, statistics, and language
 * models by generate and infer. */
#define _GNU_SOURCE
#include "tests/coordinator/gateway_kit.h"

#include <check.h>

static trm_http_exchange *post(const char *target, const char *body)
{
    return kit_call(trmi_inference_v2_routes(), "POST", target, NULL, body, strlen(body));
}

static trm_http_exchange *get(const char *target)
{
    return kit_call(trmi_inference_v2_routes(), "GET", target, NULL, NULL, 0);
}

static void expect(trm_http_exchange *x, int status, const char *data)
{
    ck_assert_int_eq(x->answers, 1);
    ck_assert_msg(x->status == status && strcmp(x->data, data) == 0, "%d %s\nwanted %d %s",
                  x->status, x->data, status, data);
    kit_free(x);
}

static void expect_part(trm_http_exchange *x, int status, const char *part)
{
    ck_assert_int_eq(x->answers, 1);
    ck_assert_msg(x->status == status && strstr(x->data, part) != NULL, "%d %s\nwanted %d ...%s",
                  x->status, x->data, status, part);
    kit_free(x);
}

/* ---- the server and models ---- */
static const char metadata[] =
    "{\"kind\":\"tensor\",\"platform\":\"onnx\",\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\","
    "\"shape\":[-1,3]}],\"outputs\":[{\"name\":\"y\",\"datatype\":\"INT64\",\"shape\":[-1]}],"
    "\"max_batch\":8}";

START_TEST(server)
{
    kit_reset();
    expect(get("/v2"), 200,
           "{\"name\":\"trireme\",\"version\":\"1.2.3\",\"extensions\":[\"binary_tensor_data\","
           "\"classification\",\"generate\",\"model_configuration\",\"model_repository\","
           "\"model_repository(unload_dependents)\",\"parameters\",\"schedule_policy\","
           "\"statistics\"]}");
    expect(get("/v2/health/live"), 200, "{\"live\":true}");
    expect(get("/v2/health/ready"), 200, "{\"ready\":true}");
    kit_hub.ready = false;
    expect(get("/v2/health/ready"), 503, "{\"ready\":false}");
    kit_hub.ready = true;
    kit_gateway.draining = 1;
    expect(get("/v2/health/ready"), 503, "{\"ready\":false}");
    expect(get("/v2/health/live"), 200, "{\"live\":true}");
}
END_TEST

START_TEST(models)
{
    kit_reset();
    kit_model("m", 1, TRM_MODEL_READY, metadata);
    kit_model("m", 2, TRM_MODEL_READY, metadata);
    kit_model("fresh", 1, TRM_MODEL_LOADING, "");
    kit_model("lm", 1, TRM_MODEL_READY, "{\"kind\":\"generate\",\"platform\":\"gguf\"}");
    expect(get("/v2/models/m"), 200,
           "{\"name\":\"m\",\"versions\":[\"1\",\"2\"],\"platform\":\"onnx\",\"inputs\":[{\"name\":"
           "\"x\",\"datatype\":\"FP32\",\"shape\":[-1,3]}],\"outputs\":[{\"name\":\"y\","
           "\"datatype\":\"INT64\",\"shape\":[-1]}]}");
    expect_part(get("/v2/models/lm"), 200,
                "\"inputs\":[{\"name\":\"text_input\",\"datatype\":\"BYTES\",\"shape\":[1]}]");
    expect(get("/v2/models/fresh"), 503, "{\"error\":\"model 'fresh' version 1 is loading\"}");
    expect(get("/v2/models/none"), 404, "{\"error\":\"no model 'none'\"}");
    expect(get("/v2/models/m/versions/3"), 404, "{\"error\":\"no model 'm'\"}");
    expect(get("/v2/models/m/ready"), 200, "{\"name\":\"m\",\"ready\":true}");
    expect(get("/v2/models/fresh/ready"), 503, "{\"name\":\"fresh\",\"ready\":false}");
    expect(get("/v2/models/none/ready"), 404, "{\"error\":\"no model 'none'\"}");
    expect(get("/v2/models/m/versions/2/config"), 200,
           "{\"name\":\"m\",\"platform\":\"onnx\",\"backend\":\"trireme\",\"version_policy\":"
           "{\"specific\":{\"versions\":[2]}},\"max_batch_size\":8,\"input\":[{\"name\":\"x\","
           "\"data_type\":\"TYPE_FP32\",\"dims\":[3],\"format\":\"FORMAT_NONE\",\"is_shape_tensor\""
           ":false,\"allow_ragged_batch\":false,\"optional\":false}],\"output\":[{\"name\":\"y\","
           "\"data_type\":\"TYPE_INT64\",\"dims\":[],\"label_filename\":\"\",\"is_shape_tensor\":"
           "false}],\"instance_group\":[{\"name\":\"m_0\",\"kind\":\"KIND_CPU\",\"count\":1}],"
           "\"dynamic_batching\":{}}");
    expect_part(get("/v2/models/lm/config"), 200, "\"data_type\":\"TYPE_STRING\",\"dims\":[1]");
}
END_TEST

/* Whatever a replica says of itself. */
START_TEST(strange_metadata)
{
    static const char *const texts[] = {"[]",
                                        "7",
                                        "{",
                                        "{}",
                                        "{\"inputs\":7,\"outputs\":{}}",
                                        "{\"inputs\":[7,{}],\"outputs\":[null],\"max_batch\":8}",
                                        "{\"inputs\":[{\"shape\":[-1,\"x\"]}],\"max_batch\":-1}",
                                        "{\"kind\":7,\"platform\":[]}"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        trm_http_exchange *x;

        kit_reset();
        kit_model("m", 1, TRM_MODEL_READY, texts[i]);
        for (int k = 0; k < 2; k++) {
            x = get(k == 0 ? "/v2/models/m" : "/v2/models/m/config");
            ck_assert_int_eq(x->answers, 1);
            ck_assert(x->status == 200 || x->status == 503 || x->status == 500);
            kit_free(x);
        }
    }
}
END_TEST

START_TEST(statistics)
{
    json_t *known =
        json_pack("{s:I,s:{s:I,s:I},s:[{s:i}]}", "inference_count", (json_int_t)9, "success",
                  "count", (json_int_t)4, "ns", (json_int_t)500, "batch_stats", "batch_size", 3);

    kit_reset();
    kit_model("a", 1, TRM_MODEL_READY, metadata);
    kit_model("m", 1, TRM_MODEL_READY, metadata);
    kit_model("m", 2, TRM_MODEL_READY, metadata);
    kit_hub.statistics = known;
    expect(
        get("/v2/models/m/versions/2/stats"), 200,
        "{\"model_stats\":[{\"name\":\"m\",\"version\":\"2\",\"last_inference\":0,"
        "\"inference_count\":9,\"execution_count\":0,\"inference_stats\":{\"success\":{\"count\":"
        "4,\"ns\":500},\"fail\":{\"count\":0,\"ns\":0},\"queue\":{\"count\":0,\"ns\":0},"
        "\"compute_input\":{\"count\":0,\"ns\":0},\"compute_infer\":{\"count\":0,\"ns\":0},"
        "\"compute_output\":{\"count\":0,\"ns\":0},\"cache_hit\":{\"count\":0,\"ns\":0},"
        "\"cache_miss\":{\"count\":0,\"ns\":0}},\"batch_stats\":[{\"batch_size\":3}]}]}");
    kit_hub.statistics = NULL;
    json_decref(known);
    expect_part(get("/v2/models/m/stats"), 200, "\"version\":\"2\",\"last_inference\":0,");
    expect_part(get("/v2/models/stats"), 200, "\"name\":\"a\"");
    expect_part(get("/v2/models/none/stats"), 404, "no model 'none'");
}
END_TEST

/* ---- generate ---- */
START_TEST(generate)
{
    static const char text[] = "{\"choices\":[{\"text\":\"b\\u0000\\n\\u00e9\"}]}";
    trm_wire_answer answer = {
        .message = "", .model = "lm", .version = 4, .body = text, .body_bytes = sizeof(text) - 1};
    trm_http_exchange *x;

    kit_reset();
    x = post("/v2/models/lm/generate",
             "{\"text_input\":\"a\",\"max_tokens\":5,\"parameters\":{\"stream\":true,"
             "\"random_seed\":7,\"stop_words\":[\"z\"],\"exclude_input_in_output\":false,"
             "\"beam_width\":1}}");
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_int_eq(kit_hub.kind, TRM_REQUEST_COMPLETIONS);
    ck_assert(!kit_hub.stream);
    ck_assert_str_eq(kit_hub.body,
                     "{\"model\":\"lm\",\"prompt\":\"a\",\"stream\":false,\"max_tokens\":5,"
                     "\"seed\":7,\"stop\":[\"z\"],\"echo\":true}");
    kit_answer(&answer);
    expect(
        x, 200,
        "{\"model_name\":\"lm\",\"model_version\":\"4\",\"text_output\":\"b\\u0000\\u000a\xc3\xa9"
        "\"}");
    expect_part(post("/v2/models/lm/generate", ""), 400, "the body is not JSON");
    expect_part(post("/v2/models/lm/generate", "{}"), 400, "no \\\"text_input\\\"");
    expect_part(post("/v2/models/lm/generate", "[]"), 400, "no \\\"text_input\\\"");
    expect_part(post("/v2/models/lm/generate", "{\"text_input\":\"a\",\"n\":2}"), 400,
                "'n' is no parameter of generate");
    expect_part(post("/v2/models/lm/generate", "{\"text_input\":\"a\",\"beam_width\":2}"), 400,
                "beam search is not supported");
    x = post("/v2/models/lm/generate", "{\"text_input\":\"a\"}");
    answer.body_bytes = 0;
    kit_answer(&answer);
    expect_part(x, 500, "the answer has no text");
}
END_TEST

static void part(const char *lines)
{
    trm_wire_part p = {.body = lines, .body_bytes = strlen(lines)};

    kit_hub.request.part(kit_hub.request.ctx, &p);
}

START_TEST(generate_stream)
{
    trm_wire_answer answer = {.message = "", .model = "lm", .version = 4};
    trm_wire_answer failed = {.status = TRM_ERR_COMM, .message = "lost", .model = "lm"};
    trm_http_exchange *x;

    kit_reset();
    kit_model("lm", 4, TRM_MODEL_READY, "{\"kind\":\"generate\"}");
    x = post("/v2/models/lm/generate_stream", "{\"text_input\":\"a\"}");
    ck_assert(kit_hub.stream);
    part("{\"choices\":[{\"text\":\"b\"}]}\n{\"choices\":[{\"text\":\"\"}]}\nno json\n");
    part("{\"choices\":[],\"usage\":{}}\n{\"choices\":[{\"text\":\" c\"}]}\n");
    kit_answer(&answer);
    ck_assert_str_eq(x->type, "text/event-stream; charset=utf-8");
    expect(x, 200,
           "data: {\"model_name\":\"lm\",\"model_version\":\"4\",\"text_output\":\"b\"}\n\n"
           "data: {\"model_name\":\"lm\",\"model_version\":\"4\",\"text_output\":\" c\"}\n\n");
    /* fails before and after the first piece */
    x = post("/v2/models/lm/generate_stream", "{\"text_input\":\"a\"}");
    kit_answer(&failed);
    expect(x, 503, "{\"error\":\"lost\"}");
    x = post("/v2/models/lm/generate_stream", "{\"text_input\":\"a\"}");
    part("{\"choices\":[{\"text\":\"b\"}]}\n");
    kit_answer(&failed);
    expect_part(x, 200, "\n\ndata: {\"error\":\"lost\"}\n\n");
    /* a client that takes nothing more */
    x = post("/v2/models/lm/generate_stream", "{\"text_input\":\"a\"}");
    x->deaf = true;
    part("{\"choices\":[{\"text\":\"b\"}]}\n");
    ck_assert_uint_eq(kit_hub.cancelled, kit_hub.id);
    failed.status = TRM_ERR_CANCELLED;
    kit_answer(&failed);
    ck_assert_int_eq(x->answers, 1);
    kit_free(x);
    /* no text at all */
    x = post("/v2/models/lm/generate_stream", "{\"text_input\":\"a\"}");
    kit_answer(&answer);
    expect_part(x, 200, "\"text_output\":\"\"}\n\n");
}
END_TEST

START_TEST(infer_text)
{
    static const char text[] = "{\"choices\":[{\"text\":\"b\"}]}";
    static const char body[] =
        "{\"id\":\"i\",\"inputs\":[{\"name\":\"text_input\",\"shape\":[1,1],\"datatype\":\"BYTES\","
        "\"data\":[\"a\"]},{\"name\":\"max_tokens\",\"shape\":[1,1],\"datatype\":\"INT32\","
        "\"data\":"
        "[5]}],\"parameters\":{\"temperature\":0.5,\"binary_data_output\":%s}}";
    trm_wire_answer answer = {
        .message = "", .model = "lm", .version = 4, .body = text, .body_bytes = sizeof(text) - 1};
    char request[512];
    trm_http_exchange *x;

    kit_reset();
    kit_model("lm", 4, TRM_MODEL_READY, "{\"kind\":\"generate\"}");
    snprintf(request, sizeof(request), body, "false");
    x = post("/v2/models/lm/infer", request);
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_str_eq(kit_hub.body, "{\"model\":\"lm\",\"prompt\":\"a\",\"stream\":false,"
                                   "\"temperature\":0.5,\"max_tokens\":5}");
    kit_answer(&answer);
    expect(x, 200,
           "{\"id\":\"i\",\"model_name\":\"lm\",\"model_version\":\"4\",\"outputs\":[{\"name\":"
           "\"text_output\",\"datatype\":\"BYTES\",\"shape\":[1,1],\"data\":[\"b\"]}]}");
    snprintf(request, sizeof(request), body, "true");
    x = post("/v2/models/lm/infer", request);
    kit_answer(&answer);
    ck_assert_int_eq(memcmp(x->data + x->data_bytes - 5, "\1\0\0\0b", 5), 0);
    kit_free(x);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("v2_models");
    TCase *tc = tcase_create("v2_models");
    SRunner *runner;
    int failures;

    tcase_add_test(tc, server);
    tcase_add_test(tc, models);
    tcase_add_test(tc, strange_metadata);
    tcase_add_test(tc, statistics);
    tcase_add_test(tc, generate);
    tcase_add_test(tc, generate_stream);
    tcase_add_test(tc, infer_text);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? 0 : 1;
}
