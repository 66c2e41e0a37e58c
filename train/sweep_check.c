/* train/sweep_check.c - see sweep_check.h. */
#include "train/sweep_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "train/command.h"
#include "train/fit_answer.h"
#include "train/json_out.h"
#include "train/plan.h"

/* ---- The forecast -----------------------------------------------------------------------------*/

static LawPoint point_of(const FitAnswer *a, const Cell *c)
{
    LawPoint p = a->request.at;
    p.x[RUN_N] = c->N;
    p.x[RUN_N_TOTAL] = c->N_total;
    p.x[RUN_D] = c->D;
    p.x[RUN_EXPERTS] = c->experts;
    p.x[RUN_GRANULARITY] = c->granularity;
    p.x[RUN_SPARSITY] = c->sparsity;
    return p;
}

static double loss_of(void *self, const Cell *c)
{
    const FitAnswer *a = self;
    LawPoint p = point_of(a, c);
    return fit_loss(&a->main.fit, &p);
}

static void add_kind(char *out, size_t room, const char *kind)
{
    size_t n = strlen(kind);
    for (const char *p = out; (p = strstr(p, kind)); p += n)
        if ((p == out || p[-1] == ' ') && (!p[n] || p[n] == ',')) return;
    size_t used = strlen(out);
    snprintf(out + used, room - used, "%s%s", used ? ", " : "", kind);
}

static void list_warnings(const FitAnswer *a, char *out, size_t room)
{
    out[0] = 0;
    for (int i = 0; i < a->hygiene.count; i++)
        add_kind(out, room, hygiene_kind_name(a->hygiene.finding[i].kind));
    for (int i = 0; i < a->warnings; i++)
        if (!a->warning[i].without)
            add_kind(out, room, answer_kind_name(a->warning[i].kind));
}

/* A law knows little of sizes that are far from those it was fitted to. */
static void warn_of_size(const FitAnswer *a, const Cell *c)
{
    double apart = c->N < a->n_low ? a->n_low / c->N : c->N / a->n_high;
    if (apart > ANSWER_SIZES)
        log_warn("%s: its N is %.2g times %s of the study's runs: they do not bracket the best "
                 "size", c->name, apart, c->N < a->n_low ? "below the least" : "above the largest");
}

static int forecast(const SweepRun *r, FitAnswer *a, SweepForecast *out, CellList *cell, Err *e)
{
    const SweepConfig *s = r->s;
    const CellLoss law = {loss_of, a};
    Forecast f;
    if (!a->has_boot) return err_set(e, "%s: the fit has no intervals", s->out);
    /* one at a budget needs its optimum in every resampled fit, one of a given run does not */
    if (!a->has_forecast && forecast_prepare(&a->runs, NULL, &a->boot, &a->base, e)) return -1;
    if (sweep_held_out_best(s, r->inspector, &law, cell, e)) return -1;
    Cell *c = &cell->cell[0];
    cell_be_recorded(c, r->record->have, r->record->n);
    LawPoint p = point_of(a, c);
    warn_of_size(a, c);
    if (forecast_at(&a->base, &p, &f, e)) return err_context(e, "%s", s->out);
    *out = (SweepForecast){.C = c->C, .N = c->N, .D = c->D, .loss = f.loss, .level = f.level,
                           .run = f.run, .runs = a->runs.rows, .data_hash = a->all.hash,
                           .identified = a->main.fit.certificate.identified};
    list_warnings(a, out->warnings, sizeof out->warnings);
    out->has_optimum = a->has_forecast && !forecast_at_budget(&a->base, c->C, &out->optimum, NULL);
    memcpy(out->id, c->id, sizeof out->id);
    memcpy(out->name, c->name, sizeof out->name);
    return 0;
}

int sweep_forecast(const SweepRun *run, SweepForecast *out, CellList *cell, Err *e)
{
    const SweepConfig *s = run->s;
    char where[CONF_STRING + 16];
    FitRequest r = fit_request_defaults(s->out);
    FitAnswer *a = calloc(1, sizeof *a);
    *cell = (CellList){0};
    if (!a) return err_set(e, "out of memory");
    snprintf(where, sizeof where, "variant=%s", s->n_variants ? s->variant[0].name : "");
    if (s->n_variants) r.where = where;
    r.force = true; /* the line through the runs' cost only has to carry the intervals: the model is
                       chosen by exact counts */
    int rc = fit_answer_make(a, &r, e);
    if (!rc) rc = forecast(run, a, out, cell, e);
    fit_answer_clear(a);
    free(a);
    if (rc) cell_list_clear(cell);
    return rc;
}

/* ---- In the ledger ----------------------------------------------------------------------------*/

void sweep_forecast_key(char out[SWEEP_FORECAST_KEY], const char *id)
{
    snprintf(out, SWEEP_FORECAST_KEY, "forecast %s", id);
}

char *sweep_forecast_text(const SweepForecast *f)
{
    json_t *o = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:[f,f], s:I, s:o}", "name", f->name, "C",
                          f->C, "N", f->N, "D", f->D, "predicted", f->loss, "level", f->level,
                          "one_run_loss", f->run.low, f->run.high, "runs", (json_int_t)f->runs,
                          "data_hash", json_out_hash(f->data_hash));
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(o);
    return text;
}

static double number(const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* The run of the id as the ledger has it, and the forecast that was kept of it, which goes before
 * that of *f: it was made before the run. */
static int look_up(const SweepConfig *s, SweepForecast *f, LedgerCell *cell, bool *found, Err *e)
{
    char key[SWEEP_FORECAST_KEY], *text = NULL;
    LedgerCell *all = NULL;
    int n = 0;
    *found = false;
    Ledger *l = ledger_open(s->out, true, e);
    if (!l) return -1;
    sweep_forecast_key(key, f->id);
    int rc = ledger_cells(l, &all, &n, e) || ledger_note_get(l, key, &text, e) ? -1 : 0;
    ledger_close(&l);
    for (int i = 0; i < n && !rc; i++) {
        if (strcmp(all[i].cell.id, f->id)) continue;
        *cell = all[i];
        *found = true;
    }
    json_t *o = text && *found && cell->state == STATE_DONE ? json_loads(text, 0, NULL) : NULL;
    const json_t *pair = json_object_get(o, "one_run_loss");
    if (json_array_size(pair) == 2) {
        f->loss = number(o, "predicted");
        f->run.low = json_number_value(json_array_get(pair, 0));
        f->run.high = json_number_value(json_array_get(pair, 1));
        f->runs = json_integer_value(json_object_get(o, "runs"));
    }
    json_decref(o);
    free(text);
    free(all);
    return rc;
}

/* ---- Both -------------------------------------------------------------------------------------*/

static void print_check(const SweepConfig *s, const SweepForecast *f, const LedgerCell *c)
{
    char flops[PLAN_COUNT], N[PLAN_COUNT], D[PLAN_COUNT];
    double loss = c->result.loss;
    bool inside = loss >= f->run.low && loss <= f->run.high;
    printf("held-out budget: %s FLOPs, %g times the largest of the study\n",
           plan_flops(flops, f->C), s->held_out);
    printf("  to train: %s, %s activated parameters on %s tokens, the best of the family by the "
           "fit of %lld runs\n", f->name, plan_count(N, f->N), plan_count(D, f->D),
           (long long)f->runs);
    printf("  forecast %.4f, one run within %.4f to %.4f at %g %%, made without this run\n",
           f->loss, f->run.low, f->run.high, 100 * f->level);
    if (c->state == STATE_DONE)
        printf("  measured %.4f: %s\n", loss, inside ? "inside" : "outside");
    else
        printf("  measured: no, the run is %s\n", cell_state_name(c->state));
}

int sweep_check(SweepRun *r, Err *e)
{
    SweepForecast f;
    CellList cell;
    LedgerCell *c = malloc(sizeof *c);
    char key[SWEEP_FORECAST_KEY];
    bool found = false;
    int code = EXIT_FAILED;
    if (!c) return err_set(e, "out of memory"), EXIT_FAILED;
    if (sweep_forecast(r, &f, &cell, e) || look_up(r->s, &f, c, &found, e)) {
        free(c);
        return EXIT_FAILED;
    }
    char *text = sweep_forecast_text(&f);
    sweep_forecast_key(key, f.id);
    if (!text) {
        err_set(e, "out of memory");
    } else {
        if (!found || c->state != STATE_DONE) {
            r->note = key;
            r->note_text = text;
        }
        code = sweep_run(r, &cell, e);
        r->note = r->note_text = NULL;
    }
    if ((code == EXIT_DONE || code == EXIT_DIVERGED) && !look_up(r->s, &f, c, &found, NULL) &&
        found) {
        print_check(r->s, &f, c);
        if (stdout_finish(e) != EXIT_DONE) code = EXIT_FAILED;
    }
    free(text);
    free(c);
    cell_list_clear(&cell);
    return code;
}
