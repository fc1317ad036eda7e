/* Arithmetic on dims that may be symbols: numbers are computed, the rest becomes a symbol named
 * after the formula, so that equal formulas are the same dim. */
#include "model/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int64_t constant_op(char op, int64_t a, int64_t b)
{
    int64_t r = TRM_DIM_UNKNOWN;
    bool overflow = false;

    switch (op) {
    case '+':
        overflow = __builtin_add_overflow(a, b, &r);
        break;
    case '-':
        overflow = __builtin_sub_overflow(a, b, &r);
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

static void dim_text(const trm_graph *g, int64_t dim, bool bracket, char *buf, size_t bytes)
{
    const char *name = trm_graph_dim_name(g, dim);

    if (name == NULL)
        snprintf(buf, bytes, "%" PRId64, dim);
    else if (bracket && strpbrk(name, "+-*/") != NULL)
        snprintf(buf, bytes, "(%s)", name);
    else
        snprintf(buf, bytes, "%s", name);
}

int64_t trm_graph_dim_op(trm_graph *g, char op, int64_t a, int64_t b)
{
    char left[120], right[120], name[256];
    int64_t dim;

    if (a == TRM_DIM_UNKNOWN || b == TRM_DIM_UNKNOWN)
        return TRM_DIM_UNKNOWN;
    if (a >= 0 && b >= 0)
        return constant_op(op, a, b);
    if ((b == 0 && (op == '+' || op == '-')) || (b == 1 && (op == '*' || op == '/')))
        return a;
    if ((a == 0 && op == '+') || (a == 1 && op == '*'))
        return b;
    if (op == '*' && (a == 0 || b == 0))
        return 0;
    if (a == b && (op == '-' || op == '/'))
        return op == '-' ? 0 : 1;
    if ((op == '+' || op == '*') &&
        (a >= 0 || (b < 0 && a < b))) { /* commutative: one spelling, symbols first */
        int64_t t = a;

        a = b;
        b = t;
    }
    if (op == '/' && b > 0) { /* (x*c)/b with b dividing c */
        char *star;
        int64_t factor;

        dim_text(g, a, false, left, sizeof(left));
        star = strrchr(left, '*');
        if (star != NULL && sscanf(star + 1, "%" SCNd64, &factor) == 1 && factor > 0 &&
            factor % b == 0 && strpbrk(star + 1, "+-/()") == NULL && strpbrk(left, "+-/") == NULL) {
            *star = '\0';
            if (trm_graph_symbol(g, left, &dim) != TRM_OK)
                return TRM_DIM_UNKNOWN;
            return trm_graph_dim_op(g, '*', dim, factor / b);
        }
    }
    if (op == '*' && b >= 0) { /* (x*c)*b */
        char *star;
        int64_t factor;

        dim_text(g, a, false, left, sizeof(left));
        star = strrchr(left, '*');
        if (star != NULL && sscanf(star + 1, "%" SCNd64, &factor) == 1 && factor > 0 &&
            strpbrk(left, "+-/()") == NULL && !__builtin_mul_overflow(factor, b, &factor)) {
            *star = '\0';
            if (trm_graph_symbol(g, left, &dim) != TRM_OK)
                return TRM_DIM_UNKNOWN;
            b = factor;
            a = dim;
        }
    }
    dim_text(g, a, op != '+' && op != '*', left, sizeof(left));
    if (op == '*')
        dim_text(g, a, strpbrk(left, "+-/") != NULL, left, sizeof(left));
    dim_text(g, b, true, right, sizeof(right));
    snprintf(name, sizeof(name), "%s%c%s", left, op, right);
    if (strlen(name) > 100 || trm_graph_symbol(g, name, &dim) != TRM_OK)
        return TRM_DIM_UNKNOWN;
    return dim;
}
