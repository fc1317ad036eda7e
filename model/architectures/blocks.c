/* Weights by role, and nodes. */
#include "model/architectures/blocks.h"

#include "base/f8.h"
#include "base/tree.h"
#include "model/architectures/packed.h"

#include <stdio.h>
#include <string.h>

#define NAME_BYTES 256

static trm_status no_memory(const trm_lm_build *b)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "building %s", b->c->architecture);
}

/* ---- names ---- */

/* "<prefix>layers.3.mlp.up_proj.weight"; false: the family has none, or it is too long */
static bool name_of(const trm_lm_build *b, trmi_role role, int64_t expert, const char *suffix,
                    char *name)
{
    const char *at = b->names->of[role], *prefix = b->prefix;
    int64_t numbers[2] = {b->layer, expert};
    size_t n = 0;
    int stars = 0;

    if (at == NULL)
        return false;
    if (*at == '/') {
        at++;
        prefix = "";
    }
    n = (size_t)snprintf(name, NAME_BYTES, "%s", prefix);
    for (; *at != '\0' && n + 32 < NAME_BYTES; at++) {
        if (*at == '*' && stars < 2)
            n += (size_t)snprintf(name + n, NAME_BYTES - n, "%lld", (long long)numbers[stars++]);
        else
            name[n++] = *at;
    }
    n += (size_t)snprintf(name + n, NAME_BYTES - n, "%s", suffix);
    return n < NAME_BYTES && *at == '\0';
}

void trmi_arch_names(trm_lm_build *b, const trmi_names *huggingface, const trmi_names *gguf)
{
    char name[NAME_BYTES];

    b->names = b->c->gguf ? gguf : huggingface;
    b->prefix = b->names->prefixes == NULL ? "" : b->names->prefixes[0];
    for (int i = 0; b->names->prefixes != NULL && b->names->prefixes[i] != NULL; i++) {
        const char *prefix = b->prefix;

        b->prefix = b->names->prefixes[i];
        if (name_of(b, TRMI_EMBED, 0, ".weight", name) &&
            trm_weights_find(b->weights, name) != NULL)
            return;
        b->prefix = prefix;
    }
}

const trm_weight *trmi_arch_find(trm_lm_build *b, trmi_role role, int64_t expert,
                                 const char *suffix)
{
    char name[NAME_BYTES];
    const trm_weight *w =
        name_of(b, role, expert, suffix, name) ? trm_weights_find(b->weights, name) : NULL;

    if (w != NULL)
        trmi_arch_use(b, w);
    return w;
}

trm_status trmi_arch_want(trm_lm_build *b, trmi_role role, int64_t expert, const char *suffix,
                          const trm_weight **weight_out)
{
    char name[NAME_BYTES];

    *weight_out = trmi_arch_find(b, role, expert, suffix);
    if (*weight_out != NULL)
        return TRM_OK;
    if (!name_of(b, role, expert, suffix, name))
        return trm_fail(TRM_ERR_INTERNAL, "%s has no tensor of role %d", b->c->architecture,
                        (int)role);
    return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s' is missing: %s wants it", name,
                    b->c->source_name);
}

trm_status trmi_arch_shape(const trm_weight *w, int rank, const int64_t *dims)
{
    char is[TRM_SHAPE_TEXT_BYTES], wanted[TRM_SHAPE_TEXT_BYTES];
    trm_tensor want = {.rank = rank};

    for (int i = 0; i < rank; i++)
        want.dims[i] = dims[i];
    if (trm_tensor_same_shape(&w->desc, &want))
        return TRM_OK;
    return trm_fail(TRM_ERR_BAD_FILE, "tensor '%s' is %s, the config wants %s", w->name,
                    trm_tensor_shape_text(&w->desc, is, sizeof(is)),
                    trm_tensor_shape_text(&want, wanted, sizeof(wanted)));
}

/* ---- constants ---- */

/* "<name>", or "<name>[first:end)" */
static void part_name(const trm_weight *w, int64_t first, int64_t count, char *name)
{
    if (count == 0)
        snprintf(name, NAME_BYTES + 64, "%.*s", NAME_BYTES, w->name);
    else
        snprintf(name, NAME_BYTES + 64, "%.*s[%lld:%lld)", NAME_BYTES, w->name, (long long)first,
                 (long long)(first + count));
}

static trm_status check_dtype(const trm_weight *w)
{
    if (trm_dtype_is_block(w->desc.dtype) || w->desc.dtype == TRM_DTYPE_F32 ||
        w->desc.dtype == TRM_DTYPE_F16 || w->desc.dtype == TRM_DTYPE_BF16)
        return TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "tensor '%s' is %s: weights are f32, f16, bf16 or GGUF's block types", w->name,
                    trm_dtype_name(w->desc.dtype));
}

trm_status trmi_arch_constant(trm_lm_build *b, const trm_weight *w, int64_t first, int64_t count,
                              int *value_out)
{
    char name[NAME_BYTES + 64];
    trm_tensor desc = w->desc, row = w->desc;
    size_t row_bytes;

    TRM_CHECK(check_dtype(w));
    desc.data = row.data = NULL;
    part_name(w, first, count, name);
    if (count == 0)
        return trm_graph_add_weight(b->g, name, &desc, w->file, w->offset, value_out);
    TRM_ASSERT(first >= 0 && first + count <= desc.dims[0]);
    desc.dims[0] = count;
    row.dims[0] = 1;
    TRM_CHECK(trm_tensor_bytes(&row, &row_bytes));
    return trm_graph_add_weight(b->g, name, &desc, w->file, w->offset + (size_t)first * row_bytes,
                                value_out);
}

trm_status trmi_arch_vector(trm_lm_build *b, const trm_weight *w, int64_t n, int64_t first,
                            int64_t count, int *value_out)
{
    char name[NAME_BYTES + 64];
    size_t bytes = trm_dtype_bytes(w->desc.dtype);
    trm_tensor from = w->desc, to = {.dtype = TRM_DTYPE_F32, .rank = 1};
    trm_status st;

    TRM_CHECK(trmi_arch_shape(w, 1, &n));
    TRM_CHECK(check_dtype(w));
    if (w->desc.dtype == TRM_DTYPE_F32)
        return trmi_arch_constant(b, w, first, count, value_out);
    if (bytes == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "tensor '%s' is %s: vectors are f32, f16 or bf16",
                        w->name, trm_dtype_name(w->desc.dtype));
    part_name(w, first, count, name);
    to.dims[0] = count == 0 ? n : count;
    /* mapped bytes may be misaligned: a plain copy first */
    from.data = trm_malloc((size_t)to.dims[0], bytes);
    to.data = trm_malloc((size_t)to.dims[0], sizeof(float));
    if (from.data == NULL || to.data == NULL) {
        st = no_memory(b);
        goto done;
    }
    memcpy(from.data, (const unsigned char *)w->desc.data + (size_t)first * bytes,
           (size_t)to.dims[0] * bytes);
    for (int64_t i = 0; i < to.dims[0]; i++)
        ((float *)to.data)[i] = (float)trm_tensor_get_f64(&from, (size_t)i);
    st = trm_graph_add_constant(b->g, name, &to, value_out);
done:
    trm_free(from.data);
    trm_free(to.data);
    return st;
}

/* ---- nodes ---- */

const char *trmi_arch_rounds_to(const trm_lm_build *b, trm_dtype weight)
{
    if ((weight == TRM_DTYPE_BF16 || trm_dtype_is_f8(weight)) &&
        (b->options->as_weights || b->options->dtype == TRM_DTYPE_BF16))
        return "bf16";
    return weight == TRM_DTYPE_F16 && b->options->as_weights ? "f16" : NULL;
}

static trm_status set_attrs(trm_lm_build *b, trm_node *n, const trmi_attr *attrs)
{
    for (; attrs != NULL && attrs->name != NULL; attrs++) {
        if (attrs->text != NULL)
            TRM_CHECK(trm_attr_set_string(&n->attrs, b->g->arena, attrs->name, attrs->text));
        else if (attrs->is_real)
            TRM_CHECK(trm_attr_set_float(&n->attrs, b->g->arena, attrs->name, attrs->real));
        else
            TRM_CHECK(trm_attr_set_int(&n->attrs, b->g->arena, attrs->name, attrs->integer));
    }
    return TRM_OK;
}

trm_status trmi_arch_node(trm_lm_build *b, trm_op op, const char *what, const int *inputs,
                          int input_count, int64_t width, const trmi_attr *attrs, int *value_out)
{
    trm_tensor desc = {.dtype = TRM_DTYPE_F32, .rank = 2};
    char name[NAME_BYTES + 64];
    int node;

    if (b->layer >= 0)
        snprintf(name, sizeof(name), "layers.%lld.%.*s", (long long)b->layer, NAME_BYTES, what);
    else
        snprintf(name, sizeof(name), "%.*s", NAME_BYTES, what);
    desc.dims[0] = b->g->values[inputs[0]].desc.dims[0];
    desc.dims[1] = width;
    TRM_CHECK(trm_graph_add_value(b->g, name, &desc, value_out));
    TRM_CHECK(trm_graph_add_node(b->g, op, name, inputs, input_count, value_out, 1, &node));
    return set_attrs(b, &b->g->nodes[node], attrs);
}

static int64_t lcm(int64_t a, int64_t b)
{
    int64_t x = a, y = b, r;

    while (y != 0) {
        r = x % y;
        x = y;
        y = r;
    }
    return a / x * b;
}

int64_t trmi_arch_unit(int64_t inputs, trm_dtype dtype, int64_t grain)
{
    int64_t unit, leaves;

    int64_t block = (int64_t)trm_dtype_block_elems(dtype);

    if (block == 0 || grain <= 0 || grain > inputs)
        return 0;
    unit = lcm(grain, block);
    /* whole vectors; kernels of float weights want pairs at the least */
    unit = lcm(unit, inputs % 32 == 0 ? 32 : 2);
    if (inputs % unit != 0)
        return 0;
    leaves = trm_tree_leaves(inputs / unit);
    return leaves > 1 ? inputs / leaves : 0;
}

static const char *const role_what[TRMI_ROLE_COUNT] = {
    [TRMI_HEAD] = "logits",
    [TRMI_Q] = "q",
    [TRMI_K] = "k",
    [TRMI_V] = "v",
    [TRMI_QKV] = "qkv",
    [TRMI_O] = "o",
    [TRMI_GATE] = "gate",
    [TRMI_UP] = "up",
    [TRMI_GATE_UP] = "gate_up",
    [TRMI_DOWN] = "down",
    [TRMI_ROUTER] = "router",
    [TRMI_POOLER] = "pooler",
    [TRMI_CLASSIFIER] = "classifier",
};

/* The constant weight of `l`, or its part. */
static trm_status linear_weight(trm_lm_build *b, const trmi_linear *l, const trm_weight *w,
                                int *value_out)
{
    int64_t dims[2] = {l->outputs, l->inputs}, swapped[2] = {l->inputs, l->outputs};
    int64_t range[1][2] = {{l->first, l->first + l->count}};
    char name[NAME_BYTES + 64];
    int whole;

    TRM_CHECK(trmi_arch_shape(w, 2, b->transposed ? swapped : dims));
    if (!b->transposed || l->count == 0)
        return trmi_arch_constant(b, w, l->first, l->count, value_out);
    part_name(w, 0, 0, name);
    whole = trm_graph_find_value(b->g, name);
    if (whole < 0)
        TRM_CHECK(trmi_arch_constant(b, w, 0, 0, &whole));
    part_name(w, l->first, l->count, name);
    return trm_graph_add_part(b->g, name, b->g, whole, 1, (const int64_t(*)[2])range, 1, value_out);
}

static trm_status linear_bias(trm_lm_build *b, const trmi_linear *l, int *value_out)
{
    const trm_weight *w = NULL;

    *value_out = TRM_NO_VALUE;
    if (l->bias == TRMI_BIAS_WANTED && !b->c->gguf)
        TRM_CHECK(trmi_arch_want(b, l->role, 0, ".bias", &w));
    else if (l->bias != TRMI_BIAS_NONE || b->c->gguf)
        w = trmi_arch_find(b, l->role, 0, ".bias");
    return w == NULL ? TRM_OK : trmi_arch_vector(b, w, l->outputs, l->first, l->count, value_out);
}

trm_status trmi_arch_linear(trm_lm_build *b, int x, const trmi_linear *l, int *value_out)
{
    const trm_weight *w;
    trmi_attr attrs[4];
    int inputs[3] = {x}, n = 0;
    trm_dtype dtype;
    int64_t unit;
    char what[64];

    memset(attrs, 0, sizeof(attrs));
    TRM_CHECK(trmi_arch_packed(b, l, &inputs[1]));
    if (inputs[1] == TRM_NO_VALUE) {
        TRM_CHECK(trmi_arch_want(b, l->role, 0, ".weight", &w));
        TRM_CHECK(linear_weight(b, l, w, &inputs[1]));
    }
    TRM_CHECK(linear_bias(b, l, &inputs[2]));
    dtype = b->g->values[inputs[1]].desc.dtype;
    unit = trmi_arch_unit(l->inputs, dtype, l->grain);
    if (unit > 0)
        attrs[n++] = (trmi_attr){.name = "unit", .integer = unit};
    if (b->transposed)
        attrs[n++] = (trmi_attr){.name = "transposed", .integer = 1};
    if (trmi_arch_rounds_to(b, dtype) != NULL)
        attrs[n++] = (trmi_attr){.name = "act", .text = trmi_arch_rounds_to(b, dtype)};
    if (l->count == 0)
        snprintf(what, sizeof(what), "%s", role_what[l->role]);
    else
        snprintf(what, sizeof(what), "%s.%lld", role_what[l->role], (long long)l->first);
    return trmi_arch_node(b, TRM_OP_TrmLinear, what, inputs, inputs[2] == TRM_NO_VALUE ? 2 : 3,
                          l->count == 0 ? l->outputs : l->count, attrs, value_out);
}

trm_status trmi_arch_norm(trm_lm_build *b, int x, trmi_role role, int64_t width, int64_t group,
                          const char *what, int *value_out)
{
    const trm_weight *w;
    trmi_attr attrs[4];
    int inputs[3] = {x}, count = 2;

    memset(attrs, 0, sizeof(attrs));
    TRM_CHECK(trmi_arch_want(b, role, 0, ".weight", &w));
    TRM_CHECK(trmi_arch_vector(b, w, group, 0, 0, &inputs[1]));
    if (b->layer_norm) {
        TRM_CHECK(trmi_arch_want(b, role, 0, ".bias", &w));
        TRM_CHECK(trmi_arch_vector(b, w, group, 0, 0, &inputs[2]));
        count = 3;
    }
    attrs[0] = (trmi_attr){.name = "kind", .text = b->layer_norm ? "layer" : "rms"};
    attrs[1] = (trmi_attr){.name = "epsilon", .real = b->c->norm_epsilon, .is_real = true};
    if (b->c->norm_offset != 0.0f)
        attrs[2] = (trmi_attr){.name = "offset", .real = b->c->norm_offset, .is_real = true};
    return trmi_arch_node(b, TRM_OP_TrmNorm, what, inputs, count, width, attrs, value_out);
}

trm_status trmi_arch_add(trm_lm_build *b, int x, int y, const char *what, int *value_out)
{
    const int inputs[2] = {x, y};

    return trmi_arch_node(b, TRM_OP_Add, what, inputs, 2, b->g->values[x].desc.dims[1], NULL,
                          value_out);
}

trm_status trmi_arch_act(trm_lm_build *b, int x, int up, const char *act, int64_t width,
                         const char *what, int *value_out)
{
    const trmi_attr attrs[2] = {{.name = "act", .text = act}, {.name = NULL}};
    const int inputs[2] = {x, up};

    return trmi_arch_node(b, TRM_OP_TrmGated, what, inputs, up == TRM_NO_VALUE ? 1 : 2, width,
                          attrs, value_out);
}

trm_status trmi_arch_embed(trm_lm_build *b, int ids, trmi_role role, int64_t rows, int64_t first,
                           float scale, const char *what, int *value_out)
{
    int64_t dims[2] = {rows, b->c->hidden};
    trmi_attr attrs[2];
    const trm_weight *w;
    int inputs[2] = {ids};

    memset(attrs, 0, sizeof(attrs));
    TRM_CHECK(trmi_arch_want(b, role, 0, ".weight", &w));
    TRM_CHECK(trmi_arch_shape(w, 2, dims));
    TRM_CHECK(trmi_arch_constant(b, w, first, first > 0 ? rows - first : 0, &inputs[1]));
    if (role == TRMI_EMBED)
        b->embedding = inputs[1];
    if (scale != 0.0f && scale != 1.0f)
        attrs[0] = (trmi_attr){.name = "scale", .real = scale, .is_real = true};
    return trmi_arch_node(b, TRM_OP_TrmEmbed, what, inputs, 2, b->c->hidden, attrs, value_out);
}
