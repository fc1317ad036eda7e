/* safetensors files and folders of shards against what the safetensors package wrote, and bad files
 * one by one. */
#define _GNU_SOURCE /* mkdtemp */
#include "model/language/language_impl.h"
#include "tests/model/format_tests.h"

#include <unistd.h>

static char folder[64];

static void set_up(void)
{
    snprintf(folder, sizeof(folder), "/tmp/trm_safetensors_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void tear_down(void)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "a.safetensors",     "b.safetensors",
                                        "pytorch_model.bin", "c.bin"};
    char path[256];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    ck_assert_int_eq(rmdir(folder), 0);
}

static const char *inside(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

START_TEST(one_file)
{
    trm_weights *w = NULL;

    ck_assert_msg(trm_weights_open_safetensors(FORMATS "plain.safetensors", &w) == TRM_OK, "%s",
                  trm_message());
    compare_weights(w, "plain.safetensors");
    ck_assert_ptr_null(trm_weights_find(w, "f33"));
    ck_assert_ptr_null(trm_weights_find(w, ""));
    ck_assert_ptr_null(trm_weights_at(w, trm_weights_count(w)));
    for (size_t i = 0; i < trm_weights_count(w); i++)
        ck_assert_ptr_eq(trm_weights_find(w, trm_weights_at(w, i)->name), trm_weights_at(w, i));
    trm_weights_close(w);
}
END_TEST

START_TEST(shards)
{
    trm_weights *w = NULL;

    ck_assert_msg(trm_weights_open_safetensors(FORMATS "shards", &w) == TRM_OK, "%s",
                  trm_message());
    compare_weights(w, "shards");
    trm_weights_close(w);
}
END_TEST

/* A folder with one file needs no index; with both, the one file is meant. */
START_TEST(folder_of_one)
{
    trm_weights *w = NULL;

    copy_file(FORMATS "plain.safetensors", inside("model.safetensors"));
    write_file(inside("model.safetensors.index.json"), "{}", 2);
    ck_assert_int_eq(trm_weights_open_safetensors(folder, &w), TRM_OK);
    compare_weights(w, "plain.safetensors");
    trm_weights_close(w);
}
END_TEST

/* The graph keeps the file when the weights are closed. */
START_TEST(files_outlive_weights)
{
    trm_weights *w = NULL;
    trm_graph *g = NULL;
    const trm_weight *t;
    trm_tensor c;
    int v;

    ck_assert_int_eq(trm_weights_open_safetensors(FORMATS "plain.safetensors", &w), TRM_OK);
    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    t = trm_weights_find(w, "i32");
    ck_assert_int_eq(trm_graph_add_weight(g, t->name, &t->desc, t->file, t->offset, &v), TRM_OK);
    trm_weights_close(w);
    ck_assert_int_eq(trm_graph_constant(g, v, &c), TRM_OK);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(((const int32_t *)c.data)[i], i);
    trm_graph_destroy(g);
}
END_TEST

/* ---- bad files ---- */

#define F32_2(name, from, to)                                                                      \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" from "," to "]}"

static const struct bad {
    const char *name, *header;
    int data; /* bytes behind the header */
    trm_status status;
    const char *message;
} bad[] = {
    {"no JSON", "{\"a\":", 0, TRM_ERR_BAD_FILE, "header, byte"},
    {"not an object", "[1]", 0, TRM_ERR_BAD_FILE, "JSON header"},
    {"text behind it", "{}x", 0, TRM_ERR_BAD_FILE, "header, byte"},
    {"too deep", "{\"a\":{\"shape\":[[]]}}", 0, TRM_ERR_BAD_FILE, "deeper than 3"},
    {"a key twice", "{" F32_2("a", "0", "8") "," F32_2("a", "8", "16") "}", 16, TRM_ERR_BAD_FILE,
     "duplicate"},
    {"no name", "{" F32_2("", "0", "8") "}", 8, TRM_ERR_BAD_FILE, "the name of tensor 0"},
    {"a newline in a name", "{" F32_2("a\\nb", "0", "8") "}", 8, TRM_ERR_BAD_FILE,
     "control characters"},
    {"a NUL in a name", "{" F32_2("a\\u0000b", "0", "8") "}", 8, TRM_ERR_BAD_FILE, "header, byte"},
    {"bytes that are no UTF-8", "{" F32_2("\xff", "0", "8") "}", 8, TRM_ERR_BAD_FILE,
     "header, byte"},
    {"a tensor that is a number", "{\"a\":1}", 0, TRM_ERR_BAD_FILE, "want an object"},
    {"a member too many",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8,
     TRM_ERR_BAD_FILE, "want an object"},
    {"no dtype", "{\"a\":{\"type\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
     TRM_ERR_BAD_FILE, "\"dtype\""},
    {"other 8-bit floats", "{\"a\":{\"dtype\":\"F8_E5M2\",\"shape\":[8],\"data_offsets\":[0,8]}}",
     8, TRM_ERR_UNSUPPORTED, "tensor 'a' has dtype 'F8_E5M2'; supported are"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"shap\":[2],\"data_offsets\":[0,8]}}", 8,
     TRM_ERR_BAD_FILE, "\"shape\""},
    {"a negative dim", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8,
     TRM_ERR_BAD_FILE, "dim 0"},
    {"a fractional dim", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8,
     TRM_ERR_BAD_FILE, "dim 0"},
    {"a huge dim", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1099511627777],\"data_offsets\":[0,8]}}",
     8, TRM_ERR_BAD_FILE, "dim 0"},
    {"a number past 64 bits",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", 8,
     TRM_ERR_BAD_FILE, "header, byte"},
    {"a shape that overflows",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1099511627776,1099511627776],\"data_offsets\":[0,8]}}",
     8, TRM_ERR_BAD_FILE, "overflows"},
    {"nine dims", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
     1, TRM_ERR_UNSUPPORTED, "9 dims"},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offset\":[0,8]}}", 8,
     TRM_ERR_BAD_FILE, "\"data_offsets\""},
    {"one offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8,
     TRM_ERR_BAD_FILE, "\"data_offsets\""},
    {"offsets past the end", "{" F32_2("a", "0", "8") "}", 7, TRM_ERR_BAD_FILE, "cut or damaged"},
    {"an offset below zero", "{" F32_2("a", "-8", "0") "}", 8, TRM_ERR_BAD_FILE, "[-8, 0]"},
    {"offsets backwards", "{" F32_2("a", "8", "0") "}", 8, TRM_ERR_BAD_FILE, "[8, 0]"},
    {"too few bytes", "{" F32_2("a", "0", "4") "}", 8, TRM_ERR_BAD_FILE,
     "wants 8 bytes; data_offsets give it 4"},
    {"an overlap", "{" F32_2("a", "0", "8") "," F32_2("b", "4", "12") "}", 12, TRM_ERR_BAD_FILE,
     "tensor 'b' at byte"},
    {"an overlap behind a short tensor",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[12],\"data_offsets\":[0,12]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},"
     "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[11,12]}}",
     12, TRM_ERR_BAD_FILE, "tensor 'c' at byte"},
    {"metadata that is a list", "{\"__metadata__\":[]}", 0, TRM_ERR_BAD_FILE, "__metadata__"},
    {"metadata with a number", "{\"__metadata__\":{\"a\":1}}", 0, TRM_ERR_BAD_FILE, "'a'"},
};

static trm_status read_bytes(const void *data, size_t n)
{
    trm_weights *w = NULL;
    trm_file *f = NULL;
    trm_status st;

    ck_assert_int_eq(trm_file_from_memory(data, n, "x.safetensors", &f), TRM_OK);
    ck_assert_int_eq(trmi_weights_create(&w), TRM_OK);
    st = trmi_safetensors_read(w, f);
    if (st == TRM_OK)
        st = trmi_weights_finish(w);
    trm_weights_close(w);
    trm_file_unref(f);
    return st;
}

START_TEST(bad_headers)
{
    static bytes b;

    b.count = 0;
    put_int(&b, strlen(bad[_i].header), 8);
    put(&b, bad[_i].header, strlen(bad[_i].header));
    put_zeros(&b, (size_t)bad[_i].data);
    ck_assert_msg(read_bytes(b.at, b.count) == bad[_i].status, "%s: %s", bad[_i].name,
                  trm_message());
    ck_assert_msg(strstr(trm_message(), bad[_i].message) != NULL, "%s: %s", bad[_i].name,
                  trm_message());
    ck_assert_msg(strstr(trm_message(), "'x.safetensors'") != NULL, "%s: %s", bad[_i].name,
                  trm_message());
}
END_TEST

static const struct start {
    const char *name, *bytes;
    size_t count;
    const char *message;
} starts[] = {
    {"nothing", "", 0, "0 bytes"},
    {"seven bytes", "\2\0\0\0\0\0\0", 7, "7 bytes"},
    {"a header of no bytes", "\0\0\0\0\0\0\0\0{}", 10, "of 0 bytes"},
    {"a header past the end", "\3\0\0\0\0\0\0\0{}", 10, "of 3 bytes"},
    {"a header of 2^63 bytes", "\0\0\0\0\0\0\0\x80{}", 10, "no safetensors file"},
    {"spaces first", "\3\0\0\0\0\0\0\0 {}", 11, "no safetensors file"},
    {"Git LFS", "version https://git-lfs.github.com/spec/v1\n", 43, "git lfs pull"},
};

START_TEST(bad_starts)
{
    ck_assert_int_eq(read_bytes(starts[_i].bytes, starts[_i].count), TRM_ERR_BAD_FILE);
    ck_assert_msg(strstr(trm_message(), starts[_i].message) != NULL, "%s: %s", starts[_i].name,
                  trm_message());
}
END_TEST

/* Room between tensors, bytes behind the last, and any order are fine. */
START_TEST(gaps)
{
    static const char header[] = "{" F32_2("b", "16", "24") "," F32_2("a", "4", "12") "}   ";
    static bytes b;

    b.count = 0;
    put_int(&b, strlen(header), 8);
    put(&b, header, strlen(header));
    put_zeros(&b, 40);
    ck_assert_msg(read_bytes(b.at, b.count) == TRM_OK, "%s", trm_message());
}
END_TEST

/* ---- bad folders ---- */

static const struct index {
    const char *name, *text;
    trm_status status;
    const char *message;
} indices[] = {
    {"no JSON", "{", TRM_ERR_BAD_FILE, "index.json' line 1"},
    {"a list", "[]", TRM_ERR_BAD_FILE, "no JSON object"},
    {"no map", "{\"metadata\":{}}", TRM_ERR_BAD_FILE, "\"weight_map\""},
    {"an empty map", "{\"weight_map\":{}}", TRM_ERR_BAD_FILE, "\"weight_map\""},
    {"a number for a file", "{\"weight_map\":{\"a\":1}}", TRM_ERR_BAD_FILE, "no file name"},
    {"a path", "{\"weight_map\":{\"a\":\"../a.safetensors\"}}", TRM_ERR_BAD_FILE, "same folder"},
    {"an absolute path", "{\"weight_map\":{\"a\":\"/etc/a.safetensors\"}}", TRM_ERR_BAD_FILE,
     "same folder"},
    {"a pickle", "{\"weight_map\":{\"a\":\"c.bin\"}}", TRM_ERR_BAD_FILE, "same folder"},
    {"a missing file", "{\"weight_map\":{\"layer.0.a\":\"z.safetensors\"}}", TRM_ERR_NOT_FOUND,
     "z.safetensors' is missing"},
    {"a missing tensor", "{\"weight_map\":{\"layer.9.a\":\"a.safetensors\"}}", TRM_ERR_BAD_FILE,
     "'layer.9.a' is not in 'a.safetensors'"},
    {"a tensor in another file",
     "{\"weight_map\":{\"layer.1.a\":\"a.safetensors\",\"layer.1.b\":\"b.safetensors\"}}",
     TRM_ERR_BAD_FILE, "'layer.1.a' is not in 'a.safetensors'"},
};

START_TEST(bad_indices)
{
    const struct index *r = &indices[_i];
    trm_weights *w = NULL;

    copy_file(FORMATS "shards/model-00001-of-00002.safetensors", inside("a.safetensors"));
    copy_file(FORMATS "shards/model-00002-of-00002.safetensors", inside("b.safetensors"));
    write_file(inside("model.safetensors.index.json"), r->text, strlen(r->text));
    ck_assert_msg(trm_weights_open_safetensors(folder, &w) == r->status, "%s: %s", r->name,
                  trm_message());
    ck_assert_msg(strstr(trm_message(), r->message) != NULL, "%s: %s", r->name, trm_message());
}
END_TEST

START_TEST(a_tensor_in_two_files)
{
    static const char text[] =
        "{\"weight_map\":{\"layer.0.a\":\"a.safetensors\",\"layer.0.b\":\"b.safetensors\"}}";
    trm_weights *w = NULL;

    copy_file(FORMATS "shards/model-00001-of-00002.safetensors", inside("a.safetensors"));
    copy_file(FORMATS "shards/model-00001-of-00002.safetensors", inside("b.safetensors"));
    write_file(inside("model.safetensors.index.json"), text, strlen(text));
    ck_assert_int_eq(trm_weights_open_safetensors(folder, &w), TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(trm_message(), "want it in one file"));
}
END_TEST

START_TEST(other_folders)
{
    trm_weights *w = NULL;

    ck_assert_int_eq(trm_weights_open_safetensors(folder, &w), TRM_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(trm_message(), "neither model.safetensors nor"));
    write_file(inside("pytorch_model.bin"), "PK", 2);
    ck_assert_int_eq(trm_weights_open_safetensors(folder, &w), TRM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(trm_message(), "convert to safetensors"));
    ck_assert_int_eq(trm_weights_open_safetensors("/nowhere/x.safetensors", &w), TRM_ERR_NOT_FOUND);
}
END_TEST

/* Whichever allocation fails, the answer is a status and nothing leaks. */
START_TEST(no_memory)
{
    int64_t live = trm_alloc_live();
    trm_weights *w = NULL;
    trm_status st = TRM_ERR_NO_MEMORY;

    for (int64_t n = 0; st == TRM_ERR_NO_MEMORY; n++) {
        trm_alloc_fail_after(n);
        st = trm_weights_open_safetensors(FORMATS "shards", &w);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            trm_weights_close(w);
        ck_assert_int_eq(trm_alloc_live(), live);
        ck_assert_int_lt(n, 1000);
    }
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
}
END_TEST

int main(void)
{
    Suite *s = suite_create("safetensors");
    TCase *t = tcase_create("files");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, set_up, tear_down);
    tcase_add_test(t, one_file);
    tcase_add_test(t, shards);
    tcase_add_test(t, folder_of_one);
    tcase_add_test(t, files_outlive_weights);
    tcase_add_loop_test(t, bad_headers, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_loop_test(t, bad_starts, 0, sizeof(starts) / sizeof(starts[0]));
    tcase_add_test(t, gaps);
    tcase_add_loop_test(t, bad_indices, 0, sizeof(indices) / sizeof(indices[0]));
    tcase_add_test(t, a_tensor_in_two_files);
    tcase_add_test(t, other_folders);
    tcase_add_test(t, no_memory);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
