/* Language models divided among ranks: what is split, where, and that every weight is on one rank.
 * Shapes only; test_language_bits.c runs them. */
#include "tests/parallel/lm_kit.h"

#include "parallel/placement.h"
#include "parallel/planner.h"

static const lm_shape shapes[] = {
    {.name = "llama", .heads = 32, .kv = 8, .head = 8, .hidden = 64, .ffn = 352, .vocabulary = 259},
    {.name = "many heads",
     .heads = 8,
     .kv = 8,
     .head = 32,
     .hidden = 64,
     .ffn = 256,
     .vocabulary = 131,
     .qk_norm = true},
    {.name = "qwen",
     .heads = 14,
     .kv = 2,
     .head = 64,
     .hidden = 64,
     .ffn = 608,
     .vocabulary = 151,
     .biased = true,
     .tied = true},
    {.name = "smol",
     .heads = 9,
     .kv = 3,
     .head = 64,
     .hidden = 96,
     .ffn = 1536,
     .vocabulary = 97,
     .tied = true},
    {.name = "eight by four",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 288,
     .vocabulary = 64,
     .qk_norm = true,
     .window = 24},
    {.name = "experts",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 32,
     .vocabulary = 64,
     .experts = 24,
     .top_k = 4,
     .groups = 8},
    {.name = "transposed",
     .heads = 8,
     .kv = 8,
     .head = 32,
     .hidden = 64,
     .ffn = 256,
     .vocabulary = 64,
     .transposed = true,
     .biased = true},
    {.name = "q8_0",
     .heads = 14,
     .kv = 2,
     .head = 64,
     .hidden = 64,
     .ffn = 608,
     .vocabulary = 64,
     .weights = TRM_DTYPE_Q8_0},
    {.name = "q4_k",
     .heads = 32,
     .kv = 8,
     .head = 64,
     .hidden = 256,
     .ffn = 2048,
     .vocabulary = 64,
     .weights = TRM_DTYPE_Q4_K},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))
static const int group_sizes[] = {2, 3, 4, 5, 8};

static lm_shape shape_of(int i)
{
    lm_shape s = shapes[i];

    s.layers = 2;
    if (s.weights == TRM_DTYPE_NONE)
        s.weights = TRM_DTYPE_F32;
    return s;
}

typedef struct divided {
    net m;
    trm_arena *arena;
    trm_tensor *descs;
    trm_sharding *s;
    int *strategy;
} divided;

static divided divide(const lm_shape *shape, int ranks)
{
    divided d = {.m = lm_open(shape, 7)};
    trm_tensor inputs[4];

    lm_descs(6, 3, inputs);
    ck_assert_int_eq(trm_arena_create(0, &d.arena), TRM_OK);
    d.descs = trm_calloc((size_t)d.m.g->value_count + 1, sizeof(trm_tensor));
    d.strategy = trm_calloc((size_t)d.m.g->node_count + 1, sizeof(int));
    ck_assert_msg(trm_shapes_bind(d.m.g, inputs, d.arena, d.descs) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_sharding_create(d.m.g, d.descs, ranks, &d.s) == TRM_OK, "%s", trm_message());
    lm_strategy(d.s, d.strategy);
    return d;
}

static void drop(divided *d)
{
    trm_sharding_destroy(d->s);
    trm_arena_destroy(d->arena);
    trm_free(d->descs);
    trm_free(d->strategy);
    d->m.input_count = 0; /* they have no data */
    net_close(&d->m);
}

static const char *name_at(const divided *d, int node)
{
    return trm_strategy_name(d->s, node, d->strategy[node]);
}

/* ---- what is offered ---- */

static const struct offer {
    const char *shape;
    int ranks;
    const char *attention; /* chosen by lm_strategy */
    bool down;             /* the MLP's way down is a sum by the tree (or experts) */
} offers[] = {
    {"llama", 2, "kv heads", true},
    {"llama", 3, "kv heads", true},
    {"llama", 5, "kv heads", true},
    {"llama", 8, "kv heads", true},
    {"qwen", 2, "kv heads", true},
    {"qwen", 3, "query heads", true},
    {"qwen", 4, "query heads", true},
    {"qwen", 5, "query heads", true},
    {"qwen", 8, "query heads", true},
    {"smol", 2, "kv heads", true},
    {"smol", 3, "kv heads", true},
    {"smol", 4, "query heads", true},
    {"smol", 8, "query heads", true},
    {"eight by four", 2, "kv heads", true},
    {"eight by four", 3, "kv heads", true},
    {"eight by four", 4, "kv heads", true},
    {"eight by four", 5, "query heads", true},
    {"eight by four", 8, "query heads", true},
    {"many heads", 8, "kv heads", true},
    {"experts", 4, "kv heads", true},
    {"experts", 8, "query heads", true},
    {"transposed", 5, "kv heads", true},
    {"q8_0", 3, "query heads", true},
    {"q4_k", 4, "kv heads", true},
    {"q4_k", 2, "kv heads", true},
};

START_TEST(heads_and_sums)
{
    const struct offer *o = &offers[_i];
    lm_shape shape;
    divided d;
    int attention = 0, sums = 0, experts = 0;

    for (int i = 0; i < SHAPES; i++)
        if (strcmp(shapes[i].name, o->shape) == 0)
            shape = shape_of(i);
    d = divide(&shape, o->ranks);
    for (int n = 0; n < d.m.g->node_count; n++) {
        trm_op op = d.m.g->nodes[n].op;
        const trm_axis *a;

        if (op == TRM_OP_TrmPagedAttention) {
            ck_assert_msg(strcmp(name_at(&d, n), o->attention) == 0, "%s over %d ranks: %s",
                          o->shape, o->ranks, name_at(&d, n));
            attention++;
        }
        sums += op == TRM_OP_TrmLinear && strcmp(name_at(&d, n), "sum") == 0;
        experts += op == TRM_OP_TrmExperts && strcmp(name_at(&d, n), "experts") == 0;
        if (d.strategy[n] == 0 || !(a = &d.s->axes[n].axes[d.strategy[n] - 1])->tree)
            continue;
        /* whole results, parts that are whole leaves */
        ck_assert_int_eq(trm_sharding_yields(d.s, n, d.strategy[n], 0), TRM_FORM_WHOLE);
        ck_assert_int_eq(a->extent % a->unit, 0);
    }
    ck_assert_int_eq(attention, 2);
    ck_assert_int_eq(sums + experts, 4);
    drop(&d);
}
END_TEST

/* ---- lowered ---- */

static size_t bytes_at(const trm_tensor *t, int dim, int64_t i)
{
    return (size_t)i * trm_tensor_count(t, dim + 1, t->rank) / trm_dtype_block_elems(t->dtype) *
           trm_dtype_block_bytes(t->dtype);
}

/* Weights that are split: every element on one rank, in the order of ranks, as the file has it. */
static int check_parts(const divided *d, const spmd_rank *ranks)
{
    char name[256];
    int split = 0;

    for (int v = 0; v < d->m.g->value_count; v++) {
        const trm_tensor *whole = &d->m.g->values[v].desc;

        for (int dim = 0; whole->data != NULL && dim < whole->rank; dim++) {
            size_t row = bytes_at(whole, dim, whole->dims[dim]);
            int64_t at = 0;

            snprintf(name, sizeof(name), "%.200s:split%d", d->m.g->values[v].name, dim);
            if (trm_graph_find_value(ranks[0].g, name) < 0)
                continue;
            split++;
            for (int r = 0; r < d->s->ranks; r++) {
                trm_tensor part;
                size_t part_row;
                int local = trm_graph_find_value(ranks[r].g, name);

                ck_assert_int_ge(local, 0);
                ck_assert_int_eq(trm_graph_constant(ranks[r].g, local, &part), TRM_OK);
                ck_assert_int_gt(part.dims[dim], 0);
                part_row = bytes_at(&part, dim, part.dims[dim]);
                for (size_t o = 0; o < trm_tensor_count(whole, 0, dim); o++)
                    ck_assert_mem_eq((const char *)part.data + o * part_row,
                                     (const char *)whole->data + o * row + bytes_at(whole, dim, at),
                                     part_row);
                at += part.dims[dim];
            }
            ck_assert_int_eq(at, whole->dims[dim]);
        }
    }
    return split;
}

static void check_tree(const divided *d, const spmd_rank *ranks, int node)
{
    int64_t next = 0, leaves = 0, most = 0;

    for (int r = 0; r < d->s->ranks; r++) {
        const trm_graph *g = ranks[r].g;
        const trm_node *n = &g->nodes[node];
        const trm_node *maker = &g->nodes[g->values[n->inputs[0]].producer];
        int64_t count = trm_attr_int(&n->attrs, "count", -1), k, each;
        const trm_tensor *nodes = &g->values[n->inputs[0]].desc;
        trm_tree_part parts[TRM_TREE_PARTS_MAX];

        leaves = trm_attr_int(&n->attrs, "leaves", -1);
        most = trm_attr_int(&n->attrs, "most", -1);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "first", -1), next);
        ck_assert_int_gt(count, 0);
        ck_assert_int_eq(nodes->rank, 3);
        ck_assert_int_eq(nodes->dims[0], trm_tree_parts((int)next, (int)count, (int)leaves, parts));
        ck_assert_int_ge(most, nodes->dims[0]);
        if (maker->op == TRM_OP_TrmLinear) {
            bool transposed = trm_attr_int(&maker->attrs, "transposed", 0) != 0;

            ck_assert_int_eq(maker->input_count, 2);
            each = trm_attr_int(&maker->attrs, "unit", 0);
            k = g->values[maker->inputs[1]].desc.dims[transposed ? 0 : 1];
            ck_assert_int_eq(k, g->values[maker->inputs[0]].desc.dims[1]);
            ck_assert_int_eq(trm_attr_int(&maker->attrs, "first", -1), next);
        } else {
            ck_assert_int_eq(maker->op, TRM_OP_TrmExperts);
            each =
                g->values[maker->inputs[1]].desc.dims[1] / trm_attr_int(&maker->attrs, "groups", 1);
            k = g->values[maker->inputs[2]].desc.dims[0];
            ck_assert_int_eq(trm_attr_int(&maker->attrs, "first", -1), next * each);
        }
        ck_assert_int_eq(k, count * each); /* whole leaves */
        ck_assert_int_eq(trm_attr_int(&maker->attrs, "leaves", -1), leaves);
        next += count;
    }
    ck_assert_int_eq(next, leaves);
}

/* Heads add up, and each query head finds its key head here. */
static void check_heads(const divided *d, const spmd_rank *ranks, int node, const char *how,
                        const lm_shape *shape)
{
    int64_t heads = 0, group = shape->heads / shape->kv;

    for (int r = 0; r < d->s->ranks; r++) {
        const trm_graph *g = ranks[r].g;
        const trm_node *n = &g->nodes[node];
        int64_t mine = trm_attr_int(&n->attrs, "heads", 0),
                kv = trm_attr_int(&n->attrs, "kv_heads", 0),
                first = trm_attr_int(&n->attrs, "first_head", 0);

        ck_assert_int_eq(trm_attr_int(&n->attrs, "group", 0), group);
        ck_assert_int_eq(g->values[n->inputs[0]].desc.dims[1], mine * shape->head);
        ck_assert_int_eq(g->values[n->inputs[1]].desc.dims[1], kv * shape->head);
        ck_assert_int_eq(g->values[n->outputs[0]].desc.dims[1], mine * shape->head);
        if (strcmp(how, "query heads") == 0) {
            const trm_node *keys = &g->nodes[g->values[n->inputs[1]].producer];
            int64_t begin = trm_tensor_get_i64(&g->values[keys->inputs[1]].desc, 0);

            /* just the key heads that are read */
            ck_assert_int_eq(first, heads);
            ck_assert_int_eq(kv, (first + mine - 1) / group - first / group + 1);
            ck_assert_int_eq(keys->op, TRM_OP_Slice);
            ck_assert_int_eq(begin, first / group * shape->head);
        } else {
            ck_assert_int_eq(first, 0);
            ck_assert_int_eq(mine, kv * group);
        }
        heads += mine;
    }
    ck_assert_int_eq(heads, shape->heads);
}

START_TEST(every_rank)
{
    lm_shape shape = shape_of(_i % SHAPES);
    int count = group_sizes[_i / SHAPES], trees = 0, attention = 0;
    divided d = divide(&shape, count);
    spmd_rank ranks[SPMD_RANKS_MAX] = {{0}};
    const char *how = "";

    for (int n = 0; n < d.m.g->node_count; n++)
        if (d.m.g->nodes[n].op == TRM_OP_TrmPagedAttention)
            how = name_at(&d, n);
    for (int r = 0; r < count; r++)
        ck_assert_msg(trm_lower(d.s, d.strategy, r, &ranks[r].g) == TRM_OK, "%s: rank %d: %s",
                      shape.name, r, trm_message());
    spmd_check_structure(ranks, count);
    ck_assert_int_gt(check_parts(&d, ranks), 4);
    for (int n = 0; n < ranks[0].g->node_count; n++) {
        trm_op op = ranks[0].g->nodes[n].op;

        /* nothing is summed in another order */
        ck_assert(op != TRM_OP_TrmAllReduce && op != TRM_OP_TrmReduceScatter);
        if (op == TRM_OP_TrmReduceTree) {
            check_tree(&d, ranks, n);
            trees++;
        }
        if (op == TRM_OP_TrmPagedAttention) {
            check_heads(&d, ranks, n, how, &shape);
            attention++;
        }
    }
    ck_assert_int_eq(trees, 4);
    ck_assert_int_eq(attention, 2);
    for (int r = 0; r < count; r++)
        trm_graph_destroy(ranks[r].g);
    drop(&d);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language");
    TCase *c = tcase_create("shapes");
    SRunner *r;
    int failed;

    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, heads_and_sums, 0, (int)(sizeof(offers) / sizeof(offers[0])));
    tcase_add_loop_test(c, every_rank, 0,
                        SHAPES * (int)(sizeof(group_sizes) / sizeof(group_sizes[0])));
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
