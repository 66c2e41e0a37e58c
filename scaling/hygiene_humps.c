/* scaling/hygiene_humps.c - sizes that make an isoFLOP curve not convex; see hygiene.h. A loss that
 * is too low makes a hump of each of its neighbours, so of a hump and its two neighbours the one
 * is named without which the others lie nearest to a parabola. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/hygiene_inside.h"

#define HUMP_AT 4.0    /* standard deviations above the line between neighbours: a hump for sure */
#define HUMP_LEAST 1.0 /* a hump, if the size behind it is off by */
#define OFF_AT 5.0    /* standard deviations from the parabola through the other sizes */
enum {
    HUMP_SIZES = 5, /* of fewer any three lie on a parabola: which one is off cannot be told */
    CUBIC_SIZES = 9 /* so many are held to a cubic: wide curves are no parabolas */
};

typedef struct Sizes { /* of one budget: means over runs of one N */
    int n;
    double x[PROFILE_SIZES], loss[PROFILE_SIZES], runs[PROFILE_SIZES]; /* x: ln N */
    double N[PROFILE_SIZES];
} Sizes;

static void sizes_of(const Curves *c, int g, Sizes *s)
{
    s->n = 0;
    for (int64_t i = 0; i < c->t->rows; i++) {
        if (c->group[i] != g) continue;
        double N = run_value(c->t, RUN_N, i);
        if (!s->n || N != s->N[s->n - 1]) {
            s->N[s->n] = N;
            s->x[s->n] = log(N);
            s->loss[s->n] = s->runs[s->n] = 0;
            s->n++;
        }
        s->loss[s->n - 1] += run_value(c->t, RUN_LOSS, i);
        s->runs[s->n - 1] += 1;
    }
    for (int i = 0; i < s->n; i++) s->loss[i] /= s->runs[i];
}

static void leave_out(Sizes *s, int k)
{
    size_t rest = (size_t)(s->n - k - 1) * sizeof(double);
    double *of[] = {s->x, s->loss, s->runs, s->N};
    for (int j = 0; j < 4; j++) memmove(of[j] + k, of[j] + k + 1, rest);
    s->n--;
}

/* Sum of squares, weighted by runs, about the polynomial of that degree through all sizes but
 * `without` (-1: none), by orthogonal polynomials (three-term recurrence); *top: its highest
 * coefficient. */
static double squares_without(const Sizes *s, int without, int degree, double *top)
{
    double before[PROFILE_SIZES] = {0}, p[PROFILE_SIZES], r[PROFILE_SIZES], last = 1;
    for (int i = 0; i < s->n; i++) {
        p[i] = i == without ? 0 : 1;
        r[i] = s->loss[i];
    }
    for (int k = 0; k <= degree; k++) {
        double pp = 0, rp = 0, xpp = 0, sum = 0;
        for (int i = 0; i < s->n; i++) {
            pp += s->runs[i] * p[i] * p[i];
            rp += s->runs[i] * p[i] * r[i];
            xpp += s->runs[i] * s->x[i] * p[i] * p[i];
        }
        *top = rp / pp;
        for (int i = 0; i < s->n; i++) {
            double next = (s->x[i] - xpp / pp) * p[i] - (k ? pp / last : 0) * before[i];
            r[i] -= *top * p[i];
            if (i != without) sum += s->runs[i] * r[i] * r[i];
            before[i] = p[i];
            p[i] = next;
        }
        last = pp;
        if (k == degree) return sum;
    }
    return NAN;
}

static bool opens_down(const Sizes *s, int without)
{
    double bend;
    squares_without(s, without, 2, &bend);
    return bend <= 0;
}

/* The size of [from, to] without which the others lie nearest to a curve; *off: how far it is from
 * theirs, in nats of one run. */
static int most_off(const Sizes *s, int from, int to, double *off)
{
    int degree = s->n > CUBIC_SIZES ? 3 : 2, worst = from;
    double top, all = squares_without(s, -1, degree, &top), least = INFINITY;
    for (int k = from; k <= to; k++) {
        double rest = squares_without(s, k, degree, &top);
        if (!(rest < least)) continue;
        least = rest;
        worst = k;
    }
    *off = sqrt(fmax(all - least, 0));
    return worst;
}

/* How far size i lies above the line between its neighbours, in standard deviations; NaN: the noise
 * is not known. */
static double above_line(const Sizes *s, int i, double noise, double *by)
{
    double u = (s->x[i + 1] - s->x[i]) / (s->x[i + 1] - s->x[i - 1]), v = 1 - u;
    *by = s->loss[i] - u * s->loss[i - 1] - v * s->loss[i + 1];
    double sd = noise * sqrt(1 / s->runs[i] + u * u / s->runs[i - 1] + v * v / s->runs[i + 1]);
    return *by / fmax(sd, 1e-9 * s->loss[i]);
}

/* The highest hump that is one, or -1; *bad: the size that makes it, -1: one of the three. */
static int find_hump(const Sizes *s, double noise, int *bad, double *by)
{
    double most = 0, far, off, here;
    int found = -1;
    for (int i = 1; i + 1 < s->n; i++) {
        far = above_line(s, i, noise, &here);
        if (!(far > HUMP_LEAST && far > most)) continue;
        int k = s->n < HUMP_SIZES ? -1 : most_off(s, i - 1, i + 1, &off);
        if (!(far > HUMP_AT) && !(k >= 0 && off > OFF_AT * fmax(noise, 1e-9 * s->loss[k])))
            continue;
        most = far;
        found = i;
        *bad = k;
        *by = here;
    }
    return found;
}

static int add_hump(Curves *c, int g, const Sizes *s, int hump, int bad, double by, Hygiene *h,
                    Err *e)
{
    Finding *f = hygiene_add(h, HYGIENE_CONVEX, true, e);
    if (!f) return -1;
    double C = f->budget = c->p.budget[g].C;
    snprintf(f->text, sizeof f->text, "budget %.4g: the loss at N = %.4g lies %.3g above the line "
             "between its neighbours: the curve is not convex", C, s->N[hump], by);
    char *rest = f->text + strlen(f->text);
    size_t room = sizeof f->text - strlen(f->text);
    if (bad < 0)
        snprintf(rest, room, "; which of the three is off cannot be told from %d sizes", s->n);
    else if (bad != hump)
        snprintf(rest, room, "; the loss at N = %.4g is too low", s->N[bad]);
    int low = bad < 0 ? hump - 1 : bad, high = bad < 0 ? hump + 1 : bad;
    if (curves_add_rows(c, g, s->N[low], s->N[high], f, e)) return -1;
    curves_drop(c, f);
    return 0;
}

static int budget_humps(Curves *c, int g, Sizes *s, Hygiene *h, Err *e)
{
    double by, off;
    int bad, hump;
    sizes_of(c, g, s);
    if (s->n >= 3 && opens_down(s, -1) &&
        (s->n < HUMP_SIZES || opens_down(s, most_off(s, 0, s->n - 1, &off)))) {
        Finding *f = hygiene_add(h, HYGIENE_CONVEX, true, e);
        if (!f) return -1;
        f->budget = c->p.budget[g].C;
        snprintf(f->text, sizeof f->text, "budget %.4g: the parabola through its %d sizes opens "
                 "downwards", f->budget, s->n);
        if (curves_add_rows(c, g, 0, INFINITY, f, e)) return -1;
        curves_drop(c, f);
        return 0;
    }
    while (s->n >= 3 && (hump = find_hump(s, c->noise, &bad, &by)) >= 0) {
        if (add_hump(c, g, s, hump, bad, by, h, e)) return -1;
        if (bad < 0) break;
        leave_out(s, bad);
    }
    return 0;
}

int hygiene_humps(Curves *c, Hygiene *h, Err *e)
{
    int rc = 0;
    Sizes *s = malloc(sizeof *s);
    if (!s) return err_set(e, "out of memory for isoFLOP curves");
    for (int g = 0; !rc && g < c->p.count; g++) rc = budget_humps(c, g, s, h, e);
    free(s);
    return rc;
}
