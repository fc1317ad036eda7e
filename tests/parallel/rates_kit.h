/* Nodes with shapes, and what they cost; files as bytes. */
#ifndef TRM_TESTS_PARALLEL_RATES_KIT_H
#define TRM_TESTS_PARALLEL_RATES_KIT_H

#include "parallel/rates_impl.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

struct made {
    trm_node node;
    trm_tensor in[3], out[1];
};

static inline trm_tensor f32(int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = rank, .dims = {a, b, c, d}};
}

static inline struct made matmul(int64_t m, int64_t n, int64_t k)
{
    return (struct made){
        .node = {.op = TRM_OP_MatMul, .name = "", .input_count = 2, .output_count = 1},
        .in = {f32(2, m, k, 0, 0), f32(2, k, n, 0, 0)},
        .out = {f32(2, m, n, 0, 0)}};
}

static inline struct made conv(int64_t images, int64_t ins, int64_t outs, int64_t side,
                               int64_t kernel, int64_t group)
{
    static trm_attr attr = {.name = "group", .kind = TRM_ATTR_INT};

    attr.v.i = group;
    return (struct made){
        .node = {.op = TRM_OP_Conv,
                 .name = "",
                 .input_count = 2,
                 .output_count = 1,
                 .attrs = {.items = &attr, .count = 1}},
        .in = {f32(4, images, ins, side, side), f32(4, outs, ins / group, kernel, kernel)},
        .out = {f32(4, images, outs, side, side)}};
}

static inline struct made unary(trm_op op, int64_t rows, int64_t row)
{
    return (struct made){.node = {.op = op, .name = "", .input_count = 1, .output_count = 1},
                         .in = {f32(2, rows, row, 0, 0)},
                         .out = {f32(2, rows, row, 0, 0)}};
}

static inline double us(const trm_rates *r, int threads, int busy, struct made m)
{
    trm_cost_context c = {
        .rates = r, .threads = threads, .busy_ranks = busy, .dtype = TRM_DTYPE_F32};

    return trm_cost_node_us(&c, &m.node, m.in, m.out, false);
}

static inline char *slurp(const char *path, size_t *bytes_out)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 16);

    ck_assert_ptr_nonnull(f);
    *bytes_out = fread(text, 1, (1 << 16) - 1, f);
    fclose(f);
    return text;
}

static inline void spill(const char *path, const char *text, size_t bytes)
{
    FILE *f = fopen(path, "wb");

    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, bytes, f), bytes);
    fclose(f);
}

#endif
