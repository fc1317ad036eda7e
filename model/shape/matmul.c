/* Rules of matrix products and Einsum. */
#include "model/shape/rule.h"

#include <string.h>

/* Shape of a @ b for inputs a and b, NumPy's rules. */
static trm_status product(trmi_io io, int ia, int ib, trm_dtype dtype)
{
    trm_tensor a = io->in[ia], b = io->in[ib], batch, out = {.rank = -1};
    bool vector_a = a.rank == 1, vector_b = b.rank == 1;
    int64_t k;

    trmi_shape_out(io, 0, dtype, &out);
    if (a.rank == 0 || b.rank == 0)
        return trmi_shape_bad(io, "a scalar has no matrix product; use Mul");
    if (a.rank < 0 || b.rank < 0)
        return TRM_OK;
    if (vector_a) {
        a.dims[1] = a.dims[0];
        a.dims[0] = 1;
        a.rank = 2;
    }
    if (vector_b) {
        b.dims[1] = 1;
        b.rank = 2;
    }
    if (trmi_shape_differ(a.dims[a.rank - 1], b.dims[b.rank - 2]))
        return trmi_shape_bad(io, "%lld columns on the left against %lld rows on the right",
                              (long long)a.dims[a.rank - 1], (long long)b.dims[b.rank - 2]);
    TRM_CHECK(trmi_shape_same(io, "inner dims", a.dims[a.rank - 1], b.dims[b.rank - 2], &k));
    batch = a;
    batch.rank = a.rank - 2;
    out = b;
    out.rank = b.rank - 2;
    TRM_CHECK(trmi_shape_broadcast(io, &batch, &out));
    out = batch;
    if (!vector_a)
        out.dims[out.rank++] = a.dims[a.rank - 2];
    if (!vector_b)
        out.dims[out.rank++] = b.dims[b.rank - 1];
    trmi_shape_out(io, 0, dtype, &out);
    return TRM_OK;
}

trm_status trmi_rule_matmul(trmi_io io)
{
    return product(io, 0, 1, trmi_shape_dtype(io, 0));
}

trm_status trmi_rule_matmul_integer(trmi_io io)
{
    return product(io, 0, 1, TRM_DTYPE_I32);
}

/* a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero */
trm_status trmi_rule_qlinear_matmul(trmi_io io)
{
    return product(io, 0, 3, trmi_shape_dtype(io, 7));
}

trm_status trmi_rule_gemm(trmi_io io)
{
    bool ta = trm_attr_int(&io->node->attrs, "transA", 0) != 0;
    bool tb = trm_attr_int(&io->node->attrs, "transB", 0) != 0;
    const trm_tensor *a = &io->in[0], *b = &io->in[1];
    trm_tensor out = {.rank = 2, .dims = {TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN}};
    int64_t k;

    TRM_CHECK(trmi_shape_want_rank(io, 0, 2));
    TRM_CHECK(trmi_shape_want_rank(io, 1, 2));
    if (a->rank == 2)
        out.dims[0] = a->dims[ta ? 1 : 0];
    if (b->rank == 2)
        out.dims[1] = b->dims[tb ? 0 : 1];
    if (a->rank == 2 && b->rank == 2)
        TRM_CHECK(trmi_shape_same(io, "inner dims", a->dims[ta ? 0 : 1], b->dims[tb ? 1 : 0], &k));
    if (trmi_shape_operands(io) > 2 && trmi_shape_has(io, 2)) {
        trm_tensor with = out;

        TRM_CHECK(trmi_shape_broadcast(io, &with, &io->in[2]));
        for (int i = 0; i < with.rank; i++)
            if (with.rank > 2 || trmi_shape_differ(with.dims[i], out.dims[i]))
                return trmi_shape_bad(io, "C does not broadcast to the product");
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_det(trmi_io io)
{
    trm_tensor out = io->in[0];

    if (out.rank >= 0) {
        if (out.rank < 2 || trmi_shape_differ(out.dims[out.rank - 1], out.dims[out.rank - 2]))
            return trmi_shape_bad(io, "want square matrices in the last two dims");
        out.rank -= 2;
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* ---- Einsum ---- */

typedef struct terms {
    int64_t letter[256]; /* dim of a letter; 0 entries are told apart by `seen` */
    int seen[256];       /* times a letter occurs in the inputs */
    trm_tensor ellipsis; /* broadcast dims */
    bool has_ellipsis;
} terms;

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* One term of the equation, [s, end), against input i. */
static trm_status read_term(trmi_io io, int i, const char *s, const char *end, terms *t)
{
    const trm_tensor *in = &io->in[i];
    trm_tensor extra = {.rank = 0};
    int letters = 0, d = 0;

    for (const char *p = s; p < end; p++)
        letters += is_letter(*p);
    for (const char *p = s; p < end; p++) {
        if (*p == ' ')
            continue;
        if (is_letter(*p)) {
            unsigned char c = (unsigned char)*p;
            int64_t dim = in->rank < 0 ? TRM_DIM_UNKNOWN : d < in->rank ? in->dims[d] : 1;

            if (in->rank >= 0 && d >= in->rank)
                return trmi_shape_bad(io, "the equation names more dims than input %d has", i);
            d++;
            if (t->seen[c]++ == 0)
                t->letter[c] = dim;
            else if (t->letter[c] == 1) /* a dim of one broadcasts */
                t->letter[c] = dim;
            else if (dim != 1)
                TRM_CHECK(
                    trmi_shape_same(io, "dims of one letter", t->letter[c], dim, &t->letter[c]));
            continue;
        }
        if (end - p < 3 || strncmp(p, "...", 3) != 0)
            return trmi_shape_bad(io, "the equation has '%c' where a letter or '...' should be",
                                  *p);
        p += 2;
        if (in->rank < 0) {
            extra.rank = -1;
        } else {
            extra.rank = in->rank - letters;
            if (extra.rank < 0)
                return trmi_shape_bad(io, "the equation names more dims than input %d has", i);
            for (int k = 0; k < extra.rank; k++)
                extra.dims[k] = in->dims[d++];
        }
        if (!t->has_ellipsis)
            t->ellipsis = extra;
        else
            TRM_CHECK(trmi_shape_broadcast(io, &t->ellipsis, &extra));
        t->has_ellipsis = true;
    }
    if (in->rank >= 0 && d != in->rank)
        return trmi_shape_bad(io, "the equation names %d dims of input %d, which has %d", d, i,
                              in->rank);
    return TRM_OK;
}

static trm_status put_letter(trmi_io io, trm_tensor *out, int64_t dim)
{
    if (out->rank >= TRM_RANK_MAX)
        return trmi_shape_bad(io, "the result would have more than %d dims", TRM_RANK_MAX);
    out->dims[out->rank++] = dim;
    return TRM_OK;
}

static trm_status einsum_out(trmi_io io, const terms *t, const char *result, trm_tensor *out)
{
    *out = (trm_tensor){.rank = 0};
    if (t->has_ellipsis && t->ellipsis.rank < 0) {
        out->rank = -1;
        return TRM_OK;
    }
    if (result == NULL) { /* implicit: the ellipsis, then letters seen once, in order */
        for (int k = 0; t->has_ellipsis && k < t->ellipsis.rank; k++)
            TRM_CHECK(put_letter(io, out, t->ellipsis.dims[k]));
        for (int c = 0; c < 256; c++)
            if (t->seen[c] == 1)
                TRM_CHECK(put_letter(io, out, t->letter[c]));
        return TRM_OK;
    }
    for (const char *p = result; *p != '\0'; p++) {
        if (*p == ' ')
            continue;
        if (strncmp(p, "...", 3) == 0) {
            for (int k = 0; t->has_ellipsis && k < t->ellipsis.rank; k++)
                TRM_CHECK(put_letter(io, out, t->ellipsis.dims[k]));
            p += 2;
            continue;
        }
        if (!is_letter(*p) || t->seen[(unsigned char)*p] == 0)
            return trmi_shape_bad(io, "the result has '%c', which no input has", *p);
        TRM_CHECK(put_letter(io, out, t->letter[(unsigned char)*p]));
    }
    return TRM_OK;
}

trm_status trmi_rule_einsum(trmi_io io)
{
    const char *s = trm_attr_string(&io->node->attrs, "equation", "");
    const char *arrow = strstr(s, "->"), *end = arrow != NULL ? arrow : s + strlen(s);
    terms t = {.ellipsis = {.rank = 0}};
    trm_tensor out;
    int i = 0;

    for (;; i++) {
        const char *comma = (const char *)memchr(s, ',', (size_t)(end - s));

        if (i >= io->node->input_count)
            return trmi_shape_bad(io, "the equation has more terms than the node has inputs (%d)",
                                  io->node->input_count);
        TRM_CHECK(read_term(io, i, s, comma != NULL ? comma : end, &t));
        if (comma == NULL)
            break;
        s = comma + 1;
    }
    if (i + 1 != io->node->input_count)
        return trmi_shape_bad(io, "the equation has %d terms, the node %d inputs", i + 1,
                              io->node->input_count);
    TRM_CHECK(einsum_out(io, &t, arrow == NULL ? NULL : arrow + 2, &out));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}
