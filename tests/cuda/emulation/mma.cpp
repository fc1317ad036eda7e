/* Integer tensor core instructions; fragments as the PTX manual lays them out. */
#include "tests/cuda/emulation/emu_block.hpp"
#include "tests/cuda/emulation/emu_state.hpp"

#include <cstring>

namespace trm_emu
{

/* k16: the first half of each operand only. */
static void mma_s8(Lane *w, unsigned mask, int depth)
{
    int8_t a[16][32], b[32][8];

    if (mask != ~0u)
        fail("mma needs a full warp");
    for (int l = 0; l < 32; l++) {
        const MmaS8In &x = *static_cast<const MmaS8In *>(w[l].in);
        const int g = l >> 2, t = (l & 3) * 4;

        for (int half = 0; half < depth / 16; half++) {
            std::memcpy(&a[g][16 * half + t], &x.a[2 * half], 4);
            std::memcpy(&a[g + 8][16 * half + t], &x.a[2 * half + 1], 4);
            for (int i = 0; i < 4; i++)
                b[16 * half + t + i][g] = static_cast<int8_t>(x.b[half] >> 8 * i & 0xff);
        }
    }
    for (int l = 0; l < 32; l++) {
        const MmaS8In &x = *static_cast<const MmaS8In *>(w[l].in);
        int32_t *d = static_cast<int32_t *>(w[l].out);

        for (int i = 0; i < 4; i++) {
            int32_t s = x.c[i];

            for (int k = 0; k < depth; k++)
                s += a[(l >> 2) + (i >> 1) * 8][k] * b[k][(l & 3) * 2 + (i & 1)];
            d[i] = s;
        }
    }
}
void mma_s8_k32_fn(Lane *w, unsigned mask)
{
    mma_s8(w, mask, 32);
}
void mma_s8_k16_fn(Lane *w, unsigned mask)
{
    mma_s8(w, mask, 16);
}

} // namespace trm_emu
