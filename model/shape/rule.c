/* What the shape rules share. */
#include "model/shape/rule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int trmi_shape_operands(trmi_io io)
{
    int count = io->node->input_count;

    for (int p = 0; p < io->node->post_count; p++)
        if (io->node->posts[p].input >= 0 && io->node->posts[p].input < count)
            count = io->node->posts[p].input;
    return count;
}

bool trmi_shape_has(trmi_io io, int i)
{
    if (i < 0 || i >= io->node->input_count)
        return false;
    return io->node->inputs != NULL ? io->node->inputs[i] != TRM_NO_VALUE
                                    : io->in[i].dtype != TRM_DTYPE_NONE;
}

int trmi_shape_rank(trmi_io io, int i)
{
    return trmi_shape_has(io, i) ? io->in[i].rank : -1;
}

trm_dtype trmi_shape_dtype(trmi_io io, int i)
{
    return trmi_shape_has(io, i) ? io->in[i].dtype : TRM_DTYPE_NONE;
}

const trm_tensor *trmi_shape_data(trmi_io io, int i)
{
    return trmi_shape_has(io, i) && io->in[i].data != NULL && trm_tensor_is_concrete(&io->in[i])
               ? &io->in[i]
               : NULL;
}

static void append(char *buf, size_t bytes, const char *text)
{
    size_t used = strlen(buf);

    snprintf(buf + used, bytes - used, "%s", text);
}

trm_status trmi_shape_bad(trmi_io io, const char *fmt, ...)
{
    char text[400], inputs[400] = "", shape[TRM_SHAPE_TEXT_BYTES];
    int shown = io->node->input_count < 6 ? io->node->input_count : 6;
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    for (int i = 0; i < shown; i++) {
        append(inputs, sizeof(inputs), i == 0 ? "" : ", ");
        if (!trmi_shape_has(io, i)) {
            append(inputs, sizeof(inputs), "none");
            continue;
        }
        append(inputs, sizeof(inputs), trm_dtype_name(io->in[i].dtype));
        append(inputs, sizeof(inputs), " ");
        append(inputs, sizeof(inputs), trm_tensor_shape_text(&io->in[i], shape, sizeof(shape)));
    }
    if (shown < io->node->input_count)
        append(inputs, sizeof(inputs), ", ...");
    return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %s (inputs %s)", trm_op_get(io->node->op)->name,
                    io->node->name == NULL ? "" : io->node->name, text, inputs);
}

trm_status trmi_shape_axis(trmi_io io, int64_t axis, int rank, int *axis_out)
{
    if (axis < -rank || axis >= rank)
        return trmi_shape_bad(io, "axis %lld is not in [%d, %d)", (long long)axis, -rank, rank);
    *axis_out = (int)(axis < 0 ? axis + rank : axis);
    return TRM_OK;
}

trm_status trmi_shape_want_rank(trmi_io io, int i, int rank)
{
    int seen = trmi_shape_rank(io, i);

    if (seen < 0 || seen == rank)
        return TRM_OK;
    return trmi_shape_bad(io, "input %d has rank %d, want %d", i, seen, rank);
}

int64_t trmi_shape_op(trmi_io io, char op, int64_t a, int64_t b)
{
    int64_t r = TRM_DIM_UNKNOWN;
    bool overflow = false;

    if (a < 0 || b < 0)
        return io->graph == NULL ? TRM_DIM_UNKNOWN : trm_graph_dim_op(io->graph, op, a, b);
    switch (op) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &r);
        break;
    case '-':
        r = a - b;
        break;
    case '*':
        overflow = __builtin_mul_overflow(a, b, &r);
        break;
    case '/':
        r = b == 0 ? TRM_DIM_UNKNOWN : a / b;
        break;
    default:
        break;
    }
    return overflow || r < 0 ? TRM_DIM_UNKNOWN : r;
}

trm_status trmi_shape_same(trmi_io io, const char *what, int64_t a, int64_t b, int64_t *dim_out)
{
    if (trmi_shape_differ(a, b))
        return trmi_shape_bad(io, "%s: %lld and %lld must be equal", what, (long long)a,
                              (long long)b);
    *dim_out = a >= 0 ? a : b >= 0 ? b : a != TRM_DIM_UNKNOWN ? a : b;
    return TRM_OK;
}

trm_status trmi_shape_broadcast(trmi_io io, trm_tensor *shape, const trm_tensor *with)
{
    trm_tensor out = {.rank = -1};

    if (shape->rank < 0 || with->rank < 0) {
        shape->rank = -1;
        return TRM_OK;
    }
    out.rank = shape->rank > with->rank ? shape->rank : with->rank;
    for (int i = 0; i < out.rank; i++) { /* i counts from the last dim */
        int64_t a = i < shape->rank ? shape->dims[shape->rank - 1 - i] : 1;
        int64_t b = i < with->rank ? with->dims[with->rank - 1 - i] : 1;
        int64_t *to = &out.dims[out.rank - 1 - i];

        if (a == 1 || a == b)
            *to = b;
        else if (b == 1)
            *to = a;
        else if (a >= 0 && b >= 0)
            return trmi_shape_bad(io,
                                  "shapes do not broadcast: %lld against %lld at dim %d from the "
                                  "end; want equal or 1",
                                  (long long)a, (long long)b, i + 1);
        else if (a >= 0 || b >= 0)
            *to = a >= 0 ? a : b; /* the other is 1 or the same */
        else
            *to = TRM_DIM_UNKNOWN; /* two symbols: one of them may be 1 */
    }
    memcpy(shape->dims, out.dims, sizeof(out.dims));
    shape->rank = out.rank;
    return TRM_OK;
}

int64_t trmi_shape_product(trmi_io io, const trm_tensor *t, int from, int to)
{
    int64_t p = 1;

    for (int i = from; i < to; i++)
        p = trmi_shape_op(io, '*', p, t->dims[i]);
    return p;
}

void trmi_shape_out(trmi_io io, int k, trm_dtype dtype, const trm_tensor *shape)
{
    trmi_shape_out_dims(io, k, dtype, shape == NULL ? -1 : shape->rank,
                        shape == NULL ? NULL : shape->dims);
}

void trmi_shape_out_dims(trmi_io io, int k, trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor *o;

    if (k >= io->node->output_count)
        return;
    o = &io->out[k];
    o->dtype = dtype;
    o->layout = TRM_LAYOUT_PLAIN;
    o->rank = rank;
    for (int i = 0; i < rank && i < TRM_RANK_MAX; i++)
        o->dims[i] = dims[i];
}

static bool elems_from_data(const trm_tensor *t, trmi_elems *e)
{
    size_t n;

    if (trm_tensor_elems(t, &n) != TRM_OK || n > TRM_SHAPE_VALUES_MAX)
        return false;
    e->count = (int)n;
    for (size_t i = 0; i < n; i++) {
        if (trm_dtype_is_float(t->dtype)) {
            double d = trm_tensor_get_f64(t, i);

            e->kind[i] = TRMI_ELEM_UNKNOWN;
            e->v[i] = 0;
            if (!(fabs(d) <= 1e15) || d != floor(d))
                continue;
            e->v[i] = (int64_t)d;
        } else {
            e->v[i] = trm_tensor_get_i64(t, i);
        }
        e->kind[i] = TRMI_ELEM_EXACT;
    }
    return true;
}

bool trmi_shape_elems(trmi_io io, int i, trmi_elems *e)
{
    const trm_tensor *t = trmi_shape_data(io, i);
    size_t n;

    if (t != NULL)
        return elems_from_data(t, e);
    if (!trmi_shape_has(io, i) || io->in_values == NULL || io->in_values[i] == NULL ||
        !trm_tensor_is_concrete(&io->in[i]) || trm_tensor_elems(&io->in[i], &n) != TRM_OK ||
        n > TRM_SHAPE_VALUES_MAX)
        return false;
    e->count = (int)n;
    for (int k = 0; k < e->count; k++)
        trmi_elem_set(e, k, io->in_values[i][k]);
    return true;
}

bool trmi_shape_exact(trmi_io io, int i, trmi_elems *e)
{
    if (!trmi_shape_elems(io, i, e))
        return false;
    for (int k = 0; k < e->count; k++)
        if (e->kind[k] != TRMI_ELEM_EXACT)
            return false;
    return true;
}

bool trmi_shape_scalar(trmi_io io, int i, int64_t *value_out)
{
    trmi_elems e;

    if (!trmi_shape_exact(io, i, &e) || e.count != 1)
        return false;
    *value_out = e.v[0];
    return true;
}

int64_t trmi_elem_dim(const trmi_elems *e, int i)
{
    switch (e->kind[i]) {
    case TRMI_ELEM_EXACT:
        return e->v[i] >= 0 ? e->v[i] : TRM_DIM_UNKNOWN;
    case TRMI_ELEM_DIM:
        return e->v[i];
    default:
        return TRM_DIM_UNKNOWN;
    }
}

void trmi_elem_set(trmi_elems *e, int i, int64_t dim)
{
    e->v[i] = dim;
    e->kind[i] = (unsigned char)(dim >= 0                 ? TRMI_ELEM_EXACT
                                 : dim == TRM_DIM_UNKNOWN ? TRMI_ELEM_UNKNOWN
                                                          : TRMI_ELEM_DIM);
}

void trmi_shape_out_elems(trmi_io io, int k, const trmi_elems *e)
{
    bool any = e->count == 0;

    if (io->out_values == NULL || io->out_values_known == NULL || k >= io->node->output_count ||
        io->out_values[k] == NULL || e->count > TRM_SHAPE_VALUES_MAX)
        return;
    for (int i = 0; i < e->count; i++) {
        io->out_values[k][i] = trmi_elem_dim(e, i);
        any |= io->out_values[k][i] != TRM_DIM_UNKNOWN;
    }
    io->out_values_known[k] = any;
}

int64_t trmi_shape_length(trmi_io io, int i)
{
    if (trmi_shape_rank(io, i) == 0)
        return 1;
    return trmi_shape_rank(io, i) == 1 && io->in[i].dims[0] >= 0 ? io->in[i].dims[0] : -1;
}
