/* scaling/hygiene_levels.c - budgets whose losses are apart from those of the others, all by about
 * as much: another tokenizer, another held-out text, another schedule. Minima do not show it: the
 * shape of the curve stays. Each budget is held to the law that is fitted to the other ones. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/bootstrap.h"
#include "scaling/hygiene_inside.h"

#define LEVEL_AT 4.0     /* standard deviations */
#define LEVEL_FLOOR 3e-3 /* of ln L: what a budget's level is uncertain by at least, beside noise */
enum {
    LEVEL_EACH = 16,  /* of more budgets one moves the law little: one fit for all */
    LEVEL_FREEDOM = 4 /* fewer degrees of freedom inside budgets do not tell the scatter */
};

typedef struct Level { /* of one budget */
    double by, sd;     /* ln L above the law of the others; NaN: they do not say */
} Level;

typedef struct Levels {
    const Curves *c;
    const Law *law;
    int64_t n, *row;   /* rows that count */
    double *r, *w;     /* (n) residuals of ln L; weights with which they make the level */
    double *frame;     /* (LAW_PARAMS, n) orthonormal: what the law's parameters can explain */
    double *weight;    /* (rows of the table) */
} Levels;

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* x less its part in the first m rows of the frame; twice, for rounding. */
static void project_out(const Levels *l, int m, double *x)
{
    for (int pass = 0; pass < 2; pass++)
        for (int k = 0; k < m; k++) {
            const double *q = l->frame + k * l->n;
            double part = dot(q, x, l->n);
            for (int64_t i = 0; i < l->n; i++) x[i] -= part * q[i];
        }
}

/* Residuals under f, and the frame of its parameters but those at zero. Returns their number. */
static int linearise(Levels *l, const Fit *f)
{
    int m = 0;
    double gradient[LAW_PARAMS];
    for (int p = 0; p < l->law->n_terms + l->law->n_shape; p++) {
        double *q = l->frame + m * l->n;
        if (p < l->law->n_terms && f->param[p] == 0) continue;
        for (int64_t i = 0; i < l->n; i++) {
            LawPoint at = law_point(l->c->t, l->row[i]);
            double model = law_log_gradient(l->law, f->param, &at, gradient);
            l->r[i] = log(at.x[RUN_LOSS]) - model;
            q[i] = gradient[p];
        }
        double before = sqrt(dot(q, q, l->n));
        project_out(l, m, q);
        double after = sqrt(dot(q, q, l->n));
        if (!(after > 1e-9 * before)) continue;
        for (int64_t i = 0; i < l->n; i++) q[i] /= after;
        m++;
    }
    return m;
}

/* Scatter of the residuals inside budgets, a variance; NaN: too few rows. Also, of the weights: the
 * sum over budgets of the square of each one's sum. */
static double scatter(const Levels *l, double *between)
{
    double squares = 0;
    int64_t budgets = 0;
    *between = 0;
    for (int g = 0; g < l->c->p.count; g++) {
        double sum = 0, sum2 = 0, w = 0, members = 0;
        for (int64_t i = 0; i < l->n; i++) {
            if (l->c->group[l->row[i]] != g) continue;
            members += 1;
            sum += l->r[i];
            w += l->w[i];
        }
        if (!(members > 0)) continue;
        for (int64_t i = 0; i < l->n; i++)
            if (l->c->group[l->row[i]] == g)
                sum2 += (l->r[i] - sum / members) * (l->r[i] - sum / members);
        squares += sum2;
        *between += w * w;
        budgets++;
    }
    int64_t freedom = l->n - budgets - l->law->n_shape;
    return freedom < LEVEL_FREEDOM ? NAN : squares / (double)freedom;
}

/* Of budget g, under the law f of the others and what its parameters leave open: the least squares
 * estimate of an offset of g's rows beside a step of the parameters. Its variance is that of the
 * scatter inside budgets and of a level of its own that each budget may have. */
static Level level_of(Levels *l, const Fit *f, int g)
{
    double between, members = 0;
    int m = linearise(l, f);
    for (int64_t i = 0; i < l->n; i++) {
        l->w[i] = l->c->group[l->row[i]] == g;
        members += l->w[i];
    }
    project_out(l, m, l->w);
    double own = dot(l->w, l->w, l->n);
    if (!(own > 1e-6 * members)) return (Level){NAN, NAN};
    for (int64_t i = 0; i < l->n; i++) l->w[i] /= own;
    double inside = scatter(l, &between);
    return (Level){dot(l->w, l->r, l->n),
                   sqrt(inside / own + LEVEL_FLOOR * LEVEL_FLOOR * between)};
}

/* The law of all rows that count but those of budget g (-1: none). */
static int fit_others(const Levels *l, int g, const Fit *near, Fit *out)
{
    FitOptions o = fit_defaults();
    o.threads = 1;
    if (near) {
        o.first_shape = near->param + l->law->n_terms;
        o.starts = 2;
    }
    memset(l->weight, 0, (size_t)l->c->t->rows * sizeof *l->weight);
    for (int64_t i = 0; i < l->n; i++) l->weight[l->row[i]] = l->c->group[l->row[i]] != g;
    return fit_law(l->c->t, l->law, l->weight, &o, out, NULL);
}

static int add_level(Curves *c, int g, Level level, int others, Hygiene *h, Err *e)
{
    double sum = 0, members = 0;
    for (int64_t i = 0; i < c->t->rows; i++) {
        if (c->group[i] != g) continue;
        sum += run_value(c->t, RUN_LOSS, i);
        members += 1;
    }
    Finding *f = hygiene_add(h, HYGIENE_OUTLIER, true, e);
    if (!f) return -1;
    f->budget = c->p.budget[g].C;
    snprintf(f->text, sizeof f->text, "budget %.4g: its losses lie %.3g nats %s the law through "
             "the other %d budgets, %.2g standard deviations of the scatter: another tokenizer, "
             "held-out text or schedule?", f->budget, sum / members * fabs(-expm1(-level.by)),
             level.by > 0 ? "above" : "below", others, fabs(level.by) / level.sd);
    if (curves_add_rows(c, g, 0, INFINITY, f, e)) return -1;
    curves_drop(c, f);
    return 0;
}

/* Number of budgets left; fills l->row. */
static int count_left(Levels *l)
{
    unsigned char seen[PROFILE_BUDGETS] = {0};
    int left = 0;
    l->n = 0;
    for (int64_t i = 0; i < l->c->t->rows; i++) {
        int g = l->c->group[i];
        if (g < 0 || !(run_value(l->c->t, RUN_D, i) > 0)) continue;
        left += !seen[g];
        seen[g] = 1;
        l->row[l->n++] = i;
    }
    return left;
}

/* The budget that is farthest off, or -1: none is apart. */
static int worst_level(Levels *l, int left, Level *worst)
{
    Fit all, others;
    double far = LEVEL_AT;
    int found = -1;
    if (fit_others(l, -1, NULL, &all)) return -1;
    for (int g = 0; g < l->c->p.count; g++) {
        bool there = false;
        for (int64_t i = 0; i < l->n && !there; i++) there = l->c->group[l->row[i]] == g;
        if (!there) continue;
        const Fit *f = &all;
        if (left <= LEVEL_EACH) {
            if (fit_others(l, g, &all, &others)) continue;
            f = &others;
        }
        Level here = level_of(l, f, g);
        if (!(fabs(here.by) / here.sd > far)) continue;
        far = fabs(here.by) / here.sd;
        *worst = here;
        found = g;
    }
    return found;
}

/* Of a column that the dense law does not read: do the rows that count differ in it? */
static bool varies(const Curves *c, RunColumn column)
{
    double first = NAN;
    for (int64_t i = 0; i < c->t->rows; i++) {
        double x = run_value(c->t, column, i);
        if (c->group[i] < 0 || isnan(x)) continue;
        if (isnan(first)) first = x;
        if (x != first) return true;
    }
    return false;
}

int hygiene_levels(Curves *c, Hygiene *h, Err *e)
{
    size_t rows = (size_t)c->t->rows + 1;
    int rc = 0, left, bad;
    Level level;
    if (c->p.count < CURVES_BUDGETS || varies(c, RUN_EXPERTS) || varies(c, RUN_GRANULARITY) ||
        varies(c, RUN_SPARSITY))
        return 0;
    Levels l = {.c = c, .law = law_at(0), .row = malloc(rows * sizeof *l.row),
                .r = malloc(rows * sizeof *l.r), .w = malloc(rows * sizeof *l.w),
                .weight = malloc(rows * sizeof *l.weight),
                .frame = malloc(rows * LAW_PARAMS * sizeof *l.frame)};
    if (!l.row || !l.r || !l.w || !l.weight || !l.frame)
        rc = err_set(e, "out of memory for isoFLOP curves");
    while (!rc && (left = count_left(&l)) >= CURVES_BUDGETS &&
           (bad = worst_level(&l, left, &level)) >= 0)
        rc = add_level(c, bad, level, left - 1, h, e);
    free(l.row);
    free(l.r);
    free(l.w);
    free(l.weight);
    free(l.frame);
    return rc;
}
