/* libFuzzer: any bytes as bodies of the gateway's endpoints. The first byte says which one; with
 * binary tensors the next two say where the JSON ends. The hub gives tensors back as they came:
 * what has been taken must be printable, and printed again must be JSON. */
#define _GNU_SOURCE
#include "tests/coordinator/gateway_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct target {
    const char *path, *header;
} targets[] = {
    {"/v2/models/m/infer", NULL},
    {"/v2/models/m/infer", "Inference-Header-Content-Length"},
    {"/predictions/m", "Content-Type: application/json"},
    {"/v2/repository/models/m/load", NULL},
    {"/v2/models/lm/generate", NULL},
    {"/v2/models/lm/infer", NULL},
    {"/v2/models/m/infer", "Content-Encoding: gzip"},
};

static trmi_routes routes_of(const char *path)
{
    if (strncmp(path, "/predictions", 12) == 0)
        return trmi_predictions_routes();
    return strstr(path, "repository") != NULL ? trmi_repository_routes()
                                              : trmi_inference_v2_routes();
}

static void check(const trm_http_exchange *x)
{
    size_t json = x->data_bytes;
    const char *header = kit_find(x->out, x->out_count, "Inference-Header-Content-Length");
    json_t *o;

    if (x->answers != 1 || x->status < 200)
        abort();
    if (header != NULL)
        json = (size_t)strtoull(header, NULL, 10);
    /* NaN and Infinity are no JSON */
    if (json == 0 || memmem(x->data, json, "NaN", 3) != NULL ||
        memmem(x->data, json, "Infinity", 8) != NULL)
        return;
    o = json_loadb(x->data, json, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    if (o == NULL)
        abort();
    json_decref(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct target *t;
    char header[100];
    const char *headers[] = {header, NULL};
    trm_http_exchange *x;
    size_t at = 1;

    if (bytes < 4)
        return 0;
    t = &targets[data[0] % (sizeof(targets) / sizeof(*targets))];
    snprintf(header, sizeof(header), "%s", t->header == NULL ? "" : t->header);
    if (t->header != NULL && strchr(t->header, ':') == NULL) {
        snprintf(header, sizeof(header), "%s: %d", t->header, data[1] | data[2] << 8);
        at = 3;
    }
    kit_reset();
    kit_model("m", 1, TRM_MODEL_READY, "{\"kind\":\"tensor\"}");
    kit_model("lm", 1, TRM_MODEL_READY, "{\"kind\":\"generate\"}");
    kit_hub.echo = true;
    x = kit_call(routes_of(t->path), "POST", t->path, t->header == NULL ? NULL : headers, data + at,
                 bytes - at);
    if (kit_hub.load_pending)
        kit_hub.load_done(kit_hub.load_ctx, TRM_OK, "");
    check(x);
    kit_free(x);
    return 0;
}
