/* Small known values through elementwise operators: what shape arithmetic in a model is made of
 * (Shape, Gather, Mul, Div, Concat, Reshape ...). Only what keeps integers exact is followed. */
#include "model/shape/rule.h"

typedef struct elem {
    int64_t v;
    int kind;
} elem;

static elem unknown(void)
{
    return (elem){0, TRMI_ELEM_UNKNOWN};
}

static elem exact(int64_t v)
{
    return (elem){v, TRMI_ELEM_EXACT};
}

static elem from_dim(int64_t dim)
{
    if (dim >= 0)
        return exact(dim);
    return dim == TRM_DIM_UNKNOWN ? unknown() : (elem){dim, TRMI_ELEM_DIM};
}

/* Floor division of floats would not be exact; integer division truncates. */
static elem divide(trmi_io io, elem a, elem b, bool floats)
{
    if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT) {
        if (b.v == 0 || (a.v == INT64_MIN && b.v == -1) || (floats && a.v % b.v != 0))
            return unknown();
        return exact(a.v / b.v);
    }
    if (floats && !(a.kind == TRMI_ELEM_DIM && b.kind == TRMI_ELEM_DIM && a.v == b.v))
        return unknown();
    if (b.kind == TRMI_ELEM_EXACT && b.v <= 0)
        return unknown();
    return from_dim(trmi_shape_op(io, '/', a.v, b.v));
}

static elem arithmetic(trmi_io io, char op, elem a, elem b, bool floats)
{
    int64_t r;
    bool overflow;

    if (a.kind == TRMI_ELEM_UNKNOWN || b.kind == TRMI_ELEM_UNKNOWN)
        return unknown();
    if (op == '/')
        return divide(io, a, b, floats);
    if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT) {
        overflow = op == '+'   ? __builtin_add_overflow(a.v, b.v, &r)
                   : op == '-' ? __builtin_sub_overflow(a.v, b.v, &r)
                               : __builtin_mul_overflow(a.v, b.v, &r);
        return overflow ? unknown() : exact(r);
    }
    /* one is a symbol: a negative constant turns + into - */
    if (b.kind == TRMI_ELEM_EXACT && b.v < 0 && b.v > INT64_MIN && op != '*') {
        op = op == '+' ? '-' : '+';
        b.v = -b.v;
    }
    if (op == '+' && a.kind == TRMI_ELEM_EXACT && a.v < 0 && a.v > INT64_MIN)
        return from_dim(trmi_shape_op(io, '-', b.v, -a.v));
    if ((a.kind == TRMI_ELEM_EXACT && a.v < 0) || (b.kind == TRMI_ELEM_EXACT && b.v < 0))
        return unknown();
    return from_dim(trmi_shape_op(io, op, a.v, b.v));
}

static elem compare(trm_op op, elem a, elem b)
{
    if (a.kind == TRMI_ELEM_UNKNOWN || b.kind == TRMI_ELEM_UNKNOWN)
        return unknown();
    if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT)
        return exact(op == TRM_OP_Equal         ? a.v == b.v
                     : op == TRM_OP_Less        ? a.v < b.v
                     : op == TRM_OP_LessOrEqual ? a.v <= b.v
                     : op == TRM_OP_Greater     ? a.v > b.v
                                                : a.v >= b.v);
    if (op != TRM_OP_Equal)
        return unknown();
    if (a.kind == b.kind)
        return a.v == b.v ? exact(1) : unknown();
    /* a dim is never negative: the -1 of an Expand or Reshape target */
    return (a.kind == TRMI_ELEM_EXACT ? a.v : b.v) < 0 ? exact(0) : unknown();
}

static elem least(elem a, elem b, bool max)
{
    if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT)
        return exact((a.v < b.v) != max ? a.v : b.v);
    return a.kind == b.kind && a.v == b.v ? a : unknown();
}

static elem binary(trmi_io io, elem a, elem b, bool floats)
{
    switch (io->node->op) {
    case TRM_OP_Add:
        return arithmetic(io, '+', a, b, floats);
    case TRM_OP_Sub:
        return arithmetic(io, '-', a, b, floats);
    case TRM_OP_Mul:
        return arithmetic(io, '*', a, b, floats);
    case TRM_OP_Div:
        return arithmetic(io, '/', a, b, floats);
    case TRM_OP_Equal:
    case TRM_OP_Less:
    case TRM_OP_LessOrEqual:
    case TRM_OP_Greater:
    case TRM_OP_GreaterOrEqual:
        return compare(io->node->op, a, b);
    case TRM_OP_Min:
    case TRM_OP_Max:
        return least(a, b, io->node->op == TRM_OP_Max);
    case TRM_OP_And:
        if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT)
            return exact(a.v != 0 && b.v != 0);
        return unknown();
    case TRM_OP_Or:
        if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT)
            return exact(a.v != 0 || b.v != 0);
        return unknown();
    case TRM_OP_Mod:
        if (a.kind == TRMI_ELEM_EXACT && b.kind == TRMI_ELEM_EXACT && a.v >= 0 && b.v > 0)
            return exact(a.v % b.v);
        return unknown();
    default:
        return unknown();
    }
}

static bool fits(trm_dtype dtype, int64_t v)
{
    int bits = (int)trm_dtype_bytes(dtype) * 8;

    if (dtype == TRM_DTYPE_BOOL)
        return v == 0 || v == 1;
    if (trm_dtype_is_float(dtype))
        return v >= -(1 << 8) &&
               v <= (dtype == TRM_DTYPE_F32 || dtype == TRM_DTYPE_F64 ? 1 << 24 : 1 << 8);
    if (bits >= 64)
        return true;
    if (trm_dtype_is_unsigned_int(dtype))
        return v >= 0 && v < ((int64_t)1 << bits);
    return v >= -((int64_t)1 << (bits - 1)) && v < ((int64_t)1 << (bits - 1));
}

static elem unary(trmi_io io, elem a)
{
    if (a.kind == TRMI_ELEM_UNKNOWN)
        return a;
    switch (io->node->op) {
    case TRM_OP_Identity:
    case TRM_OP_Floor: /* a float that is known here is whole */
    case TRM_OP_Ceil:
    case TRM_OP_Round:
        return a;
    case TRM_OP_Cast:
    case TRM_OP_CastLike:
        if (io->out[0].dtype == TRM_DTYPE_BOOL)
            return a.kind == TRMI_ELEM_EXACT ? exact(a.v != 0) : unknown();
        return a.kind == TRMI_ELEM_DIM || fits(io->out[0].dtype, a.v) ? a : unknown();
    case TRM_OP_Neg:
        return a.kind == TRMI_ELEM_EXACT && a.v != INT64_MIN ? exact(-a.v) : unknown();
    case TRM_OP_Abs:
    case TRM_OP_Relu:
        return a.kind == TRMI_ELEM_DIM || a.v >= 0 ? a : unknown();
    case TRM_OP_Not:
        return a.kind == TRMI_ELEM_EXACT ? exact(a.v == 0) : unknown();
    default:
        return unknown();
    }
}

static bool followed(trm_op op)
{
    switch (op) {
    case TRM_OP_Add:
    case TRM_OP_Sub:
    case TRM_OP_Mul:
    case TRM_OP_Div:
    case TRM_OP_Mod:
    case TRM_OP_Equal:
    case TRM_OP_Less:
    case TRM_OP_LessOrEqual:
    case TRM_OP_Greater:
    case TRM_OP_GreaterOrEqual:
    case TRM_OP_Min:
    case TRM_OP_Max:
    case TRM_OP_And:
    case TRM_OP_Or:
    case TRM_OP_Where:
    case TRM_OP_Identity:
    case TRM_OP_Floor:
    case TRM_OP_Ceil:
    case TRM_OP_Round:
    case TRM_OP_Cast:
    case TRM_OP_CastLike:
    case TRM_OP_Neg:
    case TRM_OP_Abs:
    case TRM_OP_Relu:
    case TRM_OP_Not:
        return true;
    default:
        return false;
    }
}

static elem element(const trmi_elems *e, int i)
{
    i = e->count == 1 ? 0 : i;
    return (elem){e->v[i], e->kind[i]};
}

/* Output element i comes from element i of each operand, or from its only one: enough for vectors
 * and scalars. */
void trmi_shape_values_elementwise(trmi_io io)
{
    int operands = io->node->op == TRM_OP_CastLike ? 1 : trmi_shape_operands(io);
    trmi_elems in[3], out;
    bool floats;

    if (io->out_values == NULL || !followed(io->node->op) || operands < 1 || operands > 3 ||
        io->node->output_count < 1 || io->out[0].rank > 1 || io->out[0].rank < 0)
        return;
    if (operands == 3 && io->node->op != TRM_OP_Where)
        return;
    out.count = io->out[0].rank == 0 ? 1 : 0;
    if (io->out[0].rank == 1) {
        if (io->out[0].dims[0] < 0 || io->out[0].dims[0] > TRM_SHAPE_VALUES_MAX)
            return;
        out.count = (int)io->out[0].dims[0];
    }
    for (int i = 0; i < operands; i++) {
        if (trmi_shape_elems(io, i, &in[i]) && (in[i].count == out.count || in[i].count == 1))
            continue;
        in[i].count = 1; /* nothing known of this operand */
        in[i].v[0] = 0;
        in[i].kind[0] = TRMI_ELEM_UNKNOWN;
    }
    floats = trm_dtype_is_float(trmi_shape_dtype(io, 0));
    for (int i = 0; i < out.count; i++) {
        elem a = element(&in[0], i), r;

        if (operands == 1) {
            r = unary(io, a);
        } else if (operands == 2) {
            r = binary(io, a, element(&in[1], i), floats);
        } else {
            elem x = element(&in[1], i), y = element(&in[2], i);

            r = a.kind == TRMI_ELEM_EXACT        ? a.v != 0 ? x : y
                : x.kind == y.kind && x.v == y.v ? x
                                                 : unknown();
        }
        out.v[i] = r.v;
        out.kind[i] = (unsigned char)r.kind;
    }
    trmi_shape_out_elems(io, 0, &out);
}
