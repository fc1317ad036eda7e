/* The body of an infer request of the Open Inference Protocol v2: JSON, then each tensor's bytes
 * (the binary tensor data extension). */
#include "launch/bench_url_impl.h"

#include "base/npy.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUTS_MAX 256
#define BODY_MAX ((size_t)1 << 31)
#define FREE_DIM 128

static const struct {
    const char *name;
    trm_dtype dtype;
} types[] = {
    {"FP32", TRM_DTYPE_F32},   {"FP16", TRM_DTYPE_F16},   {"BF16", TRM_DTYPE_BF16},
    {"FP64", TRM_DTYPE_F64},   {"INT8", TRM_DTYPE_I8},    {"UINT8", TRM_DTYPE_U8},
    {"INT16", TRM_DTYPE_I16},  {"UINT16", TRM_DTYPE_U16}, {"INT32", TRM_DTYPE_I32},
    {"UINT32", TRM_DTYPE_U32}, {"INT64", TRM_DTYPE_I64},  {"UINT64", TRM_DTYPE_U64},
    {"BOOL", TRM_DTYPE_BOOL},
};
enum { TYPES = sizeof(types) / sizeof(types[0]) };

static trm_dtype type_of(const char *name)
{
    for (int i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].dtype;
    return TRM_DTYPE_NONE;
}

static const char *type_name(trm_dtype dtype)
{
    for (int i = 0; i < TYPES; i++)
        if (types[i].dtype == dtype)
            return types[i].name;
    return NULL;
}

struct input {
    const char *name;
    trm_tensor tensor;
};

static trm_status no_room(const char *name)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is too large to be sent", name);
}

/* As the model declares it, free dims filled in, random values as bench without --url makes them.
 */
static trm_status make_input(const trmi_url_options *o, trm_arena *arena, const json_t *declared,
                             uint64_t *state, struct input *in)
{
    const char *type = json_string_value(json_object_get(declared, "datatype"));
    const json_t *shape = json_object_get(declared, "shape"), *dim;
    trm_tensor *t = &in->tensor;
    size_t d, elems, bytes;

    t->dtype = type != NULL ? type_of(type) : TRM_DTYPE_NONE;
    if (t->dtype == TRM_DTYPE_NONE)
        return trm_fail(
            TRM_ERR_UNSUPPORTED, "input '%s' is of type %s: its values cannot be made up%s",
            in->name, type != NULL ? type : "?",
            type != NULL && strcmp(type, "BYTES") == 0 ? " (a language model: use --api openai)"
                                                       : "");
    if (!json_is_array(shape) || json_array_size(shape) > TRM_RANK_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "input '%s' declares no shape: --input %s=FILE.npy",
                        in->name, in->name);
    json_array_foreach(shape, d, dim)
    {
        int64_t n = json_integer_value(dim);

        if (n < 0 && d == 0)
            n = o->batch > 0 ? o->batch : 1;
        else if (n < 0)
            n = o->prompt_tokens > 0 ? o->prompt_tokens : FREE_DIM;
        else if (d == 0 && o->batch > 0 && n != o->batch)
            return trm_fail(TRM_ERR_INVALID_ARG, "--batch %lld: dim 0 of input '%s' is %lld",
                            (long long)o->batch, in->name, (long long)n);
        t->dims[t->rank++] = n;
    }
    if (trm_tensor_elems(t, &elems) != TRM_OK || trm_tensor_bytes(t, &bytes) != TRM_OK ||
        bytes > BODY_MAX)
        return no_room(in->name);
    t->data = trm_arena_alloc_aligned(arena, bytes + 1);
    if (t->data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "input '%s' of %zu bytes", in->name, bytes);
    for (size_t i = 0; i < elems; i++) {
        if (trm_dtype_is_float(t->dtype)) {
            double radius = sqrt(-2.0 * log(trmi_url_uniform(state)));

            trm_tensor_set_f64(t, i, radius * cos(6.283185307179586 * trmi_url_uniform(state)));
        } else if (strstr(in->name, "mask") != NULL || t->dtype == TRM_DTYPE_BOOL) {
            trm_tensor_set_i64(t, i, 1);
        } else if (strstr(in->name, "type") == NULL) {
            trm_tensor_set_i64(t, i, (int64_t)(trmi_url_random(state) % 100));
        }
    }
    return TRM_OK;
}

/* NAME=FILE.npy for each declared input, none twice. */
static trm_status load_inputs(const trmi_url_options *o, trm_arena *arena, struct input *in, int n)
{
    for (int k = 0; k < o->inputs.count; k++) {
        const char *text = o->inputs.items[k], *equals = strchr(text, '=');
        size_t bytes = equals != NULL ? (size_t)(equals - text) : 0;
        int i = 0;

        if (equals == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "--input '%s': want NAME=FILE.npy", text);
        while (i < n && (strlen(in[i].name) != bytes || strncmp(in[i].name, text, bytes) != 0))
            i++;
        if (i == n)
            return trm_fail(TRM_ERR_INVALID_ARG, "--input '%s': the model has no such input", text);
        if (in[i].tensor.data != NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "--input '%s': given twice", text);
        TRM_CHECK(trm_npy_load(equals + 1, arena, &in[i].tensor));
    }
    for (int i = 0; i < n; i++)
        if (in[i].tensor.data == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "the model's input '%s' is missing: --input",
                            in[i].name);
    return TRM_OK;
}

static json_t *describe(const struct input *in, size_t bytes)
{
    json_t *shape = json_array();

    for (int d = 0; d < in->tensor.rank; d++)
        json_array_append_new(shape, json_integer(in->tensor.dims[d]));
    return json_pack("{s:s,s:s,s:o,s:{s:I}}", "name", in->name, "datatype",
                     type_name(in->tensor.dtype), "shape", shape, "parameters", "binary_data_size",
                     (json_int_t)bytes);
}

static trm_status join(trmi_url_target *t, const struct input *in, int n, const void **body_out,
                       size_t *bytes_out)
{
    json_t *list = json_array(), *head;
    size_t bytes[INPUTS_MAX], whole = 0, at;
    char *text = NULL, *body = NULL, header[80];
    struct curl_slist *more;
    trm_status st = TRM_OK;

    for (int i = 0; i < n; i++) {
        if (type_name(in[i].tensor.dtype) == NULL ||
            trm_tensor_bytes(&in[i].tensor, &bytes[i]) != TRM_OK || bytes[i] > BODY_MAX - whole) {
            json_decref(list);
            return no_room(in[i].name);
        }
        whole += bytes[i];
        json_array_append_new(list, describe(&in[i], bytes[i]));
    }
    head = json_pack("{s:o,s:{s:b}}", "inputs", list, "parameters", "binary_data_output", 1);
    text = head != NULL ? json_dumps(head, JSON_COMPACT) : NULL;
    json_decref(head);
    at = text != NULL ? strlen(text) : 0;
    body = text != NULL ? trm_arena_alloc(t->arena, at + whole + 1, 1) : NULL;
    snprintf(header, sizeof(header), "Inference-Header-Content-Length: %zu", at);
    more = body != NULL ? curl_slist_append(t->headers, header) : NULL;
    if (more == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a request of %zu bytes", whole);
        goto done;
    }
    t->headers = more;
    memcpy(body, text, at);
    for (int i = 0; i < n; i++) {
        memcpy(body + at, in[i].tensor.data, bytes[i]);
        at += bytes[i];
    }
    *body_out = body;
    *bytes_out = at;

done:
    free(text);
    return st;
}

trm_status trmi_url_infer_body(const trmi_url_options *o, trmi_url_target *t, const void **body_out,
                               size_t *bytes_out)
{
    const json_t *declared = json_object_get(t->metadata, "inputs"), *d;
    struct input in[INPUTS_MAX];
    uint64_t state = (uint64_t)o->seed;
    int n = 0;
    size_t i;

    if (!json_is_array(declared) || json_array_size(declared) == 0 ||
        json_array_size(declared) > INPUTS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "model '%s' declares no inputs", t->model);
    memset(in, 0, sizeof(in));
    json_array_foreach(declared, i, d)
    {
        in[n].name = json_string_value(json_object_get(d, "name"));
        if (in[n].name == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "an input of model '%s' has no name", t->model);
        if (o->inputs.count == 0)
            TRM_CHECK(make_input(o, t->arena, d, &state, &in[n]));
        n++;
    }
    if (o->inputs.count > 0)
        TRM_CHECK(load_inputs(o, t->arena, in, n));
    return join(t, in, n, body_out, bytes_out);
}
