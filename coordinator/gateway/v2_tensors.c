/* The body of an infer request to tensors: JSON, binary behind the JSON, or both. Every size is
 * held against the bytes that are there before anything is allocated. */
#include "coordinator/gateway/v2_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PRIORITY_DEFAULT 100 /* v2: 1 is the most urgent; requests that name none count as this */

static const char *const datatypes[TRM_DTYPE_COUNT] = {
    [TRM_DTYPE_F32] = "FP32",   [TRM_DTYPE_F16] = "FP16",   [TRM_DTYPE_BF16] = "BF16",
    [TRM_DTYPE_F64] = "FP64",   [TRM_DTYPE_I8] = "INT8",    [TRM_DTYPE_U8] = "UINT8",
    [TRM_DTYPE_I16] = "INT16",  [TRM_DTYPE_U16] = "UINT16", [TRM_DTYPE_I32] = "INT32",
    [TRM_DTYPE_U32] = "UINT32", [TRM_DTYPE_I64] = "INT64",  [TRM_DTYPE_U64] = "UINT64",
    [TRM_DTYPE_BOOL] = "BOOL",
};

const char *trmi_v2_datatype(trm_dtype dtype)
{
    return dtype < 0 || dtype >= TRM_DTYPE_COUNT || datatypes[dtype] == NULL ? ""
                                                                             : datatypes[dtype];
}

trm_dtype trmi_v2_dtype(const char *datatype)
{
    for (int i = 0; i < TRM_DTYPE_COUNT; i++)
        if (datatypes[i] != NULL && strcmp(datatypes[i], datatype) == 0)
            return (trm_dtype)i;
    return TRM_DTYPE_NONE;
}

struct reader {
    trmi_v2_request *r;
    trm_arena *arena;
    const char *binary; /* what is left of it */
    size_t binary_bytes;
    char what[160]; /* "input 'x'" */
};

/* One input while it is read. */
struct input {
    const char *name, *datatype;
    bool texts; /* BYTES */
    trm_tensor desc;
    size_t elems;
    const trmi_list *list; /* NULL: binary */
    const char *data;
    size_t bytes;
};

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request's tensors");
}

static trm_status read_name(struct reader *d, const char *kind, const json_t *o, const char **out)
{
    const json_t *name = json_object_get(o, "name");

    if (!json_is_string(name) || json_string_length(name) == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "an %s has no \"name\"", kind);
    *out = json_string_value(name);
    if (json_string_length(name) > TRM_WIRE_TEXT_MAX || strlen(*out) != json_string_length(name))
        return trm_fail(TRM_ERR_INVALID_ARG, "the name of an %s is over %d bytes or has a NUL",
                        kind, TRM_WIRE_TEXT_MAX);
    snprintf(d->what, sizeof(d->what), "%s '%.100s'", kind, *out);
    return TRM_OK;
}

static trm_status read_shape(struct reader *d, const json_t *shape, struct input *in)
{
    size_t n = json_array_size(shape);

    if (!json_is_array(shape))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: no \"shape\", want a list of integers", d->what);
    if (n > TRM_RANK_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %zu dims, want at most %d", d->what, n,
                        TRM_RANK_MAX);
    in->desc.rank = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(shape, i);

        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s: dim %zu of \"shape\" is no integer from 0 up",
                            d->what, i);
        in->desc.dims[i] = json_integer_value(dim);
    }
    return trm_tensor_elems(&in->desc, &in->elems) == TRM_OK
               ? TRM_OK
               : trm_fail(TRM_ERR_INVALID_ARG, "%s: \"shape\" has too many elements", d->what);
}

static trm_status read_datatype(struct reader *d, const json_t *datatype, struct input *in)
{
    if (!json_is_string(datatype))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: no \"datatype\"", d->what);
    in->datatype = json_string_value(datatype);
    in->texts = strcmp(in->datatype, "BYTES") == 0;
    in->desc.dtype = in->texts ? TRM_DTYPE_U8 : trmi_v2_dtype(in->datatype);
    if (in->desc.dtype == TRM_DTYPE_NONE)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s: datatype '%.20s', want one of BOOL, UINT8 to UINT64, INT8 to INT64, "
                        "FP16, BF16, FP32, FP64, BYTES",
                        d->what, in->datatype);
    return TRM_OK;
}

static trm_status no_shared_memory(struct reader *d, const json_t *parameters)
{
    if (json_object_get(parameters, "shared_memory_region") != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s: shared memory regions are not supported: send the data in the body",
                        d->what);
    return TRM_OK;
}

/* Where its data is: a list, or the next bytes behind the JSON. */
static trm_status read_place(struct reader *d, const json_t *o, struct input *in)
{
    const json_t *parameters = json_object_get(o, "parameters"), *data = json_object_get(o, "data");
    const json_t *size = json_object_get(parameters, "binary_data_size");
    size_t want = 0;

    TRM_CHECK(no_shared_memory(d, parameters));
    if (data != NULL && size != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: \"data\" and \"binary_data_size\", want one",
                        d->what);
    if (data != NULL) {
        in->list = trmi_lists_of(&d->r->body, data);
        return in->list != NULL ? TRM_OK
                                : trm_fail(TRM_ERR_INVALID_ARG, "%s: \"data\" is no list", d->what);
    }
    if (size == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: no \"data\" and no \"binary_data_size\"",
                        d->what);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: \"binary_data_size\" is no integer from 0 up",
                        d->what);
    in->bytes = (size_t)json_integer_value(size);
    if (in->bytes > d->binary_bytes)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s: \"binary_data_size\" is %zu, but %zu bytes are left behind the JSON",
                        d->what, in->bytes, d->binary_bytes);
    if (!in->texts && (trm_tensor_bytes(&in->desc, &want) != TRM_OK || want != in->bytes))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %zu bytes of data, its shape and %s want %zu",
                        d->what, in->bytes, in->datatype, want);
    in->data = d->binary;
    d->binary += in->bytes;
    d->binary_bytes -= in->bytes;
    return TRM_OK;
}

static trm_status bad_bool(struct reader *d, const struct input *in)
{
    for (size_t i = 0; i < in->bytes; i++)
        if ((unsigned char)in->data[i] > 1)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s: element %zu is %d, want 0 or 1 (BOOL)",
                            d->what, i, (unsigned char)in->data[i]);
    return TRM_OK;
}

static trm_status read_numbers(struct reader *d, struct input *in)
{
    trm_wire_tensor *t = &d->r->tensors[d->r->tensor_count];
    size_t bytes = 0, span;
    trm_status st;

    t->name = in->name;
    t->tensor = in->desc;
    if (in->list == NULL) {
        union {
            const char *from;
            void *to; /* a wire tensor's data is only read; the type has no const */
        } data = {.from = in->data};

        if (in->desc.dtype == TRM_DTYPE_BOOL)
            TRM_CHECK(bad_bool(d, in));
        t->tensor.data = data.to;
        d->r->tensor_count++;
        return TRM_OK;
    }
    /* an element is a byte and a comma at least: so much is never allocated for nothing */
    span = (size_t)(in->list->end - in->list->begin);
    if (in->elems > span / 2)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s: at most %zu elements in %zu bytes of data, its "
                        "shape has %zu",
                        d->what, span / 2, span, in->elems);
    st = trm_tensor_bytes(&in->desc, &bytes);
    if (st != TRM_OK)
        return st;
    t->tensor.data = trm_arena_alloc_aligned(d->arena, bytes + 1);
    if (t->tensor.data == NULL)
        return no_memory();
    TRM_CHECK(trmi_list_read(d->what, in->list, &t->tensor));
    d->r->tensor_count++;
    return TRM_OK;
}

static trm_status add_text(struct reader *d, trmi_v2_texts *t, const char *text, size_t bytes,
                           size_t elems)
{
    if ((size_t)t->count == elems)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: more than %zu texts, which its shape has",
                        d->what, elems);
    if (memchr(text, 0, bytes) != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: text %d has a NUL", d->what, t->count);
    t->texts[t->count] = trm_arena_strndup(d->arena, text, bytes);
    return t->texts[t->count++] == NULL ? no_memory() : TRM_OK;
}

static trm_status binary_texts(struct reader *d, trmi_v2_texts *t, const struct input *in)
{
    for (size_t at = 0; at < in->bytes;) {
        const unsigned char *p = (const unsigned char *)in->data + at;
        size_t left = in->bytes - at, n;

        if (left < 4)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s: %zu bytes where a length should be", d->what,
                            left);
        n = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
        if (n > left - 4)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s: a text of %zu bytes, %zu are left", d->what,
                            n, left - 4);
        TRM_CHECK(add_text(d, t, (const char *)p + 4, n, in->elems));
        at += 4 + n;
    }
    return TRM_OK;
}

static trm_status flatten(struct reader *d, trmi_v2_texts *t, const json_t *v, size_t elems,
                          int depth)
{
    const json_t *item;
    size_t i;

    if (json_is_string(v))
        return add_text(d, t, json_string_value(v), json_string_length(v), elems);
    if (!json_is_array(v) || depth > TRM_RANK_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: BYTES want a list of texts", d->what);
    json_array_foreach(v, i, item)
    {
        TRM_CHECK(flatten(d, t, item, elems, depth + 1));
    }
    return TRM_OK;
}

static trm_status read_texts(struct reader *d, struct input *in)
{
    trmi_v2_texts *t;
    trm_status st;

    if (in->elems > TRMI_V2_BYTES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %zu texts, want at most %d", d->what, in->elems,
                        TRMI_V2_BYTES_MAX);
    t = &d->r->texts[d->r->text_count];
    t->name = in->name;
    t->rank = in->desc.rank;
    t->texts = trm_arena_alloc(d->arena, in->elems + 1, sizeof(*t->texts));
    if (t->texts == NULL)
        return no_memory();
    if (in->list == NULL) {
        st = binary_texts(d, t, in);
    } else {
        size_t span = (size_t)(in->list->end - in->list->begin);
        json_error_t error;
        /* a list of numbers here would become a tree that is many times its size */
        json_t *v = memchr(in->list->begin, '"', span) == NULL && in->elems > 0
                        ? NULL
                        : json_loadb(in->list->begin, span, JSON_ALLOW_NUL, &error);

        st = v == NULL ? trm_fail(TRM_ERR_INVALID_ARG, "%s: BYTES want a list of texts", d->what)
                       : flatten(d, t, v, in->elems, 0);
        json_decref(v);
    }
    if (st != TRM_OK)
        return st;
    if ((size_t)t->count != in->elems)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %d texts, its shape has %zu", d->what, t->count,
                        in->elems);
    d->r->text_count++;
    return TRM_OK;
}

static trm_status read_input(struct reader *d, const json_t *o)
{
    struct input in = {0};

    TRM_CHECK(read_name(d, "input", o, &in.name));
    for (int i = 0; i < d->r->tensor_count; i++)
        if (strcmp(d->r->tensors[i].name, in.name) == 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s is given twice", d->what);
    for (int i = 0; i < d->r->text_count; i++)
        if (strcmp(d->r->texts[i].name, in.name) == 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s is given twice", d->what);
    TRM_CHECK(read_datatype(d, json_object_get(o, "datatype"), &in));
    TRM_CHECK(read_shape(d, json_object_get(o, "shape"), &in));
    TRM_CHECK(read_place(d, o, &in));
    return in.texts ? read_texts(d, &in) : read_numbers(d, &in);
}

static trm_status read_inputs(struct reader *d, const json_t *inputs)
{
    size_t n = json_array_size(inputs), i;
    const json_t *o;

    if (!json_is_array(inputs) || n == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "no \"inputs\": want a list of tensors");
    if (n > TRM_WIRE_TENSORS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu inputs, want at most %d", n,
                        TRM_WIRE_TENSORS_MAX);
    d->r->tensors = trm_arena_alloc(d->arena, n, sizeof(*d->r->tensors));
    d->r->texts = trm_arena_alloc(d->arena, n, sizeof(*d->r->texts));
    if (d->r->tensors == NULL || d->r->texts == NULL)
        return no_memory();
    json_array_foreach(inputs, i, o)
    {
        TRM_CHECK(read_input(d, o));
    }
    if (d->binary_bytes > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu bytes behind the last binary tensor",
                        d->binary_bytes);
    return TRM_OK;
}

static trm_status get_bool(const char *what, const char *name, const json_t *v, bool *out)
{
    if (v == NULL)
        return TRM_OK;
    if (!json_is_boolean(v))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: \"%s\" wants true or false", what, name);
    *out = json_is_true(v);
    return TRM_OK;
}

static trm_status read_output(struct reader *d, const json_t *o, trmi_v2_output *out)
{
    const json_t *parameters = json_object_get(o, "parameters");
    const json_t *classes = json_object_get(parameters, "classification");

    TRM_CHECK(read_name(d, "output", o, &out->name));
    for (const trmi_v2_output *other = d->r->outputs; other < out; other++) {
        if (strcmp(other->name, out->name) == 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s is asked for twice", d->what);
        if (other->classes > 0 && classes != NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "%s: \"classification\" of one output a request is supported", d->what);
    }
    TRM_CHECK(no_shared_memory(d, parameters));
    out->binary = d->r->binary;
    TRM_CHECK(
        get_bool(d->what, "binary_data", json_object_get(parameters, "binary_data"), &out->binary));
    if (classes == NULL)
        return TRM_OK;
    if (!json_is_integer(classes) || json_integer_value(classes) < 1 ||
        json_integer_value(classes) > TRM_WIRE_LABELS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: \"classification\" wants 1 to %d", d->what,
                        TRM_WIRE_LABELS_MAX);
    out->classes = (int)json_integer_value(classes);
    return TRM_OK;
}

static trm_status read_outputs(struct reader *d, const json_t *outputs)
{
    size_t n = json_array_size(outputs), i;
    const json_t *o;

    if (outputs == NULL || (json_is_array(outputs) && n == 0))
        return TRM_OK;
    if (!json_is_array(outputs) || n > TRM_WIRE_TENSORS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "\"outputs\" wants a list of at most %d tensors",
                        TRM_WIRE_TENSORS_MAX);
    d->r->outputs = trm_arena_alloc(d->arena, n, sizeof(*d->r->outputs));
    if (d->r->outputs == NULL)
        return no_memory();
    json_array_foreach(outputs, i, o)
    {
        TRM_CHECK(read_output(d, o, &d->r->outputs[i]));
    }
    d->r->output_count = (int)n;
    return TRM_OK;
}

static trm_status read_parameters(struct reader *d, const json_t *parameters)
{
    const json_t *priority = json_object_get(parameters, "priority");
    const json_t *timeout = json_object_get(parameters, "timeout");
    const json_t *sequence = json_object_get(parameters, "sequence_id");

    if (parameters != NULL && !json_is_object(parameters))
        return trm_fail(TRM_ERR_INVALID_ARG, "\"parameters\" wants an object");
    d->r->parameters = parameters;
    if (sequence != NULL && !(json_is_integer(sequence) && json_integer_value(sequence) == 0))
        return trm_fail(TRM_ERR_UNSUPPORTED, "\"sequence_id\": stateful models are not supported");
    TRM_CHECK(get_bool("parameters", "binary_data_output",
                       json_object_get(parameters, "binary_data_output"), &d->r->binary));
    if (priority != NULL) {
        json_int_t p = json_integer_value(priority);

        if (!json_is_integer(priority) || p < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "\"priority\" wants an integer from 0 up");
        if (p > 0)
            d->r->priority = PRIORITY_DEFAULT - (int32_t)(p < INT32_MAX / 2 ? p : INT32_MAX / 2);
    }
    if (timeout != NULL) {
        json_int_t us = json_integer_value(timeout), ms;

        if (!json_is_integer(timeout) || us < 0)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "\"timeout\" wants microseconds, an integer from 0 up");
        ms = us / 1000 + (us % 1000 > 0);
        d->r->deadline_ms = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
    }
    return TRM_OK;
}

trm_status trmi_v2_read(const char *body, size_t header, size_t bytes, trm_arena *arena,
                        trmi_v2_request *r)
{
    struct reader d = {
        .r = r, .arena = arena, .binary = body + header, .binary_bytes = bytes - header};
    const json_t *id;

    memset(r, 0, sizeof(*r));
    TRM_CHECK(trmi_lists_cut(body, header, TRMI_LISTS_INPUTS, arena, &r->body));
    id = json_object_get(r->body.root, "id");
    if (id != NULL && !json_is_string(id))
        return trm_fail(TRM_ERR_INVALID_ARG, "\"id\" wants a string");
    r->id = json_string_value(id);
    TRM_CHECK(read_parameters(&d, json_object_get(r->body.root, "parameters")));
    TRM_CHECK(read_outputs(&d, json_object_get(r->body.root, "outputs")));
    return read_inputs(&d, json_object_get(r->body.root, "inputs"));
}

void trmi_v2_request_fini(trmi_v2_request *r)
{
    json_decref(r->body.root);
    r->body.root = NULL;
}

json_t *trmi_v2_scalar(const trm_wire_tensor *t)
{
    union {
        unsigned char bytes[8];
        double aligned;
    } element = {0};
    trm_tensor one = t->tensor;

    if (trm_tensor_numel(&t->tensor) != 1)
        return NULL;
    memcpy(element.bytes, t->tensor.data, trm_dtype_bytes(t->tensor.dtype));
    one.data = element.bytes;
    if (one.dtype == TRM_DTYPE_BOOL)
        return json_boolean(element.bytes[0]);
    if (trm_dtype_is_float(one.dtype))
        return json_real(trm_tensor_get_f64(&one, 0));
    return json_integer(trm_tensor_get_i64(&one, 0));
}
