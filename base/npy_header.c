/* The header of a .npy file: prelude (magic, version, length) and the Python dict literal behind
 * it. */
#include "base/npy_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEADER_BYTES_MAX ((size_t)1 << 20)

trm_status trmi_npy_prelude(const unsigned char *bytes, size_t count, const char *name,
                            size_t *text_offset_out, size_t *text_bytes_out)
{
    size_t text_bytes;

    if (count == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' is empty; a .npy file starts with \\x93NUMPY",
                        name);
    if (count < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s' is not a .npy file: it does not start with "
                        "\\x93NUMPY",
                        name);
    if (bytes[6] < 1 || bytes[6] > 3)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': .npy version %u.%u; 1, 2 and 3 are supported",
                        name, bytes[6], bytes[7]);
    if (bytes[6] == 1) {
        *text_offset_out = 10;
        text_bytes = (size_t)bytes[8] | (size_t)bytes[9] << 8;
    } else {
        if (count < 12)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': cut short inside its header", name);
        *text_offset_out = 12;
        text_bytes = (size_t)bytes[8] | (size_t)bytes[9] << 8 | (size_t)bytes[10] << 16 |
                     (size_t)bytes[11] << 24;
    }
    if (text_bytes > HEADER_BYTES_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': header of %zu bytes; at most %zu are read", name,
                        text_bytes, HEADER_BYTES_MAX);
    *text_bytes_out = text_bytes;
    return TRM_OK;
}

typedef struct literal { /* what is left of the dict's text */
    const char *at, *end;
} literal;

static void skip_space(literal *l)
{
    while (l->at < l->end && (*l->at == ' ' || *l->at == '\n' || *l->at == '\t' || *l->at == '\r'))
        l->at++;
}

static bool take(literal *l, char c)
{
    skip_space(l);
    if (l->at == l->end || *l->at != c)
        return false;
    l->at++;
    return true;
}

static bool take_word(literal *l, const char *word)
{
    size_t n = strlen(word);

    skip_space(l);
    if ((size_t)(l->end - l->at) < n || memcmp(l->at, word, n) != 0)
        return false;
    l->at += n;
    return true;
}

/* A quoted string without escapes; false if there is none or it does not fit. */
static bool take_string(literal *l, char *out, size_t out_bytes)
{
    char quote;
    size_t n = 0;

    skip_space(l);
    if (l->at == l->end || (*l->at != '\'' && *l->at != '"'))
        return false;
    quote = *l->at++;
    while (l->at < l->end && *l->at != quote) {
        if (n + 1 >= out_bytes || *l->at == '\\')
            return false;
        out[n++] = *l->at++;
    }
    out[n] = '\0';
    return take(l, quote);
}

static trm_status take_shape(literal *l, const char *name, trm_tensor *desc)
{
    desc->rank = 0;
    if (!take(l, '('))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': header's 'shape' is not a tuple", name);
    while (!take(l, ')')) {
        int64_t dim = 0;
        const char *digits;

        skip_space(l);
        digits = l->at;
        while (l->at < l->end && *l->at >= '0' && *l->at <= '9') {
            dim = dim * 10 + (*l->at - '0');
            if (dim > TRM_DIM_MAX)
                return trm_fail(TRM_ERR_BAD_FILE, "'%s': dim %d of the shape is over %" PRId64,
                                name, desc->rank, TRM_DIM_MAX);
            l->at++;
        }
        if (l->at == digits)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': dim %d of the header's shape is no number",
                            name, desc->rank);
        (void)take(l, 'L'); /* Python 2 wrote longs so */
        if (desc->rank == TRM_RANK_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': over %d dims", name, TRM_RANK_MAX);
        desc->dims[desc->rank++] = dim;
        if (!take(l, ',')) {
            if (!take(l, ')'))
                return trm_fail(TRM_ERR_BAD_FILE, "'%s': header's 'shape' is malformed", name);
            break;
        }
    }
    return TRM_OK;
}

static const struct {
    char kind, bytes;
    trm_dtype dtype;
} descr_rows[] = {
    {'f', '2', TRM_DTYPE_F16},  {'f', '4', TRM_DTYPE_F32}, {'f', '8', TRM_DTYPE_F64},
    {'i', '1', TRM_DTYPE_I8},   {'i', '2', TRM_DTYPE_I16}, {'i', '4', TRM_DTYPE_I32},
    {'i', '8', TRM_DTYPE_I64},  {'u', '1', TRM_DTYPE_U8},  {'u', '2', TRM_DTYPE_U16},
    {'u', '4', TRM_DTYPE_U32},  {'u', '8', TRM_DTYPE_U64}, {'b', '1', TRM_DTYPE_BOOL},
    {'V', '2', TRM_DTYPE_BF16},
};

static trm_status descr_dtype(const char *descr, const char *name, trmi_npy_header *h)
{
    const char *p = descr;
    char order = '|';

    if (*p != '\0' && strchr("<>=|", *p) != NULL)
        order = *p++;
    if (p[0] != '\0' && p[1] != '\0' && p[2] == '\0')
        for (size_t i = 0; i < sizeof(descr_rows) / sizeof(descr_rows[0]); i++)
            if (descr_rows[i].kind == p[0] && descr_rows[i].bytes == p[1]) {
                h->desc.dtype = descr_rows[i].dtype;
                h->swap = order == '>' && p[1] != '1';
                return TRM_OK;
            }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': dtype '%s'; supported are f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 and V2 "
                    "(bfloat16)",
                    name, descr);
}

trm_status trmi_npy_parse(const char *text, size_t bytes, const char *name,
                          trmi_npy_header *header_out)
{
    literal l = {text, text + bytes};
    trmi_npy_header h;
    char key[32], descr[64] = "";
    bool have_descr = false, have_order = false, have_shape = false;
    size_t elem_bytes;
    size_t row = 1;

    memset(&h, 0, sizeof(h));
    if (!take(&l, '{'))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': header is not a Python dict", name);
    while (!take(&l, '}')) {
        if (!take_string(&l, key, sizeof(key)) || !take(&l, ':'))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': header is malformed at byte %td", name,
                            l.at - text);
        if (strcmp(key, "descr") == 0 && !have_descr) {
            have_descr = true;
            skip_space(&l);
            if (l.at < l.end && *l.at == '[')
                return trm_fail(TRM_ERR_UNSUPPORTED,
                                "'%s': a structured dtype; save each field "
                                "as an array of its own",
                                name);
            if (!take_string(&l, descr, sizeof(descr)))
                return trm_fail(TRM_ERR_BAD_FILE, "'%s': header's 'descr' is malformed", name);
        } else if (strcmp(key, "fortran_order") == 0 && !have_order) {
            have_order = true;
            h.fortran = take_word(&l, "True");
            if (!h.fortran && !take_word(&l, "False"))
                return trm_fail(TRM_ERR_BAD_FILE,
                                "'%s': header's 'fortran_order' is neither True nor False", name);
        } else if (strcmp(key, "shape") == 0 && !have_shape) {
            have_shape = true;
            TRM_CHECK(take_shape(&l, name, &h.desc));
        } else {
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': header has key '%s' twice or not of .npy",
                            name, key);
        }
        if (!take(&l, ',') && (l.at == l.end || *l.at != '}'))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': header is malformed at byte %td", name,
                            l.at - text);
    }
    if (!have_descr || !have_order || !have_shape)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': header lacks '%s'", name,
                        !have_descr   ? "descr"
                        : !have_order ? "fortran_order"
                                      : "shape");
    TRM_CHECK(descr_dtype(descr, name, &h));
    elem_bytes = trm_dtype_bytes(h.desc.dtype);
    /* A row's size is computed without dim 0, so that an array of 0 rows still has one. */
    row = elem_bytes;
    for (int i = 1; i < h.desc.rank; i++)
        if (!trm_mul_ok(row, (size_t)h.desc.dims[i], &row))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': shape overflows at dim %d", name, i);
    h.row_bytes = row;
    if (!trm_mul_ok(row, h.desc.rank > 0 ? (size_t)h.desc.dims[0] : 1, &h.total_bytes))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': shape overflows at dim 0", name);
    *header_out = h;
    return TRM_OK;
}
