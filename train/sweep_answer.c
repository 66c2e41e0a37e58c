/* train/sweep_answer.c - see sweep_answer.h. */
#include "train/sweep_answer.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/command.h"
#include "train/json_out.h"
#include "train/plan.h"
#include "train/study.h"
#include "train/sweep_check.h"

enum { LINE = 512 };

typedef struct Answer {
    SweepForecast f;
    CellFacts facts;      /* of the cell's configuration */
    const Cell *cell;
    double beyond;        /* the budget over the largest one */
} Answer;

/* ---- As sentences -----------------------------------------------------------------------------*/

__attribute__((format(printf, 2, 3))) static void add_line(json_t *text, const char *format, ...)
{
    char line[LINE];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    json_array_append_new(text, json_out_text(line, strlen(line)));
}

/* "5.1 M (4.2 M to 6.2 M)" */
static const char *count_range(char out[4 * PLAN_COUNT], double value, Interval i)
{
    char at[PLAN_COUNT], low[PLAN_COUNT], high[PLAN_COUNT];
    plan_count(at, value);
    if (isfinite(i.low) && isfinite(i.high))
        snprintf(out, 4 * PLAN_COUNT, "%s (%s to %s)", at, plan_count(low, i.low),
                 plan_count(high, i.high));
    else
        snprintf(out, 4 * PLAN_COUNT, "%s (no interval)", at);
    return out;
}

static void model_line(json_t *text, const Answer *a)
{
    const ModelConfig *m = &a->facts.model;
    char mlp[LINE / 2], N[PLAN_COUNT], all[PLAN_COUNT];
    if (m->n_experts)
        snprintf(mlp, sizeof mlp, "%lld experts of width %lld, top_k %lld, %lld shared of width "
                 "%lld", (long long)m->n_experts, (long long)m->expert_width,
                 (long long)m->top_k, (long long)m->n_shared, (long long)model_shared_width(m));
    else
        snprintf(mlp, sizeof mlp, "dense of width %lld", (long long)m->expert_width);
    add_line(text, "model to train: d_model %lld, n_layers %lld, n_heads %lld (n_kv_heads %lld), "
             "%s: %s activated parameters, %s in all", (long long)m->d_model,
             (long long)m->n_layers, (long long)m->n_heads, (long long)m->n_kv_heads, mlp,
             plan_count(N, a->cell->N), plan_count(all, a->cell->N_total));
}

static json_t *sentences(const Answer *a)
{
    const SweepForecast *f = &a->f;
    const Cell *c = a->cell;
    json_t *text = json_array();
    char C[PLAN_COUNT], D[PLAN_COUNT], n_opt[4 * PLAN_COUNT], d_opt[4 * PLAN_COUNT];
    add_line(text, "at %s FLOPs, %g times the largest budget, by the fit of %lld runs; intervals "
             "at %g %%", plan_flops(C, f->C), a->beyond, (long long)f->runs, 100 * f->level);
    if (f->has_optimum)
        add_line(text, "best N %s, D %s, loss %.4f (%.4f to %.4f)",
                 count_range(n_opt, f->optimum.N, f->optimum.n_opt),
                 count_range(d_opt, f->optimum.D, f->optimum.d_opt), f->optimum.loss,
                 f->optimum.mean.low, f->optimum.mean.high);
    model_line(text, a);
    add_line(text, "on %s tokens: %lld steps of %lld sequences of %lld, rate %.4g; loss %.4f, one "
             "run within %.4f to %.4f", plan_count(D, c->D), (long long)c->steps,
             (long long)c->batch, (long long)c->seq_len, c->lr, f->loss, f->run.low, f->run.high);
    if (c->left_out[0]) add_line(text, "this study would not run it: %s", c->left_out);
    if (f->warnings[0]) add_line(text, "warnings: %s", f->warnings);
    return text;
}

/* ---- As JSON ----------------------------------------------------------------------------------*/

static json_t *pair(Interval i)
{
    return json_pack("[o,o]", json_out_real(i.low), json_out_real(i.high));
}

static json_t *model_json(const Answer *a)
{
    const ModelConfig *m = &a->facts.model;
    const Cell *c = a->cell;
    char text[CELL_OVERRIDES];
    json_t *words = json_array();
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {{"d_model", m->d_model}, {"n_layers", m->n_layers}, {"n_heads", m->n_heads},
                {"n_kv_heads", m->n_kv_heads}, {"head_dim", m->head_dim},
                {"expert_width", m->expert_width}, {"n_experts", m->n_experts},
                {"top_k", m->top_k}, {"n_shared", m->n_shared},
                {"shared_width", model_shared_width(m)}, {"steps", c->steps}, {"batch", c->batch},
                {"seq_len", c->seq_len}, {"memory", c->memory}};
    snprintf(text, sizeof text, "%s", c->overrides);
    char *rest;
    for (char *w = strtok_r(text, "\n", &rest); w; w = strtok_r(NULL, "\n", &rest))
        json_array_append_new(words, json_out_text(w, strlen(w)));
    json_t *out = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "name", c->name,
                            "N", c->N, "N_total", c->N_total, "D", c->D, "C", c->C, "lr", c->lr,
                            "loss", json_out_real(a->f.loss), "one_run_loss", pair(a->f.run),
                            "left_out", json_out_text(c->left_out, strlen(c->left_out)),
                            "overrides", words);
    for (size_t i = 0; out && i < sizeof rows / sizeof *rows; i++)
        json_object_set_new(out, rows[i].name, json_integer(rows[i].value));
    return out;
}

static json_t *optimum_json(const SweepForecast *f)
{
    const Forecast *o = &f->optimum;
    if (!f->has_optimum) return json_null();
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "N", json_out_real(o->N), "N_interval",
                     pair(o->n_opt), "D", json_out_real(o->D), "D_interval", pair(o->d_opt),
                     "loss", json_out_real(o->loss), "mean_loss", pair(o->mean), "one_run_loss",
                     pair(o->run));
}

/* An answer that is refused: its reason, in one line. */
static json_t *refusal(const char *why)
{
    json_t *text = json_array();
    char line[ERR_MESSAGE_MAX];
    snprintf(line, sizeof line, "%s", why);
    line[strcspn(line, "\n")] = 0;
    add_line(text, "no model to train: %s", line);
    return json_pack("{s:o, s:o}", "why", json_out_text(line, strlen(line)), "text", text);
}

/* The budget is that of sweep.held_out; without one it lies SWEEP_ANSWER_BEYOND above the study. */
static json_t *to_train(const SweepRun *r)
{
    SweepConfig *s = malloc(sizeof *s);
    Answer *a = calloc(1, sizeof *a);
    CellList cell = {0};
    Err e = {0};
    json_t *out = NULL;
    if (!s || !a) {
        err_set(&e, "out of memory");
        goto end;
    }
    *s = *r->s;
    if (!s->held_out) s->held_out = SWEEP_ANSWER_BEYOND;
    SweepRun at = *r;
    at.s = s;
    if (sweep_forecast(&at, &a->f, &cell, &e)) goto end;
    a->cell = cell.cell;
    a->beyond = s->held_out;
    if (!a->f.identified)
        err_set(&e, "the fit's certificate: its parameters are not identified (isomoe fit %s)",
                s->out);
    else if (!r->inspector->inspect(r->inspector->self, a->cell->overrides, &a->facts, &e))
        out = json_pack("{s:f, s:f, s:f, s:I, s:o, s:o, s:s, s:o}", "C", a->f.C, "over_largest",
                        a->beyond, "level", a->f.level, "runs", (json_int_t)a->f.runs, "optimum",
                        optimum_json(&a->f), "model", model_json(a), "warnings", a->f.warnings,
                        "text", sentences(a));
end:
    if (!out) out = refusal(e.message);
    cell_list_clear(&cell);
    free(a);
    free(s);
    return out;
}

/* ---- The whole --------------------------------------------------------------------------------*/

/* A row for each least loss that has no two sizes on a side. */
static json_t *brackets(Ledger *l, const SweepRun *r, Err *e)
{
    SweepBracket *b = malloc(SWEEP_BUDGETS * SWEEP_VARIANTS * sizeof *b);
    LedgerCell *cells = NULL;
    int n = 0, count = 0, rc = -1;
    json_t *out = json_array();
    if (!b)
        err_set(e, "out of memory");
    else if (!ledger_cells(l, &cells, &n, e))
        rc = sweep_brackets(r->s, r->inspector, cells, n, b, &count, e);
    for (int i = 0; i < count && !rc && (r->s->sizes > 1 || r->s->adaptive); i++) {
        if (b[i].below >= 2 && b[i].above >= 2) continue;
        const char *variant = b[i].variant ? b[i].variant : "";
        json_array_append_new(
            out, json_pack("{s:f, s:o, s:i, s:i, s:o}", "budget", b[i].budget, "variant",
                           json_out_text(variant, strlen(variant)), "below", b[i].below, "above",
                           b[i].above, "why", json_out_text(b[i].why, strlen(b[i].why))));
    }
    free(b);
    free(cells);
    if (!rc) return out;
    json_decref(out);
    return NULL;
}

/* Keeps the answer beside the points that it is of; *out: the model's part, borrowed of *kept. */
static int keep(const SweepRun *r, json_t **kept, Err *e)
{
    RunTable points = {0};
    json_t *unbracketed = NULL;
    char *text = NULL;
    *kept = NULL;
    Ledger *l = ledger_open(r->s->out, false, e);
    if (!l) return -1;
    int rc = ledger_runs(l, false, &points, e);
    if (!rc && points.rows) rc = (unbracketed = brackets(l, r, e)) ? 0 : -1;
    if (unbracketed) {
        *kept = json_pack("{s:o, s:o, s:o}", "data_hash", json_out_hash(points.hash), "brackets",
                          unbracketed, "to_train", to_train(r));
        text = *kept ? json_dumps(*kept, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
        rc = text ? ledger_note_set(l, SWEEP_ANSWER_KEY, text, e) : err_set(e, "out of memory");
    }
    run_table_clear(&points);
    ledger_close(&l);
    free(text);
    return rc;
}

/* What `isomoe report FOLDER` writes. */
static int write_report(const SweepRun *r, Err *e)
{
    Study s;
    FitRequest request = fit_request_defaults(r->s->out);
    request.backtest = true;
    request.force = true;
    int rc = study_read(&s, &request, e);
    if (!rc) rc = study_write(&s, r->s->out, e);
    study_clear(&s);
    return rc;
}

int sweep_answer(const SweepRun *r, int code, Err *e)
{
    json_t *kept = NULL, *line;
    Err own = {0};
    size_t i;
    if (!r->ended) return code;
    int rc = keep(r, &kept, &own);
    json_array_foreach(json_object_get(json_object_get(kept, "to_train"), "text"), i, line)
        printf("%s\n", json_string_value(line));
    if (!rc && kept) rc = write_report(r, &own);
    if (rc) log_warn("%s: no report: %s", r->s->out, own.message);
    json_decref(kept);
    if (code != EXIT_DONE) return code;
    return stdout_finish(e);
}
