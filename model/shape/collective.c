/* Collectives: the split dim changes between the whole and a rank's part; all else stays. */
#include "model/shape/rule.h"

/* Elements of a split dim, `sizes` being the attribute's name: whole, and this rank's part. */
static trm_status read_split(trmi_io io, const char *sizes, int64_t *whole_out, int64_t *part_out)
{
    const trm_attrs *a = &io->node->attrs;
    int64_t ranks = trm_attr_int(a, "ranks", 0), rank = trm_attr_int(a, "rank", 0), whole = 0,
            part = 0;
    size_t count;
    const int64_t *v = trm_attr_ints(a, sizes, &count);

    if (ranks < 1 || rank < 0 || rank >= ranks || count == 0 || count % (size_t)ranks != 0)
        return trmi_shape_bad(io, "rank %lld of %lld with %zu %s", (long long)rank,
                              (long long)ranks, count, sizes);
    for (size_t i = 0; i < count; i++) {
        if (v[i] < 0 || v[i] > TRM_DIM_MAX - whole)
            return trmi_shape_bad(io, "%s[%zu] is %lld", sizes, i, (long long)v[i]);
        whole += v[i];
        if (i % (size_t)ranks == (size_t)rank)
            part += v[i];
    }
    *whole_out = whole;
    *part_out = part;
    return TRM_OK;
}

/* Dim `axis` of the shape, which must be `want`, becomes `becomes`. */
static trm_status change(trmi_io io, trm_tensor *shape, const char *axis, int64_t want,
                         int64_t becomes)
{
    int at;

    TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, axis, 0), shape->rank, &at));
    if (trmi_shape_differ(shape->dims[at], want))
        return trmi_shape_bad(io, "dim %d is %lld, the plan says %lld", at,
                              (long long)shape->dims[at], (long long)want);
    shape->dims[at] = becomes;
    return TRM_OK;
}

trm_status trmi_rule_all_gather(trmi_io io)
{
    trm_tensor shape = io->in[0];
    int64_t whole, part;

    if (shape.rank >= 0) {
        TRM_CHECK(read_split(io, "sizes", &whole, &part));
        TRM_CHECK(change(io, &shape, "axis", part, whole));
    }
    trmi_shape_out(io, 0, shape.dtype, &shape);
    return TRM_OK;
}

trm_status trmi_rule_shard(trmi_io io)
{
    trm_tensor shape = io->in[0];
    int64_t whole, part;

    if (shape.rank >= 0) {
        TRM_CHECK(read_split(io, "sizes", &whole, &part));
        TRM_CHECK(change(io, &shape, "axis", whole, part));
    }
    trmi_shape_out(io, 0, shape.dtype, &shape);
    return TRM_OK;
}

trm_status trmi_rule_all_to_all(trmi_io io)
{
    trm_tensor shape = io->in[0];
    int64_t whole, part;

    if (shape.rank >= 0) {
        TRM_CHECK(read_split(io, "sizes", &whole, &part));
        TRM_CHECK(change(io, &shape, "axis", part, whole));
        TRM_CHECK(read_split(io, "sizes_to", &whole, &part));
        TRM_CHECK(change(io, &shape, "axis_to", whole, part));
    }
    trmi_shape_out(io, 0, shape.dtype, &shape);
    return TRM_OK;
}
