/* One ONNX backend test case: run it, compare it. Used by runner.c. */
#ifndef TRM_TESTS_CONFORMANCE_CONFORMANCE_H
#define TRM_TESTS_CONFORMANCE_CONFORMANCE_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum conf_verdict { CONF_PASSED, CONF_FAILED, CONF_UNSUPPORTED } conf_verdict;

typedef struct conf_options {
    int threads;
    const char *device; /* kernels/device_open.h */
    int rounds;         /* of each data set; 4 on a GPU: captured steps too */
    bool no_fold;       /* constants are computed by kernels at run time instead of once before */
} conf_options;

typedef struct conf_result {
    conf_verdict verdict;
    char operator_name[120]; /* unsupported: the operator that stands in the way; else all of the
                                model */
    char reason[500];
    int kernels, host_kernels; /* of the last data set's last run, on a device with memory of its
                                  own: all, and those on the host device */
    char host_operators[120];
} conf_result;

/* Runs every data set of the case in folder `path`. Makes and destroys a device of its own. */
void conf_run_case(const char *path, const conf_options *options, conf_result *result_out);

/* Operators of the model in folder `path`, "Conv,Relu"; a static buffer. */
const char *conf_operators(const char *path);

/* NULL if `got` is near `want`; else what differs, in a static buffer. */
const char *conf_compare(const trm_tensor *got, const trm_tensor *want);

#ifdef __cplusplus
}
#endif
#endif
