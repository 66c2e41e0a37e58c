/* train/study_json.c - the report of a study as JSON; see study.h and docs/FORMATS.md. */
#include <math.h>
#include <string.h>

#include "scaling/flops.h"
#include "train/json_out.h"
#include "train/study.h"
#include "train/version.h"

enum { REPORT_VERSION = 1 };

static json_t *text_json(const char *text) { return json_out_text(text, strlen(text)); }

static json_t *pair_json(Interval i)
{
    return json_pack("[o,o]", json_out_real(i.low), json_out_real(i.high));
}

typedef struct Real {
    const char *name;
    double value;
} Real;

static void add_reals(json_t *out, const Real *real, int n)
{
    for (int i = 0; i < n; i++)
        json_object_set_new(out, real[i].name, json_out_real(real[i].value));
}

/* ---- Cells ------------------------------------------------------------------------------------*/

static json_t *cell_json(const Study *s, int i)
{
    const LedgerCell *l = &s->cell[i];
    const Cell *c = &l->cell;
    const Real reals[] = {
        {"budget", c->budget > 0 ? c->budget : NAN}, {"N", c->N}, {"N_no_embed", c->N_no_embed},
        {"N_total", c->N_total}, {"D", c->D}, {"C", c->C}, {"own_flops", c->own_flops},
        {"experts", c->experts}, {"top_k", c->top_k}, {"granularity", c->granularity},
        {"sparsity", c->sparsity}, {"lr", study_rate(l)}, {"lr_factor", l->lr_factor},
        {"lr_law_ratio", c->lr_law_ratio}, {"batch_tokens", study_batch(l)},
        {"batch_law_ratio", c->batch_law_ratio}, {"C_min", ledger_c_min(l, &s->critical)},
        {"loss", l->result.loss}, {"train_loss", l->result.train_loss},
        {"b_noise", l->result.b_noise}, {"seconds", l->result.seconds},
    };
    json_t *out = json_pack(
        "{s:o, s:o, s:s, s:o, s:s, s:i, s:I, s:I, s:o, s:o}", "id", text_json(c->id), "name",
        text_json(c->name), "kind", study_kind(c), "variant",
        text_json(s->group[s->group_of[i]].name), "state", cell_state_name(l->state), "tries",
        l->tries, "seed", (json_int_t)c->seed, "steps", (json_int_t)c->steps, "reason",
        text_json(l->reason), "left_out", text_json(c->left_out));
    if (out) add_reals(out, reals, sizeof reals / sizeof *reals);
    return out;
}

static json_t *ledger_json(const Study *s)
{
    json_t *states = json_object(), *cells = json_array();
    for (int i = 0; i < CELL_STATES; i++)
        json_object_set_new(states, cell_state_name((CellState)i), json_integer(s->counts[i]));
    for (int i = 0; i < s->cells; i++) json_array_append_new(cells, cell_json(s, i));
    json_t *out = json_pack("{s:i, s:o, s:i}", "cells_in_all", s->cells, "states", states,
                            "left_out", s->left_out);
    const Real reals[] = {{"flops_spent", s->spent}, {"flops_each_alone", s->alone},
                          {"flops_saved", s->alone - s->spent}, {"seconds", s->seconds},
                          {"flops_per_second", s->pace}};
    add_reals(out, reals, 5);
    json_object_set_new(out, "cells", cells);
    return out;
}

/* ---- Fits -------------------------------------------------------------------------------------*/

static json_t *budget_json(const StudyBudget *b)
{
    const Forecast *f = &b->forecast;
    json_t *out = json_pack("{s:f, s:b, s:o}", "C", b->C, "measured", b->measured, "hours",
                            json_out_real(b->hours));
    if (!b->ok) return out;
    const Real reals[] = {{"N", f->N}, {"D", f->D}, {"loss", f->loss}, {"beyond", f->beyond}};
    add_reals(out, reals, 4);
    json_object_set_new(out, "N_interval", pair_json(f->n_opt));
    json_object_set_new(out, "D_interval", pair_json(f->d_opt));
    json_object_set_new(out, "mean_loss", pair_json(f->mean));
    json_object_set_new(out, "one_run_loss", pair_json(f->run));
    return out;
}

static json_t *held_json(const Study *s, const StudyHeld *h)
{
    const LedgerCell *c = &s->cell[h->cell];
    json_t *out = json_pack("{s:o, s:s}", "name", text_json(c->cell.name), "state",
                            cell_state_name(c->state));
    const Real reals[] = {{"budget", c->cell.budget}, {"N", c->cell.N}, {"D", c->cell.D},
                          {"C", c->cell.C}, {"loss", c->result.loss},
                          {"predicted", h->ok ? h->forecast.loss : NAN}};
    add_reals(out, reals, 6);
    json_t *before = s->before[h->cell];
    json_object_set(out, "forecast_before", before ? before : json_null());
    if (!h->ok) return out;
    Interval i = h->forecast.run;
    json_object_set_new(out, "one_run_loss", pair_json(i));
    json_object_set_new(out, "inside", isfinite(c->result.loss)
                                           ? json_boolean(c->result.loss >= i.low &&
                                                          c->result.loss <= i.high)
                                           : json_null());
    return out;
}

/* Measured over fitted, a row for each run that was fitted. */
static json_t *residuals_json(const FitAnswer *a)
{
    json_t *out = json_array();
    for (int64_t i = 0; a->main.is_law && i < a->runs.rows; i++) {
        LawPoint p = law_point(&a->runs, i);
        double fitted = fit_loss(&a->main.fit, &p);
        json_array_append_new(out, json_pack("{s:i, s:o, s:o, s:o}", "cell",
                                             (int)a->runs.line[i] - 1, "loss",
                                             json_out_real(p.x[RUN_LOSS]), "fitted",
                                             json_out_real(fitted), "residual",
                                             json_out_real(p.x[RUN_LOSS] - fitted)));
    }
    return out;
}

static json_t *group_json(const Study *s, int number)
{
    const StudyGroup *g = &s->group[number];
    json_t *budgets = json_array(), *held = json_array();
    for (int i = 0; i < g->budgets; i++)
        json_array_append_new(budgets, budget_json(&g->budget[i]));
    for (int i = 0; i < g->helds; i++) json_array_append_new(held, held_json(s, &g->held[i]));
    return json_pack("{s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "variant", text_json(g->name),
                     "points", g->points, "done", g->done, "why_no_law",
                     g->why[0] ? text_json(g->why) : json_null(), "fit",
                     g->answer ? fit_answer_json(g->answer) : json_null(), "residuals",
                     g->answer ? residuals_json(g->answer) : json_array(), "optimum", budgets,
                     "held_out", held);
}

/* ---- Beside the fits --------------------------------------------------------------------------*/

static json_t *rates_json(const Study *s, const StudyRates *r)
{
    json_t *cells = json_array();
    for (int i = r->first; i < r->first + r->count; i++)
        json_array_append_new(cells, json_integer(s->order[i]));
    return json_pack("{s:o, s:f, s:f, s:i, s:i, s:o}", "variant",
                     text_json(s->group[r->group].name), "budget", r->budget, "N", r->N, "rates",
                     r->rates, "batches", r->batches, "cells", cells);
}

static json_t *compare_json(const Study *s, const StudyCompare *c)
{
    json_t *out = json_pack("{s:o, s:o, s:i, s:b}", "variant", text_json(s->group[c->group].name),
                            "against", text_json(s->group[c->base].name), "runs", c->runs,
                            "paired", c->paired);
    const Real reals[] = {{"budget", c->budget}, {"N", c->N}, {"mean", c->mean}, {"sd", c->sd},
                          {"difference", c->difference}};
    if (!out) return NULL;
    add_reals(out, reals, 5);
    json_object_set_new(out, "interval", pair_json(c->interval));
    return out;
}

static json_t *conventions_json(void)
{
    char text[FLOP_CONVENTION_TEXT];
    const FlopConvention *c = flop_convention_at(0);
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "flops", c->name, "flops_are",
                     flop_convention_text(c, text), "N", "activated parameters with embedding and "
                     "head", "D", "tokens of the whole run", "loss",
                     "held out, nats a token, without dropped tokens");
}

/* New reference; null where the sweep has not ended with just these points. */
static json_t *answer_part(const Study *s, const char *key)
{
    json_t *part = json_object_get(s->answer, key);
    return part ? json_incref(part) : json_null();
}

json_t *study_json(const Study *s)
{
    json_t *groups = json_array(), *rates = json_array(), *compares = json_array();
    for (int i = 0; i < s->groups; i++) json_array_append_new(groups, group_json(s, i));
    for (int i = 0; i < s->n_rates; i++)
        json_array_append_new(rates, rates_json(s, &s->rates[i]));
    for (int i = 0; i < s->compares; i++)
        json_array_append_new(compares, compare_json(s, &s->compare[i]));
    json_t *out = json_pack("{s:s, s:i, s:o, s:s, s:o, s:f, s:o, s:O}", "format", "isomoe-report",
                            "version", REPORT_VERSION, "name", text_json(s->name), "code",
                            version_text(), "data_hash", json_out_hash(s->hash), "level", s->level,
                            "conventions", conventions_json(), "runs_say", s->origin);
    int rc = json_object_set_new(out, "ledger", ledger_json(s)) |
             json_object_set_new(out, "groups", groups) |
             json_object_set_new(out, "rates", rates) |
             json_object_set_new(out, "comparisons", compares) |
             json_object_set_new(out, "to_train", answer_part(s, "to_train")) |
             json_object_set_new(out, "brackets", answer_part(s, "brackets"));
    if (!rc) return out;
    json_decref(out);
    return NULL;
}
