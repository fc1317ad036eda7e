/* Strided copies of blocks on the CUDA device, against a loop over the same list on the host. */
#include "tests/cuda/cuda_kit.h"

enum { MEMORY = 48 * 1024 }; /* bytes on either side */

static trm_block list[TRM_BLOCKS_MAX + 1];

static size_t pick(size_t below)
{
    return (size_t)kit_uniform(0, (double)below);
}

/* The copy as the host would do it. */
static void copy_on_host(const trm_block *b, const unsigned char *from, unsigned char *to)
{
    for (size_t i = 0; i < b->dims[0]; i++)
        for (size_t j = 0; j < b->dims[1]; j++)
            for (size_t k = 0; k < b->dims[2]; k++)
                memcpy(to + b->to_at + i * b->to_step[0] + j * b->to_step[1] + k * b->to_step[2],
                       from + b->from_at + i * b->from_step[0] + j * b->from_step[1] +
                           k * b->from_step[2],
                       b->run);
}

/* Runs `count` blocks of `list` on the device; its memory begins `shift` bytes off. */
static void check(const char *name, int count, size_t shift)
{
    trm_tensor from = kit_random(KIT_T(TRM_DTYPE_U8, MEMORY), 0, 256);
    unsigned char *want = trm_calloc(1, MEMORY), *got = trm_calloc(1, MEMORY);
    unsigned char *in_memory = kit_device_memory(kit_gpu, MEMORY + 16);
    unsigned char *out_memory = kit_device_memory(kit_gpu, MEMORY + 16);
    const void *in[1] = {in_memory + shift};
    void *out[1] = {out_memory + shift};
    trm_kernel *k = NULL;

    kit_name = name;
    memset(want, 0xa5, MEMORY);
    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, in_memory + shift, from.data, MEMORY));
    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, out_memory + shift, want, MEMORY));
    KIT_OK(kit_gpu->ops->prepare_blocks(kit_gpu, list, count, &k));
    KIT_OK(k->ops->run(k, NULL, in, out, NULL));
    KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, got, out_memory + shift, MEMORY));
    kit_wait(kit_gpu);
    for (int i = 0; i < count; i++)
        copy_on_host(&list[i], from.data, want);
    for (size_t i = 0; i < MEMORY; i++)
        if (got[i] != want[i])
            ck_abort_msg("%s: byte %zu is %d, want %d", name, i, got[i], want[i]);
    trm_kernel_destroy(k);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, in_memory);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, out_memory);
    trm_free(want);
    trm_free(got);
}

static const struct {
    const char *name;
    trm_block block;
    size_t shift;
} rows[] = {
    {"one byte", {{1, 1, 1}, 1, 7, {0}, 3, {0}}, 0},
    {"one run", {{1, 1, 1}, 40000, 16, {0}, 32, {0}}, 0},
    {"one run, unaligned memory", {{1, 1, 1}, 40000, 16, {0}, 32, {0}}, 3},
    {"one run, memory aligned to 8", {{1, 1, 1}, 4096, 16, {0}, 32, {0}}, 8},
    {"columns of a matrix", {{16, 1, 1}, 512, 512, {1024, 0, 0}, 0, {512, 0, 0}}, 0},
    {"columns, memory aligned to 4", {{16, 1, 1}, 512, 512, {1024, 0, 0}, 0, {512, 0, 0}}, 4},
    {"short runs", {{3, 5, 37}, 4, 4, {5 * 37 * 8, 37 * 8, 8}, 0, {5 * 37 * 4, 37 * 4, 4}}, 0},
    {"runs of 3 bytes", {{2, 7, 11}, 3, 5, {1000, 100, 7}, 1, {7 * 11 * 3, 33, 3}}, 0},
    {"runs of 2 bytes", {{2, 7, 11}, 2, 6, {1000, 100, 4}, 2, {7 * 11 * 6, 66, 6}}, 0},
    {"runs of 8 bytes", {{2, 7, 11}, 8, 8, {2000, 240, 16}, 0, {7 * 11 * 8, 88, 8}}, 0},
    {"transposed", {{4, 30, 20}, 4, 0, {2400, 80, 4}, 0, {2400, 4, 120}}, 0},
    {"a dim repeated by step 0", {{4, 3, 1}, 16, 32, {0, 64, 0}, 0, {256, 16, 0}}, 0},
    {"steps of dims of 1 do not count", {{1, 1, 9}, 16, 0, {3, 5, 32}, 0, {7, 11, 16}}, 0},
    {"no elements", {{3, 0, 2}, 16, 0, {3, 5, 32}, 0, {7, 11, 16}}, 0},
    {"runs of none", {{3, 2, 2}, 0, 0, {3, 5, 32}, 0, {7, 11, 16}}, 0},
    {"all together", {{4, 8, 16}, 64, 0, {8192, 1024, 64}, 0, {8192, 1024, 64}}, 0},
    {"planes together", {{4, 8, 16}, 32, 0, {8192, 1024, 64}, 0, {4096, 512, 32}}, 0},
};

START_TEST(one_block)
{
    list[0] = rows[_i].block;
    check(rows[_i].name, 1, rows[_i].shift);
}
END_TEST

/* `count` blocks that share the result's memory out among them. */
static void make_random(int count, size_t unit)
{
    size_t room = MEMORY / (size_t)count / unit * unit;

    for (int i = 0; i < count; i++) {
        trm_block *b = &list[i];
        size_t bytes, left;

        memset(b, 0, sizeof(*b));
        for (int d = 0; d < 3; d++)
            b->dims[d] = 1 + pick(3);
        b->run = (1 + pick(4)) * unit;
        for (;;) {
            bytes = b->dims[0] * b->dims[1] * b->dims[2] * b->run;
            if (bytes <= room)
                break;
            b->dims[0] = b->dims[1] = 1;
            if (b->dims[2]-- == 1)
                b->run = unit, b->dims[2] = 1;
        }
        left = room - bytes;
        b->to_at = (size_t)i * room + pick(left / unit + 1) * unit;
        b->to_step[2] = b->run;
        b->to_step[1] = b->dims[2] * b->to_step[2];
        b->to_step[0] = b->dims[1] * b->to_step[1];
        if (pick(2) == 1) { /* the other order of two dims */
            b->to_step[1] = b->run;
            b->to_step[2] = b->dims[1] * b->run;
        }
        for (int d = 0; d < 3; d++)
            b->from_step[d] = pick(2000 / unit) * unit;
        b->from_at = pick(4000 / unit) * unit;
    }
}

START_TEST(many_blocks)
{
    static const int counts[] = {0, 1, 2, 31, 32, 33, 64, 65, 200, TRM_BLOCKS_MAX};
    static const size_t units[] = {1, 2, 4, 8, 16, 3, 6};
    static const size_t shifts[] = {0, 0, 0, 8, 4, 2, 1};
    size_t n = sizeof(units) / sizeof(units[0]);
    int count = counts[(size_t)_i / n];
    char name[64];

    snprintf(name, sizeof(name), "%d blocks of units of %zu", count, units[(size_t)_i % n]);
    if (count > 0)
        make_random(count, units[(size_t)_i % n]);
    check(name, count, shifts[pick(7)]);
}
END_TEST

/* Blocks of all widths in one list. */
START_TEST(mixed_widths)
{
    static const size_t runs[] = {1, 2, 4, 8, 16, 48, 7, 12, 24, 6};
    int count = 3 * 32 + 10;

    for (int i = 0; i < count; i++)
        list[i] = (trm_block){.dims = {1, 1, 2},
                              .run = runs[i % 10],
                              .from_at = (size_t)i * 112,
                              .from_step = {0, 0, 48},
                              .to_at = (size_t)i * 96,
                              .to_step = {0, 0, 48}};
    check("mixed", count, 0);
    check("mixed, unaligned", count, 1);
    check("mixed, aligned to 4", count, 4);
}
END_TEST

/* What the kernel keeps is its own: the list may go. */
START_TEST(refused)
{
    trm_kernel *k = NULL;

    memset(list, 0, sizeof(list));
    ck_assert_int_eq(kit_gpu->ops->prepare_blocks(kit_gpu, list, TRM_BLOCKS_MAX + 1, &k),
                     TRM_ERR_UNSUPPORTED);
    ck_assert_int_eq(kit_gpu->ops->prepare_blocks(kit_gpu, list, -1, &k), TRM_ERR_UNSUPPORTED);
    list[0] = (trm_block){.dims = {SIZE_MAX, 2, 2}, .run = 8};
    ck_assert_int_eq(kit_gpu->ops->prepare_blocks(kit_gpu, list, 1, &k), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_null(k);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("blocks");

    tcase_add_loop_test(t, one_block, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_loop_test(t, many_blocks, 0, 10 * 7);
    tcase_add_test(t, mixed_widths);
    tcase_add_test(t, refused);
    return kit_main("blocks", t);
}
