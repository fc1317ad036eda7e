/* Writes ONNX files by hand, for tests: messages are byte buffers that grow. Aborts on no memory.
 */
#ifndef TRM_TESTS_MODEL_ONNX_WRITER_H
#define TRM_TESTS_MODEL_ONNX_WRITER_H

#include "model/onnx/onnx.h"

#include <stdlib.h>
#include <string.h>

typedef struct msg {
    unsigned char *data;
    size_t bytes, max;
} msg;

enum { ELEM_F32 = 1, ELEM_I32 = 6, ELEM_I64 = 7, ELEM_STRING = 8, ELEM_BOOL = 9, ELEM_F16 = 10 };

static inline void put_bytes(msg *m, const void *data, size_t bytes)
{
    if (m->bytes + bytes > m->max) {
        m->max = 2 * (m->bytes + bytes);
        m->data = (unsigned char *)realloc(m->data, m->max);
        if (m->data == NULL)
            abort();
    }
    if (bytes > 0)
        memcpy(m->data + m->bytes, data, bytes);
    m->bytes += bytes;
}

static inline void put_varint(msg *m, uint64_t v)
{
    unsigned char b;

    do {
        b = (unsigned char)((v & 0x7fu) | (v > 0x7f ? 0x80u : 0));
        put_bytes(m, &b, 1);
        v >>= 7;
    } while (v != 0);
}

static inline void put_key(msg *m, unsigned field, unsigned wire)
{
    put_varint(m, (uint64_t)field << 3 | wire);
}

static inline void put_int(msg *m, unsigned field, int64_t v)
{
    put_key(m, field, 0);
    put_varint(m, (uint64_t)v);
}

static inline void put_float(msg *m, unsigned field, float v)
{
    put_key(m, field, 5);
    put_bytes(m, &v, sizeof(v));
}

static inline void put_block(msg *m, unsigned field, const void *data, size_t bytes)
{
    put_key(m, field, 2);
    put_varint(m, bytes);
    put_bytes(m, data, bytes);
}

static inline void put_text(msg *m, unsigned field, const char *text)
{
    put_block(m, field, text, strlen(text));
}

/* Frees the inner message. */
static inline void put_msg(msg *m, unsigned field, msg inner)
{
    put_block(m, field, inner.data, inner.bytes);
    free(inner.data);
}

/* "a,b,,c": one text field each, empty ones too; "" gives none. */
static inline void put_list(msg *m, unsigned field, const char *list)
{
    while (*list != '\0') {
        size_t n = strcspn(list, ",");

        put_block(m, field, list, n);
        list += n;
        if (*list == ',') {
            list++;
            if (*list == '\0')
                put_text(m, field, "");
        }
    }
}

/* A tensor's head: dims and dtype; data is the caller's. */
static inline msg tensor_head(const char *name, int64_t elem, int rank, const int64_t *dims)
{
    msg t = {NULL, 0, 0};

    for (int i = 0; i < rank; i++)
        put_int(&t, 1, dims[i]);
    put_int(&t, 2, elem);
    put_text(&t, 8, name);
    return t;
}

static inline msg tensor_raw(const char *name, int64_t elem, int rank, const int64_t *dims,
                             const void *data, size_t bytes)
{
    msg t = tensor_head(name, elem, rank, dims);

    put_block(&t, 9, data, bytes);
    return t;
}

static inline void put_entry(msg *m, unsigned field, const char *key, const char *value)
{
    msg e = {NULL, 0, 0};

    put_text(&e, 1, key);
    put_text(&e, 2, value);
    put_msg(m, field, e);
}

/* dims: "2,N,?": numbers, names, unknown. NULL: no shape. */
static inline msg value_info(const char *name, int64_t elem, const char *dims)
{
    msg v = {NULL, 0, 0}, type = {NULL, 0, 0}, tensor = {NULL, 0, 0}, shape = {NULL, 0, 0};
    bool shaped = dims != NULL;

    put_text(&v, 1, name);
    put_int(&tensor, 1, elem);
    while (dims != NULL && *dims != '\0') {
        size_t n = strcspn(dims, ",");
        msg dim = {NULL, 0, 0};

        if (*dims == '-' || (*dims >= '0' && *dims <= '9'))
            put_int(&dim, 1, strtoll(dims, NULL, 10));
        else if (*dims != '?')
            put_block(&dim, 2, dims, n);
        put_msg(&shape, 1, dim);
        dims += n + (dims[n] == ',');
    }
    if (shaped)
        put_msg(&tensor, 2, shape);
    else
        free(shape.data);
    put_msg(&type, 1, tensor);
    put_msg(&v, 2, type);
    return v;
}

/* A node without attributes; add them with the functions below, then put it into a graph. */
static inline msg node(const char *op, const char *inputs, const char *outputs)
{
    msg n = {NULL, 0, 0};
    char name[100];

    put_list(&n, 1, inputs);
    put_list(&n, 2, outputs);
    strcpy(name, "n_");
    strncat(name, op, sizeof(name) - 3);
    put_text(&n, 3, name);
    put_text(&n, 4, op);
    return n;
}

static inline msg attr_head(const char *name, int64_t type)
{
    msg a = {NULL, 0, 0};

    put_text(&a, 1, name);
    put_int(&a, 20, type);
    return a;
}

static inline void attr_int(msg *n, const char *name, int64_t v)
{
    msg a = attr_head(name, 2);

    put_int(&a, 3, v);
    put_msg(n, 5, a);
}

static inline void attr_float(msg *n, const char *name, float v)
{
    msg a = attr_head(name, 1);

    put_float(&a, 2, v);
    put_msg(n, 5, a);
}

static inline void attr_text(msg *n, const char *name, const char *v)
{
    msg a = attr_head(name, 3);

    put_text(&a, 4, v);
    put_msg(n, 5, a);
}

static inline void attr_ints(msg *n, const char *name, int count, const int64_t *v)
{
    msg a = attr_head(name, 7);

    for (int i = 0; i < count; i++)
        put_int(&a, 8, v[i]);
    put_msg(n, 5, a);
}

static inline void attr_floats(msg *n, const char *name, int count, const float *v)
{
    msg a = attr_head(name, 6);

    put_block(&a, 7, v, (size_t)count * sizeof(float)); /* packed */
    put_msg(n, 5, a);
}

static inline void attr_tensor(msg *n, const char *name, msg tensor)
{
    msg a = attr_head(name, 4);

    put_msg(&a, 5, tensor);
    put_msg(n, 5, a);
}

static inline void attr_graph(msg *n, const char *name, msg graph)
{
    msg a = attr_head(name, 5);

    put_msg(&a, 6, graph);
    put_msg(n, 5, a);
}

/* A stand-in for an attribute of the function's call. */
static inline void attr_ref(msg *n, const char *name, int64_t type, const char *of)
{
    msg a = attr_head(name, type);

    put_text(&a, 21, of);
    put_msg(n, 5, a);
}

enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { GRAPH_VALUE_INFO = 13, GRAPH_SPARSE = 15 };

static inline msg graph(const char *name)
{
    msg g = {NULL, 0, 0};

    put_text(&g, 2, name);
    return g;
}

static inline void put_opset(msg *m, unsigned field, const char *domain, int64_t version)
{
    msg o = {NULL, 0, 0};

    put_text(&o, 1, domain);
    put_int(&o, 2, version);
    put_msg(m, field, o);
}

/* Frees the graph. */
static inline msg model(msg g, int64_t opset)
{
    msg m = {NULL, 0, 0};

    put_int(&m, 1, 8);
    put_text(&m, 2, "by hand");
    put_text(&m, 3, "1.0");
    put_opset(&m, 8, "", opset);
    put_msg(&m, 7, g);
    return m;
}

/* Bytes that graphs and tensors of a test may point into, for the test's life. */
static unsigned char *kept[1000];
static int kept_count;

static inline void keep(msg m)
{
    if (kept_count == 1000)
        abort();
    kept[kept_count++] = m.data;
}

static inline void free_kept(void)
{
    while (kept_count > 0)
        free(kept[--kept_count]);
}

/* Takes the model, and keeps its bytes. */
static inline trm_status import_msg(msg m, trm_graph **g)
{
    trm_file *file = NULL;
    trm_status st;

    keep(m);
    st = trm_file_from_memory(m.data, m.bytes, "test.onnx", &file);
    if (st != TRM_OK)
        return st;
    st = trm_onnx_import(file, g);
    trm_file_unref(file);
    return st;
}

#endif
