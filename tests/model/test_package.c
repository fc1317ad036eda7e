/* Packages: the demo's digits, YAML settings and their refusals, foreign formats, labels. */
#include "base/file.h"
#include "model/package.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS TRM_SOURCE_DIR "/configs/demo/digits"

static char folder[] = "/tmp/trm_package_XXXXXX";

static void put(const char *name, const void *data, size_t bytes)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "wb");
    ck_assert(f != NULL && fwrite(data, 1, bytes, f) == bytes);
    fclose(f);
}

static void set_up(void)
{
    strcpy(folder, "/tmp/trm_package_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void tear_down(void)
{
    char command[300];

    snprintf(command, sizeof(command), "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): a folder of our own */
}

/* The digits network under another name, with this YAML beside it. */
static trm_status open_with(const char *yaml, trm_package **p)
{
    trm_file *f;
    char path[256];

    ck_assert_int_eq(trm_file_open(DIGITS "/model.onnx", &f), TRM_OK);
    put("net.onnx", trm_file_data(f), trm_file_bytes(f));
    trm_file_unref(f);
    if (yaml != NULL)
        put("net.yaml", yaml, strlen(yaml));
    snprintf(path, sizeof(path), "%s/net.onnx", folder);
    return trm_package_open(path, p);
}

START_TEST(opens_the_demo)
{
    trm_package *p;

    ck_assert_msg(trm_package_open(_i == 0 ? DIGITS : DIGITS "/model.onnx", &p) == TRM_OK, "%s",
                  trm_message());
    ck_assert(p->has_yaml && p->has_preprocess);
    ck_assert_int_eq(p->label_count, 10);
    ck_assert_str_eq(p->labels[9], "9");
    ck_assert_str_eq(p->output_name, "logits");
    ck_assert_int_eq(p->activation, TRM_ACTIVATION_SOFTMAX);
    ck_assert_int_eq(p->top_k, 3);
    ck_assert_int_eq(p->preprocess.color, TRM_COLOR_GREY);
    ck_assert(p->preprocess.mean_count == 1 && p->preprocess.mean[0] == 0.5f &&
              p->preprocess.std[0] == 0.5f && p->preprocess.scale == 1.0f / 255.0f);
    trm_package_close(p);
}
END_TEST

START_TEST(reads_settings)
{
    trm_package *p;

    put("names.txt", "a\r\nb\n\nd\ne\nf\ng\nh\ni\nj\n\n", 21);
    ck_assert_msg(
        open_with("preprocess: { resize: [40, 48], crop: 32, interpolation: bicubic, "
                  "antialias: false, color: bgr, scale: 1, std: [1, 2, 3], layout: nhwc }\n"
                  "labels: names.txt\nactivation: sigmoid\n",
                  &p) == TRM_OK,
        "%s", trm_message());
    ck_assert(p->preprocess.resize_height == 40 && p->preprocess.resize_width == 48);
    ck_assert(p->preprocess.crop_height == 32 && p->preprocess.crop_width == 32);
    ck_assert_int_eq(p->preprocess.interpolation, TRM_INTERPOLATION_BICUBIC);
    ck_assert_int_eq(p->preprocess.color, TRM_COLOR_BGR);
    ck_assert(!p->preprocess.antialias && p->preprocess.channels_last &&
              p->preprocess.scale == 1.0f);
    ck_assert(p->preprocess.mean_count == 3 && p->preprocess.mean[2] == 0.0f &&
              p->preprocess.std[2] == 3.0f);
    ck_assert_int_eq(p->label_count, 10);
    ck_assert_str_eq(p->labels[0], "a");
    ck_assert_str_eq(p->labels[2], "");
    ck_assert_int_eq(p->activation, TRM_ACTIVATION_SIGMOID);
    trm_package_close(p);
}
END_TEST

START_TEST(no_yaml)
{
    trm_package *p;

    ck_assert_msg(open_with(NULL, &p) == TRM_OK, "%s", trm_message());
    ck_assert(!p->has_yaml && !p->has_preprocess && p->labels == NULL);
    ck_assert_int_eq(p->activation, TRM_ACTIVATION_SOFTMAX);
    ck_assert_int_eq(p->top_k, 5);
    ck_assert_int_eq(trm_package_default_preprocess(p), TRM_OK); /* image is [batch, 1, 32, 32] */
    ck_assert(p->preprocess.color == TRM_COLOR_GREY && p->preprocess.resize_height == 32 &&
              p->preprocess.resize_width == 32 && p->preprocess.mean_count == 0);
    trm_package_close(p);
}
END_TEST

static const struct {
    const char *yaml, *message;
} bad_yaml[] = {
    {"preproces: {}", "net.yaml:1:1: key 'preproces' unknown in a model's YAML; did you mean "
                      "'preprocess'? known: preprocess, labels, output, activation, top_k"},
    {"preprocess: { resise: 3 }", "did you mean 'resize'?"},
    {"preprocess: { resize: [1, 2, 3] }", "right is 1 to 2"},
    {"preprocess: { resize: 0 }", "right is 1 to 65535"},
    {"preprocess: { interpolation: cubic }", "nearest|bilinear|bicubic"},
    {"preprocess: { mean: [1, 2] }", "2 values for 3 channels"},
    {"preprocess: { color: grey, mean: [1, 2, 3] }", "3 values for 1 channel; right is 1"},
    {"preprocess: { mean: 0.5, std: 0 }", "right is over 0"},
    {"output: logit", "did you mean 'logits'?"},
    {"labels: none.txt", "none.txt"},
    {"labels: two.txt", "has 2 lines, but the model's output 'logits' has 10 classes"},
    {"top_k: -1", "right is 1 to 1000"},
    {"top_k: [", "net.yaml:"},
};

START_TEST(refuses_yaml)
{
    trm_package *p;

    put("two.txt", "a\nb\n", 4);
    ck_assert_int_eq(open_with(bad_yaml[_i].yaml, &p), TRM_ERR_CONFIG);
    ck_assert_msg(strstr(trm_message(), bad_yaml[_i].message) != NULL, "%s", trm_message());
    ck_assert_ptr_nonnull(strstr(trm_message(), "net.yaml:"));
}
END_TEST

static const struct {
    const char *name, *bytes;
    size_t count;
    trm_status status;
    const char *message;
} foreign[] = {
    {"a.onnx", "", 0, TRM_ERR_BAD_FILE, "is empty"},
    {"a.pt", "PK\3\4..........archive/data.pkl", 30, TRM_ERR_UNSUPPORTED,
     "torch.onnx.export(model.eval(), torch.randn(1, 3, 224, 224), \"a.onnx\""},
    {"a.pth", "\x80\2\x8a\nl\xfc\x9c", 7, TRM_ERR_UNSUPPORTED, "torch.onnx.export("},
    {"a.ts", "PK\3\4....a/data.pkl....a/code/x.py", 33, TRM_ERR_UNSUPPORTED, "torch.jit.load"},
    {"a.zip", "PK\3\4.....................", 25, TRM_ERR_UNSUPPORTED, "zip archive"},
    {"a.safetensors", "\x0a\0\0\0\0\0\0\0{\"a\":1234}", 18, TRM_ERR_UNSUPPORTED, "safetensors"},
    {"a.gguf", "GGUF\3\0\0\0", 8, TRM_ERR_UNSUPPORTED, "this version runs ONNX files"},
    {"a.onnx", "version https://git-lfs.github.com/spec/v1\n", 43, TRM_ERR_UNSUPPORTED, "git lfs"},
    {"a.png", "\x89PNG\r\n\x1a\n", 8, TRM_ERR_UNSUPPORTED, "a PNG image"},
    {"a.txt", "hello there\n", 12, TRM_ERR_BAD_FILE, "starts with the text 'hello there"},
    {"a.bin", "\xfe\xed\1\2", 4, TRM_ERR_BAD_FILE, "the bytes fe ed 01 02"},
};

START_TEST(names_formats)
{
    char path[256];
    trm_package *p;

    put(foreign[_i].name, foreign[_i].bytes, foreign[_i].count);
    snprintf(path, sizeof(path), "%s/%s", folder, foreign[_i].name);
    ck_assert_int_eq(trm_package_open(path, &p), foreign[_i].status);
    ck_assert_msg(strstr(trm_message(), foreign[_i].message) != NULL, "%s", trm_message());
    ck_assert_ptr_nonnull(strstr(trm_message(), path));
}
END_TEST

START_TEST(folders)
{
    trm_package *p;

    ck_assert_int_eq(trm_package_open("/nowhere/net.onnx", &p), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_package_open(folder, &p), TRM_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(trm_message(), "it is empty"));
    put("notes.txt", "x", 1);
    ck_assert_int_eq(trm_package_open(folder, &p), TRM_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(trm_message(), "notes.txt"));
    put("model.safetensors", "x", 1);
    ck_assert_int_eq(trm_package_open(folder, &p), TRM_ERR_UNSUPPORTED);
    ck_assert_int_eq(open_with(NULL, &p), TRM_OK);
    trm_package_close(p);
    ck_assert_int_eq(trm_package_open(folder, &p), TRM_OK); /* the one .onnx file in it */
    trm_package_close(p);
    put("other.onnx", "x", 1);
    ck_assert_int_eq(trm_package_open(folder, &p), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "2 .onnx files"));
}
END_TEST

static const struct {
    trm_dtype dtype;
    int rank;
    int64_t dims[4];
    bool ok;
    int resize[2], crop, means;
    bool last;
} inputs[] = {
    {TRM_DTYPE_F32, 4, {-1, 3, 224, 224}, true, {256, 0}, 224, 3, false},
    {TRM_DTYPE_F32, 4, {1, 3, 299, 299}, true, {342, 0}, 299, 3, false},
    {TRM_DTYPE_F32, 4, {1, 3, -1, -1}, true, {256, 0}, 224, 3, false},
    {TRM_DTYPE_F32, 4, {1, 3, 96, 128}, true, {96, 128}, 0, 3, false},
    {TRM_DTYPE_F32, 4, {1, 224, 224, 3}, true, {256, 0}, 224, 3, true},
    {TRM_DTYPE_U8, 4, {1, 3, 64, 64}, true, {64, 64}, 0, 0, false},
    {TRM_DTYPE_F32, 4, {1, 1, 28, 28}, true, {28, 28}, 0, 0, false},
    {TRM_DTYPE_F32, 4, {1, 1, -1, -1}, true, {0, 0}, 0, 0, false},
    {TRM_DTYPE_F32, 4, {1, 4, 28, 28}, false, {0, 0}, 0, 0, false},
    {TRM_DTYPE_F32, 2, {1, 128}, false, {0, 0}, 0, 0, false},
};

START_TEST(default_preprocess)
{
    trm_package p;
    trm_tensor d = {inputs[_i].dtype, TRM_LAYOUT_PLAIN, inputs[_i].rank, {0}, NULL};
    int id;

    memset(&p, 0, sizeof(p));
    p.model_path = folder;
    memcpy(d.dims, inputs[_i].dims, sizeof(inputs[_i].dims));
    ck_assert_int_eq(trm_graph_create(NULL, "g", &p.graph), TRM_OK);
    ck_assert_int_eq(trm_graph_add_value(p.graph, "x", &d, &id), TRM_OK);
    ck_assert_int_eq(trm_graph_set_inputs(p.graph, &id, 1), TRM_OK);
    ck_assert_int_eq(trm_package_default_preprocess(&p),
                     inputs[_i].ok ? TRM_OK : TRM_ERR_INVALID_ARG);
    if (inputs[_i].ok) {
        ck_assert_int_eq(p.preprocess.resize_height, inputs[_i].resize[0]);
        ck_assert_int_eq(p.preprocess.resize_width, inputs[_i].resize[1]);
        ck_assert_int_eq(p.preprocess.crop_height, inputs[_i].crop);
        ck_assert_int_eq(p.preprocess.mean_count, inputs[_i].means);
        ck_assert(p.preprocess.channels_last == inputs[_i].last);
    }
    trm_graph_destroy(p.graph);
}
END_TEST

START_TEST(top)
{
    static const float scores[] = {1, 3, NAN, 3, -2, 0};
    char *labels[] = {(char *)(uintptr_t) "a", (char *)(uintptr_t) "b"};
    trm_package p;
    trm_label l[8];

    memset(&p, 0, sizeof(p));
    p.labels = labels;
    p.label_count = 2;
    ck_assert_int_eq(trm_package_top(&p, scores, 6, 3, l), 3);
    ck_assert(l[0].index == 1 && l[1].index == 3 && l[2].index == 0);
    ck_assert_str_eq(l[0].text, "b");
    ck_assert_ptr_null(l[1].text);
    ck_assert(l[2].score == 1.0f);
    ck_assert_int_eq(trm_package_top(&p, scores, 6, 8, l), 6);
    ck_assert_int_eq(l[5].index, 2); /* not a number: last */
    ck_assert_int_eq(trm_package_top(&p, scores, 6, 0, l), 0);
    ck_assert_int_eq(trm_package_top(&p, scores, 0, 3, l), 0);
    p.activation = TRM_ACTIVATION_SOFTMAX;
    ck_assert_int_eq(trm_package_top(&p, scores + 3, 3, 1, l), 1);
    ck_assert(fabs((double)l[0].score - 1 / (1 + exp(-5) + exp(-3))) < 1e-6);
    p.activation = TRM_ACTIVATION_SIGMOID;
    ck_assert_int_eq(trm_package_top(&p, scores, 2, 1, l), 1);
    ck_assert(fabs((double)l[0].score - 1 / (1 + exp(-3))) < 1e-6);
}
END_TEST

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

int main(void)
{
    Suite *s = suite_create("package");
    TCase *t = tcase_create("package");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_loop_test(t, opens_the_demo, 0, 2);
    tcase_add_test(t, reads_settings);
    tcase_add_test(t, no_yaml);
    tcase_add_loop_test(t, refuses_yaml, 0, ROWS(bad_yaml));
    tcase_add_loop_test(t, names_formats, 0, ROWS(foreign));
    tcase_add_test(t, folders);
    tcase_add_loop_test(t, default_preprocess, 0, ROWS(inputs));
    tcase_add_test(t, top);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
