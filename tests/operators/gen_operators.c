/* Prints docs/operators.md from the operator table, so that the page cannot drift from the program.
 *
 *     gen_operators                 the page on standard output
 *     gen_operators --check FILE    exit 1 if FILE is not that page */
#include "kernels/cpu/cpu.h"
#include "model/onnx/onnx_impl.h"
#include "model/shape/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_count(FILE *out, int least, int most)
{
    if (most == TRM_ARGS_ANY)
        fprintf(out, "%d or more", least);
    else if (least == most)
        fprintf(out, "%d", least);
    else
        fprintf(out, "%d to %d", least, most);
}

static void print_notes(FILE *out, const trm_op_info *info)
{
    const char *comma = "";

    if (info->shape_inputs != 0) {
        fprintf(out, "value of input");
        for (int i = 0; i < 32; i++) {
            if ((info->shape_inputs >> i & 1) == 0)
                continue;
            fprintf(out, "%s %d", comma, i);
            comma = ",";
        }
        fprintf(out, " decides the shape");
        comma = "; ";
    }
    if (info->flags & TRM_OPF_DATA_SHAPE) {
        fprintf(out, "%sshape depends on the data", comma);
        comma = "; ";
    }
    if (info->flags & TRM_OPF_VIEW) {
        fprintf(out, "%smay alias its input", comma);
        comma = "; ";
    }
    if (info->flags & TRM_OPF_CONTROL)
        fprintf(out, "%sbodies run by the executor", comma);
    if (info->flags & TRM_OPF_COLLECTIVE)
        fprintf(out, "%srun by the executor over its communicator", comma);
}

static void print_row(FILE *out, trm_op op, bool onnx)
{
    const trm_op_info *info = trm_op_get(op);
    bool cpu =
        trmi_cpu_kernel(op) != NULL || (info->flags & (TRM_OPF_CONTROL | TRM_OPF_COLLECTIVE)) != 0;
    char link[128];

    snprintf(link, sizeof(link), "[%s](https://onnx.ai/onnx/operators/onnx__%s.html)", info->name,
             info->name);
    fprintf(out, "| %s | ", onnx ? link : info->name);
    print_count(out, info->in_min, info->in_max);
    fprintf(out, " | ");
    print_count(out, info->out_min, info->out_max);
    fprintf(out, " | %s | ", cpu ? "yes" : "no");
    print_notes(out, info);
    fprintf(out, " |\n");
}

static void print_group(FILE *out, bool internal)
{
    fprintf(out, "| operator | inputs | outputs | CPU | notes |\n|---|---|---|---|---|\n");
    for (int i = 1; i < TRM_OP_COUNT; i++)
        if (((trm_op_get((trm_op)i)->flags & TRM_OPF_INTERNAL) != 0) == internal)
            print_row(out, (trm_op)i, !internal);
}

static void print_page(FILE *out)
{
    int onnx = 0, cpu = 0;

    for (int i = 1; i < TRM_OP_COUNT; i++) {
        uint32_t flags = trm_op_get((trm_op)i)->flags;

        if (flags & TRM_OPF_INTERNAL)
            continue;
        onnx++;
        cpu += trmi_cpu_kernel((trm_op)i) != NULL || (flags & TRM_OPF_CONTROL) != 0;
    }
    fprintf(out, "# Operators\n\n");
    fprintf(out,
            "Made from the operator table (`base/ops.def`) by `cmake --build --preset dev --target "
            "operators_doc`; a test fails where this page is not what the table says. How to add "
            "one: [adding-an-operator.md](adding-an-operator.md).\n\n");
    fprintf(out,
            "Semantics are those of ONNX opset %d. Models of opsets 1 to %d are read: the importer "
            "rewrites older forms to the newest, so that shape rules and kernels know one form "
            "only. Of %d ONNX operators in the table the CPU runs %d. `Constant` becomes data when "
            "a model is read. Training, random numbers, sequences, optionals and strings are left "
            "out.\n\n",
            TRMI_OPSET_MAX, TRMI_OPSET_MAX, onnx, cpu);
    print_group(out, false);
    fprintf(out, "\n## Made by passes\n\nGraph passes put these in place of several nodes, or "
                 "between nodes where ranks share the work; no file "
                 "holds them. What they compute stands in `base/ops.def`.\n\n");
    print_group(out, true);
}

static int check(const char *path)
{
    FILE *file = fopen(path, "re"), *page = tmpfile();
    int line = 1, result = EXIT_SUCCESS;

    if (file == NULL || page == NULL) {
        fprintf(stderr, "gen_operators: cannot open %s\n", path);
        if (file != NULL)
            fclose(file);
        if (page != NULL)
            fclose(page);
        return EXIT_FAILURE;
    }
    print_page(page);
    rewind(page);
    for (;;) {
        int want = fgetc(page), got = fgetc(file);

        if (want != got) {
            fprintf(stderr,
                    "%s:%d: not what the operator table says; run: cmake --build --preset dev "
                    "--target operators_doc\n",
                    path, line);
            result = EXIT_FAILURE;
            break;
        }
        if (want == EOF)
            break;
        line += want == '\n';
    }
    fclose(file);
    fclose(page);
    return result;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--check") == 0)
        return check(argv[2]);
    if (argc != 1) {
        fprintf(stderr, "usage: gen_operators [--check FILE]\n");
        return 2;
    }
    print_page(stdout);
    return ferror(stdout) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
