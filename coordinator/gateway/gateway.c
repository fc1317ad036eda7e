/* The gateway: one table of all routes, the server over it, and readiness while it drains. */
#include "coordinator/gateway/gateway.h"

#include "coordinator/gateway/gateway_impl.h"

#include <string.h>

typedef trmi_routes (*table)(void);
static const table tables[] = {trmi_openai_routes,       trmi_openai_files_routes,
                               trmi_inference_v2_routes, trmi_repository_routes,
                               trmi_predictions_routes,  trmi_status_routes};

#define TABLES (sizeof(tables) / sizeof(*tables))

static trm_status put_together(trm_gateway *g)
{
    size_t all = 0, n = 0;

    for (size_t i = 0; i < TABLES; i++)
        all += (size_t)tables[i]().count;
    g->routes = trm_calloc(all, sizeof(*g->routes));
    if (g->routes == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "table of routes");
    for (size_t i = 0; i < TABLES; i++) {
        trmi_routes t = tables[i]();

        if (t.count > 0)
            memcpy(g->routes + n, t.routes, (size_t)t.count * sizeof(*g->routes));
        n += (size_t)t.count;
    }
    g->options.http.routes = g->routes;
    g->options.http.route_count = (int)n;
    return TRM_OK;
}

trm_status trm_gateway_start(const trm_gateway_options *options, trm_gateway **gateway_out)
{
    trm_gateway *g = trm_calloc(1, sizeof(*g));
    trm_status st;

    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "gateway");
    g->options = *options;
    g->hub = options->hub;
    g->metrics = options->metrics;
    if (options->configuration != NULL) { /* told on request, long after the caller has gone on */
        g->options.configuration = g->configuration = trm_strdup(options->configuration);
        if (g->configuration == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "gateway");
            goto fail;
        }
    }
    TRM_TRY(st, put_together(g), fail);
    g->options.http.ctx = g;
    g->options.http.error_body = trmi_gateway_error_body;
    if (g->options.http.metrics == NULL)
        g->options.http.metrics = g->metrics;
    TRM_TRY(st, trmi_work_start(&g->work), fail);
    TRM_TRY(st, trmi_openai_files_open(g), fail);
    TRM_TRY(st, trm_http_start(&g->options.http, &g->http), fail);
    *gateway_out = g;
    return TRM_OK;

fail:
    trm_gateway_stop(g);
    return st;
}

trm_http *trm_gateway_http(trm_gateway *g)
{
    return g->http;
}

void trm_gateway_set_draining(trm_gateway *g)
{
    __atomic_store_n(&g->draining, 1, __ATOMIC_RELAXED); /* read by /v2/health/ready and others */
}

void trm_gateway_stop(trm_gateway *g)
{
    if (g == NULL)
        return;
    /* exchanges are answered by other threads, too: these end after the server has seen the last
     * answer */
    trm_http_stop(g->http);
    trmi_work_stop(g->work);
    trmi_openai_files_close(g);
    trm_free(g->routes);
    trm_free(g->configuration);
    trm_free(g);
}
