/* TrmPool: one row a sequence: the mean of its rows, its first or its last. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/lm_step.h"
#include "kernels/cpu/math_util.h"

#include <string.h>

enum pool_kind { POOL_MEAN, POOL_CLS, POOL_LAST };
#define COLUMNS 64 /* summed together: their sums lie on the stack */

typedef struct pool_kernel {
    trm_kernel base;
    enum pool_kind kind;
    bool normalize;
    size_t rows, width, sequences;
} pool_kernel;

typedef struct pool_job {
    const pool_kernel *k;
    const trm_step *step;
    const float *x;
    float *out;
} pool_job;

/* Rows in order, in double: as good as exact, and the same wherever the sequence lies. */
static void mean(const float *x, size_t rows, size_t width, float *out)
{
    for (size_t c = 0; c < width; c += COLUMNS) {
        size_t n = width - c < COLUMNS ? width - c : COLUMNS;
        double sum[COLUMNS] = {0};

        for (size_t r = 0; r < rows; r++)
            for (size_t i = 0; i < n; i++)
                sum[i] += (double)x[r * width + c + i];
        for (size_t i = 0; i < n; i++)
            out[c + i] = (float)(sum[i] / (double)rows);
    }
}

static void pool_range(void *ctx, size_t begin, size_t end)
{
    const pool_job *job = ctx;
    const pool_kernel *k = job->k;

    for (size_t s = begin; s < end; s++) {
        float *out = job->out + s * k->width;
        const trm_step_sequence *q =
            s < (size_t)job->step->sequence_count ? &job->step->sequences[s] : NULL;

        if (q == NULL || q->tokens == 0) {
            memset(out, 0, k->width * sizeof(float));
            continue;
        }
        if (k->kind == POOL_MEAN)
            mean(job->x + (size_t)q->row * k->width, (size_t)q->tokens, k->width, out);
        else
            memcpy(out,
                   job->x +
                       (size_t)(q->row + (k->kind == POOL_LAST ? q->tokens - 1 : 0)) * k->width,
                   k->width * sizeof(float));
        if (k->normalize)
            trmi_lm_rows_get()->unit(out, k->width);
    }
}

static trm_status pool_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const pool_kernel *k = (const pool_kernel *)base;
    pool_job job = {.k = k, .x = in[0], .out = out[0]};
    size_t grain;

    (void)s;
    (void)workspace;
    TRM_CHECK(trmi_lm_step(in[1], k->rows, &job.step));
    if ((size_t)job.step->sequences_padded != k->sequences)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmPool: a step of %d padded sequences, want %zu",
                        (int)job.step->sequences_padded, k->sequences);
    grain = k->sequences == 0 ? 1 : 1 + k->rows / k->sequences; /* rows of a sequence */
    trm_team_for(k->sequences, 1 + TRMI_GRAIN / (grain * k->width + 1), pool_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops pool_ops = {
    .name = "lm pool", .run = pool_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_lm_pool(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const char *const kinds[] = {"mean", "cls", "last"};
    const char *kind = trm_attr_string(desc->attrs, "kind", "mean");
    const trm_tensor *x = &desc->inputs[0], *out = &desc->outputs[0];
    pool_kernel *k;
    int which = 0;

    (void)cpu;
    TRM_CHECK(trmi_lm_begin(desc, 2));
    TRM_CHECK(trmi_lm_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lm_want(desc, 1, TRM_DTYPE_I64, 1));
    while (which < 3 && strcmp(kind, kinds[which]) != 0)
        which++;
    if (which == 3)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmPool '%s': kind '%.40s': want mean, cls or last",
                        desc->name, kind);
    if (desc->inputs[1].dims[0] < 1 || out->dims[0] != desc->inputs[1].dims[0] ||
        out->dims[1] != x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmPool '%s': a step of length %lld, rows of %lld: output %lld x %lld",
                        desc->name, (long long)desc->inputs[1].dims[0], (long long)x->dims[1],
                        (long long)out->dims[0], (long long)out->dims[1]);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &pool_ops, &k));
    k->kind = (enum pool_kind)which;
    k->normalize = trm_attr_int(desc->attrs, "normalize", 0) != 0;
    k->rows = (size_t)x->dims[0];
    k->width = (size_t)x->dims[1];
    k->sequences = (size_t)out->dims[0];
    *kernel_out = &k->base;
    return TRM_OK;
}
