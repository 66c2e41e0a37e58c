/* device/route_assign.h - capacity and recycling of one routing group, as a plain function.
 *
 * Integers only, so every device and every instruction set gets the same assignment. The rules are
 * those of dev_route_fwd in device.h. Letters: R tokens of the group, E experts, k experts a token,
 * C capacity.
 */
#ifndef ISOMOE_DEVICE_ROUTE_ASSIGN_H
#define ISOMOE_DEVICE_ROUTE_ASSIGN_H

#include <stdint.h>

#include "base/philox.h"

/* Choice n * k + j is the j-th best expert of token n. */
typedef struct RouteGroup {
    int64_t tokens;       /* R */
    int64_t experts;      /* E */
    int64_t k;            /* 1 .. E */
    int64_t capacity;     /* C; E * C at most ROUTE_MAX_PLACES */
    const int32_t *first; /* (R, k) best experts of each token, all different, best first */
    PhiloxKey key;        /* of the group: {seed, RNG_RECYCLE, layer, step << 32 | group} */

    int32_t *expert;   /* (R, k) out: expert in force; -1 = unplaced */
    int32_t *place;    /* (R, k) out: place inside the expert, 0 .. C-1; -1 = unplaced */
    int32_t *load;     /* (E) out: choices placed at the expert */
    int64_t overflow;  /* out: choices that their own expert had no room for */
    int64_t recycled;  /* out: of those, placed at another expert */
    int64_t unplaced;  /* out: of those, placed nowhere */
} RouteGroup;

enum {
    ROUTE_PASSES = 5,          /* one, and four more for matches that could not be */
    ROUTE_MAX_PLACES = 1 << 20 /* the draw of place i in a pass has number pass << 20 | i */
};

/* Bytes of scratch that route_assign needs, a multiple of 64. */
int64_t route_assign_scratch(int64_t tokens, int64_t experts, int64_t k, int64_t capacity);

/* Fills the outputs of g. scratch is 8-byte aligned. */
void route_assign(RouteGroup *g, void *scratch);

#endif
