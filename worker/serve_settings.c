/* The table of a served model's settings. */
#include "worker/serve_settings.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(trm_serve_settings, field)

static const trm_config_row rows[] = {
    {.name = "name",
     .type = TRM_CONFIG_STRING,
     .offset = AT(name),
     .help = "what clients call it; default: the file's or folder's name"},
    {.name = "path",
     .type = TRM_CONFIG_STRING,
     .offset = AT(path),
     .help = "a .onnx or .gguf file, or a folder; relative to the configuration's folder"},
    {.name = "version",
     .type = TRM_CONFIG_INT,
     .offset = AT(version),
     .otherwise = "1",
     .min = 1,
     .max = 1e15,
     .help = "several entries of one name are versions of it"},
    {.name = "group",
     .type = TRM_CONFIG_STRING,
     .offset = AT(group),
     .help = "the group of ranks that runs it; default: the first"},
    {.name = "load",
     .type = TRM_CONFIG_BOOL,
     .offset = AT(load),
     .otherwise = "true",
     .help = "at start; false: when it is asked for by the repository's API"},
    {.name = "dtype",
     .type = TRM_CONFIG_CHOICE,
     .offset = AT(dtype),
     .otherwise = "auto",
     .choices = "auto|fp32|bf16|fp16",
     .help = "what activations are computed in; auto: as the file says"},
    {.name = "max_batch",
     .type = TRM_CONFIG_INT,
     .offset = AT(max_batch),
     .min = 0,
     .max = 4096,
     .help = "records of a step, or sequences that run at once (32, or 64)"},
    {.name = "queue",
     .type = TRM_CONFIG_INT,
     .offset = AT(queue),
     .min = 0,
     .max = 65536,
     .help = "requests that a replica holds at once; 0: by max_batch"},
    {.name = "warmup",
     .type = TRM_CONFIG_CHOICE,
     .offset = AT(warmup),
     .otherwise = "auto",
     .choices = "auto|none",
     .help = "whether a model runs once before it is ready"},
    {.name = "batching",
     .type = TRM_CONFIG_BOOL,
     .offset = AT(batching),
     .otherwise = "true",
     .help = "tensor models: requests share steps"},
    {.name = "max_delay",
     .type = TRM_CONFIG_DURATION,
     .offset = AT(max_delay_us),
     .otherwise = "2ms",
     .max = 60e6,
     .help = "tensor models: how long a request may wait for others to share its step"},
    {.name = "max_delay_ms",
     .type = TRM_CONFIG_INT,
     .offset = AT(max_delay_ms),
     .otherwise = "-1",
     .min = -1,
     .max = 60000,
     .help = "the same in milliseconds"},
    {.name = "preferred_batches",
     .type = TRM_CONFIG_LIST,
     .offset = AT(preferred),
     .item = TRM_CONFIG_INT,
     .max = 64,
     .item_min = 1,
     .item_max = 4096,
     .flags = TRM_CONFIG_ONE_OK,
     .help = "tensor models: a batch that reaches one of these sizes does not wait"},
    {.name = "preprocess",
     .type = TRM_CONFIG_NODE,
     .offset = AT(preprocess),
     .help = "as in a model's own YAML (docs/model-yaml.md), which it replaces"},
    {.name = "labels", .type = TRM_CONFIG_NODE, .offset = AT(labels), .help = "likewise"},
    {.name = "output", .type = TRM_CONFIG_NODE, .offset = AT(output), .help = "likewise"},
    {.name = "activation", .type = TRM_CONFIG_NODE, .offset = AT(activation), .help = "likewise"},
    {.name = "top_labels", .type = TRM_CONFIG_NODE, .offset = AT(top_k), .help = "its top_k"},
    {.name = "context",
     .type = TRM_CONFIG_INT,
     .offset = AT(context),
     .min = 0,
     .max = 1 << 28,
     .help = "language models: tokens of a sequence at most; 0: the model's"},
    {.name = "kv_cache",
     .type = TRM_CONFIG_BYTES,
     .offset = AT(kv_cache),
     .help = "language models: of a replica, all its ranks together (up to 1GiB; GPUs: what is "
             "left)"},
    {.name = "kv_dtype",
     .type = TRM_CONFIG_CHOICE,
     .offset = AT(kv_dtype),
     .otherwise = "auto",
     .choices = "auto|fp32|fp16|bf16|i8",
     .help = "of that cache; i8: on GPUs"},
    {.name = "step_tokens",
     .type = TRM_CONFIG_INT,
     .offset = AT(step_tokens),
     .min = 0,
     .max = 65536,
     .help = "language models: tokens of a step at most (512)"},
    {.name = "decode_budget",
     .type = TRM_CONFIG_DURATION,
     .offset = AT(decode_budget_us),
     .max = 100e6,
     .help = "language models: time a step may take while sequences decode; 0: no limit"},
    {.name = "prefix_cache",
     .type = TRM_CONFIG_BOOL,
     .offset = AT(prefix_cache),
     .otherwise = "true",
     .help = "language models: prompts that begin alike are computed once"},
    {.name = "chat_template",
     .type = TRM_CONFIG_STRING,
     .offset = AT(chat_template),
     .help = "a file instead of the model's own template"},
    {.name = "tool_format",
     .type = TRM_CONFIG_CHOICE,
     .offset = AT(tool_format),
     .otherwise = "auto",
     .choices = "auto|hermes|llama|mistral|json|none",
     .help = "how the model writes tool calls"},
    {.name = "temperature",
     .type = TRM_CONFIG_FLOAT,
     .offset = AT(temperature),
     .otherwise = "-1",
     .min = -1,
     .max = 100,
     .help = "of requests that name none (the model's, else 1 as OpenAI's clients expect)"},
    {.name = "top_p",
     .type = TRM_CONFIG_FLOAT,
     .offset = AT(top_p),
     .otherwise = "-1",
     .min = -1,
     .max = 1,
     .help = "likewise"},
    {.name = "min_p",
     .type = TRM_CONFIG_FLOAT,
     .offset = AT(min_p),
     .otherwise = "-1",
     .min = -1,
     .max = 1,
     .help = "likewise"},
    {.name = "top_k",
     .type = TRM_CONFIG_INT,
     .offset = AT(top_k_sampling),
     .otherwise = "-1",
     .min = -1,
     .max = 1 << 30,
     .help = "likewise"},
    {.name = "repetition_penalty",
     .type = TRM_CONFIG_FLOAT,
     .offset = AT(repetition_penalty),
     .otherwise = "-1",
     .min = -1,
     .max = 100,
     .help = "likewise"},
    {.name = "max_tokens",
     .type = TRM_CONFIG_INT,
     .offset = AT(max_tokens),
     .otherwise = "-1",
     .min = -1,
     .max = 1 << 30,
     .help = "likewise (completions 16, chat the context)"},
};
const trm_config_section trm_serve_settings_section = {"models", sizeof(trm_serve_settings), rows,
                                                       sizeof(rows) / sizeof(rows[0])};

const char *trm_serve_tool_format(const trm_serve_settings *s)
{
    static const char *const words[] = {"auto", "hermes", "llama", "mistral", "json", "none"};

    return words[s->tool_format];
}

trm_status trm_serve_settings_parse(const char *json, const char *name, trm_config **config_out,
                                    const trm_serve_settings **settings_out)
{
    const char *text = json == NULL || json[0] == '\0' ? "{}" : json;

    TRM_CHECK(trm_config_parse(text, strlen(text), name, &trm_serve_settings_section, config_out));
    *settings_out = trm_config_get(*config_out);
    return TRM_OK;
}

/* ---- a node as JSON ---- */

#define DEPTH_MAX 32

static json_t *scalar(const trm_config_node *n)
{
    json_t *v = NULL;

    if (n->quoted)
        return json_string(n->text);
    if (n->text[0] == '\0' || strcmp(n->text, "~") == 0)
        return json_null();
    v = json_loads(n->text, JSON_DECODE_ANY, NULL);
    if (v != NULL && (json_is_object(v) || json_is_array(v) || json_is_string(v))) {
        json_decref(v);
        v = NULL;
    }
    return v != NULL ? v : json_string(n->text);
}

static json_t *node_json(const trm_config_node *n, bool (*only)(const char *key), int depth)
{
    json_t *o;

    if (depth > DEPTH_MAX)
        return NULL;
    if (n->kind == TRM_CONFIG_KIND_SCALAR)
        return scalar(n);
    o = n->kind == TRM_CONFIG_KIND_MAP ? json_object() : json_array();
    for (const trm_config_entry *e = n->first; e != NULL && o != NULL; e = e->next) {
        bool wanted = n->kind != TRM_CONFIG_KIND_MAP || only == NULL || only(e->key->text);
        json_t *v = wanted ? node_json(e->value, NULL, depth + 1) : NULL;

        if (!wanted)
            continue;
        if (v == NULL || (n->kind == TRM_CONFIG_KIND_MAP ? json_object_set_new(o, e->key->text, v)
                                                         : json_array_append_new(o, v)) != 0) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

char *trm_config_node_json(const trm_config_node *n, bool (*only)(const char *key))
{
    json_t *o = node_json(n, only, 0);
    char *text = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char *copy = text != NULL ? trm_strdup(text) : NULL;

    json_decref(o);
    free(text);
    return copy;
}
