/* TrmGatherPart: a Gather on the ranges of a dim that this rank holds. Rows that lie elsewhere are
 * zero: the sum over ranks is the Gather. */
#include "kernels/cpu/data.h"

#include <string.h>

#define RANGES_MAX 64

struct gather_part {
    trm_kernel base;
    trmi_where where;
    trm_dtype index_dtype;
    size_t outer, indices, inner_bytes; /* out [outer, indices, inner] */
    int64_t extent, held;               /* of the whole dim, of this part */
    int range_count;
    int64_t ranges[RANGES_MAX][2];
};

struct gather_part_job {
    const struct gather_part *g;
    const unsigned char *in;
    unsigned char *out;
    const int64_t *index; /* rows of this part; -1: of another */
};

static void gather_part_rows(void *ctx, size_t begin, size_t end)
{
    const struct gather_part_job *job = (const struct gather_part_job *)ctx;
    const struct gather_part *g = job->g;
    size_t n = g->inner_bytes, o = begin / g->indices, k = begin % g->indices;
    unsigned char *out = job->out + begin * n;

    for (size_t i = begin; i < end; i++, out += n) {
        if (job->index[k] < 0)
            memset(out, 0, n);
        else
            memcpy(out, job->in + (o * (size_t)g->held + (size_t)job->index[k]) * n, n);
        if (++k == g->indices) {
            k = 0;
            o++;
        }
    }
}

static int64_t local_row(const struct gather_part *g, int64_t row)
{
    int64_t before = 0;

    for (int i = 0; i < g->range_count; i++) {
        if (row >= g->ranges[i][0] && row < g->ranges[i][1])
            return before + row - g->ranges[i][0];
        before += g->ranges[i][1] - g->ranges[i][0];
    }
    return -1;
}

static trm_status gather_part_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    struct gather_part *g = (struct gather_part *)k;
    struct gather_part_job job = {.g = g, .in = in[0], .out = out[0], .index = workspace};
    int64_t *index = (int64_t *)workspace;

    (void)s;
    TRM_CHECK(trmi_index_load(&g->where, in[1], g->index_dtype, g->indices, g->extent, index));
    for (size_t i = 0; i < g->indices; i++)
        index[i] = local_row(g, index[i]);
    if (g->inner_bytes > 0)
        trm_team_for(g->outer * g->indices, 32768 / (g->inner_bytes + 8) + 1, gather_part_rows,
                     &job);
    return TRM_OK;
}

static void gather_part_destroy(trm_kernel *k)
{
    trm_free(k);
}

static const trm_kernel_ops gather_part_ops = {
    .name = "gather part", .run = gather_part_run, .destroy = gather_part_destroy};

static trm_status read_ranges(const trm_op_desc *desc, struct gather_part *g)
{
    size_t count;
    const int64_t *v = trm_attr_ints(desc->attrs, "ranges", &count);
    int64_t last = 0, held = 0;

    if (count < 2 || count % 2 != 0 || count / 2 > RANGES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGatherPart '%s': %zu bounds of ranges", desc->name,
                        count);
    for (size_t i = 0; i < count; i += 2) {
        if (v[i] < last || v[i + 1] < v[i] || v[i + 1] > g->extent)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "TrmGatherPart '%s': range [%lld, %lld) of %lld rows", desc->name,
                            (long long)v[i], (long long)v[i + 1], (long long)g->extent);
        g->ranges[i / 2][0] = v[i];
        g->ranges[i / 2][1] = last = v[i + 1];
        held += v[i + 1] - v[i];
    }
    g->range_count = (int)(count / 2);
    if (held != g->held)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGatherPart '%s': %lld rows for ranges of %lld",
                        desc->name, (long long)g->held, (long long)held);
    return TRM_OK;
}

trm_status trmi_cpu_gather_part(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    struct gather_part *g;
    trm_status st;
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_no_posts(desc));
    TRM_CHECK(trmi_index_dtype(desc, 1));
    g = trm_calloc(1, sizeof(*g));
    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "TrmGatherPart '%s'", desc->name);
    g->base.ops = &gather_part_ops;
    trmi_where_set(&g->where, desc);
    g->index_dtype = idx->dtype;
    g->outer = trm_tensor_count(x, 0, axis);
    g->indices = trm_tensor_numel(idx);
    g->inner_bytes = trm_tensor_count(x, axis + 1, x->rank) * trm_dtype_bytes(x->dtype);
    g->held = x->dims[axis];
    g->extent = trm_attr_int(desc->attrs, "extent", 0);
    g->base.workspace_bytes = g->indices * sizeof(int64_t);
    TRM_TRY(st, read_ranges(desc, g), fail);
    *kernel_out = &g->base;
    return TRM_OK;
fail:
    trm_free(g);
    return st;
}
