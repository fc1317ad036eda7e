/* What a package is, as a number: its files' content and what its YAML says. */
#include "base/file.h"
#include "base/hash.h"
#include "model/package.h"

#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

static void add_float(trm_hash *h, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    trm_hash_u64(h, bits);
}

/* The YAML as it was understood, not its text: a comment changes nothing. */
static void add_preprocess(trm_hash *h, const trm_preprocess *p)
{
    const int numbers[] = {p->resize_height, p->resize_width,       p->crop_height, p->crop_width,
                           p->mean_count,    (int)p->interpolation, p->antialias,   (int)p->color,
                           p->channels_last, (int)p->dtype};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        trm_hash_u64(h, (uint64_t)(int64_t)numbers[i]);
    add_float(h, p->scale);
    for (int i = 0; i < p->mean_count && i < 4; i++) {
        add_float(h, p->mean[i]);
        add_float(h, p->std[i]);
    }
}

trm_status trm_package_identity(const trm_package *p, uint64_t *hash_out)
{
    const trm_graph *g = p->graph;
    trm_hash h;

    trm_hash_init(&h, 0);
    TRM_CHECK(trm_hash_file(&h, p->model_path));
    for (int i = 0; i < g->file_count; i++) { /* weights that lie outside of it */
        const char *path = trm_file_path(g->files[i]);

        if (trm_path_same(path, p->model_path))
            continue;
        trm_hash_text(&h, base_name(path));
        TRM_CHECK(trm_hash_file(&h, path));
    }
    trm_hash_u64(&h, p->has_preprocess);
    if (p->has_preprocess)
        add_preprocess(&h, &p->preprocess);
    for (int i = 0; i < p->label_count; i++)
        trm_hash_text(&h, p->labels[i]);
    trm_hash_text(&h, p->output_name != NULL ? p->output_name : "");
    trm_hash_u64(&h, (uint64_t)p->activation);
    *hash_out = trm_hash_value(&h);
    return TRM_OK;
}
