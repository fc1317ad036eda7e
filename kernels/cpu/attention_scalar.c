/* Attention core without vector instructions. */
#include <math.h>

#define ROWS_FN trmi_attention_rows_scalar
#define LANES 1
#define TILE_COLUMNS 2
#define VEC float
#define V_SET1(x) (x)
#define V_LOAD(p) (*(p))
#define V_STORE(p, v) (*(p) = (v))
#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_MAX(a, b) ((a) > (b) ? (a) : (b))
#define V_ROUND(x) rintf(x)
#define V_POW2(n) ldexpf(1.0f, (int)(n))
#define V_ZERO_BELOW(x, e) ((x) > -87.0f ? (e) : 0.0f)
#define V_SUM(x) (x)
#define V_TOP(x) (x)
#include "kernels/cpu/attention_rows.h"
