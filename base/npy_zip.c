/* .npz: the zip directory, with zip64 sizes. Every offset and count is checked against the file
 * before use. The directory is the authority on sizes; of a member's local header only the lengths
 * of its variable fields are read, to find the data. */
#include "base/npy_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define END_MIN_BYTES 22 /* end of central directory, without its comment */
#define ENTRY_MIN_BYTES 46
#define LOCAL_MIN_BYTES 30
/* Deflate cannot do better than 1032:1; a larger claim is a lie, or a bomb. */
#define RATIO_MAX 1032

typedef struct npz_entry {
    char *name;
    trmi_npy_member member;
} npz_entry;

struct trm_npz {
    trm_file *file;
    npz_entry *entries;
    int count;
};

/* Offset of the end record, searched from the end past a comment of up to 64 KiB. */
static bool find_end(const unsigned char *data, size_t bytes, size_t *at_out)
{
    size_t low;

    if (bytes < END_MIN_BYTES)
        return false;
    low = bytes - END_MIN_BYTES > 65535 ? bytes - END_MIN_BYTES - 65535 : 0;
    for (size_t at = bytes - END_MIN_BYTES + 1; at-- > low;)
        if (memcmp(data + at, "PK\5\6", 4) == 0) {
            *at_out = at;
            return true;
        }
    return false;
}

typedef struct directory {
    uint64_t count, bytes, offset;
} directory;

static trm_status read_end(const trm_file *file, directory *dir)
{
    const unsigned char *data = trm_file_data(file);
    size_t bytes = trm_file_bytes(file), at;
    const char *path = trm_file_path(file);
    trm_cursor c;

    if (!find_end(data, bytes, &at))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' is not a .npz file (zip), or is cut short", path);
    c = trm_cursor_make(data + at + 10, bytes - at - 10);
    dir->count = trm_cursor_u16(&c);
    dir->bytes = trm_cursor_u32(&c);
    dir->offset = trm_cursor_u32(&c);
    if (dir->count == 0xffff || dir->bytes == 0xffffffff || dir->offset == 0xffffffff) {
        uint64_t end64;

        if (at < 20 || memcmp(data + at - 20, "PK\6\7", 4) != 0)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': zip64 locator is missing", path);
        c = trm_cursor_make(data + at - 12, 8);
        end64 = trm_cursor_u64(&c);
        if (end64 > bytes || bytes - end64 < 56 || memcmp(data + end64, "PK\6\6", 4) != 0)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': zip64 end record is not at %" PRIu64, path,
                            end64);
        c = trm_cursor_make(data + end64 + 32, 24);
        dir->count = trm_cursor_u64(&c);
        dir->bytes = trm_cursor_u64(&c);
        dir->offset = trm_cursor_u64(&c);
    }
    if (dir->offset > bytes || dir->bytes > bytes - dir->offset ||
        dir->count > dir->bytes / ENTRY_MIN_BYTES)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': zip directory of %" PRIu64 " entries, %" PRIu64 " bytes at %" PRIu64
                        " does not fit a file of %zu",
                        path, dir->count, dir->bytes, dir->offset, bytes);
    return TRM_OK;
}

/* Replaces 32-bit fields that are all ones by the 64-bit ones of the zip64 extra field. */
static void apply_zip64(trm_cursor extra, uint64_t *inflated, uint64_t *stored, uint64_t *offset)
{
    while (trm_cursor_left(&extra) >= 4) {
        unsigned id = trm_cursor_u16(&extra);
        trm_cursor body = trm_cursor_sub(&extra, trm_cursor_u16(&extra));

        if (id != 1)
            continue;
        if (*inflated == 0xffffffff)
            *inflated = trm_cursor_u64(&body);
        if (*stored == 0xffffffff)
            *stored = trm_cursor_u64(&body);
        if (*offset == 0xffffffff)
            *offset = trm_cursor_u64(&body);
        return;
    }
}

/* Finds the member's bytes by its local header at `offset`. */
static trm_status locate(const trm_file *file, const char *name, uint64_t offset, uint64_t stored,
                         trmi_npy_member *m)
{
    const unsigned char *data = trm_file_data(file);
    size_t bytes = trm_file_bytes(file);
    trm_cursor c;
    size_t skip;

    if (offset > bytes || bytes - offset < LOCAL_MIN_BYTES ||
        memcmp(data + offset, "PK\3\4", 4) != 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': member '%s' is not at %" PRIu64,
                        trm_file_path(file), name, offset);
    c = trm_cursor_make(data + offset + 26, 4);
    skip = trm_cursor_u16(&c);
    skip += trm_cursor_u16(&c);
    skip += LOCAL_MIN_BYTES;
    if (bytes - offset < skip || bytes - offset - skip < stored)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': member '%s' reaches past the end of the file",
                        trm_file_path(file), name);
    m->raw = data + offset + skip;
    m->raw_bytes = (size_t)stored;
    return TRM_OK;
}

/* One directory entry; members that are no .npy are skipped. */
static trm_status read_entry(trm_npz *z, trm_cursor *c)
{
    const char *path = trm_file_path(z->file);
    const unsigned char *head = trm_cursor_bytes(c, 4), *name;
    unsigned flags, method, name_bytes, extra_bytes, comment_bytes;
    uint64_t stored, inflated, offset;
    npz_entry e;
    uint32_t crc;

    if (head == NULL || memcmp(head, "PK\1\2", 4) != 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': zip directory is malformed", path);
    (void)trm_cursor_bytes(c, 4);
    flags = trm_cursor_u16(c);
    method = trm_cursor_u16(c);
    (void)trm_cursor_bytes(c, 4);
    crc = trm_cursor_u32(c);
    stored = trm_cursor_u32(c);
    inflated = trm_cursor_u32(c);
    name_bytes = trm_cursor_u16(c);
    extra_bytes = trm_cursor_u16(c);
    comment_bytes = trm_cursor_u16(c);
    (void)trm_cursor_bytes(c, 8);
    offset = trm_cursor_u32(c);
    name = trm_cursor_bytes(c, name_bytes);
    apply_zip64(trm_cursor_sub(c, extra_bytes), &inflated, &stored, &offset);
    (void)trm_cursor_bytes(c, comment_bytes);
    if (c->failed)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': zip directory is cut short", path);
    if (name_bytes < 5 || memcmp(name + name_bytes - 4, ".npy", 4) != 0 ||
        memchr(name, '\0', name_bytes) != NULL)
        return TRM_OK;

    memset(&e, 0, sizeof(e));
    e.name = (char *)trm_malloc((size_t)name_bytes - 3, 1);
    if (e.name == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': directory", path);
    memcpy(e.name, name, (size_t)name_bytes - 4);
    e.name[name_bytes - 4] = '\0';
    z->entries[z->count++] = e; /* owned from here on */
    if ((flags & 1) != 0 || (method != 0 && method != 8))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': member '%s' is %s; stored and deflated are "
                        "supported",
                        path, e.name, (flags & 1) != 0 ? "encrypted" : "compressed otherwise");
    if (method == 0 ? inflated != stored : inflated / RATIO_MAX > stored + 1)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': member '%s' claims %" PRIu64 " bytes in %" PRIu64,
                        path, e.name, inflated, stored);
    for (int i = 0; i < z->count - 1; i++)
        if (strcmp(z->entries[i].name, e.name) == 0)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': two members '%s'", path, e.name);
    TRM_CHECK(locate(z->file, e.name, offset, stored, &e.member));
    e.member.deflated = method == 8;
    e.member.bytes = inflated;
    e.member.crc = crc;
    z->entries[z->count - 1] = e;
    return TRM_OK;
}

/* The duplicate check is quadratic: no more than this many arrays in one file. */
#define ENTRIES_MAX 16384

trm_status trm_npz_from_file(trm_file *file, trm_npz **npz_out)
{
    directory dir = {0, 0, 0};
    trm_npz *z;
    trm_cursor c;
    trm_status st = TRM_OK;

    TRM_CHECK(read_end(file, &dir));
    if (dir.count > ENTRIES_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': %" PRIu64 " members, at most %d are read",
                        trm_file_path(file), dir.count, ENTRIES_MAX);
    z = (trm_npz *)trm_calloc(1, sizeof(*z));
    if (z == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': directory", trm_file_path(file));
    z->file = trm_file_ref(file);
    z->entries = (npz_entry *)trm_calloc((size_t)dir.count + 1, sizeof(*z->entries));
    if (z->entries == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "'%s': directory", trm_file_path(file));
        goto fail;
    }
    c = trm_cursor_make(trm_file_data(file) + dir.offset, (size_t)dir.bytes);
    for (uint64_t i = 0; i < dir.count; i++)
        TRM_TRY(st, read_entry(z, &c), fail);
    *npz_out = z;
    return TRM_OK;
fail:
    trm_npz_close(z);
    return st;
}

trm_status trm_npz_open(const char *path, trm_npz **npz_out)
{
    trm_file *file;
    trm_status st;

    TRM_CHECK(trm_file_open(path, &file));
    st = trm_npz_from_file(file, npz_out);
    trm_file_unref(file);
    return st;
}

void trm_npz_close(trm_npz *npz)
{
    if (npz == NULL)
        return;
    for (int i = 0; i < npz->count; i++)
        trm_free(npz->entries[i].name);
    trm_free(npz->entries);
    trm_file_unref(npz->file);
    trm_free(npz);
}

int trm_npz_count(const trm_npz *npz)
{
    return npz->count;
}

const char *trm_npz_name(const trm_npz *npz, int i)
{
    TRM_ASSERT(i >= 0 && i < npz->count);
    return npz->entries[i].name;
}

int trm_npz_find(const trm_npz *npz, const char *name)
{
    for (int i = 0; i < npz->count; i++)
        if (strcmp(npz->entries[i].name, name) == 0)
            return i;
    return -1;
}

trm_status trm_npz_get(const trm_npz *npz, int i, trm_npy **npy_out)
{
    char name[512];

    TRM_ASSERT(i >= 0 && i < npz->count);
    snprintf(name, sizeof(name), "%s(%s)", trm_file_path(npz->file), npz->entries[i].name);
    return trmi_npy_open(npz->file, name, &npz->entries[i].member, npy_out);
}
