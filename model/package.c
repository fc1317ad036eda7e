/* A model as a user hands it over: file, graph, YAML, labels; and its scores as labels. */
#include "model/onnx/onnx.h"
#include "model/package_impl.h"

#include <math.h>
#include <string.h>

trm_status trm_package_open(const char *path, trm_package **package_out)
{
    trm_package *p = (trm_package *)trm_calloc(1, sizeof(*p));
    trm_file *file = NULL;
    trm_status st;

    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", path);
    if (trm_path_is_dir(path)) {
        TRM_TRY(st, trmi_package_find_model(path, &p->model_path), done);
    } else {
        p->model_path = trm_strdup(path);
        if (p->model_path == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "'%s'", path);
            goto done;
        }
    }
    TRM_TRY(st, trm_file_open(p->model_path, &file), done);
    TRM_TRY(st, trmi_package_check_format(file), done);
    TRM_TRY(st, trm_onnx_import(file, &p->graph), done);
    TRM_TRY(st, trmi_package_read_yaml(p), done);
    *package_out = p;
    p = NULL;
done:
    trm_file_unref(file);
    trm_package_close(p);
    return st;
}

void trm_package_close(trm_package *package)
{
    if (package == NULL)
        return;
    for (int i = 0; i < package->label_count; i++)
        trm_free(package->labels[i]);
    trm_free(package->labels);
    trm_free(package->output_name);
    trm_free(package->model_path);
    trm_graph_destroy(package->graph);
    trm_free(package);
}

/* ImageNet's numbers, as torchvision's weights publish them. */
static void imagenet(trm_preprocess *o, int64_t height, int64_t width)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};

    if (height < 0 || width < 0)
        height = width = 224;
    if (height == width) {
        o->resize_height = (int)((height * 256 + 112) / 224); /* 224: 256; 299: 342 */
        o->crop_height = o->crop_width = (int)height;
    } else {
        o->resize_height = (int)height;
        o->resize_width = (int)width;
    }
    o->mean_count = 3;
    memcpy(o->mean, mean, sizeof(mean));
    memcpy(o->std, std, sizeof(std));
}

trm_status trm_package_default_preprocess(trm_package *package)
{
    const trm_graph *g = package->graph;
    const trm_value *v = g->input_count == 1 ? &g->values[g->inputs[0]] : NULL;
    trm_preprocess o;
    const int64_t *d;
    int64_t channels, height, width;
    char shape[TRM_SHAPE_TEXT_BYTES];

    if (v == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' has %d inputs; for images it must have one, or a YAML with "
                        "'preprocess' (docs/model-yaml.md)",
                        package->model_path, g->input_count);
    d = v->desc.dims;
    trm_preprocess_defaults(&o);
    if (v->desc.rank == 4 && (d[1] == 1 || d[1] == 3)) {
        channels = d[1];
        height = d[2];
        width = d[3];
    } else if (v->desc.rank == 4 && (d[3] == 1 || d[3] == 3)) {
        channels = d[3];
        height = d[1];
        width = d[2];
        o.channels_last = true;
    } else {
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "input '%s' of '%s' is %s, not images [N, 3, H, W] or [N, 1, H, W]; a YAML "
                        "with 'preprocess' says how images fit it (docs/model-yaml.md)",
                        v->name, package->model_path,
                        trm_tensor_shape_text(&v->desc, shape, sizeof(shape)));
    }
    if (height == 0 || width == 0 || height > 65535 || width > 65535)
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' of '%s' is %s: no image has that size",
                        v->name, package->model_path,
                        trm_tensor_shape_text(&v->desc, shape, sizeof(shape)));
    if (channels == 3 && v->desc.dtype != TRM_DTYPE_U8) {
        imagenet(&o, height, width);
    } else if (height > 0 && width > 0) {
        o.resize_height = (int)height;
        o.resize_width = (int)width;
    }
    if (channels == 1)
        o.color = TRM_COLOR_GREY;
    if (v->desc.dtype == TRM_DTYPE_U8)
        o.dtype = TRM_DTYPE_U8;
    package->preprocess = o;
    package->has_preprocess = true;
    return TRM_OK;
}

/* Higher first; a score that is not a number is last. */
static bool better(float a, float b)
{
    return a > b || (isnan(b) && !isnan(a));
}

static float activate(trm_activation activation, float x, float top, double sum)
{
    switch (activation) {
    case TRM_ACTIVATION_SOFTMAX:
        return (float)(exp((double)(x - top)) / sum);
    case TRM_ACTIVATION_SIGMOID:
        return (float)(1.0 / (1.0 + exp(-(double)x)));
    default:
        return x;
    }
}

int trm_package_top(const trm_package *package, const float *scores, size_t classes, int k,
                    trm_label *labels_out)
{
    int count = 0;
    double sum = 0;
    float top;

    if (k <= 0 || classes == 0)
        return 0;
    for (size_t i = 0; i < classes; i++) { /* insertion into the k best so far */
        int at = count;

        if (count == k && !better(scores[i], labels_out[k - 1].score))
            continue;
        if (count < k)
            count++;
        else
            at--;
        while (at > 0 && better(scores[i], labels_out[at - 1].score)) {
            labels_out[at] = labels_out[at - 1];
            at--;
        }
        labels_out[at].index = (int)i;
        labels_out[at].score = scores[i];
    }
    top = labels_out[0].score;
    if (package->activation == TRM_ACTIVATION_SOFTMAX)
        for (size_t i = 0; i < classes; i++)
            sum += exp((double)(scores[i] - top));
    for (int i = 0; i < count; i++) {
        labels_out[i].text = labels_out[i].index < package->label_count
                                 ? package->labels[labels_out[i].index]
                                 : NULL;
        labels_out[i].score = activate(package->activation, labels_out[i].score, top, sum);
    }
    return count;
}
