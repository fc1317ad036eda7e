/* Shared by the files of the gateway. A handler gets its trm_gateway from trm_http_ctx. */
#ifndef TRM_COORDINATOR_GATEWAY_GATEWAY_IMPL_H
#define TRM_COORDINATOR_GATEWAY_GATEWAY_IMPL_H

#include "coordinator/gateway/gateway.h"

struct trmi_openai_files; /* openai_files.c */
struct trmi_work;         /* work.c */

struct trm_gateway {
    trm_gateway_options options;
    trm_http *http;
    trm_hub *hub;
    trm_metrics *metrics;
    trm_http_route *routes; /* of all tables */
    char *configuration;    /* the options' */
    int draining;           /* atomic */
    struct trmi_openai_files *files;
    struct trmi_work *work; /* NULL: long work is done where it comes up */
};

typedef struct trmi_routes {
    const trm_http_route *routes;
    int count;
} trmi_routes;
trmi_routes trmi_openai_routes(void);       /* openai.c */
trmi_routes trmi_openai_files_routes(void); /* openai_files.c */
trmi_routes trmi_inference_v2_routes(void); /* inference_v2.c */
trmi_routes trmi_repository_routes(void);   /* repository.c */
trmi_routes trmi_predictions_routes(void);  /* predictions.c */
trmi_routes trmi_status_routes(void);       /* status.c */

/* openai_files.c: the store of files and the thread that runs batches. stop: batches under way are
 * cancelled. */
trm_status trmi_openai_files_open(trm_gateway *g);
void trmi_openai_files_close(trm_gateway *g);

/* work.c: the thread for what takes long; stopped after the server. */
trm_status trmi_work_start(struct trmi_work **work_out);
void trmi_work_stop(struct trmi_work *work); /* takes NULL */

/* Errors in each API's form: {"error": {"message","type","param","code"}} (OpenAI) and {"error":
 * text} (v2 and others); chosen by the path. */
void trmi_gateway_fail(trm_http_exchange *x, trm_status st, const char *message);
void trmi_gateway_fail_http(trm_http_exchange *x, int status, const char *message);
char *trmi_openai_error(int status, const char *message); /* openai_error.c; from trm_malloc */
char *trmi_v2_error(int status, const char *message); /* as all the following: gateway_error.c */
char *trmi_gateway_error_body(void *ctx, const char *path, int status, const char *message);

#endif
