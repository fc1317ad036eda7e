/* Bytes and characters for the tokenizer's files: a growing buffer, UTF-8, classes of characters.
 */
#ifndef TRM_MODEL_TOKENIZER_TEXT_H
#define TRM_MODEL_TOKENIZER_TEXT_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Grows as needed. An addition that finds no memory sets `failed`, and later ones do nothing: check
 * once with trmi_buf_status. Zeroed memory is an empty buffer. */
typedef struct trmi_buf {
    char *bytes;
    size_t count, room;
    bool failed;
} trmi_buf;
void trmi_buf_fini(trmi_buf *b);
bool trmi_buf_reserve(trmi_buf *b, size_t more); /* room for `more` bytes behind count */
void trmi_buf_add(trmi_buf *b, const char *bytes, size_t count);
void trmi_buf_byte(trmi_buf *b, char byte);
void trmi_buf_char(trmi_buf *b, uint32_t c); /* as UTF-8 */
TRM_MUST_USE trm_status trmi_buf_status(const trmi_buf *b, const char *what);
static inline void trmi_buf_clear(trmi_buf *b)
{
    b->count = 0;
}

/* Ids, in the same way. */
typedef struct trmi_ids {
    int32_t *ids;
    size_t count, room;
    bool failed;
} trmi_ids;
void trmi_ids_add(trmi_ids *v, int32_t id);

/* ---- UTF-8 ---- */
#define TRMI_REPLACEMENT 0xFFFDu
typedef enum trmi_utf8 {
    TRMI_UTF8_CHAR, /* a whole character */
    TRMI_UTF8_BAD,  /* no character begins with these bytes */
    TRMI_UTF8_CUT   /* the text ends in the middle of a character */
} trmi_utf8;
/* Looks at the first character of [p, p + count), count > 0: its bytes, or the longest start of a
 * character that leads nowhere (one U+FFFD each, as Unicode's chapter 3 and Python have it). */
trmi_utf8 trmi_utf8_look(const char *p, size_t count, uint32_t *c_out, size_t *bytes_out);
/* The character at p of text that is known to be UTF-8; *bytes_out its length. */
uint32_t trmi_utf8_get(const char *p, size_t *bytes_out);
size_t trmi_utf8_put(uint32_t c, char out[4]);
/* How many of the first bytes are UTF-8 without a fault. */
size_t trmi_utf8_good(const char *p, size_t count);
/* Adds the bytes with each fault replaced by U+FFFD. */
void trmi_utf8_add_lossy(trmi_buf *b, const char *p, size_t count);
bool trmi_is_ascii(const char *p, size_t count);

/* ---- classes ---- */
bool trmi_is_white(uint32_t c);       /* White_Space */
bool trmi_is_word(uint32_t c);        /* \w as Rust's regular expressions have it */
bool trmi_is_punctuation(uint32_t c); /* as BERT has it: ASCII's symbols, general category P */
bool trmi_is_number(uint32_t c);      /* general category N */
bool trmi_is_mark(uint32_t c);        /* general category M */
bool trmi_is_nonspacing(uint32_t c);  /* general category Mn */
bool trmi_is_other(uint32_t c);       /* general category Cc, Cf, Co */
bool trmi_is_whole(uint32_t c);       /* has a decomposition that the library does not know */
/* Lower case of one character, 1 to 3 characters. */
size_t trmi_lower(uint32_t c, uint32_t out[3]);

#ifdef __cplusplus
}
#endif
#endif
