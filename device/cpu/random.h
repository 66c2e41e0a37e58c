/* device/cpu/random.h - words of a Philox stream for many elements at once, and the stochastic
 * rounding to bf16 that uses them. The words are those of base/philox.h: word i is a function of
 * the key and i alone, so it does not matter how a range is cut. */
#ifndef ISOMOE_DEVICE_CPU_RANDOM_H
#define ISOMOE_DEVICE_CPU_RANDOM_H

#include "base/philox.h"
#include "device/cpu/vec.h"

typedef uint64_t L16 __attribute__((vector_size(128)));

enum { RANDOM_WORDS = 4 * LANES }; /* words of 16 blocks, which are made together */

/* Words of a buffer for up to n words of a stream. */
#define RANDOM_ROOM(n) ((n) + 2 * RANDOM_WORDS)

/* a b in two words. */
static inline U16 random_mul(U16 a, uint32_t b, U16 *low)
{
    L16 product = __builtin_convertvector(a, L16) * b;
    *low = __builtin_convertvector(product, U16);
    return __builtin_convertvector(product >> 32, U16);
}

/* The 64 words of blocks `block` .. block + 15 (philox_block of each). */
static inline void random_blocks(const PhiloxKey *key, uint32_t block, uint32_t out[RANDOM_WORDS])
{
    static const U16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    U16 zero = {0}, c[4], low0, low2;
    c[0] = lanes + block;
    c[1] = zero + key->stream;
    c[2] = zero + (uint32_t)key->position;
    c[3] = zero + ((uint32_t)(key->position >> 32) ^ key->purpose << 24);
    uint32_t k0 = (uint32_t)key->seed, k1 = (uint32_t)(key->seed >> 32);
    for (int round = 0; round < 10; round++) {
        U16 high0 = random_mul(c[0], 0xD2511F53u, &low0);
        U16 high2 = random_mul(c[2], 0xCD9E8D57u, &low2);
        c[0] = high2 ^ c[1] ^ k0;
        c[2] = high0 ^ c[3] ^ k1;
        c[1] = low2;
        c[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int lane = 0; lane < LANES; lane++)
        for (int j = 0; j < 4; j++) out[4 * lane + j] = c[j][lane];
}

/* Words first .. first + n - 1 of the stream; the first one stands at the returned place in the
 * buffer of RANDOM_ROOM(n) words. */
static inline const uint32_t *random_words(const PhiloxKey *key, uint64_t first, int64_t n,
                                           uint32_t *buffer)
{
    uint64_t begin = first / RANDOM_WORDS * RANDOM_WORDS, end = first + (uint64_t)n;
    for (uint64_t at = begin; at < end; at += RANDOM_WORDS)
        random_blocks(key, (uint32_t)(at / 4), buffer + (at - begin));
    return buffer + (first - begin);
}

/* n (up to 16) words from p; 0 in the other lanes. */
static inline U16 random_get(const uint32_t *p, int64_t n)
{
    U16 words = {0};
    memcpy(&words, p, (size_t)(n < LANES ? n : LANES) * sizeof *p);
    return words;
}

/* x to bf16, away from zero when the 16 bits that are dropped and 16 random bits (0..65535 in each
 * lane) carry: the expectation is x. What is not finite stays. */
static inline void v_put_random(uint16_t *p, int64_t n, V16 x, U16 random)
{
    U16 u = (U16)x, magnitude = u & 0x7fffffffu;
    U16 special = (U16)(magnitude >= 0x7f800000u);
    U16 quiet = (U16)(magnitude > 0x7f800000u) & 0x40u;
    U16 carried = (u + random) >> 16, kept = u >> 16 | quiet;
    H16 h = __builtin_convertvector((carried & ~special) | (kept & special), H16);
    memcpy(p, &h, (size_t)(n < LANES ? n : LANES) * sizeof *p);
}

#endif
