/* The wire format: keys, varints, fixed fields, length-delimited fields. */
#include "model/onnx/protobuf.h"

#include <string.h>

trmi_pb trmi_pb_make(trmi_bytes message, const unsigned char *base, const char *name)
{
    trmi_pb r;

    memset(&r, 0, sizeof(r));
    r.cursor = trm_cursor_make(message.data, message.bytes);
    r.base = base;
    r.message = name;
    return r;
}

size_t trmi_pb_offset(const trmi_pb *r)
{
    return (size_t)(r->cursor.at - r->base);
}

static trm_status truncated(const trmi_pb *r, size_t at, const char *what)
{
    return trm_fail(TRM_ERR_BAD_FILE, "%s at byte %zu: %s of field %u does not end before byte %zu",
                    r->message, at, what, r->field, (size_t)(r->cursor.end - r->base));
}

trm_status trmi_pb_next(trmi_pb *r, bool *more_out)
{
    trm_cursor *c = &r->cursor;
    size_t at = trmi_pb_offset(r);
    uint64_t key, length;

    *more_out = false;
    if (trm_cursor_left(c) == 0)
        return TRM_OK;
    r->field = 0;
    r->bytes.data = NULL;
    r->bytes.bytes = 0;
    r->number = 0;
    key = trm_cursor_varint(c);
    if (c->failed)
        return truncated(r, at, "the key");
    r->wire = (int)(key & 7u);
    if (key >> 3 == 0 || key >> 3 > UINT32_C(0x1fffffff))
        return trm_fail(TRM_ERR_BAD_FILE, "%s at byte %zu: field number %llu is not possible",
                        r->message, at, (unsigned long long)(key >> 3));
    r->field = (uint32_t)(key >> 3);
    switch (r->wire) {
    case TRMI_PB_VARINT:
        r->number = trm_cursor_varint(c);
        break;
    case TRMI_PB_FIXED64:
        r->number = trm_cursor_u64(c);
        break;
    case TRMI_PB_FIXED32:
        r->number = trm_cursor_u32(c);
        break;
    case TRMI_PB_BYTES:
        length = trm_cursor_varint(c);
        if (!c->failed && length > trm_cursor_left(c))
            c->failed = true;
        if (!c->failed) {
            r->bytes.bytes = (size_t)length;
            r->bytes.data = trm_cursor_bytes(c, (size_t)length);
        }
        break;
    default:
        return trm_fail(TRM_ERR_BAD_FILE, "%s at byte %zu: wire type %d of field %u is not known",
                        r->message, at, r->wire, r->field);
    }
    if (c->failed)
        return truncated(r, at, "the value");
    *more_out = true;
    return TRM_OK;
}

trm_status trmi_pb_want(const trmi_pb *r, int wire)
{
    if (r->wire == wire)
        return TRM_OK;
    return trm_fail(TRM_ERR_BAD_FILE, "%s before byte %zu: field %u has wire type %d, want %d",
                    r->message, trmi_pb_offset(r), r->field, r->wire, wire);
}

trm_status trmi_pb_string(const trmi_pb *r, trm_arena *arena, const char **text_out)
{
    char *text;

    TRM_CHECK(trmi_pb_want(r, TRMI_PB_BYTES));
    if (r->bytes.bytes > 0 && memchr(r->bytes.data, '\0', r->bytes.bytes) != NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s before byte %zu: field %u is text with a zero byte",
                        r->message, trmi_pb_offset(r), r->field);
    text = trm_arena_strndup(arena, (const char *)r->bytes.data, r->bytes.bytes);
    if (text == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: text of %zu bytes", r->message, r->bytes.bytes);
    *text_out = text;
    return TRM_OK;
}

trm_status trmi_pb_int(const trmi_pb *r, int64_t *value_out)
{
    TRM_CHECK(trmi_pb_want(r, TRMI_PB_VARINT));
    *value_out = (int64_t)r->number;
    return TRM_OK;
}

static size_t fixed_bytes(int wire)
{
    return wire == TRMI_PB_FIXED32 ? 4 : 8;
}

trm_status trmi_pb_count(const trmi_pb *r, int wire, size_t *count_out)
{
    size_t n = 0;

    if (r->wire == wire) {
        *count_out = 1;
        return TRM_OK;
    }
    TRM_CHECK(trmi_pb_want(r, TRMI_PB_BYTES));
    if (wire == TRMI_PB_VARINT) { /* every varint ends in a byte without the high bit */
        for (size_t i = 0; i < r->bytes.bytes; i++)
            n += (r->bytes.data[i] & 0x80u) == 0;
        if (r->bytes.bytes > 0 && (r->bytes.data[r->bytes.bytes - 1] & 0x80u) != 0)
            return truncated(r, trmi_pb_offset(r), "a packed number");
    } else {
        n = r->bytes.bytes / fixed_bytes(wire);
        if (r->bytes.bytes % fixed_bytes(wire) != 0)
            return truncated(r, trmi_pb_offset(r), "a packed number");
    }
    *count_out = n;
    return TRM_OK;
}

trm_status trmi_pb_take(const trmi_pb *r, int wire, uint64_t *out, size_t count)
{
    trm_cursor c;

    if (r->wire == wire) {
        out[0] = r->number;
        return TRM_OK;
    }
    c = trm_cursor_make(r->bytes.data, r->bytes.bytes);
    for (size_t i = 0; i < count; i++)
        out[i] = wire == TRMI_PB_VARINT    ? trm_cursor_varint(&c)
                 : wire == TRMI_PB_FIXED32 ? trm_cursor_u32(&c)
                                           : trm_cursor_u64(&c);
    if (c.failed)
        return truncated(r, trmi_pb_offset(r), "a packed number");
    return TRM_OK;
}
