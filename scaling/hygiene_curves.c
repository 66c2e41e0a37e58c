/* scaling/hygiene_curves.c - findings about isoFLOP curves: minima at the edge, budgets whose
 * minimum stands apart; see hygiene.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/hygiene_inside.h"

#define OUTLIER_AT 4.0     /* standard deviations from the line through the other budgets */
#define OUTLIER_FLOOR 0.05 /* of ln N: what a minimum is uncertain by at least */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, rising);
    return n ? (x[(n - 1) / 2] + x[n / 2]) / 2 : NAN;
}

/* Middle of what the runs say of their noise, else of the curves' deviations from parabolas. */
static double typical_noise(const Curves *c)
{
    double of[PROFILE_BUDGETS], sum = 0;
    int64_t known = 0;
    for (int64_t i = 0; i < c->t->rows; i++) {
        double sd = run_value(c->t, RUN_NOISE, i);
        if (c->group[i] < 0 || !(sd > 0)) continue;
        sum += sd * sd;
        known++;
    }
    if (known) return sqrt(sum / (double)known);
    int n = 0;
    for (int g = 0; g < c->p.count; g++)
        if (!isnan(c->p.budget[g].noise)) of[n++] = c->p.budget[g].noise;
    return median(of, n);
}

int curves_add_rows(const Curves *c, int g, double low, double high, Finding *f, Err *e)
{
    for (int64_t i = 0; i < c->t->rows; i++) {
        double N = run_value(c->t, RUN_N, i);
        if (c->group[i] == g && N >= low * (1 - 1e-12) && N <= high * (1 + 1e-12) &&
            hygiene_row(f, i, e))
            return -1;
    }
    return 0;
}

void curves_drop(Curves *c, const Finding *f)
{
    for (int64_t k = 0; k < f->rows; k++) {
        c->group[f->row[k]] = -1;
        c->weight[f->row[k]] = 0;
    }
}

static int check_edge(const Curves *c, int g, Hygiene *h, Err *e)
{
    const ProfileBudget *b = &c->p.budget[g];
    bool low = b->N_least == b->N_low, high = b->N_least == b->N_high;
    if (b->sizes < 3 || (b->bracketed && !low && !high)) return 0;
    Finding *f = hygiene_add(h, HYGIENE_EDGE, false, e);
    if (!f) return -1;
    f->budget = b->C;
    if (low || high)
        snprintf(f->text, sizeof f->text, "budget %.4g: the %s of its %d sizes, N = %.4g, has the "
                 "least loss: the best size may lie beyond it", b->C,
                 low ? "smallest" : "largest", b->sizes, b->N_least);
    else
        snprintf(f->text, sizeof f->text, "budget %.4g: %d of its sizes below the best one and %d "
                 "above it; two on each side are needed to trust it", b->C, b->below, b->above);
    return curves_add_rows(c, g, b->N_least, b->N_least, f, e);
}

/* ---- Budgets apart ----------------------------------------------------------------------------*/

typedef struct Point {
    int g;
    double x, y, var; /* ln C, ln N_opt, variance of it */
} Point;

/* The line through all points but `without` (-1: none), at x: value, its variance, its slope. */
static double line_at(const Point *p, int n, int without, double x, double *var, double *slope)
{
    double m = 0, mx = 0, my = 0, sxx = 0, sxy = 0, value;
    for (int i = 0; i < n; i++) {
        if (i == without) continue;
        m += 1;
        mx += p[i].x;
        my += p[i].y;
    }
    mx /= m;
    my /= m;
    for (int i = 0; i < n; i++) {
        if (i == without) continue;
        sxx += (p[i].x - mx) * (p[i].x - mx);
        sxy += (p[i].x - mx) * (p[i].y - my);
    }
    *slope = sxy / sxx;
    value = my + *slope * (x - mx);
    *var = 0;
    for (int i = 0; i < n; i++) {
        double part = 1 / m + (x - mx) * (p[i].x - mx) / sxx;
        if (i != without) *var += part * part * p[i].var;
    }
    return value;
}

static int outlier_points(const Curves *c, Point *p)
{
    int n = 0;
    for (int g = 0; g < c->p.count; g++) {
        const ProfileBudget *b = &c->p.budget[g];
        if (isnan(b->N)) continue;
        double sd = isnan(c->noise) ? 0 : c->noise * b->gain;
        p[n++] = (Point){g, log(b->C), log(b->N), sd * sd + OUTLIER_FLOOR * OUTLIER_FLOOR};
    }
    return n;
}

static int add_outlier(Curves *c, const Point *p, int n, int worst, Hygiene *h, Err *e)
{
    double var, slope, all, value = line_at(p, n, worst, p[worst].x, &var, &slope);
    const ProfileBudget *b = &c->p.budget[p[worst].g];
    line_at(p, n, -1, p[worst].x, &var, &all);
    Finding *f = hygiene_add(h, HYGIENE_OUTLIER, true, e);
    if (!f) return -1;
    double factor = exp(fabs(p[worst].y - value));
    f->budget = b->C;
    snprintf(f->text, sizeof f->text, "budget %.4g: its best size, N = %.4g, is a factor of %.3g "
             "%s the line through the other %d budgets; without it N_opt goes as C^%.3f instead "
             "of C^%.3f", b->C, b->N, factor, p[worst].y > value ? "above" : "below", n - 1, slope,
             all);
    if (curves_add_rows(c, p[worst].g, 0, INFINITY, f, e)) return -1;
    curves_drop(c, f);
    return 0;
}

/* The worst budget first: it moves the line that the others are held to. */
static int check_outliers(Curves *c, Hygiene *h, Err *e)
{
    Point p[PROFILE_BUDGETS];
    int n = outlier_points(c, p);
    for (; n >= CURVES_BUDGETS; n--) {
        double far = OUTLIER_AT;
        int worst = -1;
        for (int i = 0; i < n; i++) {
            double var, slope, value = line_at(p, n, i, p[i].x, &var, &slope);
            double z = fabs(p[i].y - value) / sqrt(p[i].var + var);
            if (!(z > far)) continue;
            far = z;
            worst = i;
        }
        if (worst < 0) break;
        if (add_outlier(c, p, n, worst, h, e)) return -1;
        memmove(p + worst, p + worst + 1, (size_t)(n - worst - 1) * sizeof *p);
    }
    return 0;
}

/* ---- Together ---------------------------------------------------------------------------------*/

/* Profile and groups of the rows that count; *judged: they are curves. */
static int make_curves(Curves *c, bool *judged, Err *e)
{
    double centre[PROFILE_BUDGETS];
    int count, rc = 0;
    *judged = false;
    /* What has no curves has no findings about them; why, is told where they are asked for. */
    if (!profile_fit(c->t, c->weight, PROFILE_PARABOLA, PROFILE_TOLERANCE, &c->p, NULL) ||
        c->p.count > 0)
        rc = profile_groups(c->t, c->weight, PROFILE_TOLERANCE, c->group, centre, &count, e);
    c->noise = c->p.count && !rc ? typical_noise(c) : NAN;
    *judged = !rc && c->p.count && c->p.curves;
    return rc;
}

/* A run that is off moves its budget's minimum: minima are judged without it. */
static int check_all(Curves *c, Hygiene *h, Err *e)
{
    bool judged;
    int before = h->count, rc = make_curves(c, &judged, e);
    if (judged) rc = hygiene_humps(c, h, e);
    if (judged && !rc && h->count > before) rc = make_curves(c, &judged, e);
    for (int g = 0; judged && !rc && g < c->p.count; g++) rc = check_edge(c, g, h, e);
    if (judged && !rc) rc = check_outliers(c, h, e);
    if (judged && !rc) rc = hygiene_levels(c, h, e);
    return rc;
}

int hygiene_curves(const RunTable *t, Hygiene *h, Err *e)
{
    Curves *c = calloc(1, sizeof *c);
    int rc = c ? 0 : err_set(e, "out of memory for isoFLOP curves");
    if (!rc) {
        c->t = t;
        c->group = malloc(((size_t)t->rows + 1) * sizeof *c->group);
        c->weight = malloc(((size_t)t->rows + 1) * sizeof *c->weight);
        if (!c->group || !c->weight) rc = err_set(e, "out of memory for isoFLOP curves");
    }
    for (int64_t i = 0; !rc && i < t->rows; i++) c->weight[i] = h->clean[i];
    if (!rc) rc = check_all(c, h, e);
    if (c) {
        free(c->group);
        free(c->weight);
    }
    free(c);
    return rc;
}
