/* What the tests of convolutions and poolings share. */
#ifndef TRM_TESTS_CUDA_CONV_KIT_H
#define TRM_TESTS_CUDA_CONV_KIT_H

#include "tests/cuda/cuda_kit.h"

#include <unistd.h>

/* Relative error of one rounding of the result. */
static const struct {
    trm_dtype dtype;
    double rounding;
} float_rows[] = {
    {TRM_DTYPE_F32, 6e-8},
    {TRM_DTYPE_F16, 1.0 / 2048},
    {TRM_DTYPE_BF16, 1.0 / 256},
    {TRM_DTYPE_F64, 0},
};
#define KIT_FLOATS 4
#define KIT_HALVES 3 /* without F64 */

/* Sums of `terms` products of numbers in [-1, 1] in fp32, on both sides. */
static inline cuda_case float_case(const char *name, trm_op op, size_t type, int64_t terms)
{
    double eps = float_rows[type].dtype == TRM_DTYPE_F64 ? 1e-15 : 6e-8;

    return (cuda_case){.name = name,
                       .op = op,
                       .out_count = 1,
                       .rtol = float_rows[type].rounding + 8 * eps,
                       .atol = 2 * eps * (double)terms + 4 * eps,
                       .as_f32 = true};
}

/* Choices of engines go to a folder of this test's own. */
static inline void kit_cache_folder(void)
{
    static char folder[64];

    snprintf(folder, sizeof(folder), "/tmp/trm-conv-%ld", (long)getpid());
    setenv("TRM_CACHE", folder, 1);
}

#endif
