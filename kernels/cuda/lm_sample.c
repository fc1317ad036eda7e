/* TrmSample: shapes. */
#include "kernels/cuda/lm_sample.h"

#include <assert.h>
#include <inttypes.h>

static_assert(sizeof(trm_step_sampled) == 176, "model/shape/language.c: SAMPLED_BYTES");

typedef struct sample_kernel {
    trmi_cuda_kernel base;
    trmi_lms_shape shape;
} sample_kernel;

static trm_status sample_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const sample_kernel *k = (const sample_kernel *)base;

    return trmi_cuda_lm_sample(&k->shape, in[1], in[0], out[0], workspace,
                               trmi_cuda_stream(base, s));
}

static const trm_kernel_ops sample_ops = {
    .name = "sample", .run = sample_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_lm_sample_shape(const trm_cuda *cuda, int64_t rows, int64_t vocabulary,
                                     trmi_lms_shape *shape_out)
{
    trmi_lms_shape s = {.rows = (int32_t)rows, .vocabulary = (int32_t)vocabulary};
    int32_t wanted, most;
    size_t at = sizeof(trmi_lms_work);

    if (rows < 0 || rows > UINT16_MAX || vocabulary < 1 || vocabulary > TRMI_LMS_VOCABULARY_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "sampling of %" PRId64 " rows of %" PRId64 " tokens: want at most %d of %d",
                        rows, vocabulary, UINT16_MAX, TRMI_LMS_VOCABULARY_MAX);
    s.chunks = (s.vocabulary + TRMI_LMS_CHUNK - 1) / TRMI_LMS_CHUNK;
    /* two blocks a multiprocessor; a part of less than 4 chunks is not worth a block */
    wanted = 2 * cuda->multiprocessors / (rows > 0 ? s.rows : 1);
    most = s.chunks / 4 < TRMI_LMS_PARTS ? s.chunks / 4 : TRMI_LMS_PARTS;
    wanted = wanted < most ? wanted : most;
    wanted = wanted > 1 ? wanted : 1;
    s.part_chunks = (s.chunks + wanted - 1) / wanted;
    s.parts = (s.chunks + s.part_chunks - 1) / s.part_chunks;
    s.shift = 52;
    while (s.shift > 0 && (int64_t)s.vocabulary > (int64_t)1 << (63 - s.shift))
        s.shift--;
    s.raw_sums_at = (uint32_t)at;
    at += (size_t)s.chunks * sizeof(double);
    s.sums_at = (uint32_t)at;
    at += (size_t)s.chunks * sizeof(double);
    s.touched_at = (uint32_t)at;
    at += (size_t)s.chunks * (TRMI_LMS_CHUNK / 8);
    s.row_bytes = (uint32_t)trm_align_up(at, 256);
    *shape_out = s;
    return TRM_OK;
}

trm_status trmi_cuda_prepare_lm_sample(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *logits = &desc->inputs[0], *out = &desc->outputs[0];
    sample_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (logits->dtype != TRM_DTYPE_F32)
        return trmi_cuda_bad_dtype(desc, 0, "f32");
    if (desc->inputs[1].dtype != TRM_DTYPE_I64)
        return trmi_cuda_bad_dtype(desc, 1, "i64");
    if (logits->rank != 2 || out->rank != 2 || out->dims[0] != logits->dims[0] ||
        out->dims[1] != (int64_t)sizeof(trm_step_sampled))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmSample '%s': rank %d to rank %d", desc->name,
                        logits->rank, out->rank);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &sample_ops, &k));
    TRM_TRY(st, trmi_cuda_lm_sample_shape(cuda, logits->dims[0], logits->dims[1], &k->shape), fail);
    k->base.base.workspace_bytes = (size_t)k->shape.rows * k->shape.row_bytes;
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
