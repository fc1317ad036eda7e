/* libFuzzer: any bytes as a safetensors file, and as the texts of a config.json and its
 * generation_config.json. */
#include "model/language/language_impl.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Every byte that a tensor claims must be there. */
static unsigned touch(const trm_weights *w)
{
    unsigned sum = 0;

    for (size_t i = 0; i < trm_weights_count(w); i++) {
        const trm_weight *t = trm_weights_at(w, i);
        size_t n;

        if (trm_tensor_bytes(&t->desc, &n) != TRM_OK || trm_weights_find(w, t->name) != t)
            abort();
        for (size_t k = 0; k < n; k += k < 64 ? 1 : 4096)
            sum += ((const unsigned char *)t->desc.data)[k];
        if (n > 0)
            sum += ((const unsigned char *)t->desc.data)[n - 1];
    }
    return sum;
}

static void as_weights(trm_file *f)
{
    trm_weights *w;

    if (trmi_weights_create(&w) != TRM_OK)
        abort();
    if (trmi_safetensors_read(w, f) == TRM_OK && trmi_weights_finish(w) == TRM_OK)
        (void)touch(w);
    trm_weights_close(w);
}

/* The texts are what is before and behind the first NUL. */
static void as_config(const char *text, size_t bytes)
{
    const char *end = bytes == 0 ? NULL : memchr(text, 0, bytes);
    size_t first = end == NULL ? bytes : (size_t)(end - text);
    trm_lm_config c;

    if (trm_lm_config_huggingface("fuzz/config.json", text, first, end == NULL ? NULL : end + 1,
                                  end == NULL ? 0 : bytes - first - 1, &c) != TRM_OK)
        return;
    for (int64_t l = 0; l < c.layers; l++)
        (void)trm_lm_layer_windowed(&c, l);
    if (trm_lm_context_max(&c) < 1)
        abort();
    trm_lm_config_fini(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trm_file *f;

    if (trm_file_from_memory(data, bytes, "fuzz", &f) != TRM_OK)
        abort();
    as_weights(f);
    as_config((const char *)data, bytes);
    trm_file_unref(f);
    return 0;
}
