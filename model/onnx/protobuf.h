/* Reading protobuf's wire format from a mapped file: a flat cursor over the fields of one message.
 * Nothing is copied and nothing recurses; whoever descends into a sub-message makes a reader of its
 * own, so the depth is the caller's to bound. */
#ifndef TRM_MODEL_ONNX_PROTOBUF_H
#define TRM_MODEL_ONNX_PROTOBUF_H

#include "base/file.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Borrowed bytes of the file. */
typedef struct trmi_bytes {
    const unsigned char *data;
    size_t bytes;
} trmi_bytes;

enum { TRMI_PB_VARINT = 0, TRMI_PB_FIXED64 = 1, TRMI_PB_BYTES = 2, TRMI_PB_FIXED32 = 5 };

typedef struct trmi_pb {
    trm_cursor cursor;
    const char *message;       /* "GraphProto": for errors */
    const unsigned char *base; /* start of the file: errors give offsets in it */
    /* the field read last */
    uint32_t field;
    int wire;
    uint64_t number;  /* varint, fixed32, fixed64 */
    trmi_bytes bytes; /* length-delimited */
} trmi_pb;

trmi_pb trmi_pb_make(trmi_bytes message, const unsigned char *base, const char *name);
/* Reads the next field; *more_out is false at the end. BAD_FILE: overrun, groups, field 0. */
TRM_MUST_USE trm_status trmi_pb_next(trmi_pb *r, bool *more_out);
/* BAD_FILE unless the current field has that wire type. */
TRM_MUST_USE trm_status trmi_pb_want(const trmi_pb *r, int wire);
/* Where the current field ends, in the file. */
size_t trmi_pb_offset(const trmi_pb *r);
/* The current field as text of its own in the arena; a NUL inside is BAD_FILE. */
TRM_MUST_USE trm_status trmi_pb_string(const trmi_pb *r, trm_arena *arena, const char **text_out);
TRM_MUST_USE trm_status trmi_pb_int(const trmi_pb *r, int64_t *value_out);

/* Repeated numbers come packed (one block of bytes) or one a field. `wire` is that of one element.
 * count: elements the current field holds. take: stores them at out[0..count) and returns OK. */
TRM_MUST_USE trm_status trmi_pb_count(const trmi_pb *r, int wire, size_t *count_out);
TRM_MUST_USE trm_status trmi_pb_take(const trmi_pb *r, int wire, uint64_t *out, size_t count);

static inline float trmi_float_bits(uint64_t bits)
{
    union {
        uint32_t u;
        float f;
    } v;

    v.u = (uint32_t)bits;
    return v.f;
}

#ifdef __cplusplus
}
#endif
#endif
