/* Shared by the files of model/language. */
#ifndef TRM_MODEL_LANGUAGE_IMPL_H
#define TRM_MODEL_LANGUAGE_IMPL_H

#include "model/language/language.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights.c ---- */
struct trm_weights {
    trm_arena *arena; /* names */
    trm_weight *items;
    uint32_t *order; /* [count] by name, after trmi_weights_finish */
    trm_file **files;
    size_t count, count_max, file_count, file_count_max;
};
TRM_MUST_USE trm_status trmi_weights_create(trm_weights **weights_out);
/* Keeps a reference to `file`. */
TRM_MUST_USE trm_status trmi_weights_hold(trm_weights *w, trm_file *file);
/* A tensor of `name` [name_bytes] at `offset` of `file`, which is held. Checks the name, the shape
 * and that its bytes lie in the file; BAD_FILE says what is wrong. */
TRM_MUST_USE trm_status trmi_weights_add(trm_weights *w, const char *name, size_t name_bytes,
                                         const trm_tensor *desc, trm_file *file, uint64_t offset);
/* After the last: BAD_FILE where a name comes twice or two tensors share bytes. */
TRM_MUST_USE trm_status trmi_weights_finish(trm_weights *w);
/* A name as it may be printed: not empty, no control characters, at most TRMI_NAME_BYTES. */
bool trmi_name_ok(const char *name, size_t bytes);
#define TRMI_NAME_BYTES 512

/* ---- safetensors.c ---- */
/* Adds the tensors of one file. */
TRM_MUST_USE trm_status trmi_safetensors_read(trm_weights *w, trm_file *file);

/* ---- gguf.c, gguf_metadata.c ---- */
typedef struct trmi_gguf_entry {
    const char *key;
    trm_gguf_kind kind, item;  /* item: of an array's elements */
    size_t count;              /* of elements; of bytes: a string */
    const unsigned char *data; /* in the mapped file: the value, elements, or a string's bytes */
    const char *text;          /* a string that holds no NUL, with one at its end; NULL: others */
} trmi_gguf_entry;
struct trm_gguf {
    trm_file *file; /* the first */
    trm_arena *arena;
    trm_weights *weights;
    trmi_gguf_entry *entries;
    uint32_t *order; /* [entry_count] by key */
    size_t entry_count;
};
TRM_MUST_USE trm_status trmi_gguf_from_file(trm_file *file, trm_gguf **gguf_out); /* no siblings */
/* Reads `count` pairs from `c`. */
TRM_MUST_USE trm_status trmi_gguf_read_metadata(trm_gguf *g, trm_cursor *c, uint64_t count);
const trmi_gguf_entry *trmi_gguf_find(const trm_gguf *g, const char *key); /* NULL: absent */
const char *trmi_gguf_kind_name(trm_gguf_kind kind);
/* A string value without NULs, terminated; NULL: absent or none. Lives as long as g. */
const char *trmi_gguf_string(const trm_gguf *g, const char *key);

/* ---- json.c ---- */
/* Parses a whole file that strangers wrote; `wanted` names it in messages ("config.json"). The root
 * must be an object. */
TRM_MUST_USE trm_status trmi_lm_json_parse(const char *name, const char *text, size_t bytes,
                                           json_t **root_out);
/* A file of a folder; NULL and OK where it does not exist. */
TRM_MUST_USE trm_status trmi_lm_json_read(const char *folder, const char *file, json_t **root_out);

/* Members of an object. Absent and null leave *out as it was. Anything of another type or out of
 * range is BAD_FILE and names file and key. */
TRM_MUST_USE trm_status trmi_lm_json_int(const char *name, json_t *object, const char *key,
                                         int64_t low, int64_t high, int64_t *out);
TRM_MUST_USE trm_status trmi_lm_json_float(const char *name, json_t *object, const char *key,
                                           double low, double high, double *out);
TRM_MUST_USE trm_status trmi_lm_json_bool(const char *name, json_t *object, const char *key,
                                          bool *out);
/* Borrowed from the object. */
TRM_MUST_USE trm_status trmi_lm_json_text(const char *name, json_t *object, const char *key,
                                          const char **out);

/* ---- config_rope.c ---- */
typedef enum trmi_rope_family {
    TRMI_ROPE_PLAIN,
    TRMI_ROPE_GEMMA3, /* one set of settings a kind of layer */
    TRMI_ROPE_PHI3    /* "su" and "yarn" are longrope */
} trmi_rope_family;
/* config.json's settings of rotary embeddings, of both spellings. After head_dim and context. */
TRM_MUST_USE trm_status trmi_lm_rope(const char *name, json_t *root, trmi_rope_family family,
                                     double theta, trm_lm_config *c);

/* A member "<name>" of an object, or of the object's own "content" (as tokenizer_config.json has
 * special tokens); NULL: none. Borrowed. */
const char *trmi_lm_json_token(json_t *object, const char *key);

/* ---- sentence.c ---- */
/* What sentence-transformers' files in `folder` (modules.json, 1_Pooling/config.json, ...) say of
 * an encoder; without them: means, not normalized. */
TRM_MUST_USE trm_status trmi_sentence_read(const char *folder, trm_lm_config *c);

/* ---- text.c ---- */
/* Tokenizer, texts of special tokens and chat template of a folder, or of l->gguf; `file`: a
 * template given by the user, or NULL. */
TRM_MUST_USE trm_status trmi_language_read_text(trm_language *l, const char *folder,
                                                const char *file);

/* ---- config.c: what both sources share ---- */
/* Derived fields, the architecture's own defaults, and every check that needs no file. `name` is
 * for messages. */
TRM_MUST_USE trm_status trmi_lm_config_finish(const char *name, trm_lm_config *c);
void trmi_lm_config_init(trm_lm_config *c);
TRM_MUST_USE trm_status trmi_lm_architecture(const char *name, const char *source_name, bool gguf,
                                             trm_lm_config *c);
/* Adds an end token unless it is known or out of the vocabulary. */
void trmi_lm_add_eos(trm_lm_config *c, int64_t id);
/* BAD_FILE unless low <= value <= high. */
TRM_MUST_USE trm_status trmi_lm_check(const char *name, const char *key, int64_t value, int64_t low,
                                      int64_t high);

#ifdef __cplusplus
}
#endif
#endif
