/* scaling/hygiene.h - what is doubtful about a table of runs, before and after a fit: named with
 * its rows, so that a fit can be given with and without them. Nothing is dropped silently. */
#ifndef ISOMOE_SCALING_HYGIENE_H
#define ISOMOE_SCALING_HYGIENE_H

#include "scaling/profile.h"

typedef enum HygieneKind {
    HYGIENE_VALUE,     /* a number that the law needs is missing, or not in its column's range */
    HYGIENE_DUPLICATE, /* all columns are those of another run */
    HYGIENE_BELOW_E,   /* the loss is not above E: the law cannot reach it */
    HYGIENE_FLOPS,     /* C was counted otherwise than for the other runs */
    HYGIENE_EDGE,      /* a budget's minimum is not bracketed by two sizes on each side */
    HYGIENE_OUTLIER,   /* a budget's minimum stands apart from the line through the others, or its
                          losses from the law through them */
    HYGIENE_CONVEX,    /* a budget's curve has a hump (its rows: of the run that makes it, which may
                          be a neighbour that is too low), or opens downwards */
    HYGIENE_TIED,      /* D follows N, or one of them never changes: not identified */
    HYGIENE_KINDS
} HygieneKind;

enum { HYGIENE_TEXT = 320 };

typedef struct Finding {
    HygieneKind kind;
    bool drops;              /* its rows are left out of `clean` */
    int64_t rows, *row;      /* rows of the table; none: the whole of it is meant. Owned */
    double budget;           /* FLOPs; NaN: no one budget */
    char text[HYGIENE_TEXT]; /* one sentence, without line numbers: the same for any row order */
} Finding;

typedef struct Hygiene {
    Finding *finding;        /* (count), owned; in the order of HygieneKind */
    int count, room;
    unsigned char *usable;   /* (rows) 1: all numbers that the law needs are there; owned */
    unsigned char *clean;    /* (rows) 1: usable, and in no finding that drops; owned */
    int64_t n_usable, n_clean;
} Hygiene;

/* t: sorted. columns: bits of RunColumn that the law needs, of those in the table. e_limit: the
 * law's E, fixed or fitted; NaN: not known yet. Curves (edge, outlier, convex) are judged where
 * there are any (Profile.curves). Err: no memory. hygiene_clear ends it, after a failure too. */
int hygiene_check(const RunTable *t, unsigned columns, double e_limit, Hygiene *out, Err *e);
void hygiene_clear(Hygiene *h);

/* "values", "duplicates", .. */
const char *hygiene_kind_name(HygieneKind kind);

/* ---- Private to scaling/ ----------------------------------------------------------------------*/

/* A new finding without rows, or NULL with e filled; hygiene_row adds one: 0 or -1. */
Finding *hygiene_add(Hygiene *h, HygieneKind kind, bool drops, Err *e);
int hygiene_row(Finding *f, int64_t row, Err *e);

/* Edge, outlier, convex: of the rows that are clean so far. */
int hygiene_curves(const RunTable *t, Hygiene *h, Err *e);

#endif
