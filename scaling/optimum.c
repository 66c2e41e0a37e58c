/* scaling/optimum.c - see optimum.h. Along a cost C the tokens follow from N, and the
 * minimum is where the loss's derivative by ln N is zero. A search for the least loss itself would
 * stop at 1e-8, where losses differ no more; the derivative is made from that of phi, in which
 * nothing cancels. */
#include "scaling/optimum.h"

#include <math.h>

static const double fine = 0.02;   /* in ln N: of the derivative's stencil */
static const double coarse = 0.25; /* of the scan */
static const double near = 0.05;   /* half of what optimum_near looks at */

CostLaw cost_law_6nd(void)
{
    return (CostLaw){.name = "6ND", .a = 6, .high = INFINITY, .convention = "6nd"};
}

CostLaw cost_law_hunyuan(void)
{
    return (CostLaw){.name = "hunyuan", .a = 9.59, .b = 2.3e8, .low = 1e7, .high = 1e9,
                     .convention = "hunyuan"};
}

/* The way along which the law is minimised. */
typedef struct Way {
    const Fit *fit;
    const CostLaw *cost;
    double C, total; /* total: N_total / N */
    LawPoint at;
} Way;

static Way way_of(const Fit *f, const CostLaw *cost, double C, const LawPoint *at)
{
    double ratio = at->x[RUN_N_TOTAL] / at->x[RUN_N];
    bool known = ratio > 0 && isfinite(ratio);
    return (Way){.fit = f, .cost = cost, .C = C, .total = known ? ratio : 1, .at = *at};
}

static double tokens(const Way *w, double N) { return w->C / cost_law_per_token(w->cost, N); }

static LawPoint point_of(const Way *w, double log_n)
{
    LawPoint p = w->at;
    p.x[RUN_N] = exp(log_n);
    p.x[RUN_N_TOTAL] = w->total * p.x[RUN_N];
    p.x[RUN_D] = tokens(w, p.x[RUN_N]);
    p.x[RUN_C] = w->C;
    return p;
}

/* Derivative of the loss (of ln L for LAW_LOG) by ln N: central differences of tenth order. */
static double slope(const Way *w, double log_n)
{
    static const double factor[] = {5.0 / 6, -5.0 / 21, 5.0 / 84, -5.0 / 504, 1.0 / 1260};
    const Law *law = w->fit->law;
    const double *param = w->fit->param, *shape = param + law->n_terms;
    double phi[LAW_TERMS], d[LAW_TERMS] = {0}, sum = 0;
    LawPoint p;
    for (int k = 0; k < 5; k++)
        for (int side = -1; side <= 1; side += 2) {
            p = point_of(w, log_n + side * (k + 1) * fine);
            law->phi(shape, &p, phi, 0);
            for (int j = 0; j < law->n_terms; j++) d[j] += side * factor[k] * phi[j];
        }
    p = point_of(w, log_n);
    law->phi(shape, &p, phi, 0);
    for (int j = 0; j < law->n_terms; j++)
        if (param[j] != 0) sum += param[j] * (law->kind == LAW_LOG ? 1 : exp(phi[j])) * d[j];
    return sum / fine;
}

/* Does the loss fall where the column alone rises from p by half? */
static bool falls_in(const Way *w, LawPoint p, RunColumn column)
{
    double here = fit_loss(w->fit, &p);
    p.x[column] *= 1.5;
    if (column == RUN_N) p.x[RUN_N_TOTAL] *= 1.5;
    return fit_loss(w->fit, &p) < here;
}

/* The least loss of a scan is that of its first or its last point: why there is no best N or D. */
static int no_minimum(const Way *w, double log_n, RunColumn column, Err *e)
{
    const char *name = w->fit->law->name, *what = run_column_name(column);
    LawPoint p = point_of(w, log_n);
    if (!falls_in(w, p, column))
        return err_set(e, "the fitted law %s doesn't fall in %s: no best %s for a budget of %g",
                       name, what, what, w->C);
    return err_set(e, "the best %s for a budget of %g FLOPs lies below %.3g %s by the fitted law "
                   "%s: are N, D and C in parameters, tokens and FLOPs?", what, w->C,
                   column == RUN_N ? exp(log_n) : p.x[RUN_D],
                   column == RUN_N ? "parameters" : "tokens", name);
}

/* The lowest point of a scan, in ln N, between its neighbours low and high. */
static int scan(const Way *w, double *low, double *high, Err *e)
{
    double first = w->cost->b < 0 ? fmax(log(-2 * w->cost->b / w->cost->a), 0) : 0;
    double best = INFINITY;
    int steps = (int)floor((log(w->C / w->cost->a) - first) / coarse), lowest = 0;
    for (int i = 0; i <= steps; i++) {
        LawPoint p = point_of(w, first + i * coarse);
        double loss = fit_loss(w->fit, &p);
        if (loss < best) best = loss, lowest = i;
    }
    if (!isfinite(best))
        return err_set(e, "the law %s has no finite loss at any N for a budget of %g",
                       w->fit->law->name, w->C);
    if (lowest == 0) return no_minimum(w, first, RUN_N, e);
    if (lowest >= steps) return no_minimum(w, first + steps * coarse, RUN_D, e);
    *low = first + (lowest - 1) * coarse;
    *high = first + (lowest + 1) * coarse;
    return 0;
}

static bool reads_d(const Fit *f) { return f->law->columns >> RUN_D & 1; }

/* A law without D gets better with N for ever: N is what C buys with the D that is given. */
static int buy(const Way *w, Optimum *out, Err *e)
{
    double D = w->at.x[RUN_D], low = 0, high = 1;
    const char *name = w->fit->law->name;
    if (!(D > 0 && isfinite(D)))
        return err_set(e, "the law %s does not read D: a best N needs a D that is held", name);
    if (!(cost_law_per_token(w->cost, 1) * D < w->C))
        return err_set(e, "%g FLOPs do not buy one parameter with %g tokens", w->C, D);
    while (cost_law_per_token(w->cost, exp(high)) * D < w->C) high++;
    for (int it = 0; it < 80; it++) {
        double middle = (low + high) / 2;
        *(cost_law_per_token(w->cost, exp(middle)) * D < w->C ? &low : &high) = middle;
    }
    LawPoint p = point_of(w, (low + high) / 2);
    p.x[RUN_D] = D;
    *out = (Optimum){.C = w->C, .N = p.x[RUN_N], .D = D, .loss = fit_loss(w->fit, &p)};
    out->outside = out->N < w->cost->low || out->N > w->cost->high;
    return 0;
}

int optimum_find(const Fit *f, const CostLaw *cost, double C, const LawPoint *at, Optimum *out,
                 Err *e)
{
    Way w = way_of(f, cost, C, at);
    double low = 0, high = 0;
    if (!(C > 0 && isfinite(C))) return err_set(e, "a budget of %g FLOPs: must be above 0", C);
    if (!(cost->a > 0 && isfinite(cost->b)))
        return err_set(e, "the cost %s = %g N D + %g D: must rise in N", cost->name, cost->a,
                       cost->b);
    if (!reads_d(f)) return buy(&w, out, e);
    if (scan(&w, &low, &high, e)) return -1;
    for (int it = 0; it < 80; it++) {
        double middle = (low + high) / 2;
        if (middle <= low || middle >= high) break;
        if (slope(&w, middle) < 0)
            low = middle;
        else
            high = middle;
    }
    LawPoint p = point_of(&w, (low + high) / 2);
    *out = (Optimum){.C = C, .N = p.x[RUN_N], .D = p.x[RUN_D], .loss = fit_loss(f, &p)};
    out->outside = out->N < cost->low || out->N > cost->high;
    return 0;
}

/* False position (Illinois) between low and high, whose slopes are below and above zero: until a
 * step moves ln N by less than 1e-13. */
static double close_in(const Way *w, double low, double high, double at_low, double at_high)
{
    double x = low, before = high;
    for (int it = 0; it < 60 && fabs(x - before) > 1e-13; it++) {
        before = x;
        x = low - at_low * (high - low) / (at_high - at_low);
        double at_x = slope(w, x);
        if (at_x < 0) {
            low = x;
            at_low = at_x;
            at_high /= it && before < x ? 2 : 1;
        } else {
            high = x;
            at_high = at_x;
            at_low /= it && before > x ? 2 : 1;
        }
    }
    return x;
}

int optimum_near(const Fit *f, const CostLaw *cost, double C, const LawPoint *at, double N,
                 Optimum *out, Err *e)
{
    if (!reads_d(f)) return optimum_find(f, cost, C, at, out, e);
    Way w = way_of(f, cost, C, at);
    double low = log(N) - near, high = log(N) + near;
    double at_low = slope(&w, low), at_high = slope(&w, high);
    if (!(at_low < 0 && at_high > 0)) return optimum_find(f, cost, C, at, out, e);
    LawPoint p = point_of(&w, close_in(&w, low, high, at_low, at_high));
    *out = (Optimum){.C = C, .N = p.x[RUN_N], .D = p.x[RUN_D], .loss = fit_loss(f, &p)};
    out->outside = out->N < cost->low || out->N > cost->high;
    return 0;
}

int optimum_exponents(const Fit *f, const CostLaw *cost, double C, const LawPoint *at, double *a,
                      double *b, Err *e)
{
    static const double factor[] = {2.0 / 3, -1.0 / 12};
    const double step = 0.05;
    *a = *b = 0;
    for (int k = 0; k < 2; k++)
        for (int side = -1; side <= 1; side += 2) {
            Optimum o;
            if (optimum_find(f, cost, C * exp(side * (k + 1) * step), at, &o, e)) return -1;
            *a += side * factor[k] * log(o.N) / step;
            *b += side * factor[k] * log(o.D) / step;
        }
    return 0;
}
