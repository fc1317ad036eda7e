/* Importing hand-made ONNX files: weights, constants, every tensor form, rewrites of older opsets,
 * bodies with captures, functions, external data. */
#include "tests/model/onnx_writer.h"

#include <check.h>
#include <stdio.h>
#include <unistd.h>

static const int64_t d2[] = {2}, d23[] = {2, 3};

static trm_graph *must_import(msg m)
{
    trm_graph *g = NULL;
    trm_status st = import_msg(m, &g);

    ck_assert_msg(st == TRM_OK, "%s", trm_message());
    return g;
}

/* One node of an opset over input x f32 `shape` (and further inputs), imported. */
typedef struct one {
    msg g;
} one;

static one one_new(const char *shape)
{
    one o = {graph("g")};

    put_msg(&o.g, GRAPH_INPUT, value_info("x", ELEM_F32, shape));
    return o;
}

static trm_graph *one_import(one o, msg n, int64_t opset)
{
    put_msg(&o.g, GRAPH_NODE, n);
    put_msg(&o.g, GRAPH_OUTPUT, value_info("y", ELEM_F32, NULL));
    return must_import(model(o.g, opset));
}

static const trm_node *find_node(const trm_graph *g, trm_op op)
{
    for (int i = 0; i < g->node_count; i++)
        if (g->nodes[i].op == op)
            return &g->nodes[i];
    ck_abort_msg("no node %s", trm_op_get(op)->name);
    return NULL;
}

static void check_ints(trm_graph *g, const trm_node *n, int input, int count, const int64_t *want)
{
    trm_tensor t;

    ck_assert_int_lt(input, n->input_count);
    ck_assert_int_eq(trm_graph_constant(g, n->inputs[input], &t), TRM_OK);
    ck_assert_int_eq(t.dtype, TRM_DTYPE_I64);
    ck_assert_int_eq((int)trm_tensor_numel(&t), count);
    for (int i = 0; i < count; i++)
        ck_assert_int_eq(trm_tensor_get_i64(&t, (size_t)i), want[i]);
}

START_TEST(model_with_weight)
{
    static const float w[6] = {1, 2, 3, 4, 5, 6};
    msg g = graph("net");
    msg n = node("Gemm", "x,w", "y");
    int64_t live = trm_alloc_live();
    msg m;
    trm_graph *out;
    const trm_value *v;
    int id;

    attr_int(&n, "transB", 1);
    put_msg(&g, GRAPH_NODE, n);
    put_msg(&g, GRAPH_INITIALIZER, tensor_raw("w", ELEM_F32, 2, d23, w, sizeof(w)));
    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "batch,3"));
    put_msg(&g, GRAPH_INPUT, value_info("w", ELEM_F32, "2,3"));
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, "batch,2"));
    m = model(g, 13);
    out = must_import(m);
    ck_assert_str_eq(out->name, "net");
    ck_assert_str_eq(out->format, "onnx");
    ck_assert_str_eq(out->producer, "by hand 1.0");
    ck_assert_int_eq(out->opset, 13);
    ck_assert_int_eq(out->input_count, 1); /* w is an initializer */
    ck_assert_int_eq(out->node_count, 1);
    ck_assert_int_eq(trm_attr_int(&out->nodes[0].attrs, "transB", 0), 1);
    ck_assert_str_eq(trm_graph_dim_name(out, out->values[out->inputs[0]].desc.dims[0]), "batch");
    ck_assert_int_eq(out->values[out->inputs[0]].desc.dims[0],
                     out->values[out->outputs[0]].desc.dims[0]);
    id = trm_graph_find_value(out, "w");
    v = &out->values[id];
    ck_assert_ptr_nonnull(v->file);
    ck_assert_ptr_eq(v->desc.data, m.data + v->file_offset); /* not copied */
    trm_graph_destroy(out);
    ck_assert_int_eq(trm_alloc_live(), live);
}
END_TEST

/* ---- tensors ---- */
static trm_arena *arena;

static void make_arena(void)
{
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
}

static void clean_up(void)
{
    trm_arena_destroy(arena);
    free_kept();
}

/* Takes the message. */
static trm_status read_tensor(msg t, trm_tensor *out)
{
    const char *name;

    keep(t);
    return trm_onnx_read_tensor(t.data, t.bytes, arena, out, &name);
}

static void check_elems(const trm_tensor *t, int count, const double *want)
{
    ck_assert_int_eq((int)trm_tensor_numel(t), count);
    for (int i = 0; i < count; i++)
        ck_assert_double_eq(trm_tensor_get_f64(t, (size_t)i), want[i]);
}

START_TEST(typed_fields)
{
    static const struct {
        const char *name;
        int elem;
        trm_dtype dtype;
        unsigned field;
        bool packed;
        int64_t values[2];
    } rows[] = {
        {"int32", 6, TRM_DTYPE_I32, 5, false, {-7, 8}},
        {"int32 packed", 6, TRM_DTYPE_I32, 5, true, {-7, 8}},
        {"int8", 3, TRM_DTYPE_I8, 5, true, {-7, 8}},
        {"uint8", 2, TRM_DTYPE_U8, 5, true, {200, 8}},
        {"int16", 5, TRM_DTYPE_I16, 5, true, {-300, 8}},
        {"uint16", 4, TRM_DTYPE_U16, 5, true, {65535, 8}},
        {"bool", 9, TRM_DTYPE_BOOL, 5, true, {1, 0}},
        {"int64", 7, TRM_DTYPE_I64, 7, false, {INT64_MIN, 8}},
        {"int64 packed", 7, TRM_DTYPE_I64, 7, true, {-1, 8}},
        {"uint32", 12, TRM_DTYPE_U32, 11, true, {4294967295, 8}},
        {"uint64", 13, TRM_DTYPE_U64, 11, false, {5, 8}},
        {"float16", 10, TRM_DTYPE_F16, 5, true, {0x3c00, 0xc000}},
        {"bfloat16", 16, TRM_DTYPE_BF16, 5, true, {0x3f80, 0xc000}},
    };
    msg t = tensor_head("t", rows[_i].elem, 1, d2), block = {NULL, 0, 0};
    trm_tensor out;
    trm_status st;

    for (int i = 0; i < 2; i++) {
        if (rows[_i].packed)
            put_varint(&block, (uint64_t)rows[_i].values[i]);
        else
            put_int(&t, rows[_i].field, rows[_i].values[i]);
    }
    if (rows[_i].packed)
        put_msg(&t, rows[_i].field, block);
    st = read_tensor(t, &out);
    ck_assert_msg(st == TRM_OK, "%s: %s", rows[_i].name, trm_message());
    ck_assert_int_eq(out.dtype, rows[_i].dtype);
    if (trm_dtype_is_float(out.dtype)) {
        ck_assert_double_eq(trm_tensor_get_f64(&out, 0), 1.0);
        ck_assert_double_eq(trm_tensor_get_f64(&out, 1), -2.0);
    } else {
        ck_assert_int_eq(trm_tensor_get_i64(&out, 0), rows[_i].values[0]);
        ck_assert_int_eq(trm_tensor_get_i64(&out, 1), rows[_i].values[1]);
    }
}
END_TEST

START_TEST(float_fields)
{
    static const float f[2] = {1.5F, -2};
    static const double d[2] = {1.5, -2};
    trm_tensor out;
    msg one_by_one = tensor_head("t", ELEM_F32, 1, d2), packed = tensor_head("t", ELEM_F32, 1, d2);
    msg doubles = tensor_head("t", 11, 1, d2);

    put_float(&one_by_one, 4, f[0]);
    put_float(&one_by_one, 4, f[1]);
    ck_assert_int_eq(read_tensor(one_by_one, &out), TRM_OK);
    check_elems(&out, 2, d);
    put_block(&packed, 4, f, sizeof(f));
    ck_assert_int_eq(read_tensor(packed, &out), TRM_OK);
    check_elems(&out, 2, d);
    put_block(&doubles, 10, d, sizeof(d));
    ck_assert_int_eq(read_tensor(doubles, &out), TRM_OK);
    check_elems(&out, 2, d);
}
END_TEST

START_TEST(empty_and_scalar)
{
    static const int64_t zero[] = {0, 5};
    static const float f = 3;
    trm_tensor out;

    ck_assert_int_eq(read_tensor(tensor_head("t", ELEM_F32, 2, zero), &out), TRM_OK);
    ck_assert_int_eq((int)trm_tensor_numel(&out), 0);
    ck_assert_int_eq(read_tensor(tensor_raw("t", ELEM_F32, 0, NULL, &f, 4), &out), TRM_OK);
    ck_assert_int_eq(out.rank, 0);
    ck_assert_double_eq(trm_tensor_get_f64(&out, 0), 3.0);
}
END_TEST

START_TEST(sparse_initializer)
{
    static const int64_t at[] = {1, 5}, pairs[] = {0, 1, 1, 2}, d22[] = {2, 2};
    static const float f[2] = {7, 9};
    static const double want[6] = {0, 7, 0, 0, 0, 9};

    for (int form = 0; form < 2; form++) { /* linear indices, and one a dim */
        msg g = graph("g"), sparse = {NULL, 0, 0};
        trm_graph *out;
        trm_tensor t;

        put_msg(&sparse, 1, tensor_raw("w", ELEM_F32, 1, d2, f, sizeof(f)));
        put_msg(&sparse, 2,
                form == 0 ? tensor_raw("", ELEM_I64, 1, d2, at, sizeof(at))
                          : tensor_raw("", ELEM_I64, 2, d22, pairs, sizeof(pairs)));
        put_int(&sparse, 3, 2);
        put_int(&sparse, 3, 3);
        put_msg(&g, GRAPH_SPARSE, sparse);
        put_msg(&g, GRAPH_NODE, node("Relu", "w", "y"));
        put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, NULL));
        out = must_import(model(g, 13));
        ck_assert_int_eq(trm_graph_constant(out, out->nodes[0].inputs[0], &t), TRM_OK);
        check_elems(&t, 6, want);
        trm_graph_destroy(out);
    }
}
END_TEST

START_TEST(constant_nodes)
{
    static const int64_t ints[] = {4, 5};
    msg g = graph("g"), a = node("Constant", "", "a"), b = node("Constant", "", "b");
    trm_graph *out;
    trm_tensor t;

    attr_ints(&a, "value_ints", 2, ints);
    attr_float(&b, "value_float", 2.5F);
    put_msg(&g, GRAPH_NODE, node("Tile", "b1,a", "y")); /* before what it reads: the sort's job */
    put_msg(&g, GRAPH_NODE, node("Unsqueeze", "b,z", "b1"));
    put_msg(&g, GRAPH_INITIALIZER, tensor_raw("z", ELEM_I64, 1, d2, ints, sizeof(ints)));
    put_msg(&g, GRAPH_NODE, a);
    put_msg(&g, GRAPH_NODE, b);
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, NULL));
    out = must_import(model(g, 13));
    ck_assert_int_eq(out->node_count, 2);
    check_ints(out, find_node(out, TRM_OP_Tile), 1, 2, ints);
    ck_assert_int_eq(trm_graph_constant(out, find_node(out, TRM_OP_Unsqueeze)->inputs[0], &t),
                     TRM_OK);
    ck_assert_int_eq(t.rank, 0);
    ck_assert_double_eq(trm_tensor_get_f64(&t, 0), 2.5);
    trm_graph_destroy(out);
}
END_TEST

/* ---- rewrites ---- */
START_TEST(axes_become_inputs)
{
    static const struct {
        const char *op;
        int64_t opset;
    } rows[] = {{"Squeeze", 11},    {"Unsqueeze", 11}, {"ReduceSum", 11},
                {"ReduceMean", 13}, {"ReduceMax", 13}, {"ReduceL2", 1}};
    static const int64_t axes[] = {1};
    msg n = node(rows[_i].op, "x", "y");
    trm_graph *g;

    attr_ints(&n, "axes", 1, axes);
    g = one_import(one_new("2,1,3"), n, rows[_i].opset);
    check_ints(g, &g->nodes[0], 1, 1, axes);
    ck_assert_ptr_null(trm_attr_find(&g->nodes[0].attrs, "axes"));
    trm_graph_destroy(g);
}
END_TEST

START_TEST(slice_and_split_and_topk)
{
    static const int64_t starts[] = {1}, ends[] = {9}, sizes[] = {1, 3}, k[] = {2};
    msg n = node("Slice", "x", "y"), s = node("Split", "x", "y,z"), e = node("Split", "x", "y,z");
    msg t = node("TopK", "x", "y,i");
    trm_graph *g;

    attr_ints(&n, "starts", 1, starts);
    attr_ints(&n, "ends", 1, ends);
    g = one_import(one_new("4"), n, 9);
    check_ints(g, &g->nodes[0], 1, 1, starts);
    check_ints(g, &g->nodes[0], 2, 1, ends);
    ck_assert_int_eq(g->nodes[0].input_count, 3);
    trm_graph_destroy(g);
    attr_ints(&s, "split", 2, sizes);
    g = one_import(one_new("4"), s, 2);
    check_ints(g, &g->nodes[0], 1, 2, sizes);
    trm_graph_destroy(g);
    g = one_import(one_new("4"), e, 13);
    ck_assert_int_eq(g->nodes[0].input_count, 1);
    ck_assert_int_eq(trm_attr_int(&g->nodes[0].attrs, "num_outputs", 0), 2);
    trm_graph_destroy(g);
    attr_int(&t, "k", 2);
    g = one_import(one_new("4"), t, 9);
    check_ints(g, &g->nodes[0], 1, 1, k);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(clip_and_pad)
{
    static const int64_t pads[] = {0, 1, 0, 1};
    msg clip = node("Clip", "r", "y"), pad = node("Pad", "x", "y");
    one o = one_new("2,3");
    trm_graph *g;
    trm_tensor t;

    put_msg(&o.g, GRAPH_NODE, node("Relu", "x", "r")); /* the dtype of r is known through Relu */
    attr_float(&clip, "max", 6);
    g = one_import(o, clip, 6);
    ck_assert_int_eq(g->node_count, 2);
    ck_assert_int_eq(g->nodes[1].inputs[1], TRM_NO_VALUE);
    ck_assert_int_eq(trm_graph_constant(g, g->nodes[1].inputs[2], &t), TRM_OK);
    ck_assert_int_eq(t.dtype, TRM_DTYPE_F32);
    ck_assert_double_eq(trm_tensor_get_f64(&t, 0), 6.0);
    trm_graph_destroy(g);
    attr_ints(&pad, "pads", 4, pads);
    attr_float(&pad, "value", -1);
    g = one_import(one_new("2,3"), pad, 2);
    check_ints(g, &g->nodes[0], 1, 4, pads);
    ck_assert_int_eq(trm_graph_constant(g, g->nodes[0].inputs[2], &t), TRM_OK);
    ck_assert_double_eq(trm_tensor_get_f64(&t, 0), -1.0);
    trm_graph_destroy(g);
}
END_TEST

/* Where the dtype is not known the constant follows it at run time. */
START_TEST(clip_of_unknown_dtype)
{
    msg clip = node("Clip", "r", "y");
    one o = one_new("2,3");
    trm_graph *g;

    put_msg(&o.g, GRAPH_NODE, node("Abs", "x", "r"));
    attr_float(&clip, "min", 0);
    put_msg(&o.g, GRAPH_NODE, clip);
    put_msg(&o.g, GRAPH_OUTPUT, value_info("y", ELEM_F32, NULL));
    g = must_import(model(o.g, 6));
    ck_assert_int_eq(find_node(g, TRM_OP_CastLike)->outputs[0],
                     find_node(g, TRM_OP_Clip)->inputs[1]);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(upsample_and_resize)
{
    static const float scales[] = {1, 1, 2, 2};
    static const double want[] = {1, 1, 2, 2};
    msg up = node("Upsample", "x", "y"), re = node("Resize", "x,s", "y");
    msg new_form = node("Resize", "x,roi,s", "y");
    static const int64_t d4[] = {4}, d0[] = {0};
    one o = one_new("1,1,2,2"), o2 = one_new("1,1,2,2");
    trm_graph *g;
    trm_tensor t;

    attr_floats(&up, "scales", 4, scales);
    attr_text(&up, "mode", "linear");
    g = one_import(one_new("1,1,2,2"), up, 7);
    ck_assert_int_eq(g->nodes[0].op, TRM_OP_Resize);
    ck_assert_int_eq(g->nodes[0].input_count, 3);
    ck_assert_int_eq(g->nodes[0].inputs[1], TRM_NO_VALUE);
    ck_assert_int_eq(trm_graph_constant(g, g->nodes[0].inputs[2], &t), TRM_OK);
    check_elems(&t, 4, want);
    ck_assert_str_eq(trm_attr_string(&g->nodes[0].attrs, "coordinate_transformation_mode", ""),
                     "asymmetric");
    ck_assert_str_eq(trm_attr_string(&g->nodes[0].attrs, "nearest_mode", ""), "floor");
    trm_graph_destroy(g);
    put_msg(&o.g, GRAPH_INITIALIZER, tensor_raw("s", ELEM_F32, 1, d4, scales, sizeof(scales)));
    g = one_import(o, re, 10);
    ck_assert_int_eq(g->nodes[0].input_count, 3);
    ck_assert_str_eq(trm_attr_string(&g->nodes[0].attrs, "coordinate_transformation_mode", ""),
                     "asymmetric");
    trm_graph_destroy(g);
    put_msg(&o2.g, GRAPH_INITIALIZER, tensor_raw("s", ELEM_F32, 1, d4, scales, sizeof(scales)));
    put_msg(&o2.g, GRAPH_INITIALIZER, tensor_raw("roi", ELEM_F32, 1, d0, NULL, 0));
    g = one_import(o2, new_form, 11);
    ck_assert_int_eq(g->nodes[0].inputs[1], TRM_NO_VALUE); /* an empty tensor is an absent one */
    ck_assert_int_eq(g->nodes[0].input_count, 3);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(softmax_flattens)
{
    msg old = node("Softmax", "x", "y"), last = node("Softmax", "x", "y");
    msg new_form = node("Softmax", "x", "y");
    trm_graph *g = one_import(one_new("2,3,4"), old, 11);

    ck_assert_int_eq(trm_attr_int(&g->nodes[0].attrs, "flatten", 0), 1);
    ck_assert_int_eq(trm_attr_int(&g->nodes[0].attrs, "axis", 99), 1);
    trm_graph_destroy(g);
    attr_int(&last, "axis", 2);
    g = one_import(one_new("2,3,4"), last, 11);
    ck_assert_ptr_null(trm_attr_find(&g->nodes[0].attrs, "flatten"));
    trm_graph_destroy(g);
    g = one_import(one_new("2,3,4"), new_form, 13);
    ck_assert_int_eq(g->nodes[0].attrs.count, 0);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(old_broadcast)
{
    static const float b[3] = {1, 2, 3};
    static const int64_t d3[] = {3}, trailing[] = {1, 2};
    msg known = node("Add", "x,b", "y"), unknown = node("Add", "r,b", "y");
    one o = one_new("2,3,4,5"), o2 = one_new("2,3,4,5");
    trm_graph *g;

    attr_int(&known, "broadcast", 1);
    attr_int(&known, "axis", 1);
    attr_int(&unknown, "broadcast", 1);
    attr_int(&unknown, "axis", 1);
    put_msg(&o.g, GRAPH_INITIALIZER, tensor_raw("b", ELEM_F32, 1, d3, b, sizeof(b)));
    g = one_import(o, known, 6);
    check_ints(g, find_node(g, TRM_OP_Unsqueeze), 1, 2, trailing);
    ck_assert_int_eq(find_node(g, TRM_OP_Add)->inputs[1],
                     find_node(g, TRM_OP_Unsqueeze)->outputs[0]);
    ck_assert_int_eq(find_node(g, TRM_OP_Add)->attrs.count, 0);
    trm_graph_destroy(g);
    put_msg(&o2.g, GRAPH_INITIALIZER, tensor_raw("b", ELEM_F32, 1, d3, b, sizeof(b)));
    put_msg(&o2.g, GRAPH_NODE, node("Relu", "x", "r")); /* of unknown rank until inference */
    g = one_import(o2, unknown, 6);
    ck_assert_int_eq(find_node(g, TRM_OP_Add)->inputs[1], find_node(g, TRM_OP_Reshape)->outputs[0]);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(small_rewrites)
{
    static const int64_t one_axis[] = {1};
    msg drop = node("Dropout", "x", "y"), gn = node("GroupNormalization", "x,x,x", "y");
    msg bn = node("BatchNormalization", "x,x,x,x,x", "y,m,v,sm,sv"),
        roi = node("RoiAlign", "x,x,x", "y");
    msg dft = node("DFT", "x", "y"), cast = node("Cast", "x", "y"),
        sc = node("Scatter", "x,x,x", "y");
    msg gelu = node("FastGelu", "x,x", "y");
    trm_graph *g;

    attr_float(&drop, "ratio", 0.5F);
    attr_int(&drop, "is_test", 1);
    g = one_import(one_new("4"), drop, 6);
    ck_assert_int_eq(g->nodes[0].attrs.count, 0);
    trm_graph_destroy(g);
    attr_int(&gn, "num_groups", 2);
    g = one_import(one_new("4"), gn, 18);
    ck_assert_int_eq(trm_attr_int(&g->nodes[0].attrs, "per_group", 0), 1);
    trm_graph_destroy(g);
    g = one_import(one_new("4"), bn, 7);
    ck_assert_int_eq(g->nodes[0].output_count, 1);
    trm_graph_destroy(g);
    g = one_import(one_new("4"), roi, 10);
    ck_assert_str_eq(trm_attr_string(&g->nodes[0].attrs, "coordinate_transformation_mode", ""),
                     "output_half_pixel");
    trm_graph_destroy(g);
    g = one_import(one_new("1,4,1"), dft, 17);
    check_ints(g, &g->nodes[0], 2, 1, one_axis);
    trm_graph_destroy(g);
    attr_text(&cast, "to", "INT64");
    g = one_import(one_new("4"), cast, 1);
    ck_assert_int_eq(trm_attr_int(&g->nodes[0].attrs, "to", 0), 7);
    trm_graph_destroy(g);
    g = one_import(one_new("4"), sc, 9);
    ck_assert_int_eq(g->nodes[0].op, TRM_OP_ScatterElements);
    trm_graph_destroy(g);
    put_text(&gelu, 7, "com.microsoft");
    g = one_import(one_new("4"), gelu, 17);
    ck_assert_str_eq(trm_attr_string(&find_node(g, TRM_OP_Gelu)->attrs, "approximate", ""), "tanh");
    ck_assert_int_eq(find_node(g, TRM_OP_Gelu)->inputs[0], find_node(g, TRM_OP_Add)->outputs[0]);
    trm_graph_destroy(g);
}
END_TEST

/* ---- bodies ---- */
static msg branch(const char *op, const char *inputs)
{
    msg b = graph("branch");

    put_msg(&b, GRAPH_NODE, node(op, inputs, "out"));
    put_msg(&b, GRAPH_OUTPUT, value_info("out", ELEM_F32, NULL));
    return b;
}

static const trm_graph *body_of(const trm_node *n, const char *name)
{
    const trm_attr *a = trm_attr_find(&n->attrs, name);

    ck_assert_ptr_nonnull(a);
    ck_assert_int_eq(a->kind, TRM_ATTR_GRAPH);
    return a->v.graph;
}

START_TEST(if_captures)
{
    static const float w[2] = {1, 2};
    msg g = graph("g"), n = node("If", "c", "y");
    const trm_graph *then_graph, *else_graph;
    const trm_node *node_if;
    trm_graph *out;

    attr_graph(&n, "then_branch", branch("Add", "x,w"));
    attr_graph(&n, "else_branch", branch("Sub", "r,x"));
    put_msg(&g, GRAPH_INPUT, value_info("c", ELEM_BOOL, ""));
    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    put_msg(&g, GRAPH_INITIALIZER, tensor_raw("w", ELEM_F32, 1, d2, w, sizeof(w)));
    put_msg(&g, GRAPH_NODE, node("Relu", "x", "r"));
    put_msg(&g, GRAPH_NODE, n);
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, NULL));
    out = must_import(model(g, 13));
    node_if = find_node(out, TRM_OP_If);
    ck_assert_int_eq(trm_attr_int(&node_if->attrs, "captures", -1), 2);
    ck_assert_int_eq(trm_graph_parameter_count(out), 2);
    ck_assert_int_eq(node_if->input_count, 3); /* c, x, r: w is constant and shared */
    ck_assert_str_eq(out->values[node_if->inputs[1]].name, "x");
    ck_assert_str_eq(out->values[node_if->inputs[2]].name, "r");
    then_graph = body_of(node_if, "then_branch");
    else_graph = body_of(node_if, "else_branch");
    ck_assert_int_eq(then_graph->input_count, 2);
    ck_assert_int_eq(else_graph->input_count, 2);
    ck_assert_int_eq(then_graph->nodes[0].inputs[0], then_graph->inputs[0]);
    ck_assert(trm_graph_is_constant(then_graph, then_graph->nodes[0].inputs[1]));
    ck_assert_ptr_eq(then_graph->values[then_graph->nodes[0].inputs[1]].desc.data,
                     out->values[trm_graph_find_value(out, "w")].desc.data);
    ck_assert_int_eq(else_graph->nodes[0].inputs[0], else_graph->inputs[1]); /* r */
    ck_assert_int_eq(else_graph->nodes[0].inputs[1], else_graph->inputs[0]); /* x */
    trm_graph_destroy(out);
}
END_TEST

/* A loop whose body holds an If that reads a value of the top graph: captured through both. */
START_TEST(nested_captures)
{
    msg g = graph("g"), loop = node("Loop", "n,c,x", "y"), body = graph("body"),
        n = node("If", "cin", "v");
    const trm_graph *inner, *deep;
    const trm_node *l;
    trm_graph *out;

    attr_graph(&n, "then_branch", branch("Add", "s,r"));
    attr_graph(&n, "else_branch", branch("Relu", "s"));
    put_msg(&body, GRAPH_INPUT, value_info("i", ELEM_I64, ""));
    put_msg(&body, GRAPH_INPUT, value_info("cin", ELEM_BOOL, ""));
    put_msg(&body, GRAPH_INPUT, value_info("s", ELEM_F32, "2"));
    put_msg(&body, GRAPH_NODE, n);
    put_msg(&body, GRAPH_OUTPUT, value_info("cin", ELEM_BOOL, ""));
    put_msg(&body, GRAPH_OUTPUT, value_info("v", ELEM_F32, "2"));
    attr_graph(&loop, "body", body);
    put_msg(&g, GRAPH_INPUT, value_info("n", ELEM_I64, ""));
    put_msg(&g, GRAPH_INPUT, value_info("c", ELEM_BOOL, ""));
    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    put_msg(&g, GRAPH_NODE, node("Relu", "x", "r"));
    put_msg(&g, GRAPH_NODE, loop);
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, "2"));
    out = must_import(model(g, 16));
    l = find_node(out, TRM_OP_Loop);
    ck_assert_int_eq(l->input_count, 4);
    ck_assert_int_eq(trm_attr_int(&l->attrs, "captures", -1), 1);
    inner = body_of(l, "body");
    ck_assert_int_eq(inner->input_count, 4);
    ck_assert_int_eq(inner->nodes[0].input_count, 3); /* cin, s, r */
    ck_assert_int_eq(inner->nodes[0].inputs[2], inner->inputs[3]);
    deep = body_of(&inner->nodes[0], "then_branch");
    ck_assert_int_eq(deep->input_count, 2);
    ck_assert_ptr_eq(deep->root, out);
    trm_graph_destroy(out);
}
END_TEST

/* ---- functions ---- */
START_TEST(function_is_inlined)
{
    msg f = {NULL, 0, 0}, m, g = graph("g"), leaky = node("LeakyRelu", "a", "t");
    msg call = node("Twice", "p", "q"), outer_call = node("Wrap", "x", "y"), wrap = {NULL, 0, 0};
    trm_graph *out;

    attr_ref(&leaky, "alpha", 1, "slope");
    put_text(&f, 1, "Twice");
    put_text(&f, 10, "mine");
    put_text(&f, 4, "a");
    put_text(&f, 5, "b");
    put_text(&f, 6, "slope");
    put_msg(&f, 7, leaky);
    put_msg(&f, 7, node("Add", "t,t", "b"));
    put_opset(&f, 9, "", 13);
    put_text(&wrap, 1, "Wrap"); /* a function that calls the other; passes `slope` on */
    put_text(&wrap, 10, "mine");
    put_text(&wrap, 4, "p");
    put_text(&wrap, 5, "q");
    put_text(&outer_call, 7, "mine");
    attr_float(&outer_call, "s", 0.25F);
    put_text(&call, 7, "mine");
    attr_ref(&call, "slope", 1, "s");
    put_msg(&wrap, 7, call);
    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "2"));
    put_msg(&g, GRAPH_NODE, outer_call);
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, "2"));
    m = model(g, 13);
    put_opset(&m, 8, "mine", 1);
    put_msg(&m, 25, f);
    put_msg(&m, 25, wrap);
    out = must_import(m);
    ck_assert_int_eq(out->node_count, 2);
    ck_assert_int_eq(out->nodes[0].op, TRM_OP_LeakyRelu);
    ck_assert_float_eq(trm_attr_float(&out->nodes[0].attrs, "alpha", 0), 0.25F);
    ck_assert_int_eq(out->nodes[1].op, TRM_OP_Add);
    ck_assert_int_eq(out->nodes[1].outputs[0], out->outputs[0]);
    trm_graph_destroy(out);
}
END_TEST

/* ---- external data ---- */
START_TEST(external_data)
{
    static const float w[4] = {9, 1, 2, 3};
    static const double want[2] = {1, 2};
    char dir[] = "/tmp/trm-onnx-XXXXXX", path[200];
    msg g = graph("g"), t = tensor_head("w", ELEM_F32, 1, d2), m;
    trm_file *file = NULL;
    trm_graph *out = NULL;
    trm_tensor got;
    FILE *f;

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/w.bin", dir);
    f = fopen(path, "wb");
    ck_assert_int_eq((int)fwrite(w, sizeof(w), 1, f), 1);
    fclose(f);
    put_entry(&t, 13, "location", "w.bin");
    put_entry(&t, 13, "offset", "4");
    put_entry(&t, 13, "length", "8");
    put_int(&t, 14, 1);
    put_msg(&g, GRAPH_INITIALIZER, t);
    put_msg(&g, GRAPH_NODE, node("Relu", "w", "y"));
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, NULL));
    m = model(g, 13);
    snprintf(path, sizeof(path), "%s/m.onnx", dir);
    ck_assert_int_eq(trm_file_from_memory(m.data, m.bytes, path, &file), TRM_OK);
    ck_assert_msg(trm_onnx_import(file, &out) == TRM_OK, "%s", trm_message());
    trm_file_unref(file);
    ck_assert_int_eq(trm_graph_constant(out, trm_graph_find_value(out, "w"), &got), TRM_OK);
    check_elems(&got, 2, want);
    trm_graph_destroy(out);
    snprintf(path, sizeof(path), "%s/w.bin", dir);
    unlink(path);
    rmdir(dir);
    free(m.data);
}
END_TEST

/* Every allocation in turn fails: a status each time, nothing leaked. */
START_TEST(no_memory)
{
    static const float w[6] = {1, 2, 3, 4, 5, 6};
    msg g = graph("net"), m;
    trm_file *file = NULL;
    trm_graph *out = NULL;
    trm_status st = TRM_ERR_NO_MEMORY;
    int64_t live = trm_alloc_live();

    put_msg(&g, GRAPH_NODE, node("MatMul", "x,w", "y"));
    put_msg(&g, GRAPH_INITIALIZER, tensor_raw("w", ELEM_F32, 2, d23, w, sizeof(w)));
    put_msg(&g, GRAPH_INPUT, value_info("x", ELEM_F32, "batch,2"));
    put_msg(&g, GRAPH_OUTPUT, value_info("y", ELEM_F32, "batch,3"));
    m = model(g, 13);
    for (int64_t after = 0; st != TRM_OK; after++) {
        ck_assert_int_eq(trm_file_from_memory(m.data, m.bytes, "m", &file), TRM_OK);
        trm_alloc_fail_after(after);
        st = trm_onnx_import(file, &out);
        trm_alloc_fail_after(-1);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        if (st == TRM_OK)
            trm_graph_destroy(out);
        trm_file_unref(file);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    free(m.data);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("onnx");
    TCase *t = tcase_create("import");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, make_arena, clean_up);
    tcase_add_test(t, model_with_weight);
    tcase_add_loop_test(t, typed_fields, 0, 13);
    tcase_add_test(t, float_fields);
    tcase_add_test(t, empty_and_scalar);
    tcase_add_test(t, sparse_initializer);
    tcase_add_test(t, constant_nodes);
    tcase_add_loop_test(t, axes_become_inputs, 0, 6);
    tcase_add_test(t, slice_and_split_and_topk);
    tcase_add_test(t, clip_and_pad);
    tcase_add_test(t, clip_of_unknown_dtype);
    tcase_add_test(t, upsample_and_resize);
    tcase_add_test(t, softmax_flattens);
    tcase_add_test(t, old_broadcast);
    tcase_add_test(t, small_rewrites);
    tcase_add_test(t, if_captures);
    tcase_add_test(t, nested_captures);
    tcase_add_test(t, function_is_inlined);
    tcase_add_test(t, external_data);
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
