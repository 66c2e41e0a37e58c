/* tests/ref/routes.h - a routing made by the oracle, for tests of routing and of what uses it. */
#ifndef ISOMOE_TESTS_REF_ROUTES_H
#define ISOMOE_TESTS_REF_ROUTES_H

#include "tests/ref/harness.h"
#include "tests/ref/ref.h"

/* How logits are made. All are multiples of 2^-10, so that no two are nearly but not quite equal:
 * an order of probabilities in f32 is then the order of the logits. */
typedef enum LogitKind {
    LOGITS_NORMAL,
    LOGITS_TIES,    /* multiples of 1 */
    LOGITS_ZERO,    /* all tied */
    LOGITS_CROWDED, /* expert 1 (or 0) first for all tokens */
    LOGITS_WIDE     /* normals times 30: probabilities of 0 and 1 */
} LogitKind;

typedef struct RouteCase {
    int64_t N, E, k, R, C;
    RouteMode mode;
    bool renorm;
    LogitKind kind;
} RouteCase;

/* What a case may have besides; all 0: nothing. */
typedef struct RouteMore {
    RouteScore score;
    bool by_score, bias, balance_f, balance_width;
    double top_p;
    int64_t blocks, blocks_top;
    double weight_scale; /* 0: 1 */
} RouteMore;

/* The oracle's arrays for a case; logits random from r. more may be NULL. For replay the recorded
 * choices are random ones that fit. */
RefRoute route_make(Rig *r, const RouteCase *c, const RouteMore *more);
void route_free(RefRoute *a);
/* "N 8 E 4 ..." into out. */
const char *route_text(const RouteCase *c, const RouteMore *more, char out[128]);

/* A whole routing as input slots with the names of its fields; weight NULL: the oracle's. */
void route_slots(Rig *r, const RefRoute *a, const double *weight);
/* The Routing of the live slots of a rig. */
Routing route_live(const Rig *r);

/* Slots of the case's vectors (bias, balance_f, balance_width), and the options with live views. */
void route_option_slots(Rig *r, const RefRoute *a);
RouteOpt route_options(const Rig *r, const RefRoute *a);

#endif
