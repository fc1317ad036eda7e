/* quantization_config of config.json: how a library has packed the weights (trm_lm_packing). */
#include "model/language/config_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define SUPPORTED                                                                                  \
    "supported are GPTQ (4 or 8 bits, no act-order), AWQ (4 bits, gemm), compressed-tensors "      \
    "(pack-quantized and float-quantized, symmetric), fp8, and GGUF files"

static trm_status refuse(const trmi_hf_source *s, const char *what, const char *value)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': quantization_config: %s '%.60s'; " SUPPORTED,
                    s->name, what, value);
}

static trm_status bits_and_group(const trmi_hf_source *s, json_t *q, const char *bits_key,
                                 const char *group_key, trm_lm_config *c)
{
    int64_t bits = 0, group = -1;
    char text[32];

    TRM_CHECK(trmi_lm_json_int(s->name, q, bits_key, 1, 32, &bits));
    TRM_CHECK(trmi_lm_json_int(s->name, q, group_key, -1, 1 << 20, &group));
    (void)snprintf(text, sizeof(text), "%" PRId64, bits);
    if (bits != 4 && bits != 8)
        return refuse(s, bits_key, text);
    c->packing_bits = (int)bits;
    c->packing_group = group > 0 ? group : 0;
    return TRM_OK;
}

static trm_status read_gptq(const trmi_hf_source *s, json_t *q, trm_lm_config *c)
{
    const char *format = "gptq";

    TRM_CHECK(bits_and_group(s, q, "bits", "group_size", c));
    TRM_CHECK(trmi_lm_json_text(s->name, q, "checkpoint_format", &format));
    if (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0)
        return refuse(s, "checkpoint_format", format);
    c->packing_zero = strcmp(format, "gptq") == 0 ? 1 : 0;
    c->packing = TRM_LM_PACKING_GPTQ;
    return TRM_OK;
}

static trm_status read_awq(const trmi_hf_source *s, json_t *q, trm_lm_config *c)
{
    const char *version = "gemm";

    TRM_CHECK(bits_and_group(s, q, "bits", "group_size", c));
    TRM_CHECK(trmi_lm_json_text(s->name, q, "version", &version));
    if (c->packing_bits != 4)
        return refuse(s, "AWQ bits", "8");
    if (strcasecmp(version, "gemm") != 0)
        return refuse(s, "AWQ version", version);
    c->packing = TRM_LM_PACKING_AWQ;
    return TRM_OK;
}

/* One scheme for all layers that it names. */
static trm_status read_compressed(const trmi_hf_source *s, json_t *q, trm_lm_config *c)
{
    json_t *groups = json_object_get(q, "config_groups"), *weights = NULL, *group;
    const char *format = "?", *type = "int", *key;
    bool symmetric = true;

    TRM_CHECK(trmi_lm_json_text(s->name, q, "format", &format));
    if (strcmp(format, "float-quantized") == 0 || strcmp(format, "naive-quantized") == 0) {
        json_object_foreach(groups, key, group)
        {
            const char *strategy = "channel";

            weights = json_object_get(group, "weights");
            if (!json_is_object(weights))
                continue;
            TRM_CHECK(trmi_lm_json_text(s->name, weights, "strategy", &strategy));
            if (strcmp(strategy, "channel") != 0 && strcmp(strategy, "tensor") != 0)
                return refuse(s, "compressed-tensors float strategy", strategy);
        }
        c->packing = TRM_LM_PACKING_FP8; /* naive int8 has no e4m3 tensors and is refused there */
        return TRM_OK;
    }
    if (strcmp(format, "pack-quantized") != 0)
        return refuse(s, "compressed-tensors format", format);
    if (json_object_size(groups) != 1)
        return refuse(s, "compressed-tensors", "several config_groups");
    json_object_foreach(groups, key, group)
    {
        weights = json_object_get(group, "weights");
    }
    if (!json_is_object(weights))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': quantization_config: a group without \"weights\"",
                        s->name);
    TRM_CHECK(trmi_lm_json_text(s->name, weights, "type", &type));
    TRM_CHECK(trmi_lm_json_bool(s->name, weights, "symmetric", &symmetric));
    if (strcmp(type, "int") != 0 || !symmetric)
        return refuse(s, "compressed-tensors", symmetric ? type : "asymmetric");
    TRM_CHECK(bits_and_group(s, weights, "num_bits", "group_size", c));
    c->packing = TRM_LM_PACKING_INTS;
    return TRM_OK;
}

static trm_status read_fp8(const trmi_hf_source *s, json_t *q, trm_lm_config *c)
{
    json_t *block = json_object_get(q, "weight_block_size");

    c->packing = TRM_LM_PACKING_FP8;
    if (block == NULL || json_is_null(block))
        return TRM_OK;
    if (json_array_size(block) != 2 || json_integer_value(json_array_get(block, 0)) != 128 ||
        json_integer_value(json_array_get(block, 1)) != 128)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': quantization_config: weight_block_size: want [128, 128]", s->name);
    c->packing_group = 128; /* there are blocks */
    return TRM_OK;
}

trm_status trmi_hf_packing(const trmi_hf_source *s, trm_lm_config *c)
{
    json_t *q = json_object_get(s->outer, "quantization_config");
    const char *method = "?";

    if (q == NULL || json_is_null(q))
        return TRM_OK;
    if (!json_is_object(q))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': quantization_config is no object", s->name);
    TRM_CHECK(trmi_lm_json_text(s->name, q, "quant_method", &method));
    if (strcmp(method, "gptq") == 0)
        return read_gptq(s, q, c);
    if (strcmp(method, "awq") == 0)
        return read_awq(s, q, c);
    if (strcmp(method, "compressed-tensors") == 0)
        return read_compressed(s, q, c);
    if (strcmp(method, "fp8") == 0 || strcmp(method, "fbgemm_fp8") == 0)
        return read_fp8(s, q, c);
    return refuse(s, "quant_method", method);
}
