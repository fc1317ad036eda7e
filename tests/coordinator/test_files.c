/* Sources, sinks and label files: every format, bad ones, torn ones, full disks. */
#define _GNU_SOURCE
#include "base/npy.h"
#include "coordinator/sink.h"
#include "coordinator/source.h"
#include "coordinator/truth.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static void setup(void)
{
    strcpy(dir, "/tmp/trireme-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
    char command[96];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): a folder of our own */
}

static const char *at(const char *name)
{
    static char paths[4][128];
    static int next;
    char *p = paths[next++ % 4];

    snprintf(p, sizeof(paths[0]), "%s/%s", dir, name);
    return p;
}

static const char *put(const char *name, const char *text)
{
    const char *path = at(name);
    FILE *f = fopen(path, "w");

    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static char *get(const char *name)
{
    static char text[65536];
    FILE *f = fopen(at(name), "r");
    size_t n;

    ck_assert_ptr_nonnull(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

static trm_wire_record next(trm_source *s)
{
    trm_wire_record r;
    bool end;

    ck_assert_msg(trm_source_next(s, &r, &end) == TRM_OK, "%s", trm_message());
    ck_assert(!end);
    return r;
}

static void ends(trm_source *s)
{
    trm_wire_record r;
    bool end;

    ck_assert_int_eq(trm_source_next(s, &r, &end), TRM_OK);
    ck_assert(end);
    trm_source_close(s);
}

START_TEST(folder_and_list)
{
    trm_source *s = NULL;
    trm_wire_record r;

    put("b.png", "");
    put("a.JPG", "");
    put("labels.csv", "");
    put(".hidden.png", "");
    ck_assert_int_eq(trm_source_open(dir, &s), TRM_OK);
    ck_assert_int_eq(s->count, 2);
    r = next(s);
    ck_assert_str_eq(r.name, "a.JPG");
    ck_assert_uint_eq(r.byte_count, strlen(at("a.JPG")));
    ck_assert(memcmp(r.bytes, at("a.JPG"), r.byte_count) == 0);
    ck_assert_str_eq(next(s).name, "b.png");
    ends(s);
    ck_assert_int_eq(trm_source_open(put("l.txt", "x/y.png\r\n\nz.png"), &s), TRM_OK);
    ck_assert_int_eq(trm_source_skip(s, 1), TRM_OK);
    r = next(s);
    ck_assert_str_eq(r.name, "z.png");
    ck_assert(memcmp(r.bytes, at("z.png"), r.byte_count) == 0);
    ends(s);
    ck_assert_int_eq(trm_source_open(at("b.png"), &s), TRM_OK);
    next(s);
    ends(s);
}
END_TEST

START_TEST(json_lines)
{
    trm_source *s = NULL;
    trm_wire_record r;
    float v;

    put("r.jsonl", "{\"inputs\": {\"x\": [[1, 2.5], [3, 4]], \"n\": 7}, \"id\": \"first\"}\n"
                   "{\"x\": [1, 2]}\n"
                   "\n"
                   "not json\n"
                   "{\"x\": [[1], [2, 3]]}\n"
                   "{\"x\": [true, 1]}\n"
                   "{\"id\": 5}\n"
                   "{\"image\": \"p.png\"}\n"
                   "{\"inputs\": [1.5]}");
    ck_assert_msg(trm_source_open(at("r.jsonl"), &s) == TRM_OK, "%s", trm_message());
    r = next(s);
    ck_assert_str_eq(r.name, "first");
    ck_assert_int_eq(r.tensor_count, 2);
    ck_assert_int_eq(r.tensors[0].tensor.dtype, TRM_DTYPE_F32);
    ck_assert_int_eq(r.tensors[0].tensor.rank, 2);
    memcpy(&v, (char *)r.tensors[0].tensor.data + 4, 4);
    ck_assert(fabsf(v - 2.5f) <= 0);
    ck_assert_int_eq(r.tensors[1].tensor.dtype, TRM_DTYPE_I64);
    ck_assert_int_eq(r.tensors[1].tensor.rank, 0);
    r = next(s);
    ck_assert_str_eq(r.name, "1");
    ck_assert_int_eq(r.tensors[0].tensor.dtype, TRM_DTYPE_I64);
    for (int i = 0; i < 4; i++) {
        r = next(s);
        ck_assert_int_eq(r.kind, TRM_RECORD_ERROR);
        ck_assert_ptr_nonnull(strstr(r.message, "line "));
    }
    r = next(s);
    ck_assert_int_eq(r.kind, TRM_RECORD_IMAGE_PATH);
    ck_assert_str_eq(r.name, "p.png");
    r = next(s);
    ck_assert_str_eq(r.tensors[0].name, "");
    ends(s);
}
END_TEST

START_TEST(stacked_arrays)
{
    int32_t values[6] = {1, 2, 3, 4, 5, 6};
    trm_tensor t = {.dtype = TRM_DTYPE_I32, .rank = 2, .dims = {3, 2}, .data = values};
    trm_source *s = NULL;
    trm_wire_record r;

    ck_assert_int_eq(trm_npy_save(at("x.npy"), &t), TRM_OK);
    ck_assert_int_eq(trm_source_open(at("x.npy"), &s), TRM_OK);
    ck_assert_int_eq(s->count, 3);
    ck_assert_int_eq(trm_source_skip(s, 2), TRM_OK);
    r = next(s);
    ck_assert_str_eq(r.name, "2");
    ck_assert_int_eq(r.tensors[0].tensor.rank, 1);
    ck_assert_int_eq(((int32_t *)r.tensors[0].tensor.data)[1], 6);
    ends(s);
}
END_TEST

static const struct {
    const char *file, *text;
    trm_status st;
    const char *says;
} bad_sources[] = {
    {"none.jsonl", NULL, TRM_ERR_NOT_FOUND, "does not exist"},
    {"x.bin", "", TRM_ERR_UNSUPPORTED, ".jsonl, .npy"},
    {"e.jsonl", "\n\n", TRM_ERR_INVALID_ARG, "is empty"},
    {"b.jsonl", "[1]\n", TRM_ERR_BAD_FILE, "line 1"},
    {"e.txt", "\n", TRM_ERR_INVALID_ARG, "is empty"},
    {"b.npy", "nonsense", TRM_ERR_BAD_FILE, "b.npy"},
    {".", NULL, TRM_ERR_INVALID_ARG, "no .png"},
};

START_TEST(refused_sources)
{
    trm_source *s = NULL;

    if (bad_sources[_i].text != NULL)
        put(bad_sources[_i].file, bad_sources[_i].text);
    ck_assert_msg(trm_source_open(at(bad_sources[_i].file), &s) == bad_sources[_i].st, "%s: %s",
                  bad_sources[_i].file, trm_message());
    ck_assert_msg(strstr(trm_message(), bad_sources[_i].says) != NULL, "%s", trm_message());
}
END_TEST

/* ---- sinks ---- */

static float logits[2] = {0.25f, -1.5f};
static const trm_wire_tensor outputs[] = {
    {.name = "y", .tensor = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = logits}}};
static const trm_wire_label labels[] = {{1, 0.75f, "a,\"b\""}, {0, 0.25f, "c"}};

static trm_taken taken(uint64_t id, char *name, bool good)
{
    trm_taken t = {.name = name};

    t.result = (trm_wire_result){.id = id, .message = ""};
    if (good) {
        t.result.outputs = outputs;
        t.result.output_count = 1;
        t.result.labels = labels;
        t.result.label_count = 2;
    } else {
        t.result.status = TRM_ERR_BAD_FILE;
        t.result.message = "no\nimage";
    }
    return t;
}

static void write_two(const char *file, const trm_sink_options *o)
{
    char first[] = "a.png", second[] = "b.png";
    trm_taken t = taken(0, first, true);
    trm_sink *s = NULL;

    ck_assert_msg(trm_sink_open(at(file), o, NULL, &s) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trm_sink_write(s, &t), TRM_OK);
    t = taken(1, second, false);
    ck_assert_int_eq(trm_sink_write(s, &t), TRM_OK);
    ck_assert_int_eq(s->rows, 2);
    ck_assert_int_eq(trm_sink_close(s), TRM_OK);
}

START_TEST(text_outputs)
{
    trm_sink_options o = {.images = true, .label_count = 2, .columns = 2, .column_name = "y"};

    write_two("l.jsonl", &o);
    ck_assert_str_eq(
        get("l.jsonl"),
        "{\"index\":0,\"file\":\"a.png\",\"labels\":[{\"index\":1,\"label\":\"a,\\\"b\\\"\","
        "\"score\":0.75},{\"index\":0,\"label\":\"c\",\"score\":0.25}]}\n"
        "{\"index\":1,\"file\":\"b.png\",\"error\":\"no\\nimage\"}\n");
    write_two("l.csv", &o);
    ck_assert_str_eq(get("l.csv"), "file,label,score,label_2,score_2,error\n"
                                   "a.png,\"a,\"\"b\"\"\",0.75,c,0.25,\n"
                                   "b.png,,,,,\"no image\"\n");
    o.label_count = 0;
    o.images = false;
    write_two("o.jsonl", &o);
    ck_assert_str_eq(get("o.jsonl"),
                     "{\"index\":0,\"id\":\"a.png\",\"outputs\":{\"y\":[0.25,-1.5]}}\n"
                     "{\"index\":1,\"id\":\"b.png\",\"error\":\"no\\nimage\"}\n");
    write_two("o.csv", &o);
    ck_assert_str_eq(get("o.csv"), "id,y_0,y_1,error\na.png,0.25,-1.5,\nb.png,,,\"no image\"\n");
}
END_TEST

START_TEST(array_output)
{
    trm_sink_options o = {.columns = 2};
    trm_arena *arena = NULL;
    trm_tensor t;
    const float *v;

    write_two("o.npy", &o);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    ck_assert_int_eq(trm_npy_load(at("o.npy"), arena, &t), TRM_OK);
    ck_assert_int_eq(t.dims[0], 2);
    v = t.data;
    ck_assert(fabsf(v[1] + 1.5f) <= 0);
    ck_assert(isnan(v[2]) && isnan(v[3]));
    trm_arena_destroy(arena);
}
END_TEST

START_TEST(refused_outputs)
{
    trm_sink_options o = {.columns = -1}, both = {.resume = true, .overwrite = true};

    put("there.jsonl", "");
    ck_assert_int_eq(trm_sink_check(at("there.jsonl"), &o), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "--resume"));
    ck_assert_int_eq(trm_sink_check(at("x.bin"), &o), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sink_check(at("x.csv"), &o), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sink_check(at("no/x.jsonl"), &o), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_sink_check(at("y.jsonl"), &both), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sink_check(dir, &o), TRM_ERR_INVALID_ARG);
}
END_TEST

/* a file that may not grow: the error is told, whole records stay */
START_TEST(full_disk)
{
    trm_sink_options o = {.images = true, .label_count = 2};
    struct rlimit limit = {.rlim_cur = 1000, .rlim_max = RLIM_INFINITY};
    struct rlimit none = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    char name[] = "a.png", *text;
    trm_sink *s = NULL;
    trm_status st = TRM_OK, write_st = TRM_OK, again;

    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(trm_sink_open(at("l.jsonl"), &o, NULL, &s), TRM_OK);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    /* no assertion under the limit: Check notes each one in a file of its own */
    for (uint64_t i = 0; i < 100 && st == TRM_OK && write_st == TRM_OK; i++) {
        trm_taken t = taken(i, name, true);

        write_st = trm_sink_write(s, &t);
        st = trm_sink_flush(s);
    }
    again = trm_sink_flush(s);
    (void)setrlimit(RLIMIT_FSIZE, &none);
    ck_assert_int_eq(write_st, TRM_OK);
    ck_assert_int_eq(st, TRM_ERR_IO);
    ck_assert_int_eq(again, TRM_ERR_IO);
    (void)!trm_sink_close(s);
    text = get("l.jsonl");
    ck_assert_uint_gt(strlen(text), 700);
    ck_assert_str_eq(text + strlen(text) - 3, "]}\n");
}
END_TEST

START_TEST(known_labels)
{
    trm_truth *t = NULL;

    ck_assert_int_eq(trm_truth_open(put("l.csv", "file,label\nb.png,2\r\na.png,x y\n"), &t),
                     TRM_OK);
    ck_assert_str_eq(trm_truth_label(t, "a.png"), "x y");
    ck_assert_str_eq(trm_truth_label(t, "some/folder/b.png"), "2");
    ck_assert_ptr_null(trm_truth_label(t, "c.png"));
    trm_truth_close(t);
    ck_assert_int_eq(trm_truth_open(put("l.csv", "a.png\n"), &t), TRM_ERR_BAD_FILE);
    ck_assert_int_eq(trm_truth_open(put("l.csv", "a,1\na,2\n"), &t), TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(trm_message(), "twice"));
    ck_assert_int_eq(trm_truth_open(at("none.csv"), &t), TRM_ERR_NOT_FOUND);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("files");
    TCase *tc = tcase_create("sources and sinks");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, folder_and_list);
    tcase_add_test(tc, json_lines);
    tcase_add_test(tc, stacked_arrays);
    tcase_add_loop_test(tc, refused_sources, 0,
                        (int)(sizeof(bad_sources) / sizeof(bad_sources[0])));
    tcase_add_test(tc, text_outputs);
    tcase_add_test(tc, array_output);
    tcase_add_test(tc, refused_outputs);
    tcase_add_test(tc, full_disk);
    tcase_add_test(tc, known_labels);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
