/* device/route_assign.h - capacity of one routing group, as plain functions: who gets a place.
 *
 * Integers and comparisons of floats only, so every device and every instruction set gets the same
 * assignment from the same scores. The rules are those of dev_route_fwd in device.h. Letters: R
 * tokens of the group, E experts, k experts a token, C capacity.
 */
#ifndef ISOMOE_DEVICE_ROUTE_ASSIGN_H
#define ISOMOE_DEVICE_ROUTE_ASSIGN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/philox.h"

/* Choice n * k + j is the j-th best expert of token n. */
typedef struct RouteGroup {
    int64_t tokens;       /* R */
    int64_t experts;      /* E */
    int64_t k;            /* 1 .. E */
    int64_t capacity;     /* C; where choices are recycled E * C is at most ROUTE_MAX_PLACES */
    const int32_t *first; /* (R, k) experts of each token, all different, best first; -1: none */
    const float *scores;  /* (R, E) for route_drop_by_score and route_expert_choice */
    PhiloxKey key;        /* of the group: {seed, RNG_RECYCLE, layer, step << 32 | group} */

    int32_t *expert;   /* (R, k) out: expert in force; -1 = unplaced, or none */
    int32_t *load;     /* (E) out: choices placed at the expert */
    int64_t overflow;  /* out: choices that their own expert had no room for */
    int64_t recycled;  /* out: of those, placed at another expert */
    int64_t unplaced;  /* out: of those, placed nowhere */
} RouteGroup;

enum {
    ROUTE_PASSES = 5,          /* one, and four more for matches that could not be */
    ROUTE_MAX_PLACES = 1 << 20 /* the draw of place i in a pass has number pass << 20 | i */
};

/* Bytes of scratch that the functions below need, a multiple of 64. */
int64_t route_assign_scratch(int64_t tokens, int64_t experts, int64_t k, int64_t capacity);

/* Each fills the outputs of g. scratch is 8-byte aligned. */
void route_recycle(RouteGroup *g, void *scratch);
/* Without room for it a choice stays unplaced: first in (rank, token) order is first served. */
void route_drop(RouteGroup *g, void *scratch);
/* An expert keeps the choices with the highest scores (ties: earlier token). */
void route_drop_by_score(RouteGroup *g, void *scratch);
/* Each expert takes min(C, R) tokens. k is E. first, (R, E) out, is filled by ascending expert. */
void route_expert_choice(RouteGroup *g, int32_t *first, void *scratch);

/* An integer with the order of the floats; -0 equals 0, and a NaN is below every number. Above
 * INT32_MIN, which is left for "not to be chosen". */
static inline int32_t route_order_key(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t key = bits < 0 ? bits ^ INT32_MAX : bits;
    key = bits == INT32_MIN ? 0 : key;
    return (bits & INT32_MAX) > 0x7f800000 ? INT32_MIN + 1 : key;
}

#endif
