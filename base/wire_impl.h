/* What the files of the wire share: the writer over msgpack-c's packer and the pull reader. */
#ifndef TRM_BASE_WIRE_IMPL_H
#define TRM_BASE_WIRE_IMPL_H

#include "base/file.h"
#include "base/wire_serve.h"

#include <msgpack.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `bad` collects what was wrong: packing goes on, and the end looks at it once */
struct trmi_writer {
    msgpack_packer pk;
    const char *bad;
    bool no_memory;
};
void trmi_wire_note(struct trmi_writer *w, int rc); /* of a packer's function */
void trmi_wire_put_array(struct trmi_writer *w, size_t n);
void trmi_wire_put_int(struct trmi_writer *w, int64_t v);
void trmi_wire_put_uint(struct trmi_writer *w, uint64_t v);
/* A text is cut at TRM_WIRE_TEXT_MAX, a name over it makes the message bad; NULL is "". */
void trmi_wire_put_text(struct trmi_writer *w, const char *text);
void trmi_wire_put_name(struct trmi_writer *w, const char *name);
void trmi_wire_put_json(struct trmi_writer *w, const char *text); /* at most TRM_WIRE_JSON_MAX */
void trmi_wire_put_bin(struct trmi_writer *w, const void *data, size_t bytes);
/* `shared`: a tensor may be a reference into the sender's segment */
void trmi_wire_put_tensors(struct trmi_writer *w, const trm_wire_tensor *tensors, int count,
                           bool shared);
void trmi_wire_put_labels(struct trmi_writer *w, const trm_wire_label *labels, int count);
void trmi_wire_head(struct trmi_writer *w, trm_wire_kind kind, size_t fields);
/* The kinds of base/wire_serve.h; false: not one of them, and nothing is written. */
bool trmi_wire_put_serve(struct trmi_writer *w, const trm_wire_message *m);

struct trmi_reader {
    trm_cursor in;
    trm_arena *arena;
    trm_status st; /* the first failure; reads after it give zeros */
};
/* Each `what` names the field in the message of a failure. */
void trmi_wire_bad(struct trmi_reader *r, const char *what);
uint64_t trmi_wire_get_uint(struct trmi_reader *r, uint64_t max, const char *what);
int64_t trmi_wire_get_int(struct trmi_reader *r, int64_t min, int64_t max, const char *what);
bool trmi_wire_get_bool(struct trmi_reader *r, const char *what);
float trmi_wire_get_float(struct trmi_reader *r, const char *what);
int trmi_wire_get_array(struct trmi_reader *r, int max, const char *what);
void trmi_wire_expect_array(struct trmi_reader *r, int n, const char *what);
const char *trmi_wire_get_text(struct trmi_reader *r, size_t max, const char *what);
const unsigned char *trmi_wire_get_bin(struct trmi_reader *r, size_t *bytes_out, const char *what);
/* Zeroed room in the arena; NULL for none and after a failure. */
void *trmi_wire_get_room(struct trmi_reader *r, int count, size_t size);
const trm_wire_tensor *trmi_wire_get_tensors(struct trmi_reader *r, int *count_out, bool shared);
const trm_wire_label *trmi_wire_get_labels(struct trmi_reader *r, int *count_out);
/* Number of fields of a kind of base/wire_serve.h. */
int trmi_wire_serve_fields(trm_wire_kind kind);
void trmi_wire_get_serve(struct trmi_reader *r, trm_wire_message *m);

#ifdef __cplusplus
}
#endif
#endif
