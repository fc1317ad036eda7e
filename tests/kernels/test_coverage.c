/* Every operator whose shape is known can run: a shape rule without a CPU kernel must be listed
 * here with its reason. And the other way round: a kernel without a shape rule could never be
 * bound. */
#include "kernels/cpu/cpu.h"
#include "model/shape/shape.h"

#include <check.h>
#include <stdlib.h>

/* No kernel, and why. */
static const struct reason {
    trm_op op;
    const char *why;
} without[] = {
    {TRM_OP_If, "control flow: the executor runs the bodies"},
    {TRM_OP_Loop, "control flow: the executor runs the bodies"},
    {TRM_OP_Scan, "control flow: the executor runs the bodies"},
    {TRM_OP_TrmAttentionPacked, "made for devices that have it (CUDA)"},
    {TRM_OP_TrmSample, "on the CPU the worker samples (worker/language/sampler.h)"},
};

static bool listed(trm_op op)
{
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        if (without[i].op == op)
            return true;
    return false;
}

START_TEST(rules_have_kernels)
{
    trm_op op = (trm_op)_i;

    if (trm_shape_rule_get(op) != NULL && trmi_cpu_kernel(op) == NULL &&
        (trm_op_get(op)->flags & TRM_OPF_COLLECTIVE) == 0) /* the executor's */
        ck_assert_msg(listed(op), "%s has a shape rule, but no CPU kernel and no reason here",
                      trm_op_get(op)->name);
}
END_TEST

START_TEST(kernels_have_rules)
{
    trm_op op = (trm_op)_i;

    if (trmi_cpu_kernel(op) != NULL)
        ck_assert_msg(trm_shape_rule_get(op) != NULL, "%s has a CPU kernel, but no shape rule",
                      trm_op_get(op)->name);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("coverage");
    TCase *t = tcase_create("coverage");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, rules_have_kernels, 1, TRM_OP_COUNT);
    tcase_add_loop_test(t, kernels_have_rules, 1, TRM_OP_COUNT);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
