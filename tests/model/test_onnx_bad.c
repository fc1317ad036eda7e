/* One hand-made bad ONNX file per rejection: the status, and what the message must name. */
#include "tests/model/onnx_writer.h"

#include <check.h>
#include <stdio.h>
#include <unistd.h>

static const int64_t d2[] = {2};
static const float two[2] = {1, 2};

/* A graph with input x, output y and nothing in between. */
static msg ends(void)
{
    msg g = graph("g");

    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, "2"));
    return g;
}

static msg with_node(msg n)
{
    msg g = ends();

    put_msg(&g, GRAPH_NODE, n);
    return model(g, 13);
}

static msg with_tensor(msg t)
{
    msg g = ends();

    put_msg(&g, GRAPH_INITIALIZER, t);
    put_msg(&g, GRAPH_NODE, node("Add", "x,w", "y"));
    return model(g, 13);
}

static msg relu_model(void)
{
    return with_node(node("Relu", "x", "y"));
}

static msg of_bytes(const char *bytes, size_t n)
{
    msg m = {NULL, 0, 0};

    put_bytes(&m, bytes, n);
    return m;
}

static msg empty(void)
{
    return of_bytes("", 0);
}

static msg no_graph(void)
{
    msg m = {NULL, 0, 0};

    put_int(&m, 1, 8);
    return m;
}

static msg text_file(void)
{
    return of_bytes("hello, world, this is no model", 30);
}

static msg truncated(void)
{
    msg m = relu_model();

    m.bytes -= 5;
    return m;
}

static msg varint_overrun(void)
{
    return of_bytes("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13);
}

static msg length_overrun(void)
{
    return of_bytes("\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10);
}

static msg group_wire_type(void)
{
    return of_bytes("\x0b", 1);
}

static msg field_zero(void)
{
    return of_bytes("\x00\x00", 2);
}

static msg wrong_wire_type(void)
{
    msg m = {NULL, 0, 0};

    put_int(&m, 7, 5); /* the graph as a number */
    return m;
}

static msg no_opset(void)
{
    msg m = {NULL, 0, 0};

    put_int(&m, 1, 8);
    put_msg(&m, 7, ends());
    return m;
}

static msg opset_of_the_future(void)
{
    return model(ends(), 99);
}

static msg name_with_zero(void)
{
    msg n = {NULL, 0, 0};

    put_block(&n, 4, "Re\0lu", 5);
    return with_node(n);
}

static msg no_op_type(void)
{
    msg n = {NULL, 0, 0};

    put_text(&n, 3, "nameless");
    return with_node(n);
}

static msg unknown_op(void)
{
    return with_node(node("Frobnicate", "x", "y"));
}

static msg unknown_domain(void)
{
    msg n = node("Relu", "x", "y");

    put_text(&n, 7, "com.example");
    return with_node(n);
}

static msg random_op(void)
{
    return with_node(node("RandomNormalLike", "x", "y"));
}

static msg internal_op(void)
{
    return with_node(node("TrmSilu", "x", "y"));
}

static msg missing_input(void)
{
    return with_node(node("Add", "x,nowhere", "y"));
}

static msg missing_output(void)
{
    return with_node(node("Relu", "x", "z"));
}

static msg too_few_inputs(void)
{
    return with_node(node("Add", "x", "y"));
}

static msg too_many_inputs(void)
{
    return with_node(node("Relu", "x,x", "y"));
}

static msg absent_input(void)
{
    return with_node(node("Concat", "x,,x", "y"));
}

static msg too_many_outputs(void)
{
    return with_node(node("Relu", "x", "y,z"));
}

static msg cycle(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_NODE, node("Add", "x,b", "a"));
    put_msg(&g, GRAPH_NODE, node("Relu", "a", "b"));
    put_msg(&g, GRAPH_NODE, node("Relu", "b", "y"));
    return model(g, 13);
}

static msg made_twice(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_NODE, node("Relu", "x", "y"));
    put_msg(&g, GRAPH_NODE, node("Neg", "x", "y"));
    return model(g, 13);
}

static msg input_twice(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    return model(g, 13);
}

static msg initializer_twice(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INITIALIZER, tensor_raw("w", ELEM_F32, 1, d2, two, sizeof(two)));
    put_msg(&g, GRAPH_INITIALIZER, tensor_raw("w", ELEM_F32, 1, d2, two, sizeof(two)));
    return model(g, 13);
}

static msg nameless_initializer(void)
{
    return with_tensor(tensor_raw("", ELEM_F32, 1, d2, two, sizeof(two)));
}

static msg no_outputs(void)
{
    msg g = graph("g");

    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    return model(g, 13);
}

static msg untyped_input(void)
{
    msg g = ends(), v = {NULL, 0, 0};

    put_text(&v, 1, "bare");
    put_msg(&g, GRAPH_INPUT, v);
    return model(g, 13);
}

static msg string_input(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INPUT, value_info("words", ELEM_STRING, "2"));
    return model(g, 13);
}

static msg sequence_input(void)
{
    msg g = ends(), v = {NULL, 0, 0}, type = {NULL, 0, 0}, inner = {NULL, 0, 0};

    put_text(&v, 1, "list");
    put_msg(&type, 4, inner);
    put_msg(&v, 2, type);
    put_msg(&g, GRAPH_INPUT, v);
    return model(g, 13);
}

static msg huge_input_dim(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INPUT, value_info("big", ELEM_F32, "2,9223372036854775807"));
    return model(g, 13);
}

static msg negative_input_dim(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INPUT, value_info("neg", ELEM_F32, "-7"));
    return model(g, 13);
}

static msg nine_dims(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INPUT, value_info("deep", ELEM_F32, "1,1,1,1,1,1,1,1,1"));
    return model(g, 13);
}

static msg huge_dims(void)
{
    static const int64_t dims[] = {INT64_C(1) << 39, INT64_C(1) << 39, 4};

    return with_tensor(tensor_raw("w", ELEM_F32, 3, dims, two, sizeof(two)));
}

static msg negative_dims(void)
{
    static const int64_t dims[] = {-2};

    return with_tensor(tensor_raw("w", ELEM_F32, 1, dims, two, sizeof(two)));
}

static msg raw_too_short(void)
{
    return with_tensor(tensor_raw("w", ELEM_F32, 1, d2, two, 7));
}

static msg typed_too_few(void)
{
    msg t = tensor_head("w", ELEM_I64, 1, d2);

    put_int(&t, 7, 1);
    return with_tensor(t);
}

static msg typed_other_field(void)
{
    msg t = tensor_head("w", ELEM_F32, 1, d2);

    put_int(&t, 7, 1);
    put_int(&t, 7, 1);
    return with_tensor(t);
}

static msg packed_cut(void)
{
    msg t = tensor_head("w", ELEM_I64, 1, d2);

    put_block(&t, 7, "\x01\x80", 2);
    return with_tensor(t);
}

static msg float8_tensor(void)
{
    return with_tensor(tensor_raw("w", 17, 1, d2, two, 2));
}

static msg string_tensor(void)
{
    msg t = tensor_head("w", ELEM_STRING, 1, d2);

    put_text(&t, 6, "a");
    put_text(&t, 6, "b");
    return with_tensor(t);
}

static msg sparse_index(void)
{
    static const int64_t at[] = {0, 9};
    msg g = ends(), s = {NULL, 0, 0};

    put_msg(&s, 1, tensor_raw("w", ELEM_F32, 1, d2, two, sizeof(two)));
    put_msg(&s, 2, tensor_raw("", ELEM_I64, 1, d2, at, sizeof(at)));
    put_int(&s, 3, 4);
    put_msg(&g, GRAPH_SPARSE, s);
    return model(g, 13);
}

static msg sparse_bomb(void)
{
    static const int64_t at[] = {0, 9};
    msg g = ends(), s = {NULL, 0, 0};

    put_msg(&s, 1, tensor_raw("w", ELEM_F32, 1, d2, two, sizeof(two)));
    put_msg(&s, 2, tensor_raw("", ELEM_I64, 1, d2, at, sizeof(at)));
    put_int(&s, 3, INT64_C(1) << 38);
    put_msg(&g, GRAPH_SPARSE, s);
    return model(g, 13);
}

static msg wrong_attr_kind(void)
{
    msg n = node("Softmax", "x", "y");

    attr_text(&n, "axis", "one");
    return with_node(n);
}

static msg attr_twice(void)
{
    msg n = node("Softmax", "x", "y");

    attr_int(&n, "axis", 0);
    attr_int(&n, "axis", 0);
    return with_node(n);
}

static msg nameless_attr(void)
{
    msg n = node("Softmax", "x", "y"), a = {NULL, 0, 0};

    put_int(&a, 3, 1);
    put_msg(&n, 5, a);
    return with_node(n);
}

static msg cast_to_string(void)
{
    msg n = node("Cast", "x", "y");

    attr_int(&n, "to", ELEM_STRING);
    return with_node(n);
}

static msg constant_without_value(void)
{
    return with_node(node("Constant", "", "y"));
}

static msg string_constant(void)
{
    msg n = node("Constant", "", "y");

    attr_text(&n, "value_string", "hello");
    return with_node(n);
}

static msg split_mismatch(void)
{
    msg g = ends(), n = node("Split", "x", "y,z");

    attr_int(&n, "num_outputs", 3);
    put_msg(&g, GRAPH_NODE, n);
    return model(g, 18);
}

static msg external(const char *location, const char *offset, const char *length)
{
    msg t = tensor_head("w", ELEM_F32, 1, d2);

    if (location != NULL)
        put_entry(&t, 13, "location", location);
    if (offset != NULL)
        put_entry(&t, 13, "offset", offset);
    if (length != NULL)
        put_entry(&t, 13, "length", length);
    put_int(&t, 14, 1);
    return with_tensor(t);
}

static msg external_absolute(void)
{
    return external("/etc/passwd", NULL, NULL);
}

static msg external_parent(void)
{
    return external("sub/../../w.bin", NULL, NULL);
}

static msg external_missing(void)
{
    return external("absent.bin", NULL, NULL);
}

static msg external_link(void)
{
    return external("link.bin", NULL, NULL);
}

static msg external_too_short(void)
{
    return external("w.bin", "1", NULL);
}

static msg external_offset_past(void)
{
    return external("w.bin", "99999999999", NULL);
}

static msg external_bad_offset(void)
{
    return external("w.bin", "-1", NULL);
}

static msg external_bad_length(void)
{
    return external("w.bin", "0", "4");
}

static msg external_nowhere(void)
{
    return external(NULL, "0", "8");
}

static msg if_without_branch(void)
{
    msg g = ends();

    put_msg(&g, GRAPH_INPUT, value_info("c", ELEM_BOOL, ""));
    put_msg(&g, GRAPH_NODE, node("If", "c", "y"));
    return model(g, 13);
}

static msg loop_body_inputs(void)
{
    msg g = ends(), n = node("Loop", ",,x", "y"), body = graph("body");

    put_msg(&body, GRAPH_INPUT, value_info("i", ELEM_I64, ""));
    put_msg(&body, GRAPH_OUTPUT, value_info("i", ELEM_I64, ""));
    attr_graph(&n, "body", body);
    put_msg(&g, GRAPH_NODE, n);
    return model(g, 13);
}

/* An If in an If in an If ... */
static msg nesting_bomb(void)
{
    msg inner = graph("deepest");

    put_msg(&inner, GRAPH_NODE, node("Relu", "x", "z"));
    put_msg(&inner, GRAPH_OUTPUT, value_info("z", ELEM_F32, NULL));
    for (int i = 0; i < 200; i++) {
        msg outer = graph("body"), n = node("If", "c", "z"), other = graph("other");

        put_msg(&other, GRAPH_OUTPUT, value_info("x", ELEM_F32, NULL));
        attr_graph(&n, "then_branch", inner);
        attr_graph(&n, "else_branch", other);
        put_msg(&outer, GRAPH_NODE, n);
        put_msg(&outer, GRAPH_OUTPUT, value_info("z", ELEM_F32, NULL));
        inner = outer;
    }
    put_msg(&inner, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    put_msg(&inner, GRAPH_INPUT, value_info("c", ELEM_BOOL, ""));
    return model(inner, 13);
}

static msg function_of(const char *name, const char *calls, int times)
{
    msg f = {NULL, 0, 0};
    char out[20];

    put_text(&f, 1, name);
    put_text(&f, 10, "mine");
    put_text(&f, 4, "a");
    put_text(&f, 5, "o0");
    if (times == 0)
        put_msg(&f, 7, node("Relu", "a", "o0"));
    for (int i = 0; i < times; i++) {
        msg n;

        snprintf(out, sizeof(out), "o%d", i);
        n = node(calls, "a", out);
        put_text(&n, 7, "mine");
        put_msg(&f, 7, n);
    }
    return f;
}

static msg calls_itself(void)
{
    msg n = node("F", "x", "y"), m;

    put_text(&n, 7, "mine");
    m = with_node(n);
    put_opset(&m, 8, "mine", 1);
    put_msg(&m, 25, function_of("F", "F", 1));
    return m;
}

/* Each of 20 functions calls the next ten times: 10^20 nodes. */
static msg function_bomb(void)
{
    msg n = node("F0", "x", "y"), m;
    char name[10], next[10];

    put_text(&n, 7, "mine");
    m = with_node(n);
    put_opset(&m, 8, "mine", 1);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "F%d", i);
        snprintf(next, sizeof(next), "F%d", i + 1);
        put_msg(&m, 25, function_of(name, next, 10));
    }
    put_msg(&m, 25, function_of("F20", "F20", 0));
    return m;
}

static msg function_twice(void)
{
    msg m = relu_model();

    put_msg(&m, 25, function_of("F", "G", 1));
    put_msg(&m, 25, function_of("F", "G", 1));
    return m;
}

static const struct {
    const char *name;
    msg (*make)(void);
    trm_status status;
    const char *says;
} rows[] = {
    {"empty", empty, TRM_ERR_BAD_FILE, "empty"},
    {"no graph", no_graph, TRM_ERR_BAD_FILE, "no ONNX model"},
    {"text", text_file, TRM_ERR_BAD_FILE, "ModelProto at byte 2"},
    {"truncated", truncated, TRM_ERR_BAD_FILE, "does not end before"},
    {"varint overrun", varint_overrun, TRM_ERR_BAD_FILE, "byte 0"},
    {"length overrun", length_overrun, TRM_ERR_BAD_FILE, "field 7"},
    {"group", group_wire_type, TRM_ERR_BAD_FILE, "wire type 3"},
    {"field zero", field_zero, TRM_ERR_BAD_FILE, "field number 0"},
    {"wire type", wrong_wire_type, TRM_ERR_BAD_FILE, "wire type 0, want 2"},
    {"no opset", no_opset, TRM_ERR_BAD_FILE, "opset"},
    {"future opset", opset_of_the_future, TRM_ERR_UNSUPPORTED, "opset 99"},
    {"zero in name", name_with_zero, TRM_ERR_BAD_FILE, "zero byte"},
    {"no op type", no_op_type, TRM_ERR_BAD_FILE, "op_type"},
    {"unknown op", unknown_op, TRM_ERR_UNSUPPORTED, "'n_Frobnicate' (Frobnicate, opset 13)"},
    {"unknown domain", unknown_domain, TRM_ERR_UNSUPPORTED, "com.example.Relu"},
    {"random op", random_op, TRM_ERR_UNSUPPORTED, "RandomNormalLike"},
    {"internal op", internal_op, TRM_ERR_UNSUPPORTED, "TrmSilu"},
    {"missing input", missing_input, TRM_ERR_BAD_FILE, "reads 'nowhere'"},
    {"missing output", missing_output, TRM_ERR_BAD_FILE, "'y'"},
    {"too few inputs", too_few_inputs, TRM_ERR_BAD_FILE, "has 1 inputs, want 2 to 2"},
    {"too many inputs", too_many_inputs, TRM_ERR_BAD_FILE, "has 2 inputs, want 1 to 1"},
    {"absent input", absent_input, TRM_ERR_BAD_FILE, "input 1 is absent"},
    {"too many outputs", too_many_outputs, TRM_ERR_BAD_FILE, "has 2 outputs"},
    {"cycle", cycle, TRM_ERR_BAD_FILE, "cycle"},
    {"made twice", made_twice, TRM_ERR_BAD_FILE, "'y' is made twice"},
    {"input twice", input_twice, TRM_ERR_BAD_FILE, "'x' is made twice"},
    {"initializer twice", initializer_twice, TRM_ERR_BAD_FILE, "'w' is made twice"},
    {"nameless initializer", nameless_initializer, TRM_ERR_BAD_FILE, "no name"},
    {"no outputs", no_outputs, TRM_ERR_BAD_FILE, "no outputs"},
    {"untyped input", untyped_input, TRM_ERR_BAD_FILE, "'bare' has no type"},
    {"string input", string_input, TRM_ERR_UNSUPPORTED, "'words' has dtype string"},
    {"sequence input", sequence_input, TRM_ERR_UNSUPPORTED, "'list' is a sequence"},
    {"huge input dim", huge_input_dim, TRM_ERR_BAD_FILE, "'big'"},
    {"negative input dim", negative_input_dim, TRM_ERR_BAD_FILE, "'neg' has a dim -7"},
    {"nine dims", nine_dims, TRM_ERR_UNSUPPORTED, "'deep' has more than 8 dims"},
    {"huge dims", huge_dims, TRM_ERR_BAD_FILE, "tensor 'w'"},
    {"negative dims", negative_dims, TRM_ERR_BAD_FILE, "tensor 'w': dim 0 is -2"},
    {"raw too short", raw_too_short, TRM_ERR_BAD_FILE, "wants 8 bytes, raw_data has 7"},
    {"typed too few", typed_too_few, TRM_ERR_BAD_FILE, "wants 2 elements, the file has 1"},
    {"typed other field", typed_other_field, TRM_ERR_BAD_FILE, "wants 2 elements"},
    {"packed cut", packed_cut, TRM_ERR_BAD_FILE, "packed number"},
    {"float8", float8_tensor, TRM_ERR_UNSUPPORTED, "'w' has dtype float8e4m3fn"},
    {"string tensor", string_tensor, TRM_ERR_UNSUPPORTED, "'w' has dtype string"},
    {"sparse index", sparse_index, TRM_ERR_BAD_FILE, "index 9"},
    {"sparse bomb", sparse_bomb, TRM_ERR_UNSUPPORTED, "'w'"},
    {"attribute kind", wrong_attr_kind, TRM_ERR_BAD_FILE, "'axis' is a string"},
    {"attribute twice", attr_twice, TRM_ERR_BAD_FILE, "'axis' is there twice"},
    {"nameless attribute", nameless_attr, TRM_ERR_BAD_FILE, "no name"},
    {"cast to string", cast_to_string, TRM_ERR_UNSUPPORTED, "string"},
    {"constant without value", constant_without_value, TRM_ERR_BAD_FILE, "no value"},
    {"string constant", string_constant, TRM_ERR_UNSUPPORTED, "string"},
    {"split", split_mismatch, TRM_ERR_BAD_FILE, "num_outputs says 3"},
    {"external absolute", external_absolute, TRM_ERR_BAD_FILE, "'/etc/passwd' is not a path"},
    {"external parent", external_parent, TRM_ERR_BAD_FILE, "inside the model's folder"},
    {"external missing", external_missing, TRM_ERR_NOT_FOUND, "absent.bin"},
    {"external link", external_link, TRM_ERR_BAD_FILE, "leads out"},
    {"external too short", external_too_short, TRM_ERR_BAD_FILE, "'w.bin', which has 8"},
    {"external offset past", external_offset_past, TRM_ERR_BAD_FILE, "99999999999"},
    {"external bad offset", external_bad_offset, TRM_ERR_BAD_FILE, "offset '-1'"},
    {"external bad length", external_bad_length, TRM_ERR_BAD_FILE, "length 4"},
    {"external nowhere", external_nowhere, TRM_ERR_BAD_FILE, "without a location"},
    {"if without branch", if_without_branch, TRM_ERR_BAD_FILE, "then_branch"},
    {"loop body inputs", loop_body_inputs, TRM_ERR_BAD_FILE, "has 1 inputs, want 3"},
    {"nesting bomb", nesting_bomb, TRM_ERR_BAD_FILE, "nest deeper than 32"},
    {"calls itself", calls_itself, TRM_ERR_BAD_FILE, "nest deeper than 32"},
    {"function bomb", function_bomb, TRM_ERR_UNSUPPORTED, "expand to more than"},
    {"function twice", function_twice, TRM_ERR_BAD_FILE, "'F' of domain 'mine' is defined twice"},
};

static char dir[] = "/tmp/trm-onnx-bad-XXXXXX";
static char path[200];

/* A folder with w.bin (8 bytes) and link.bin, a link that leads out of it. */
static void make_folder(void)
{
    FILE *f;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/w.bin", dir);
    f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq((int)fwrite(two, sizeof(two), 1, f), 1);
    fclose(f);
    snprintf(path, sizeof(path), "%s/link.bin", dir);
    ck_assert_int_eq(symlink("/bin/sh", path), 0);
}

static void remove_folder(void)
{
    snprintf(path, sizeof(path), "%s/w.bin", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/link.bin", dir);
    unlink(path);
    rmdir(dir);
}

START_TEST(rejects)
{
    msg m = rows[_i].make();
    trm_file *file = NULL;
    trm_graph *g = NULL;
    trm_status st;

    snprintf(path, sizeof(path), "%s/model.onnx", dir);
    ck_assert_int_eq(trm_file_from_memory(m.data, m.bytes, path, &file), TRM_OK);
    st = trm_onnx_import(file, &g);
    ck_assert_msg(st == rows[_i].status, "%s: status %s, message '%s'", rows[_i].name,
                  trm_status_name(st), st == TRM_OK ? "" : trm_message());
    ck_assert_msg(strstr(trm_message(), rows[_i].says) != NULL, "%s: message '%s' lacks '%s'",
                  rows[_i].name, trm_message(), rows[_i].says);
    ck_assert_ptr_nonnull(strstr(trm_message(), "model.onnx")); /* names the file */
    ck_assert_ptr_null(strchr(trm_message(), '\n'));
    ck_assert_int_eq(trm_status_exit_code(st), 2);
    ck_assert_ptr_null(g);
    trm_file_unref(file);
    free(m.data);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

/* Cut anywhere, and any byte turned over: a status or a graph, never more. */
START_TEST(mangled)
{
    msg m = with_tensor(tensor_raw("w", ELEM_F32, 1, d2, two, sizeof(two)));
    trm_file *file = NULL;
    trm_graph *g;

    for (size_t i = 0; i < 2 * m.bytes; i++) {
        size_t at = i / 2, n = i % 2 == 0 ? at : m.bytes;
        unsigned char *copy = (unsigned char *)malloc(n + 1);

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, m.data, n);
        if (i % 2 == 1)
            copy[at] ^= 0xff;
        g = NULL;
        ck_assert_int_eq(trm_file_from_memory(copy, n, "mangled", &file), TRM_OK);
        if (trm_onnx_import(file, &g) == TRM_OK)
            trm_graph_destroy(g);
        trm_file_unref(file);
        free(copy);
    }
    ck_assert_int_eq(trm_alloc_live(), 0);
    free(m.data);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("onnx_bad");
    TCase *t = tcase_create("rejections");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_unchecked_fixture(t, make_folder, remove_folder);
    tcase_add_loop_test(t, rejects, 0, (int)(sizeof(rows) / sizeof(rows[0])));
    tcase_add_test(t, mangled);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
