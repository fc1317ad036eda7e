/* Strided N-dimensional copy: the engine under Transpose, Slice, Expand, Tile and friends.
 *
 * After merging, every copy is outer dims walked by an odometer around one of two inner works: a
 * row of equal runs (contiguous bytes on both sides), or, where the innermost output dim is far
 * apart in the input and another dim is contiguous there, a transposition in tiles, so that both
 * sides use whole cache lines. The innermost long dim is cut in pieces so that a copy with few
 * outer dims still spreads over the team. */
#include "kernels/cpu/data.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define TILE 32           /* rows of a transposed tile: 2 cache lines of f32 */
#define PIECE_BYTES 16384 /* long rows are cut at about this many bytes */
#define GRAIN_BYTES 32768 /* less work a thread than this is not worth a region */

void trmi_steps(int rank, const int64_t *dims, ptrdiff_t *steps)
{
    ptrdiff_t step = 1;

    for (int i = rank - 1; i >= 0; i--) {
        steps[i] = step;
        step *= (ptrdiff_t)dims[i];
    }
}

/* Cuts dimension `length` (byte steps in, out) in pieces: a last outer dim counts them. */
static void add_split(trmi_copy *c, size_t length, size_t piece, ptrdiff_t in, ptrdiff_t out)
{
    c->split_dim = length;
    c->split_piece = piece;
    c->dims[c->rank] = (length + piece - 1) / piece;
    c->in[c->rank] = in * (ptrdiff_t)piece;
    c->out[c->rank] = out * (ptrdiff_t)piece;
    c->rank++;
}

static int merge_dims(size_t elem, int rank, const size_t *dims, const ptrdiff_t *in,
                      const ptrdiff_t *out, size_t *d, ptrdiff_t *si, ptrdiff_t *so)
{
    int n = 0;

    for (int i = 0; i < rank; i++) {
        ptrdiff_t a = in[i] * (ptrdiff_t)elem, b = out[i] * (ptrdiff_t)elem;

        if (dims[i] == 1)
            continue;
        if (n > 0 && si[n - 1] == a * (ptrdiff_t)dims[i] && so[n - 1] == b * (ptrdiff_t)dims[i]) {
            d[n - 1] *= dims[i];
            si[n - 1] = a;
            so[n - 1] = b;
            continue;
        }
        d[n] = dims[i];
        si[n] = a;
        so[n] = b;
        n++;
    }
    return n;
}

void trmi_copy_init(trmi_copy *c, size_t elem, int rank, const size_t *dims,
                    const ptrdiff_t *in_step, const ptrdiff_t *out_step)
{
    size_t d[TRMI_COPY_RANK];
    ptrdiff_t si[TRMI_COPY_RANK], so[TRMI_COPY_RANK];
    int n, tile = -1;

    memset(c, 0, sizeof(*c));
    for (int i = 0; i < rank; i++)
        if (dims[i] == 0)
            return; /* units stays 0 */
    n = merge_dims(elem, rank, dims, in_step, out_step, d, si, so);
    c->run = elem;
    if (n > 0 && si[n - 1] == (ptrdiff_t)elem && so[n - 1] == (ptrdiff_t)elem)
        c->run = elem * d[--n];
    c->count = 1;
    if (n > 0) {
        n--;
        c->count = d[n];
        c->in_step = si[n];
        c->out_step = so[n];
    }
    if ((c->run == 1 || c->run == 2 || c->run == 4 || c->run == 8) &&
        c->out_step == (ptrdiff_t)c->run && c->count >= 4)
        for (int i = 0; i < n; i++)
            if (si[i] == (ptrdiff_t)c->run && d[i] >= 4)
                tile = i;
    for (int i = 0; i < n; i++) {
        if (i == tile)
            continue;
        c->dims[c->rank] = d[i];
        c->in[c->rank] = si[i];
        c->out[c->rank] = so[i];
        c->rank++;
    }
    if (tile >= 0) {
        c->tile_rows = TILE;
        c->row_in = si[tile];
        c->row_out = so[tile];
        add_split(c, d[tile], TILE, c->row_in, c->row_out);
        c->unit_bytes = TILE * c->count * c->run;
    } else if (c->count == 1 && c->run > 2 * PIECE_BYTES) {
        add_split(c, c->run, PIECE_BYTES, 1, 1);
        c->unit_bytes = PIECE_BYTES;
    } else if (c->count > 1 && c->count * c->run > 2 * PIECE_BYTES) {
        size_t piece = c->run >= PIECE_BYTES ? 1 : PIECE_BYTES / c->run;

        add_split(c, c->count, piece, c->in_step, c->out_step);
        c->unit_bytes = piece * c->run;
    } else {
        c->unit_bytes = c->count * c->run;
    }
    c->units = 1;
    for (int i = 0; i < c->rank; i++)
        c->units *= c->dims[i];
}

#define ROW_OF(type)                                                                               \
    for (size_t i = 0; i < count; i++, in += in_step, out += out_step) {                           \
        type v;                                                                                    \
        memcpy(&v, in, sizeof(v));                                                                 \
        memcpy(out, &v, sizeof(v));                                                                \
    }

typedef struct wide16 {
    uint64_t a, b;
} wide16;
typedef struct wide32 {
    uint64_t a, b, c, d;
} wide32;

static void copy_row(const unsigned char *in, unsigned char *out, size_t run, size_t count,
                     ptrdiff_t in_step, ptrdiff_t out_step)
{
    switch (run) {
    case 1:
        if (in_step == 0 && out_step == 1) {
            memset(out, *in, count);
            return;
        }
        ROW_OF(uint8_t)
        return;
    case 2:
        ROW_OF(uint16_t)
        return;
    case 4:
        ROW_OF(uint32_t)
        return;
    case 8:
        ROW_OF(uint64_t)
        return;
    case 16:
        ROW_OF(wide16)
        return;
    case 32:
        ROW_OF(wide32)
        return;
    default:
        for (size_t i = 0; i < count; i++, in += in_step, out += out_step)
            memcpy(out, in, run);
    }
}

/* rows x count elements: out[r][k] = in[k][r]; both sides contiguous along their last index. */
#define TILE_OF(type)                                                                              \
    for (size_t k0 = 0; k0 < count; k0 += TILE) {                                                  \
        size_t k1 = k0 + TILE < count ? k0 + TILE : count;                                         \
        for (size_t r = 0; r < rows; r++) {                                                        \
            const unsigned char *from = in + r * sizeof(type) + (ptrdiff_t)k0 * in_step;           \
            unsigned char *to = out + (ptrdiff_t)r * row_out + k0 * sizeof(type);                  \
            for (size_t k = k0; k < k1; k++, from += in_step, to += sizeof(type)) {                \
                type v;                                                                            \
                memcpy(&v, from, sizeof(v));                                                       \
                memcpy(to, &v, sizeof(v));                                                         \
            }                                                                                      \
        }                                                                                          \
    }

#ifdef __SSE2__
/* The same for 4-byte elements, rows and count multiples of 4, in 4 x 4 blocks. */
static void tile4(const unsigned char *in, unsigned char *out, size_t rows, size_t count,
                  ptrdiff_t in_step, ptrdiff_t row_out)
{
    for (size_t k = 0; k + 4 <= count; k += 4) {
        for (size_t r = 0; r + 4 <= rows; r += 4) {
            const unsigned char *f = in + (ptrdiff_t)k * in_step + r * 4;
            unsigned char *t = out + (ptrdiff_t)r * row_out + k * 4;
            __m128i a = _mm_loadu_si128((const __m128i *)(const void *)f);
            __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(f + in_step));
            __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(f + 2 * in_step));
            __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(f + 3 * in_step));
            __m128i ab0 = _mm_unpacklo_epi32(a, b), ab1 = _mm_unpackhi_epi32(a, b);
            __m128i cd0 = _mm_unpacklo_epi32(c, d), cd1 = _mm_unpackhi_epi32(c, d);

            _mm_storeu_si128((__m128i *)(void *)t, _mm_unpacklo_epi64(ab0, cd0));
            _mm_storeu_si128((__m128i *)(void *)(t + row_out), _mm_unpackhi_epi64(ab0, cd0));
            _mm_storeu_si128((__m128i *)(void *)(t + 2 * row_out), _mm_unpacklo_epi64(ab1, cd1));
            _mm_storeu_si128((__m128i *)(void *)(t + 3 * row_out), _mm_unpackhi_epi64(ab1, cd1));
        }
    }
}
#endif

static void scalar_tile(const unsigned char *in, unsigned char *out, size_t elem, size_t rows,
                        size_t count, ptrdiff_t in_step, ptrdiff_t row_out)
{
    switch (elem) {
    case 1:
        TILE_OF(uint8_t)
        return;
    case 2:
        TILE_OF(uint16_t)
        return;
    case 4:
        TILE_OF(uint32_t)
        return;
    default:
        TILE_OF(uint64_t)
    }
}

static void copy_tile(const unsigned char *in, unsigned char *out, size_t elem, size_t rows,
                      size_t count, ptrdiff_t in_step, ptrdiff_t row_out)
{
#ifdef __SSE2__
    if (elem == 4) {
        size_t r4 = rows / 4 * 4, k4 = count / 4 * 4;

        tile4(in, out, r4, k4, in_step, row_out);
        if (r4 < rows) /* last rows, all columns */
            scalar_tile(in + r4 * 4, out + (ptrdiff_t)r4 * row_out, 4, rows - r4, count, in_step,
                        row_out);
        if (k4 < count && r4 > 0) /* last columns of the rows done */
            scalar_tile(in + (ptrdiff_t)k4 * in_step, out + k4 * 4, 4, r4, count - k4, in_step,
                        row_out);
        return;
    }
#endif
    scalar_tile(in, out, elem, rows, count, in_step, row_out);
}

struct copy_job {
    const trmi_copy *c;
    const unsigned char *in;
    unsigned char *out;
};

static void copy_units(void *ctx, size_t begin, size_t end)
{
    const struct copy_job *job = (const struct copy_job *)ctx;
    const trmi_copy *c = job->c;
    size_t at[TRMI_COPY_RANK + 1] = {0}, rest = begin;
    const unsigned char *in = job->in;
    unsigned char *out = job->out;
    int last = c->rank - 1;

    for (int i = last; i >= 0; i--) {
        at[i] = rest % c->dims[i];
        rest /= c->dims[i];
        in += (ptrdiff_t)at[i] * c->in[i];
        out += (ptrdiff_t)at[i] * c->out[i];
    }
    for (size_t u = begin; u < end; u++) {
        size_t piece = 0;

        if (c->split_dim > 0) {
            piece = c->split_dim - at[last] * c->split_piece;
            if (piece > c->split_piece)
                piece = c->split_piece;
        }
        if (c->tile_rows > 0)
            copy_tile(in, out, c->run, piece, c->count, c->in_step, c->row_out);
        else if (piece > 0 && c->count == 1)
            memcpy(out, in, piece);
        else
            copy_row(in, out, c->run, piece > 0 ? piece : c->count, c->in_step, c->out_step);
        for (int i = last; i >= 0; i--) {
            in += c->in[i];
            out += c->out[i];
            if (++at[i] < c->dims[i])
                break;
            in -= (ptrdiff_t)c->dims[i] * c->in[i];
            out -= (ptrdiff_t)c->dims[i] * c->out[i];
            at[i] = 0;
        }
    }
}

void trmi_copy_run(const trmi_copy *c, const void *in, void *out)
{
    struct copy_job job = {.c = c, .in = in, .out = out};

    if (c->units > 0)
        trm_team_for(c->units, GRAIN_BYTES / (c->unit_bytes + 1) + 1, copy_units, &job);
}

void trmi_copy_flat(const void *in, void *out, size_t bytes)
{
    trmi_copy c;
    ptrdiff_t one = 1;

    if (in == out || bytes == 0)
        return;
    trmi_copy_init(&c, 1, 1, &bytes, &one, &one);
    trmi_copy_run(&c, in, out);
}

void trmi_fill(void *out, const void *value, size_t elem, size_t count)
{
    trmi_copy c;
    ptrdiff_t zero = 0, one = 1;
    static const unsigned char zeros[8];

    if (memcmp(value, zeros, elem) == 0) { /* memset is faster than any row of elements */
        count *= elem;
        elem = 1;
    }
    trmi_copy_init(&c, elem, 1, &count, &zero, &one);
    trmi_copy_run(&c, value, out);
}
