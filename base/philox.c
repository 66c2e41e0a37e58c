/* base/philox.c - see philox.h. */
#include "base/philox.h"

#include <math.h>

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void philox_block(const PhiloxKey *key, uint32_t block, uint32_t out[4])
{
    uint32_t counter[4] = {block, key->stream, (uint32_t)key->position,
                           (uint32_t)(key->position >> 32) ^ key->purpose << 24};
    uint32_t k[2] = {(uint32_t)key->seed, (uint32_t)(key->seed >> 32)};
    philox4x32(counter, k, out);
}

uint32_t philox_u32(const PhiloxKey *key, uint64_t index)
{
    uint32_t words[4];
    philox_block(key, (uint32_t)(index / 4), words);
    return words[index % 4];
}

double philox_uniform(const PhiloxKey *key, uint64_t index)
{
    return ((double)philox_u32(key, index) + 0.5) * 0x1p-32;
}

double philox_normal(const PhiloxKey *key, uint32_t index)
{
    uint32_t w[4];
    philox_block(key, index, w);
    double u = ((double)w[0] + 0.5) * 0x1p-32, v = ((double)w[1] + 0.5) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
