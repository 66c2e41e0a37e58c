/* train/fit_answer_warn.c - what is doubtful about a fit itself; see fit_answer.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "train/fit_answer.h"

static const char *const kinds[ANSWER_KINDS] = {
    "not_identified", "returned_start", "starts", "disagree", "cost_range", "beyond", "bootstrap",
    "lack_of_fit", "no_cost_line", "cost_scale", "unjudged", "cost_total"};

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

static void warn_identified(FitAnswer *a)
{
    const Fit *f = &a->main.fit;
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

static void warn_search(FitAnswer *a)
{
    const FitCertificate *c = &a->main.fit.certificate;
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

void fit_answer_warn(FitAnswer *a)
{
    const CostLaw *c = &a->request.cost;
    a->warnings = 0;
    if (a->main.is_law) {
        warn_identified(a);
        warn_search(a);
    }
    warn_disagree(a);
    warn_cost(a);
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
    else if (a->main.best_ok && a->n_high > 0 &&
             (a->main.N > ANSWER_SIZES * a->n_high || a->main.N * ANSWER_SIZES < a->n_low))
        warn(a, ANSWER_BEYOND, "the best N, %.4g, lies outside of the sizes that were run, %.4g "
             "to %.4g", a->main.N, a->n_low, a->n_high);
    if (a->has_boot && a->boot.failed > 0)
        warn(a, ANSWER_BOOTSTRAP, "%d of %d resampled fits failed: intervals are of the others",
             a->boot.failed, a->boot.options.replicates);
    if (a->has_forecast && a->base.lack_of_fit < 0.01)
        warn(a, ANSWER_LACK_OF_FIT, "residuals are larger than what repeated runs differ by "
             "(p = %.2g): the form misses something", a->base.lack_of_fit);
    if (a->has_forecast && a->base.unjudged)
        warn(a, ANSWER_UNJUDGED, "%lld runs are too few to weigh other forms by AICc: the interval "
             "reaches as far as the farthest of those fitted", (long long)a->main.fit.rows);
}
