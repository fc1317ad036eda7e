/* Unique: entries are single elements, or the slices along `axis`. Entries are merge-sorted (by
 * value, then by position), so that equal ones are neighbours and the first of each group is its
 * first occurrence. */
#include "kernels/cpu/sort_key.h"

#include <string.h>

struct unique {
    trm_kernel base;
    trm_dtype dtype;
    size_t elem;
    bool sorted, flat;
    int rank, axis;
    int64_t dims[TRM_RANK_MAX];
    size_t entries, outer, inner; /* data [outer, entries, inner] */
    bool wanted[4];
};

struct unique_view {
    const struct unique *u;
    const unsigned char *x;
};

static int compare(const struct unique_view *v, int64_t a, int64_t b)
{
    const struct unique *u = v->u;

    for (size_t o = 0; o < u->outer; o++) {
        const unsigned char *pa = v->x + (o * u->entries + (size_t)a) * u->inner * u->elem;
        const unsigned char *pb = v->x + (o * u->entries + (size_t)b) * u->inner * u->elem;

        for (size_t i = 0; i < u->inner; i++) {
            uint64_t ka = trmi_sort_key(u->dtype, pa + i * u->elem);
            uint64_t kb = trmi_sort_key(u->dtype, pb + i * u->elem);

            if (ka != kb)
                return ka < kb ? -1 : 1;
        }
    }
    return 0;
}

/* Stable bottom-up merge sort of positions; `spare` is as long as `order`. */
static void sort_entries(const struct unique_view *v, int64_t *order, int64_t *spare, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t middle = begin + width < n ? begin + width : n;
            size_t end = begin + 2 * width < n ? begin + 2 * width : n;
            size_t a = begin, b = middle, to = begin;

            while (a < middle && b < end)
                spare[to++] = compare(v, order[b], order[a]) < 0 ? order[b++] : order[a++];
            while (a < middle)
                spare[to++] = order[a++];
            while (b < end)
                spare[to++] = order[b++];
        }
        memcpy(order, spare, n * sizeof(*order));
    }
}

/* first[g], count[g] of each group in output order; group[e] of each entry. Returns the number of
 * groups. `order` holds sorted positions and is used up. */
static size_t make_groups(const struct unique_view *v, int64_t *order, int64_t *group,
                          int64_t *first, int64_t *count)
{
    const struct unique *u = v->u;
    size_t n = u->entries, groups = 0;

    for (size_t i = 0; i < n; i++) {
        if (i == 0 || compare(v, order[i - 1], order[i]) != 0) {
            first[groups] = order[i];
            count[groups++] = 0;
        }
        count[groups - 1]++;
        group[order[i]] = (int64_t)groups - 1;
    }
    if (u->sorted)
        return groups;
    /* order of first occurrence: renumber groups as entries are met */
    memset(order, -1, n * sizeof(*order)); /* now: old group -> new group */
    groups = 0;
    for (size_t e = 0; e < n; e++) {
        int64_t old = group[e];

        if (order[old] < 0)
            order[old] = (int64_t)groups++;
        group[e] = order[old];
    }
    memset(count, 0, n * sizeof(*count));
    for (size_t e = n; e-- > 0;) {
        first[group[e]] = (int64_t)e;
        count[group[e]]++;
    }
    return groups;
}

static trm_status unique_run(trm_kernel *k, trm_stream *s, const void *const *in,
                             const trm_output_sink *sink, void *workspace)
{
    struct unique *u = (struct unique *)k;
    struct unique_view v = {.u = u, .x = in[0]};
    size_t n = u->entries, groups, row = u->inner * u->elem;
    int64_t *order = workspace, *group = order + n, *first = group + n, *count = first + n;
    int64_t dims[TRM_RANK_MAX], length;
    const int64_t *parts[4] = {NULL, first, group, count};
    void *memory;

    (void)s;
    for (size_t i = 0; i < n; i++)
        order[i] = (int64_t)i;
    sort_entries(&v, order, group, n);
    groups = make_groups(&v, order, group, first, count);
    memcpy(dims, u->dims, sizeof(dims));
    dims[u->axis] = (int64_t)groups;
    if (u->wanted[0]) {
        unsigned char *y;

        TRM_CHECK(sink->alloc(sink->ctx, 0, u->flat ? 1 : u->rank, dims, &memory));
        y = memory;
        for (size_t o = 0; o < u->outer; o++)
            for (size_t g = 0; g < groups; g++, y += row)
                memcpy(y, v.x + (o * n + (size_t)first[g]) * row, row);
    }
    for (int i = 1; i < 4; i++) {
        if (!u->wanted[i])
            continue;
        length = (int64_t)(i == 2 ? n : groups);
        TRM_CHECK(sink->alloc(sink->ctx, i, 1, &length, &memory));
        if (length > 0)
            memcpy(memory, parts[i], (size_t)length * sizeof(int64_t));
    }
    return TRM_OK;
}

static const trm_kernel_ops unique_ops = {
    .name = "unique", .run_dynamic = unique_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_unique(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    bool flat = trm_attr_find(desc->attrs, "axis") == NULL;
    struct unique *u;
    int axis = 0;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    if (!flat)
        TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    TRM_CHECK(trmi_kernel_new(sizeof(*u), &unique_ops, &u));
    u->dtype = x->dtype;
    u->elem = trm_dtype_bytes(x->dtype);
    u->sorted = trm_attr_int(desc->attrs, "sorted", 1) != 0;
    u->flat = flat;
    u->rank = x->rank;
    u->axis = axis;
    memcpy(u->dims, x->dims, sizeof(u->dims));
    u->outer = flat ? 1 : trm_tensor_count(x, 0, axis);
    u->entries = flat ? trm_tensor_numel(x) : (size_t)x->dims[axis];
    u->inner = flat ? 1 : trm_tensor_count(x, axis + 1, x->rank);
    for (int i = 0; i < 4; i++)
        u->wanted[i] = trmi_has_output(desc, i);
    u->base.workspace_bytes = 4 * u->entries * sizeof(int64_t);
    *kernel_out = &u->base;
    return TRM_OK;
}
