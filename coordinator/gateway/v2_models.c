/* What models are: v2's metadata, Triton's configuration and statistics. All from the JSON that a
 * replica tells of a loaded model (trm_wire_model), which is a peer's word: nothing is taken to be
 * there. */
#include "coordinator/gateway/v2_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool trmi_v2_version(trm_http_exchange *x, int64_t *version_out)
{
    const char *text = trm_http_name(x, "version");
    char *end = NULL, message[100];
    long long n;

    *version_out = 0;
    if (text == NULL)
        return true;
    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < 1) {
        snprintf(message, sizeof(message), "version '%.40s', want an integer from 1 up", text);
        trmi_gateway_fail_http(x, 400, message);
        return false;
    }
    *version_out = n;
    return true;
}

bool trmi_v2_find(trm_http_exchange *x, trm_hub_model_info *info)
{
    trm_gateway *g = trm_http_ctx(x);
    int64_t version;
    trm_status st;

    if (!trmi_v2_version(x, &version))
        return false;
    st = trm_hub_find_model(g->hub, trm_http_name(x, "model"), version, info);
    if (st != TRM_OK)
        trmi_gateway_fail(x, st, trm_message());
    return st == TRM_OK;
}

json_t *trmi_v2_metadata(trm_http_exchange *x, const trm_hub_model_info *info)
{
    const char *text = info->metadata == NULL ? "" : info->metadata;
    json_t *o = text[0] == '\0' ? NULL : json_loads(text, 0, NULL);
    char message[512];

    if (json_is_object(o))
        return o;
    json_decref(o);
    snprintf(message, sizeof(message), "model '%s' version %" PRId64 " is %s%s%s", info->name,
             info->version, trm_model_state_name(info->state), info->reason[0] == '\0' ? "" : ": ",
             info->reason);
    trmi_gateway_fail_http(x, 503, message);
    return NULL;
}

/* ---- tensors of models ---- */

/* A language model has none of its own: what infer takes and gives for it. */
static json_t *tensors_of(const json_t *metadata, const char *which)
{
    const json_t *kind = json_object_get(metadata, "kind");
    json_t *list = json_object_get(metadata, which);

    if (json_is_string(kind) && strcmp(json_string_value(kind), "generate") == 0)
        return json_pack("[{s:s,s:s,s:[i]}]", "name",
                         strcmp(which, "inputs") == 0 ? "text_input" : "text_output", "datatype",
                         "BYTES", "shape", 1);
    return json_is_array(list) ? json_incref(list) : json_array();
}

static bool begins_with_any(const json_t *tensors)
{
    const json_t *o;
    size_t i;

    json_array_foreach(tensors, i, o)
    {
        const json_t *shape = json_object_get(o, "shape");

        if (!json_is_array(shape) || json_array_size(shape) == 0 ||
            json_integer_value(json_array_get(shape, 0)) != -1)
            return false;
    }
    return json_array_size(tensors) > 0;
}

/* One of Triton's configuration; `batched`: its first dim is not told. */
static json_t *config_tensor(const json_t *o, bool batched, bool input)
{
    const char *datatype = json_string_value(json_object_get(o, "datatype"));
    const json_t *shape = json_object_get(o, "shape"), *dim;
    json_t *dims = json_array(), *out;
    char type[32];
    size_t i;

    snprintf(type, sizeof(type), "TYPE_%.20s",
             datatype == NULL                 ? "INVALID"
             : strcmp(datatype, "BYTES") == 0 ? "STRING"
                                              : datatype);
    json_array_foreach(shape, i, dim)
    {
        if (i > 0 || !batched)
            json_array_append_new(dims, json_integer(json_integer_value(dim)));
    }
    out = json_pack("{s:s?,s:s,s:o}", "name", json_string_value(json_object_get(o, "name")),
                    "data_type", type, "dims", dims);
    if (input) {
        json_object_set_new(out, "format", json_string("FORMAT_NONE"));
        json_object_set_new(out, "is_shape_tensor", json_false());
        json_object_set_new(out, "allow_ragged_batch", json_false());
        json_object_set_new(out, "optional", json_false());
    } else {
        json_object_set_new(out, "label_filename", json_string(""));
        json_object_set_new(out, "is_shape_tensor", json_false());
    }
    return out;
}

static json_t *config_tensors(const json_t *tensors, bool batched, bool input)
{
    json_t *list = json_array();
    const json_t *o;
    size_t i;

    json_array_foreach(tensors, i, o)
    {
        json_array_append_new(list, config_tensor(o, batched, input));
    }
    return list;
}

/* ---- handlers ---- */

/* All versions that are known: "versions" of the metadata. */
static json_t *versions_of(trm_gateway *g, const char *name)
{
    trm_hub_model_info *infos = NULL;
    json_t *list = json_array();
    int n = 0;

    if (trm_hub_models(g->hub, &infos, &n) != TRM_OK)
        return list;
    for (int i = 0; i < n; i++) {
        char text[24];

        if (strcmp(infos[i].name, name) != 0 || infos[i].state == TRM_MODEL_UNLOADED)
            continue;
        snprintf(text, sizeof(text), "%" PRId64, infos[i].version);
        json_array_append_new(list, json_string(text));
    }
    trm_hub_models_free(infos, n);
    return list;
}

static void metadata(void *ctx, trm_http_exchange *x)
{
    trm_hub_model_info info = {0};
    const char *platform;
    json_t *o = NULL;

    if (trmi_v2_find(x, &info))
        o = trmi_v2_metadata(x, &info);
    if (o != NULL) {
        platform = json_string_value(json_object_get(o, "platform"));
        trm_http_answer_json(
            x, 200,
            json_pack("{s:s,s:o,s:s,s:o,s:o}", "name", info.name, "versions",
                      versions_of(ctx, info.name), "platform", platform == NULL ? "" : platform,
                      "inputs", tensors_of(o, "inputs"), "outputs", tensors_of(o, "outputs")));
    }
    json_decref(o);
    trm_free(info.metadata);
}

static void model_ready(void *ctx, trm_http_exchange *x)
{
    trm_hub_model_info info = {0};

    (void)ctx;
    if (trmi_v2_find(x, &info)) {
        bool is = info.state == TRM_MODEL_READY && info.replicas > 0;

        trm_http_answer_json(x, is ? 200 : 503,
                             json_pack("{s:s,s:b}", "name", info.name, "ready", is));
    }
    trm_free(info.metadata);
}

/* What the replica tells of its batches, where it does. */
static json_t *dynamic_batching(const json_t *metadata)
{
    const json_t *delay = json_object_get(metadata, "max_delay_us");
    const json_t *preferred = json_object_get(metadata, "preferred_batch_sizes");
    json_t *o = json_object();

    if (json_is_integer(delay))
        json_object_set_new(o, "max_queue_delay_microseconds",
                            json_integer(json_integer_value(delay)));
    if (json_is_array(preferred))
        json_object_set_new(o, "preferred_batch_size", json_deep_copy(preferred));
    return o;
}

static json_t *make_config(const trm_hub_model_info *info, const json_t *o)
{
    json_t *inputs = tensors_of(o, "inputs"), *outputs = tensors_of(o, "outputs"), *config;
    const char *platform = json_string_value(json_object_get(o, "platform"));
    const char *device = json_string_value(json_object_get(o, "device"));
    json_int_t most = json_integer_value(json_object_get(o, "max_batch"));
    bool batched = most > 0 && begins_with_any(inputs) && begins_with_any(outputs);
    bool gpu = device != NULL && strncmp(device, "cuda", 4) == 0;
    char group[160];

    snprintf(group, sizeof(group), "%s_0", info->name);
    config = json_pack("{s:s,s:s,s:s,s:{s:{s:[I]}},s:I,s:o,s:o,s:[{s:s,s:s,s:i}]}", "name",
                       info->name, "platform", platform == NULL ? "" : platform, "backend",
                       "trireme", "version_policy", "specific", "versions",
                       (json_int_t)info->version, "max_batch_size", batched ? most : (json_int_t)0,
                       "input", config_tensors(inputs, batched, true), "output",
                       config_tensors(outputs, batched, false), "instance_group", "name", group,
                       "kind", gpu ? "KIND_GPU" : "KIND_CPU", "count", info->replicas);
    if (config != NULL && batched)
        json_object_set_new(config, "dynamic_batching", dynamic_batching(o));
    json_decref(inputs);
    json_decref(outputs);
    return config;
}

static void config(void *ctx, trm_http_exchange *x)
{
    trm_hub_model_info info = {0};
    json_t *o = NULL;

    (void)ctx;
    if (trmi_v2_find(x, &info))
        o = trmi_v2_metadata(x, &info);
    if (o != NULL)
        trm_http_answer_json(x, 200, make_config(&info, o));
    json_decref(o);
    trm_free(info.metadata);
}

static json_t *duration(const json_t *known, const char *name)
{
    const json_t *o = json_object_get(known, name);

    return json_pack("{s:I,s:I}", "count", json_integer_value(json_object_get(o, "count")), "ns",
                     json_integer_value(json_object_get(o, "ns")));
}

static json_t *model_statistics(const trm_gateway *g, const trm_hub_model_info *info)
{
    static const char *const durations[] = {"success",       "fail",          "queue",
                                            "compute_input", "compute_infer", "compute_output",
                                            "cache_hit",     "cache_miss"};
    static const char *const counts[] = {"last_inference", "inference_count", "execution_count"};
    json_t *known = trm_metrics_model_statistics(g->metrics, info->name, info->version);
    json_t *o = json_object(), *times = json_object(), *sizes;
    char version[24];

    snprintf(version, sizeof(version), "%" PRId64, info->version);
    json_object_set_new(o, "name", json_string(info->name));
    json_object_set_new(o, "version", json_string(version));
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
        json_object_set_new(o, counts[i],
                            json_integer(json_integer_value(json_object_get(known, counts[i]))));
    for (size_t i = 0; i < sizeof(durations) / sizeof(*durations); i++)
        json_object_set_new(times, durations[i], duration(known, durations[i]));
    json_object_set_new(o, "inference_stats", times);
    sizes = json_object_get(known, "batch_stats");
    json_object_set_new(o, "batch_stats", json_is_array(sizes) ? json_incref(sizes) : json_array());
    json_decref(known);
    return o;
}

/* Of all models, of one, or of one version. */
static void statistics(void *ctx, trm_http_exchange *x)
{
    const char *name = trm_http_name(x, "model");
    trm_gateway *g = ctx;
    trm_hub_model_info *infos = NULL;
    json_t *list;
    int64_t version;
    int n = 0;
    trm_status st;

    if (!trmi_v2_version(x, &version))
        return;
    st = trm_hub_models(g->hub, &infos, &n);
    if (st != TRM_OK) {
        trmi_gateway_fail(x, st, trm_message());
        return;
    }
    list = json_array();
    for (int i = 0; i < n; i++) {
        if ((name == NULL ? infos[i].state != TRM_MODEL_UNLOADED
                          : strcmp(infos[i].name, name) == 0) &&
            (version == 0 || infos[i].version == version))
            json_array_append_new(list, model_statistics(g, &infos[i]));
    }
    trm_hub_models_free(infos, n);
    if (name != NULL && json_array_size(list) == 0) {
        char message[256];

        json_decref(list);
        snprintf(message, sizeof(message), "no model '%.128s'%s", name,
                 version > 0 ? " of that version" : "");
        trmi_gateway_fail_http(x, 404, message);
        return;
    }
    trm_http_answer_json(x, 200, json_pack("{s:o}", "model_stats", list));
}

const trm_http_route trmi_v2_model_routes[] = {
    {"GET", "/v2/models/stats", statistics, 0}, /* before {model}: the first that fits is taken */
    {"GET", "/v2/models/{model}", metadata, 0},
    {"GET", "/v2/models/{model}/versions/{version}", metadata, 0},
    {"GET", "/v2/models/{model}/ready", model_ready, 0},
    {"GET", "/v2/models/{model}/versions/{version}/ready", model_ready, 0},
    {"GET", "/v2/models/{model}/config", config, 0},
    {"GET", "/v2/models/{model}/versions/{version}/config", config, 0},
    {"GET", "/v2/models/{model}/stats", statistics, 0},
    {"GET", "/v2/models/{model}/versions/{version}/stats", statistics, 0},
};
const int trmi_v2_model_route_count =
    (int)(sizeof(trmi_v2_model_routes) / sizeof(*trmi_v2_model_routes));
