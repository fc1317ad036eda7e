/* Writing keys and values of tokens into a page of the cache (kernels/language.h: trm_kv_layer). */
#ifndef TRM_KERNELS_CPU_LM_KV_H
#define TRM_KERNELS_CPU_LM_KV_H

#include "kernels/language.h"

/* `n` tokens of one kv head into columns [at, at + n) of its page, at + n <= TRM_KV_PAGE. key,
 * value: the first token's head, tokens `row` floats apart; keys, values: the head's in the page.
 */
void trmi_lm_kv_write(trm_dtype dtype, size_t head_dim, void *keys, void *values, size_t at,
                      size_t n, const float *key, const float *value, size_t row);

#endif
