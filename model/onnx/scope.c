/* Names to values, and constants. */
#include "model/onnx/onnx_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx names");
}

int64_t trmi_opset_of(const trmi_scope *s, const char *domain)
{
    const trmi_opsets *lists[2] = {s->opsets, &s->im->opsets};

    for (int l = 0; l < 2; l++)
        for (int i = 0; i < lists[l]->count; i++)
            if (strcmp(lists[l]->items[i].domain, domain) == 0)
                return lists[l]->items[i].version;
    return 0;
}

/* `base` if no value of the graph has that name, else "<base>_<n>". */
static const char *unique_name(trmi_scope *s, const char *prefix, const char *base)
{
    trmi_body *b = s->body;
    size_t bytes = strlen(prefix) + strlen(base) + 32;
    char *name = (char *)trm_arena_alloc(s->im->scratch, bytes, 1);

    if (name == NULL)
        return NULL;
    snprintf(name, bytes, "%s%s", prefix, base);
    for (size_t i = b->names.count; trm_names_find(&b->names, name) >= 0; i++)
        snprintf(name, bytes, "%s%s_%zu", prefix, base, i);
    return name;
}

static trm_status add_value(trmi_scope *s, const char *name, const trm_tensor *desc, int *value_out)
{
    if (name == NULL)
        return no_memory();
    TRM_CHECK(trm_graph_add_value(s->body->g, name, desc, value_out));
    return trm_names_put(&s->body->names, s->im->scratch, s->body->g->values[*value_out].name,
                         *value_out);
}

static trm_status check_new(const trmi_scope *s, const char *name)
{
    if (name[0] == '\0')
        return trm_fail(TRM_ERR_BAD_FILE, "graph '%s': an input or initializer has no name",
                        s->body->g->name);
    if (trm_names_find(&s->visible, name) != -1)
        return trm_fail(TRM_ERR_BAD_FILE, "graph '%s': value '%s' is made twice", s->body->g->name,
                        name);
    return TRM_OK;
}

trm_status trmi_scope_declare(trmi_scope *s, const char *name, const trm_tensor *desc,
                              int *value_out)
{
    int bound = trm_names_find(&s->bound, name);

    TRM_CHECK(check_new(s, name));
    if (bound >= 0)
        *value_out = bound; /* the call's own output */
    else
        TRM_CHECK(add_value(s, unique_name(s, s->prefix, name), desc, value_out));
    return trm_names_put(&s->visible, s->im->scratch, name, *value_out);
}

trm_status trmi_scope_temp(trmi_scope *s, const char *base, const trm_tensor *desc, int *value_out)
{
    return add_value(s, unique_name(s, "", base), desc, value_out);
}

/* What a body takes from outside: constants are shared, everything else becomes an input. */
static trm_status capture(trmi_scope *s, const char *name, int outer_value, int *value_out)
{
    const trm_value outer = s->outer->body->g->values[outer_value];
    int *pairs;

    TRM_CHECK(trmi_scope_temp(s, outer.name, &outer.desc, value_out));
    TRM_CHECK(trm_names_put(&s->visible, s->im->scratch, name, *value_out));
    if (outer.desc.data != NULL) {
        trm_value *v = &s->body->g->values[*value_out];

        v->desc = outer.desc;
        v->file = outer.file;
        v->file_offset = outer.file_offset;
        v->bytes = outer.bytes;
        return TRM_OK;
    }
    if (s->capture_count == s->capture_max) {
        int max = s->capture_max == 0 ? 8 : s->capture_max * 2;

        pairs = (int *)trm_arena_alloc(s->im->scratch, (size_t)max, 2 * sizeof(int));
        if (pairs == NULL)
            return no_memory();
        if (s->capture_count > 0)
            memcpy(pairs, s->captures, (size_t)s->capture_count * 2 * sizeof(int));
        s->captures = pairs;
        s->capture_max = max;
    }
    s->captures[2 * s->capture_count] = outer_value;
    s->captures[2 * s->capture_count + 1] = *value_out;
    s->capture_count++;
    return TRM_OK;
}

trm_status trmi_scope_find(trmi_scope *s, const char *name, const char *reader, int *value_out)
{
    int value, outer;

    *value_out = TRM_NO_VALUE;
    if (name[0] == '\0')
        return TRM_OK;
    value = trm_names_find(&s->visible, name);
    if (value == TRMI_ABSENT)
        return TRM_OK;
    if (value >= 0) {
        *value_out = value;
        return TRM_OK;
    }
    if (s->outer == NULL)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "%s reads '%s', which no node, input or initializer provides", reader,
                        name);
    TRM_CHECK(trmi_scope_find(s->outer, name, reader, &outer));
    if (outer == TRM_NO_VALUE)
        return TRM_OK;
    return capture(s, name, outer, value_out);
}

trm_status trmi_scope_constant(trmi_scope *s, const char *base, const trm_tensor *desc,
                               bool visible, int *value_out)
{
    const char *name;

    if (visible)
        TRM_CHECK(check_new(s, base));
    name = unique_name(s, s->prefix, base);
    if (name == NULL)
        return no_memory();
    TRM_CHECK(trm_graph_add_constant(s->body->g, name, desc, value_out));
    TRM_CHECK(trm_names_put(&s->body->names, s->im->scratch, s->body->g->values[*value_out].name,
                            *value_out));
    return visible ? trm_names_put(&s->visible, s->im->scratch, base, *value_out) : TRM_OK;
}

static trm_status count_decoded(trmi_import *im, const char *name, size_t bytes)
{
    size_t max = TRMI_DECODED_MAX + 16 * trm_file_bytes(im->file);

    if (bytes > max || im->decoded_bytes > max - bytes)
        return trm_fail(
            TRM_ERR_UNSUPPORTED,
            "tensor '%s' of %zu bytes: constants that are sparse or not stored as plain "
            "bytes grow past %zu bytes",
            name, bytes, max);
    im->decoded_bytes += bytes;
    return TRM_OK;
}

static trm_status add_decoded(trmi_scope *s, const char *name, const trmi_onnx_tensor *t)
{
    trm_tensor desc = t->desc;
    trm_status st;
    int value;

    TRM_CHECK(count_decoded(s->im, name, t->bytes));
    desc.data = trm_malloc(t->bytes, 1);
    if (desc.data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tensor '%s', %zu bytes", name, t->bytes);
    TRM_TRY(st, trmi_tensor_decode(t, desc.data), done);
    st = trmi_scope_constant(s, name, &desc, true, &value);
done:
    trm_free(desc.data);
    return st;
}

trm_status trmi_scope_add_tensor(trmi_scope *s, const char *name, trmi_bytes message)
{
    trmi_import *im = s->im;
    trm_file *file = im->file;
    trmi_onnx_tensor t;
    const char *unique;
    uint64_t offset;
    int value;

    TRM_CHECK(trmi_tensor_parse(message, im->base, im->scratch, name == NULL ? "" : name, &t));
    if (name == NULL)
        name = t.name;
    else
        t.name = name;
    TRM_CHECK(check_new(s, name));
    if (t.external) {
        TRM_CHECK(trmi_external_open(im, &t, &file));
        offset = t.offset;
    } else if (t.plain.data != NULL && t.desc.dtype != TRM_DTYPE_BOOL) {
        offset = (uint64_t)(t.plain.data - im->base);
    } else {
        return add_decoded(s, name, &t); /* bools too: the file may hold bytes other than 0 and 1 */
    }
    unique = unique_name(s, s->prefix, name);
    if (unique == NULL)
        return no_memory();
    TRM_CHECK(trm_graph_add_weight(s->body->g, unique, &t.desc, file, offset, &value));
    TRM_CHECK(trm_names_put(&s->body->names, im->scratch, s->body->g->values[value].name, value));
    return trm_names_put(&s->visible, im->scratch, name, value);
}

/* ---- sparse tensors, made dense ---- */
static trm_status parse_sparse(trmi_import *im, trmi_bytes message, const char *name,
                               trmi_onnx_tensor *values, trmi_onnx_tensor *indices,
                               trm_tensor *dense)
{
    trmi_pb r = trmi_pb_make(message, im->base, "SparseTensorProto");
    uint64_t dims[TRM_RANK_MAX];
    bool have_values = false, have_indices = false, more;
    size_t count;

    dense->rank = 0;
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        if (r.field == 3) {
            TRM_CHECK(trmi_pb_count(&r, TRMI_PB_VARINT, &count));
            if (count > (size_t)(TRM_RANK_MAX - dense->rank))
                return trm_fail(TRM_ERR_UNSUPPORTED, "sparse tensor '%s' has more than %d dims",
                                name, TRM_RANK_MAX);
            TRM_CHECK(trmi_pb_take(&r, TRMI_PB_VARINT, dims, count));
            for (size_t i = 0; i < count; i++)
                dense->dims[dense->rank++] = (int64_t)dims[i];
        } else if (r.field == 1 || r.field == 2) {
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            TRM_CHECK(trmi_tensor_parse(r.bytes, im->base, im->scratch, name,
                                        r.field == 1 ? values : indices));
            have_values |= r.field == 1;
            have_indices |= r.field == 2;
        }
    }
    if (!have_values || (!have_indices && values->elems > 0))
        return trm_fail(TRM_ERR_BAD_FILE, "sparse tensor '%s' lacks its values or indices", name);
    if (values->external || (have_indices && indices->external))
        return trm_fail(TRM_ERR_UNSUPPORTED, "sparse tensor '%s' lies in external data", name);
    dense->dtype = values->desc.dtype;
    return TRM_OK;
}

static trm_status scatter(const trmi_onnx_tensor *values, const trmi_onnx_tensor *indices,
                          const int64_t *at, const char *from, const char *name, trm_tensor *dense)
{
    size_t size = trm_dtype_bytes(dense->dtype);
    int64_t numel = (int64_t)trm_tensor_numel(dense);
    int k = indices->desc.rank == 2 ? dense->rank : 1;

    for (size_t i = 0; i < values->elems; i++) {
        int64_t linear = 0;

        for (int d = 0; d < k; d++) {
            int64_t dim = k == 1 && indices->desc.rank == 1 ? numel : dense->dims[d];
            int64_t x = at[i * (size_t)k + (size_t)d];

            if (x < 0 || x >= dim)
                return trm_fail(TRM_ERR_BAD_FILE,
                                "sparse tensor '%s': index %" PRId64 " is outside 0 to %" PRId64,
                                name, x, dim - 1);
            linear = linear * dim + x;
        }
        memcpy((char *)dense->data + (size_t)linear * size, from + i * size, size);
    }
    return TRM_OK;
}

trm_status trmi_scope_add_sparse(trmi_scope *s, const char *name, trmi_bytes message)
{
    trmi_onnx_tensor values, indices;
    trm_tensor dense;
    size_t elems, bytes;
    void *from = NULL;
    int64_t *at = NULL;
    trm_status st;
    int value;

    memset(&values, 0, sizeof(values));
    memset(&indices, 0, sizeof(indices));
    memset(&dense, 0, sizeof(dense));
    values.name = "";
    TRM_CHECK(parse_sparse(s->im, message, name == NULL ? "" : name, &values, &indices, &dense));
    if (name == NULL)
        name = values.name;
    if (trm_tensor_elems(&dense, &elems) != TRM_OK || trm_tensor_bytes(&dense, &bytes) != TRM_OK)
        return trm_fail_context(TRM_ERR_BAD_FILE, "sparse tensor '%s'", name);
    TRM_CHECK(count_decoded(s->im, name, bytes));
    if (values.elems > 0 &&
        (indices.desc.dtype != TRM_DTYPE_I64 || values.desc.rank != 1 ||
         !((indices.desc.rank == 1 && indices.elems == values.elems) ||
           (indices.desc.rank == 2 && indices.desc.dims[0] == values.desc.dims[0] &&
            indices.desc.dims[1] == dense.rank))))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "sparse tensor '%s': want %zu int64 indices, linear or one a dim", name,
                        values.elems);
    dense.data = trm_calloc(bytes, 1);
    from = trm_malloc(values.bytes, 1);
    at = (int64_t *)trm_malloc(indices.bytes, 1);
    if (dense.data == NULL || from == NULL || at == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "sparse tensor '%s', %zu bytes", name, bytes);
        goto done;
    }
    TRM_TRY(st, trmi_tensor_decode(&values, from), done);
    if (values.elems > 0) {
        TRM_TRY(st, trmi_tensor_decode(&indices, at), done);
        TRM_TRY(st, scatter(&values, &indices, at, (const char *)from, name, &dense), done);
    }
    st = trmi_scope_constant(s, name, &dense, true, &value);
done:
    trm_free(dense.data);
    trm_free(from);
    trm_free(at);
    return st;
}
