/* /v1/files: uploads, owners, lists, what lies in the folder. */
#define _GNU_SOURCE
#include "openai_world.h"

#include "base/file.h"

#include <fcntl.h>

/* ---- files ---- */
START_TEST(files)
{
    struct world w;
    char ids[3][TRMI_OPENAI_ID_BYTES];
    int status;
    json_t *o;
    char *text;

    world_init(&w);
    upload(&w, "ann", "batch", "one", ids[0]);
    upload(&w, "bob", "batch", "two", ids[1]);
    upload(&w, "ann", "user_data", "", ids[2]);
    text = content_of(&w, "ann", ids[0]);
    ck_assert_str_eq(text, "one");
    free(text);
    text = content_of(&w, "ann", ids[2]);
    ck_assert_str_eq(text, "");
    free(text);
    for (int round = 0; round < 2; round++) { /* and again after a restart */
        o = call(&w, "GET", "/v1/files", "ann", NULL, NULL, NULL, &status);
        ck_assert_int_eq(status, 200);
        ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 2);
        ck_assert(json_is_false(json_object_get(o, "has_more")));
        json_decref(o);
        o = call(&w, "GET", "/v1/files", "ann", NULL, "purpose\0batch", NULL, &status);
        ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 1);
        json_decref(o);
        o = call(&w, "GET", "/v1/files", "ann", NULL, "limit\0001", NULL, &status);
        ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 1);
        ck_assert(json_is_true(json_object_get(o, "has_more")));
        json_decref(o);
        json_decref(call(&w, "GET", "/v1/files", "ann", NULL, "limit\0000", NULL, &status));
        ck_assert_int_eq(status, 400);
        json_decref(call(&w, "GET", "/v1/files", "ann", NULL, "order\0up", NULL, &status));
        ck_assert_int_eq(status, 400);
        o = call(&w, "GET", "/v1/files/{id}", "ann", ids[0], NULL, NULL, &status);
        ck_assert_int_eq(status, 200);
        ck_assert_str_eq(json_string_value(json_object_get(o, "purpose")), "batch");
        ck_assert_str_eq(json_string_value(json_object_get(o, "object")), "file");
        json_decref(o);
        trmi_openai_files_close(&w.g);
        world_open(&w);
    }
    /* another's */
    json_decref(call(&w, "GET", "/v1/files/{id}", "ann", ids[1], NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    json_decref(call(&w, "GET", "/v1/files/{id}/content", "ann", ids[1], NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    json_decref(call(&w, "DELETE", "/v1/files/{id}", "ann", ids[1], NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    json_decref(call(&w, "GET", "/v1/files/{id}", "ann", "../../etc/passwd", NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    o = call(&w, "DELETE", "/v1/files/{id}", "ann", ids[0], NULL, NULL, &status);
    ck_assert_int_eq(status, 200);
    ck_assert(json_is_true(json_object_get(o, "deleted")));
    json_decref(o);
    json_decref(call(&w, "GET", "/v1/files/{id}", "ann", ids[0], NULL, NULL, &status));
    ck_assert_int_eq(status, 404);
    world_fini(&w);
}
END_TEST

/* The body of an upload in a file of the server's: it is taken, not copied. */
START_TEST(taken)
{
    struct world w;
    trm_http_exchange x;
    char path[128], *text;
    const char *body = "batch\nname\ncontent";
    int fd;
    json_t *o;

    world_init(&w);
    snprintf(path, sizeof(path), "%s/body", w.folder);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(write(fd, body, strlen(body)), (ssize_t)strlen(body));
    close(fd);
    kit_exchange_init(&x, &w.g, NULL);
    x.body_path = path;
    x.headers[0] = "Content-Type";
    x.headers[1] = "multipart/form-data";
    kit_call(&x, trmi_openai_files_routes(), "POST", "/v1/files");
    ck_assert_int_eq(x.status, 200);
    ck_assert(!trm_path_exists(path));
    o = kit_json(&x);
    for (int round = 0; round < 2; round++) {
        text = content_of(&w, NULL, json_string_value(json_object_get(o, "id")));
        ck_assert_str_eq(text, "content");
        free(text);
        trmi_openai_files_close(&w.g);
        world_open(&w);
    }
    json_decref(o);
    kit_exchange_fini(&x);
    world_fini(&w);
}
END_TEST

static const struct {
    const char *name, *body, *message;
} bad_uploads[] = {
    {"no parts", "x", "file is missing"},
    {"no file", "batch\nx", "file is missing"},
    {"no purpose", "\nname\ncontent", "purpose is missing"},
    {"a strange purpose", "a b\nname\ncontent", "not a word"},
    {"a long purpose",
     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nname\ncontent",
     "at most"},
};

START_TEST(bad_upload)
{
    struct world w;
    int status;
    json_t *o;

    world_init(&w);
    o = call(&w, "POST", "/v1/files", NULL, NULL, NULL, bad_uploads[_i].body, &status);
    ck_assert_int_eq(status, 400);
    ck_assert_ptr_nonnull(
        strstr(json_string_value(json_object_get(json_object_get(o, "error"), "message")),
               bad_uploads[_i].message));
    json_decref(o);
    world_fini(&w);
}
END_TEST

/* What does not belong into the folder does no harm. */
START_TEST(strange_folder)
{
    struct world w;
    char path[400];
    int status;
    json_t *o;
    char id[TRMI_OPENAI_ID_BYTES];

    world_init(&w);
    upload(&w, "", "batch", "x", id);
    trmi_openai_files_close(&w.g);
    world_append(&w, "files/file-00112233445566778899aabb.json", "{");
    world_append(&w, "files/file-10112233445566778899aabb.json",
                 "{\"owner\":\"\",\"filename\":\"x\",\"purpose\":\"batch\",\"created\":1,"
                 "\"offset\":5,\"bytes\":99}");
    world_append(&w, "files/file-10112233445566778899aabb.data", "short");
    world_append(&w, "files/file-20112233445566778899aabb.data", "orphan");
    world_append(&w, "files/README", "x");
    snprintf(path, sizeof(path), "%s/files/file-30112233445566778899aabb.json", w.inner);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    world_append(&w, "batches/batch_00112233445566778899aabb.json", "{\"owner\":\"\"}");
    world_append(&w, "batches/batch_10112233445566778899aabb.json", "[]");
    world_open(&w);
    o = call(&w, "GET", "/v1/files", NULL, NULL, NULL, NULL, &status);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 1);
    json_decref(o);
    o = call(&w, "GET", "/v1/batches", NULL, NULL, NULL, NULL, &status);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "data")), 0);
    json_decref(o);
    ck_assert(!world_has(&w, "files/file-20112233445566778899aabb.data"));
    /* two processes */
    {
        trm_gateway other = {.hub = &w.hub, .options = {.files = w.inner}};

        ck_assert_int_eq(trmi_openai_files_open(&other), TRM_ERR_CONFIG);
        ck_assert_ptr_nonnull(strstr(trm_message(), "in use by another process"));
        ck_assert_ptr_null(other.files);
    }
    world_fini(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("openai files");
    TCase *tc = tcase_create("all");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, files);
    tcase_add_test(tc, taken);
    tcase_add_loop_test(tc, bad_upload, 0, sizeof(bad_uploads) / sizeof(bad_uploads[0]));
    tcase_add_test(tc, strange_folder);
    suite_add_tcase(s, tc);
    runner = srunner_create(s);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
