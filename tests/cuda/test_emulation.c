/* The emulated device itself. */
#include "tests/cuda/cuda_kit.h"

START_TEST(works)
{
    float host[100], back[100];
    void *p;
    for (int i = 0; i < 100; i++)
        host[i] = (float)i;
    KIT_OK(kit_gpu->ops->alloc(kit_gpu, TRM_MEMORY_DEVICE, sizeof(host), &p));
    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, p, host, sizeof(host)));
    KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, back, p, sizeof(host)));
    kit_wait(kit_gpu);
    ck_assert_mem_eq(host, back, sizeof(host));
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, p);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("emulation");

    tcase_add_test(t, works);
    return kit_main("emulation", t);
}
