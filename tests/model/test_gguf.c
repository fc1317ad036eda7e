/* GGUF files against what the gguf package wrote, and bad files one by one. */
#define _GNU_SOURCE /* mkdtemp */
#include "model/language/language_impl.h"
#include "tests/model/format_tests.h"

#include <unistd.h>

static void check_tensors(const char *file, const char *key)
{
    char path[512];
    trm_gguf *g = NULL;

    snprintf(path, sizeof(path), FORMATS "%s", file);
    ck_assert_msg(trm_gguf_open(path, &g) == TRM_OK, "%s", trm_message());
    compare_weights(trm_gguf_weights(g), key);
    trm_gguf_close(g);
}

START_TEST(tensors)
{
    check_tensors("all.gguf", "all.gguf");
}
END_TEST

START_TEST(split)
{
    check_tensors("split-00001-of-00003.gguf", "split");
}
END_TEST

/* ---- metadata ---- */

static trm_gguf *all;

static void set_up(void)
{
    ck_assert_msg(trm_gguf_open(FORMATS "all.gguf", &all) == TRM_OK, "%s", trm_message());
}

static void tear_down(void)
{
    trm_gguf_close(all);
}

static const struct {
    const char *key;
    int64_t want;
} ints[] = {
    {"k.u8", 200},
    {"k.i8", -5},
    {"k.u16", 60000},
    {"k.i16", -600},
    {"k.u32", 4000000000},
    {"k.i32", -70000},
    {"k.u64", (int64_t)1 << 40},
    {"k.i64", -((int64_t)1 << 40)},
};

START_TEST(integers)
{
    int64_t n = 0;
    double x = 0;

    ck_assert(trm_gguf_int(all, ints[_i].key, &n));
    ck_assert_int_eq(n, ints[_i].want);
    ck_assert(trm_gguf_float(all, ints[_i].key, &x));
    ck_assert(x == (double)ints[_i].want);
}
END_TEST

START_TEST(other_values)
{
    trm_text t = {0};
    int64_t n = 7;
    double x = 0;
    bool b = false;

    ck_assert(trm_gguf_float(all, "k.f32", &x) && x == 0.5);
    ck_assert(trm_gguf_float(all, "k.f64", &x) && x == -0.1);
    ck_assert(trm_gguf_bool(all, "k.bool", &b) && b);
    ck_assert(trm_gguf_text(all, "k.string", &t));
    ck_assert_uint_eq(t.count, strlen("Grüße\nzwei"));
    ck_assert_int_eq(memcmp(t.bytes, "Grüße\nzwei", t.count), 0);
    ck_assert_str_eq(trmi_gguf_string(all, "k.string"), "Grüße\nzwei");
    /* of another kind, or absent */
    ck_assert(!trm_gguf_int(all, "k.f32", &n) && !trm_gguf_int(all, "k.bool", &n));
    ck_assert(!trm_gguf_int(all, "k.string", &n) && !trm_gguf_int(all, "k.ints", &n));
    ck_assert(!trm_gguf_int(all, "k.none", &n) && n == 7);
    ck_assert(!trm_gguf_bool(all, "k.u8", &b) && !trm_gguf_float(all, "k.bool", &x));
    ck_assert(!trm_gguf_text(all, "k.strings", &t) && !trm_gguf_text(all, "k", &t));
    ck_assert_ptr_null(trmi_gguf_string(all, "k.u8"));
}
END_TEST

START_TEST(arrays)
{
    static const char *const want[] = {"a", "", "Ġthe", "日本"};
    trm_gguf_kind kind;
    trm_text *texts = NULL;
    float *floats = NULL;
    int32_t *numbers = NULL;
    size_t count = 0;
    int64_t n;

    ck_assert(trm_gguf_array(all, "k.ints", &kind, &count));
    ck_assert(kind == TRM_GGUF_I32 && count == 3);
    ck_assert(trm_gguf_array_int(all, "k.ints", 1, &n) && n == -2);
    ck_assert(!trm_gguf_array_int(all, "k.ints", 3, &n));
    ck_assert(!trm_gguf_array_int(all, "k.strings", 0, &n));
    ck_assert(trm_gguf_array_int(all, "k.bools", 2, &n) && n == 1);
    ck_assert(!trm_gguf_array(all, "k.u8", &kind, &count));
    ck_assert_int_eq(trm_gguf_texts(all, "k.strings", &texts, &count), TRM_OK);
    ck_assert_uint_eq(count, 4);
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(texts[i].count, strlen(want[i]));
        ck_assert_int_eq(memcmp(texts[i].bytes, want[i], texts[i].count), 0);
    }
    trm_free(texts);
    ck_assert_int_eq(trm_gguf_floats(all, "k.floats", &floats, &count), TRM_OK);
    ck_assert(count == 2 && floats[0] == 0.5f && floats[1] == -1.5f);
    trm_free(floats);
    ck_assert_int_eq(trm_gguf_floats(all, "k.ints", &floats, &count), TRM_OK);
    ck_assert(count == 3 && floats[1] == -2);
    trm_free(floats);
    ck_assert_int_eq(trm_gguf_ints(all, "k.ints", &numbers, &count), TRM_OK);
    ck_assert(count == 3 && numbers[2] == 3);
    trm_free(numbers);
    ck_assert_int_eq(trm_gguf_ints(all, "k.floats", &numbers, &count), TRM_ERR_BAD_FILE);
    ck_assert_int_eq(trm_gguf_texts(all, "k.ints", &texts, &count), TRM_ERR_BAD_FILE);
    ck_assert_int_eq(trm_gguf_texts(all, "k.u8", &texts, &count), TRM_ERR_BAD_FILE);
    ck_assert_int_eq(trm_gguf_floats(all, "k.none", &floats, &count), TRM_ERR_NOT_FOUND);
}
END_TEST

START_TEST(every_key)
{
    size_t n = 0;

    while (trm_gguf_key(all, n) != NULL)
        n++;
    ck_assert_uint_eq(n, 17); /* general.architecture and those above */
    ck_assert_str_eq(trm_gguf_key(all, 0), "general.architecture");
}
END_TEST

/* ---- bad files ---- */

static const int64_t two[] = {2}, block[] = {32}, part[] = {33}, many[] = {1, 1, 1, 1, 1};
static const int64_t huge[] = {1 << 20, 1 << 20, 1 << 20, 1 << 20};
static const int64_t negative[] = {-2};

/* A whole file of one tensor of 2 floats, with the last `less` bytes left out. */
static void plain(bytes *b, uint64_t less)
{
    put_header(b, 3, 1, 1);
    put_string(b, "general.architecture", "llama");
    put_info(b, "a", 1, two, 0, 0);
    put_align(b, 32);
    put_zeros(b, 8);
    b->count -= (size_t)less;
}

static void version2(bytes *b)
{
    plain(b, 0);
    b->at[4] = 2;
}
static void cut_data(bytes *b)
{
    plain(b, 1);
}
static void cut_info(bytes *b)
{
    plain(b, 8 + 22 + 9);
}
static void version1(bytes *b)
{
    put_header(b, 1, 0, 0);
}
static void version4(bytes *b)
{
    put_header(b, 4, 0, 0);
}
static void big_endian(bytes *b)
{
    put_header(b, 3u << 24, 0, 0);
}
static void no_magic(bytes *b)
{
    plain(b, 0);
    b->at[0] = 'g';
}
static void lfs(bytes *b)
{
    put(b, "version https://git-lfs.github.com/spec/v1\n", 43);
}
static void many_pairs(bytes *b)
{
    put_header(b, 3, 0, (uint64_t)1 << 62);
    put_zeros(b, 100);
}
static void many_tensors(bytes *b)
{
    put_header(b, 3, (uint64_t)1 << 62, 0);
    put_zeros(b, 100);
}
static void long_key(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_int(b, (uint64_t)1 << 40, 8);
    put_zeros(b, 100);
}
static void empty_key(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_u32(b, "", 1);
}
static void key_with_newline(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_u32(b, "a\nb", 1);
}
static void key_twice(bytes *b)
{
    put_header(b, 3, 0, 3);
    put_u32(b, "a", 1);
    put_u32(b, "b", 1);
    put_u32(b, "a", 1);
}
static void kind_13(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_text(b, "a");
    put_int(b, 13, 4);
    put_zeros(b, 8);
}
static void bool_2(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_text(b, "a");
    put_int(b, TRM_GGUF_BOOL, 4);
    put_int(b, 2, 1);
}
static void cut_value(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_text(b, "abc");
    put_int(b, TRM_GGUF_U64, 4);
    put_zeros(b, 7);
}
static void long_string(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_text(b, "a");
    put_int(b, TRM_GGUF_STRING, 4);
    put_int(b, UINT64_MAX, 8);
}
static void array_head(bytes *b, uint32_t kind, uint64_t count)
{
    put_header(b, 3, 0, 1);
    put_text(b, "a");
    put_int(b, TRM_GGUF_ARRAY, 4);
    put_int(b, kind, 4);
    put_int(b, count, 8);
}
static void array_of_arrays(bytes *b)
{
    array_head(b, TRM_GGUF_ARRAY, 1);
    put_zeros(b, 12);
}
static void array_of_13(bytes *b)
{
    array_head(b, 13, 1);
    put_zeros(b, 12);
}
static void array_of_many(bytes *b)
{
    array_head(b, TRM_GGUF_U64, (uint64_t)1 << 61);
    put_zeros(b, 64);
}
static void array_of_many_strings(bytes *b)
{
    array_head(b, TRM_GGUF_STRING, (uint64_t)1 << 60);
    put_zeros(b, 64);
}
static void array_cut(bytes *b)
{
    array_head(b, TRM_GGUF_STRING, 2);
    put_text(b, "a");
    put_int(b, 5, 8);
    put_zeros(b, 4);
}
static void array_of_bool_3(bytes *b)
{
    array_head(b, TRM_GGUF_BOOL, 2);
    put_int(b, 0x0301, 2);
}
static void alignment(bytes *b, uint32_t a)
{
    put_header(b, 3, 0, 1);
    put_u32(b, "general.alignment", a);
}
static void alignment_0(bytes *b)
{
    alignment(b, 0);
}
static void alignment_24(bytes *b)
{
    alignment(b, 24);
}
static void alignment_huge(bytes *b)
{
    alignment(b, 1u << 31);
}
static void alignment_text(bytes *b)
{
    put_header(b, 3, 0, 1);
    put_string(b, "general.alignment", "32");
}
static void one_info(bytes *b, const char *name, int rank, const int64_t *dims, uint32_t type,
                     uint64_t offset)
{
    put_header(b, 3, 1, 0);
    put_info(b, name, rank, dims, type, offset);
    put_align(b, 32);
    put_zeros(b, 64);
}
static void long_name(bytes *b)
{
    put_header(b, 3, 1, 0);
    put_int(b, (uint64_t)1 << 33, 8);
    put_zeros(b, 64);
}
static void empty_name(bytes *b)
{
    one_info(b, "", 1, two, 0, 0);
}
static void five_dims(bytes *b)
{
    one_info(b, "a", 5, many, 0, 0);
}
static void negative_dim(bytes *b)
{
    one_info(b, "a", 1, negative, 0, 0);
}
static void overflow(bytes *b)
{
    one_info(b, "a", 4, huge, 0, 0);
}
static void type_iq4(bytes *b)
{
    one_info(b, "blk.0.x", 1, block, 20, 0);
}
static void type_4(bytes *b)
{
    one_info(b, "a", 1, block, 4, 0);
}
static void type_99(bytes *b)
{
    one_info(b, "a", 1, block, 99, 0);
}
static void half_block(bytes *b)
{
    one_info(b, "a", 1, part, 2, 0);
}
static void misaligned(bytes *b)
{
    one_info(b, "a", 1, two, 0, 8);
}
static void past_end(bytes *b)
{
    one_info(b, "a", 1, two, 0, 64);
}
static void far_away(bytes *b)
{
    one_info(b, "a", 1, two, 0, UINT64_MAX - 31);
}
static void two_infos(bytes *b, const char *x, const char *y, uint64_t at)
{
    put_header(b, 3, 2, 0);
    put_info(b, x, 1, block, 0, 0);
    put_info(b, y, 1, block, 0, at);
    put_align(b, 32);
    put_zeros(b, 512);
}
static void name_twice(bytes *b)
{
    two_infos(b, "a", "a", 128);
}
static void overlap(bytes *b)
{
    two_infos(b, "a", "b", 96);
}

static const struct bad {
    const char *name;
    void (*make)(bytes *b);
    trm_status status;
    const char *message; /* NULL: a good file */
} bad[] = {
    {"version 2", version2, TRM_OK, NULL},
    {"cut in the data", cut_data, TRM_ERR_BAD_FILE, "tensor 'a' has bytes"},
    {"cut in the infos", cut_info, TRM_ERR_BAD_FILE, "ends inside the description of tensor 'a'"},
    {"version 1", version1, TRM_ERR_UNSUPPORTED, "version 1; supported are 2 and 3"},
    {"version 4", version4, TRM_ERR_UNSUPPORTED, "version 4"},
    {"big endian", big_endian, TRM_ERR_UNSUPPORTED, "big-endian"},
    {"another magic", no_magic, TRM_ERR_BAD_FILE, "GGUF header"},
    {"Git LFS", lfs, TRM_ERR_BAD_FILE, "git lfs pull"},
    {"too many pairs", many_pairs, TRM_ERR_BAD_FILE, "metadata pairs; 100 bytes are left"},
    {"too many tensors", many_tensors, TRM_ERR_BAD_FILE, "tensors; 100 bytes are left"},
    {"a key past the end", long_key, TRM_ERR_BAD_FILE, "a key of"},
    {"an empty key", empty_key, TRM_ERR_BAD_FILE, "the key at byte"},
    {"a newline in a key", key_with_newline, TRM_ERR_BAD_FILE, "control characters"},
    {"a key twice", key_twice, TRM_ERR_BAD_FILE, "key 'a' is there twice"},
    {"an unknown kind", kind_13, TRM_ERR_BAD_FILE, "'a' is of kind 13: want 0 to 12"},
    {"a bool of 2", bool_2, TRM_ERR_BAD_FILE, "'a' has the bool 2"},
    {"a value past the end", cut_value, TRM_ERR_BAD_FILE, "the value of 'abc'"},
    {"a string past the end", long_string, TRM_ERR_BAD_FILE, "the value of 'a'"},
    {"an array of arrays", array_of_arrays, TRM_ERR_UNSUPPORTED, "array of arrays"},
    {"an array of an unknown kind", array_of_13, TRM_ERR_BAD_FILE, "array of kind 13"},
    {"an array past the end", array_of_many, TRM_ERR_BAD_FILE, "the value of 'a'"},
    {"strings past the end", array_of_many_strings, TRM_ERR_BAD_FILE, "the value of 'a'"},
    {"the last string past the end", array_cut, TRM_ERR_BAD_FILE, "the value of 'a'"},
    {"a bool of 3 in an array", array_of_bool_3, TRM_ERR_BAD_FILE, "'a' has the bool 3"},
    {"alignment 0", alignment_0, TRM_ERR_BAD_FILE, "power of two"},
    {"alignment 24", alignment_24, TRM_ERR_BAD_FILE, "power of two"},
    {"alignment 2^31", alignment_huge, TRM_ERR_BAD_FILE, "power of two"},
    {"alignment as text", alignment_text, TRM_ERR_BAD_FILE, "power of two"},
    {"a name past the end", long_name, TRM_ERR_BAD_FILE, "the tensor name at byte"},
    {"an empty name", empty_name, TRM_ERR_BAD_FILE, "the tensor name at byte"},
    {"five dims", five_dims, TRM_ERR_BAD_FILE, "5 dims: want at most 4"},
    {"a negative dim", negative_dim, TRM_ERR_BAD_FILE, "want 0 to 2^40"},
    {"a shape that overflows", overflow, TRM_ERR_BAD_FILE, "overflow"},
    {"an unsupported type", type_iq4, TRM_ERR_UNSUPPORTED,
     "tensor 'blk.0.x' has type IQ4_NL (20); supported are F32"},
    {"a type that was given up", type_4, TRM_ERR_UNSUPPORTED, "type unknown (4)"},
    {"a type that does not exist", type_99, TRM_ERR_UNSUPPORTED, "type unknown (99)"},
    {"a part of a block", half_block, TRM_ERR_BAD_FILE, "want blocks of 32"},
    {"a misaligned tensor", misaligned, TRM_ERR_BAD_FILE, "want a multiple of general.alignment"},
    {"a tensor past the end", past_end, TRM_ERR_BAD_FILE, "cut or damaged"},
    {"an offset that overflows", far_away, TRM_ERR_BAD_FILE, "cut or damaged"},
    {"a name twice", name_twice, TRM_ERR_BAD_FILE, "tensor 'a' is there twice"},
    {"an overlap", overlap, TRM_ERR_BAD_FILE, "tensor 'b' at byte"},
};

static trm_status read_bytes(const bytes *b)
{
    trm_gguf *g = NULL;
    trm_file *f = NULL;
    trm_status st;

    ck_assert_int_eq(trm_file_from_memory(b->at, b->count, "x.gguf", &f), TRM_OK);
    st = trmi_gguf_from_file(f, &g);
    if (st == TRM_OK)
        trm_gguf_close(g);
    trm_file_unref(f);
    return st;
}

START_TEST(bad_files)
{
    static bytes b;

    b.count = 0;
    bad[_i].make(&b);
    ck_assert_msg(read_bytes(&b) == bad[_i].status, "%s: %s", bad[_i].name, trm_message());
    if (bad[_i].message != NULL) {
        ck_assert_msg(strstr(trm_message(), bad[_i].message) != NULL, "%s: %s", bad[_i].name,
                      trm_message());
        ck_assert_msg(strstr(trm_message(), "'x.gguf'") != NULL, "%s: %s", bad[_i].name,
                      trm_message());
    }
}
END_TEST

/* However short a good file is cut, it is refused. */
START_TEST(every_length)
{
    static bytes b;
    size_t whole;

    b.count = 0;
    plain(&b, 0);
    whole = b.count;
    ck_assert_int_eq(read_bytes(&b), TRM_OK);
    for (b.count = 0; b.count < whole; b.count++)
        ck_assert_msg(read_bytes(&b) == TRM_ERR_BAD_FILE, "%zu bytes", b.count);
}
END_TEST

/* ---- bad splits ---- */

static char folder[64];

static void in_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/trm_gguf_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static const char *const copies[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                     "m-00003-of-00003.gguf", "m.gguf"};

static const char *inside(const char *name)
{
    static char path[4][256];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[0]), "%s/%s", folder, name);
    return path[next];
}

static void out_of_folder(void)
{
    for (size_t i = 0; i < 4; i++)
        (void)unlink(inside(copies[i]));
    ck_assert_int_eq(rmdir(folder), 0);
}

/* Which file of the split model is put in which place; -1: none. The last is "m.gguf". */
static const struct pieces {
    const char *name;
    int of[4];
    const char *open;
    trm_status status;
    const char *message;
} pieces[] = {
    {"all", {1, 2, 3, 0}, "m-00001-of-00003.gguf", TRM_OK, NULL},
    {"a missing one",
     {1, 0, 3, 0},
     "m-00001-of-00003.gguf",
     TRM_ERR_NOT_FOUND,
     "m-00002-of-00003.gguf' is missing"},
    {"the second", {1, 2, 3, 0}, "m-00002-of-00003.gguf", TRM_ERR_INVALID_ARG, "file 2 of 3"},
    {"another name", {0, 0, 0, 1}, "m.gguf", TRM_ERR_INVALID_ARG, "-00001-of-00003.gguf"},
    {"two places changed",
     {1, 3, 2, 0},
     "m-00001-of-00003.gguf",
     TRM_ERR_BAD_FILE,
     "says that it is file 3"},
    {"the first twice",
     {1, 1, 3, 0},
     "m-00001-of-00003.gguf",
     TRM_ERR_BAD_FILE,
     "says that it is file 1"},
    {"one of another model",
     {1, 9, 3, 0},
     "m-00001-of-00003.gguf",
     TRM_ERR_BAD_FILE,
     "says that it is file 1"},
};

START_TEST(bad_splits)
{
    const struct pieces *r = &pieces[_i];
    trm_gguf *g = NULL;

    for (int i = 0; i < 4; i++) {
        char from[512];

        if (r->of[i] == 0)
            continue;
        snprintf(from, sizeof(from), FORMATS "split-%05d-of-00003.gguf", r->of[i]);
        copy_file(r->of[i] == 9 ? FORMATS "all.gguf" : from, inside(copies[i]));
    }
    ck_assert_msg(trm_gguf_open(inside(r->open), &g) == r->status, "%s: %s", r->name,
                  trm_message());
    if (r->status == TRM_OK)
        trm_gguf_close(g);
    else
        ck_assert_msg(strstr(trm_message(), r->message) != NULL, "%s: %s", r->name, trm_message());
}
END_TEST

START_TEST(no_memory)
{
    int64_t live = trm_alloc_live();
    trm_status st = TRM_ERR_NO_MEMORY;
    trm_gguf *g = NULL;

    for (int64_t n = 0; st == TRM_ERR_NO_MEMORY; n++) {
        trm_alloc_fail_after(n);
        st = trm_gguf_open(FORMATS "split-00001-of-00003.gguf", &g);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            trm_gguf_close(g);
        ck_assert_int_eq(trm_alloc_live(), live);
        ck_assert_int_lt(n, 1000);
    }
    ck_assert_msg(st == TRM_OK, "%s", trm_message());
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf");
    TCase *t = tcase_create("files"), *m = tcase_create("metadata"), *f = tcase_create("splits");
    SRunner *r;
    int failed;

    tcase_add_test(t, tensors);
    tcase_add_test(t, split);
    tcase_add_loop_test(t, bad_files, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(t, every_length);
    tcase_add_test(t, no_memory);
    tcase_add_checked_fixture(m, set_up, tear_down);
    tcase_add_loop_test(m, integers, 0, sizeof(ints) / sizeof(ints[0]));
    tcase_add_test(m, other_values);
    tcase_add_test(m, arrays);
    tcase_add_test(m, every_key);
    tcase_add_checked_fixture(f, in_folder, out_of_folder);
    tcase_add_loop_test(f, bad_splits, 0, sizeof(pieces) / sizeof(pieces[0]));
    suite_add_tcase(s, t);
    suite_add_tcase(s, m);
    suite_add_tcase(s, f);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
