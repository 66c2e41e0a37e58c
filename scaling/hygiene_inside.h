/* scaling/hygiene_inside.h - isoFLOP curves as the files of the hygiene share them. Private to
 * scaling/hygiene_*.c. */
#ifndef ISOMOE_SCALING_HYGIENE_INSIDE_H
#define ISOMOE_SCALING_HYGIENE_INSIDE_H

#include "scaling/hygiene.h"

enum { CURVES_BUDGETS = 4 /* fewer are not held against each other */ };

typedef struct Curves {
    const RunTable *t;
    int *group;     /* (rows), or -1: counts no more */
    double *weight; /* (rows): 1 for the rows that count, else 0 */
    Profile p;      /* of those that counted when it was made */
    double noise;   /* of a loss, nats: known, or the median over budgets; NaN: not known */
} Curves;

/* Adds the group's rows whose N lies in [low, high] to f: 0 or -1. */
int curves_add_rows(const Curves *c, int g, double low, double high, Finding *f, Err *e);

/* The rows of f count no more. */
void curves_drop(Curves *c, const Finding *f);

/* Sizes that make a curve not convex: hygiene_humps.c. Their rows are dropped. */
int hygiene_humps(Curves *c, Hygiene *h, Err *e);

/* Budgets whose losses are apart from those of the others: hygiene_levels.c. Their rows are
 * dropped. */
int hygiene_levels(Curves *c, Hygiene *h, Err *e);

#endif
