/* train/fit_answer_agree.c - whether methods say the same; see fit_answer.h. */
#include <math.h>
#include <stdlib.h>

#include "train/fit_answer.h"

_Static_assert((int)ANSWER_VARPRO == (int)AGREE_VARPRO && (int)ANSWER_HUBER == (int)AGREE_HUBER &&
               (int)ANSWER_PARABOLA == (int)AGREE_PARABOLA &&
               (int)ANSWER_AKIMA == (int)AGREE_AKIMA, "methods");

static const AnswerFit *fit_of(const FitAnswer *a, int m)
{
    return m == (int)a->request.method ? &a->main : &a->check[m];
}

/* N that a fit calls best where the runs' own cost is C; NaN: it says nothing. */
static double best_at(const FitAnswer *a, const AnswerFit *f, double C)
{
    Optimum best;
    if (!f->ok) return NAN;
    if (!f->is_law) return power_law_at(&f->profile.n_opt, C);
    return optimum_find(&f->fit, &a->own, C, &a->request.at, &best, NULL) ? NAN : best.N;
}

/* The largest budget whose minimum the curves saw: where methods must agree, since nothing is
 * extrapolated. */
static const ProfileBudget *compare_at(const FitAnswer *a)
{
    const AnswerFit *f = a->main.is_law ? &a->check[ANSWER_PARABOLA] : &a->main;
    const ProfileBudget *out = NULL;
    for (int g = 0; f->ok && g < f->profile.count; g++)
        if (!isnan(f->profile.budget[g].N)) out = &f->profile.budget[g];
    return out;
}

static double margin_of(int method, const ProfileBudget *b)
{
    if (method == ANSWER_AKIMA) return log(b->N_high / b->N_low) / (b->sizes - 1) / 3;
    return method == ANSWER_PARABOLA ? ANSWER_PARABOLA_MARGIN : ANSWER_LAW_MARGIN;
}

/* What is needed of the comparison: methods beyond the margin, and the law that runs are made
 * from. */
static int fill(const FitAnswer *a, AgreeOptions *o, double *weight[ANSWER_METHODS], Err *e)
{
    const FitRequest *r = &a->request;
    *o = (AgreeOptions){.first = (AgreeMethod)r->method, .C = a->agree_at, .cost = a->own,
                        .at = r->at, .seed = r->seed, .threads = r->threads,
                        .scheme = r->noise_weights ? BOOT_NOISE : BOOT_RESIDUALS,
                        .level = 1 - ANSWER_ALARMS / (ANSWER_METHODS - 1)};
    for (int m = 0; m < ANSWER_METHODS; m++) {
        const AnswerFit *f = fit_of(a, m);
        double off = fabs(log(a->agree_n[m] / a->agree_n[r->method]));
        if (f->ok && f->is_law) o->law[m] = &f->fit;
        o->asked[m] = m != (int)r->method && off > a->agree_margin[m];
        if (fit_answer_weights(a, &a->runs, (AnswerMethod)m, &weight[m], e)) return -1;
        o->weight[m] = weight[m];
    }
    return 0;
}

int fit_answer_agree(FitAnswer *a, Err *e)
{
    AgreeOptions o;
    double *weight[ANSWER_METHODS] = {0};
    bool any = false;
    const ProfileBudget *b = compare_at(a);
    if (!b) return 0;
    a->agree_at = b->C;
    for (int m = 0; m < ANSWER_METHODS; m++) {
        a->agree_n[m] = best_at(a, fit_of(a, m), a->agree_at);
        a->agree_margin[m] = margin_of(m, b) + margin_of((int)a->request.method, b);
        a->agree_noise[m] = NAN;
    }
    if (isnan(a->agree_n[a->request.method])) return 0;
    int rc = fill(a, &o, weight, e);
    for (int m = 0; m < ANSWER_METHODS; m++) any = any || o.asked[m];
    if (!rc && any && (o.law[AGREE_VARPRO] || o.law[AGREE_HUBER]))
        rc = methods_agree(&a->runs, &o, a->agree_noise, e);
    for (int m = 0; m < ANSWER_METHODS; m++) free(weight[m]);
    return rc ? err_context(e, "comparing methods") : 0;
}
