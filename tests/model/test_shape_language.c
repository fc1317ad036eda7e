/* Shape rules of the operators of language models, table-driven. Shapes are texts: "f32[t,8]", a
 * letter being a symbol, "?" unknown, "f32*" of unknown rank, "-" absent. */
#include "base/tree.h"
#include "model/shape/shape.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MAX 9
#define OUTPUTS 4

/* Attributes: up to six integers, and one text. */
typedef struct attr {
    const char *name;
    int64_t value;
} attr;
typedef struct row {
    trm_op op;
    const char *inputs, *output; /* a shape an output; "!text": an error that says so */
    attr ints[8];
    const char *text_name, *text;
} row;

#define HEADS                                                                                      \
    {"heads", 4}, {"kv_heads", 2},                                                                 \
    {                                                                                              \
        "head_dim", 8                                                                              \
    }

static const row rows[] = {
    {TRM_OP_TrmEmbed, "i32[t] f32[100,8]", "f32[t,8]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmEmbed, "i32[t] q4_0[100,64]", "f32[t,64]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmEmbed, "i32* bf16*", "f32[?,?]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmEmbed, "i64[t] f32[100,8]", "!want i32", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmEmbed, "i32[t] i8[100,8]", "!block type", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmEmbed, "i32[t,1] f32[100,8]", "!rank 2", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmEmbed, "i32[t] f32[100]", "!rank 1", {{NULL, 0}}, NULL, NULL},

    {TRM_OP_TrmNorm, "f32[t,8] f32[8]", "f32[t,8]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmNorm, "f32[t,8] f32[2] f32[2]", "f32[t,8]", {{NULL, 0}}, "kind", "layer"},
    {TRM_OP_TrmNorm, "f32* f32[2]", "f32*", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmNorm, "f32[t,8] f32[3]", "!does not divide", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmNorm, "f32[t,8] f32[0]", "!does not divide", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmNorm, "f32[t,8] f32[8] f32[4]", "!weight and bias", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmNorm, "f32[t,8] f32[8]", "!'group'", {{NULL, 0}}, "kind", "group"},

    {TRM_OP_TrmNorm, "f32[t,8] f32[8]", "bf16[t,8]", {{NULL, 0}}, "rounds", "bf16"},
    {TRM_OP_TrmNorm, "f32[t,8] f32[8]", "u8[t,40]", {{"row_bytes", 40}}, "rounds", "i8"},
    {TRM_OP_TrmNorm, "f32* f32[8]", "u8*", {{"row_bytes", 40}}, "rounds", "i8"},
    {TRM_OP_TrmNorm, "f32[t,8] f32[8]", "!row_bytes", {{NULL, 0}}, "rounds", "i8"},
    {TRM_OP_TrmNorm, "f32[t,8] f32[8]", "!'rounds' is 'f8'", {{NULL, 0}}, "rounds", "f8"},

    {TRM_OP_TrmLinear, "f32[t,8] f32[5,8]", "f32[t,5]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "bf16[t,8] bf16[5,8]", "f32[t,5]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "u8[t,40] q8_0[5,64] f32[5]", "f32[t,5]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "u8[t,40] q8_0[5,64]", "f32[t,5]", {{"unit", 32}}, NULL, NULL},
    {TRM_OP_TrmLinear, "i8[t,8] f32[5,8]", "!want f32", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f16[t,9] f16[5,8]", "!must be equal", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,64] q8_0[5,64] f32[5]", "f32[t,5]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,8] f32[8,5]", "f32[t,5]", {{"transposed", 1}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,8] f32[8,5]", "!must be equal", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,8] f32[5,8] f32[6]", "!bias", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,96] f32[5,96] f32[5]", "f32[t,5]", {{"unit", 32}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,96] f32[5,96]", "!whole units", {{"unit", 36}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,96] f32[5,96]", "!unit", {{"unit", -1}}, NULL, NULL},
    {TRM_OP_TrmLinear, "f32[t,9600] f32[5,9600]", "!at most 128", {{"unit", 32}}, NULL, NULL},
    {TRM_OP_TrmLinear,
     "f32[t,96] f32[5,96]",
     "f32[2,t,5]", /* leaves 2, 3, 4 of 8: nodes [2, 4) and [4, 5) */
     {{"unit", 32}, {"first", 2}, {"leaves", 8}},
     NULL,
     NULL},
    {TRM_OP_TrmLinear,
     "f32[t,?] f32[5,?]",
     "f32[?,t,5]",
     {{"unit", 32}, {"first", 2}, {"leaves", 8}},
     NULL,
     NULL},
    {TRM_OP_TrmLinear,
     "f32[t,96] f32[5,96]",
     "!3 leaves from 6 on, of 8",
     {{"unit", 32}, {"first", 6}, {"leaves", 8}},
     NULL,
     NULL},
    {TRM_OP_TrmLinear,
     "f32[t,96] f32[5,96]",
     "!at most 128",
     {{"unit", 32}, {"first", INT64_MAX}, {"leaves", INT64_MAX}},
     NULL,
     NULL},
    {TRM_OP_TrmLinear,
     "f32[t,96] f32[5,96] f32[5]",
     "!no bias",
     {{"unit", 32}, {"first", 0}, {"leaves", 8}},
     NULL,
     NULL},
    {TRM_OP_TrmLinear, "f32[t,96] f32[5,96]", "!needs a unit", {{"leaves", 8}}, NULL, NULL},

    {TRM_OP_TrmRope, "f32[t,32] i32[t] f32[4]", "f32[t,32]", {{"head_dim", 8}}, NULL, NULL},
    {TRM_OP_TrmRope, "f32[t,32] i32[t] f32[4]", "!'head_dim' is 0", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmRope, "f32[t,32] i32[t] f32[5]", "!at most half", {{"head_dim", 8}}, NULL, NULL},
    {TRM_OP_TrmRope, "f32[t,33] i32[t] f32[4]", "!does not divide", {{"head_dim", 8}}, NULL, NULL},
    {TRM_OP_TrmRope, "f32[3,32] i32[4] f32[4]", "!positions", {{"head_dim", 8}}, NULL, NULL},

    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1]",
     "f32[t,32]",
     {HEADS},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1] f32[4]",
     "f32[t,32]",
     {HEADS, {"group", 3}, {"first_head", 2}},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1]",
     "!key heads",
     {HEADS, {"group", 2}, {"first_head", 5}},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1]",
     "!key heads",
     {HEADS, {"first_head", INT64_MAX}},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,24] f32[t,16] i64[1]",
     "!24 columns",
     {HEADS},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[3,32] f32[3,16] f32[4,16] i64[1]",
     "!rows of k and v",
     {HEADS},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1] f32[5]",
     "!sinks",
     {HEADS},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1]",
     "!window -1",
     {HEADS, {"window", -1}},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1]",
     "!heads",
     {{NULL, 0}},
     NULL,
     NULL},

    {TRM_OP_TrmGated, "f32[t,8] f32[t,8]", "f32[t,8]", {{NULL, 0}}, "act", "silu"},
    {TRM_OP_TrmGated, "f32[t,8]", "f32[t,8]", {{NULL, 0}}, "act", "gelu_tanh"},
    {TRM_OP_TrmGated, "f32[?,8] f32[t,?]", "f32[t,8]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmGated, "f32[t,8] f32[t,9]", "!must be equal", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmGated, "f32[t,8]", "!'selu'", {{NULL, 0}}, "act", "selu"},

    {TRM_OP_TrmAddNorm,
     "f32[t,8] f32[t,8] f32[8]",
     "f32[t,8] f32[t,8]",
     {{NULL, 0}},
     "kind",
     "layer"},
    {TRM_OP_TrmAddNorm,
     "f32[?,8] f32[t,?] f32[8] f32[8]",
     "f32[t,8] f32[t,8]",
     {{NULL, 0}},
     NULL,
     NULL},
    {TRM_OP_TrmAddNorm,
     "f32[t,8] f32[t,8] f32[8]",
     "f32[t,8] f16[t,8]",
     {{NULL, 0}},
     "rounds",
     "f16"},
    {TRM_OP_TrmAddNorm, "f32* f32* f32[8]", "f32* f32*", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmAddNorm, "f32[t,8] f32[t,9] f32[8]", "!dims of x and y", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmAddNorm, "f32[t,8] f32[t,8] f32[4]", "!columns of x", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmAddNorm, "f32[t,8] f32[t,8] f32[8] f32[4]", "!columns", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmAddNorm, "f32[t,8] f32[8] f32[8]", "!rank 1", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmAddNorm, "f32[t,8] f32[t,8] f32[8]", "!'rows'", {{NULL, 0}}, "kind", "rows"},

    {TRM_OP_TrmLinears,
     "f32[t,8] f32[5,8] f32[3,8] f32[4,8]",
     "f32[t,5] f32[t,3] f32[t,4]",
     {{"n", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmLinears,
     "f32[t,8] f32[8,5] f32[8,3] f32[5] f32[3]",
     "f32[t,5] f32[t,3]",
     {{"n", 2}, {"transposed", 1}},
     NULL,
     NULL},
    {TRM_OP_TrmLinears,
     "f32[t,32] q8_0[5,32] q8_0[?,32] q8_0[2,32] q8_0[1,32] f32[5] f32[3] f32[2] f32[1]",
     "f32[t,5] f32[t,3] f32[t,2] f32[t,1]",
     {{"n", 4}},
     NULL,
     NULL},
    {TRM_OP_TrmLinears, "f32[t,8] bf16[5,8] bf16[5,8]", "f32[t,5]", {{"n", 2}}, "gated", "silu"},
    {TRM_OP_TrmLinears,
     "f32[t,8] bf16[5,8] bf16[4,8]",
     "!outputs of both",
     {{"n", 2}},
     "gated",
     "silu"},
    {TRM_OP_TrmLinears, "f32[t,8] f32[5,8] f32[5,8]", "!'selu'", {{"n", 2}}, "gated", "selu"},
    {TRM_OP_TrmLinears,
     "f32[t,8] f32[5,8] f32[5,8] f32[5,8]",
     "!want one of two",
     {{"n", 3}},
     "gated",
     "silu"},
    {TRM_OP_TrmLinears, "f32[t,8] f32[5,8] f32[3,9]", "!of a weight", {{"n", 2}}, NULL, NULL},
    {TRM_OP_TrmLinears, "f32[t,8] f32[5,8] f32[3,8] f32[5]", "!4 inputs", {{"n", 2}}, NULL, NULL},
    {TRM_OP_TrmLinears, "f32[t,8] f32[5,8] f32[3,8]", "!n = 0", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmLinears,
     "f32[t,8] f32[5,8] f32[3,8] f32[5] f32[5]",
     "!outputs and bias",
     {{"n", 2}},
     NULL,
     NULL},
    {TRM_OP_TrmLinears, "f32[t,8] i8[5,8] f32[3,8]", "!block type", {{"n", 2}}, NULL, NULL},

    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1] - i32[t] f32[4]",
     "f32[t,32]",
     {HEADS},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1] f32[4] i32[t] f32[5]",
     "!at most half",
     {HEADS},
     NULL,
     NULL},
    {TRM_OP_TrmPagedAttention,
     "f32[t,32] f32[t,16] f32[t,16] i64[1] - i32[t]",
     "!without frequencies",
     {HEADS},
     NULL,
     NULL},

    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[6,5,8] f32[6,5,8] f32[6,8,5]",
     "f32[t,8]",
     {{"top_k", 2}, {"groups", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[4,5,8] f32[4,5,8] f32[4,8,5]",
     "f32[2,t,8]", /* groups 0 and 1 of 3: nodes [0, 1) and [1, 2) */
     {{"top_k", 2}, {"groups", 3}, {"leaves", 3}, {"first", 0}},
     NULL,
     NULL},
    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[4,5,8] f32[4,5,8] f32[4,8,5]",
     "f32[1,t,8]",
     {{"top_k", 2}, {"groups", 3}, {"leaves", 3}, {"first", 2}},
     NULL,
     NULL},
    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[4,5,8] f32[4,5,8] f32[4,8,5]",
     "!whole groups",
     {{"top_k", 2}, {"groups", 3}, {"leaves", 3}, {"first", 1}},
     NULL,
     NULL},
    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[4,5,8] f32[4,5,8] f32[4,8,5]",
     "!experts and columns",
     {{"top_k", 2}},
     NULL,
     NULL},
    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[6,5,8] f32[6,5,8] f32[6,8,5]",
     "!top_k 7",
     {{"top_k", 7}},
     NULL,
     NULL},
    {TRM_OP_TrmExperts,
     "f32[t,8] f32[t,6] f32[6,5,8] f32[6,5,8] f32[6,5,8]",
     "!gate and down",
     {{"top_k", 2}},
     NULL,
     NULL},

    {TRM_OP_TrmRows, "f32[t,8] i32[r]", "f32[r,8]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmRows, "f32[t,8] i64[r]", "!want i32", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmPool, "f32[t,8] i64[s]", "f32[s,8]", {{NULL, 0}}, "kind", "cls"},
    {TRM_OP_TrmPool, "f32[t,8] i64[s]", "!'max'", {{NULL, 0}}, "kind", "max"},

    {TRM_OP_TrmSample, "f32[r,50] i64[1]", "u8[r,176]", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmSample, "f32[r,50] i32[1]", "!want i64", {{NULL, 0}}, NULL, NULL},
    {TRM_OP_TrmSample, "f16[r,50] i64[1]", "!want f32", {{NULL, 0}}, NULL, NULL},

    {TRM_OP_TrmReduceTree,
     "f32[2,t,5]",
     "f32[t,5]",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmReduceTree,
     "f32[3,t,5]",
     "!parts",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmReduceTree, "f32[2,t,5]", "!leaves", {{"leaves", 8}}, NULL, NULL},
    {TRM_OP_TrmReduceTree,
     "f32[2,t,5] f32[t,5] f32[5]",
     "f32[t,5] f32[t,5]",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmReduceTree,
     "f32[2,t,5] f32* f32[5] f32[5]",
     "f32[t,5] f32[t,5]",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     "kind",
     "layer"},
    {TRM_OP_TrmReduceTree,
     "f32[2,t,5] f32[t,5]",
     "!without the norm's weight",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmReduceTree,
     "f32[2,t,5] f32[t,6] f32[5]",
     "!the residual",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmReduceTree,
     "f32[2,t,5] f32[t,5] f32[4]",
     "!the weights",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     NULL,
     NULL},
    {TRM_OP_TrmReduceTree,
     "f32[2,t,5] f32[t,5] f32[5]",
     "!'group'",
     {{"leaves", 8}, {"first", 2}, {"count", 3}},
     "kind",
     "group"},
};

/* One tensor at *s, which moves behind it. */
static trm_tensor read_one(trm_graph *g, const char **s)
{
    trm_tensor t = {.rank = -1};
    char dtype[8] = "";
    size_t n = strcspn(*s, "[*- ");

    if (**s == '-') {
        *s += 1;
        return t;
    }
    memcpy(dtype, *s, n);
    t.dtype = trm_dtype_from_name(dtype);
    ck_assert_msg(t.dtype != TRM_DTYPE_NONE, "dtype %s", dtype);
    *s += n;
    if (*(*s)++ == '*')
        return t;
    for (t.rank = 0; (*s)[-1] != ']'; t.rank++) {
        int64_t *dim = &t.dims[t.rank];
        char *end;

        if (**s >= 'a') {
            ck_assert_int_eq(trm_graph_symbol(g, (char[2]){**s, '\0'}, dim), TRM_OK);
            *s += 2;
        } else if (**s == '?') {
            *dim = TRM_DIM_UNKNOWN;
            *s += 2;
        } else {
            *dim = strtoll(*s, &end, 10);
            *s = end + 1;
        }
    }
    return t;
}

/* As many outputs as the row lists, or the operator makes. */
static int outputs_of(const row *r)
{
    int count = trm_op_get(r->op)->out_min;

    for (const attr *a = r->ints; a->name != NULL; a++)
        if (r->op == TRM_OP_TrmLinears && r->text == NULL && strcmp(a->name, "n") == 0)
            count = (int)a->value;
    if (r->output[0] == '!')
        return count;
    count = 1;
    for (const char *s = r->output; *s != '\0'; s++)
        count += *s == ' ';
    return count;
}

START_TEST(rule)
{
    const row *r = &rows[_i];
    const char *name = trm_op_get(r->op)->name, *s = r->inputs;
    trm_tensor in[MAX], out[OUTPUTS] = {{.rank = -1}, {.rank = -1}, {.rank = -1}, {.rank = -1}};
    int ids[MAX], made[OUTPUTS] = {MAX, MAX + 1, MAX + 2, MAX + 3};
    trm_node node = {
        .op = r->op, .name = "node", .inputs = ids, .outputs = made, .output_count = outputs_of(r)};
    trm_graph *g;
    trm_shape_io io;
    trm_status st;

    ck_assert_int_le(node.output_count, OUTPUTS);
    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    while (*s != '\0') {
        ck_assert_int_lt(node.input_count, MAX);
        in[node.input_count] = read_one(g, &s);
        ids[node.input_count] =
            in[node.input_count].dtype == TRM_DTYPE_NONE ? TRM_NO_VALUE : node.input_count;
        node.input_count++;
        s += *s == ' ';
    }
    for (const attr *a = r->ints; a->name != NULL; a++)
        ck_assert_int_eq(trm_attr_set_int(&node.attrs, g->arena, a->name, a->value), TRM_OK);
    if (r->text != NULL)
        ck_assert_int_eq(trm_attr_set_string(&node.attrs, g->arena, r->text_name, r->text), TRM_OK);
    io = (trm_shape_io){.graph = g, .node = &node, .in = in, .out = out};
    st = trm_shape_infer(&io);
    if (r->output[0] == '!') {
        ck_assert_msg(st == TRM_ERR_INVALID_ARG, "%s %s: status %d", name, r->inputs, (int)st);
        ck_assert_msg(strstr(trm_message(), r->output + 1) != NULL, "%s: '%s' lacks '%s'", name,
                      trm_message(), r->output + 1);
    }
    s = r->output;
    for (int k = 0; r->output[0] != '!' && k < node.output_count; k++) {
        char got[TRM_SHAPE_TEXT_BYTES], want[TRM_SHAPE_TEXT_BYTES];
        trm_tensor t = read_one(g, &s);

        s += *s == ' ';
        ck_assert_msg(st == TRM_OK, "%s %s: %s", name, r->inputs, trm_message());
        ck_assert_msg(out[k].dtype == t.dtype && out[k].rank == t.rank &&
                          (t.rank < 0 || trm_tensor_same_shape(&out[k], &t)),
                      "%s %s: output %d is %s, want %s", name, r->inputs, k,
                      trm_tensor_shape_text(&out[k], got, sizeof(got)),
                      trm_tensor_shape_text(&t, want, sizeof(want)));
    }
    trm_graph_destroy(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("shape rules of language models");
    TCase *t = tcase_create("rules");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, rule, 0, (int)(sizeof(rows) / sizeof(rows[0])));
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
