/* Inside the adapter over cuDNN: graphs and plans, which need a description of a device but no
 * device, so that they are tested without one (tests/cuda/dnn_plans). */
#ifndef TRM_KERNELS_CUDA_DNN_GRAPH_H
#define TRM_KERNELS_CUDA_DNN_GRAPH_H

#include "kernels/cuda/dnn.h"

#include <cudnn_graph.h>

#ifdef __cplusplus
extern "C" {
#endif

/* unique ids of a graph's tensors */
enum {
    TRMI_DNN_ID_X = 1,
    TRMI_DNN_ID_W = 2,
    TRMI_DNN_ID_Y = 3,
    TRMI_DNN_ID_OPERAND = 10, /* + step */
    TRMI_DNN_ID_SCALAR = 50,  /* + index into scalars: passed by value, from the host */
    TRMI_DNN_ID_VIRTUAL = 100
};

#define TRMI_DNN_MADE_MAX 128
#define TRMI_DNN_SCALARS_MAX 12
#define TRMI_DNN_OPS_MAX 24

typedef struct trmi_dnn_graph {
    cudnnBackendDescriptor_t graph; /* the finalized operation graph */
    cudnnBackendDescriptor_t made[TRMI_DNN_MADE_MAX];
    cudnnBackendDescriptor_t ops[TRMI_DNN_OPS_MAX];
    int made_count, op_count, scalar_count, virtual_count;
    float scalars[TRMI_DNN_SCALARS_MAX];
} trmi_dnn_graph;

/* OK, or what a status of cuDNN means: UNSUPPORTED (also for parameters that it refuses),
 * NO_MEMORY, DEVICE, INTERNAL; the text has cuDNN's words. */
trm_status trmi_cuda_dnn_check(cudnnStatus_t status, const char *what);

/* Takes a zeroed graph; fini also takes one that failed half-way. */
TRM_MUST_USE trm_status trmi_cuda_dnn_graph_init(const trmi_dnn_desc *desc, trmi_dnn_graph *g);
void trmi_cuda_dnn_graph_fini(trmi_dnn_graph *g);

#define TRMI_DNN_CANDIDATES_MAX 10
#define TRMI_DNN_ENGINE_TEXT 400

typedef struct trmi_dnn_candidate {
    cudnnBackendDescriptor_t plan; /* finalized */
    int64_t workspace_bytes;
    bool compiled;                     /* at run time */
    char engine[TRMI_DNN_ENGINE_TEXT]; /* "10 2=5 13=1": engine and knobs */
} trmi_dnn_candidate;

typedef struct trmi_dnn_candidates {
    trmi_dnn_candidate list[TRMI_DNN_CANDIDATES_MAX];
    int count;
    int offered, inexact; /* configurations seen; left out for their numerical notes */
} trmi_dnn_candidates;

/* Plans of at most `max` configurations, those that the heuristics think fastest first; stops
 * building more after budget_ms. UNSUPPORTED: none. */
TRM_MUST_USE trm_status trmi_cuda_dnn_candidates(const trmi_dnn_desc *desc, const trmi_dnn_graph *g,
                                                 cudnnBackendDescriptor_t device, int max,
                                                 int64_t budget_ms, trmi_dnn_candidates *c);
void trmi_cuda_dnn_candidates_fini(trmi_dnn_candidates *c);
/* The plan of an engine written down before. Any failure: it is not to be had. */
TRM_MUST_USE trm_status trmi_cuda_dnn_candidate(const trmi_dnn_graph *g,
                                                cudnnBackendDescriptor_t device, const char *engine,
                                                trmi_dnn_candidate *c);

#ifdef __cplusplus
}
#endif
#endif
