#include "tests/cuda/cuda_kit.h"
START_TEST(smoke)
{
    cuda_case c = {.op = TRM_OP_Relu, .in_count = 1, .out_count = 1};
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 3, 7), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 3, 7);
    cuda_check(&c);
}
END_TEST
int main(void)
{
    TCase *t = tcase_create("elementwise");
    tcase_add_test(t, smoke);
    return kit_main("elementwise", t);
}
