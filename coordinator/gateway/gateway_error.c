/* Errors in the form of the API that the path belongs to. */
#include "coordinator/gateway/gateway_impl.h"
#include "coordinator/gateway/text.h"

#include <string.h>

static char *taken(trmi_text *t)
{
    trmi_text_add(t, "\0", 1);
    if (t->failed) {
        trmi_text_fini(t);
        return NULL;
    }
    return t->data;
}

char *trmi_v2_error(int status, const char *message)
{
    trmi_text t = {0};

    (void)status;
    trmi_text_put(&t, "{\"error\":");
    trmi_text_string(&t, message, strlen(message));
    trmi_text_put(&t, "}");
    return taken(&t);
}

char *trmi_gateway_error_body(void *ctx, const char *path, int status, const char *message)
{
    static const char *const openai[] = {"/v1/", "/tokenize", "/detokenize"};

    (void)ctx;
    for (size_t i = 0; i < sizeof(openai) / sizeof(*openai); i++)
        if (strncmp(path, openai[i], strlen(openai[i])) == 0)
            return trmi_openai_error(status, message);
    return trmi_v2_error(status, message);
}

void trmi_gateway_fail_http(trm_http_exchange *x, int status, const char *message)
{
    char *body = trmi_gateway_error_body(trm_http_ctx(x), trm_http_path(x), status, message);

    if (status == 429)
        trm_http_set_header(x, "Retry-After", "1");
    if (body == NULL)
        trm_http_answer(x, 500, "application/json", "{}", 2);
    else
        trm_http_answer_take(x, status, "application/json", body, strlen(body));
}

void trmi_gateway_fail(trm_http_exchange *x, trm_status st, const char *message)
{
    trmi_gateway_fail_http(x, trm_http_status_of(st),
                           message[0] == '\0' ? trm_status_name(st) : message);
}
