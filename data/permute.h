/* data/permute.h - a keyed permutation of 0 .. n-1, computed element by element without memory.
 *
 * A Feistel network with Philox as its round function permutes the numbers of 2h bits, 4^h >= n;
 * a result outside 0 .. n-1 is permuted again until it is inside (cycle walking), which keeps it a
 * bijection and takes fewer than four turns on average.
 */
#ifndef ISOMOE_DATA_PERMUTE_H
#define ISOMOE_DATA_PERMUTE_H

#include <stdint.h>

#include "base/philox.h"

enum { PERMUTE_ROUNDS = 8, PERMUTE_HALF_MAX = 27 }; /* so n <= 2^54 */

typedef struct Permutation {
    PhiloxKey key;
    uint64_t n;
    int half; /* h, bits */
} Permutation;

/* 1 <= n <= 2^54. */
Permutation permute_make(const PhiloxKey *key, uint64_t n);

/* Where i < n goes. */
uint64_t permute_index(const Permutation *permutation, uint64_t i);

#endif
