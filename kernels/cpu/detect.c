/* NonMaxSuppression: per image and class, boxes by falling score; a box is dropped where it
 * overlaps a chosen one by more than the threshold. Classes run in parallel into their own piece of
 * the workspace; the sink is asked once the total is known. */
#include "kernels/cpu/sort_key.h"

#include <math.h>

struct nms {
    trm_kernel base;
    size_t batches, classes, boxes, parts;
    bool center, has_max, has_iou, has_score;
    trm_dtype max_dtype;
};

struct nms_job {
    const struct nms *n;
    const float *boxes, *scores;
    size_t limit; /* boxes chosen per class */
    float iou, score;
    bool has_score;
    trmi_keyed *sorted; /* [parts][boxes] */
    int32_t *chosen;    /* [batches * classes][boxes] */
    size_t *counts;     /* [batches * classes] */
};

typedef struct box {
    float x0, y0, x1, y1;
} box;

static box box_of(const struct nms *n, const float *b)
{
    box r;

    if (n->center) {
        r.x0 = b[0] - b[2] / 2;
        r.x1 = b[0] + b[2] / 2;
        r.y0 = b[1] - b[3] / 2;
        r.y1 = b[1] + b[3] / 2;
    } else { /* any two opposite corners, y first */
        r.y0 = b[0] < b[2] ? b[0] : b[2];
        r.y1 = b[0] < b[2] ? b[2] : b[0];
        r.x0 = b[1] < b[3] ? b[1] : b[3];
        r.x1 = b[1] < b[3] ? b[3] : b[1];
    }
    return r;
}

static bool overlaps(box a, box b, float threshold)
{
    float x0 = a.x0 > b.x0 ? a.x0 : b.x0, x1 = a.x1 < b.x1 ? a.x1 : b.x1;
    float y0 = a.y0 > b.y0 ? a.y0 : b.y0, y1 = a.y1 < b.y1 ? a.y1 : b.y1;
    float both, area_a, area_b, all;

    if (x1 <= x0 || y1 <= y0)
        return false;
    both = (x1 - x0) * (y1 - y0);
    area_a = (a.x1 - a.x0) * (a.y1 - a.y0);
    area_b = (b.x1 - b.x0) * (b.y1 - b.y0);
    all = area_a + area_b - both;
    if (both <= 0 || area_a <= 0 || area_b <= 0 || all <= 0)
        return false;
    return both / all > threshold;
}

static void nms_class(const struct nms_job *job, size_t line, trmi_keyed *sorted)
{
    const struct nms *n = job->n;
    const float *boxes = job->boxes + line / n->classes * n->boxes * 4;
    const float *scores = job->scores + line * n->boxes;
    int32_t *chosen = job->chosen + line * n->boxes;
    size_t candidates = 0, count = 0;

    for (size_t i = 0; i < n->boxes; i++)
        if (!job->has_score || scores[i] > job->score)
            sorted[candidates++] =
                (trmi_keyed){.key = trmi_sort_key(TRM_DTYPE_F32, &scores[i]), .index = (int64_t)i};
    trmi_keyed_sort(sorted, candidates);
    for (size_t i = 0; i < candidates && count < job->limit; i++) {
        box b = box_of(n, boxes + sorted[i].index * 4);
        bool keep = true;

        for (size_t j = 0; j < count && keep; j++)
            keep = !overlaps(b, box_of(n, boxes + (size_t)chosen[j] * 4), job->iou);
        if (keep)
            chosen[count++] = (int32_t)sorted[i].index;
    }
    job->counts[line] = count;
}

static void nms_parts(void *ctx, size_t begin, size_t end)
{
    const struct nms_job *job = (const struct nms_job *)ctx;
    const struct nms *n = job->n;

    for (size_t part = begin; part < end; part++) {
        size_t first, last;

        trmi_part(n->batches * n->classes, n->parts, part, &first, &last);
        for (size_t line = first; line < last; line++)
            nms_class(job, line, job->sorted + part * n->boxes);
    }
}

static trm_status nms_run(trm_kernel *k, trm_stream *s, const void *const *in,
                          const trm_output_sink *sink, void *workspace)
{
    struct nms *n = (struct nms *)k;
    struct nms_job job = {.n = n, .boxes = in[0], .scores = in[1], .sorted = workspace};
    size_t lines = n->batches * n->classes, total = 0;
    int64_t dims[2] = {0, 3}, most;
    int64_t *y;
    void *memory;

    (void)s;
    job.counts = (size_t *)(void *)(job.sorted + n->parts * n->boxes);
    job.chosen = (int32_t *)(void *)(job.counts + lines);
    most = n->has_max ? trmi_index_at(in[2], n->max_dtype, 0) : 0;
    job.limit = most <= 0 ? 0 : (size_t)most < n->boxes ? (size_t)most : n->boxes;
    job.iou = n->has_iou ? *(const float *)in[3] : 0;
    job.has_score = n->has_score;
    job.score = n->has_score ? *(const float *)in[4] : 0;
    if (job.iou < 0 || job.iou > 1 || isnan(job.iou))
        return trm_fail(TRM_ERR_INVALID_ARG, "NonMaxSuppression: iou_threshold %g, want 0 to 1",
                        (double)job.iou);
    if (job.limit > 0 && lines > 0)
        trm_team_for(n->parts, 1, nms_parts, &job);
    for (size_t i = 0; i < lines && job.limit > 0; i++)
        total += job.counts[i];
    dims[0] = (int64_t)total;
    TRM_CHECK(sink->alloc(sink->ctx, 0, 2, dims, &memory));
    y = memory;
    for (size_t i = 0; i < lines && job.limit > 0; i++) {
        for (size_t j = 0; j < job.counts[i]; j++, y += 3) {
            y[0] = (int64_t)(i / n->classes);
            y[1] = (int64_t)(i % n->classes);
            y[2] = job.chosen[i * n->boxes + j];
        }
    }
    return TRM_OK;
}

static const trm_kernel_ops nms_ops = {
    .name = "nms", .run_dynamic = nms_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_nms(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *b = &desc->inputs[0], *sc = &desc->inputs[1];
    int64_t center = trm_attr_int(desc->attrs, "center_point_box", 0);
    struct nms *n;
    size_t lines;

    TRM_CHECK(trmi_data_plain(desc));
    if (b->dtype != TRM_DTYPE_F32 || sc->dtype != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "NonMaxSuppression '%s': boxes %s and scores %s, want "
                        "f32",
                        desc->name, trm_dtype_name(b->dtype), trm_dtype_name(sc->dtype));
    if (b->rank != 3 || sc->rank != 3 || b->dims[2] != 4 || b->dims[0] != sc->dims[0] ||
        b->dims[1] != sc->dims[2] || b->dims[1] > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "NonMaxSuppression '%s': want boxes [n, b, 4] and scores [n, classes, b]",
                        desc->name);
    if (center != 0 && center != 1)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "NonMaxSuppression '%s': center_point_box is %lld, want 0 or 1", desc->name,
                        (long long)center);
    for (int i = 2; i < 5; i++) {
        if (!trmi_has_input(desc, i))
            continue;
        if (trm_tensor_numel(&desc->inputs[i]) != 1 ||
            (i > 2 && desc->inputs[i].dtype != TRM_DTYPE_F32))
            return trm_fail(TRM_ERR_INVALID_ARG, "NonMaxSuppression '%s': input %d must be one %s",
                            desc->name, i, i == 2 ? "integer" : "f32");
    }
    if (trmi_has_input(desc, 2))
        TRM_CHECK(trmi_index_dtype(desc, 2));
    TRM_CHECK(trmi_kernel_new(sizeof(*n), &nms_ops, &n));
    n->batches = (size_t)b->dims[0];
    n->boxes = (size_t)b->dims[1];
    n->classes = (size_t)sc->dims[1];
    n->center = center == 1;
    n->has_max = trmi_has_input(desc, 2);
    n->max_dtype = n->has_max ? desc->inputs[2].dtype : TRM_DTYPE_I64;
    n->has_iou = trmi_has_input(desc, 3);
    n->has_score = trmi_has_input(desc, 4);
    lines = n->batches * n->classes;
    n->parts = lines < (size_t)cpu->threads ? (lines > 0 ? lines : 1) : (size_t)cpu->threads;
    n->base.workspace_bytes = n->parts * n->boxes * sizeof(trmi_keyed) + lines * sizeof(size_t) +
                              lines * n->boxes * sizeof(int32_t);
    *kernel_out = &n->base;
    return TRM_OK;
}
