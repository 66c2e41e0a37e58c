/* scaling/cells.c - the first plan of a study (cells.h), and what is common to all lists of cells.
 *
 * Sizes are numbered by steps of sweep.spacing from the prior's N at the middle of the budgets, so
 * that budgets share them: each budget takes the sweep.sizes numbers around its own N. */
#include "scaling/cells.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "scaling/cell_build.h"

int cell_list_add(CellList *l, const Cell *c, Err *e)
{
    if (l->count == l->room) {
        int room = l->room ? 2 * l->room : 64;
        Cell *more = realloc(l->cell, (size_t)room * sizeof *more);
        if (!more) return err_set(e, "out of memory for %d cells", room);
        l->cell = more;
        l->room = room;
    }
    l->cell[l->count++] = *c;
    return 0;
}

void cell_list_clear(CellList *l)
{
    free(l->cell);
    *l = (CellList){0};
}

/* Pieces of a trunk that are joined elsewhere give the same bits. */
void cell_be_recorded(Cell *c, const LedgerCell *have, int n)
{
    for (int i = 0; i < n; i++) {
        const Cell *old = &have[i].cell;
        if (old->left_out[0] || strcmp(old->name, c->name) || strcmp(old->overrides, c->overrides))
            continue;
        memcpy(c->id, old->id, sizeof c->id);
        memcpy(c->parent, old->parent, sizeof c->parent);
        c->own_flops = old->own_flops;
        c->left_out[0] = 0; /* it was run, or is to be */
    }
}

typedef struct Chain { /* the stable phase of a size, of one variant */
    bool shared;        /* its points branch; else each is trained alone */
    int last;           /* place of the newest piece in the list; -1: none yet */
} Chain;

typedef struct SizePlan {
    const FamilyModel *m;     /* NULL: the family has none */
    int budgets;              /* that take it and may */
    double D_low, D_high;     /* of those */
    CellSetting set;
    Chain chain[SWEEP_VARIANTS]; /* by variant; number 0 without variants */
} SizePlan;

typedef struct FirstPlan {
    Study y;
    int low, count;           /* numbers of all sizes: low .. low + count - 1 */
    SizePlan *size;           /* (count), owned */
    const LedgerCell *have;   /* (n_have) the record that it is made for */
    int n_have;
    CellList *out;
} FirstPlan;

/* Which sizes there are, and their D. */
static int find_sizes(FirstPlan *p, Err *e)
{
    const SweepConfig *s = p->y.s;
    int high, first;
    study_sizes(&p->y, s->budget[0], &p->low);
    study_sizes(&p->y, s->budget[s->n_budgets - 1], &high);
    p->count = high + (int)s->sizes - p->low;
    p->size = calloc((size_t)p->count, sizeof *p->size);
    if (!p->size) return err_set(e, "out of memory for %d sizes", p->count);
    for (int k = 0; k < p->count; k++) {
        p->size[k].m = study_size(&p->y, p->low + k);
        for (int v = 0; v < SWEEP_VARIANTS; v++) p->size[k].chain[v].last = -1;
    }
    for (int j = 0; j < s->n_budgets; j++) {
        study_sizes(&p->y, s->budget[j], &first);
        for (int k = first - p->low; k < first - p->low + (int)s->sizes; k++) {
            SizePlan *size = &p->size[k];
            char reason[256];
            if (!size->m) continue;
            double D = study_tokens(&p->y, size->m, s->budget[j]);
            cell_limit(&p->y, size->m, D, reason);
            if (reason[0]) continue;
            if (!size->budgets++) size->D_low = D;
            size->D_high = D;
        }
    }
    return 0;
}

/* Rate and batch of each size; which of them have a trunk. */
static void set_sizes(FirstPlan *p)
{
    const SweepConfig *s = p->y.s;
    bool shared = s->reuse == REUSE_TRUNK && s->n_budgets > 1;
    for (int k = 0; k < p->count; k++) {
        SizePlan *size = &p->size[k];
        if (!size->budgets) continue;
        size->set = study_setting(&p->y, size->m, size->D_low, size->D_high);
        for (int v = 0; v < SWEEP_VARIANTS; v++)
            size->chain[v].shared = shared && (size->budgets > 1 || s->adaptive > 0);
    }
}

/* Lets *point begin from the trunk, which gets the piece up to the point's decay if it is shorter
 * than that. */
static int branch_point(FirstPlan *p, const CellWish *w, Chain *chain, Cell *point, Err *e)
{
    CellWish piece = *w;
    Cell c;
    piece.kind = CELL_TRUNK;
    piece.budget = 0;
    piece.steps = cell_fall(&p->y, point->steps);
    if (chain->last < 0 || p->out->cell[chain->last].steps < piece.steps) {
        if (cell_build(&p->y, &piece, &c, e)) return -1;
        if (c.left_out[0]) {
            memcpy(point->left_out, c.left_out, sizeof c.left_out);
            return 0;
        }
        if (chain->last >= 0) cell_adopt(&c, &p->out->cell[chain->last]);
        cell_be_recorded(&c, p->have, p->n_have);
        if (cell_list_add(p->out, &c, e)) return -1;
        chain->last = p->out->count - 1;
    }
    cell_adopt(point, &p->out->cell[chain->last]);
    return 0;
}

static int add_point(FirstPlan *p, const CellWish *wish, SizePlan *size, int variant, Err *e)
{
    const SweepConfig *s = p->y.s;
    Chain *chain = &size->chain[variant];
    CellWish w = *wish;
    Cell c;
    if (s->reuse == REUSE_OFF) { /* laws for this cell alone */
        double D = study_tokens(&p->y, w.m, w.budget);
        w.set = study_setting(&p->y, w.m, D, D);
    }
    int64_t batch = w.set.batch;
    if (w.batch_factor != 1) w.set = study_at_batch(&p->y, w.set, w.batch_factor);
    if (cell_build(&p->y, &w, &c, e)) return -1;
    if (w.batch_factor != 1 && w.set.batch == batch && !c.left_out[0])
        snprintf(c.left_out, sizeof c.left_out, "the legal batch nearest to %g times the law's is "
                 "the point's own", w.batch_factor);
    bool branch = chain->shared && w.seed == s->seed && w.kind == CELL_POINT;
    if (!c.left_out[0] && branch && branch_point(p, &w, chain, &c, e)) return -1;
    cell_be_recorded(&c, p->have, p->n_have);
    return cell_list_add(p->out, &c, e);
}

/* Checks beside a point: each batch at each rate, but for the point itself. */
static int add_checks(FirstPlan *p, const CellWish *point, SizePlan *size, int variant, Err *e)
{
    const SweepConfig *s = p->y.s;
    CellWish w = *point;
    w.kind = CELL_CHECK;
    for (int b = -1; b < s->n_check_batches; b++)
        for (int r = -1; r < s->n_checks; r++) {
            w.batch_factor = b < 0 ? 1 : s->check_batch[b];
            w.rate_factor = r < 0 ? 1 : s->check[r];
            if ((b >= 0 || r >= 0) && add_point(p, &w, size, variant, e)) return -1;
        }
    return 0;
}

/* All cells of a size at a budget: variants, seeds, and checks of rate and batch at the middle. */
static int add_size(FirstPlan *p, double budget, int k, bool middle, Err *e)
{
    const SweepConfig *s = p->y.s;
    SizePlan *size = &p->size[k - p->low];
    if (!size->m) {
        Cell c;
        cell_missing(&p->y, budget, k, &c);
        return cell_list_add(p->out, &c, e);
    }
    CellSetting set = size->set;
    double D = study_tokens(&p->y, size->m, budget);
    if (!size->budgets) set = study_setting(&p->y, size->m, D, D); /* a limit leaves it out */
    for (int v = 0; v < size_max(1, s->n_variants); v++) {
        CellWish w = {CELL_POINT, size->m, set, s->n_variants ? &s->variant[v] : NULL, s->seed,
                      budget, 0, 1, false, 1};
        for (int i = 0; i < (middle ? (int)s->seeds : 1); i++, w.seed++)
            if (add_point(p, &w, size, v, e)) return -1;
        w.seed = s->seed;
        if (middle && add_checks(p, &w, size, v, e)) return -1;
    }
    return 0;
}

static int add_all(FirstPlan *p, Err *e)
{
    const SweepConfig *s = p->y.s;
    for (int j = 0; j < s->n_budgets; j++) {
        int first, middle = study_sizes(&p->y, s->budget[j], &first);
        for (int k = first; k < first + (int)s->sizes; k++)
            if (add_size(p, s->budget[j], k, k == middle, e)) return -1;
    }
    return 0;
}

int sweep_cells(const SweepConfig *s, const CellInspector *i, CellList *out, Err *e)
{
    return sweep_cells_of(s, i, NULL, 0, out, e);
}

int sweep_cells_of(const SweepConfig *s, const CellInspector *i, const LedgerCell *have, int n,
                   CellList *out, Err *e)
{
    FirstPlan p = {.have = have, .n_have = n, .out = out};
    *out = (CellList){0};
    if (study_open(&p.y, s, i, e)) return -1;
    int rc = find_sizes(&p, e);
    if (!rc) {
        set_sizes(&p);
        rc = add_all(&p, e);
    }
    free(p.size);
    study_close(&p.y);
    if (rc) cell_list_clear(out);
    return rc;
}

static int open_held_out(Study *y, const SweepConfig *s, const CellInspector *i, Err *e)
{
    if (s->held_out) return study_open(y, s, i, e);
    return err_set(e, "%s: sweep.held_out is 0: there is no budget to hold out", s->name);
}

static double held_out_budget(const SweepConfig *s)
{
    return s->held_out * s->budget[s->n_budgets - 1];
}

/* A model further from N than sizes stand apart would be another run than the one asked for. */
static void check_distance(const SweepConfig *s, double N, double taken, Cell *c)
{
    double apart = fabs(log(taken / N)), most = log(s->spacing) / 2;
    if (apart > most)
        snprintf(c->left_out, sizeof c->left_out,
                 "the family has no model within half a spacing of %.4g parameters: the nearest "
                 "has %.4g", N, taken);
}

/* asked, taken: N in the same sense; asked NaN: nothing in particular. */
static int add_held_out(const Study *y, const FamilyModel *m, double asked, double taken,
                        CellList *more, Err *e)
{
    const SweepConfig *s = y->s;
    double C = held_out_budget(s), D = study_tokens(y, m, C);
    CellWish w = {CELL_CHECK, m, study_setting(y, m, D, D),
                  s->n_variants ? &s->variant[0] : NULL, s->seed, C, 0, 1, false, 1};
    Cell c;
    if (cell_build(y, &w, &c, e)) return -1;
    check_distance(s, asked, taken, &c);
    return cell_list_add(more, &c, e);
}

int sweep_held_out(const SweepConfig *s, const CellInspector *i, double N, CellList *more, Err *e)
{
    Study y;
    *more = (CellList){0};
    if (open_held_out(&y, s, i, e)) return -1;
    const FamilyModel *m = N > 0 ? family_nearest_active(&y.family, N)
                                 : family_nearest(&y.family, sweep_centre(s, held_out_budget(s)),
                                                  INFINITY);
    double asked = N > 0 ? N : sweep_centre(s, held_out_budget(s));
    int rc = add_held_out(&y, m, asked, N > 0 ? (double)m->params.active : m->N, more, e);
    study_close(&y);
    return rc;
}

int sweep_held_out_best(const SweepConfig *s, const CellInspector *i, const CellLoss *law,
                        CellList *more, Err *e)
{
    Study y;
    const FamilyModel *best = NULL;
    double least = INFINITY;
    *more = (CellList){0};
    if (open_held_out(&y, s, i, e)) return -1;
    for (int k = 0; k < y.family.count; k++) {
        const FamilyModel *m = &y.family.at[k];
        Cell c = {.N = (double)m->params.active, .N_no_embed = (double)m->params.active_no_embed,
                  .N_total = (double)m->params.total,
                  .D = study_tokens(&y, m, held_out_budget(s))};
        cell_experts(&m->model, &c);
        double loss = law->loss(law->self, &c);
        if (!(loss < least)) continue;
        least = loss;
        best = m;
    }
    int rc = best ? add_held_out(&y, best, NAN, NAN, more, e)
                  : err_set(e, "%s: the fit predicts no loss for any model of the family", s->name);
    study_close(&y);
    return rc;
}

SweepTotals sweep_totals(const CellList *l)
{
    SweepTotals t = {0};
    for (int i = 0; i < l->count; i++) {
        const Cell *c = &l->cell[i];
        if (c->left_out[0]) {
            t.left_out++;
            continue;
        }
        t.points += c->kind == CELL_POINT;
        t.trunks += c->kind == CELL_TRUNK;
        t.checks += c->kind == CELL_CHECK;
        t.flops += c->own_flops;
        if (c->kind != CELL_TRUNK) t.alone += c->C;
        t.seconds += c->seconds;
        t.disk += (double)c->disk;
        t.memory = size_max(t.memory, c->memory);
    }
    return t;
}
