/* A model as a user hands it over: a file or a folder, with the YAML beside it that says how images
 * become tensors and outputs become labels.
 *
 * MODEL is a .onnx file, or a folder that holds model.onnx. The YAML is <stem>.yaml beside the file
 * (resnet50.onnx -> resnet50.yaml), else model.yaml or trireme.yaml in its folder; it may be
 * absent. Keys, explained in docs/model-yaml.md:
 *
 *   preprocess:
 *     resize: 256 | [h, w]    crop: 224 | [h, w]    color: rgb|bgr|grey    layout: nchw|nhwc
 *     interpolation: bilinear|bicubic|nearest       antialias: true|false
 *     scale: 0.00392156862745098    mean: x | [..]  std: x | [..]
 *   labels: labels.txt     one label a line
 *   output: logits         which output holds class scores (default: the first)
 *   activation: auto|softmax|sigmoid|none   (auto: softmax, unless the graph ends in it or Sigmoid)
 *   top_k: 5
 *
 * Unknown keys are errors with file:line. */
#ifndef TRM_MODEL_PACKAGE_H
#define TRM_MODEL_PACKAGE_H

#include "model/graph.h"
#include "model/image.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trm_activation {
    TRM_ACTIVATION_NONE,
    TRM_ACTIVATION_SOFTMAX,
    TRM_ACTIVATION_SIGMOID
} trm_activation;

typedef struct trm_package {
    char *model_path;
    trm_graph *graph; /* imported, sorted; not yet through the passes */
    bool has_yaml;
    bool has_preprocess;
    trm_preprocess preprocess;
    char **labels; /* NULL: none */
    int label_count;
    char *output_name; /* NULL: the first output */
    trm_activation activation;
    int top_k;
} trm_package;

/* Opens MODEL. Errors name the path; a .pt/.pth/TorchScript file is UNSUPPORTED with the
 * torch.onnx.export call to make. */
TRM_MUST_USE trm_status trm_package_open(const char *path, trm_package **package_out);
void trm_package_close(trm_package *package);
/* Where no YAML gives preprocessing: what the graph's image input [N, C, H, W] needs: ImageNet's
 * resize/crop/mean/std for C == 3, plain 0..1 for C == 1. INVALID_ARG if the graph has no single
 * image-like input. */
TRM_MUST_USE trm_status trm_package_default_preprocess(trm_package *package);

/* Settings as in a YAML beside the model, which they replace one by one: `text` is YAML or JSON,
 * `name` for messages. Paths are relative to the model. CONFIG. */
TRM_MUST_USE trm_status trm_package_configure(trm_package *package, const char *text,
                                              const char *name);

/* Makes a model that takes images as floats take them as bytes, [N, H, W, C]: the graph gets a
 * TrmImageTable in front, preprocessing ends before scale, mean and std, and the same numbers
 * result. Before the passes. Nothing happens (OK) where images are bytes already or the input is no
 * F32 [N, C, H, W] or [N, H, W, C]. With preprocessing absent: as trm_package_default_preprocess.
 */
TRM_MUST_USE trm_status trm_package_take_bytes(trm_package *package);

/* A hash of the model: of its file and of weights beside it (as trm_hash_file, so of large files a
 * sample), and of what its YAML says. Names but the weights' do not count. NOT_FOUND, IO. */
TRM_MUST_USE trm_status trm_package_identity(const trm_package *package, uint64_t *hash_out);

typedef struct trm_label {
    int index;
    float score;      /* after the activation */
    const char *text; /* borrowed; NULL without labels */
} trm_label;
/* The k best of `scores` [classes] (ties: lower index first), after the package's activation.
 * Returns how many. */
int trm_package_top(const trm_package *package, const float *scores, size_t classes, int k,
                    trm_label *labels_out);

#ifdef __cplusplus
}
#endif
#endif
