/* Constants in device memory in another dtype. */
#include "kernels/cuda/dense.h"

#include <stdio.h>
#include <string.h>

#define CHUNK ((size_t)1 << 20) /* elements converted at a time */

static void convert(const trm_tensor *from, size_t at, size_t n, trm_dtype dtype, float scale,
                    void *to)
{
    trm_tensor out = {.dtype = dtype, .rank = 1, .dims = {(int64_t)n}, .data = to};
    const float *f = from->data;

    if (from->dtype == TRM_DTYPE_F32 && dtype == TRM_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = trm_f32_to_bf16(f[at + i] * scale);
        return;
    }
    if (from->dtype == TRM_DTYPE_F32 && dtype == TRM_DTYPE_F16) {
        for (size_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = trm_f32_to_f16(f[at + i] * scale);
        return;
    }
    for (size_t i = 0; i < n; i++)
        trm_tensor_set_f64(&out, i, trm_tensor_get_f64(from, at + i) * (double)scale);
}

static trm_status fill(trm_cuda *cuda, const trm_tensor *from, trm_dtype dtype, float scale,
                       void *memory)
{
    size_t elems = trm_tensor_numel(from), each = trm_dtype_bytes(dtype);
    size_t chunk = elems < CHUNK ? elems : CHUNK;
    void *part = trm_malloc(chunk + 1, each);
    trm_status st = TRM_OK;

    if (part == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a weight in %s", trm_dtype_name(dtype));
    for (size_t at = 0; at < elems && st == TRM_OK; at += chunk) {
        size_t n = elems - at < chunk ? elems - at : chunk;

        convert(from, at, n, dtype, scale, part);
        st = trmi_cuda_upload(cuda, (char *)memory + at * each, part, n * each);
    }
    trm_free(part);
    return st;
}

trm_status trmi_cuda_pack_as(trm_cuda *cuda, const trm_op_desc *desc, int input, trm_dtype dtype,
                             float scale, trmi_pack **pack_out)
{
    const trm_tensor *t = &desc->inputs[input];
    trmi_pack *p = NULL;
    char form[64];
    bool found;
    size_t bytes;
    trm_status st;

    if (t->dtype == dtype && scale == 1.0f)
        return trmi_cuda_pack_plain(cuda, desc, input, pack_out);
    if (!trm_dtype_is_float(t->dtype) || !trm_dtype_is_float(dtype) ||
        !trm_mul_ok(trm_tensor_numel(t), trm_dtype_bytes(dtype), &bytes))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': constant input %d of %s as %s",
                        trm_op_get(desc->op)->name, desc->name, input, trm_dtype_name(t->dtype),
                        trm_dtype_name(dtype));
    snprintf(form, sizeof(form), "as %s x %a", trm_dtype_name(dtype), (double)scale);
    TRM_CHECK(trmi_cuda_pack(cuda, desc->weight_keys == NULL ? 0 : desc->weight_keys[input], form,
                             bytes, &p, &found));
    if (!found) {
        st = fill(cuda, t, dtype, scale, p->memory);
        if (st != TRM_OK) {
            trmi_cuda_pack_release(cuda, p);
            return st;
        }
    }
    *pack_out = p;
    return TRM_OK;
}
