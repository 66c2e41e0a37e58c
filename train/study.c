/* train/study.c - gathers what a study has to show; see study.h. */
#include "train/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "train/sweep_answer.h"
#include "train/sweep_check.h"

/* ---- Cells ------------------------------------------------------------------------------------*/

const char *study_kind(const Cell *c)
{
    static const char *const kinds[] = {"trunk", "point", "check"};
    return (unsigned)c->kind < 3 ? kinds[c->kind] : "?";
}

double study_rate(const LedgerCell *c) { return c->cell.lr * c->lr_factor; }

double study_batch(const LedgerCell *c)
{
    return (double)c->cell.batch * (double)c->cell.seq_len;
}

bool study_same(double a, double b) { return fabs(a - b) <= 0.01 * fmax(fabs(a), fabs(b)); }

static bool is_done(const LedgerCell *c)
{
    return c->state == STATE_DONE && isfinite(c->result.loss);
}

bool study_is_held_out(const Study *s, int cell)
{
    const Cell *c = &s->cell[cell].cell;
    if (c->kind != CELL_CHECK) return false;
    for (int i = 0; i < s->cells; i++)
        if (s->cell[i].cell.kind == CELL_POINT && study_same(s->cell[i].cell.budget, c->budget))
            return false;
    return true;
}

static int find_group(Study *s, const char *name)
{
    for (int i = 0; i < s->groups; i++)
        if (!strcmp(s->group[i].name, name)) return i;
    StudyGroup *more = realloc(s->group, (size_t)(s->groups + 1) * sizeof *more);
    if (!more) return -1;
    s->group = more;
    memset(&more[s->groups], 0, sizeof *more);
    snprintf(more[s->groups].name, CELL_NAME, "%s", name);
    return s->groups++;
}

/* Counts, FLOPs and seconds over the ledger; which group each cell is of. */
static int count_cells(Study *s, Err *e)
{
    char variant[CELL_NAME];
    s->seconds = NAN;
    s->group_of = calloc((size_t)s->cells + 1, sizeof *s->group_of);
    if (!s->group_of) return err_set(e, "out of memory");
    for (int i = 0; i < s->cells; i++) {
        const LedgerCell *c = &s->cell[i];
        cell_variant(c->cell.name, variant);
        int g = s->group_of[i] = find_group(s, variant);
        if (g < 0) return err_set(e, "out of memory");
        s->counts[c->state]++;
        s->left_out += c->cell.left_out[0] != 0;
        if (c->cell.kind == CELL_POINT && !c->cell.left_out[0]) {
            s->group[g].points++;
            s->group[g].done += is_done(c);
        }
        if (c->state != STATE_DONE) continue;
        s->spent += c->cell.own_flops;
        if (c->cell.kind != CELL_TRUNK) s->alone += c->cell.C;
        double seconds = c->result.seconds * c->cell.own_flops / c->cell.C;
        if (seconds > 0) s->seconds = (isnan(s->seconds) ? 0 : s->seconds) + seconds;
    }
    return 0;
}

/* FLOP/s of the points of the largest budget that has one done. */
static double find_pace(const Study *s)
{
    double largest = 0, flops = 0, seconds = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < s->cells; i++) {
            const LedgerCell *c = &s->cell[i];
            bool counts = c->cell.kind == CELL_POINT && is_done(c) && c->result.seconds > 0;
            if (counts && pass == 0) largest = fmax(largest, c->cell.budget);
            if (!counts || !study_same(c->cell.budget, largest)) continue;
            flops += pass * c->cell.C;
            seconds += pass * c->result.seconds;
        }
    return seconds > 0 ? flops / seconds : NAN;
}

/* ---- Fits -------------------------------------------------------------------------------------*/

/* Different budgets among a group's rows. */
static int budgets_of(const RunTable *t)
{
    int n = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        bool old = false;
        for (int64_t j = 0; j < i && !old; j++)
            old = study_same(run_value(t, RUN_BUDGET, i), run_value(t, RUN_BUDGET, j));
        n += !old;
    }
    return n;
}

static FitAnswer *try_fit(const FitRequest *r, const RunTable *t, Err *e)
{
    FitAnswer *a = calloc(1, sizeof *a);
    unsigned char *keep = malloc((size_t)t->rows + 1);
    RunTable copy = {0};
    int rc = a && keep ? 0 : err_set(e, "out of memory");
    if (keep) memset(keep, 1, (size_t)t->rows + 1);
    if (!rc) rc = run_table_select(&copy, t, keep, e);
    if (!rc) rc = fit_answer_of(a, r, &copy, e);
    run_table_clear(&copy);
    free(keep);
    if (!rc) return a;
    if (a) fit_answer_clear(a);
    free(a);
    return NULL;
}

/* The law, or where there is none the curves alone. */
static void fit_group(StudyGroup *g, const FitRequest *request, const RunTable *t)
{
    Err e = {0};
    FitRequest r = *request;
    if (!t->rows) { /* of a group without points, cells that were left out, nothing is expected */
        if (g->points) snprintf(g->why, sizeof g->why, "no point is done");
        return;
    }
    if (budgets_of(t) < 2)
        err_set(&e, "runs of one budget do not identify a law");
    else
        g->answer = try_fit(&r, t, &e);
    if (g->answer) return;
    snprintf(g->why, sizeof g->why, "%.*s", STUDY_WHY - 1, e.message);
    r.method = ANSWER_PARABOLA;
    r.backtest = false;
    g->answer = try_fit(&r, t, NULL);
}

const Profile *study_profile(const StudyGroup *g, AnswerMethod method)
{
    const FitAnswer *a = g->answer;
    if (!a) return NULL;
    const AnswerFit *f = a->request.method == method ? &a->main : &a->check[method];
    return f->ok && !f->is_law ? &f->profile : NULL;
}

static int by_budget(const void *a, const void *b)
{
    double x = ((const StudyBudget *)a)->C, y = ((const StudyBudget *)b)->C;
    return (x > y) - (x < y);
}

static void add_budget(StudyGroup *g, double C, bool measured)
{
    for (int i = 0; i < g->budgets; i++)
        if (study_same(g->budget[i].C, C)) return;
    if (!(C > 0) || !isfinite(C) || g->budgets == STUDY_BUDGETS) return;
    g->budget[g->budgets++] = (StudyBudget){.C = C, .measured = measured, .hours = NAN};
}

/* The study's budgets, those of held-out runs, and some beyond. */
static void list_budgets(const Study *s, int group)
{
    static const double beyond[] = {2, 5, 10, 30, 100};
    StudyGroup *g = &s->group[group];
    for (int i = 0; i < s->cells && g->budgets < STUDY_BUDGETS / 2; i++)
        if (s->group_of[i] == group && s->cell[i].cell.kind == CELL_POINT && is_done(&s->cell[i]))
            add_budget(g, s->cell[i].cell.budget, true);
    for (int i = 0; i < g->helds; i++)
        add_budget(g, s->cell[g->held[i].cell].cell.budget, false);
    for (int i = 0; i < 5; i++) add_budget(g, beyond[i] * g->answer->c_max, false);
    qsort(g->budget, (size_t)g->budgets, sizeof *g->budget, by_budget);
}

static LawPoint point_of(const FitAnswer *a, const LedgerCell *c)
{
    LawPoint p = a->request.at;
    p.x[RUN_N] = c->cell.N;
    p.x[RUN_N_TOTAL] = c->cell.N_total;
    p.x[RUN_D] = c->cell.D;
    if (isfinite(c->cell.experts)) { /* else those of the request */
        p.x[RUN_EXPERTS] = c->cell.experts;
        p.x[RUN_GRANULARITY] = c->cell.granularity;
        p.x[RUN_SPARSITY] = c->cell.sparsity;
    }
    return p;
}

static void forecast_group(Study *s, int group)
{
    StudyGroup *g = &s->group[group];
    FitAnswer *a = g->answer;
    for (int i = 0; i < s->cells; i++)
        if (s->group_of[i] == group && !s->cell[i].cell.left_out[0] && study_is_held_out(s, i) &&
            g->helds < STUDY_HELD)
            g->held[g->helds++].cell = i;
    if (!a || !a->main.is_law) return;
    list_budgets(s, group);
    for (int i = 0; i < g->budgets; i++) {
        StudyBudget *b = &g->budget[i];
        b->ok = a->has_forecast && !forecast_at_budget(&a->base, b->C, &b->forecast, NULL);
        b->hours = b->C / s->pace / 3600;
    }
    /* where no budget has an optimum with an interval, a given run may still have one */
    bool ready = a->has_forecast || (g->helds && a->has_boot &&
                                     !forecast_prepare(&a->runs, NULL, &a->boot, &a->base, NULL));
    for (int i = 0; i < g->helds; i++) {
        StudyHeld *h = &g->held[i];
        LawPoint p = point_of(a, &s->cell[h->cell]);
        h->ok = ready && !forecast_at(&a->base, &p, &h->forecast, NULL);
    }
}

/* The rows of `all` that are cells of the group; the table knows their numbers as lines. */
static int fit_all(Study *s, const FitRequest *request, const RunTable *all, Err *e)
{
    unsigned char *keep = malloc((size_t)all->rows + 1);
    if (!keep) return err_set(e, "out of memory");
    int rc = 0;
    for (int g = 0; g < s->groups && !rc; g++) {
        RunTable mine = {0};
        for (int64_t i = 0; i < all->rows; i++) keep[i] = s->group_of[all->line[i] - 1] == g;
        rc = run_table_select(&mine, all, keep, e);
        if (!rc) fit_group(&s->group[g], request, &mine);
        run_table_clear(&mine);
        if (!rc) forecast_group(s, g);
    }
    free(keep);
    return rc;
}

/* ---- The whole --------------------------------------------------------------------------------*/

static void set_name(Study *s, const char *folder)
{
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    for (size_t n = strlen(s->folder); n > 1 && s->folder[n - 1] == '/'; n--) s->folder[n - 1] = 0;
    const char *slash = strrchr(s->folder, '/');
    snprintf(s->name, sizeof s->name, "%s", slash && slash[1] ? slash + 1 : s->folder);
}

/* The study's own name, where the ledger has it. */
static int read_name(Study *s, Ledger *l, Err *e)
{
    char *name = NULL;
    if (ledger_note_get(l, "name", &name, e)) return -1;
    if (name && name[0]) snprintf(s->name, sizeof s->name, "%s", name);
    free(name);
    return 0;
}

/* Forecasts that were made before the runs of checks. */
static int read_forecasts(Study *s, Ledger *l, Err *e)
{
    s->before = calloc((size_t)s->cells + 1, sizeof *s->before);
    if (!s->before) return err_set(e, "out of memory");
    for (int i = 0; i < s->cells; i++) {
        char key[SWEEP_FORECAST_KEY], *text = NULL;
        if (s->cell[i].cell.kind != CELL_CHECK) continue;
        sweep_forecast_key(key, s->cell[i].cell.id);
        if (ledger_note_get(l, key, &text, e)) return -1;
        if (text) s->before[i] = json_loads(text, 0, NULL);
        free(text);
    }
    return 0;
}

/* That of other points than these says nothing. */
static int read_answer(Study *s, Ledger *l, uint64_t hash, Err *e)
{
    char *text = NULL, now[HASH_HEX];
    if (ledger_note_get(l, SWEEP_ANSWER_KEY, &text, e)) return -1;
    s->answer = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    const char *of = json_string_value(json_object_get(s->answer, "data_hash"));
    hash_hex(hash, now);
    if (of && !strcmp(of, now)) return 0;
    json_decref(s->answer);
    s->answer = NULL;
    return 0;
}

int study_read(Study *s, const FitRequest *request, Err *e)
{
    RunTable all = {0};
    *s = (Study){.level = request->level};
    set_name(s, request->source);
    Ledger *l = ledger_open(request->source, true, e);
    if (!l) return -1;
    /* Runs first: what a driver adds in between is a cell, and every run is one of the cells. */
    int rc = ledger_runs(l, false, &all, e);
    if (!rc) rc = ledger_cells(l, &s->cell, &s->cells, e);
    if (!rc) rc = read_name(s, l, e);
    if (!rc) rc = read_forecasts(s, l, e) || ledger_critical_get(l, &s->critical, e) ? -1 : 0;
    if (!rc) rc = read_answer(s, l, all.hash, e);
    ledger_close(&l);
    if (!rc) rc = count_cells(s, e);
    s->pace = rc ? NAN : find_pace(s);
    s->hash = all.hash;
    if (!rc) rc = fit_all(s, request, &all, e);
    if (!rc) rc = study_beside(s, e);
    run_table_clear(&all);
    return rc;
}

void study_clear(Study *s)
{
    for (int g = 0; g < s->groups; g++)
        if (s->group[g].answer) {
            fit_answer_clear(s->group[g].answer);
            free(s->group[g].answer);
        }
    for (int i = 0; s->before && i < s->cells; i++) json_decref(s->before[i]);
    free(s->before);
    free(s->group);
    free(s->group_of);
    free(s->cell);
    free(s->order);
    free(s->rates);
    free(s->compare);
    json_decref(s->origin);
    json_decref(s->answer);
    *s = (Study){0};
}
