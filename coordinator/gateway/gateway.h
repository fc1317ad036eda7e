/* The gateway: endpoints over http.h that ask the hub. Each file of this folder gives a table of
 * routes; gateway.c puts them together, one table an API:
 *   openai.c, openai_files.c   /v1/...                 inference_v2.c, repository.c   /v2/...
 *   predictions.c   /predictions/{model}               status.c   /, /health, /version, /metrics */
#ifndef TRM_COORDINATOR_GATEWAY_GATEWAY_H
#define TRM_COORDINATOR_GATEWAY_GATEWAY_H

#include "coordinator/gateway/http.h"
#include "coordinator/hub.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_gateway trm_gateway;

typedef struct trm_gateway_options {
    trm_http_options http; /* routes, ctx and error_body are set by the gateway */
    trm_hub *hub;
    trm_metrics *metrics;
    const char *files;   /* folder for /v1/files and /v1/batches; NULL: a private one that goes
                            with the process */
    int batch_requests;  /* lines of /v1/batches under way at once; 0: 64 */
    bool admin;          /* load and unload are offered */
    const char *version; /* of the program */
    const char
        *configuration; /* JSON of what /version and the status page tell; "", NULL; copied */
} trm_gateway_options;
TRM_MUST_USE trm_status trm_gateway_start(const trm_gateway_options *options,
                                          trm_gateway **gateway_out);
trm_http *trm_gateway_http(trm_gateway *g);
/* Readiness becomes false; requests are still served. */
void trm_gateway_set_draining(trm_gateway *g);
void trm_gateway_stop(trm_gateway *g); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
