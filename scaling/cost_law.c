/* scaling/cost_law.c - see cost_law.h. */
#include "scaling/cost_law.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void cost_law_exact(CostLaw *out, const FlopFamily *f, const FlopConvention *c)
{
    FlopTerms t = flop_family_terms(f, c);
    *out = (CostLaw){.name = "exact", .a = t.a0, .c1 = t.c1, .c2 = t.c2, .high = INFINITY};
    if (!c->body) out->embed = f->vocab * cbrt(f->ratio / f->kappa);
    snprintf(out->convention, sizeof out->convention, "%s", c->name);
}

static double weight_of(CostWeights weights, double y)
{
    return weights == COST_RELATIVE ? 1 / (y * y) : weights == COST_ROOT ? 1 / y : 1;
}

/* Weighted least squares of y = a N + b. Sums of N about its weighted mean: N spans decades and b
 * is small beside a N. */
static void solve_line(const double *N, const double *y, int64_t n, CostWeights weights,
                       CostLaw *out)
{
    double sum = 0, mean_n = 0, mean_y = 0, nn = 0, ny = 0;
    for (int64_t i = 0; i < n; i++) {
        double w = weight_of(weights, y[i]);
        sum += w;
        mean_n += w * N[i];
        mean_y += w * y[i];
    }
    mean_n /= sum;
    mean_y /= sum;
    for (int64_t i = 0; i < n; i++) {
        double w = weight_of(weights, y[i]), x = N[i] - mean_n;
        nn += w * x * x;
        ny += w * x * (y[i] - mean_y);
    }
    out->a = ny / nn;
    out->b = mean_y - out->a * mean_n;
}

static void find_residuals(CostLaw *out, const double *N, const double *per_token, int64_t n)
{
    out->rms = out->worst = 0;
    for (int64_t i = 0; i < n; i++) {
        double residual = cost_law_per_token(out, N[i]) / per_token[i] - 1;
        out->worst = fmax(out->worst, fabs(residual));
        out->rms += residual * residual / (double)n;
    }
    out->rms = sqrt(out->rms);
}

int cost_law_fit(CostLaw *out, const double *N, const double *per_token, int64_t n,
                 CostWeights weights, const char *convention, Err *e)
{
    *out = (CostLaw){.name = "family", .low = INFINITY};
    snprintf(out->convention, sizeof out->convention, "%s", convention);
    for (int64_t i = 0; i < n; i++) {
        if (!(N[i] > 0 && N[i] < INFINITY && per_token[i] > 0 && per_token[i] < INFINITY))
            return err_set(e, "cost law: point %lld of %lld is N = %g with %g FLOPs a token",
                           (long long)i + 1, (long long)n, N[i], per_token[i]);
        out->low = fmin(out->low, N[i]);
        out->high = fmax(out->high, N[i]);
    }
    if (n < 2 || out->low == out->high)
        return err_set(e, "cost law: a line needs two different N, there are %lld points, all "
                       "at N = %g", (long long)n, out->high);
    solve_line(N, per_token, n, weights, out);
    find_residuals(out, N, per_token, n);
    return 0;
}

/* ---- Tables of runs ---------------------------------------------------------------------------*/

typedef struct CostPoints { /* (n) each, owned as one block: N */
    double *N, *body, *per_token;
    int64_t n;
} CostPoints;

/* Rows that have what is asked for; body is NaN where it is not. */
static int points_of(CostPoints *p, const RunTable *t, bool with_body, Err *e)
{
    size_t rows = (size_t)t->rows + 1;
    *p = (CostPoints){.N = malloc(3 * rows * sizeof *p->N)};
    if (!p->N) return err_set(e, "%s: out of memory", t->source);
    p->body = p->N + rows;
    p->per_token = p->body + rows;
    for (int64_t i = 0; i < t->rows; i++) {
        double y = run_value(t, RUN_C, i) / run_value(t, RUN_D, i), size = run_size(t, i);
        double body = run_value(t, RUN_N_BODY, i);
        if (isnan(y) || isnan(size) || (with_body && isnan(body))) continue;
        p->N[p->n] = size;
        p->body[p->n] = body;
        p->per_token[p->n++] = y;
    }
    return 0;
}

int cost_law_of_runs(CostLaw *out, const RunTable *t, Err *e)
{
    CostPoints p;
    if ((!t->column[RUN_N] && !t->column[RUN_N_TOTAL]) || !t->column[RUN_D] || !t->column[RUN_C])
        return err_set(e, "%s: a cost law needs the columns N, D and C", t->source);
    if (points_of(&p, t, false, e)) return -1;
    int rc = cost_law_fit(out, p.N, p.per_token, p.n, COST_RELATIVE, "the table's", e);
    free(p.N);
    snprintf(out->name, sizeof out->name, "runs");
    return rc ? err_context(e, "%s", t->source) : 0;
}

static int check_points(const CostPoints *p, CostLaw *out, Err *e)
{
    double size[COST_LAW_SIZES];
    int sizes = 0;
    out->low = INFINITY;
    for (int64_t i = 0; i < p->n; i++) {
        double N = p->N[i], n = p->body[i], y = p->per_token[i];
        if (!(n > 0 && n <= N && N < INFINITY && y > 0 && y < INFINITY))
            return err_set(e, "exact cost: a run with N = %g, N_no_embed = %g, C/D = %g", N, n, y);
        bool known = false;
        for (int k = 0; k < sizes; k++) known = known || size[k] == N;
        if (!known && sizes < COST_LAW_SIZES) size[sizes++] = N;
        out->low = fmin(out->low, N);
        out->high = fmax(out->high, N);
    }
    if (sizes == COST_LAW_SIZES) return 0;
    return err_set(e, "exact cost: %d different N; its three numbers need as many", sizes);
}

/* The number of N = n + embed n^(1/3), relative errors. */
static double embedding_of(const CostPoints *p)
{
    double up = 0, down = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double f = cbrt(p->body[i]) / p->N[i];
        up += f * (p->N[i] - p->body[i]) / p->N[i];
        down += f * f;
    }
    return up / down;
}

/* c1 and c2 for the law's a and embed, neither below 0. */
static void solve_family(const CostPoints *p, CostLaw *out)
{
    double ff = 0, fg = 0, gg = 0, ft = 0, gt = 0;
    for (int64_t i = 0; i < p->n; i++) {
        double x = cost_law_third(out, p->N[i]), y = p->per_token[i];
        double f = x * x / y, g = x / y, rest = 1 - out->a * x * x * x / y;
        ff += f * f;
        fg += f * g;
        gg += g * g;
        ft += f * rest;
        gt += g * rest;
    }
    double least = ff * gg - fg * fg;
    out->c1 = (ft * gg - gt * fg) / least;
    out->c2 = (gt * ff - ft * fg) / least;
    if (out->c1 >= 0 && out->c2 >= 0) return;
    bool first = out->c2 < 0;
    out->c1 = first ? fmax(ft / ff, 0) : 0;
    out->c2 = first ? 0 : fmax(gt / gg, 0);
}

int cost_law_exact_of_runs(CostLaw *out, const RunTable *t, Err *e)
{
    static const RunColumn need[] = {RUN_N, RUN_N_BODY, RUN_D, RUN_C};
    CostPoints p;
    *out = (CostLaw){.name = "exact", .a = 6, .convention = "exact"};
    for (int i = 0; i < 4; i++)
        if (!t->column[need[i]])
            return err_set(e, "%s: the exact cost needs the column %s", t->source,
                           run_column_name(need[i]));
    if (points_of(&p, t, true, e)) return -1;
    int rc = check_points(&p, out, e);
    if (!rc) {
        out->embed = embedding_of(&p);
        solve_family(&p, out);
        find_residuals(out, p.N, p.per_token, p.n);
        out->low = 0;
        out->high = INFINITY;
    }
    free(p.N);
    return rc ? err_context(e, "%s", t->source) : 0;
}

int cost_law_of_family(CostLaw *out, const FlopFamily *f, const FlopConvention *c,
                       const CostSampling *s, Err *e)
{
    double N[COST_LAW_SAMPLES], per_token[COST_LAW_SAMPLES];
    if (s->samples < 2 || s->samples > COST_LAW_SAMPLES || !(s->low > 0 && s->low < s->high) ||
        !(s->high < INFINITY))
        return err_set(e, "cost law: %d sizes from %g to %g; needed are 2 to %d of a rising range",
                       s->samples, s->low, s->high, (int)COST_LAW_SAMPLES);
    for (int i = 0; i < s->samples; i++) {
        double t = (double)i / (s->samples - 1);
        N[i] = s->equal_steps ? s->low + t * (s->high - s->low)
                              : s->low * pow(s->high / s->low, t);
        FlopShape member = flop_family_member(f, flop_family_body(f, c, N[i]));
        per_token[i] = flop_per_token(c, &member);
    }
    return cost_law_fit(out, N, per_token, s->samples, s->weights, c->name, e);
}

int cost_law_check(const CostLaw *law, double N, bool force, Err *e)
{
    if (force || (N >= law->low && N <= law->high)) return 0;
    err_set(e, "cost law '%s', C = %.4g N D + %.3g D, stands for N from %.3g to %.3g, not for %.4g",
            law->name, law->a, law->b, law->low, law->high, N);
    return err_hint(e, "--force takes the law nevertheless; docs/SCALING.md says how wrong that "
                    "is");
}

const char *cost_law_text(const CostLaw *law, char out[COST_LAW_TEXT])
{
    int n;
    if (cost_law_is_line(law)) {
        n = snprintf(out, COST_LAW_TEXT, "C = %.4g N D", law->a);
        if (law->b != 0) n += snprintf(out + n, (size_t)(COST_LAW_TEXT - n), " %c %.3g D",
                                       law->b < 0 ? '-' : '+', fabs(law->b));
    } else {
        n = snprintf(out, COST_LAW_TEXT, "C/D = %.4g n + %.4g n^(2/3) + %.4g n^(1/3)", law->a,
                     law->c1, law->c2);
        if (law->embed != 0)
            n += snprintf(out + n, (size_t)(COST_LAW_TEXT - n), ", N = n + %.4g n^(1/3)",
                          law->embed);
    }
    if (isfinite(law->high))
        snprintf(out + n, (size_t)(COST_LAW_TEXT - n), ", N from %.3g to %.3g", law->low,
                 law->high);
    else
        snprintf(out + n, (size_t)(COST_LAW_TEXT - n), ", any N");
    return out;
}
