/* Operators that merge and divide dims: Reshape and its kin, DepthToSpace.
 *
 * Reading dims from the innermost on, the running products of the input and of the output are marks
 * on one line; between two neighbouring marks lies a factor that is one whole loop on both sides:
 * in the dim that holds it, its scale is the product of the factors inside it, its repeat of those
 * outside it. Symbols end the line; it is walked again from the outermost dim. */
#include "parallel/rules_impl.h"

#include <stdlib.h>

typedef struct line {
    int count;
    int dim[TRM_RANK_MAX];
    int64_t low[TRM_RANK_MAX], high[TRM_RANK_MAX]; /* running product before and with the dim */
} line;

/* Constant dims of t from the innermost (step -1) or the outermost on, until a symbol. */
static void walk(const trm_tensor *t, int first, int last, int step, line *out)
{
    int64_t product = 1;

    out->count = 0;
    for (int d = first; d != last + step; d += step) {
        int64_t next;

        if (t->dims[d] < 1 || !trm_mul_ok(product, t->dims[d], &next) || next > TRM_DIM_MAX)
            return;
        if (t->dims[d] > 1) {
            out->dim[out->count] = d;
            out->low[out->count] = product;
            out->high[out->count++] = next;
        }
        product = next;
    }
}

static int holder(const line *l, int64_t low, int64_t high)
{
    for (int i = 0; i < l->count; i++)
        if (l->low[i] <= low && high <= l->high[i])
            return i;
    return -1;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* One factor [low, high) of a line. `inner`: the line was walked from the innermost dim. */
static void factor(trmi_rules *r, const line *in, const line *out, int64_t low, int64_t high,
                   bool inner)
{
    const line *sides[2] = {in, out};
    int64_t scale[2], repeat[2];
    int dim[2];
    trm_axis *a;

    if (low == 0 || high % low != 0)
        return;
    for (int k = 0; k < 2; k++) {
        int i = holder(sides[k], low, high);

        if (i < 0 || low % sides[k]->low[i] != 0 || sides[k]->high[i] % high != 0)
            return;
        dim[k] = sides[k]->dim[i];
        scale[k] = inner ? low / sides[k]->low[i] : sides[k]->high[i] / high;
        repeat[k] = inner ? sides[k]->high[i] / high : low / sides[k]->low[i];
    }
    a = trmi_rules_axis(r, "factor", high / low, TRMI_WEIGHT_NONE);
    trmi_scale_in(r, a, 0, dim[0], scale[0], repeat[0]);
    trmi_scale_out(r, a, 0, dim[1], scale[1], repeat[1]);
}

/* Marks that both sides reach: beyond the last common one factors do not lie between dims. */
static void factors(trmi_rules *r, const line *in, const line *out, bool inner)
{
    int64_t marks[2 * TRM_RANK_MAX + 1], last = 1;
    int count = 1;

    marks[0] = 1;
    for (int i = 0; i < in->count; i++)
        marks[count++] = in->high[i];
    for (int i = 0; i < out->count; i++)
        marks[count++] = out->high[i];
    qsort(marks, (size_t)count, sizeof(*marks), ascending);
    for (int i = 0; i < in->count; i++)
        for (int k = 0; k < out->count; k++)
            if (in->high[i] == out->high[k] && in->high[i] > last)
                last = in->high[i];
    for (int i = 0; i + 1 < count && marks[i + 1] <= last; i++)
        if (marks[i] < marks[i + 1])
            factor(r, in, out, marks[i], marks[i + 1], inner);
}

void trmi_rules_reshape(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *y = trmi_rules_out(r, 0);
    bool open_x = false, open_y = false;
    line in, out;
    int d = 0;

    if (x == NULL || y == NULL || x->rank == 0 || y->rank == 0)
        return;
    walk(x, x->rank - 1, 0, -1, &in);
    walk(y, y->rank - 1, 0, -1, &out);
    factors(r, &in, &out, true);
    /* outer dims: past equal symbols, up to the next ones */
    while (d < x->rank && d < y->rank && x->dims[d] == y->dims[d] && trm_dim_is_symbol(x->dims[d]))
        d++;
    for (int i = d; i < x->rank; i++)
        open_x |= x->dims[i] < 0;
    for (int i = d; i < y->rank; i++)
        open_y |= y->dims[i] < 0;
    if (open_x && open_y) {
        walk(x, d, x->rank - 1, 1, &in);
        walk(y, d, y->rank - 1, 1, &out);
        factors(r, &in, &out, false);
    }
    trmi_linear(r, 1);
}

/* [N, b*b*C, H, W] -> [N, C, b*H, b*W] */
void trmi_rules_depth_to_space(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *y = trmi_rules_out(r, 0);
    int64_t b = trm_attr_int(&r->n->attrs, "blocksize", 0);
    bool crd = trm_attr_string(&r->n->attrs, "mode", "DCR")[0] == 'C';
    trm_axis *a;

    if (x == NULL || y == NULL || x->rank != 4 || y->rank != 4 || b < 1 || b > 1024)
        return;
    a = trmi_rules_axis(r, "channels", y->dims[1], TRMI_WEIGHT_NONE);
    trmi_scale_in(r, a, 0, 1, crd ? b * b : 1, crd ? 1 : b * b);
    trmi_carry_out(r, a, 0, 1);
    trmi_linear(r, 1);
}

/* [N, C, b*H, b*W] -> [N, b*b*C, H, W] */
void trmi_rules_space_to_depth(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *y = trmi_rules_out(r, 0);
    int64_t b = trm_attr_int(&r->n->attrs, "blocksize", 0);
    trm_axis *a;

    if (x == NULL || y == NULL || x->rank != 4 || y->rank != 4 || b < 1 || b > 1024)
        return;
    a = trmi_rules_axis(r, "channels", x->dims[1], TRMI_WEIGHT_NONE);
    trmi_carry_in(r, a, 0, 1);
    trmi_scale_out(r, a, 0, 1, 1, b * b);
    trmi_linear(r, 1);
}
