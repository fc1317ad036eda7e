/* Text that grows, for JSON that is written without a tree of objects: answers with many numbers.
 * One owner. */
#ifndef TRM_COORDINATOR_GATEWAY_TEXT_H
#define TRM_COORDINATOR_GATEWAY_TEXT_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed is empty. After a failed allocation `failed` is set and nothing is added any more: looked
 * at once, at the end. */
typedef struct trmi_text {
    char *data; /* from trm_malloc; not ended by a NUL */
    size_t bytes, room;
    bool failed;
} trmi_text;
void trmi_text_fini(trmi_text *t);
/* Room for `bytes` more, so that what follows need not grow it. */
bool trmi_text_reserve(trmi_text *t, size_t bytes);
void trmi_text_add(trmi_text *t, const void *data, size_t bytes);
void trmi_text_put(trmi_text *t, const char *text);
/* At most 255 bytes. */
void trmi_text_print(trmi_text *t, const char *fmt, ...) TRM_PRINTF(2, 3);
/* A JSON string with its quotes; bytes that are no UTF-8 become U+FFFD. */
void trmi_text_string(trmi_text *t, const char *text, size_t bytes);
/* Numbers that read back to the same bits, as short as they can be; NaN, Infinity and -Infinity as
 * Python's json writes and reads them. */
void trmi_text_f32(trmi_text *t, float f);
void trmi_text_f64(trmi_text *t, double d);
/* "[1,2,3]": all elements of a tensor, flat. Its data may be misaligned. */
void trmi_text_elements(trmi_text *t, const trm_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
