/* libFuzzer: any bytes as a GGUF file: its tensors, its metadata, and the configuration in it. */
#include "model/language/language_impl.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static unsigned touch_tensors(const trm_weights *w)
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

static unsigned touch_key(const trm_gguf *g, const char *key)
{
    unsigned sum = 0;
    trm_gguf_kind kind;
    trm_text text, *texts = NULL;
    float *floats = NULL;
    int32_t *ints = NULL;
    size_t count = 0;
    int64_t n = 0;
    double x;
    bool b;

    (void)trm_gguf_int(g, key, &n);
    (void)trm_gguf_float(g, key, &x);
    (void)trm_gguf_bool(g, key, &b);
    if (trm_gguf_text(g, key, &text) && text.count > 0)
        sum += (unsigned char)text.bytes[text.count - 1];
    if (trm_gguf_array(g, key, &kind, &count) && count > 0 &&
        trm_gguf_array_int(g, key, count - 1, &n))
        sum += (unsigned)n;
    if (trm_gguf_texts(g, key, &texts, &count) == TRM_OK)
        for (size_t i = 0; i < count; i++)
            sum += texts[i].count == 0 ? 0 : (unsigned char)texts[i].bytes[texts[i].count - 1];
    trm_free(texts);
    if (trm_gguf_floats(g, key, &floats, &count) == TRM_OK)
        trm_free(floats);
    if (trm_gguf_ints(g, key, &ints, &count) == TRM_OK)
        trm_free(ints);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    trm_lm_config c;
    trm_file *f;
    trm_gguf *g;

    if (trm_file_from_memory(data, bytes, "fuzz", &f) != TRM_OK)
        abort();
    if (trmi_gguf_from_file(f, &g) == TRM_OK) {
        (void)touch_tensors(trm_gguf_weights(g));
        for (size_t i = 0; trm_gguf_key(g, i) != NULL; i++)
            (void)touch_key(g, trm_gguf_key(g, i));
        if (trm_lm_config_gguf(g, &c) == TRM_OK) {
            for (int64_t l = 0; l < c.layers; l++)
                (void)trm_lm_layer_windowed(&c, l);
            if (trm_lm_context_max(&c) < 1)
                abort();
            trm_lm_config_fini(&c);
        }
        trm_gguf_close(g);
    }
    trm_file_unref(f);
    return 0;
}
