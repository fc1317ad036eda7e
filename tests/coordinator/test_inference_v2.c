/* Open Inference Protocol v2 over a hub that is a fake: bodies to tensors, answers to bodies. */
#define _GNU_SOURCE
#include "tests/coordinator/gateway_kit.h"

#include <check.h>
#include <math.h>
#include <zlib.h>

static trm_http_exchange *post(const char *target, const char *body)
{
    return kit_call(trmi_inference_v2_routes(), "POST", target, NULL, body, strlen(body));
}

/* A body of JSON with bytes behind it. */
static trm_http_exchange *post_binary(const char *target, const char *json, const void *data,
                                      size_t bytes)
{
    static char all[8192], length[64];
    const char *const headers[] = {length, NULL};
    size_t n = strlen(json);

    memcpy(all, json, n);
    memcpy(all + n, data, bytes);
    snprintf(length, sizeof(length), "Inference-Header-Content-Length: %zu", n);
    return kit_call(trmi_inference_v2_routes(), "POST", target, headers, all, n + bytes);
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

/* ---- datatypes in JSON: what goes in, and what the same bytes are printed as ---- */
static const struct type_row {
    const char *name, *datatype, *data; /* two elements */
    trm_dtype dtype;
    const char *hex;     /* the bytes */
    const char *printed; /* NULL: as data */
} types[] = {
    {"bool", "BOOL", "true,false", TRM_DTYPE_BOOL, "0100", NULL},
    {"bool as numbers", "BOOL", "0,1", TRM_DTYPE_BOOL, "0001", "false,true"},
    {"uint8", "UINT8", "0,255", TRM_DTYPE_U8, "00ff", NULL},
    {"uint16", "UINT16", "1,65535", TRM_DTYPE_U16, "0100ffff", NULL},
    {"uint32", "UINT32", "1,4294967295", TRM_DTYPE_U32, "01000000ffffffff", NULL},
    {"uint64", "UINT64", "1,18446744073709551615", TRM_DTYPE_U64,
     "0100000000000000ffffffffffffffff", NULL},
    {"int8", "INT8", "-128,127", TRM_DTYPE_I8, "807f", NULL},
    {"int16", "INT16", "-32768,-0", TRM_DTYPE_I16, "00800000", "-32768,0"},
    {"int32", "INT32", "-2147483648,7", TRM_DTYPE_I32, "0000008007000000", NULL},
    {"int64", "INT64", "-9223372036854775808,9223372036854775807", TRM_DTYPE_I64,
     "0000000000000080ffffffffffffff7f", NULL},
    {"fp16", "FP16", "1.5,-65504", TRM_DTYPE_F16, "003efffb", "1.5,-65504.0"},
    {"bf16", "BF16", "1.5,-2", TRM_DTYPE_BF16, "c03f00c0", "1.5,-2.0"},
    {"fp32", "FP32", "0.1,-1e-45", TRM_DTYPE_F32, "cdcccc3d01000080", "0.1,-1.40129846e-45"},
    {"fp32 of doubles", "FP32", "0.10000000149011612,3.4028234663852886e38", TRM_DTYPE_F32,
     "cdcccc3dffff7f7f", "0.1,3.40282347e+38"},
    {"fp32 small", "FP32", "1.5e-13,-0.00000123", TRM_DTYPE_F32, NULL, "1.5e-13,-1.23e-06"},
    {"fp32 smaller", "FP32", "99999.9,1e-14", TRM_DTYPE_F32, NULL, "99999.9,9.99999982e-15"},
    {"fp32 not finite", "FP32", "NaN,-Infinity", TRM_DTYPE_F32, "0000c07f000080ff", NULL},
    {"fp64", "FP64", "0.1,1e22", TRM_DTYPE_F64, "9a9999999999b93f92d54d06cff08044", "0.1,1e+22"},
    {"fp64 long", "FP64", "3.141592653589793,12", TRM_DTYPE_F64, "182d4454fb2109400000000000002840",
     "3.141592653589793,12.0"},
};

static void hex_of(const unsigned char *p, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", p[i]);
}

START_TEST(datatypes)
{
    const struct type_row *row = &types[_i];
    char body[512], hex[64], want[512];
    trm_http_exchange *x;
    trm_wire_answer answer = {.message = "", .model = "m", .version = 3, .output_count = 1};
    trm_wire_tensor out = {.name = "y"};

    kit_reset();
    snprintf(body, sizeof(body),
             "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"%s\",\"data\":[%s]}]}",
             row->datatype, row->data);
    x = post("/v2/models/m/infer", body);
    ck_assert_msg(kit_hub.pending, "%s: %s", row->name, x->data);
    ck_assert_int_eq(kit_hub.kind, TRM_REQUEST_INFER);
    ck_assert_int_eq(kit_hub.tensor_count, 1);
    ck_assert_int_eq(kit_hub.tensors[0].dtype, row->dtype);
    hex_of(kit_hub.data[0], 2 * trm_dtype_bytes(row->dtype), hex);
    ck_assert_msg(row->hex == NULL || strcmp(hex, row->hex) == 0, "%s: %s", row->name, hex);
    out.tensor = kit_hub.tensors[0];
    answer.outputs = &out;
    kit_answer(&answer);
    snprintf(want, sizeof(want),
             "{\"model_name\":\"m\",\"model_version\":\"3\",\"outputs\":[{\"name\":\"y\","
             "\"datatype\":\"%s\",\"shape\":[1,2],\"data\":[%s]}]}",
             row->datatype, row->printed == NULL ? row->data : row->printed);
    expect(x, 200, want);
}
END_TEST

/* ---- bodies that are refused ---- */
#define IN(rest) "{\"inputs\":[{\"name\":\"x\"," rest "}]}"
static const struct bad_row {
    const char *body, *message;
} bad[] = {
    {"", "the body is not JSON"},
    {"[1,2]", "the body is no JSON object"},
    {"{\"inputs\":[{\"data\":[", "a list does not end"},
    {"{\"inputs\":[{\"name\":\"x", "a string does not end"},
    {"{}", "no \\\"inputs\\\""},
    {"{\"inputs\":[]}", "no \\\"inputs\\\""},
    {"{\"inputs\":{}}", "no \\\"inputs\\\""},
    {"{\"inputs\":[7]}", "an input has no \\\"name\\\""},
    {"{\"inputs\":[{}]}", "an input has no \\\"name\\\""},
    {"{\"id\":7,\"inputs\":[]}", "\\\"id\\\" wants a string"},
    {IN("\"shape\":[1]"), "input 'x': no \\\"datatype\\\""},
    {IN("\"shape\":[1],\"datatype\":\"FP33\""), "input 'x': datatype 'FP33', want one of"},
    {IN("\"datatype\":\"FP32\",\"data\":[1]"), "input 'x': no \\\"shape\\\""},
    {IN("\"datatype\":\"FP32\",\"shape\":[1.5],\"data\":[1]"), "dim 0 of \\\"shape\\\""},
    {IN("\"datatype\":\"FP32\",\"shape\":[-1],\"data\":[1]"), "dim 0 of \\\"shape\\\""},
    {IN("\"datatype\":\"FP32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data\":[1]"), "9 dims, want at"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1000000000000,1000000000000],\"data\":[1]"),
     "too many elements"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1099511627776],\"data\":[1]"),
     "at most 1 elements in 3 bytes"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1]"), "no \\\"data\\\" and no"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":7"), "\\\"data\\\" is no list"},
    {IN("\"datatype\":\"FP32\",\"shape\":[3],\"data\":[1,2    ]"), "2 elements, its shape has 3"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1,2]"), "more than 1 elements"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2,2],\"data\":[[1,2],[3]]"),
     "a list at depth 2 has 1 entries, want 2"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2,2],\"data\":[[1,2,3,4]]"),
     "a list at depth 2 has 4 entries, want 2"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1,1,2],\"data\":[[1,2]]"),
     "lists are nested 2 deep, want a flat one or 3"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2],\"data\":[[1,2]]"), "nested more than 1 deep"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1,3],\"data\":[[1],2,3]"), "a list at depth 2 has 1"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2,1],\"data\":[[1],2]"), "beside each other"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1 2]"), "want a comma"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1,,2]"), "element 1 is '', want a number"},
    {IN("\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1,2,]"), "want"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[01]"), "element 0 is '01', want a number"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[+1]"), "element 0 is '+1', want a number"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1.]"), "element 0 is '1.', want a number"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[0x10]"), "want a comma"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[\"1\"]"), "want a number"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[true]"), "element 0 is 'true'"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1e39]"), "that the datatype can hold"},
    {IN("\"datatype\":\"FP64\",\"shape\":[1],\"data\":[1e400]"), "that the datatype can hold"},
    {IN("\"datatype\":\"FP16\",\"shape\":[1],\"data\":[70000]"), "that the datatype can hold"},
    {IN("\"datatype\":\"UINT8\",\"shape\":[1],\"data\":[256]"), "want 0 to 255"},
    {IN("\"datatype\":\"UINT8\",\"shape\":[1],\"data\":[-1]"), "want 0 to 255"},
    {IN("\"datatype\":\"INT8\",\"shape\":[1],\"data\":[-129]"), "want -128 to 127"},
    {IN("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[9223372036854775808]"), "want -9223372036"},
    {IN("\"datatype\":\"UINT64\",\"shape\":[1],\"data\":[18446744073709551616]"), "want 0 to 1844"},
    {IN("\"datatype\":\"INT32\",\"shape\":[1],\"data\":[1.5]"), "want an integer"},
    {IN("\"datatype\":\"BOOL\",\"shape\":[1],\"data\":[2]"), "want true or false"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1],\"parameters\":{\"binary_data_size\":4}"),
     "want one"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"parameters\":{\"binary_data_size\":4}"),
     "is 4, but 0 bytes are left"},
    {IN("\"datatype\":\"FP32\",\"shape\":[1],\"parameters\":{\"shared_memory_region\":\"r\"}"),
     "shared memory regions are not supported"},
    {"{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]},"
     "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}]}",
     "input 'x' is given twice"},
    {"{\"parameters\":7,\"inputs\":[]}", "\\\"parameters\\\" wants an object"},
    {"{\"parameters\":{\"sequence_id\":3},\"inputs\":[]}", "stateful models are not supported"},
    {"{\"parameters\":{\"timeout\":-3},\"inputs\":[]}", "\\\"timeout\\\" wants microseconds"},
    {"{\"parameters\":{\"priority\":\"x\"},\"inputs\":[]}", "\\\"priority\\\" wants an integer"},
    {"{\"outputs\":7,\"inputs\":[]}", "\\\"outputs\\\" wants a list"},
    {"{\"outputs\":[{}],\"inputs\":[]}", "an output has no \\\"name\\\""},
    {"{\"outputs\":[{\"name\":\"a\"},{\"name\":\"a\"}],\"inputs\":[]}", "asked for twice"},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"classification\":0}}],\"inputs\":[]}",
     "output 'a': \\\"classification\\\" wants 1 to"},
    {"{\"outputs\":[{\"name\":\"a\",\"parameters\":{\"binary_data\":1}}],\"inputs\":[]}",
     "output 'a': \\\"binary_data\\\" wants true or false"},
    {"{\"a\":1,\"a\":2,\"inputs\":[]}", "duplicate object key"},
    {IN("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[7]"), "BYTES want a list of texts"},
    {IN("\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"a\"]"), "1 texts, its shape has 2"},
    {IN("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"a\",\"b\"]"), "more than 1 texts"},
    {IN("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"a\\u0000b\"]"), "text 0 has a NUL"},
    {IN("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[\"a\"]"),
     "input 'x' is BYTES: model 'm' takes tensors of numbers"},
};

START_TEST(refused)
{
    trm_http_exchange *x;

    kit_reset();
    kit_model("m", 1, TRM_MODEL_READY, "{\"kind\":\"tensor\"}");
    x = post("/v2/models/m/infer", bad[_i].body);
    ck_assert(!kit_hub.pending);
    ck_assert_str_eq(x->type, "application/json");
    ck_assert_int_eq(strncmp(x->data, "{\"error\":\"", 10), 0);
    expect_part(x, 400, bad[_i].message);
}
END_TEST

START_TEST(nested_and_deep)
{
    char *body = malloc(200000), *p;
    trm_http_exchange *x;

    kit_reset();
    x = post("/v2/models/m/infer",
             "{\"inputs\":[{\"data\":[[[1,2 , 3],[4,5,6]]],\"name\":\"x\",\"shape\":[1,2,3],"
             "\"datatype\":\"INT8\"}]}");
    ck_assert(kit_hub.pending);
    ck_assert_int_eq(memcmp(kit_hub.data[0], "\1\2\3\4\5\6", 6), 0);
    kit_answer(&(trm_wire_answer){.message = "", .model = "m"});
    expect(x, 200, "{\"model_name\":\"m\",\"model_version\":\"0\",\"outputs\":[]}");
    /* hostile depth, in the data and beside it */
    p = body + sprintf(body, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\","
                             "\"data\":");
    memset(p, '[', 60000);
    memset(p + 60000, ']', 60000);
    memcpy(p + 120000, "}]}", 4);
    expect_part(post("/v2/models/m/infer", body), 400, "nested more than 1 deep");
    memset(body, '[', 100000);
    body[100000] = '\0';
    expect_part(post("/v2/models/m/infer", body), 400, "nested more than 64 deep");
    memset(body, '{', 100000);
    expect_part(post("/v2/models/m/infer", body), 400, "nested more than 64 deep");
    free(body);
}
END_TEST

START_TEST(much_json_beside)
{
    size_t n = (2u << 20) + 64;
    char *body = malloc(n);
    trm_http_exchange *x;

    kit_reset();
    memset(body, ' ', n);
    memcpy(body, "{\"inputs\":[", 11);
    memcpy(body + n - 3, "]}", 3);
    x = post("/v2/models/m/infer", body);
    expect_part(x, 400, "bytes of JSON beside the tensors' data");
    free(body);
}
END_TEST

/* ---- binary tensors ---- */
START_TEST(binary)
{
    static const unsigned char data[8] = {0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0}; /* 1.5, -2 */
    unsigned char behind[11];
    char want[512];
    trm_wire_tensor out[2] = {
        {.name = "y",
         .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = behind + 1}},
        {.name = "z",
         .tensor = {.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {3}, .data = behind + 8}}};
    trm_wire_answer answer = {
        .message = "", .model = "m", .version = 1, .outputs = out, .output_count = 2};
    trm_http_exchange *x;
    size_t header;

    kit_reset();
    memcpy(behind, data, 8);
    memcpy(behind + 8, "\7\10\11", 3);
    x = post_binary("/v2/models/m/versions/2/infer",
                    "{\"id\":\"a \\\"b\\\"\",\"inputs\":["
                    "{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\",\"parameters\":"
                    "{\"binary_data_size\":8}},"
                    "{\"name\":\"j\",\"shape\":[1],\"datatype\":\"UINT8\",\"data\":[9]},"
                    "{\"name\":\"b\",\"shape\":[3],\"datatype\":\"UINT8\",\"parameters\":"
                    "{\"binary_data_size\":3}}],"
                    "\"parameters\":{\"binary_data_output\":true,\"priority\":1,\"timeout\":1500}}",
                    behind, 11);
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_int_eq(kit_hub.version, 2);
    ck_assert_int_eq(kit_hub.deadline_ms, 2);
    ck_assert_int_gt(kit_hub.priority, 0);
    ck_assert_str_eq(kit_hub.body, "");
    ck_assert_int_eq(kit_hub.tensor_count, 3);
    ck_assert_str_eq(kit_hub.names[2], "b");
    ck_assert_int_eq(memcmp(kit_hub.data[0], data, 8), 0);
    ck_assert_int_eq(kit_hub.data[1][0], 9);
    ck_assert_int_eq(memcmp(kit_hub.data[2], "\7\10\11", 3), 0);
    memmove(behind + 1, data, 8); /* misaligned */
    memcpy(behind + 8, "\0\5\6", 3);
    memcpy(behind + 1, data, 8);
    kit_answer(&answer);
    header = (size_t)snprintf(
        want, sizeof(want),
        "{\"id\":\"a \\\"b\\\"\",\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":["
        "{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2],\"parameters\":"
        "{\"binary_data_size\":8}},"
        "{\"name\":\"z\",\"datatype\":\"UINT8\",\"shape\":[3],\"parameters\":"
        "{\"binary_data_size\":3}}]}");
    ck_assert_int_eq(x->status, 200);
    ck_assert_str_eq(x->type, "application/octet-stream");
    ck_assert_uint_eq(
        strtoull(kit_find(x->out, x->out_count, "inference-header-content-length"), NULL, 10),
        header);
    ck_assert_uint_eq(x->data_bytes, header + 11);
    ck_assert_int_eq(memcmp(x->data, want, header), 0);
    ck_assert_int_eq(memcmp(x->data + header, data, 8), 0);
    kit_free(x);
}
END_TEST

static const struct bad_binary {
    const char *inputs;
    size_t behind;
    const char *message;
} bad_binaries[] = {
    {"{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}",
     7, "\\\"binary_data_size\\\" is 8, but 7 bytes are left"},
    {"{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}",
     9, "1 bytes behind the last binary tensor"},
    {"{\"name\":\"x\",\"shape\":[3],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}",
     8, "8 bytes of data, its shape and FP32 want 12"},
    {"{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":-8}"
     "}",
     8, "is no integer from 0 up"},
    {"{\"name\":\"x\",\"shape\":[8],\"datatype\":\"BOOL\",\"parameters\":{\"binary_data_size\":8}}",
     8, "element 0 is 97, want 0 or 1"},
    {"{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":3}"
     "}",
     3, "3 bytes where a length should be"},
    {"{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":8}"
     "}",
     8, "a text of 1633771873 bytes, 4 are left"},
};

START_TEST(binary_refused)
{
    const struct bad_binary *row = &bad_binaries[_i];
    char json[512];

    kit_reset();
    snprintf(json, sizeof(json), "{\"inputs\":[%s]}", row->inputs);
    expect_part(post_binary("/v2/models/m/infer", json, "aaaaaaaaaaaaa", row->behind), 400,
                row->message);
}
END_TEST

START_TEST(header_length)
{
    static const char *const lengths[] = {"0", "-1", "x", "3x", "", "99", "99999999999999999999"};

    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        char header[100];
        const char *const headers[] = {header, NULL};

        kit_reset();
        snprintf(header, sizeof(header), "Inference-Header-Content-Length: %s", lengths[i]);
        expect_part(kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers,
                             "{\"inputs\":[]}", 13),
                    400, "want 1 to 13, the body's bytes");
    }
    expect_part(kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer",
                         (const char *const[]){"Content-Encoding: br", NULL}, "{}", 2),
                400, "Content-Encoding 'br', want gzip");
}
END_TEST

START_TEST(packed_bodies)
{
    static const char body[] =
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\",\"data\":[1,2]}]}";
    const char *const headers[] = {"Content-Encoding: deflate", NULL};
    static unsigned char packed[1 << 16];
    static char zeros[1 << 20];
    uLongf bytes = sizeof(packed);
    trm_http_exchange *x;

    kit_reset();
    ck_assert_int_eq(compress(packed, &bytes, (const Bytef *)body, sizeof(body) - 1), Z_OK);
    x = kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers, packed, bytes);
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_int_eq(kit_hub.tensors[0].dims[0], 2);
    kit_answer(&(trm_wire_answer){.message = "", .model = "m"});
    expect_part(x, 200, "\"outputs\":[]");
    expect_part(kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers, packed,
                         bytes - 1),
                400, "the packed body is malformed: it does not end");
    packed[bytes] = 0;
    expect_part(kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers, packed,
                         bytes + 1),
                400, "the packed body is malformed: there is more behind its end");
    expect_part(
        kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers, "abc", 3), 400,
        "the packed body is malformed: ");
    expect_part(kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers, "", 0),
                400, "the packed body is malformed: ");
    /* little that becomes much */
    kit_gateway.options.http.body_max = 100000;
    bytes = sizeof(packed);
    ck_assert_int_eq(compress(packed, &bytes, (const Bytef *)zeros, sizeof(zeros)), Z_OK);
    x = kit_call(trmi_inference_v2_routes(), "POST", "/v2/models/m/infer", headers, packed, bytes);
    kit_gateway.options.http.body_max = 0;
    expect_part(x, 400, "unpacks to more than 100000 bytes");
}
END_TEST

/* Long ones go to the worker, in both directions. */
START_TEST(long_ones)
{
    enum { N = 50000 };
    static float back[N];
    static char body[N * 4 + 200];
    trm_wire_tensor out = {
        .name = "y", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {N}, .data = back}};
    trm_wire_answer answer = {
        .message = "", .model = "m", .version = 1, .outputs = &out, .output_count = 1};
    int64_t live = trm_alloc_live();
    trm_http_exchange *x;
    size_t at;

    kit_reset();
    at = (size_t)snprintf(
        body, sizeof(body),
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[%d],\"datatype\":\"FP32\",\"data\":[", N);
    for (int i = 0; i < N; i++) {
        back[i] = (float)(i % 10) + 0.5f;
        at += (size_t)snprintf(body + at, sizeof(body) - at, "%s%d", i > 0 ? ", " : "", i % 10);
    }
    snprintf(body + at, sizeof(body) - at, "]}]}");
    ck_assert_int_eq(trmi_work_start(&kit_gateway.work), TRM_OK);
    x = post("/v2/models/m/infer", body);
    trmi_work_stop(kit_gateway.work);
    ck_assert_msg(kit_hub.pending, "%s", x->data);
    ck_assert_int_eq(kit_hub.tensors[0].dims[0], N);
    ck_assert_int_eq(trmi_work_start(&kit_gateway.work), TRM_OK);
    kit_answer(&answer);
    memset(back, 0, sizeof(back)); /* the answer is valid during the call only */
    trmi_work_stop(kit_gateway.work);
    kit_gateway.work = NULL;
    ck_assert_int_eq(x->answers, 1);
    ck_assert_uint_eq(x->data_bytes, strlen("{\"model_name\":\"m\",\"model_version\":\"1\","
                                            "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\","
                                            "\"shape\":[50000],\"data\":[]}]}") +
                                         4 * N - 1);
    ck_assert_ptr_nonnull(strstr(x->data, "[0.5,1.5,2.5,3.5,4.5,5.5,6.5,7.5,8.5,9.5,0.5"));
    kit_free(x);
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

/* ---- outputs that are asked for ---- */
START_TEST(requested)
{
    static const float scores[2] = {0.25f, 0.75f};
    trm_wire_tensor out[2] = {
        {.name = "y",
         .tensor = {.dtype = TRM_DTYPE_F32,
                    .rank = 2,
                    .dims = {1, 2},
                    .data = (void *)(uintptr_t)scores}},
        {.name = "z", .tensor = {.dtype = TRM_DTYPE_U8, .rank = 0, .data = "\5"}}};
    trm_wire_label labels[2] = {{1, 0.75f, "cat \"x\""}, {0, 0.25f, "0"}};
    trm_wire_answer answer = {.message = "",
                              .model = "m",
                              .version = 1,
                              .outputs = out,
                              .output_count = 2,
                              .labels = labels,
                              .label_count = 2,
                              .label_rows = 1};
    static const char body[] =
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}],"
        "\"outputs\":[{\"name\":\"z\"},{\"name\":\"y\",\"parameters\":{\"classification\":2%s}}]}";
    char text[512];
    const char *at;
    trm_http_exchange *x;

    kit_reset();
    snprintf(text, sizeof(text), body, "");
    x = post("/v2/models/m/infer", text);
    ck_assert_str_eq(kit_hub.body, "{\"outputs\":[\"z\",\"y\"],\"classification\":{\"y\":2}}");
    kit_answer(&answer);
    expect(
        x, 200,
        "{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"z\",\"datatype\":"
        "\"UINT8\",\"shape\":[],\"data\":[5]},{\"name\":\"y\",\"datatype\":\"BYTES\",\"shape\":"
        "[1,2],\"data\":[\"0.75:1:cat \\\"x\\\"\",\"0.25:0\"]}]}");
    snprintf(text, sizeof(text), body, ",\"binary_data\":true");
    x = post("/v2/models/m/infer", text);
    kit_answer(&answer);
    ck_assert_ptr_nonnull(strstr(x->data, "\"binary_data_size\":28}}]}"));
    at = x->data +
         strtoull(kit_find(x->out, x->out_count, "Inference-Header-Content-Length"), NULL, 10);
    ck_assert_int_eq(memcmp(at,
                            "\16\0\0\0"
                            "0.75:1:cat \"x\""
                            "\6\0\0\0"
                            "0.25:0",
                            28),
                     0);
    kit_free(x);
    /* one that is not in the answer */
    answer.output_count = 1;
    x = post("/v2/models/m/infer", text);
    kit_answer(&answer);
    expect_part(x, 500, "output 'z' is not in the answer");
}
END_TEST

/* ---- life of a request ---- */
static const char one[] =
    "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}";

START_TEST(life)
{
    static const struct {
        trm_status st;
        int status;
    } submits[] = {{TRM_ERR_NOT_FOUND, 404},
                   {TRM_ERR_COMM, 503},
                   {TRM_ERR_TIMEOUT, 429},
                   {TRM_ERR_INVALID_ARG, 400}};
    trm_wire_answer failed = {.status = TRM_ERR_TIMEOUT, .message = "too late", .model = "m"};
    trm_wire_answer ok = {.message = "", .model = "m"};
    int64_t live = trm_alloc_live();
    trm_http_exchange *x;

    for (size_t i = 0; i < sizeof(submits) / sizeof(*submits); i++) {
        kit_reset();
        kit_hub.submit = submits[i].st;
        x = post("/v2/models/m/infer", one);
        ck_assert_int_eq(kit_find(x->out, x->out_count, "Retry-After") != NULL,
                         submits[i].status == 429);
        expect(x, submits[i].status, "{\"error\":\"said by the hub\"}");
    }
    kit_reset();
    x = post("/v2/models/m/infer", one);
    kit_answer(&failed);
    expect(x, 504, "{\"error\":\"too late\"}");
    /* the client goes */
    x = post("/v2/models/m/infer", one);
    x->gone(x->gone_ctx);
    ck_assert_uint_eq(kit_hub.cancelled, kit_hub.id);
    failed.status = TRM_ERR_CANCELLED;
    kit_answer(&failed);
    expect(x, 499, "{\"error\":\"too late\"}");
    /* the answer is there before submit has returned */
    kit_reset();
    kit_hub.at_once = &ok;
    expect_part(post("/v2/models/m/infer", one), 200, "\"outputs\":[]");
    ck_assert_int_eq(trm_alloc_live(), live);
    expect_part(post("/v2/models/m/versions/0/infer", one), 400, "version '0', want");
    expect_part(post("/v2/models/m/versions/x1/infer", one), 400, "version 'x1', want");
}
END_TEST

/* Every allocation fails once: one answer each time, and nothing is left. */
START_TEST(no_memory)
{
    trm_wire_label label = {1, 0.75f, "cat"};
    trm_wire_answer ok = {
        .message = "", .model = "m", .labels = &label, .label_count = 1, .label_rows = 1};
    static const char *const bodies[] = {
        "{\"id\":\"7\",\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]"
        "}]"
        ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":1}}]}"};
    int64_t live = trm_alloc_live();
    bool failed = true;

    for (int k = 0; failed; k++) {
        trm_http_exchange *x;

        kit_reset();
        kit_hub.at_once = &ok;
        trm_alloc_fail_after(k);
        x = post("/v2/models/m/infer", bodies[0]);
        trm_alloc_fail_after(-1);
        ck_assert_int_eq(x->answers, 1);
        failed = x->status != 200;
        kit_free(x);
        ck_assert_int_eq(trm_alloc_live(), live);
        ck_assert_int_lt(k, 1000);
    }
}
END_TEST

/* Zeroes of either sign are told apart. */
static bool same_bits(double a, double b)
{
    return a == b && !signbit(a) == !signbit(b);
}

/* Every float that is printed reads back. */
START_TEST(floats)
{
    uint64_t random = 88172645463325252u;

    for (int i = 0; i < 50000; i++) {
        trmi_text t = {0};
        uint32_t bits;
        float f, back;
        double d, dback;

        random ^= random << 13; /* xorshift, Marsaglia 2003 */
        random ^= random >> 7;
        random ^= random << 17;
        bits = (uint32_t)random;
        memcpy(&f, &bits, sizeof(f));
        if (i % 2 == 0)
            f = (float)((double)(int32_t)bits / (1 << i % 30));
        trmi_text_f32(&t, f);
        trmi_text_add(&t, "", 1);
        back = strtof(t.data, NULL);
        ck_assert_msg(isnan(f) ? isnan(back) : same_bits(f, back), "%a is %s", f, t.data);
        t.bytes = 0;
        memcpy(&d, &random, sizeof(d));
        trmi_text_f64(&t, d);
        trmi_text_add(&t, "", 1);
        dback = strtod(t.data, NULL);
        ck_assert_msg(isnan(d) ? isnan(dback) : same_bits(d, dback), "%a is %s", d, t.data);
        trmi_text_fini(&t);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("inference_v2");
    TCase *tc = tcase_create("inference_v2");
    SRunner *runner;
    int failures;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, datatypes, 0, (int)(sizeof(types) / sizeof(*types)));
    tcase_add_loop_test(tc, refused, 0, (int)(sizeof(bad) / sizeof(*bad)));
    tcase_add_test(tc, nested_and_deep);
    tcase_add_test(tc, much_json_beside);
    tcase_add_test(tc, binary);
    tcase_add_loop_test(tc, binary_refused, 0, (int)(sizeof(bad_binaries) / sizeof(*bad_binaries)));
    tcase_add_test(tc, header_length);
    tcase_add_test(tc, packed_bodies);
    tcase_add_test(tc, long_ones);
    tcase_add_test(tc, requested);
    tcase_add_test(tc, life);
    tcase_add_test(tc, no_memory);
    tcase_add_test(tc, floats);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures == 0 ? 0 : 1;
}
