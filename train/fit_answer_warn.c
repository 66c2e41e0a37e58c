/* train/fit_answer_warn.c - what is doubtful about a fit itself; see fit_answer.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "train/fit_answer.h"

static const char *const kinds[ANSWER_KINDS] = {
    "not_identified", "returned_start", "starts", "disagree", "cost_range", "beyond", "bootstrap",
    "lack_of_fit", "no_cost_line", "cost_scale", "unjudged", "cost_total", "other_form"};

const char *answer_kind_name(AnswerKind kind) { return kinds[kind]; }

__attribute__((format(printf, 3, 4))) static void warn(FitAnswer *a, AnswerKind kind,
                                                       const char *format, ...)
{
    if (a->warnings == ANSWER_WARNINGS) return;
    AnswerWarning *w = &a->warning[a->warnings++];
    va_list args;
    va_start(args, format);
    w->kind = kind;
    vsnprintf(w->text, sizeof w->text, format, args);
    va_end(args);
}

static void warn_identified(FitAnswer *a, const Fit *f)
{
    const FitCertificate *c = &f->certificate;
    char list[128] = "";
    size_t used = 0;
    for (int i = 0; i < f->law->n_terms + f->law->n_shape; i++)
        if (c->at_bound >> i & 1 && used < sizeof list - 32)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                                     law_param_name(f->law, i));
    if (c->identified) return;
    if (used)
        warn(a, ANSWER_NOT_IDENTIFIED, "at the bound of what is searched: %s; the runs do not say "
             "what the parameters are", list);
    else
        warn(a, ANSWER_NOT_IDENTIFIED, "the parameters are not identified (condition %.2g; "
             "answers as good lie %.2g apart); predictions among the runs may still hold",
             c->condition, c->spread);
}

static void warn_search(FitAnswer *a, const FitCertificate *c)
{
    if (c->returned_start)
        warn(a, ANSWER_RETURNED_START, "the search gave back the point at which it started: "
             "nothing was optimised");
    if (2 * c->agree < c->starts)
        warn(a, ANSWER_STARTS, "only %d of %d starts end at the best objective: there may be a "
             "better one", c->agree, c->starts);
}

/* ---- Methods against each other ---------------------------------------------------------------*/

static void warn_disagree(FitAnswer *a)
{
    const AnswerMethod main = a->request.method;
    double mine = a->agree_n[main];
    for (int m = 0; a->agree_at > 0 && m < ANSWER_METHODS; m++) {
        double off = fabs(log(a->agree_n[m] / mine)), most = a->agree_margin[m] + a->agree_noise[m];
        if (m == (int)main || !(off > most)) continue;
        warn(a, ANSWER_DISAGREE, "%s says N_opt(%.3g FLOPs) = %.4g, %s says %.4g: apart by a "
             "factor of %.3g, more than the %.3g of method and noise", answer_method_name(main),
             a->agree_at, mine, answer_method_name((AnswerMethod)m), a->agree_n[m], exp(off),
             exp(most));
    }
}

/* What the runs' own C says, and whether it was used. */
static void warn_cost(FitAnswer *a)
{
    if (a->no_line && a->request.cost_from == ANSWER_COST_BEST)
        warn(a, ANSWER_NO_LINE, "the runs' C is no line in N (%.2g off; C/(6 N D) from %.3g to "
             "%.3g): best N and D, and what is called their FLOPs, are by 6 N D", a->line_rms,
             a->c6nd_low, a->c6nd_high);
    if (!a->total && (a->c6nd < ANSWER_SCALE_LOW || a->c6nd > ANSWER_SCALE_HIGH))
        warn(a, ANSWER_SCALE, "C is %.3g times 6 N D (median): are N, D and C in parameters, "
             "tokens and FLOPs?", a->c6nd);
}

static double most_tokens(const FitAnswer *a)
{
    double most = 0;
    for (int64_t i = 0; i < a->runs.rows; i++) most = fmax(most, run_value(&a->runs, RUN_D, i));
    return most;
}

/* Of N or D: numbers that no model or run has. */
static void warn_small(FitAnswer *a, RunColumn column, double high)
{
    if (high > 0 && high < ANSWER_SMALL)
        warn(a, ANSWER_SCALE, "the largest %s is %.4g: is it in %s, not in millions or billions "
             "of them?", run_column_name(column), high,
             column == RUN_D ? "tokens" : "parameters");
}

/* A best N or D of f far outside of those that were run. */
static void warn_outside(FitAnswer *a, const AnswerFit *f)
{
    double d_low = INFINITY, d_high = most_tokens(a);
    for (int64_t i = 0; i < a->runs.rows; i++) d_low = fmin(d_low, run_value(&a->runs, RUN_D, i));
    if (a->n_high > 0 && (f->N > ANSWER_SIZES * a->n_high || f->N * ANSWER_SIZES < a->n_low))
        warn(a, ANSWER_BEYOND, "the best N, %.4g, lies outside of the sizes that were run, %.4g "
             "to %.4g", f->N, a->n_low, a->n_high);
    if (d_high > 0 && (f->D > ANSWER_TOKENS * d_high || f->D * ANSWER_TOKENS < d_low))
        warn(a, ANSWER_BEYOND, "the best D, %.4g, lies far outside of the tokens that runs had, "
             "%.4g to %.4g", f->D, d_low, d_high);
}

/* Of the fit without doubtful runs, whose warnings stand beside it. */
static void warn_without(FitAnswer *a)
{
    const AnswerFit *f = &a->without;
    int first = a->warnings;
    if (!f->ok) return;
    if (f->is_law) {
        warn_identified(a, &f->fit);
        warn_search(a, &f->fit.certificate);
    }
    if (f->best_ok) warn_outside(a, f);
    for (int i = first; i < a->warnings; i++) a->warning[i].without = true;
}

/* Another form that describes the same runs much better. */
static void warn_form(FitAnswer *a)
{
    const ForecastForm *best = NULL;
    if (!a->has_forecast || a->forecast.unjudged) return;
    for (int i = 0; i < a->forecast.forms; i++) {
        const ForecastForm *form = &a->forecast.form_of[i];
        if (form->d_aicc < ANSWER_AICC && (!best || form->d_aicc < best->d_aicc)) best = form;
    }
    if (best)
        warn(a, ANSWER_FORM, "the form %s describes the runs better by %.3g of AICc: the law %s "
             "lacks something that they show", best->name, -best->d_aicc, a->main.fit.law->name);
}

void fit_answer_warn(FitAnswer *a)
{
    const CostLaw *c = &a->request.cost;
    a->warnings = 0;
    if (a->main.is_law) {
        warn_identified(a, &a->main.fit);
        warn_search(a, &a->main.fit.certificate);
    }
    warn_disagree(a);
    warn_cost(a);
    warn_small(a, a->total ? RUN_N_TOTAL : RUN_N, a->n_high);
    warn_small(a, RUN_D, most_tokens(a));
    warn_form(a);
    if (a->main.outside && a->main.best_ok)
        warn(a, ANSWER_COST_RANGE, "N = %.3g lies outside of the range of the cost law %s, %.3g "
             "to %.3g: used because it was forced", a->main.N, c->name, c->low, c->high);
    if (a->total && a->main.best_ok && a->main.is_law)
        warn(a, ANSWER_COST_TOTAL, "the runs have no N: the cost is %s with N_total for N%s; so "
             "are N and D", c->name,
             strcmp(c->name, "runs") ? ", more than a model of which a token uses a part costs"
                                     : "");
    if (a->c_max > 0 && a->budget > ANSWER_FAR * a->c_max)
        warn(a, ANSWER_BEYOND, "%.3g FLOPs is %.3g times the largest run: an extrapolation that "
             "no run here has tested", a->budget, a->budget / a->c_max);
    else if (a->main.best_ok)
        warn_outside(a, &a->main);
    if (a->has_boot && a->boot.failed > 0)
        warn(a, ANSWER_BOOTSTRAP, "%d of %d resampled fits failed: intervals are of the others",
             a->boot.failed, a->boot.options.replicates);
    if (a->has_forecast && a->base.lack_of_fit < 0.01)
        warn(a, ANSWER_LACK_OF_FIT, "residuals are larger than what repeated runs differ by "
             "(p = %.2g): the form misses something", a->base.lack_of_fit);
    if (a->has_forecast && a->base.unjudged)
        warn(a, ANSWER_UNJUDGED, "%lld runs are too few to weigh other forms by AICc: the interval "
             "reaches as far as the farthest of those fitted", (long long)a->main.fit.rows);
    warn_without(a);
}
