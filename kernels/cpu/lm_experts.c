/* TrmExperts: see kernels/language.h. Tokens are grouped by expert, so that an expert's three
 * products run over all its tokens at once; since a row's bits do not depend on the rows beside it
 * (lm_linear.h), a token gets what it would get alone.
 *
 * Rows go through the products in waves of at most WAVE, which bounds what lies between the
 * products whatever the batch; weights are read once a wave, and a wave of that size hides it. */
#include "kernels/cpu/lm_experts.h"

#include "base/f8.h"
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

#include <string.h>

#define WAVE ((size_t)1024)
#define TOKENS_MAX ((size_t)1 << 20)

enum { IN_X, IN_ROUTER, IN_GATE, IN_UP, IN_DOWN, IN_COUNT };
enum { GATE, UP, DOWN, WEIGHTS };

typedef struct lm_experts {
    trm_kernel base;
    trm_cpu *cpu;
    trmi_experts_shape shape;
    size_t features;       /* of an expert */
    size_t rows_max, wave; /* all rows, rows of a wave */
    trmi_lm_act act;
    trmi_lm_leaves whole[WEIGHTS]; /* K in one go */
    const trmi_lm_type *types[WEIGHTS];
    trmi_lm_weight *weights[WEIGHTS]; /* [local] each */
    trmi_pack *packs[WEIGHTS];
} lm_experts;

/* The workspace, cut up. */
typedef struct space {
    trmi_experts_routes routes;
    const void **x[2];     /* [tokens] converted, for gate and up */
    const void **rows[3];  /* [wave] of each product's input */
    void *converted[3];    /* [tokens], [tokens], [wave] */
    float *gate, *up;      /* [wave, features] */
    float *y;              /* [rows_max, width] */
    trmi_lm_product *todo; /* [2 * (local + 1)] */
    unsigned char *memory; /* NULL: only counts */
    size_t at;
    bool overflow;
} space;

static void *take(space *s, size_t count, size_t each)
{
    size_t from = s->at, bytes;

    if (!trm_mul_ok(count, each, &bytes) || !trm_add_ok(bytes, s->at, &s->at) ||
        !trm_add_ok(s->at, 63, &s->at))
        s->overflow = true;
    s->at = s->at / 64 * 64;
    return s->memory == NULL ? NULL : s->memory + from;
}

static size_t row_stride(const lm_experts *k, int weight)
{
    return trmi_lm_row_stride(k->types[weight], weight == DOWN ? k->features : k->shape.width);
}

/* gate and up read the same converted rows */
static bool rows_shared(const lm_experts *k)
{
    return k->types[GATE]->convert == k->types[UP]->convert;
}

static space cut(const lm_experts *k, void *memory)
{
    const trmi_experts_shape *e = &k->shape;
    space s = {.memory = memory};

    s.routes.scores = take(&s, e->tokens * e->all, sizeof(float));
    s.routes.chosen = take(&s, e->tokens * e->top_k, sizeof(int32_t));
    s.routes.shares = take(&s, e->tokens * e->top_k, sizeof(float));
    s.routes.rows = take(&s, e->tokens * e->top_k, sizeof(int32_t));
    s.routes.starts = take(&s, e->local + 1, sizeof(size_t));
    s.routes.tokens = take(&s, k->rows_max, sizeof(int32_t));
    for (int i = 0; i < 2; i++) {
        s.x[i] = take(&s, e->tokens, sizeof(void *));
        s.converted[i] = take(&s, i == UP && rows_shared(k) ? 0 : e->tokens, row_stride(k, i));
    }
    for (int i = 0; i < 3; i++)
        s.rows[i] = take(&s, k->wave, sizeof(void *));
    s.converted[DOWN] = take(&s, k->wave, row_stride(k, DOWN));
    s.gate = take(&s, k->wave, k->features * sizeof(float));
    s.up = take(&s, k->wave, k->features * sizeof(float));
    s.y = take(&s, k->rows_max, e->width * sizeof(float));
    s.todo = take(&s, 2 * (e->local + 1), sizeof(trmi_lm_product));
    return s;
}

typedef struct act_job {
    trmi_lm_act act;
    float *gate;
    const float *up;
} act_job;

/* gate = act(gate) * up */
static void act_range(void *ctx, size_t begin, size_t end)
{
    const act_job *job = ctx;

    trmi_lm_rows_get()->act[job->act](1.0f, end - begin, job->gate + begin, job->gate + begin,
                                      job->up + begin);
}

/* Products of weights `which` for rows [begin, end), which lie from rows[which][0] and out on. */
static void add_products(const lm_experts *k, space *s, int which, size_t begin, size_t end,
                         float *out, size_t *count)
{
    const size_t *starts = s->routes.starts;

    for (size_t e = 0; e < k->shape.local; e++) {
        size_t from = starts[e] > begin ? starts[e] : begin;
        size_t to = starts[e + 1] < end ? starts[e + 1] : end;
        const trmi_lm_weight *w = &k->weights[which][e];

        if (from < to)
            s->todo[(*count)++] = (trmi_lm_product){.weight = w,
                                                    .leaves = &k->whole[which],
                                                    .rows = s->rows[which] + (from - begin),
                                                    .m = to - from,
                                                    .out = out + (from - begin) * w->n,
                                                    .out_stride = w->n};
    }
}

static void run_wave(const lm_experts *k, space *s, size_t begin, size_t end)
{
    size_t rows = end - begin, count = 0;
    act_job job = {k->act, s->gate, s->up};

    for (size_t i = 0; i < rows; i++) {
        int32_t t = s->routes.tokens[begin + i];

        s->rows[GATE][i] = s->x[GATE][t];
        s->rows[UP][i] = s->x[UP][t];
    }
    add_products(k, s, GATE, begin, end, s->gate, &count);
    add_products(k, s, UP, begin, end, s->up, &count);
    trmi_lm_products_run(s->todo, count);
    trm_team_for(rows * k->features, TRMI_GRAIN, act_range, &job);
    trmi_lm_rows_convert(k->types[DOWN], s->gate, k->features, rows, k->features,
                         s->converted[DOWN], s->rows[DOWN]);
    count = 0;
    add_products(k, s, DOWN, begin, end, s->y + begin * k->shape.width, &count);
    trmi_lm_products_run(s->todo, count);
}

static trm_status experts_run(trm_kernel *base, trm_stream *stream, const void *const *in,
                              void *const *out, void *workspace)
{
    const lm_experts *k = (const lm_experts *)base;
    const trmi_experts_shape *e = &k->shape;
    space s = cut(k, workspace);
    size_t rows;

    (void)stream;
    if (e->tokens == 0)
        return TRM_OK;
    trmi_experts_route(e, in[IN_ROUTER], &s.routes);
    trmi_lm_rows_convert(k->types[GATE], in[IN_X], e->width, e->tokens, e->width, s.converted[GATE],
                         s.x[GATE]);
    if (rows_shared(k))
        s.x[UP] = s.x[GATE];
    else
        trmi_lm_rows_convert(k->types[UP], in[IN_X], e->width, e->tokens, e->width, s.converted[UP],
                             s.x[UP]);
    rows = s.routes.starts[e->local];
    for (size_t begin = 0; begin < rows; begin += k->wave)
        run_wave(k, &s, begin, rows - begin < k->wave ? rows : begin + k->wave);
    trmi_experts_combine(e, &s.routes, s.y, out[0]);
    return TRM_OK;
}

static void experts_destroy(trm_kernel *base)
{
    lm_experts *k = (lm_experts *)base;

    for (int i = 0; i < WEIGHTS; i++) {
        if (k->packs[i] != NULL)
            trmi_cpu_pack_release(k->cpu, k->packs[i]);
        trm_free(k->weights[i]);
    }
    trm_free(k);
}

static const trm_kernel_ops experts_ops = {
    .name = "lm experts", .run = experts_run, .destroy = experts_destroy};

/* shapes and dtypes: [E, F, D] twice and [E, D, F] */
static trm_status check_shapes(const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[IN_X], *router = &desc->inputs[IN_ROUTER];
    const trm_tensor *gate = &desc->inputs[IN_GATE], *up = &desc->inputs[IN_UP];
    const trm_tensor *down = &desc->inputs[IN_DOWN];
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES], c[TRM_SHAPE_TEXT_BYTES];

    if (desc->input_count != IN_COUNT)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %d inputs, want %d", desc->name,
                        desc->input_count, IN_COUNT);
    if (x->dtype != TRM_DTYPE_F32 || router->dtype != TRM_DTYPE_F32 ||
        desc->outputs[0].dtype != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmExperts '%s': %s, %s to %s, want f32", desc->name,
                        trm_dtype_name(x->dtype), trm_dtype_name(router->dtype),
                        trm_dtype_name(desc->outputs[0].dtype));
    if (x->rank != 2 || router->rank != 2 || x->dims[0] != router->dims[0] ||
        (size_t)x->dims[0] > TOKENS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': x %s and router %s", desc->name,
                        trm_tensor_shape_text(x, a, sizeof(a)),
                        trm_tensor_shape_text(router, b, sizeof(b)));
    if (gate->rank != 3 || down->rank != 3 || !trm_tensor_same_shape(gate, up) ||
        gate->dims[0] != down->dims[0] || gate->dims[1] != down->dims[2] ||
        gate->dims[2] != down->dims[1] || gate->dims[2] != x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmExperts '%s': gate %s, up %s, down %s, want [E, F, D] twice and "
                        "[E, D, F]",
                        desc->name, trm_tensor_shape_text(gate, a, sizeof(a)),
                        trm_tensor_shape_text(up, b, sizeof(b)),
                        trm_tensor_shape_text(down, c, sizeof(c)));
    for (int i = IN_GATE; i <= IN_DOWN; i++)
        if ((size_t)desc->inputs[i].dims[2] % trm_dtype_block_elems(desc->inputs[i].dtype) != 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %s of %lld, want whole blocks",
                            desc->name, trm_dtype_name(desc->inputs[i].dtype),
                            (long long)desc->inputs[i].dims[2]);
    return TRM_OK;
}

static trm_status check_attrs(const trm_op_desc *desc, trmi_experts_shape *s, bool *part_out)
{
    int64_t all = desc->inputs[IN_ROUTER].dims[1], local = desc->inputs[IN_GATE].dims[0];
    int64_t top_k = trm_attr_int(desc->attrs, "top_k", 0);
    int64_t groups = trm_attr_int(desc->attrs, "groups", 1), group;
    bool part = trm_attr_find(desc->attrs, "leaves") != NULL;
    int64_t first = part ? trm_attr_int(desc->attrs, "first", 0) : 0;

    if (all < 1 || all > INT16_MAX || top_k < 1 || top_k > all)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': top %lld of %lld experts",
                        desc->name, (long long)top_k, (long long)all);
    if (groups < 1 || all % groups != 0 ||
        (part && trm_attr_int(desc->attrs, "leaves", 0) != groups))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %lld experts in %lld groups",
                        desc->name, (long long)all, (long long)groups);
    group = all / groups;
    if ((!part && local != all) || first < 0 || first % group != 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmExperts '%s': %lld experts from %lld on of %lld, in groups of %lld",
                        desc->name, (long long)local, (long long)first, (long long)all,
                        (long long)group);
    TRM_CHECK(trmi_lm_leaves_init(&s->fold, (size_t)local, (size_t)group, first / group, groups));
    s->tokens = (size_t)desc->inputs[IN_X].dims[0];
    s->width = (size_t)desc->inputs[IN_X].dims[1];
    s->all = (size_t)all;
    s->first = (size_t)first;
    s->local = (size_t)local;
    s->top_k = (size_t)top_k;
    s->group = (size_t)group;
    s->normalize = trm_attr_int(desc->attrs, "normalize", 0) != 0;
    *part_out = part;
    return TRM_OK;
}

static trm_status find_act(const trm_op_desc *desc, trmi_lm_act *act_out)
{
    const char *name = trm_attr_string(desc->attrs, "act", "silu");

    *act_out = trmi_lm_act_from_name(name);
    if (*act_out == TRMI_LM_ACT_COUNT || *act_out == TRMI_LM_SOFTCAP)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmExperts '%s': act '%.40s', want silu, gelu, gelu_tanh, relu, tanh or "
                        "none",
                        desc->name, name);
    return TRM_OK;
}

static trm_status load_weights(lm_experts *k, const trm_op_desc *desc)
{
    for (int i = 0; i < WEIGHTS; i++) {
        const trm_tensor *t = &desc->inputs[IN_GATE + i];
        size_t n = (size_t)t->dims[1], depth = (size_t)t->dims[2];
        trmi_lm_weight one = trmi_lm_weight_of(k->types[i], n, depth, NULL);

        TRM_CHECK(trmi_lm_weight_pack_input(k->cpu, desc, IN_GATE + i, &one, k->shape.local, false,
                                            &k->packs[i]));
        TRM_CHECK(trmi_lm_leaves_init(&k->whole[i], depth, 0, 0, 0));
        k->weights[i] = trm_calloc(k->shape.local, sizeof(*k->weights[i]));
        if (k->weights[i] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%zu experts", k->shape.local);
        for (size_t e = 0; e < k->shape.local; e++) {
            k->weights[i][e] = one;
            k->weights[i][e].data =
                (const unsigned char *)k->packs[i]->memory + e * trmi_lm_weight_bytes(&one);
        }
        k->base.packed_inputs |= 1u << (IN_GATE + i);
    }
    k->base.copied_inputs = k->base.packed_inputs;
    return TRM_OK;
}

static trm_status experts_init(lm_experts *k, trm_op_desc *desc)
{
    trmi_experts_shape *s = &k->shape;
    int64_t dims[3];
    trm_dtype rounded = TRM_DTYPE_NONE;
    bool part = false;
    space count;

    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(check_shapes(desc));
    TRM_CHECK(check_attrs(desc, s, &part));
    TRM_CHECK(find_act(desc, &k->act));
    TRM_CHECK(trmi_lm_rounding(desc, "act_dtype", &rounded));
    for (int i = 0; i < WEIGHTS; i++) {
        trm_dtype dtype = desc->inputs[IN_GATE + i].dtype;

        bool rounds = rounded == dtype || (rounded == TRM_DTYPE_BF16 && trm_dtype_is_f8(dtype));

        k->types[i] = trmi_lm_type_get(dtype, rounds ? rounded : TRM_DTYPE_NONE);
        if (k->types[i] == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "TrmExperts '%s': weights of %s", desc->name,
                            trm_dtype_name(dtype));
    }
    dims[0] = s->fold.parts;
    dims[1] = (int64_t)s->tokens;
    dims[2] = (int64_t)s->width;
    if (!trm_tensor_same_shape(
            &(trm_tensor){.rank = part ? 3 : 2,
                          .dims = {dims[part ? 0 : 1], dims[part ? 1 : 2], part ? dims[2] : 0}},
            &desc->outputs[0]))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': output is not [%s%zu, %zu]",
                        desc->name, part ? "parts, " : "", s->tokens, s->width);
    k->features = (size_t)desc->inputs[IN_GATE].dims[1];
    k->rows_max = s->tokens * (s->top_k < s->local ? s->top_k : s->local);
    k->wave = k->rows_max < WAVE ? k->rows_max : WAVE;
    if (k->rows_max > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %zu rows", desc->name, k->rows_max);
    TRM_CHECK(load_weights(k, desc));
    count = cut(k, NULL);
    if (count.overflow)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %zu tokens of %zu", desc->name,
                        s->tokens, s->width);
    k->base.workspace_bytes = count.at;
    return TRM_OK;
}

trm_status trmi_cpu_lm_experts(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    lm_experts *k;
    trm_status st;

    TRM_CHECK(trmi_kernel_new(sizeof(*k), &experts_ops, &k));
    k->cpu = cpu;
    st = experts_init(k, desc);
    if (st != TRM_OK) {
        experts_destroy(&k->base);
        return st;
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
