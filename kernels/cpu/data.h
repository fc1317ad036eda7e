/* Shared by the kernels that move, select or generate data: a strided copy engine, checks and
 * parameters of a node, run-time indices. Every function works by element size, so all dtypes run.
 */
#ifndef TRM_KERNELS_CPU_DATA_H
#define TRM_KERNELS_CPU_DATA_H

#include "kernels/cpu/cpu.h"

#define TRMI_COPY_RANK 16

/* An N-dimensional copy between two strided views. Made by trmi_copy_init, which drops dims of 1,
 * merges what is contiguous on both sides and picks how the innermost work is done. */
typedef struct trmi_copy {
    int rank;                     /* outer dims that an odometer walks */
    size_t dims[TRMI_COPY_RANK];  /* of the outer dims */
    ptrdiff_t in[TRMI_COPY_RANK]; /* byte steps of the outer dims */
    ptrdiff_t out[TRMI_COPY_RANK];
    size_t units;                /* product of dims; one unit is the work below */
    size_t unit_bytes;           /* written by a unit, about: decides the grain */
    size_t run;                  /* bytes that lie together on both sides */
    size_t count;                /* runs in a row */
    ptrdiff_t in_step, out_step; /* between the runs of a row */
    size_t tile_rows;            /* > 0: a unit is up to this many rows, transposed in tiles */
    ptrdiff_t row_in, row_out;   /* between those rows (row_in is the run) */
    size_t split_dim;            /* length of the dim that units cut in pieces; 0: none cut */
    size_t split_piece;          /* the pieces' length; the last outer dim counts pieces */
} trmi_copy;

/* Copies dims[0..rank) elements of `elem` bytes; steps are in elements, may be 0 or negative. rank
 * at most TRMI_COPY_RANK. */
void trmi_copy_init(trmi_copy *c, size_t elem, int rank, const size_t *dims,
                    const ptrdiff_t *in_step, const ptrdiff_t *out_step);
/* Runs on the team. */
void trmi_copy_run(const trmi_copy *c, const void *in, void *out);
/* Flat copy on the team; in == out is allowed. */
void trmi_copy_flat(const void *in, void *out, size_t bytes);
/* Fills `count` elements of `elem` bytes with the element at `value`, on the team. */
void trmi_fill(void *out, const void *value, size_t elem, size_t count);

/* Row-major steps in elements of dims[0..rank). */
void trmi_steps(int rank, const int64_t *dims, ptrdiff_t *steps_out);

/* Asks for plain inputs and outputs and refuses post-ops: how a prepare function begins unless it
 * handles layouts. */
TRM_MUST_USE trm_status trmi_data_plain(trm_op_desc *desc);
TRM_MUST_USE trm_status trmi_data_no_posts(const trm_op_desc *desc);
static inline bool trmi_has_input(const trm_op_desc *desc, int i)
{
    return i < desc->input_count && desc->inputs[i].dtype != TRM_DTYPE_NONE;
}
static inline bool trmi_has_output(const trm_op_desc *desc, int i)
{
    return i < desc->output_count && desc->outputs[i].dtype != TRM_DTYPE_NONE;
}
/* Integer elements of shape input i, whose value the contract gives at prepare. *count_out is 0
 * where the input is absent; INVALID_ARG if it is longer than max, not integers, or unknown. */
TRM_MUST_USE trm_status trmi_data_ints(const trm_op_desc *desc, int input, int64_t *values_out,
                                       int max, int *count_out);
/* Axis attribute or value in [-rank, rank) as [0, rank). */
TRM_MUST_USE trm_status trmi_data_axis(const trm_op_desc *desc, int64_t axis, int rank,
                                       int *axis_out);
/* INTERNAL if output 0's inferred dims differ from what the kernel will write. */
TRM_MUST_USE trm_status trmi_data_expect(const trm_op_desc *desc, int output, int rank,
                                         const int64_t *dims);

/* Storage dims of a tensor in its layout (blocked ones have one more, the block) and where logical
 * axis `axis` lies in them. */
int trmi_storage_dims(const trm_tensor *t, int64_t dims_out[TRM_RANK_MAX + 1]);
int trmi_storage_axis(const trm_tensor *t, int axis);
static inline size_t trmi_layout_block(trm_layout layout)
{
    return layout == TRM_LAYOUT_BLOCK8 ? 8 : layout == TRM_LAYOUT_BLOCK16 ? 16 : 1;
}

/* Names the node in run-time messages: kernels keep a copy, since desc does not live on. */
typedef struct trmi_where {
    trm_op op;
    char name[64];
} trmi_where;
void trmi_where_set(trmi_where *w, const trm_op_desc *desc);

/* Run-time indices. Checks that dtype is i32 or i64 (prepare), */
TRM_MUST_USE trm_status trmi_index_dtype(const trm_op_desc *desc, int input);
/* reads `count` of them with stride 1 into `out` as [0, limit): negative ones wrap. INVALID_ARG
 * names op, node, the index and the range. */
TRM_MUST_USE trm_status trmi_index_load(const trmi_where *w, const void *indices, trm_dtype dtype,
                                        size_t count, int64_t limit, int64_t *out);
static inline int64_t trmi_index_at(const void *indices, trm_dtype dtype, size_t i)
{
    return dtype == TRM_DTYPE_I32 ? (int64_t)((const int32_t *)indices)[i]
                                  : ((const int64_t *)indices)[i];
}

/* Between any dtype and f32, on the team; integers saturate. */
void trmi_to_f32(trm_dtype dtype, const void *in, float *out, size_t count);
void trmi_from_f32(trm_dtype dtype, const float *in, void *out, size_t count);

/* For kernels that compute in f32: inputs and output of other dtypes pass through the workspace. */
#define TRMI_FLOAT_INPUTS 3
typedef struct trmi_float_io {
    int inputs; /* the first ones; the kernel reads others itself */
    trm_dtype in_dtype[TRMI_FLOAT_INPUTS], out_dtype;
    size_t in_elems[TRMI_FLOAT_INPUTS], out_elems;
} trmi_float_io;
/* From the first `inputs` inputs and output 0; UNSUPPORTED unless all are floats. Returns the
 * workspace it needs. */
TRM_MUST_USE trm_status trmi_float_io_init(trmi_float_io *io, const trm_op_desc *desc, int inputs,
                                           size_t *workspace_bytes_out);
/* Fills in32[0..inputs) and gives where to write the result; end stores it. */
float *trmi_float_begin(const trmi_float_io *io, const void *const *in, void *out, void *workspace,
                        const float **in32);
void trmi_float_end(const trmi_float_io *io, const float *out32, void *out);

/* Work items [*begin_out, *end_out) of part `part` out of `parts`: for kernels whose parts own a
 * piece of the workspace. */
static inline void trmi_part(size_t n, size_t parts, size_t part, size_t *begin_out,
                             size_t *end_out)
{
    *begin_out = n / parts * part + (part < n % parts ? part : n % parts);
    *end_out = *begin_out + n / parts + (part < n % parts ? 1 : 0);
}

#endif
