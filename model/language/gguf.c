/* GGUF files: "GGUF", version, counts, metadata pairs, tensor infos, padding, bytes. All little
 * endian. Format: github.com/ggml-org/ggml, docs/gguf.md. */
#include "model/language/language_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX (1 << 20)
#define INFO_BYTES_MIN 25 /* length, one byte of name, dims, type, offset */
#define RANK_MAX 4        /* ggml's */
#define SPLITS_MAX 4096

/* ggml's type numbers. */
static const struct {
    const char *name;
    trm_dtype dtype; /* NONE: not supported */
} types[] = {
    [0] = {"F32", TRM_DTYPE_F32},
    [1] = {"F16", TRM_DTYPE_F16},
    [2] = {"Q4_0", TRM_DTYPE_Q4_0},
    [3] = {"Q4_1", TRM_DTYPE_Q4_1},
    [6] = {"Q5_0", TRM_DTYPE_Q5_0},
    [7] = {"Q5_1", TRM_DTYPE_Q5_1},
    [8] = {"Q8_0", TRM_DTYPE_Q8_0},
    [9] = {"Q8_1", 0},
    [10] = {"Q2_K", TRM_DTYPE_Q2_K},
    [11] = {"Q3_K", TRM_DTYPE_Q3_K},
    [12] = {"Q4_K", TRM_DTYPE_Q4_K},
    [13] = {"Q5_K", TRM_DTYPE_Q5_K},
    [14] = {"Q6_K", TRM_DTYPE_Q6_K},
    [15] = {"Q8_K", 0},
    [16] = {"IQ2_XXS", 0},
    [17] = {"IQ2_XS", 0},
    [18] = {"IQ3_XXS", 0},
    [19] = {"IQ1_S", 0},
    [20] = {"IQ4_NL", 0},
    [21] = {"IQ3_S", 0},
    [22] = {"IQ2_S", 0},
    [23] = {"IQ4_XS", 0},
    [24] = {"I8", TRM_DTYPE_I8},
    [25] = {"I16", TRM_DTYPE_I16},
    [26] = {"I32", TRM_DTYPE_I32},
    [27] = {"I64", TRM_DTYPE_I64},
    [28] = {"F64", TRM_DTYPE_F64},
    [29] = {"IQ1_M", 0},
    [30] = {"BF16", TRM_DTYPE_BF16},
    [34] = {"TQ1_0", 0},
    [35] = {"TQ2_0", 0},
    [39] = {"MXFP4", 0},
    [40] = {"NVFP4", 0},
    [41] = {"Q1_0", 0},
};
#define TYPE_COUNT (sizeof(types) / sizeof(types[0]))

static trm_status read_header(trm_cursor *c, const char *path, uint64_t *tensors_out,
                              uint64_t *pairs_out)
{
    static const char lfs[] = "version https://git-lfs";
    uint32_t version;

    if (trm_cursor_left(c) >= sizeof(lfs) - 1 && memcmp(c->at, lfs, sizeof(lfs) - 1) == 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' is a Git LFS pointer, not the model; 'git lfs pull' fetches it",
                        path);
    if (trm_cursor_left(c) < 24 || memcmp(c->at, "GGUF", 4) != 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' has %zu bytes and does not start with a GGUF header", path,
                        trm_cursor_left(c));
    (void)trm_cursor_bytes(c, 4);
    version = trm_cursor_u32(c);
    if ((version & 0xffffu) == 0 && version != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s' is a big-endian GGUF file; supported is little endian", path);
    if (version != 2 && version != 3)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s' is of GGUF version %" PRIu32 "; supported are 2 and 3", path,
                        version);
    *tensors_out = trm_cursor_u64(c);
    *pairs_out = trm_cursor_u64(c);
    return TRM_OK;
}

static trm_status read_alignment(const trm_gguf *g, uint64_t *alignment_out)
{
    const trmi_gguf_entry *e = trmi_gguf_find(g, "general.alignment");
    int64_t v = ALIGNMENT_DEFAULT;

    if (e != NULL &&
        (!trm_gguf_int(g, e->key, &v) || v < 1 || v > ALIGNMENT_MAX || (v & (v - 1)) != 0))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': general.alignment is no power of two from 1 to %d",
                        trm_file_path(g->file), ALIGNMENT_MAX);
    *alignment_out = (uint64_t)v;
    return TRM_OK;
}

/* ---- tensors ---- */

typedef struct info {
    const char *name;
    size_t name_bytes;
    trm_tensor desc;
    uint64_t offset; /* in the data */
} info;

static trm_status read_type(trm_cursor *c, const char *path, info *t)
{
    uint32_t type = trm_cursor_u32(c);

    if (type < TYPE_COUNT && types[type].name != NULL && types[type].dtype != TRM_DTYPE_NONE) {
        t->desc.dtype = types[type].dtype;
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': tensor '%.*s' has type %s (%" PRIu32 "); supported are F32, F16, BF16, "
                    "F64, I8, I16, I32, I64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, "
                    "Q6_K",
                    path, (int)t->name_bytes, t->name,
                    type < TYPE_COUNT && types[type].name != NULL ? types[type].name : "unknown",
                    type);
}

/* Dims are stored innermost first. */
static trm_status read_dims(trm_cursor *c, const char *path, info *t)
{
    uint32_t rank = trm_cursor_u32(c);

    if (rank > RANK_MAX)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': tensor '%.*s' has %" PRIu32 " dims: want at most %d", path,
                        (int)t->name_bytes, t->name, rank, RANK_MAX);
    t->desc.rank = (int)rank;
    for (int i = t->desc.rank - 1; i >= 0; i--) {
        uint64_t d = trm_cursor_u64(c);

        if (d > (uint64_t)TRM_DIM_MAX)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': tensor '%.*s': a dim is %" PRIu64 ": want 0 to 2^40", path,
                            (int)t->name_bytes, t->name, d);
        t->desc.dims[i] = (int64_t)d;
    }
    return TRM_OK;
}

static trm_status read_info(trm_cursor *c, const char *path, info *t)
{
    uint64_t n = trm_cursor_u64(c);
    size_t at = trm_cursor_offset(c);

    memset(t, 0, sizeof(*t));
    if (c->failed || n > trm_cursor_left(c) || n > TRMI_NAME_BYTES ||
        !trmi_name_ok((const char *)c->at, (size_t)n))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': the tensor name at byte %zu has %" PRIu64 " bytes of %zu left, or "
                        "control characters: want 1 to %d printable ones",
                        path, at, n, trm_cursor_left(c), TRMI_NAME_BYTES);
    t->name = (const char *)trm_cursor_bytes(c, (size_t)n);
    t->name_bytes = (size_t)n;
    TRM_CHECK(read_dims(c, path, t));
    if (trm_cursor_left(c) >= 4)
        TRM_CHECK(read_type(c, path, t));
    else
        c->failed = true;
    t->offset = trm_cursor_u64(c);
    if (c->failed)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' ends inside the description of tensor '%.*s'", path,
                        (int)n, t->name);
    return TRM_OK;
}

static trm_status add_tensor(trm_weights *w, trm_file *file, const info *t, uint64_t start,
                             uint64_t alignment)
{
    const char *path = trm_file_path(file);
    uint64_t at;

    if (t->offset % alignment != 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': tensor '%.*s' at byte %" PRIu64
                        " of the data: want a multiple of general.alignment, %" PRIu64,
                        path, (int)t->name_bytes, t->name, t->offset, alignment);
    if (!trm_add_ok(start, t->offset, &at))
        at = UINT64_MAX; /* which no file has */
    return trmi_weights_add(w, t->name, t->name_bytes, &t->desc, file, at);
}

/* The infos are read twice: where the bytes start is known behind the last. */
static trm_status read_tensors(trm_gguf *g, trm_weights *w, trm_cursor *c, uint64_t count)
{
    const char *path = trm_file_path(g->file);
    uint64_t alignment = ALIGNMENT_DEFAULT, start;
    trm_cursor first = *c;
    info t;

    TRM_CHECK(read_alignment(g, &alignment));
    if (count > trm_cursor_left(c) / INFO_BYTES_MIN)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' announces %" PRIu64 " tensors; %zu bytes are left",
                        path, count, trm_cursor_left(c));
    for (uint64_t i = 0; i < count; i++)
        TRM_CHECK(read_info(c, path, &t));
    start = (trm_cursor_offset(c) + alignment - 1) / alignment * alignment;
    for (uint64_t i = 0; i < count; i++) {
        TRM_CHECK(read_info(&first, path, &t));
        TRM_CHECK(add_tensor(w, g->file, &t, start, alignment));
    }
    return TRM_OK;
}

/* ---- files ---- */

/* One file; its tensors go into `w`. */
static trm_status read_file(trm_file *file, trm_weights *w, trm_gguf **gguf_out)
{
    trm_cursor c = trm_cursor_make(trm_file_data(file), trm_file_bytes(file));
    trm_gguf *g = (trm_gguf *)trm_calloc(1, sizeof(*g));
    uint64_t tensors = 0, pairs = 0;
    trm_status st;

    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", trm_file_path(file));
    g->file = trm_file_ref(file);
    TRM_TRY(st, trm_arena_create(0, &g->arena), fail);
    TRM_TRY(st, read_header(&c, trm_file_path(file), &tensors, &pairs), fail);
    TRM_TRY(st, trmi_gguf_read_metadata(g, &c, pairs), fail);
    TRM_TRY(st, trmi_weights_hold(w, file), fail);
    TRM_TRY(st, read_tensors(g, w, &c, tensors), fail);
    *gguf_out = g;
    return TRM_OK;
fail:
    trm_gguf_close(g);
    return st;
}

void trm_gguf_close(trm_gguf *g)
{
    if (g == NULL)
        return;
    trm_weights_close(g->weights);
    trm_free(g->entries);
    trm_free(g->order);
    if (g->arena != NULL)
        trm_arena_destroy(g->arena);
    trm_file_unref(g->file);
    trm_free(g);
}

const trm_weights *trm_gguf_weights(const trm_gguf *g)
{
    return g->weights;
}

trm_status trmi_gguf_from_file(trm_file *file, trm_gguf **gguf_out)
{
    trm_weights *w = NULL;
    trm_gguf *g = NULL;
    trm_status st;

    TRM_CHECK(trmi_weights_create(&w));
    TRM_TRY(st, read_file(file, w, &g), fail);
    TRM_TRY(st, trmi_weights_finish(w), fail);
    g->weights = w;
    *gguf_out = g;
    return TRM_OK;
fail:
    trm_gguf_close(g);
    trm_weights_close(w);
    return st;
}

/* ---- split models ---- */

/* "-00001-of-00003.gguf" at the end of `path`, which has `count` files: where it starts. */
static bool split_suffix(const char *path, int64_t count, size_t *at_out)
{
    char suffix[40];
    size_t n = strlen(path), m;

    snprintf(suffix, sizeof(suffix), "-00001-of-%05" PRId64 ".gguf", count);
    m = strlen(suffix);
    if (n < m || strcmp(path + n - m, suffix) != 0)
        return false;
    *at_out = n - m;
    return true;
}

/* How many files there are, 1 without split keys. */
static trm_status split_count(const trm_gguf *g, int64_t no, int64_t *count_out)
{
    int64_t count = 1, own = 0;

    if (trmi_gguf_find(g, "split.count") != NULL) {
        if (!trm_gguf_int(g, "split.count", &count) || count < 0 || count > SPLITS_MAX)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': split.count: want a number up to %d",
                            trm_file_path(g->file), SPLITS_MAX);
        if (count > 1 && !trm_gguf_int(g, "split.no", &own))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s' has split.count %" PRId64 " but no split.no",
                            trm_file_path(g->file), count);
    }
    if (own != no && no == 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' is file %" PRId64 " of %" PRId64 " of a split model: give the first, "
                        "...-00001-of-%05" PRId64 ".gguf",
                        trm_file_path(g->file), own + 1, count, count);
    if (own != no)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' says that it is file %" PRId64 " of the split model: want %" PRId64,
                        trm_file_path(g->file), own + 1, no + 1);
    *count_out = count;
    return TRM_OK;
}

static trm_status read_split(const char *path, trm_weights *w, int64_t no, int64_t count)
{
    trm_file *file = NULL;
    trm_gguf *part = NULL;
    int64_t its = 0;
    trm_status st;

    st = trm_file_open(path, &file);
    if (st == TRM_ERR_NOT_FOUND)
        st = trm_fail(TRM_ERR_NOT_FOUND,
                      "'%s' is missing: the model is split into %" PRId64 " files", path, count);
    if (st != TRM_OK)
        return st;
    TRM_TRY(st, read_file(file, w, &part), done);
    TRM_TRY(st, split_count(part, no, &its), done);
    if (its != count)
        st = trm_fail(TRM_ERR_BAD_FILE,
                      "'%s' belongs to a model of %" PRId64 " files, the first to one of %" PRId64,
                      path, its, count);
done:
    trm_gguf_close(part);
    trm_file_unref(file);
    return st;
}

static trm_status read_splits(const trm_gguf *g, const char *path, trm_weights *w, int64_t count)
{
    size_t stem = 0, n = strlen(path) + 32;
    int64_t wanted = 0;
    trm_status st = TRM_OK;
    char *name;

    if (!split_suffix(path, count, &stem))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' is the first of %" PRId64 " files; the others are found by its name, "
                        "which must end in -00001-of-%05" PRId64 ".gguf",
                        path, count, count);
    name = (char *)trm_malloc(n, 1);
    if (name == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", path);
    for (int64_t no = 1; no < count && st == TRM_OK; no++) {
        snprintf(name, n, "%.*s-%05" PRId64 "-of-%05" PRId64 ".gguf", (int)stem, path, no + 1,
                 count);
        st = read_split(name, w, no, count);
    }
    trm_free(name);
    if (st == TRM_OK && trm_gguf_int(g, "split.tensors.count", &wanted) &&
        wanted != (int64_t)w->count)
        st = trm_fail(TRM_ERR_BAD_FILE,
                      "'%s': split.tensors.count is %" PRId64 ", the files hold %zu tensors", path,
                      wanted, w->count);
    return st;
}

trm_status trm_gguf_open(const char *path, trm_gguf **gguf_out)
{
    trm_weights *w = NULL;
    trm_file *file = NULL;
    trm_gguf *g = NULL;
    int64_t count = 1;
    trm_status st;

    TRM_TRY(st, trm_file_open(path, &file), done);
    TRM_TRY(st, trmi_weights_create(&w), done);
    TRM_TRY(st, read_file(file, w, &g), done);
    TRM_TRY(st, split_count(g, 0, &count), done);
    if (count > 1)
        TRM_TRY(st, read_splits(g, path, w, count), done);
    TRM_TRY(st, trmi_weights_finish(w), done);
    g->weights = w;
    w = NULL;
    *gguf_out = g;
    g = NULL;
done:
    trm_gguf_close(g);
    trm_weights_close(w);
    trm_file_unref(file);
    return st;
}
