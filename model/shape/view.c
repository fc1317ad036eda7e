/* Rules of operators that rename, repeat or report dims. */
#include "model/shape/rule.h"

#include <string.h>

/* The elements pass through unchanged. */
static void values_through(trmi_io io)
{
    trmi_elems e;

    if (trmi_shape_elems(io, 0, &e))
        trmi_shape_out_elems(io, 0, &e);
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b != 0) {
        int64_t r = a % b;

        a = b;
        b = r;
    }
    return a;
}

/* Product of `from` over product of `by`, cancelling equal symbols and zeros first: the result
 * stays readable (and is often a constant), and an empty batch keeps its other dims. */
static int64_t quotient(trmi_io io, const int64_t *from, int from_count, const int64_t *by,
                        int by_count)
{
    int64_t left[TRM_RANK_MAX], num = 1, den = 1, g;
    bool used[TRM_RANK_MAX] = {false};

    for (int i = 0; i < from_count; i++)
        left[i] = from[i];
    for (int i = 0; i < by_count; i++)
        for (int k = 0; k < from_count && !used[i]; k++)
            if ((by[i] <= -2 || by[i] == 0) && left[k] == by[i]) {
                used[i] = true;
                left[k] = 1;
            }
    for (int i = 0; i < from_count; i++)
        if (left[i] >= 0)
            num = trmi_shape_op(io, '*', num, left[i]);
    for (int i = 0; i < by_count; i++)
        if (by[i] >= 0 && !used[i])
            den = trmi_shape_op(io, '*', den, by[i]);
    if (num < 0 || den <= 0)
        return TRM_DIM_UNKNOWN;
    g = gcd(num, den);
    if (g > 0) {
        num /= g;
        den /= g;
    }
    for (int i = 0; i < from_count; i++)
        if (left[i] < 0)
            num = trmi_shape_op(io, '*', num, left[i]);
    for (int i = 0; i < by_count; i++)
        if (by[i] < 0 && !used[i])
            den = trmi_shape_op(io, '*', den, by[i]);
    return trmi_shape_op(io, '/', num, den);
}

/* Fills in the one dim that `hole` points to from the element count. */
static trm_status fill_hole(trmi_io io, trm_tensor *out, int hole)
{
    int64_t others[TRM_RANK_MAX], count = 1, known = 1;
    const trm_tensor *in = &io->in[0];
    int n = 0;

    for (int i = 0; i < out->rank; i++)
        if (i != hole) {
            others[n++] = out->dims[i];
            known = trmi_shape_op(io, '*', known, out->dims[i]);
        }
    out->dims[hole] = TRM_DIM_UNKNOWN;
    if (in->rank < 0)
        return TRM_OK;
    count = trmi_shape_product(io, in, 0, in->rank);
    if (count >= 0 && known >= 0 && (known == 0 ? count != 0 : count % known != 0))
        return trmi_shape_bad(io, "%lld elements do not fill rows of %lld", (long long)count,
                              (long long)known);
    out->dims[hole] = quotient(io, in->dims, in->rank, others, n);
    if (count == 0 && known == 0 && out->dims[hole] < 0)
        out->dims[hole] = 0;
    return TRM_OK;
}

trm_status trmi_rule_reshape(trmi_io io)
{
    bool allow_zero = trm_attr_int(&io->node->attrs, "allowzero", 0) != 0;
    trm_tensor out = {.rank = -1};
    int64_t length = trmi_shape_length(io, 1), count, total;
    int hole = -1, open = 0;
    trmi_elems e;

    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    TRM_CHECK(trmi_shape_want_rank(io, 1, 1));
    if (length > TRM_RANK_MAX)
        return trmi_shape_bad(io, "the target has %lld dims, at most %d are supported",
                              (long long)length, TRM_RANK_MAX);
    if (length < 0)
        return TRM_OK;
    out.rank = (int)length;
    if (!trmi_shape_elems(io, 1, &e)) {
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = TRM_DIM_UNKNOWN;
        if (out.rank == 1)
            TRM_CHECK(fill_hole(io, &out, 0));
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
        return TRM_OK;
    }
    for (int i = 0; i < out.rank; i++) {
        bool minus_one = e.kind[i] == TRMI_ELEM_EXACT && e.v[i] == -1;

        out.dims[i] = trmi_elem_dim(&e, i);
        if (e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < -1)
            return trmi_shape_bad(io, "the target has %lld at %d, want a size, 0 or -1",
                                  (long long)e.v[i], i);
        if (e.kind[i] == TRMI_ELEM_EXACT && e.v[i] == 0 && !allow_zero) {
            if (io->in[0].rank >= 0 && i >= io->in[0].rank)
                return trmi_shape_bad(io,
                                      "0 at %d of the target copies a dim that the data "
                                      "does not have",
                                      i);
            out.dims[i] = io->in[0].rank < 0 ? TRM_DIM_UNKNOWN : io->in[0].dims[i];
        }
        if (minus_one && hole >= 0)
            return trmi_shape_bad(io, "the target has -1 twice");
        if (minus_one)
            hole = i;
        else if (out.dims[i] == TRM_DIM_UNKNOWN)
            open++;
    }
    if (hole < 0 && open == 1) { /* one dim is not known: the element count tells it */
        for (hole = 0; out.dims[hole] != TRM_DIM_UNKNOWN;)
            hole++;
        open = 0;
    }
    if (hole >= 0 && open == 0)
        TRM_CHECK(fill_hole(io, &out, hole));
    else if (hole < 0 && open == 0 && io->in[0].rank >= 0) {
        count = trmi_shape_product(io, &io->in[0], 0, io->in[0].rank);
        total = trmi_shape_product(io, &out, 0, out.rank);
        if (trmi_shape_differ(count, total))
            return trmi_shape_bad(io, "%lld elements do not fit the target's %lld",
                                  (long long)count, (long long)total);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    values_through(io);
    return TRM_OK;
}

trm_status trmi_rule_flatten(trmi_io io)
{
    int64_t axis = trm_attr_int(&io->node->attrs, "axis", 1);
    const trm_tensor *in = &io->in[0];
    trm_tensor out = {.rank = 2, .dims = {TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN}};

    if (in->rank >= 0) {
        if (axis < -in->rank || axis > in->rank)
            return trmi_shape_bad(io, "axis %lld is not in [%d, %d]", (long long)axis, -in->rank,
                                  in->rank);
        axis = axis < 0 ? axis + in->rank : axis;
        out.dims[0] = trmi_shape_product(io, in, 0, (int)axis);
        out.dims[1] = trmi_shape_product(io, in, (int)axis, in->rank);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_squeeze(trmi_io io)
{
    const trm_tensor *in = &io->in[0];
    trm_tensor out = {.rank = -1};
    bool drop[TRM_RANK_MAX] = {false};
    trmi_elems e = {0};
    int axis;

    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    if (in->rank < 0)
        return TRM_OK;
    if (trmi_shape_has(io, 1)) {
        if (!trmi_shape_exact(io, 1, &e)) {
            int64_t n = trmi_shape_length(io, 1);

            if (n < 0 || n > in->rank)
                return TRM_OK;
            out.rank = in->rank - (int)n;
            for (int i = 0; i < out.rank; i++)
                out.dims[i] = TRM_DIM_UNKNOWN;
            trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
            return TRM_OK;
        }
        for (int i = 0; i < e.count; i++) {
            TRM_CHECK(trmi_shape_axis(io, e.v[i], in->rank, &axis));
            if (trmi_shape_differ(in->dims[axis], 1))
                return trmi_shape_bad(io, "axis %d has %lld elements, only dims of 1 can go", axis,
                                      (long long)in->dims[axis]);
            drop[axis] = true;
        }
    } else {
        for (int i = 0; i < in->rank; i++) {
            if (in->dims[i] < 0)
                return TRM_OK; /* may be 1 or not */
            drop[i] = in->dims[i] == 1;
        }
    }
    out.rank = 0;
    for (int i = 0; i < in->rank; i++)
        if (!drop[i])
            out.dims[out.rank++] = in->dims[i];
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    values_through(io);
    return TRM_OK;
}

trm_status trmi_rule_unsqueeze(trmi_io io)
{
    const trm_tensor *in = &io->in[0];
    trm_tensor out = {.rank = -1};
    bool fresh[TRM_RANK_MAX] = {false};
    int64_t n = trmi_shape_length(io, 1);
    trmi_elems e;
    int axis, next = 0;

    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    if (in->rank < 0 || n < 0)
        return TRM_OK;
    if (n > TRM_RANK_MAX || in->rank + n > TRM_RANK_MAX)
        return trmi_shape_bad(io, "the result would have %lld dims, at most %d are supported",
                              (long long)(in->rank + n), TRM_RANK_MAX);
    out.rank = in->rank + (int)n;
    if (!trmi_shape_exact(io, 1, &e)) {
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = TRM_DIM_UNKNOWN;
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
        return TRM_OK;
    }
    for (int i = 0; i < e.count; i++) {
        TRM_CHECK(trmi_shape_axis(io, e.v[i], out.rank, &axis));
        if (fresh[axis])
            return trmi_shape_bad(io, "axis %d is named twice", axis);
        fresh[axis] = true;
    }
    for (int i = 0; i < out.rank; i++)
        out.dims[i] = fresh[i] ? 1 : in->dims[next++];
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    values_through(io);
    return TRM_OK;
}

trm_status trmi_rule_transpose(trmi_io io)
{
    size_t n;
    const int64_t *perm = trm_attr_ints(&io->node->attrs, "perm", &n);
    const trm_tensor *in = &io->in[0];
    trm_tensor out = *in;
    bool seen[TRM_RANK_MAX] = {false};

    if (in->rank >= 0 && perm != NULL && n != (size_t)in->rank)
        return trmi_shape_bad(io, "perm has %zu entries, the data %d dims", n, in->rank);
    for (int i = 0; i < in->rank; i++) {
        int64_t from = perm == NULL ? in->rank - 1 - i : perm[i];

        from = from < 0 ? from + in->rank : from;
        if (from < 0 || from >= in->rank || seen[from])
            return trmi_shape_bad(io, "perm is no permutation of 0 to %d", in->rank - 1);
        seen[from] = true;
        out.dims[i] = in->dims[from];
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    if (in->rank == 1)
        values_through(io);
    return TRM_OK;
}

trm_status trmi_rule_shape(trmi_io io)
{
    int64_t start = trm_attr_int(&io->node->attrs, "start", 0), count = TRM_DIM_UNKNOWN;
    const trm_tensor *in = &io->in[0];
    trmi_elems e = {0};

    if (in->rank >= 0) {
        int64_t end = trm_attr_int(&io->node->attrs, "end", in->rank);

        start = start < 0 ? start + in->rank : start;
        end = end < 0 ? end + in->rank : end;
        start = start < 0 ? 0 : start > in->rank ? in->rank : start;
        end = end < 0 ? 0 : end > in->rank ? in->rank : end;
        for (int64_t i = start; i < end; i++)
            trmi_elem_set(&e, e.count++, in->dims[i]);
        count = e.count;
    }
    trmi_shape_out_dims(io, 0, TRM_DTYPE_I64, 1, &count);
    if (in->rank >= 0)
        trmi_shape_out_elems(io, 0, &e);
    return TRM_OK;
}

trm_status trmi_rule_size(trmi_io io)
{
    trmi_elems e = {.count = 1};

    trmi_shape_out_dims(io, 0, TRM_DTYPE_I64, 0, NULL);
    if (io->in[0].rank >= 0) {
        trmi_elem_set(&e, 0, trmi_shape_product(io, &io->in[0], 0, io->in[0].rank));
        trmi_shape_out_elems(io, 0, &e);
    }
    return TRM_OK;
}

trm_status trmi_rule_expand(trmi_io io)
{
    int64_t n = trmi_shape_length(io, 1);
    trm_tensor target = {.rank = -1};
    trm_tensor out = io->in[0];
    trmi_elems e, fill;

    TRM_CHECK(trmi_shape_want_rank(io, 1, 1));
    if (n > TRM_RANK_MAX)
        return trmi_shape_bad(io, "the target has %lld dims, at most %d are supported",
                              (long long)n, TRM_RANK_MAX);
    if (n >= 0) {
        bool known = trmi_shape_elems(io, 1, &e);

        target.rank = (int)n;
        for (int i = 0; i < target.rank; i++) {
            target.dims[i] = known ? trmi_elem_dim(&e, i) : TRM_DIM_UNKNOWN;
            if (known && e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < 0)
                return trmi_shape_bad(io, "the target has %lld at %d", (long long)e.v[i], i);
        }
    }
    TRM_CHECK(trmi_shape_broadcast(io, &out, &target));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    if (out.rank == 1 && out.dims[0] >= 0 && out.dims[0] <= TRM_SHAPE_VALUES_MAX &&
        trmi_shape_elems(io, 0, &fill) && (fill.count == 1 || fill.count == out.dims[0])) {
        e.count = (int)out.dims[0];
        for (int i = 0; i < e.count; i++) {
            e.v[i] = fill.v[fill.count == 1 ? 0 : i];
            e.kind[i] = fill.kind[fill.count == 1 ? 0 : i];
        }
        trmi_shape_out_elems(io, 0, &e);
    }
    return TRM_OK;
}

trm_status trmi_rule_tile(trmi_io io)
{
    trm_tensor out = io->in[0];
    trmi_elems e;

    TRM_CHECK(trmi_shape_want_rank(io, 1, 1));
    if (out.rank >= 0 && trmi_shape_length(io, 1) >= 0 && trmi_shape_length(io, 1) != out.rank)
        return trmi_shape_bad(io, "%lld repeats for %d dims", (long long)trmi_shape_length(io, 1),
                              out.rank);
    if (out.rank >= 0) {
        bool known = trmi_shape_elems(io, 1, &e);

        for (int i = 0; i < out.rank; i++) {
            if (known && e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < 0)
                return trmi_shape_bad(io, "repeats must not be negative");
            out.dims[i] =
                known ? trmi_shape_op(io, '*', out.dims[i], trmi_elem_dim(&e, i)) : TRM_DIM_UNKNOWN;
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}
