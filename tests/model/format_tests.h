/* What tests of weight files share: the manifest of what other libraries read, and writers of files
 * byte by byte. */
#ifndef TRM_TESTS_MODEL_FORMAT_TESTS_H
#define TRM_TESTS_MODEL_FORMAT_TESTS_H

#include "model/language/language.h"

#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef TRM_SOURCE_DIR /* the build says where it is */
#define TRM_SOURCE_DIR "."
#endif
#define FORMATS TRM_SOURCE_DIR "/tests/data/language/formats/"

static inline json_t *load_json(const char *file)
{
    char path[512];
    json_error_t e;
    json_t *root;

    snprintf(path, sizeof(path), FORMATS "%s", file);
    root = json_load_file(path, 0, &e);
    ck_assert_msg(root != NULL, "%s: %s", path, e.text);
    return root;
}

/* Every row of the manifest is there, with its dtype, dims and bytes, and nothing else is. */
static inline void compare_weights(const trm_weights *w, const char *key)
{
    json_t *all = load_json("manifest.json"), *rows = json_object_get(all, key), *row;
    size_t i;

    ck_assert_uint_eq(trm_weights_count(w), json_array_size(rows));
    json_array_foreach(rows, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        const char *hex = json_string_value(json_object_get(row, "bytes"));
        json_t *dims = json_object_get(row, "dims"), *offset = json_object_get(row, "offset");
        const trm_weight *t = trm_weights_find(w, name);

        ck_assert_msg(t != NULL, "%s", name);
        ck_assert_str_eq(t->name, name);
        ck_assert_str_eq(trm_dtype_name(t->desc.dtype),
                         json_string_value(json_object_get(row, "dtype")));
        ck_assert_int_eq(t->desc.rank, (int)json_array_size(dims));
        for (int d = 0; d < t->desc.rank; d++)
            ck_assert_int_eq(t->desc.dims[d], json_integer_value(json_array_get(dims, (size_t)d)));
        if (offset != NULL)
            ck_assert_uint_eq(t->offset, (uint64_t)json_integer_value(offset));
        ck_assert_ptr_eq(t->desc.data, trm_file_data(t->file) + t->offset);
        for (size_t b = 0; hex[2 * b] != '\0'; b++) {
            char got[3];

            snprintf(got, sizeof(got), "%02x", ((const unsigned char *)t->desc.data)[b]);
            ck_assert_msg(memcmp(got, hex + 2 * b, 2) == 0, "%s: byte %zu is %s", name, b, got);
        }
    }
    json_decref(all);
}

/* ---- bytes ---- */

typedef struct bytes {
    unsigned char at[1 << 16];
    size_t count;
} bytes;

static inline void put(bytes *b, const void *data, size_t n)
{
    ck_assert_uint_le(b->count + n, sizeof(b->at));
    memcpy(b->at + b->count, data, n);
    b->count += n;
}

static inline void put_int(bytes *b, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(b, &(unsigned char){(unsigned char)(v >> (8 * i))}, 1);
}

static inline void put_zeros(bytes *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_int(b, 0, 1);
}

static inline void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");

    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}

static inline void copy_file(const char *from, const char *to)
{
    static unsigned char buffer[1 << 20];
    FILE *f = fopen(from, "rb");
    size_t n;

    ck_assert_ptr_nonnull(f);
    n = fread(buffer, 1, sizeof(buffer), f);
    (void)fclose(f);
    write_file(to, buffer, n);
}

/* ---- GGUF ---- */

static inline void put_text(bytes *b, const char *text)
{
    put_int(b, strlen(text), 8);
    put(b, text, strlen(text));
}

static inline void put_header(bytes *b, uint32_t version, uint64_t tensors, uint64_t pairs)
{
    put(b, "GGUF", 4);
    put_int(b, version, 4);
    put_int(b, tensors, 8);
    put_int(b, pairs, 8);
}

static inline void put_u32(bytes *b, const char *key, uint32_t v)
{
    put_text(b, key);
    put_int(b, TRM_GGUF_U32, 4);
    put_int(b, v, 4);
}

static inline void put_f32(bytes *b, const char *key, float v)
{
    put_text(b, key);
    put_int(b, TRM_GGUF_F32, 4);
    put(b, &v, 4);
}

static inline void put_string(bytes *b, const char *key, const char *text)
{
    put_text(b, key);
    put_int(b, TRM_GGUF_STRING, 4);
    put_text(b, text);
}

/* Dims innermost first, as the file has them. */
static inline void put_info(bytes *b, const char *name, int rank, const int64_t *dims,
                            uint32_t type, uint64_t offset)
{
    put_text(b, name);
    put_int(b, (uint64_t)rank, 4);
    for (int i = 0; i < rank; i++)
        put_int(b, (uint64_t)dims[i], 8);
    put_int(b, type, 4);
    put_int(b, offset, 8);
}

static inline void put_align(bytes *b, size_t alignment)
{
    while (b->count % alignment != 0)
        put_int(b, 0, 1);
}

#endif
