/* The attention core for any x86-64: multiply and add are two roundings here. */
#include <string.h>

#define TRMI_LM_ATTENTION_TABLE trmi_lm_attention_base
#define LANES 4
#define QK_PAGES 1
#define PV_VECTORS 2
typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef unsigned int whole4 __attribute__((vector_size(16)));
#define VEC vec4
#define V_SET1(x) set1(x)
#define V_ZERO() set1(0.0f)
#define V_LOADU(p) (*(const vec4 *)(p))
#define V_STOREU(p, v) (*(vec4 *)(p) = (v))
#define V_MUL(a, b) ((a) * (b))
#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_F16(p) load_tail(1, (p), 4)
#define V_BF16(p) load_tail(2, (p), 4)
#define TOP_OF(v) top_of(v)
#define SUM_OF(v) sum_of(v)
#define V_TAIL(kind, p, n) load_tail((kind) == KV_F32 ? 0 : (kind) == KV_F16 ? 1 : 2, (p), (n))

static inline vec4 set1(float x)
{
    return (vec4){x, x, x, x};
}

static inline float top_of(float *v)
{
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            v[i] = v[i] > v[i + w] ? v[i] : v[i + w];
    return v[0];
}

static inline float sum_of(float *v)
{
    for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            v[i] += v[i + w];
    return v[0];
}

/* Half to single: the exponent is moved by a multiplication, which subnormals need; infinities and
 * NaN get the largest one. */
static inline vec4 f16(const unsigned short *h)
{
    whole4 bits = {h[0], h[1], h[2], h[3]}, magnitude = bits & 0x7fff;
    vec4 v = (vec4)(magnitude << 13) * set1(0x1p112f);
    whole4 special = (whole4)(magnitude >= 0x7c00) & 0x7f800000;

    return (vec4)((whole4)v | special | (bits & 0x8000) << 16);
}

static inline vec4 bf16(const unsigned short *h)
{
    whole4 bits = {h[0], h[1], h[2], h[3]};

    return (vec4)(bits << 16);
}

static inline vec4 load_tail(int kind, const void *p, int n)
{
    vec4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    unsigned short h[4] = {0};

    if (kind == 0) {
        memcpy(&v, p, (size_t)n * sizeof(float));
        return v;
    }
    memcpy(h, p, (size_t)n * sizeof(h[0]));
    return kind == 1 ? f16(h) : bf16(h);
}

#include "kernels/cpu/lm_attention_body.h"
