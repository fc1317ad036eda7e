/* TrmExperts: see kernels/language.h and lm_experts.h. Rows, sorted by expert, go through two
 * products whose families (lm.h) find each row's expert by `starts`; then a token's rows are
 * summed.
 *
 * Tokens go in waves of at most WAVE, which bounds what lies between the products whatever the
 * batch; weights are read once a wave, and with 4096 tokens an expert of 128, 8 of them chosen, has
 * 256 rows: enough that arithmetic and not memory is the limit. */
#include "kernels/cuda/lm_experts.h"
#include "kernels/cuda/lm_rows.h"

#include <string.h>

#define WAVE ((size_t)4096)
#define TOKENS_MAX ((size_t)1 << 20)

enum { IN_X, IN_ROUTER, IN_GATE, IN_UP, IN_DOWN, IN_COUNT };
enum { GATE, UP, DOWN, WEIGHTS };

typedef struct lm_experts {
    trmi_cuda_kernel base;
    trmi_experts shape; /* tokens: of a wave, set by run */
    size_t tokens, wave, features, rows_max;
    trmi_lmc_act act;
    trmi_lmc_weight weights[WEIGHTS];
    trmi_lmc_leaves leaves[2]; /* of width, of features */
    size_t product_bytes;
} lm_experts;

/* The workspace, cut up. */
typedef struct space {
    trmi_experts_routes routes;
    float *gate, *up, *y; /* [rows_max, features] twice, [rows_max, width] */
    void *product;
    unsigned char *memory; /* NULL: only counts */
    size_t at;
    bool overflow;
} space;

static void *take(space *s, size_t count, size_t each)
{
    size_t from = s->at, bytes;

    if (!trm_mul_ok(count, each, &bytes) || !trm_add_ok(bytes, s->at, &s->at) ||
        !trm_add_ok(s->at, 255, &s->at))
        s->overflow = true;
    s->at = s->at / 256 * 256;
    return s->memory == NULL ? NULL : s->memory + from;
}

/* gate and up are one product, whose epilogue is gated */
static bool together(const lm_experts *k)
{
    const trmi_lmc_weight *gate = &k->weights[GATE], *up = &k->weights[UP];

    return gate->family == up->family && gate->dtype == up->dtype && gate->act == up->act;
}

static space cut(const lm_experts *k, void *memory)
{
    const trmi_experts *e = &k->shape;
    size_t choices = k->wave * (size_t)e->top_k;
    space s = {.memory = memory};

    s.routes.chosen = take(&s, choices, sizeof(int32_t));
    s.routes.shares = take(&s, choices, sizeof(float));
    s.routes.rows = take(&s, choices, sizeof(int32_t));
    s.routes.starts = take(&s, (size_t)e->local + 1, sizeof(int32_t));
    s.routes.row_of = take(&s, k->rows_max, sizeof(int32_t));
    s.routes.counts = take(&s, trmi_experts_counts(e, k->wave), sizeof(int32_t));
    s.gate = take(&s, k->rows_max, k->features * sizeof(float));
    s.up = take(&s, together(k) ? 0 : k->rows_max, k->features * sizeof(float));
    s.y = take(&s, k->rows_max, (size_t)e->width * sizeof(float));
    s.product = take(&s, k->product_bytes, 1);
    return s;
}

/* A product of `rows` rows with weight `which`, sorted by expert. */
static trmi_lmc_product product_of(const lm_experts *k, const space *s, int which, size_t rows,
                                   const float *x, float *out)
{
    const trmi_lmc_weight *w = &k->weights[which];
    trmi_lmc_product p = {.leaves = &k->leaves[which == DOWN],
                          .x = x,
                          .m = rows,
                          .k = w->k,
                          .segments = 1,
                          .gated = TRMI_LMC_ACT_COUNT,
                          .experts = k->shape.local,
                          .starts = s->routes.starts,
                          .row_of = which == DOWN ? NULL : s->routes.row_of};

    p.segment[0].weight = w;
    p.segment[0].out = out;
    return p;
}

static trmi_lmc_product gated_product(const lm_experts *k, const space *s, size_t rows,
                                      const float *x)
{
    trmi_lmc_product p = product_of(k, s, GATE, rows, x, s->gate);

    p.segments = 2;
    p.segment[1].weight = &k->weights[UP];
    p.gated = k->act;
    return p;
}

static trm_status run_product(const lm_experts *k, const space *s, const trmi_lmc_product *p,
                              cudaStream_t stream)
{
    return p->segment[0].weight->family->run(k->base.cuda, p, s->product, stream);
}

static trm_status run_gate_up(const lm_experts *k, const space *s, size_t rows, const float *x,
                              cudaStream_t stream)
{
    trmi_lmc_product p;

    if (together(k)) {
        p = gated_product(k, s, rows, x);
        return run_product(k, s, &p, stream);
    }
    p = product_of(k, s, GATE, rows, x, s->gate);
    TRM_CHECK(run_product(k, s, &p, stream));
    p = product_of(k, s, UP, rows, x, s->up);
    TRM_CHECK(run_product(k, s, &p, stream));
    return trmi_cuda_lm_gated(stream, k->act, 1.0f, rows * k->features, s->gate, s->up, s->gate,
                              TRM_DTYPE_F32);
}

static trm_status run_wave(const lm_experts *k, const space *s, size_t begin, size_t tokens,
                           const void *const *in, float *out, cudaStream_t stream)
{
    size_t width = (size_t)k->shape.width;
    const float *x = (const float *)in[IN_X] + begin * width;
    const float *logits = (const float *)in[IN_ROUTER] + begin * (size_t)k->shape.all;
    size_t each = (size_t)(k->shape.top_k < k->shape.local ? k->shape.top_k : k->shape.local);
    trmi_experts e = k->shape;
    trmi_lmc_product down;

    e.tokens = (int32_t)tokens;
    TRM_CHECK(trmi_cuda_experts_route(stream, &e, logits, &s->routes));
    TRM_CHECK(run_gate_up(k, s, tokens * each, x, stream));
    down = product_of(k, s, DOWN, tokens * each, s->gate, s->y);
    TRM_CHECK(run_product(k, s, &down, stream));
    return trmi_cuda_experts_combine(stream, &e, &s->routes, s->y, out + begin * width,
                                     k->tokens * width);
}

static trm_status experts_run(trm_kernel *base, trm_stream *stream, const void *const *in,
                              void *const *out, void *workspace)
{
    const lm_experts *k = (const lm_experts *)base;
    const space s = cut(k, workspace);

    for (size_t t = 0; t < k->tokens; t += k->wave)
        TRM_CHECK(run_wave(k, &s, t, k->tokens - t < k->wave ? k->tokens - t : k->wave, in, out[0],
                           trmi_cuda_stream(base, stream)));
    return TRM_OK;
}

static void experts_destroy(trm_kernel *base)
{
    lm_experts *k = (lm_experts *)base;

    for (int i = 0; i < WEIGHTS; i++)
        trmi_cuda_pack_release(k->base.cuda, k->weights[i].pack);
    trm_free(k);
}

static const trm_kernel_ops experts_ops = {
    .name = "cuda lm experts", .run = experts_run, .destroy = experts_destroy};

/* shapes and dtypes: [E, F, D] twice and [E, D, F] */
static trm_status check_shapes(const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[IN_X], *router = &desc->inputs[IN_ROUTER];
    const trm_tensor *gate = &desc->inputs[IN_GATE], *up = &desc->inputs[IN_UP];
    const trm_tensor *down = &desc->inputs[IN_DOWN];
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES], c[TRM_SHAPE_TEXT_BYTES];

    TRM_CHECK(trmi_lmc_want(desc, IN_X, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lmc_want(desc, IN_ROUTER, TRM_DTYPE_F32, 2));
    for (int i = IN_GATE; i < IN_COUNT; i++)
        TRM_CHECK(trmi_lmc_want(desc, i, TRM_DTYPE_NONE, 3));
    if (x->dims[0] != router->dims[0] || (size_t)x->dims[0] > TOKENS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': x %s and router %s", desc->name,
                        trm_tensor_shape_text(x, a, sizeof(a)),
                        trm_tensor_shape_text(router, b, sizeof(b)));
    if (!trm_tensor_same_shape(gate, up) || gate->dims[0] != down->dims[0] ||
        gate->dims[1] != down->dims[2] || gate->dims[2] != down->dims[1] ||
        gate->dims[2] != x->dims[1] || gate->dims[1] > INT32_MAX || gate->dims[2] > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmExperts '%s': gate %s, up %s, down %s, want [E, F, D] twice and "
                        "[E, D, F]",
                        desc->name, trm_tensor_shape_text(gate, a, sizeof(a)),
                        trm_tensor_shape_text(up, b, sizeof(b)),
                        trm_tensor_shape_text(down, c, sizeof(c)));
    return TRM_OK;
}

static trm_status check_groups(const trm_op_desc *desc, trmi_experts *s, bool part)
{
    int64_t all = s->all, local = s->local, groups = trm_attr_int(desc->attrs, "groups", 1), group;
    int64_t first = part ? trm_attr_int(desc->attrs, "first", 0) : 0;
    trm_tree_part parts[TRM_TREE_PARTS_MAX];

    if (groups < 1 || groups > TRM_TREE_LEAVES_MAX || all % groups != 0 ||
        (part && trm_attr_int(desc->attrs, "leaves", 0) != groups))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmExperts '%s': %lld experts in %lld groups, want at most %d", desc->name,
                        (long long)all, (long long)groups, TRM_TREE_LEAVES_MAX);
    group = all / groups;
    if (local < 1 || local % group != 0 || first < 0 || first % group != 0 || first > all - local ||
        (!part && local != all))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmExperts '%s': %lld experts from %lld on of %lld, in groups of %lld",
                        desc->name, (long long)local, (long long)first, (long long)all,
                        (long long)group);
    s->first = (int32_t)first;
    s->group = (int32_t)group;
    s->groups = (int32_t)groups;
    s->parts = trm_tree_parts((int)(first / group), (int)(local / group), (int)groups, parts);
    for (int i = 0; i < s->parts; i++)
        s->ends[i] = (unsigned char)(parts[i].hi - first / group);
    return TRM_OK;
}

static trm_status check_attrs(const trm_op_desc *desc, trmi_experts *s)
{
    const trm_tensor *out = &desc->outputs[0];
    int64_t all = desc->inputs[IN_ROUTER].dims[1], local = desc->inputs[IN_GATE].dims[0];
    int64_t top_k = trm_attr_int(desc->attrs, "top_k", 0);
    bool part = trm_attr_find(desc->attrs, "leaves") != NULL;
    char text[TRM_SHAPE_TEXT_BYTES];
    int at = part ? 1 : 0;

    if (all < 1 || top_k < 1 || top_k > all)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': top %lld of %lld experts",
                        desc->name, (long long)top_k, (long long)all);
    if (all > TRMI_EXPERTS_MAX || top_k > TRMI_EXPERTS_TOP_MAX)
        return trm_fail(
            TRM_ERR_UNSUPPORTED, "TrmExperts '%s': top %lld of %lld experts, want at most %d of %d",
            desc->name, (long long)top_k, (long long)all, TRMI_EXPERTS_TOP_MAX, TRMI_EXPERTS_MAX);
    s->width = (int32_t)desc->inputs[IN_X].dims[1];
    s->all = (int32_t)all;
    s->local = local > all ? 0 : (int32_t)local;
    s->top_k = (int32_t)top_k;
    s->normalize = trm_attr_int(desc->attrs, "normalize", 0) != 0;
    TRM_CHECK(check_groups(desc, s, part));
    if (out->rank != 2 + at || (part && out->dims[0] != s->parts) ||
        out->dims[at] != desc->inputs[IN_X].dims[0] || out->dims[at + 1] != s->width)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': output is %s, want [%s%lld, %d]",
                        desc->name, trm_tensor_shape_text(out, text, sizeof(text)),
                        part ? "parts, " : "", (long long)desc->inputs[IN_X].dims[0], s->width);
    return TRM_OK;
}

static trm_status find_act(const trm_op_desc *desc, trmi_lmc_act *act_out)
{
    const char *name = trm_attr_string(desc->attrs, "act", "silu");

    *act_out = trmi_lmc_act_from_name(name);
    if (*act_out == TRMI_LMC_ACT_COUNT || *act_out == TRMI_LMC_SOFTCAP)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmExperts '%s': act '%.40s', want silu, gelu, gelu_tanh, relu, tanh or "
                        "none",
                        desc->name, name);
    return TRM_OK;
}

static trm_status load_weights(lm_experts *k, const trm_op_desc *desc)
{
    const char *name = trm_attr_string(desc->attrs, "act_dtype", NULL);
    trm_dtype rounded = name == NULL                ? TRM_DTYPE_F32
                        : strcmp(name, "bf16") == 0 ? TRM_DTYPE_BF16
                        : strcmp(name, "f16") == 0  ? TRM_DTYPE_F16
                                                    : TRM_DTYPE_NONE;

    if (rounded == TRM_DTYPE_NONE)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmExperts '%s': act_dtype '%.40s', want bf16 or f16",
                        desc->name, name);
    for (int i = 0; i < WEIGHTS; i++) {
        const trm_tensor *t = &desc->inputs[IN_GATE + i];
        trm_dtype act = trm_dtype_is_block(t->dtype) ? TRM_DTYPE_NONE
                        : rounded == t->dtype        ? rounded
                                                     : TRM_DTYPE_F32;

        if ((size_t)t->dims[2] % trm_dtype_block_elems(t->dtype) != 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %s of %lld, want whole blocks",
                            desc->name, trm_dtype_name(t->dtype), (long long)t->dims[2]);
        TRM_CHECK(
            trmi_lmc_weight_pack(k->base.cuda, desc, IN_GATE + i, act, false, &k->weights[i]));
        k->base.base.packed_inputs |= 1u << (IN_GATE + i);
    }
    k->base.base.copied_inputs = k->base.base.packed_inputs;
    return TRM_OK;
}

/* the most that any of the products wants, of whole waves and of the last */
static void measure_products(lm_experts *k)
{
    size_t each = k->wave > 0 ? k->rows_max / k->wave : 0;
    size_t last = k->wave > 0 ? k->tokens % k->wave * each : 0;
    space s = {.memory = NULL};

    for (int i = 0; i < 2 * WEIGHTS; i++) {
        int which = i / 2;
        size_t rows = i % 2 == 0 ? k->rows_max : last;
        trmi_lmc_product p = which == GATE && together(k)
                                 ? gated_product(k, &s, rows, NULL)
                                 : product_of(k, &s, which, rows, NULL, NULL);
        size_t bytes = k->weights[which].family->workspace_bytes(k->base.cuda, &p);

        k->product_bytes = bytes > k->product_bytes ? bytes : k->product_bytes;
    }
}

static trm_status experts_init(lm_experts *k, const trm_op_desc *desc)
{
    trmi_experts *e = &k->shape;
    space count;

    TRM_CHECK(check_shapes(desc));
    TRM_CHECK(check_attrs(desc, e));
    TRM_CHECK(find_act(desc, &k->act));
    TRM_CHECK(load_weights(k, desc));
    k->tokens = (size_t)desc->inputs[IN_X].dims[0];
    k->wave = k->tokens < WAVE ? k->tokens : WAVE;
    k->features = (size_t)desc->inputs[IN_GATE].dims[1];
    k->rows_max = k->wave * (size_t)(e->top_k < e->local ? e->top_k : e->local);
    TRM_CHECK(trmi_lmc_leaves_init(&k->leaves[0], (size_t)e->width, 0, 0, 0));
    TRM_CHECK(trmi_lmc_leaves_init(&k->leaves[1], k->features, 0, 0, 0));
    measure_products(k);
    count = cut(k, NULL);
    if (count.overflow)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %zu tokens of %d", desc->name,
                        k->tokens, e->width);
    k->base.base.workspace_bytes = count.at;
    return TRM_OK;
}

trm_status trmi_cuda_prepare_lm_experts(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    lm_experts *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (desc->input_count != IN_COUNT || desc->output_count != 1 ||
        desc->outputs[0].dtype != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmExperts '%s': %d inputs, want %d and f32 out",
                        desc->name, desc->input_count, IN_COUNT);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &experts_ops, &k));
    TRM_TRY(st, experts_init(k, desc), fail);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    experts_destroy(&k->base.base);
    return st;
}
