/* What the server answers itself: errors and OPTIONS; and queuing any answer on its connection. */
#include "coordinator/gateway/http_impl.h"

#include <gnutls/gnutls.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static char *error_text(const trm_http_exchange *x, int status, const char *message)
{
    char *text = NULL, *dumped;
    json_t *o;

    if (x->h->o.error_body != NULL)
        text = x->h->o.error_body(x->h->o.ctx, x->path, status, message);
    if (text != NULL)
        return text;
    o = json_pack("{s:s}", "error", message);
    dumped = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
    text = trm_strdup(dumped != NULL ? dumped : "{\"error\":\"\"}");
    free(dumped);
    json_decref(o);
    return text;
}

static struct MHD_Response *early_response(trm_http_exchange *x)
{
    bool options = x->early_status == 204;
    char *text = options ? trm_strdup("") : error_text(x, x->early_status, x->early_text);
    struct MHD_Response *r;

    if (text == NULL)
        return NULL;
    r = MHD_create_response_from_buffer_with_free_callback(strlen(text), text, trm_free);
    if (r == NULL) {
        trm_free(text);
        return NULL;
    }
    trmi_http_dress(x, r, options ? NULL : "application/json");
    if (x->allow[0] != '\0')
        trmi_http_put(r, "Allow", x->allow);
    if (x->early_status == 401)
        trmi_http_put(r, "WWW-Authenticate", "Bearer realm=\"trireme\"");
    if (x->early_status == 429 || x->early_status == 503)
        trmi_http_put(r, "Retry-After", "1");
    if (options && x->h->o.cors_origin != NULL) {
        const char *wanted = trm_http_header(x, "Access-Control-Request-Headers");

        trmi_http_put(r, "Access-Control-Allow-Methods", x->allow);
        trmi_http_put(r, "Access-Control-Allow-Headers",
                      wanted != NULL ? wanted : "Authorization, Content-Type, X-Api-Key");
        trmi_http_put(r, "Access-Control-Max-Age", "86400");
    }
    return r;
}

enum MHD_Result trmi_http_queue(trm_http_exchange *x)
{
    struct MHD_Response *r;
    struct MHD_Connection *mhd;
    enum MHD_Result queued;
    int status;
    bool gone;

    pthread_mutex_lock(&x->mu);
    r = x->response;
    x->response = NULL;
    mhd = x->mhd;
    gone = x->gone;
    status = x->status;
    pthread_mutex_unlock(&x->mu);
    if (r == NULL && x->early_status != 0) {
        status = x->early_status;
        r = early_response(x);
        pthread_mutex_lock(&x->mu);
        x->status = status;
        x->phase = TRMI_HTTP_HANDED; /* by nobody: no handler, and nothing more is read */
        x->answered = true;
        pthread_mutex_unlock(&x->mu);
    }
    if (r == NULL)
        return MHD_NO;
    queued = gone ? MHD_NO : MHD_queue_response(mhd, (unsigned)status, r);
    MHD_destroy_response(r);
    return queued;
}

void trmi_http_write_raw(trm_http_exchange *x, int status, const char *message, bool own_thread)
{
    char *body = error_text(x, status, message), text[2048];
    int n;

    if (body == NULL)
        return;
    n = snprintf(text, sizeof(text),
                 "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nX-Request-Id: %s\r\n"
                 "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
                 status, MHD_get_reason_phrase_for((unsigned)status), x->id, strlen(body), body);
    pthread_mutex_lock(&x->mu);
    if (n > 0 && (size_t)n < sizeof(text) && x->mhd != NULL && x->phase == TRMI_HTTP_READING &&
        !x->gone) {
        const union MHD_ConnectionInfo *tls =
            MHD_get_connection_info(x->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);

        x->gone = true;
        x->status = status;
        x->bytes_out = strlen(body);
        if (tls == NULL || tls->tls_session == NULL)
            (void)!send(x->connection->fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
        else if (own_thread) /* a session is one thread's */
            (void)!gnutls_record_send((gnutls_session_t)tls->tls_session, text, (size_t)n);
        x->connection->linger = own_thread;
        if (!own_thread)
            (void)shutdown(x->connection->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&x->mu);
    trm_free(body);
}
