/* Failures as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}. */
#include "coordinator/gateway/openai_impl.h"

#include <string.h>

json_t *trmi_openai_string(const char *text)
{
    json_t *s = json_string(text);
    char *copy;

    if (s != NULL)
        return s;
    copy = trm_strdup(text); /* cut within a character, or bytes of a client's */
    if (copy == NULL)
        return NULL;
    for (char *p = copy; *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    s = json_string(copy);
    trm_free(copy);
    return s;
}

static const struct kind {
    int status;
    const char *type, *code;
} kinds[] = {
    {400, "invalid_request_error", NULL},
    {401, "authentication_error", "invalid_api_key"},
    {403, "permission_error", NULL},
    {404, "not_found_error", "not_found"},
    {405, "invalid_request_error", "method_not_allowed"},
    {409, "invalid_request_error", "conflict"},
    {413, "invalid_request_error", "request_too_large"},
    {429, "rate_limit_error", "rate_limit_exceeded"},
    {499, "api_error", "cancelled"},
    {500, "server_error", "internal_error"},
    {503, "server_error", "service_unavailable"},
    {504, "server_error", "timeout"},
};

char *trmi_openai_error_of(int status, const char *code, const char *param, const char *message)
{
    const struct kind *k = NULL;
    struct kind other = {status, status < 500 ? "invalid_request_error" : "server_error", NULL};
    json_t *o;
    char *text, *copy = NULL;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && k == NULL; i++)
        if (kinds[i].status == status)
            k = &kinds[i];
    if (k == NULL)
        k = &other;
    o = json_pack("{s:{s:o,s:s,s:s?,s:s?}}", "error", "message", trmi_openai_string(message),
                  "type", k->type, "param", param, "code", code != NULL ? code : k->code);
    text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
    if (text != NULL)
        copy = trm_strdup(text);
    free(text);
    json_decref(o);
    return copy;
}

char *trmi_openai_error(int status, const char *message)
{
    return trmi_openai_error_of(status, NULL, NULL, message);
}

void trmi_openai_fail(trm_http_exchange *x, int status, const char *code, const char *param,
                      const char *message)
{
    char *body = trmi_openai_error_of(status, code, param, message);

    if (status == 429 || status == 503)
        trm_http_set_header(x, "Retry-After", "1");
    if (body != NULL)
        trm_http_answer_take(x, status, "application/json", body, strlen(body));
    else
        trm_http_answer(x, status, "application/json", "{\"error\":null}", 14);
}

int trmi_openai_submit_status(trm_status st)
{
    return st == TRM_ERR_TIMEOUT ? 429 : trm_http_status_of(st);
}

const char *trmi_openai_code(int http, trm_status st)
{
    return http == 404 && st == TRM_ERR_NOT_FOUND ? "model_not_found" : NULL;
}

void trmi_openai_fail_status(trm_http_exchange *x, trm_status st)
{
    trmi_openai_fail(x, trmi_openai_submit_status(st), NULL, NULL, trm_message());
}
