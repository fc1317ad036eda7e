/* The YAML beside a model: its table of settings, and its checks against the graph. */
#include "base/config.h"
#include "model/package_impl.h"

#include <math.h>
#include <string.h>

typedef struct preprocess_cfg {
    trm_config_list resize, crop, mean, std;
    int interpolation, color, layout;
    bool antialias;
    double scale;
} preprocess_cfg;
typedef struct model_cfg {
    const preprocess_cfg *preprocess;
    const char *labels, *output;
    int activation;
    int64_t top_k;
} model_cfg;

#define SIDE_MAX 65535
#define LABELS_BYTES_MAX ((size_t)64 << 20)

static const trm_config_row preprocess_rows[] = {
    {.name = "resize",
     .type = TRM_CONFIG_LIST,
     .offset = offsetof(preprocess_cfg, resize),
     .item = TRM_CONFIG_INT,
     .min = 1,
     .max = 2,
     .item_min = 1,
     .item_max = SIDE_MAX,
     .flags = TRM_CONFIG_ONE_OK,
     .help = "the shorter side, or [height, width]"},
    {.name = "crop",
     .type = TRM_CONFIG_LIST,
     .offset = offsetof(preprocess_cfg, crop),
     .item = TRM_CONFIG_INT,
     .min = 1,
     .max = 2,
     .item_min = 1,
     .item_max = SIDE_MAX,
     .flags = TRM_CONFIG_ONE_OK,
     .help = "a square from the centre, or [height, width]"},
    {.name = "interpolation",
     .type = TRM_CONFIG_CHOICE,
     .offset = offsetof(preprocess_cfg, interpolation),
     .otherwise = "bilinear",
     .choices = "nearest|bilinear|bicubic", /* in the order of trm_interpolation */
     .help = "how resize weighs samples"},
    {.name = "antialias",
     .type = TRM_CONFIG_BOOL,
     .offset = offsetof(preprocess_cfg, antialias),
     .otherwise = "true",
     .help = "as PIL resizes; false: as torch resizes tensors"},
    {.name = "color",
     .type = TRM_CONFIG_CHOICE,
     .offset = offsetof(preprocess_cfg, color),
     .otherwise = "rgb",
     .choices = "rgb|bgr|grey", /* in the order of trm_color */
     .help = "the model's channels"},
    {.name = "scale",
     .type = TRM_CONFIG_FLOAT,
     .offset = offsetof(preprocess_cfg, scale),
     .otherwise = "0.00392156862745098",
     .help = "multiplies the sample 0..255"},
    {.name = "mean",
     .type = TRM_CONFIG_LIST,
     .offset = offsetof(preprocess_cfg, mean),
     .item = TRM_CONFIG_FLOAT,
     .min = 1,
     .max = 4,
     .flags = TRM_CONFIG_ONE_OK,
     .help = "subtracted after scaling; one, or one a channel"},
    {.name = "std",
     .type = TRM_CONFIG_LIST,
     .offset = offsetof(preprocess_cfg, std),
     .item = TRM_CONFIG_FLOAT,
     .min = 1,
     .max = 4,
     .flags = TRM_CONFIG_ONE_OK,
     .help = "divides after the mean; one, or one a channel"},
    {.name = "layout",
     .type = TRM_CONFIG_CHOICE,
     .offset = offsetof(preprocess_cfg, layout),
     .otherwise = "nchw",
     .choices = "nchw|nhwc",
     .help = "order of the model's dims"},
};
static const trm_config_section preprocess_section = {
    "preprocess", sizeof(preprocess_cfg), preprocess_rows,
    sizeof(preprocess_rows) / sizeof(preprocess_rows[0])};

static const trm_config_row model_rows[] = {
    {.name = "preprocess",
     .type = TRM_CONFIG_MAP,
     .offset = offsetof(model_cfg, preprocess),
     .section = &preprocess_section,
     .flags = TRM_CONFIG_OPTIONAL,
     .help = "how an image becomes the input tensor"},
    {.name = "labels",
     .type = TRM_CONFIG_STRING,
     .offset = offsetof(model_cfg, labels),
     .help = "text file, one class a line, relative to this file"},
    {.name = "output",
     .type = TRM_CONFIG_STRING,
     .offset = offsetof(model_cfg, output),
     .help = "the output with class scores; default: the first"},
    {.name = "activation",
     .type = TRM_CONFIG_CHOICE,
     .offset = offsetof(model_cfg, activation),
     .otherwise = "auto",
     .choices = "none|softmax|sigmoid|auto", /* the first three in the order of trm_activation */
     .help = "from scores to probabilities; auto: softmax unless the model ends with one"},
    {.name = "top_k",
     .type = TRM_CONFIG_INT,
     .offset = offsetof(model_cfg, top_k),
     .otherwise = "5",
     .min = 1,
     .max = 1000,
     .help = "how many labels are shown"},
};
static const trm_config_section model_section = {"a model's YAML", sizeof(model_cfg), model_rows,
                                                 sizeof(model_rows) / sizeof(model_rows[0])};

/* One or two whole numbers; one becomes (v, one_width). */
static void take_size(const trm_config_list *list, bool square, int *height, int *width)
{
    const int64_t *v = (const int64_t *)list->items;

    if (list->count == 0)
        return;
    *height = (int)v[0];
    *width = list->count == 2 ? (int)v[1] : square ? (int)v[0] : 0;
}

static trm_status take_preprocess(trm_package *p, const trm_config *config, const preprocess_cfg *c)
{
    trm_preprocess *o = &p->preprocess;
    const double *mean = (const double *)c->mean.items, *std = (const double *)c->std.items;
    int channels = c->color == TRM_COLOR_GREY ? 1 : 3;
    int given = c->mean.count > c->std.count ? c->mean.count : c->std.count;

    trm_preprocess_defaults(o);
    take_size(&c->resize, false, &o->resize_height, &o->resize_width);
    take_size(&c->crop, true, &o->crop_height, &o->crop_width);
    o->interpolation = (trm_interpolation)c->interpolation;
    o->antialias = c->antialias;
    o->color = (trm_color)c->color;
    o->scale = (float)c->scale;
    o->channels_last = c->layout == 1;
    if (given != 0 && given != 1 && given != channels)
        return trm_config_fail(config,
                               c->mean.count == given ? "preprocess.mean" : "preprocess.std",
                               "%d values for %d channel%s; right is 1%s", given, channels,
                               channels == 1 ? "" : "s", channels == 1 ? "" : " or 3");
    if (c->mean.count > 1 && c->std.count > 1 && c->mean.count != c->std.count)
        return trm_config_fail(config, "preprocess.std", "%d values, but mean has %d", c->std.count,
                               c->mean.count);
    o->mean_count = given;
    for (int i = 0; i < given; i++) {
        o->mean[i] = c->mean.count == 0 ? 0 : (float)mean[c->mean.count == 1 ? 0 : i];
        o->std[i] = c->std.count == 0 ? 1 : (float)std[c->std.count == 1 ? 0 : i];
        if (!(o->std[i] > 0))
            return trm_config_fail(config, "preprocess.std", "a std of %g; right is over 0",
                                   (double)o->std[i]);
    }
    p->has_preprocess = true;
    return TRM_OK;
}

/* A model that takes bytes gets them unscaled. */
static trm_status adapt_dtype(trm_package *p, const trm_config *config)
{
    const trm_graph *g = p->graph;

    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];

        if (v->desc.dtype != TRM_DTYPE_U8 || v->desc.rank < 3)
            continue;
        if (p->preprocess.mean_count != 0)
            return trm_config_fail(config, "preprocess",
                                   "the model's input '%s' takes bytes 0..255: mean and std do not "
                                   "apply",
                                   v->name);
        p->preprocess.dtype = TRM_DTYPE_U8;
        return TRM_OK;
    }
    return TRM_OK;
}

static trm_status take_output(trm_package *p, const trm_config *config, const char *name)
{
    const char *names[64] = {NULL}, *near;
    const trm_graph *g = p->graph;
    int count = g->output_count < 64 ? g->output_count : 64;

    for (int i = 0; i < g->output_count; i++)
        if (strcmp(g->values[g->outputs[i]].name, name) == 0) {
            p->output_name = trm_strdup(name);
            return p->output_name == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "output's name") : TRM_OK;
        }
    for (int i = 0; i < count; i++)
        names[i] = g->values[g->outputs[i]].name;
    near = trm_config_nearest(name, names, count);
    return trm_config_fail(config, "output", "the model has no output '%.100s'%s%s%s; it has %s%s",
                           name, near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                           near != NULL ? "'?" : "", count > 0 ? names[0] : "none",
                           count > 1 ? ", ..." : "");
}

static const trm_value *score_output(const trm_package *p)
{
    const trm_graph *g = p->graph;

    for (int i = 0; i < g->output_count; i++) {
        const trm_value *v = &g->values[g->outputs[i]];

        if (p->output_name == NULL || strcmp(v->name, p->output_name) == 0)
            return v;
    }
    return NULL;
}

/* One label a line; a carriage return before the newline and blank lines at the end are dropped. */
static trm_status split_labels(trm_package *p, const char *text, size_t bytes, const char *path)
{
    size_t lines = 0, at = 0;

    while (bytes > 0 && (text[bytes - 1] == '\n' || text[bytes - 1] == '\r'))
        bytes--;
    if (bytes == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' holds no labels: one class a line is wanted", path);
    for (size_t i = 0; i < bytes; i++)
        lines += text[i] == '\n';
    lines++;
    if (lines > 10000000)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': %zu lines of labels", path, lines);
    p->labels = (char **)trm_calloc(lines, sizeof(*p->labels));
    if (p->labels == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': labels", path);
    for (size_t i = 0; i < lines; i++) {
        const char *end = (const char *)memchr(text + at, '\n', bytes - at);
        size_t n = end == NULL ? bytes - at : (size_t)(end - (text + at));
        size_t kept = n > 0 && text[at + n - 1] == '\r' ? n - 1 : n;

        p->labels[i] = (char *)trm_malloc(kept + 1, 1);
        if (p->labels[i] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "'%s': labels", path);
        p->label_count++;
        memcpy(p->labels[i], text + at, kept);
        p->labels[i][kept] = '\0';
        at += n + 1;
    }
    return TRM_OK;
}

static trm_status take_labels(trm_package *p, const trm_config *config, const char *folder,
                              const char *name)
{
    const trm_value *out = score_output(p);
    char *path = trm_path_join(folder, name);
    trm_file *file = NULL;
    trm_status st;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "labels");
    st = trm_file_open(path, &file);
    if (st != TRM_OK) {
        char why[512];

        strncpy(why, trm_message(), sizeof(why) - 1);
        why[sizeof(why) - 1] = '\0';
        st = trm_config_fail(config, "labels", "%s", why);
        goto done;
    }
    if (trm_file_bytes(file) > LABELS_BYTES_MAX) {
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s': %zu bytes are too many for labels", path,
                      trm_file_bytes(file));
        goto done;
    }
    TRM_TRY(st, split_labels(p, (const char *)trm_file_data(file), trm_file_bytes(file), path),
            done);
    if (out != NULL && out->desc.rank == 2 && out->desc.dims[1] > 1 &&
        out->desc.dims[1] != p->label_count)
        st = trm_config_fail(config, "labels",
                             "'%s' has %d lines, but the model's output '%s' has %lld classes",
                             path, p->label_count, out->name, (long long)out->desc.dims[1]);
done:
    trm_file_unref(file);
    trm_free(path);
    return st;
}

static trm_activation activation_of(const trm_package *p, int choice)
{
    const trm_value *out = score_output(p);

    if (choice != 3)
        return (trm_activation)choice;
    if (out != NULL && out->producer >= 0) {
        trm_op op = p->graph->nodes[out->producer].op;

        if (op == TRM_OP_Softmax || op == TRM_OP_Sigmoid)
            return TRM_ACTIVATION_NONE;
    }
    return TRM_ACTIVATION_SOFTMAX;
}

static trm_status apply(trm_package *p, const trm_config *config, const char *folder)
{
    const model_cfg *c = (const model_cfg *)trm_config_get(config);

    if (c->preprocess != NULL) {
        TRM_CHECK(take_preprocess(p, config, c->preprocess));
        TRM_CHECK(adapt_dtype(p, config));
    }
    if (c->output != NULL)
        TRM_CHECK(take_output(p, config, c->output));
    if (c->labels != NULL)
        TRM_CHECK(take_labels(p, config, folder, c->labels));
    p->activation = activation_of(p, c->activation);
    p->top_k = (int)c->top_k;
    return TRM_OK;
}

/* The first of <stem>.yaml, model.yaml and trireme.yaml that is there; NULL: none. */
static trm_status find_yaml(const char *folder, const char *stem, char **path_out)
{
    const char *const names[] = {stem, "model", "trireme"};
    char name[512];

    *path_out = NULL;
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(names[i]);
        char *path;

        if (n + 6 > sizeof(name))
            continue;
        memcpy(name, names[i], n);
        memcpy(name + n, ".yaml", 6);
        path = trm_path_join(folder, name);
        if (path == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", name);
        if (trm_path_exists(path)) {
            *path_out = path;
            return TRM_OK;
        }
        trm_free(path);
    }
    return TRM_OK;
}

trm_status trm_package_configure(trm_package *package, const char *text, const char *name)
{
    trm_activation activation = package->activation;
    int top_k = package->top_k;
    char *folder = trm_path_dir(package->model_path);
    trm_config *config = NULL;
    trm_status st;

    if (folder == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", package->model_path);
    TRM_TRY(st, trm_config_parse(text, strlen(text), name, &model_section, &config), done);
    if (trm_config_find(config, "labels") != NULL) {
        for (int i = 0; i < package->label_count; i++)
            trm_free(package->labels[i]);
        trm_free(package->labels);
        package->labels = NULL;
        package->label_count = 0;
    }
    if (trm_config_find(config, "output") != NULL) {
        trm_free(package->output_name);
        package->output_name = NULL;
    }
    st = apply(package, config, folder);
    if (trm_config_find(config, "activation") == NULL)
        package->activation = activation;
    if (trm_config_find(config, "top_k") == NULL)
        package->top_k = top_k;
done:
    trm_config_destroy(config);
    trm_free(folder);
    return st;
}

trm_status trmi_package_read_yaml(trm_package *package)
{
    char *folder = trm_path_dir(package->model_path), *stem = trm_path_stem(package->model_path);
    char *path = NULL;
    trm_config *config = NULL;
    trm_status st = TRM_OK;

    if (folder == NULL || stem == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "'%s'", package->model_path);
        goto done;
    }
    TRM_TRY(st, find_yaml(folder, stem, &path), done);
    package->has_yaml = path != NULL;
    if (path == NULL) { /* an empty file: the defaults */
        TRM_TRY(st, trm_config_parse("", 0, "defaults", &model_section, &config), done);
    } else {
        TRM_TRY(st, trm_config_load(path, &model_section, &config), done);
    }
    st = apply(package, config, folder);
done:
    trm_config_destroy(config);
    trm_free(path);
    trm_free(folder);
    trm_free(stem);
    return st;
}
