/* libFuzzer: any bytes as what the gateway itself reads of OpenAI's API: a request's head, a line
 * of a batch, a line of its output. What is taken must be what jansson takes. */
#include "coordinator/gateway/openai_json.c" /* the rooms of the fuzzers end below the coordinator */

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data, *code, *param;
    trmi_openai_head head;
    trmi_batch_request request;
    json_error_t error;
    json_t *o;
    char *id;
    bool ours;

    (void)trmi_openai_head_read(text, bytes, &head);
    if (trmi_batch_request_read(text, bytes, "/v1/completions", 4096, &request, &code, &param) ==
        TRM_OK) {
        if (request.body < text || request.body + request.body_bytes > text + bytes ||
            request.custom_id < text || request.custom_id + request.custom_id_bytes > text + bytes)
            abort();
        trm_free(request.id);
    }
    if (trmi_batch_line_id(text, bytes, &id) == TRM_OK)
        trm_free(id);
    ours = trmi_json_fields(text, bytes, NULL, 0) == TRM_OK;
    o = json_loadb(text, bytes, 0, &error);
    /* a request that the replica would take is refused; jansson passes over a zero byte behind a
     * number */
    if (json_is_object(o) && !ours && strstr(trm_message(), "less nesting") == NULL &&
        memchr(text, '\0', bytes) == NULL)
        abort();
    json_decref(o);
    return 0;
}
