/* Writing .npy. The header is padded to a fixed size with room for any first dim, so that the row
 * count can be rewritten in place, also when the disk is full. */
#include "base/npy_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES 256 /* 8 dims of 13 digits and the keys need about 180; a multiple of 64 */

struct trm_npy_writer {
    int fd;
    char *path;
    trm_tensor desc; /* dims[0]: rows in the file */
    size_t row_bytes;
    off_t data_offset;
};

static const char *descr_of(trm_dtype dtype)
{
    static const char *const names[TRM_DTYPE_PLAIN_COUNT] = {
        [TRM_DTYPE_F32] = "<f4",  [TRM_DTYPE_F16] = "<f2", [TRM_DTYPE_BF16] = "|V2",
        [TRM_DTYPE_F64] = "<f8",  [TRM_DTYPE_I8] = "|i1",  [TRM_DTYPE_U8] = "|u1",
        [TRM_DTYPE_I16] = "<i2",  [TRM_DTYPE_U16] = "<u2", [TRM_DTYPE_I32] = "<i4",
        [TRM_DTYPE_U32] = "<u4",  [TRM_DTYPE_I64] = "<i8", [TRM_DTYPE_U64] = "<u8",
        [TRM_DTYPE_BOOL] = "|b1",
    };

    return names[dtype];
}

/* The whole header of `header_bytes` (prelude of version 1, dict, spaces, newline). */
static trm_status header_make(const trm_tensor *desc, size_t header_bytes, const char *path,
                              char *out)
{
    size_t n;

    memcpy(out, "\x93NUMPY\1\0", 8);
    out[8] = (char)((header_bytes - 10) & 0xff);
    out[9] = (char)((header_bytes - 10) >> 8);
    n = 10;
    n += (size_t)snprintf(out + n, header_bytes - n,
                          "{'descr': '%s', 'fortran_order': False, 'shape': (",
                          descr_of(desc->dtype));
    for (int i = 0; i < desc->rank && n < header_bytes; i++)
        n += (size_t)snprintf(out + n, header_bytes - n, "%" PRId64 "%s", desc->dims[i],
                              desc->rank == 1      ? ","
                              : i + 1 < desc->rank ? ", "
                                                   : "");
    if (n < header_bytes)
        n += (size_t)snprintf(out + n, header_bytes - n, "), }");
    if (n >= header_bytes)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': its header has no room for the shape", path);
    memset(out + n, ' ', header_bytes - 1 - n);
    out[header_bytes - 1] = '\n';
    return TRM_OK;
}

static trm_status write_all(int fd, const void *data, size_t bytes, off_t at, const char *path)
{
    const char *p = (const char *)data;

    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes < ((size_t)1 << 30) ? bytes : (size_t)1 << 30, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return trm_fail(TRM_ERR_IO, "'%s': writing: %s", path,
                            n < 0 ? strerror(errno) : "nothing was written");
        p += n;
        at += n;
        bytes -= (size_t)n;
    }
    return TRM_OK;
}

static trm_status open_for_write(const char *path, int flags, int *fd_out)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0666);

    if (fd < 0)
        return trm_fail(errno == ENOENT || errno == ENOTDIR                    ? TRM_ERR_NOT_FOUND
                        : errno == EACCES || errno == EROFS || errno == EISDIR ? TRM_ERR_INVALID_ARG
                                                                               : TRM_ERR_IO,
                        "'%s': cannot be written: %s", path, strerror(errno));
    *fd_out = fd;
    return TRM_OK;
}

static trm_status check_desc(const trm_tensor *desc, int rank_min, const char *path)
{
    if (desc->dtype <= TRM_DTYPE_NONE || desc->dtype >= TRM_DTYPE_PLAIN_COUNT ||
        desc->rank < rank_min || desc->rank > TRM_RANK_MAX || desc->layout != TRM_LAYOUT_PLAIN)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': a tensor of %s, rank %d cannot be written",
                        path, trm_dtype_name(desc->dtype), desc->rank);
    return TRM_OK;
}

trm_status trm_npy_save(const char *path, const trm_tensor *tensor)
{
    char header[HEADER_BYTES];
    size_t bytes;
    struct stat info;
    bool regular;
    trm_status st;
    int fd = -1;

    TRM_CHECK(check_desc(tensor, 0, path));
    TRM_CHECK(trm_tensor_bytes(tensor, &bytes));
    TRM_CHECK(header_make(tensor, sizeof(header), path, header));
    TRM_CHECK(open_for_write(path, O_TRUNC, &fd));
    st = write_all(fd, header, sizeof(header), 0, path);
    if (st == TRM_OK)
        st = write_all(fd, tensor->data, bytes, HEADER_BYTES, path);
    regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode); /* never a device */
    if (close(fd) != 0 && st == TRM_OK)
        st = trm_fail(TRM_ERR_IO, "'%s': closing: %s", path, strerror(errno));
    if (st != TRM_OK && regular)
        unlink(path);
    return st;
}

/* The header alone: a writer that died may have left another number of rows than it says. */
static trm_status read_header(const char *path, trmi_npy_header *h, size_t *header_bytes_out,
                              size_t *file_bytes_out, int *version_out)
{
    trm_file *file = NULL;
    size_t text_offset, text_bytes, bytes;
    const unsigned char *data;
    trm_status st;

    TRM_TRY(st, trm_file_open(path, &file), done);
    data = trm_file_data(file);
    bytes = trm_file_bytes(file);
    TRM_TRY(st, trmi_npy_prelude(data, bytes, path, &text_offset, &text_bytes), done);
    if (text_bytes > bytes - text_offset) {
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s': cut short inside its header", path);
        goto done;
    }
    TRM_TRY(st, trmi_npy_parse((const char *)data + text_offset, text_bytes, path, h), done);
    *header_bytes_out = text_offset + text_bytes;
    *file_bytes_out = bytes;
    *version_out = data[6];
done:
    trm_file_unref(file);
    return st;
}

trm_status trm_npy_writer_desc(const char *path, trm_tensor *desc_out)
{
    trmi_npy_header h;
    size_t header_bytes, file_bytes;
    int version;

    TRM_CHECK(read_header(path, &h, &header_bytes, &file_bytes, &version));
    *desc_out = h.desc;
    desc_out->data = NULL;
    return TRM_OK;
}

/* Takes over the whole rows of an existing file; checks that they are of our kind. */
static trm_status adopt(trm_npy_writer *w)
{
    trmi_npy_header h;
    size_t header_bytes, bytes;
    int version;

    TRM_CHECK(read_header(w->path, &h, &header_bytes, &bytes, &version));
    h.desc.dims[0] = w->desc.dims[0];
    if (h.fortran || h.swap || h.desc.dtype != w->desc.dtype ||
        !trm_tensor_same_shape(&h.desc, &w->desc) || version != 1 || header_bytes < HEADER_BYTES) {
        char shape[TRM_SHAPE_TEXT_BYTES];

        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' cannot be continued: it does not hold rows of %s %s as this run "
                        "makes them",
                        w->path, trm_dtype_name(w->desc.dtype),
                        trm_tensor_shape_text(&w->desc, shape, sizeof(shape)));
    }
    w->data_offset = (off_t)header_bytes;
    if (w->row_bytes > 0)
        w->desc.dims[0] = (int64_t)((bytes - header_bytes) / w->row_bytes);
    return TRM_OK;
}

static trm_status write_header(trm_npy_writer *w)
{
    char header[65536 + 10]; /* a version 1 header at its longest */

    TRM_CHECK(header_make(&w->desc, (size_t)w->data_offset, w->path, header));
    return write_all(w->fd, header, (size_t)w->data_offset, 0, w->path);
}

trm_status trm_npy_writer_create(const char *path, const trm_tensor *desc, bool resume,
                                 trm_npy_writer **writer_out)
{
    trm_npy_writer *w;
    trm_status st;
    struct stat info;

    TRM_CHECK(check_desc(desc, 1, path));
    w = (trm_npy_writer *)trm_calloc(1, sizeof(*w));
    if (w == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': writer", path);
    w->fd = -1;
    w->desc = *desc;
    w->desc.data = NULL;
    w->desc.dims[0] = 1;
    w->data_offset = HEADER_BYTES;
    TRM_TRY(st, trm_tensor_bytes(&w->desc, &w->row_bytes), fail);
    w->desc.dims[0] = 0;
    w->path = trm_strdup(path);
    if (w->path == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "'%s': writer", path);
        goto fail;
    }
    TRM_TRY(st, open_for_write(path, resume ? 0 : O_TRUNC, &w->fd), fail);
    if (resume && fstat(w->fd, &info) == 0 && info.st_size > 0)
        TRM_TRY(st, adopt(w), fail);
    TRM_TRY(st, trm_npy_writer_truncate(w, w->desc.dims[0]), fail); /* and the header */
    *writer_out = w;
    return TRM_OK;
fail:
    if (w->fd >= 0)
        close(w->fd);
    trm_free(w->path);
    trm_free(w);
    return st;
}

int64_t trm_npy_writer_rows(const trm_npy_writer *writer)
{
    return writer->desc.dims[0];
}

int64_t trm_npy_writer_bytes(const trm_npy_writer *writer)
{
    return (int64_t)writer->data_offset + (int64_t)writer->row_bytes * writer->desc.dims[0];
}

trm_status trm_npy_writer_truncate(trm_npy_writer *writer, int64_t rows)
{
    if (rows < 0 || rows > writer->desc.dims[0])
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': %" PRId64 " rows of %" PRId64 " kept",
                        writer->path, rows, writer->desc.dims[0]);
    writer->desc.dims[0] = rows;
    TRM_CHECK(write_header(writer)); /* first: it never speaks of rows that are not there */
    if (ftruncate(writer->fd, writer->data_offset + (off_t)writer->row_bytes * rows) != 0)
        return trm_fail(TRM_ERR_IO, "'%s': ftruncate: %s", writer->path, strerror(errno));
    return TRM_OK;
}

trm_status trm_npy_writer_append(trm_npy_writer *writer, const void *rows, int64_t count)
{
    trm_tensor *d = &writer->desc;
    off_t end = writer->data_offset + (off_t)writer->row_bytes * d->dims[0];
    size_t bytes;
    trm_status st;

    if (count < 0 || !trm_mul_ok(writer->row_bytes, (size_t)count, &bytes))
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s': %" PRId64 " rows", writer->path, count);
    st = write_all(writer->fd, rows, bytes, end, writer->path);
    if (st == TRM_OK)
        d->dims[0] += count;
    else if (ftruncate(writer->fd, end) != 0)
        return st; /* a partial row stays; resume drops it */
    return st;
}

trm_status trm_npy_writer_flush(trm_npy_writer *writer)
{
    return write_header(writer);
}

trm_status trm_npy_writer_sync(trm_npy_writer *writer)
{
    TRM_CHECK(write_header(writer));
    if (fdatasync(writer->fd) != 0)
        return trm_fail(TRM_ERR_IO, "'%s': fdatasync: %s", writer->path, strerror(errno));
    return TRM_OK;
}

trm_status trm_npy_writer_close(trm_npy_writer *writer)
{
    trm_status st;

    if (writer == NULL)
        return TRM_OK;
    st = write_header(writer);
    if (close(writer->fd) != 0 && st == TRM_OK)
        st = trm_fail(TRM_ERR_IO, "'%s': closing: %s", writer->path, strerror(errno));
    trm_free(writer->path);
    trm_free(writer);
    return st;
}
