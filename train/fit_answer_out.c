/* train/fit_answer_out.c - the answer of `isomoe fit` as JSON; see fit_answer.h. */
#include <math.h>
#include <string.h>

#include "scaling/published.h"
#include "train/fit_answer.h"
#include "train/json_out.h"

static json_t *interval_json(Interval i)
{
    return json_pack("[o,o]", json_out_real(i.low), json_out_real(i.high));
}

static const char *objective_name(const AnswerFit *f)
{
    if (!f->is_law) return "sum of squared deviations of ln N_opt from the power law";
    if (f->fit.options.method == FIT_HUBER) return "sum over runs of Huber(ln L - ln law)";
    return f->fit.law->kind == LAW_LOG ? "sum of squared errors of ln L"
                                       : "sum of squared errors of L, nats^2";
}

static double objective_of(const AnswerFit *f)
{
    return f->is_law ? f->fit.objective : f->profile.n_opt.squares;
}

static json_t *parameters_json(const AnswerFit *f)
{
    json_t *out = json_object();
    if (!f->is_law) {
        const PowerLaw *law[] = {&f->profile.n_opt, &f->profile.d_opt};
        static const char *const names[][2] = {{"N_opt_factor", "N_opt_exponent"},
                                               {"D_opt_factor", "D_opt_exponent"}};
        for (int i = 0; i < 2; i++) {
            json_object_set_new(out, names[i][0], json_out_real(law[i]->factor));
            json_object_set_new(out, names[i][1], json_out_real(law[i]->exponent));
        }
        return out;
    }
    const Law *law = f->fit.law;
    for (int i = 0; i < law->n_terms + law->n_shape; i++)
        json_object_set_new(out, law_param_name(law, i), json_out_real(f->fit.param[i]));
    return out;
}

static json_t *certificate_json(const AnswerFit *f)
{
    if (!f->is_law) {
        const Profile *p = &f->profile;
        int bracketed = 0;
        for (int i = 0; i < p->count; i++) bracketed += p->budget[i].bracketed;
        return json_pack("{s:i, s:i, s:i, s:s, s:f}", "budgets", p->count, "with_minimum", p->used,
                         "bracketed", bracketed, "budgets_are",
                         p->planned ? "planned" : "clusters of C", "tolerance", p->tolerance);
    }
    const FitCertificate *c = &f->fit.certificate;
    json_t *bound = json_array();
    for (int i = 0; i < f->fit.law->n_terms + f->fit.law->n_shape; i++)
        if (c->at_bound >> i & 1)
            json_array_append_new(bound, json_string(law_param_name(f->fit.law, i)));
    return json_pack("{s:o, s:i, s:i, s:o, s:b, s:o, s:b, s:o}", "gradient",
                     json_out_real(c->gradient), "starts", c->starts, "agree", c->agree, "spread",
                     json_out_real(c->spread), "returned_start", c->returned_start, "condition",
                     json_out_real(c->condition), "identified", c->identified, "at_bound", bound);
}

/* ---- Intervals --------------------------------------------------------------------------------*/

static json_t *curve_numbers(Interval n, Interval d, Interval n_at, Interval d_at)
{
    return json_pack("{s:o, s:o, s:{s:o, s:o}}", "N_opt_exponent", interval_json(n),
                     "D_opt_exponent", interval_json(d), "at_budget", "N_opt", interval_json(n_at),
                     "D_opt", interval_json(d_at));
}

/* By the scatter of the budgets; where the runs' noise is known by that, and the scatter beside. */
static json_t *curve_intervals(const FitAnswer *a)
{
    const Profile *p = &a->main.profile;
    const ProfileNoise *by = &a->by_noise;
    double level = a->request.level;
    json_t *scatter = curve_numbers(power_law_exponent(&p->n_opt, level),
                                    power_law_exponent(&p->d_opt, level),
                                    power_law_interval(&p->n_opt, a->budget, level),
                                    power_law_interval(&p->d_opt, a->budget, level));
    json_t *out = a->has_noise ? curve_numbers(by->n_exponent, by->d_exponent, by->n_opt, by->d_opt)
                               : scatter;
    json_object_set_new(out, "level", json_real(level));
    json_object_set_new(out, "method", json_string(a->has_noise ? "noise of the runs, drawn anew"
                                                               : "Student's t over budgets"));
    if (!a->has_noise) return out;
    json_object_set_new(out, "noise", json_out_real(by->sd));
    json_object_set_new(out, "replicates", json_integer(a->request.replicates));
    json_object_set_new(out, "missing", json_integer(by->missing));
    json_object_set_new(out, "by_budgets", scatter);
    return out;
}

/* Names of what follows for the budget, as in the forecast; a law may have an "a" of its own. */
static const char *budget_name(const char *target)
{
    static const char *const names[][2] = {
        {"L", "loss"}, {"a", "N_opt_exponent"}, {"b", "D_opt_exponent"}};
    for (int i = 0; i < 3; i++)
        if (!strcmp(target, names[i][0])) return names[i][1];
    return target;
}

/* The law's parameters by name; what follows for the budget in "at_budget". */
static json_t *intervals_json(const FitAnswer *a)
{
    if (!a->main.is_law) return curve_intervals(a);
    if (!a->has_boot) return json_null();
    const Bootstrap *b = &a->boot;
    json_t *out = json_pack("{s:f, s:s, s:s, s:i, s:i}", "level", b->options.level, "scheme",
                            answer_resample_name(a->request.resample), "method",
                            interval_name(b->options.interval), "replicates",
                            b->options.replicates, "failed", b->failed);
    json_t *at = json_object();
    for (int i = 0; i < b->targets; i++) {
        const BootTarget *t = &b->target[i];
        if (t->budget > 0)
            json_object_set_new(at, budget_name(t->name), interval_json(t->interval));
        else
            json_object_set_new(out, t->name, interval_json(t->interval));
    }
    json_object_set_new(out, "at_budget", at);
    return out;
}

static json_t *part_json(ForecastPart p)
{
    return json_pack("[o,o]", json_out_real(p.down), json_out_real(p.up));
}

static void add_forecast(json_t *out, const Forecast *f)
{
    json_t *forms = json_array();
    for (int i = 0; i < f->forms; i++)
        json_array_append_new(forms, json_pack("{s:s, s:o, s:o, s:o}", "form", f->form_of[i].name,
                                               "loss", json_out_real(f->form_of[i].loss),
                                               "delta_aicc", json_out_real(f->form_of[i].d_aicc),
                                               "weight", json_out_real(f->form_of[i].weight)));
    json_object_set_new(out, "level", json_out_real(f->level));
    json_object_set_new(out, "mean_loss", interval_json(f->mean));
    json_object_set_new(out, "one_run_loss", interval_json(f->run));
    json_object_set_new(out, "half_widths",
                        json_pack("{s:o, s:o, s:o}", "parameters", part_json(f->parameters),
                                  "form", part_json(f->form), "noise", part_json(f->noise)));
    json_object_set_new(out, "form_judged", json_boolean(!f->unjudged));
    json_object_set_new(out, "N_opt_interval", interval_json(f->n_opt));
    json_object_set_new(out, "D_opt_interval", interval_json(f->d_opt));
    json_object_set_new(out, "forms", forms);
}

/* What the law reads besides N and D: experts, granularity, sparsity; a D that is held. */
static json_t *at_json(const FitAnswer *a)
{
    const unsigned told = 1u << RUN_N | 1u << RUN_D | 1u << RUN_C | 1u << RUN_LOSS;
    json_t *out = json_object();
    for (int c = 0; a->main.is_law && c < RUN_COLUMNS; c++)
        if ((a->main.fit.law->columns & ~told) >> c & 1 || (a->held && c == RUN_D))
            json_object_set_new(out, run_column_name((RunColumn)c),
                                json_out_real(a->request.at.x[c]));
    return out;
}

static json_t *forecast_json(const FitAnswer *a)
{
    const AnswerFit *m = &a->main;
    if (!m->best_ok) return json_pack("{s:n, s:s}", "N_opt", "why", m->why);
    json_t *out = json_pack("{s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o}", "budget",
                            json_out_real(a->budget), "times_largest_run",
                            json_out_real(a->budget / a->c_max), "of_total", a->total, "N_opt",
                            json_out_real(m->N), "D_opt", json_out_real(m->D), "loss",
                            json_out_real(m->loss), "N_opt_exponent", json_out_real(m->a),
                            "D_opt_exponent", json_out_real(m->b));
    json_object_set_new(out, "at", at_json(a));
    if (a->has_forecast) add_forecast(out, &a->forecast);
    if (!strcmp(a->request.cost.name, "hunyuan"))
        json_object_set_new(out, "published_hunyuan_large",
                            json_pack("{s:f, s:f}", "N_opt", hunyuan_n_opt(a->budget), "D_opt",
                                      hunyuan_d_opt(a->budget)));
    return out;
}

/* ---- Warnings ---------------------------------------------------------------------------------*/

/* A run by what it is, not by its line: the order of the file changes nothing. */
static json_t *row_json(const RunTable *t, int64_t i)
{
    json_t *out = json_pack("{s:I}", "row", (json_int_t)i);
    if (t->name) json_object_set_new(out, "name", json_out_text(t->name[i], strlen(t->name[i])));
    static const RunColumn shown[] = {RUN_N, RUN_D, RUN_C, RUN_LOSS};
    for (int k = 0; k < 4; k++)
        if (t->column[shown[k]])
            json_object_set_new(out, run_column_name(shown[k]),
                                json_out_real(run_value(t, shown[k], i)));
    return out;
}

/* Those of the fit without doubtful runs, or the others. */
static void add_answer_warnings(json_t *out, const FitAnswer *a, bool without)
{
    for (int i = 0; i < a->warnings; i++)
        if (a->warning[i].without == without)
            json_array_append_new(out, json_pack("{s:s, s:s}", "kind",
                                                 answer_kind_name(a->warning[i].kind), "text",
                                                 a->warning[i].text));
}

static json_t *warnings_json(const FitAnswer *a)
{
    json_t *out = json_array();
    for (int i = 0; i < a->hygiene.count; i++) {
        const Finding *f = &a->hygiene.finding[i];
        json_t *rows = json_array();
        for (int64_t k = 0; k < f->rows; k++)
            json_array_append_new(rows, row_json(&a->all, f->row[k]));
        json_array_append_new(out, json_pack("{s:s, s:s, s:b, s:o, s:o}", "kind",
                                             hygiene_kind_name(f->kind), "text", f->text,
                                             "doubtful", f->drops, "budget",
                                             json_out_real(f->budget), "rows", rows));
    }
    add_answer_warnings(out, a, false);
    return out;
}

/* ---- Beside it --------------------------------------------------------------------------------*/

static json_t *short_json(const AnswerFit *f)
{
    if (!f->ok) return json_pack("{s:s}", "why", f->why);
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "objective",
                     json_out_real(objective_of(f)), "parameters", parameters_json(f), "N_opt",
                     json_out_real(f->N), "D_opt", json_out_real(f->D), "loss",
                     json_out_real(f->loss), "N_opt_exponent", json_out_real(f->a),
                     "D_opt_exponent", json_out_real(f->b));
}

static json_t *curves_json(const Profile *p)
{
    json_t *out = json_array();
    for (int i = 0; i < p->count; i++) {
        const ProfileBudget *b = &p->budget[i];
        json_array_append_new(out, json_pack("{s:f, s:I, s:i, s:o, s:o, s:o, s:b, s:i, s:i}",
                                             "C", b->C, "runs", (json_int_t)b->runs, "sizes",
                                             b->sizes, "N", json_out_real(b->N), "D",
                                             json_out_real(b->D), "loss", json_out_real(b->loss),
                                             "bracketed", b->bracketed, "below", b->below,
                                             "above", b->above));
    }
    return out;
}

static json_t *backtest_json(const Backtest *b)
{
    json_t *rows = json_array();
    for (int i = 0; i < b->rows; i++) {
        const BacktestRow *r = &b->row[i];
        json_array_append_new(rows, json_pack("{s:i, s:f, s:f, s:i, s:f, s:f, s:o, s:i}", "fitted",
                                              r->fitted, "largest_fitted", r->c_fitted, "budget",
                                              r->c, "runs", r->rows, "error", r->error, "rmse",
                                              r->rmse, "half_width", json_out_real(r->width),
                                              "inside", r->inside));
    }
    return json_pack("{s:f, s:i, s:i, s:i, s:o}", "level", b->level, "runs", b->runs, "inside",
                     b->inside, "skipped", b->skipped, "rows", rows);
}

static void add_beside(json_t *out, const FitAnswer *a)
{
    json_t *check = json_object();
    for (int m = 0; m < ANSWER_METHODS; m++)
        if (a->check[m].ok)
            json_object_set_new(check, answer_method_name((AnswerMethod)m),
                                short_json(&a->check[m]));
    json_object_set_new(out, "cross_check", check);
    const AnswerFit *p = a->main.is_law ? &a->check[ANSWER_PARABOLA] : &a->main;
    if (p->ok) json_object_set_new(out, "isoflop_curves", curves_json(&p->profile));
    if (a->hygiene.n_clean < a->hygiene.n_usable) {
        json_t *without = short_json(&a->without), *warnings = json_array();
        if (a->without.ok)
            json_object_set_new(without, "certificate", certificate_json(&a->without));
        add_answer_warnings(warnings, a, true);
        json_object_set_new(without, "warnings", warnings);
        json_object_set_new(without, "runs", json_integer((json_int_t)a->hygiene.n_clean));
        json_object_set_new(out, "without_doubtful_runs", without);
    }
    if (a->has_backtest) json_object_set_new(out, "backtest", backtest_json(&a->backtest));
}

static json_t *cost_json(const CostLaw *c)
{
    char text[COST_LAW_TEXT];
    json_t *out = json_pack("{s:s, s:s, s:s, s:f, s:f, s:[o,o]}", "name", c->name, "text",
                            cost_law_text(c, text), "convention", c->convention, "a", c->a, "b",
                            c->b, "range", json_out_real(c->low), json_out_real(c->high));
    if (!cost_law_is_line(c))
        json_object_update_new(out, json_pack("{s:f, s:f, s:f}", "c1", c->c1, "c2", c->c2, "embed",
                                              c->embed));
    json_object_set_new(out, "residual_rms", json_out_real(c->rms));
    json_object_set_new(out, "residual_worst", json_out_real(c->worst));
    return out;
}

static json_t *options_json(const FitRequest *r)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:i, s:s, s:o}", "where",
                     r->where ? json_out_text(r->where, strlen(r->where)) : json_null(), "delta",
                     r->method == ANSWER_HUBER ? json_out_real(r->delta) : json_null(), "fixed_e",
                     json_out_real(r->fixed_e), "seed", (json_int_t)r->seed, "bootstrap",
                     r->replicates, "weights", r->noise_weights ? "noise" : "equal", "cost",
                     cost_json(&r->cost));
}

json_t *fit_answer_json(const FitAnswer *a)
{
    const AnswerFit *m = &a->main;
    json_t *out = json_pack("{s:o, s:o, s:I, s:I, s:s, s:o, s:o}", "source",
                            json_out_text(a->all.source, strlen(a->all.source)), "data_hash",
                            json_out_hash(a->all.hash), "runs", (json_int_t)a->all.rows, "fitted",
                            (json_int_t)a->runs.rows, "method",
                            answer_method_name(a->request.method), "options",
                            options_json(&a->request), "objective",
                            json_out_real(objective_of(m)));
    if (!out) return NULL;
    json_object_set_new(out, "objective_is", json_string(objective_name(m)));
    if (m->is_law) {
        json_object_set_new(out, "form", json_string(m->fit.law->name));
        json_object_set_new(out, "formula", json_string(m->fit.law->formula));
        json_object_set_new(out, "rmse", json_out_real(m->fit.rmse));
        json_object_set_new(out, "rmse_log", json_out_real(m->fit.rmse_log));
    }
    json_object_set_new(out, "parameters", parameters_json(m));
    json_object_set_new(out, "intervals", intervals_json(a));
    json_object_set_new(out, "certificate", certificate_json(m));
    json_object_set_new(out, "warnings", warnings_json(a));
    json_object_set_new(out, "forecast", forecast_json(a));
    add_beside(out, a);
    return out;
}
