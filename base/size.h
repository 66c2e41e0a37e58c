/* base/size.h - sizes multiplied and added in 64 bits with overflow checks.
 * Every size that comes from a file or a config goes through these. */
#ifndef ISOMOE_BASE_SIZE_H
#define ISOMOE_BASE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* *out = a * b; false (and *out untouched) if it overflows or an operand is negative. */
static inline bool size_mul(int64_t a, int64_t b, int64_t *out)
{
    int64_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

/* *out = a + b; false (and *out untouched) if it overflows or an operand is negative. */
static inline bool size_add(int64_t a, int64_t b, int64_t *out)
{
    int64_t sum;
    if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

static inline int64_t size_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t size_max(int64_t a, int64_t b) { return a > b ? a : b; }

/* ceil(a / b) for a >= 0, b > 0. */
static inline int64_t size_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/* a rounded up to a multiple of b. */
static inline int64_t size_round_up(int64_t a, int64_t b) { return size_ceil_div(a, b) * b; }

#endif
