/* What the tests of matrix products share. */
#ifndef TRM_TESTS_CUDA_DENSE_KIT_H
#define TRM_TESTS_CUDA_DENSE_KIT_H

#include "tests/cuda/cuda_kit.h"

#include <dirent.h>
#include <unistd.h>

/* Relative error of one rounding of the result; eps: of one addition of a sum. */
static const struct {
    trm_dtype dtype;
    double rounding, eps;
} float_rows[] = {
    {TRM_DTYPE_F32, 6e-8, 6e-8},
    {TRM_DTYPE_F16, 1.0 / 2048, 6e-8},
    {TRM_DTYPE_BF16, 1.0 / 256, 6e-8},
    {TRM_DTYPE_F64, 0, 6e-8}, /* the CPU's reference rounds alpha and beta to fp32, as we do */
};
#define KIT_FLOATS 4

/* Operands lie in [-1, 1]: k terms are at most k, and each addition errs by eps of that. Both sides
 * may err, and the functions of post-ops by a few units of fp32. */
static inline cuda_case float_case(const char *name, trm_op op, size_t type, int64_t k)
{
    double eps = float_rows[type].eps;

    return (cuda_case){.name = name,
                       .op = op,
                       .out_count = 1,
                       .rtol = float_rows[type].rounding + 8 * eps,
                       .atol = 2 * eps * (double)k + 4 * eps,
                       .as_f32 = true};
}

/* Choices of algorithms go to a folder of this program's own. */
static char dense_folder[64];

/* The path of the only file there; false: there is none. */
static inline bool dense_cache_file(char path[400])
{
    DIR *d = opendir(dense_folder);
    bool found = false;

    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL && !found; e = readdir(d)) {
        found = strncmp(e->d_name, "plans-cublaslt-", 15) == 0;
        if (found)
            snprintf(path, 400, "%s/%s", dense_folder, e->d_name);
    }
    if (d != NULL)
        closedir(d);
    return found;
}

static inline int dense_main(const char *name, TCase *t)
{
    char path[400];
    int rc;

    snprintf(dense_folder, sizeof(dense_folder), "/tmp/trm-dense-%ld", (long)getpid());
    setenv("TRM_CACHE", dense_folder, 1);
    rc = kit_main(name, t);
    while (dense_cache_file(path) && unlink(path) == 0)
        ;
    (void)rmdir(dense_folder);
    return rc;
}

#endif
