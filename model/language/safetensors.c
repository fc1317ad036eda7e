/* safetensors: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, bytes.
 * One file, or the shards that model.safetensors.index.json names.
 * Format: github.com/huggingface/safetensors, README. */
#include "model/language/language_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEADER_BYTES_MAX 100000000 /* the safetensors library's own limit */
#define HEADER_OBJECTS_MAX 1000000
#define SHARDS_MAX 4096

static const struct {
    const char *name;
    trm_dtype dtype;
    bool fp8;
} dtypes[] = {
    {"F64", TRM_DTYPE_F64, false},   {"F32", TRM_DTYPE_F32, false},   {"F16", TRM_DTYPE_F16, false},
    {"BF16", TRM_DTYPE_BF16, false}, {"I64", TRM_DTYPE_I64, false},   {"I32", TRM_DTYPE_I32, false},
    {"I16", TRM_DTYPE_I16, false},   {"I8", TRM_DTYPE_I8, false},     {"U64", TRM_DTYPE_U64, false},
    {"U32", TRM_DTYPE_U32, false},   {"U16", TRM_DTYPE_U16, false},   {"U8", TRM_DTYPE_U8, false},
    {"BOOL", TRM_DTYPE_BOOL, false}, {"F8_E4M3", TRM_DTYPE_U8, true},
};

/* What the header costs as a tree is bounded before it becomes one: its depth is 3 at most and its
 * objects are counted. */
static trm_status scan_header(const char *path, const char *text, size_t bytes)
{
    size_t depth = 0, objects = 0, arrays = 0;
    bool in_string = false;

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        in_string = c == '"';
        objects += c == '{';
        arrays += c == '[';
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > 3 || objects > HEADER_OBJECTS_MAX || arrays > (size_t)2 * HEADER_OBJECTS_MAX)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': the header at byte %zu is deeper than 3 or has over %d objects",
                            path, i + 8, HEADER_OBJECTS_MAX);
    }
    return TRM_OK;
}

static trm_status bad(const char *path, const char *name, const char *what)
{
    return trm_fail(TRM_ERR_BAD_FILE, "'%s': tensor '%.200s': %s", path, name, what);
}

static trm_status read_dtype(const char *path, const char *name, const json_t *value,
                             trm_dtype *dtype_out, bool *fp8_out)
{
    const char *text = json_string_value(value);

    if (text == NULL)
        return bad(path, name, "want \"dtype\", a string such as \"BF16\"");
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            *dtype_out = dtypes[i].dtype;
            *fp8_out = dtypes[i].fp8;
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': tensor '%.200s' has dtype '%.40s'; supported are F64, F32, F16, BF16, "
                    "I64, I32, I16, I8, U64, U32, U16, U8, BOOL, F8_E4M3",
                    path, name, text);
}

static trm_status read_shape(const char *path, const char *name, const json_t *value,
                             trm_tensor *desc)
{
    if (!json_is_array(value))
        return bad(path, name, "want \"shape\", a list of numbers");
    if (json_array_size(value) > TRM_RANK_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': tensor '%.200s' has %zu dims; supported are %d at most", path, name,
                        json_array_size(value), TRM_RANK_MAX);
    desc->rank = (int)json_array_size(value);
    for (int i = 0; i < desc->rank; i++) {
        const json_t *d = json_array_get(value, (size_t)i);

        if (!json_is_integer(d) || json_integer_value(d) < 0 || json_integer_value(d) > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': tensor '%.200s': dim %d is no number from 0 to 2^40", path, name,
                            i);
        desc->dims[i] = json_integer_value(d);
    }
    return TRM_OK;
}

static trm_status read_tensor(trm_weights *w, trm_file *file, uint64_t start, const char *name,
                              size_t name_bytes, const json_t *info)
{
    const char *path = trm_file_path(file);
    const json_t *range = json_object_get(info, "data_offsets");
    trm_tensor desc = {.dtype = TRM_DTYPE_NONE};
    uint64_t data_bytes = trm_file_bytes(file) - start, begin, end;
    bool fp8 = false;
    size_t bytes;

    if (!json_is_object(info) || json_object_size(info) != 3)
        return bad(path, name, "want an object of dtype, shape and data_offsets");
    TRM_CHECK(read_dtype(path, name, json_object_get(info, "dtype"), &desc.dtype, &fp8));
    TRM_CHECK(read_shape(path, name, json_object_get(info, "shape"), &desc));
    if (!json_is_array(range) || json_array_size(range) != 2 ||
        !json_is_integer(json_array_get(range, 0)) || !json_is_integer(json_array_get(range, 1)))
        return bad(path, name, "want \"data_offsets\", [begin, end]");
    begin = (uint64_t)json_integer_value(json_array_get(range, 0));
    end = (uint64_t)json_integer_value(json_array_get(range, 1));
    if (begin > end || end > data_bytes) /* what is negative is huge here */
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': tensor '%.200s' has data_offsets [%" PRId64 ", %" PRId64
                        "] of %" PRIu64 " bytes of data: the file is cut or damaged",
                        path, name, (int64_t)begin, (int64_t)end, data_bytes);
    if (trm_tensor_bytes(&desc, &bytes) != TRM_OK)
        return trm_fail_context(TRM_ERR_BAD_FILE, "'%s': tensor '%.200s'", path, name);
    if (bytes != end - begin) {
        char shape[TRM_SHAPE_TEXT_BYTES];

        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': tensor '%.200s', %s of %s, wants %zu bytes; data_offsets give it "
                        "%" PRIu64,
                        path, name, trm_tensor_shape_text(&desc, shape, sizeof(shape)),
                        trm_dtype_name(desc.dtype), bytes, end - begin);
    }
    TRM_CHECK(trmi_weights_add(w, name, name_bytes, &desc, file, start + begin));
    w->items[w->count - 1].fp8 = fp8;
    return TRM_OK;
}

static trm_status check_metadata(const char *path, json_t *value)
{
    const char *key;
    json_t *item;

    if (!json_is_object(value))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': __metadata__ is no object of strings", path);
    json_object_foreach(value, key, item)
    {
        if (!json_is_string(item))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': __metadata__ '%.200s' is no string", path,
                            key);
    }
    return TRM_OK;
}

static trm_status check_start(const trm_file *file, uint64_t *header_bytes_out)
{
    static const char lfs[] = "version https://git-lfs";
    const char *path = trm_file_path(file);
    trm_cursor c = trm_cursor_make(trm_file_data(file), trm_file_bytes(file));
    uint64_t n = trm_cursor_u64(&c);

    if (trm_file_bytes(file) >= sizeof(lfs) - 1 &&
        memcmp(trm_file_data(file), lfs, sizeof(lfs) - 1) == 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' is a Git LFS pointer, not the weights; 'git lfs pull' fetches them",
                        path);
    if (c.failed)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' has %zu bytes; a safetensors file starts with 8 bytes of header "
                        "length",
                        path, trm_file_bytes(file));
    if (n > HEADER_BYTES_MAX || n > trm_cursor_left(&c) || n < 2 || *c.at != '{')
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' is no safetensors file: a JSON header {...} of %" PRIu64
                        " bytes does not follow (the file has %zu; at most %d are read)",
                        path, n, trm_file_bytes(file), HEADER_BYTES_MAX);
    *header_bytes_out = n;
    return TRM_OK;
}

trm_status trmi_safetensors_read(trm_weights *w, trm_file *file)
{
    const char *path = trm_file_path(file), *key;
    const char *text = (const char *)trm_file_data(file) + 8;
    uint64_t header_bytes = 0;
    json_t *root = NULL, *item;
    json_error_t e;
    trm_status st;

    TRM_CHECK(check_start(file, &header_bytes));
    TRM_CHECK(scan_header(path, text, (size_t)header_bytes));
    TRM_CHECK(trmi_weights_hold(w, file));
    root = json_loadb(text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &e);
    if (root == NULL || !json_is_object(root)) {
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s': header, byte %d: %s", path,
                      root == NULL ? e.position : 0, root == NULL ? e.text : "no object");
        goto done;
    }
    st = TRM_OK;
    json_object_foreach(root, key, item)
    {
        if (strcmp(key, "__metadata__") == 0)
            TRM_TRY(st, check_metadata(path, item), done);
        else
            TRM_TRY(st, read_tensor(w, file, 8 + header_bytes, key, strlen(key), item), done);
    }
done:
    json_decref(root);
    return st;
}

static trm_status read_path(trm_weights *w, const char *path)
{
    trm_file *file = NULL;
    trm_status st = trm_file_open(path, &file);

    if (st == TRM_OK)
        st = trmi_safetensors_read(w, file);
    trm_file_unref(file);
    return st;
}

/* ---- shards ---- */

/* A name in the folder itself: links are followed (a cache keeps its files elsewhere), paths are
 * not. */
static bool plain_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL &&
           trmi_name_ok(name, strlen(name)) && strcmp(trm_path_extension(name), "safetensors") == 0;
}

static bool has_file(const trm_weights *w, size_t from, const char *path)
{
    for (size_t i = from; i < w->file_count; i++)
        if (strcmp(trm_file_path(w->files[i]), path) == 0)
            return true;
    return false;
}

static trm_status read_shard(trm_weights *w, const char *index, const char *folder,
                             const char *tensor, const char *shard)
{
    trm_status st = TRM_OK;
    char *path;

    if (!plain_name(shard))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': tensor '%.200s' is in '%.200s': want the name of a .safetensors "
                        "file of the same folder",
                        index, tensor, shard);
    path = trm_path_join(folder, shard);
    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", index);
    if (!has_file(w, 0, path)) {
        if (w->file_count >= SHARDS_MAX)
            st = trm_fail(TRM_ERR_BAD_FILE, "'%s' names over %d files", index, SHARDS_MAX);
        else
            st = read_path(w, path);
        if (st == TRM_ERR_NOT_FOUND)
            st = trm_fail(TRM_ERR_NOT_FOUND, "'%s' is missing: '%s' says it holds '%.200s'", path,
                          index, tensor);
    }
    trm_free(path);
    return st;
}

/* Every tensor of the map must be in the file that it names. */
static trm_status check_map(const trm_weights *w, const char *index, json_t *map)
{
    const char *key;
    json_t *item;

    json_object_foreach(map, key, item)
    {
        const trm_weight *it = trm_weights_find(w, key);
        const char *path = it == NULL ? "" : trm_file_path(it->file), *slash = strrchr(path, '/');

        if (it == NULL || strcmp(slash == NULL ? path : slash + 1, json_string_value(item)) != 0)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': tensor '%.200s' is not in '%s', where the index has it", index,
                            key, json_string_value(item));
    }
    return TRM_OK;
}

static trm_status read_index(trm_weights *w, const char *folder, const char *index,
                             const json_t *root)
{
    json_t *map = json_object_get(root, "weight_map");
    const char *key;
    json_t *item;

    if (!json_is_object(map) || json_object_size(map) == 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': want \"weight_map\", an object from tensors to files", index);
    json_object_foreach(map, key, item)
    {
        if (!json_is_string(item))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': weight_map '%.200s' is no file name", index,
                            key);
        TRM_CHECK(read_shard(w, index, folder, key, json_string_value(item)));
    }
    TRM_CHECK(trmi_weights_finish(w));
    return check_map(w, index, map);
}

static trm_status no_weights(const char *folder)
{
    static const char *const pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json",
                                          "consolidated.00.pth", "model.pt"};

    for (size_t i = 0; i < sizeof(pickles) / sizeof(pickles[0]); i++) {
        char *path = trm_path_join(folder, pickles[i]);
        bool there = path != NULL && trm_path_exists(path);

        trm_free(path);
        if (there)
            return trm_fail(
                TRM_ERR_UNSUPPORTED,
                "folder '%s' holds its weights as %s, a program that only PyTorch may run; convert "
                "to safetensors, in Python: from transformers import AutoModel; "
                "AutoModel.from_pretrained('%s').save_pretrained('NEW_FOLDER') (of the class in "
                "config.json's \"architectures\" instead of AutoModel)",
                folder, pickles[i], folder);
    }
    return trm_fail(TRM_ERR_NOT_FOUND,
                    "folder '%s' holds neither model.safetensors nor model.safetensors.index.json",
                    folder);
}

static trm_status open_folder(trm_weights *w, const char *folder)
{
    char *path = trm_path_join(folder, "model.safetensors");
    json_t *root = NULL;
    trm_status st;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", folder);
    st = read_path(w, path);
    if (st == TRM_OK) {
        st = trmi_weights_finish(w);
        goto done;
    }
    if (st != TRM_ERR_NOT_FOUND)
        goto done;
    TRM_TRY(st, trmi_lm_json_read(folder, "model.safetensors.index.json", &root), done);
    if (root == NULL) {
        st = no_weights(folder);
        goto done;
    }
    trm_free(path);
    path = trm_path_join(folder, "model.safetensors.index.json");
    st = path == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "'%s'", folder)
                      : read_index(w, folder, path, root);
done:
    trm_free(path);
    json_decref(root);
    return st;
}

trm_status trm_weights_open_safetensors(const char *path, trm_weights **weights_out)
{
    trm_weights *w = NULL;
    trm_status st;

    TRM_CHECK(trmi_weights_create(&w));
    if (trm_path_is_dir(path))
        st = open_folder(w, path);
    else if ((st = read_path(w, path)) == TRM_OK)
        st = trmi_weights_finish(w);
    if (st != TRM_OK) {
        trm_weights_close(w);
        return st;
    }
    *weights_out = w;
    return TRM_OK;
}
