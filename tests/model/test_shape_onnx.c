/* Every model of ONNX's own test data that imports also infers, and the shapes found are those of
 * the expected outputs. Skipped where the data (Debian package libonnx-testdata, or the folder
 * named by TRM_ONNX_DATA) is not there. */
#include "model/onnx/onnx.h"
#include "model/passes/passes.h"
#include "model/shape/shape.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int imported, compared, open_dims, failed;

static bool read_pb(const char *dir, const char *what, int k, trm_arena *arena, trm_tensor *t)
{
    char path[1200];
    const char *name;
    trm_file *file;
    trm_status st;

    snprintf(path, sizeof(path), "%s/test_data_set_0/%s_%d.pb", dir, what, k);
    if (trm_file_open(path, &file) != TRM_OK)
        return false;
    st = trm_onnx_read_tensor(trm_file_data(file), trm_file_bytes(file), arena, t, &name);
    trm_file_unref(file);
    return st == TRM_OK;
}

static bool any_op(const trm_graph *g, uint32_t flags)
{
    for (int n = 0; n < g->node_count; n++)
        if (trm_op_get(g->nodes[n].op)->flags & flags)
            return true;
    return false;
}

static void compare(const trm_graph *g, const char *dir, int k, bool with_data)
{
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];
    const trm_value *v = &g->values[g->outputs[k]];
    trm_tensor t;
    bool same;

    if (!read_pb(dir, "output", k, g->arena, &t))
        return;
    /* the data holds bf16 as u16 */
    same = (v->desc.dtype == TRM_DTYPE_NONE || v->desc.dtype == t.dtype ||
            (v->desc.dtype == TRM_DTYPE_BF16 && t.dtype == TRM_DTYPE_U16)) &&
           (v->desc.rank < 0 || v->desc.rank == t.rank);
    for (int i = 0; same && i < v->desc.rank; i++)
        same = v->desc.dims[i] < 0 || v->desc.dims[i] == t.dims[i];
    compared++;
    if (with_data && !trm_tensor_is_concrete(&v->desc)) {
        open_dims++;
        if (getenv("TRM_VERBOSE") != NULL)
            printf("open: %s output %d '%s': %s\n", dir, k, v->name,
                   trm_tensor_shape_text(&v->desc, a, sizeof(a)));
        /* a single node with known inputs must be known, unless its shape lies in the data */
        same = same && (g->node_count > 1 || any_op(g, TRM_OPF_DATA_SHAPE | TRM_OPF_CONTROL));
    }
    if (same)
        return;
    failed++;
    printf("%s: output %d is inferred %s %s, is %s %s\n", dir, k, trm_dtype_name(v->desc.dtype),
           trm_tensor_shape_text(&v->desc, a, sizeof(a)), trm_dtype_name(t.dtype),
           trm_tensor_shape_text(&t, b, sizeof(b)));
}

/* Without data: what the pass sees. With: inputs become constants, as when a program is bound. */
static void infer_model(trm_graph *g, const char *dir, bool with_data)
{
    for (int k = 0; with_data && k < g->input_count; k++) {
        trm_tensor t;

        if (read_pb(dir, "input", k, g->arena, &t) && t.dtype == g->values[g->inputs[k]].desc.dtype)
            g->values[g->inputs[k]].desc = t;
    }
    for (int k = 0; k < g->output_count; k++) /* what is found, not what is declared */
        if (g->values[g->outputs[k]].producer >= 0)
            g->values[g->outputs[k]].desc = (trm_tensor){.rank = -1};
    if (trm_graph_infer(g) != TRM_OK) {
        failed++;
        printf("%s: %s\n", dir, trm_message());
        return;
    }
    for (int k = 0; k < g->output_count; k++)
        compare(g, dir, k, with_data);
    /* passes leave the outputs as they are, whatever they do inside */
    if (!with_data) {
        if (trm_pass_all(g, NULL) != TRM_OK) {
            failed++;
            printf("%s: passes: %s\n", dir, trm_message());
            return;
        }
        for (int k = 0; k < g->output_count; k++)
            compare(g, dir, k, false);
    }
    if (trm_graph_infer(g) != TRM_OK) { /* a second run agrees with the first */
        failed++;
        printf("%s: second run: %s\n", dir, trm_message());
    }
}

static void one_model(const char *dir)
{
    char path[1100];
    trm_file *file;
    trm_graph *g;

    snprintf(path, sizeof(path), "%s/model.onnx", dir);
    if (trm_file_open(path, &file) != TRM_OK)
        return;
    for (int with_data = 0; with_data < 2; with_data++) {
        if (trm_onnx_import(file, &g) != TRM_OK) {
            if (getenv("TRM_VERBOSE") != NULL && !with_data)
                printf("import: %s: %s\n", dir, trm_message());
            break;
        }
        imported += !with_data;
        infer_model(g, dir, with_data != 0);
        trm_graph_destroy(g);
    }
    trm_file_unref(file);
}

START_TEST(test_data)
{
    static const char *const sets[] = {"node", "simple", "pytorch-converted", "pytorch-operator"};
    const char *root = getenv("TRM_ONNX_DATA");

    root = root == NULL ? "/usr/include/onnx/backend/test/data" : root;
    for (int i = 0; i < 4; i++) {
        char path[600], dir[1000];
        struct dirent *e;
        DIR *d;

        snprintf(path, sizeof(path), "%s/%s", root, sets[i]);
        d = opendir(path);
        if (d == NULL)
            continue;
        while ((e = readdir(d)) != NULL) {
            snprintf(dir, sizeof(dir), "%s/%s", path, e->d_name);
            one_model(dir);
        }
        closedir(d);
    }
    printf("%d imported, %d outputs compared, %d with open dims, %d failed\n", imported, compared,
           open_dims, failed);
    fflush(stdout);
    ck_assert_int_eq(failed, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("shapes of ONNX's test data");
    TCase *t = tcase_create("data");
    SRunner *r;
    int bad;

    tcase_set_timeout(t, 100);
    tcase_add_test(t, test_data);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    bad = srunner_ntests_failed(r);
    srunner_free(r);
    return bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
