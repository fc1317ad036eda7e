/* Reading one .npy array: mapped, or inflated from a .npz member as far as rows are asked for. */
#include "base/npy_impl.h"

#include <inttypes.h>
#include <string.h>
#define ZLIB_CONST /* next_in points to const bytes */
#include <zlib.h>

#define RELEASE_BYTES ((size_t)8 << 20) /* read in order: pages go back in pieces of this size */

struct trm_npy {
    trm_file *file;
    char *name;
    trmi_npy_member member;
    trmi_npy_header header;
    size_t data_offset; /* of element 0 in the member */
    int64_t rows;
    size_t released; /* of the member's stored bytes, given back up to here */
    /* deflated members: the stream, and where it stands in the inflated bytes */
    z_stream stream;
    bool stream_open;
    uint64_t stream_at;
    uint32_t stream_crc;
    unsigned char *whole; /* deflated and Fortran order: all elements, since rows are scattered */
};

/* ---- bytes of the member ---- */

/* Inflates the next `bytes` to `out` (NULL: skips them). */
static trm_status inflate_next(trm_npy *n, unsigned char *out, uint64_t bytes)
{
    unsigned char skipped[16384];

    while (bytes > 0) {
        uInt want = (uInt)(bytes < ((uint64_t)1 << 30) ? bytes : (uint64_t)1 << 30);
        uInt got;
        int rc;

        if (out == NULL && want > sizeof(skipped))
            want = (uInt)sizeof(skipped);
        n->stream.next_out = out == NULL ? skipped : out;
        n->stream.avail_out = want;
        if (n->stream.avail_in == 0) {
            size_t left = n->member.raw_bytes - (size_t)(n->stream.next_in - n->member.raw);

            n->stream.avail_in = (uInt)(left < ((size_t)1 << 30) ? left : (size_t)1 << 30);
        }
        rc = inflate(&n->stream, Z_NO_FLUSH);
        got = want - n->stream.avail_out;
        /* no output is progress as long as input was taken: a block's tables, say */
        if ((rc != Z_OK && rc != Z_STREAM_END) || (got == 0 && rc == Z_STREAM_END))
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': deflated data is damaged or ends after %" PRIu64 " of %" PRIu64
                            " bytes",
                            n->name, n->stream_at, n->member.bytes);
        n->stream_crc = (uint32_t)crc32(n->stream_crc, out == NULL ? skipped : out, got);
        n->stream_at += got;
        bytes -= got;
        if (out != NULL)
            out += got;
    }
    if (n->stream_at == n->member.bytes && n->stream_crc != n->member.crc)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': checksum is %08x, the archive says %08x", n->name,
                        n->stream_crc, n->member.crc);
    return TRM_OK;
}

/* Copies bytes [at, at + bytes) of the member, which the caller has checked to be there. */
static trm_status member_read(trm_npy *n, uint64_t at, unsigned char *out, size_t bytes)
{
    if (!n->member.deflated) {
        memcpy(out, n->member.raw + at, bytes);
        return TRM_OK;
    }
    if (!n->stream_open || at < n->stream_at) {
        int rc = n->stream_open ? inflateReset(&n->stream) : inflateInit2(&n->stream, -MAX_WBITS);

        if (rc != Z_OK)
            return trm_fail(TRM_ERR_NO_MEMORY, "'%s': inflate", n->name);
        n->stream_open = true;
        n->stream_at = 0;
        n->stream_crc = 0;
        n->stream.next_in = n->member.raw;
        n->stream.avail_in = 0;
    }
    TRM_CHECK(inflate_next(n, NULL, at - n->stream_at));
    return inflate_next(n, out, bytes);
}

/* Rows have been read up to `at` of the stored bytes. A file larger than memory, read once from end
 * to end, must not fill it. */
static void release_read(trm_npy *n, size_t at)
{
    size_t base = (size_t)(n->member.raw - trm_file_data(n->file));

    if (at < n->released)
        n->released = at;
    if (at - n->released < RELEASE_BYTES)
        return;
    trm_file_release(n->file, base + n->released, at - n->released);
    n->released = at;
}

/* ---- open ---- */

static trm_status read_header(trm_npy *n)
{
    unsigned char prelude[TRMI_NPY_PRELUDE_BYTES];
    size_t count = n->member.bytes < sizeof(prelude) ? (size_t)n->member.bytes : sizeof(prelude);
    size_t text_offset, text_bytes;
    unsigned char *text;
    trm_status st;

    TRM_CHECK(member_read(n, 0, prelude, count));
    TRM_CHECK(trmi_npy_prelude(prelude, count, n->name, &text_offset, &text_bytes));
    if (text_bytes > n->member.bytes - text_offset)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': cut short inside its header", n->name);
    text = (unsigned char *)trm_malloc(text_bytes, 1);
    if (text == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': header", n->name);
    TRM_TRY(st, member_read(n, text_offset, text, text_bytes), done);
    TRM_TRY(st, trmi_npy_parse((const char *)text, text_bytes, n->name, &n->header), done);
    n->data_offset = text_offset + text_bytes;
    if (n->header.total_bytes > n->member.bytes - n->data_offset) {
        char shape[TRM_SHAPE_TEXT_BYTES];

        st = trm_fail(TRM_ERR_BAD_FILE,
                      "'%s' is cut short: %s %s needs %zu bytes, %" PRIu64 " are there", n->name,
                      trm_dtype_name(n->header.desc.dtype),
                      trm_tensor_shape_text(&n->header.desc, shape, sizeof(shape)),
                      n->header.total_bytes, n->member.bytes - n->data_offset);
    }
done:
    trm_free(text);
    return st;
}

trm_status trmi_npy_open(trm_file *file, const char *name, const trmi_npy_member *member,
                         trm_npy **npy_out)
{
    trm_npy *n = (trm_npy *)trm_calloc(1, sizeof(*n));
    trm_tensor *desc;
    trm_status st;

    if (n == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': reader", name);
    n->file = trm_file_ref(file);
    n->member = *member;
    n->name = trm_strdup(name);
    if (n->name == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "'%s': reader", name);
        goto fail;
    }
    TRM_TRY(st, read_header(n), fail);
    desc = &n->header.desc;
    n->rows = desc->rank > 0 ? desc->dims[0] : 1;
    if (desc->rank < 2) /* the same bytes in either order */
        n->header.fortran = false;
    if (!member->deflated && !n->header.fortran && !n->header.swap &&
        desc->dtype != TRM_DTYPE_BOOL) {
        const unsigned char *data = member->raw + n->data_offset;

        /* the descriptor's pointer is not const; the header says that this one is read-only */
        if ((uintptr_t)data % trm_dtype_bytes(desc->dtype) == 0)
            desc->data = (void *)(uintptr_t)data;
    }
    *npy_out = n;
    return TRM_OK;
fail:
    trm_npy_close(n);
    return st;
}

trm_status trm_npy_from_file(trm_file *file, trm_npy **npy_out)
{
    trmi_npy_member m = {trm_file_data(file), trm_file_bytes(file), false, trm_file_bytes(file), 0};

    return trmi_npy_open(file, trm_file_path(file), &m, npy_out);
}

trm_status trm_npy_open(const char *path, trm_npy **npy_out)
{
    trm_file *file;
    trm_status st;

    TRM_CHECK(trm_file_open(path, &file));
    st = trm_npy_from_file(file, npy_out);
    trm_file_unref(file);
    return st;
}

void trm_npy_close(trm_npy *npy)
{
    if (npy == NULL)
        return;
    if (npy->stream_open)
        inflateEnd(&npy->stream);
    trm_free(npy->whole);
    trm_free(npy->name);
    trm_file_unref(npy->file);
    trm_free(npy);
}

const trm_tensor *trm_npy_desc(const trm_npy *npy)
{
    return &npy->header.desc;
}

const char *trm_npy_name(const trm_npy *npy)
{
    return npy->name;
}

int64_t trm_npy_rows(const trm_npy *npy)
{
    return npy->rows;
}

size_t trm_npy_row_bytes(const trm_npy *npy)
{
    return npy->header.row_bytes;
}

/* ---- rows ---- */

static void swap_bytes(unsigned char *data, size_t bytes, size_t elem_bytes)
{
    for (unsigned char *p = data; p < data + bytes; p += elem_bytes)
        for (size_t i = 0; i < elem_bytes / 2; i++) {
            unsigned char t = p[i];

            p[i] = p[elem_bytes - 1 - i];
            p[elem_bytes - 1 - i] = t;
        }
}

/* Gathers rows of a Fortran-ordered array (dim 0 is the fastest) in C order. */
static void gather_rows(const trm_npy *n, const unsigned char *src, int64_t first, int64_t count,
                        unsigned char *out)
{
    const trm_tensor *d = &n->header.desc;
    size_t elem = trm_dtype_bytes(d->dtype);
    size_t stride[TRM_RANK_MAX];
    int64_t at[TRM_RANK_MAX] = {0};
    size_t offset = (size_t)first, elems = n->header.row_bytes / elem * (size_t)count;

    stride[0] = 1;
    for (int i = 1; i < d->rank; i++)
        stride[i] = stride[i - 1] * (size_t)d->dims[i - 1];
    for (size_t e = 0; e < elems; e++, out += elem) {
        memcpy(out, src + offset * elem, elem);
        for (int i = d->rank - 1; i >= 0; i--) { /* odometer, last dim fastest */
            offset += stride[i];
            if (++at[i] < d->dims[i] || i == 0)
                break;
            offset -= stride[i] * (size_t)at[i];
            at[i] = 0;
        }
    }
}

static trm_status read_fortran(trm_npy *n, int64_t first, int64_t count, unsigned char *out)
{
    const unsigned char *src = n->member.raw + n->data_offset;

    if (n->member.deflated) {
        if (n->whole == NULL) {
            n->whole = (unsigned char *)trm_malloc(n->header.total_bytes, 1);
            if (n->whole == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "'%s': %zu bytes of a compressed Fortran array",
                                n->name, n->header.total_bytes);
            trm_status st = member_read(n, n->data_offset, n->whole, n->header.total_bytes);
            if (st != TRM_OK) {
                trm_free(n->whole);
                n->whole = NULL;
                return st;
            }
        }
        src = n->whole;
    }
    gather_rows(n, src, first, count, out);
    return TRM_OK;
}

trm_status trm_npy_read_rows(trm_npy *npy, int64_t first, int64_t count, void *out)
{
    const trmi_npy_header *h = &npy->header;
    unsigned char *bytes_out = (unsigned char *)out;
    size_t bytes;

    if (first < 0 || count < 0 || first > npy->rows || count > npy->rows - first)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s': rows %" PRId64 " to %" PRId64 " asked for, it has %" PRId64,
                        npy->name, first, first + count, npy->rows);
    bytes = h->row_bytes * (size_t)count;
    if (bytes == 0)
        return TRM_OK;
    if (h->fortran)
        TRM_CHECK(read_fortran(npy, first, count, bytes_out));
    else
        TRM_CHECK(
            member_read(npy, npy->data_offset + h->row_bytes * (uint64_t)first, bytes_out, bytes));
    if (npy->member.deflated)
        release_read(npy, npy->stream_open ? (size_t)(npy->stream.next_in - npy->member.raw) : 0);
    else if (!h->fortran) /* else rows lie scattered */
        release_read(npy, npy->data_offset + h->row_bytes * (size_t)(first + count));
    if (h->swap)
        swap_bytes(bytes_out, bytes, trm_dtype_bytes(h->desc.dtype));
    if (h->desc.dtype == TRM_DTYPE_BOOL)
        for (size_t i = 0; i < bytes; i++)
            bytes_out[i] = bytes_out[i] != 0;
    return TRM_OK;
}

trm_status trm_npy_load(const char *path, trm_arena *arena, trm_tensor *tensor_out)
{
    trm_npy *n;
    trm_tensor t;
    trm_status st;

    TRM_CHECK(trm_npy_open(path, &n));
    t = n->header.desc;
    t.data = trm_arena_alloc_aligned(arena, n->header.total_bytes);
    st = t.data == NULL
             ? trm_fail(TRM_ERR_NO_MEMORY, "'%s': %zu bytes", path, n->header.total_bytes)
             : trm_npy_read_rows(n, 0, n->rows, t.data);
    trm_npy_close(n);
    if (st == TRM_OK)
        *tensor_out = t;
    return st;
}
