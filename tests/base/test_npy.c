/* .npy and .npz: what NumPy wrote (tests/oracles/arrays.py), what we write, and bad files. */
#include "base/npy.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA TRM_SOURCE_DIR "/tests/data/npy/"

static const struct {
    const char *name;
    trm_dtype dtype;
} whole_rows[] = {
    {"le_f4", TRM_DTYPE_F32},    {"be_f4", TRM_DTYPE_F32},      {"le_f2", TRM_DTYPE_F16},
    {"be_f8", TRM_DTYPE_F64},    {"le_i8", TRM_DTYPE_I64},      {"be_i2", TRM_DTYPE_I16},
    {"u1", TRM_DTYPE_U8},        {"i1", TRM_DTYPE_I8},          {"le_u4", TRM_DTYPE_U32},
    {"fortran", TRM_DTYPE_F32},  {"fortran_be", TRM_DTYPE_I32}, {"bfloat16", TRM_DTYPE_BF16},
    {"version2", TRM_DTYPE_F32}, {"version3", TRM_DTYPE_F32},
};

START_TEST(reads_numpy)
{
    char path[256];
    trm_arena *arena;
    trm_tensor t;
    trm_npy *n;

    snprintf(path, sizeof(path), DATA "%s.npy", whole_rows[_i].name);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    ck_assert_int_eq(trm_npy_load(path, arena, &t), TRM_OK);
    ck_assert_int_eq(t.dtype, whole_rows[_i].dtype);
    ck_assert_int_eq(t.rank, 3);
    ck_assert(t.dims[0] == 2 && t.dims[1] == 3 && t.dims[2] == 4);
    for (size_t i = 0; i < 24; i++)
        ck_assert(trm_tensor_get_f64(&t, i) == (double)i);
    /* a row alone, and rows that are not there */
    ck_assert_int_eq(trm_npy_open(path, &n), TRM_OK);
    ck_assert_int_eq(trm_npy_rows(n), 2);
    ck_assert_int_eq(trm_npy_read_rows(n, 1, 1, t.data), TRM_OK);
    for (size_t i = 0; i < 12; i++)
        ck_assert(trm_tensor_get_f64(&t, i) == (double)i + 12);
    ck_assert_int_eq(trm_npy_read_rows(n, 1, 2, t.data), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_npy_read_rows(n, -1, 1, t.data), TRM_ERR_INVALID_ARG);
    trm_npy_close(n);
    trm_arena_destroy(arena);
}
END_TEST

START_TEST(reads_odd_shapes)
{
    trm_arena *arena;
    trm_tensor t;
    trm_npy *n;

    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    ck_assert_int_eq(trm_npy_load(DATA "bool.npy", arena, &t), TRM_OK);
    ck_assert_int_eq(t.dtype, TRM_DTYPE_BOOL);
    for (size_t i = 0; i < 24; i++)
        ck_assert_int_eq(((unsigned char *)t.data)[i], i % 2);
    ck_assert_int_eq(trm_npy_load(DATA "scalar.npy", arena, &t), TRM_OK);
    ck_assert_int_eq(t.rank, 0);
    ck_assert(*(float *)t.data == 7.0f);
    ck_assert_int_eq(trm_npy_load(DATA "empty.npy", arena, &t), TRM_OK);
    ck_assert_int_eq(t.rank, 2);
    ck_assert(t.dims[0] == 0 && t.dims[1] == 3);
    /* elements that lie in the map as they are */
    ck_assert_int_eq(trm_npy_open(DATA "le_f4.npy", &n), TRM_OK);
    ck_assert_ptr_nonnull(trm_npy_desc(n)->data);
    ck_assert(((const float *)trm_npy_desc(n)->data)[23] == 23.0f);
    trm_npy_close(n);
    ck_assert_int_eq(trm_npy_open(DATA "be_f4.npy", &n), TRM_OK);
    ck_assert_ptr_null(trm_npy_desc(n)->data);
    trm_npy_close(n);
    trm_arena_destroy(arena);
}
END_TEST

START_TEST(refuses_dtypes)
{
    trm_npy *n;

    ck_assert_int_eq(trm_npy_open(DATA "complex.npy", &n), TRM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(trm_message(), "<c8"));
    ck_assert_int_eq(trm_npy_open(DATA "text.npy", &n), TRM_ERR_UNSUPPORTED);
    ck_assert_int_eq(trm_npy_open(DATA "struct.npy", &n), TRM_ERR_UNSUPPORTED);
    ck_assert_int_eq(trm_npy_open(DATA "none.npy", &n), TRM_ERR_NOT_FOUND);
}
END_TEST

START_TEST(reads_npz)
{
    const char *path = _i == 0 ? DATA "stored.npz" : DATA "deflated.npz";
    trm_npz *z;
    trm_npy *n;
    float x[24];
    int32_t y[24], row[20];

    ck_assert_int_eq(trm_npz_open(path, &z), TRM_OK);
    ck_assert_int_eq(trm_npz_count(z), _i == 0 ? 2 : 3);
    ck_assert_int_eq(trm_npz_find(z, "nope"), -1);
    ck_assert_int_eq(trm_npz_get(z, trm_npz_find(z, "x"), &n), TRM_OK);
    ck_assert_int_eq(trm_npy_read_rows(n, 0, 2, x), TRM_OK);
    for (int i = 0; i < 24; i++)
        ck_assert(x[i] == (float)i);
    trm_npy_close(n);
    ck_assert_int_eq(trm_npz_get(z, trm_npz_find(z, "y"), &n), TRM_OK);
    ck_assert_int_eq(trm_npy_read_rows(n, 0, 2, y), TRM_OK);
    for (int i = 0; i < 24; i++)
        ck_assert_int_eq(y[i], i);
    trm_npy_close(n);
    if (_i == 1) { /* forward, skipping, then backward */
        static const int starts[] = {0, 2, 500, 998, 7};

        ck_assert_int_eq(trm_npz_get(z, trm_npz_find(z, "long"), &n), TRM_OK);
        trm_npz_close(z); /* arrays live on */
        z = NULL;
        for (int s = 0; s < 5; s++) {
            ck_assert_int_eq(trm_npy_read_rows(n, starts[s], 2, row), TRM_OK);
            for (int i = 0; i < 20; i++)
                ck_assert_int_eq(row[i], starts[s] * 10 + i);
        }
        trm_npy_close(n);
    }
    trm_npz_close(z);
}
END_TEST

/* Every prefix of a good file, and every byte of it changed: a status, never a crash. */
static void damage(const char *path, bool zip)
{
    trm_file *good, *bad;
    unsigned char *copy;
    size_t bytes;

    ck_assert_int_eq(trm_file_open(path, &good), TRM_OK);
    bytes = trm_file_bytes(good) < 1200 ? trm_file_bytes(good) : 1200;
    copy = malloc(bytes);
    for (size_t i = 0; i < 2 * bytes; i++) {
        trm_npz *z = NULL;
        trm_npy *n = NULL;
        trm_status st;

        memcpy(copy, trm_file_data(good), bytes);
        if (i >= bytes)
            copy[i - bytes] ^= 0x41;
        ck_assert_int_eq(trm_file_from_memory(copy, i < bytes ? i : bytes, "damaged", &bad),
                         TRM_OK);
        st = zip ? trm_npz_from_file(bad, &z) : trm_npy_from_file(bad, &n);
        if (zip && st == TRM_OK && trm_npz_count(z) > 0)
            st = trm_npz_get(z, 0, &n);
        if (i < bytes && i + 4 < bytes)
            ck_assert_int_ne(st, TRM_OK);
        if (st == TRM_OK && n != NULL && trm_npy_row_bytes(n) <= 4096 && trm_npy_rows(n) > 0) {
            unsigned char row[4096];

            (void)!trm_npy_read_rows(n, 0, 1, row); /* any answer will do, but no crash */
        }
        trm_npy_close(n);
        trm_npz_close(z);
        trm_file_unref(bad);
    }
    free(copy);
    trm_file_unref(good);
}

static size_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long total = 0, pages = 0;

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%lu %lu", &total, &pages), 2);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A long file read from end to end does not stay in memory, and can be read again. */
START_TEST(lets_go_of_what_was_read)
{
    const int64_t rows = 16384;
    const size_t row_bytes = 4096, header = 128;
    char path[] = "/tmp/trm-npy-XXXXXX", text[128];
    int fd = mkstemp(path), n;
    size_t before, most = 0;
    unsigned char row[4096];
    trm_npy *a;

    ck_assert_int_ge(fd, 0);
    memset(text, ' ', sizeof(text));
    n = snprintf(text, sizeof(text),
                 "\x93NUMPY\x01%c\x76%c{'descr': '|u1', 'fortran_order': False, 'shape': "
                 "(16384, 4096), }",
                 0, 0);
    text[n] = ' ';
    text[127] = '\n';
    ck_assert_int_eq(write(fd, text, header), (ssize_t)header);
    memset(row, 7, sizeof(row));
    for (int64_t i = 0; i < rows; i++) {
        row[0] = (unsigned char)i;
        ck_assert_int_eq(write(fd, row, row_bytes), (ssize_t)row_bytes);
    }
    ck_assert_int_eq(trm_npy_open(path, &a), TRM_OK);
    before = resident_bytes();
    for (int64_t i = 0; i < rows; i++) {
        ck_assert_int_eq(trm_npy_read_rows(a, i, 1, row), TRM_OK);
        ck_assert_int_eq(row[0], (unsigned char)i);
        if (i % 1024 == 1023 && resident_bytes() > before + most)
            most = resident_bytes() - before;
    }
    ck_assert_uint_le(most, (size_t)24 << 20);
    ck_assert_int_eq(trm_npy_read_rows(a, 5, 1, row), TRM_OK);
    ck_assert(row[0] == 5 && row[4095] == 7);
    trm_npy_close(a);
    close(fd);
    unlink(path);
}
END_TEST

START_TEST(survives_damage)
{
    damage(DATA "le_f4.npy", false);
    damage(DATA "fortran.npy", false);
    damage(DATA "stored.npz", true);
}
END_TEST

static const struct {
    const char *header, *message;
} bad_headers[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)", "malformed"},
    {"{'descr': '<f4', 'shape': (2, 3), }", "lacks 'fortran_order'"},
    {"{'descr': '<f4', 'fortran_order': 1, 'shape': (2,), }", "neither True nor False"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': 2, }", "not a tuple"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "no number"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999999,), }", "over"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1099511627776,), }",
     "overflows"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "8 dims"},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", "cut short"},
    {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (5,), }", "twice"},
    {"[1, 2]", "not a Python dict"},
};

START_TEST(names_bad_headers)
{
    unsigned char file[512] = "\x93NUMPY\1";
    size_t n = strlen(bad_headers[_i].header);
    trm_file *f;
    trm_npy *npy;

    file[7] = 0;
    file[8] = (unsigned char)n;
    memcpy(file + 10, bad_headers[_i].header, n);
    ck_assert_int_eq(trm_file_from_memory(file, n + 14, "x.npy", &f), TRM_OK);
    ck_assert_int_eq(trm_status_exit_code(trm_npy_from_file(f, &npy)), 2);
    ck_assert_msg(strstr(trm_message(), bad_headers[_i].message) != NULL, "%s", trm_message());
    trm_file_unref(f);
}
END_TEST

START_TEST(writes_by_rows)
{
    char path[] = "/tmp/trm_npy_XXXXXX";
    trm_tensor d = {TRM_DTYPE_F32, TRM_LAYOUT_PLAIN, 2, {0, 3}, NULL}, t;
    const float rows[] = {1, 2, 3, 4, 5, 6};
    trm_npy_writer *w;
    trm_arena *arena;
    int fd = mkstemp(path);

    close(fd);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    ck_assert_int_eq(trm_npy_writer_create(path, &d, false, &w), TRM_OK);
    ck_assert_int_eq(trm_npy_writer_append(w, rows, 2), TRM_OK);
    ck_assert_int_eq(trm_npy_writer_close(w), TRM_OK);
    /* a killed writer leaves a stale header and part of a row */
    fd = open(path, O_WRONLY | O_APPEND);
    ck_assert_int_eq(write(fd, rows, 16), 16);
    close(fd);
    ck_assert_int_eq(trm_npy_load(path, arena, &t), TRM_OK);
    ck_assert_int_eq(t.dims[0], 2);
    ck_assert_int_eq(trm_npy_writer_create(path, &d, true, &w), TRM_OK);
    ck_assert_int_eq(trm_npy_writer_rows(w), 3);
    ck_assert_int_eq(trm_npy_writer_truncate(w, 2), TRM_OK);
    ck_assert_int_eq(trm_npy_writer_truncate(w, 3), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_npy_writer_append(w, rows + 3, 1), TRM_OK);
    ck_assert_int_eq(trm_npy_writer_sync(w), TRM_OK);
    ck_assert_int_eq(trm_npy_load(path, arena, &t), TRM_OK);
    ck_assert(t.dims[0] == 3 && t.dims[1] == 3);
    for (int i = 0; i < 9; i++)
        ck_assert(((float *)t.data)[i] == (float)(i < 6 ? i + 1 : i - 2));
    ck_assert_int_eq(trm_npy_writer_close(w), TRM_OK);
    /* another shape does not continue it, and leaves it alone */
    d.dims[1] = 4;
    ck_assert_int_eq(trm_npy_writer_create(path, &d, true, &w), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_npy_load(path, arena, &t), TRM_OK);
    ck_assert_int_eq(t.dims[0], 3);
    unlink(path);
    trm_arena_destroy(arena);
}
END_TEST

START_TEST(writes_whole)
{
    char path[] = "/tmp/trm_npy_XXXXXX";
    trm_arena *arena;

    close(mkstemp(path));
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    for (size_t i = 0; i < sizeof(whole_rows) / sizeof(whole_rows[0]); i++) {
        char from[256];
        trm_tensor a, b;

        snprintf(from, sizeof(from), DATA "%s.npy", whole_rows[i].name);
        ck_assert_int_eq(trm_npy_load(from, arena, &a), TRM_OK);
        ck_assert_int_eq(trm_npy_save(path, &a), TRM_OK);
        ck_assert_int_eq(trm_npy_load(path, arena, &b), TRM_OK);
        ck_assert_int_eq(a.dtype, b.dtype);
        ck_assert(trm_tensor_same_shape(&a, &b));
        ck_assert_mem_eq(a.data, b.data, 24 * trm_dtype_bytes(a.dtype));
    }
    unlink(path);
    ck_assert_int_eq(
        trm_npy_save("/dev/full",
                     &(trm_tensor){TRM_DTYPE_F32, TRM_LAYOUT_PLAIN, 1, {1}, &(float){1}}),
        TRM_ERR_IO);
    trm_arena_destroy(arena);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("npy");
    TCase *t = tcase_create("npy");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, reads_numpy, 0, sizeof(whole_rows) / sizeof(whole_rows[0]));
    tcase_add_test(t, reads_odd_shapes);
    tcase_add_test(t, refuses_dtypes);
    tcase_add_loop_test(t, reads_npz, 0, 2);
    tcase_add_test(t, lets_go_of_what_was_read);
    tcase_add_test(t, survives_damage);
    tcase_add_loop_test(t, names_bad_headers, 0, sizeof(bad_headers) / sizeof(bad_headers[0]));
    tcase_add_test(t, writes_by_rows);
    tcase_add_test(t, writes_whole);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
