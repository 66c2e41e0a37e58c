/* scaling/forecast.c - see forecast.h. */
#include "scaling/forecast.h"

#include <math.h>
#include <string.h>

#include <gsl/gsl_cdf.h>

#include "scaling/resample.h"

/* ---- What does not depend on the point ------------------------------------------------------- */

/* Residuals hold the noise of a run and what the form misses; repetitions the noise alone. */
static void prepare_noise(const Bootstrap *b, ForecastBase *out)
{
    double n = (double)b->fit.rows, df = b->linear.df, s = b->fit.rmse_log * sqrt(n / df);
    const RunNoise *again = &b->noise;
    out->noise_sd = s;
    out->noise_df = df;
    out->noise_source = "residuals";
    out->lack_of_fit = NAN;
    if (!(again->df > 0)) return;
    if (df > again->df) {
        double missed = fmax(s * s * df - again->sd * again->sd * again->df, 0) / (df - again->df);
        double F = missed / (again->sd * again->sd);
        out->lack_of_fit = gsl_cdf_fdist_Q(F, df - again->df, again->df);
    }
    if (again->sd > s) {
        out->noise_sd = again->sd;
        out->noise_df = again->df;
        out->noise_source = "repetitions";
    }
}

int forecast_prepare(const RunTable *t, const double *weight, const Bootstrap *b,
                     ForecastBase *out, Err *e)
{
    memset(out, 0, sizeof *out);
    out->boot = b;
    for (int64_t i = 0; i < t->rows; i++)
        if (!weight || weight[i] > 0)
            out->c_max = fmax(out->c_max, run_cost(t, &b->options.cost, i));
    if (!(b->linear.df >= 1)) {
        err_set(e, "forecast: no residual is left for the noise of a run: %ld rows",
                (long)b->fit.rows);
        return err_hint(e, "fit more runs, or a law with fewer parameters");
    }
    prepare_noise(b, out);
    forecast_forms(t, weight, b, out);
    return 0;
}

/* ---- A point --------------------------------------------------------------------------------- */

typedef struct Point {
    const BootOptions *options;
    const LawPoint *run; /* NULL: the optimum of C */
    double C;
} Point;

/* L, N, D */
static void point_values(const Fit *f, const void *arg, const double *near, double *out)
{
    const Point *p = arg;
    const CostLaw *cost = &p->options->cost;
    const LawPoint *at = &p->options->at;
    Optimum best;
    Err ignored = {0};
    if (p->run)
        best = (Optimum){.N = p->run->x[RUN_N], .D = p->run->x[RUN_D], .loss = fit_loss(f, p->run)};
    else if (near && near[1] > 0 ? optimum_near(f, cost, p->C, at, near[1], &best, &ignored)
                                 : optimum_find(f, cost, p->C, at, &best, &ignored))
        best = (Optimum){.N = NAN, .D = NAN, .loss = NAN};
    out[0] = best.loss;
    out[1] = best.N;
    out[2] = best.D;
}

static double loss_of(const Fit *f, const Point *p)
{
    double out[3];
    point_values(f, p, NULL, out);
    return out[0];
}

/* Bootstrap's half widths; where the ends of E's range lead further, theirs. */
static ForecastPart parameters(const ForecastBase *b, const Point *p, double loss, Interval i)
{
    ForecastPart out = {fmax(loss - i.low, 0), fmax(i.high - loss, 0)};
    for (int k = 0; k < b->forms; k++) {
        if (!isnan(b->d_aicc[k])) continue;
        double off = loss_of(&b->form[k], p) - loss_of(&b->free_e, p);
        if (off < 0) out.down = fmax(out.down, -off);
        if (off > 0) out.up = fmax(out.up, off);
    }
    return out;
}

/* Where weights cannot be had: the most that any weights would give. */
static ForecastPart farthest(Forecast *out)
{
    double z = student_quantile((1 + out->level) / 2, INFINITY);
    ForecastPart far = {0, 0};
    for (int k = 0; k < out->forms; k++) {
        ForecastForm *x = &out->form_of[k];
        if (isnan(x->d_aicc) || !isfinite(x->loss)) continue;
        x->weight = NAN;
        far.down = fmax(far.down, z * (out->loss - x->loss));
        far.up = fmax(far.up, z * (x->loss - out->loss));
    }
    return far;
}

/* Squares of the distances to the other forms' losses, by Akaike's weights; the chosen form has
 * weight 1 before all are normalised. */
static ForecastPart forms(const ForecastBase *b, const Point *p, Forecast *out)
{
    double total = 1, down = 0, up = 0;
    out->forms = b->forms;
    out->unjudged = b->unjudged;
    for (int k = 0; k < b->forms; k++) {
        ForecastForm *x = &out->form_of[k];
        memcpy(x->name, b->name[k], sizeof x->name);
        x->loss = loss_of(&b->form[k], p);
        x->d_aicc = b->d_aicc[k];
        x->weight = isnan(x->d_aicc) || !isfinite(x->loss) ? 0 : exp(-x->d_aicc / 2);
        total += x->weight;
    }
    if (b->unjudged) return farthest(out);
    for (int k = 0; k < b->forms; k++) {
        ForecastForm *x = &out->form_of[k];
        double d = x->loss - out->loss;
        x->weight /= total;
        if (x->weight > 0) *(d < 0 ? &down : &up) += x->weight * d * d;
    }
    double z = student_quantile((1 + out->level) / 2, INFINITY);
    return (ForecastPart){z * sqrt(down), z * sqrt(up)};
}

static ForecastPart noise(const ForecastBase *b, double loss, double level)
{
    double t = student_quantile((1 + level) / 2, b->noise_df) * b->noise_sd;
    return (ForecastPart){-loss * expm1(-t), loss * expm1(t)};
}

static Interval around(double loss, const ForecastPart *a, const ForecastPart *b,
                       const ForecastPart *c)
{
    return (Interval){loss - sqrt(a->down * a->down + b->down * b->down + c->down * c->down),
                      loss + sqrt(a->up * a->up + b->up * b->up + c->up * c->up)};
}

static int forecast(const ForecastBase *base, const Point *p, Forecast *out, Err *e)
{
    static const ForecastPart none;
    const BootOptions *o = &base->boot->options;
    BootQuantity q = {.value = point_values, .arg = p, .n = 3, .log = {true, true, true}};
    BootTarget target[3];
    double value[3];
    memset(out, 0, sizeof *out);
    if (bootstrap_quantity(base->boot, &q, target, e)) return err_context(e, "forecast");
    point_values(&base->boot->fit, p, NULL, value);
    out->loss = value[0];
    out->N = value[1];
    out->D = value[2];
    out->C = cost_law_per_token(&o->cost, out->N) * out->D;
    out->at_optimum = !p->run;
    out->beyond = out->C / base->c_max;
    out->level = o->level;
    out->n_opt = out->d_opt = (Interval){NAN, NAN};
    if (!p->run) {
        out->n_opt = target[1].interval;
        out->d_opt = target[2].interval;
    }
    Interval i = target[0].interval;
    if (!isfinite(i.low) || !isfinite(i.high)) {
        err_set(e, "forecast: no interval of the loss at C %.4g: %d of %d replicates have none",
                out->C, target[0].missing, o->replicates);
        return err_hint(e, "the rows do not tell the law's parameters: more sizes, more budgets");
    }
    out->parameters = parameters(base, p, out->loss, i);
    out->form = forms(base, p, out);
    out->noise = noise(base, out->loss, out->level);
    out->mean = around(out->loss, &out->parameters, &out->form, &none);
    out->run = around(out->loss, &out->parameters, &out->form, &out->noise);
    return 0;
}

int forecast_at_budget(const ForecastBase *base, double C, Forecast *out, Err *e)
{
    const BootOptions *o = &base->boot->options;
    Point p = {o, NULL, C};
    Optimum best;
    if (!(C > 0 && isfinite(C))) return err_set(e, "forecast: budget %g: positive and finite", C);
    if (optimum_find(&base->boot->fit, &o->cost, C, &o->at, &best, e)) return -1;
    return forecast(base, &p, out, e);
}

int forecast_at(const ForecastBase *base, const LawPoint *run, Forecast *out, Err *e)
{
    Point p = {&base->boot->options, run, NAN};
    for (int c = 0; c < RUN_COLUMNS; c++) {
        bool read = c != RUN_LOSS && (base->boot->fit.law->columns >> c & 1);
        if (read && !isfinite(run->x[c]))
            return err_set(e, "forecast: the law \"%s\" needs %s of the run",
                           base->boot->fit.law->name, run_column_name((RunColumn)c));
    }
    return forecast(base, &p, out, e);
}
