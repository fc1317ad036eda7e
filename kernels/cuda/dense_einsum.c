/* Einsum: as a matrix product where two operands meet in letters that merge into m, n, k and batch
 * dims, else on the general kernel.
 *
 * The equation becomes a stride for each operand and letter (dense_einsum.h). Of the letters of the
 * result, those of both operands are batch dims, those of the left one rows, those of the right one
 * columns; those that both have and the result lacks are the sum. */
#include "kernels/cuda/dense_einsum.h"
#include "kernels/cuda/dense.h"

#include <string.h>

#define NAMES (52 + TRM_RANK_MAX) /* a-z, A-Z, then ellipsis dims counted from the last */

typedef struct einsum_kernel {
    trmi_cuda_kernel base;
    trm_dtype dtype;
    trmi_einsum einsum;
    trmi_dense dense;
} einsum_kernel;

typedef struct parse {
    const trm_op_desc *desc;
    int64_t dim[NAMES];
    int seen[NAMES]; /* how often */
    int64_t strides[TRMI_EINSUM_OPERANDS][NAMES];
    int ellipsis; /* most dims an ellipsis stands for */
    int order[TRMI_EINSUM_LETTERS], count;
} parse;

static int name_of(char c)
{
    return c >= 'a' && c <= 'z' ? c - 'a' : c >= 'A' && c <= 'Z' ? 26 + c - 'A' : -1;
}

static trm_status bad_equation(const parse *p, const char *why)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "Einsum '%s': equation '%s': %s", p->desc->name,
                    trm_attr_string(p->desc->attrs, "equation", ""), why);
}

/* ---- the equation ---- */

static trm_status use_dim(parse *p, int operand, int name, int64_t dim, int64_t stride)
{
    if (p->seen[name] > 0 && p->dim[name] != dim && p->dim[name] != 1 && dim != 1)
        return bad_equation(p, "a letter stands for dims of different size");
    if (p->seen[name] == 0 || p->dim[name] == 1)
        p->dim[name] = dim;
    p->seen[name]++;
    p->strides[operand][name] += dim == 1 ? 0 : stride;
    return TRM_OK;
}

static trm_status read_term(parse *p, int operand, const char *from, const char *to)
{
    const trm_tensor *t = &p->desc->inputs[operand];
    int64_t strides[TRM_RANK_MAX];
    int letters = 0, d = 0, rest;
    bool dots = false;

    trmi_cuda_strides(t, strides);
    for (const char *s = from; s < to; s++)
        letters += name_of(*s) >= 0;
    rest = t->rank - letters;
    if (rest < 0)
        return bad_equation(p, "a term has more letters than its operand has dims");
    for (const char *s = from; s < to; s++) {
        if (*s == ' ')
            continue;
        if (to - s >= 3 && strncmp(s, "...", 3) == 0 && !dots) {
            dots = true;
            for (int i = 0; i < rest; i++, d++)
                TRM_CHECK(use_dim(p, operand, 52 + rest - 1 - i, t->dims[d], strides[d]));
            p->ellipsis = rest > p->ellipsis ? rest : p->ellipsis;
            s += 2;
            continue;
        }
        if (name_of(*s) < 0)
            return bad_equation(p, "want letters, '...', ',' and '->'");
        TRM_CHECK(use_dim(p, operand, name_of(*s), t->dims[d], strides[d]));
        d++;
    }
    return d == t->rank ? TRM_OK
                        : bad_equation(p, "a term has fewer letters than its operand has dims");
}

static trm_status keep(parse *p, int name)
{
    for (int i = 0; i < p->count; i++)
        if (p->order[i] == name)
            return bad_equation(p, "the result repeats a letter");
    if (p->count == TRMI_EINSUM_LETTERS)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Einsum '%s': more than %d letters", p->desc->name,
                        TRMI_EINSUM_LETTERS);
    p->order[p->count++] = name;
    return TRM_OK;
}

/* result NULL: the ellipsis, then letters that occur once, in the order of characters */
static trm_status read_result(parse *p, const char *result)
{
    const char *implied = "...";

    for (const char *s = result != NULL ? result : implied; *s != '\0'; s++) {
        if (*s == ' ')
            continue;
        if (strncmp(s, "...", 3) == 0) {
            for (int i = p->ellipsis - 1; i >= 0; i--)
                TRM_CHECK(keep(p, 52 + i));
            s += 2;
            continue;
        }
        if (name_of(*s) < 0 || p->seen[name_of(*s)] == 0)
            return bad_equation(p, "the result has a letter that no term has");
        TRM_CHECK(keep(p, name_of(*s)));
    }
    for (int c = 'A'; c <= 'z' && result == NULL; c++)
        if (name_of((char)c) >= 0 && p->seen[name_of((char)c)] == 1)
            TRM_CHECK(keep(p, name_of((char)c)));
    return TRM_OK;
}

static trm_status read_equation(parse *p, int *kept_out)
{
    const char *s = trm_attr_string(p->desc->attrs, "equation", "");
    const char *arrow = strstr(s, "->"), *end = arrow != NULL ? arrow : s + strlen(s);

    for (int i = 0; i < p->desc->input_count; i++) {
        const char *comma = memchr(s, ',', (size_t)(end - s));

        if ((comma != NULL) != (i + 1 < p->desc->input_count))
            return bad_equation(p, "terms and inputs differ in number");
        TRM_CHECK(read_term(p, i, s, comma != NULL ? comma : end));
        s = comma != NULL ? comma + 1 : end;
    }
    TRM_CHECK(read_result(p, arrow != NULL ? arrow + 2 : NULL));
    *kept_out = p->count;
    for (int name = 0; name < NAMES; name++) {
        bool known = p->seen[name] == 0;

        for (int i = 0; i < *kept_out && !known; i++)
            known = p->order[i] == name;
        if (!known)
            TRM_CHECK(keep(p, name));
    }
    return TRM_OK;
}

/* ---- as a product ---- */

/* A letter with its strides in A, B and the result. */
typedef struct letter {
    int64_t dim, a, b, d;
} letter;
typedef struct group {
    int count;
    letter items[TRMI_EINSUM_LETTERS];
} group;

/* Joins neighbours that lie one inside the other everywhere. */
static void merge(group *g)
{
    for (int i = g->count - 2; i >= 0; i--) {
        letter *outer = &g->items[i], *inner = &g->items[i + 1];

        if (outer->a != inner->dim * inner->a || outer->b != inner->dim * inner->b ||
            outer->d != inner->dim * inner->d)
            continue;
        inner->dim *= outer->dim;
        g->count--;
        memmove(outer, inner, (size_t)(g->count - i) * sizeof(letter));
    }
}

static void sort_by_a(group *g)
{
    for (int i = 1; i < g->count; i++) {
        letter l = g->items[i];
        int at = i;

        for (; at > 0 && g->items[at - 1].a < l.a; at--)
            g->items[at] = g->items[at - 1];
        g->items[at] = l;
    }
}

/* Takes the letter that will be rows (columns) out of the group: one of stride 1 in the result if
 * there is, else the largest. */
static letter take_one(group *g)
{
    letter one = {.dim = 1};
    int at = -1;

    for (int i = 0; i < g->count; i++)
        if (at < 0 || g->items[i].d == 1 ||
            (g->items[at].d != 1 && g->items[i].dim > g->items[at].dim))
            at = i;
    if (at < 0)
        return one;
    one = g->items[at];
    g->count--;
    memmove(&g->items[at], &g->items[at + 1], (size_t)(g->count - at) * sizeof(letter));
    return one;
}

static bool add_batches(trmi_product *p, const group *g)
{
    for (int i = 0; i < g->count; i++) {
        if (p->batches == TRMI_PRODUCT_BATCH)
            return false;
        p->dims[p->batches] = g->items[i].dim;
        p->a_step[p->batches] = g->items[i].a;
        p->b_step[p->batches] = g->items[i].b;
        p->d_step[p->batches] = g->items[i].d;
        p->batches++;
    }
    return true;
}

/* False: it is no product of matrices. */
static bool as_product(const trmi_einsum *e, trmi_product *p)
{
    group batch = {0}, rows = {0}, columns = {0}, terms = {0};
    letter m, n, k = {.dim = 1, .a = 1, .b = 1};
    int64_t d = 1;

    if (e->operands != 2)
        return false;
    for (int l = 0; l < e->kept; l++)
        d *= e->dims[l];
    for (int l = 0; l < e->letters; l++) {
        letter x = {e->dims[l], e->strides[0][l], e->strides[1][l], 0};
        group *g;

        if (x.dim == 0)
            return false;
        if (l < e->kept) {
            d /= x.dim;
            x.d = d;
        }
        if (x.dim == 1)
            continue;
        if (l >= e->kept && (x.a == 0 || x.b == 0)) /* summed in one operand alone */
            return false;
        g = l >= e->kept ? &terms : x.b == 0 ? &rows : x.a == 0 ? &columns : &batch;
        g->items[g->count++] = x;
    }
    sort_by_a(&terms);
    merge(&terms);
    merge(&rows);
    merge(&columns);
    if (terms.count > 1)
        return false;
    if (terms.count == 1)
        k = terms.items[0];
    m = take_one(&rows);
    n = take_one(&columns);
    p->m = m.dim;
    p->n = n.dim;
    p->k = k.dim;
    p->a_row = m.a;
    p->a_col = k.a;
    p->b_row = k.b;
    p->b_col = n.b;
    p->d_row = m.d;
    p->d_col = n.d;
    return add_batches(p, &batch) && add_batches(p, &rows) && add_batches(p, &columns);
}

/* ---- the kernel ---- */

static void einsum_destroy(trm_kernel *base)
{
    einsum_kernel *k = (einsum_kernel *)base;

    trmi_dense_fini(&k->dense);
    trm_free(k);
}

static trm_status product_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    const einsum_kernel *k = (const einsum_kernel *)base;

    return trmi_dense_run(k->base.cuda, &k->dense, trmi_cuda_stream(base, s), in[0], in[1], NULL,
                          out[0], NULL, workspace, 0, 1, NULL);
}

static trm_status general_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    const einsum_kernel *k = (const einsum_kernel *)base;
    trmi_einsum e = k->einsum;

    (void)workspace;
    for (int i = 0; i < e.operands; i++)
        e.data[i] = in[i];
    return trmi_cuda_einsum_run(k->base.cuda, trmi_cuda_stream(base, s), k->dtype, &e, out[0]);
}

static const trm_kernel_ops library_ops = {
    .name = "cublaslt einsum", .run = product_run, .destroy = einsum_destroy};
static const trm_kernel_ops tiled_ops = {
    .name = "tiled einsum", .run = product_run, .destroy = einsum_destroy};
static const trm_kernel_ops general_ops = {
    .name = "einsum", .run = general_run, .destroy = einsum_destroy};

static trm_status settle(einsum_kernel *k, const parse *p)
{
    const trm_op_desc *desc = p->desc;
    trmi_einsum *e = &k->einsum;
    trmi_product product;
    int64_t results = 1;

    for (int l = 0; l < e->letters; l++) {
        e->dims[l] = p->dim[p->order[l]];
        for (int o = 0; o < e->operands; o++)
            e->strides[o][l] = p->strides[o][p->order[l]];
        results *= l < e->kept ? e->dims[l] : 1;
    }
    if ((size_t)results != trm_tensor_numel(&desc->outputs[0]))
        return bad_equation(p, "the result does not have the output's shape");
    memset(&product, 0, sizeof(product));
    product.ab = product.d = k->dtype;
    product.alpha = 1.0f;
    if (!as_product(e, &product))
        return TRM_OK;
    TRM_CHECK(trmi_dense_create(k->base.cuda, &product, NULL, &k->dense));
    k->base.base.ops = k->dense.gemm != NULL ? &library_ops : &tiled_ops;
    k->base.base.workspace_bytes = trmi_dense_workspace_bytes(&k->dense);
    return TRM_OK;
}

trm_status trmi_cuda_einsum(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    parse p = {.desc = desc};
    einsum_kernel *k = NULL;
    int kept = 0;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (desc->input_count > TRMI_EINSUM_OPERANDS)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Einsum '%s': %d operands: at most %d", desc->name,
                        desc->input_count, TRMI_EINSUM_OPERANDS);
    for (int i = 0; i < desc->input_count; i++)
        if (desc->inputs[i].dtype != desc->inputs[0].dtype ||
            desc->inputs[i].dtype == TRM_DTYPE_BOOL)
            return trmi_cuda_bad_dtype(desc, i, "a number, the same for all");
    TRM_CHECK(read_equation(&p, &kept));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &general_ops, &k));
    k->dtype = desc->inputs[0].dtype;
    k->einsum.operands = desc->input_count;
    k->einsum.kept = kept;
    k->einsum.letters = p.count;
    st = settle(k, &p);
    if (st != TRM_OK) {
        einsum_destroy(&k->base.base);
        return st;
    }
    *kernel_out = &k->base.base;
    return TRM_OK;
}
