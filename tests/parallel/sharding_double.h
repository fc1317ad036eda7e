/* What parallel/sharding.h will give, as far as the tests of the placement search need it; weak,
 * and gone as soon as parallel/sharding.c is there. */
#ifndef TRM_TESTS_SHARDING_DOUBLE_H
#define TRM_TESTS_SHARDING_DOUBLE_H

#include "parallel/sharding.h"
#define W __attribute__((weak))
W int trm_sharding_strategy_count(const trm_sharding *s, int n)
{
    return 1 + s->axes[n].axis_count + s->axes[n].linear_count;
}
W bool trm_sharding_can_split(const trm_sharding *s, int v, int d)
{
    return s->splits[v][d].count > 0;
}
W bool trm_sharding_possible(const trm_sharding *s, int n, int st)
{
    (void)s;
    (void)n;
    (void)st;
    return true;
}
W trm_form trm_sharding_wants(const trm_sharding *s, int n, int st, int i)
{
    const trm_axes *a = &s->axes[n];
    if (st == 0)
        return TRM_FORM_WHOLE;
    if (st <= a->axis_count) {
        int d = a->axes[st - 1].in[i].dim;
        return d >= 0 ? (trm_form)(TRM_FORM_SPLIT + d) : TRM_FORM_WHOLE;
    }
    return a->linear_inputs[st - 1 - a->axis_count] >> i & 1 ? TRM_FORM_PARTIAL : TRM_FORM_WHOLE;
}
W trm_form trm_sharding_yields(const trm_sharding *s, int n, int st, int i)
{
    const trm_axes *a = &s->axes[n];
    if (st == 0)
        return TRM_FORM_WHOLE;
    if (st <= a->axis_count) {
        if (a->axes[st - 1].sum)
            return TRM_FORM_PARTIAL;
        int d = a->axes[st - 1].out[i].dim;
        return d >= 0 ? (trm_form)(TRM_FORM_SPLIT + d) : TRM_FORM_WHOLE;
    }
    return TRM_FORM_PARTIAL;
}
W trm_tensor trm_sharding_local(const trm_sharding *s, int v, trm_form f, int r)
{
    trm_tensor t = s->descs[v];
    if (f >= TRM_FORM_SPLIT) {
        int d = (int)f - TRM_FORM_SPLIT;
        int64_t n = t.dims[d];
        t.dims[d] = n * (r + 1) / s->ranks - n * r / s->ranks;
    }
    return t;
}
W trm_change trm_form_change(uint32_t have, trm_form want)
{
    trm_form split = TRM_FORM_WHOLE;
    bool whole = have & 1u;
    if (have >> want & 1u)
        return (trm_change){want, TRM_OP_NONE};
    for (int f = TRM_FORM_COUNT - 1; f >= (int)TRM_FORM_SPLIT; f--)
        if (have >> f & 1u)
            split = (trm_form)f;
    if (want == TRM_FORM_WHOLE)
        return split != TRM_FORM_WHOLE ? (trm_change){split, TRM_OP_TrmAllGather}
                                       : (trm_change){TRM_FORM_PARTIAL, TRM_OP_TrmAllReduce};
    if (whole)
        return (trm_change){TRM_FORM_WHOLE,
                            want == TRM_FORM_PARTIAL ? TRM_OP_Where : TRM_OP_TrmShard};
    if (want == TRM_FORM_PARTIAL)
        return (trm_change){split, TRM_OP_TrmAllGather};
    if (split != TRM_FORM_WHOLE)
        return (trm_change){split, TRM_OP_TrmAllToAll};
    return (trm_change){TRM_FORM_PARTIAL, TRM_OP_TrmReduceScatter};
}

#undef W
#endif
