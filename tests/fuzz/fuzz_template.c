/* libFuzzer: any bytes as a chat template, rendered with a small conversation. */
#include "base/memory.h"
#include "model/template/template.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char variables_text[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" a\\u00e9b \"}, {\"role\": \"user\", "
    "\"content\": [{\"type\": \"text\", \"text\": \"x\"}]}, {\"role\": \"assistant\", \"content\": "
    "null, \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"k\": [1, 2.5, "
    "true]}}}]}],"
    " \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}}], "
    "\"n\": 7, \"f\": -2.5, \"s\": \"Hello, W\\u00f6rld\\n\", \"l\": [3, 1, 2], \"d\": {\"a\": 1, "
    "\"b\": "
    "{}}, \"add_generation_prompt\": true, \"bos_token\": \"<s>\", \"eos_token\": \"</s>\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static json_t *variables; /* read, never changed */
    trm_template *t;
    char *text;
    size_t n;

    if (variables == NULL)
        variables = json_loads(variables_text, 0, NULL);
    if (trm_template_compile("fuzz", (const char *)data, bytes, &t) != TRM_OK)
        return 0;
    if (trm_template_render(t, variables, 1767323045, &text, &n) == TRM_OK)
        trm_free(text);
    trm_template_destroy(t);
    return 0;
}
