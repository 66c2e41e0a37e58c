/* data/permute.c - see permute.h. */
#include "data/permute.h"

#include "base/err.h"

Permutation permute_make(const PhiloxKey *key, uint64_t n)
{
    CHECK(n >= 1 && n <= (uint64_t)1 << (2 * PERMUTE_HALF_MAX), "%llu elements",
          (unsigned long long)n);
    Permutation p = {*key, n, 1};
    while ((uint64_t)1 << (2 * p.half) < n) p.half++;
    return p;
}

/* One turn of the network on a number of 2h bits. */
static uint64_t turn(const Permutation *p, uint64_t x)
{
    uint32_t mask = ((uint32_t)1 << p->half) - 1;
    uint32_t left = (uint32_t)(x >> p->half), right = (uint32_t)x & mask, words[4];
    for (uint32_t round = 0; round < PERMUTE_ROUNDS; round++) {
        philox_block(&p->key, round << PERMUTE_HALF_MAX | right, words);
        uint32_t next = (left ^ words[0]) & mask;
        left = right;
        right = next;
    }
    return (uint64_t)left << p->half | right;
}

uint64_t permute_index(const Permutation *permutation, uint64_t i)
{
    CHECK(i < permutation->n, "%llu of %llu", (unsigned long long)i,
          (unsigned long long)permutation->n);
    do i = turn(permutation, i);
    while (i >= permutation->n);
    return i;
}
