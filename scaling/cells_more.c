/* scaling/cells_more.c - what an adaptive study adds (cells.h): sizes at the edges of budgets whose
 * least loss is not bracketed by two on each side. Cells are found again by their names, which
 * follow from budget, model, seed and variant. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "scaling/cell_build.h"
#include "scaling/sweep_config.h"

/* Numbers of sizes looked at on each side; points wanted there; sizes in a row that were left out
 * before no more is tried. */
enum { REACH = 128, BRACKET = 2, PASSED = 8 };

typedef struct MorePlan {
    Study y;
    const LedgerCell *have;
    int n;
    CellList *more;
    const SweepVariant *variant; /* in hand; or NULL */
} MorePlan;

static CellWish wish_of(const MorePlan *p, const FamilyModel *m, double budget, int64_t seed)
{
    return (CellWish){.kind = CELL_POINT, .m = m, .variant = p->variant, .seed = seed,
                      .budget = budget, .rate_factor = 1, .batch_factor = 1};
}

static const LedgerCell *find_named(const MorePlan *p, const char *name, bool left_out)
{
    for (int i = 0; i < p->n; i++) {
        const Cell *c = &p->have[i].cell;
        if ((c->left_out[0] != 0) == left_out && !strcmp(c->name, name)) return &p->have[i];
    }
    return NULL;
}

/* The cell that was run, or is to be: from a trunk, or alone. */
static const LedgerCell *find_run(const MorePlan *p, const CellWish *w)
{
    char name[CELL_NAME];
    CellWish alone = *w;
    cell_name(name, w);
    const LedgerCell *c = find_named(p, name, false);
    if (c) return c;
    alone.alone = true;
    cell_name(name, &alone);
    return find_named(p, name, false);
}

/* The record's word on why a size at a budget was left out; NULL: it says nothing. */
static const LedgerCell *find_left_out(const MorePlan *p, const FamilyModel *m, double budget)
{
    Cell c = {0};
    CellWish w = wish_of(p, m, budget, p->y.s->seed);
    cell_name(c.name, &w);
    const LedgerCell *found = find_named(p, c.name, true);
    if (found) return found;
    cell_leave_out(&c);
    return find_named(p, c.name, true);
}

typedef struct SizeState {
    bool there;   /* a cell stands in the record */
    bool waiting; /* one of its seeds has not ended */
    int done;
    double loss;  /* mean of the done ones */
} SizeState;

/* What became of a size at a budget, all seeds together. */
static SizeState size_state(const MorePlan *p, double budget, int k)
{
    const SweepConfig *s = p->y.s;
    SizeState r = {0};
    const FamilyModel *m = study_size(&p->y, k);
    for (int i = 0; m && i < (int)s->seeds; i++) {
        CellWish w = wish_of(p, m, budget, s->seed + i);
        const LedgerCell *c = find_run(p, &w);
        if (!c) continue;
        r.there = true;
        if (c->state == STATE_PLANNED || c->state == STATE_RUNNING || c->state == STATE_PREEMPTED)
            r.waiting = true;
        if (c->state != STATE_DONE || !isfinite(c->result.loss)) continue;
        r.loss += c->result.loss;
        r.done++;
    }
    if (r.done) r.loss /= r.done;
    return r;
}

typedef struct Edges { /* of a budget's sizes */
    int low, high, tried, best;
    int below, above; /* done sizes beside the best one */
    bool waiting, any;
} Edges;

/* Where none was tried, low and high are such that the middle is the first beyond one of them. */
static Edges find_edges(const MorePlan *p, double budget)
{
    int first, middle = study_sizes(&p->y, budget, &first);
    Edges g = {.low = middle + 1, .high = middle};
    double least = INFINITY;
    int done = 0, before_best = 0;
    for (int k = middle - REACH; k <= middle + REACH; k++) {
        SizeState z = size_state(p, budget, k);
        if (!z.there) continue;
        if (!g.tried++) g.low = k;
        g.high = k;
        g.waiting = g.waiting || z.waiting;
        if (!z.done) continue;
        if (z.loss < least) {
            least = z.loss;
            g.best = k;
            before_best = done;
        }
        done++;
    }
    g.any = done > 0;
    g.below = before_best;
    g.above = done - before_best - 1;
    return g;
}

typedef struct Wanted { /* a size to be added at a budget */
    int k;
    double budget;
    bool beyond_limit; /* to be written down as left out */
} Wanted;

enum { WANTED = 2 * (BRACKET + 1) }; /* of a budget at most */

/* A size that was left out is passed by, unless it may be run now: a limit was lifted. It is asked
 * on its own laws: those of a trunk do not stop it (add_wanted). */
static int is_out(const MorePlan *p, const FamilyModel *m, double budget, bool *out, Err *e)
{
    double D = study_tokens(&p->y, m, budget);
    CellWish alone = wish_of(p, m, budget, p->y.s->seed);
    Cell c;
    *out = false;
    if (!find_left_out(p, m, budget)) return 0;
    alone.set = study_setting(&p->y, m, D, D);
    if (cell_build(&p->y, &alone, &c, e)) return -1;
    *out = c.left_out[0] != 0;
    return 0;
}

/* `count` sizes of the family beyond number k, downwards or upwards, into out from *n on. Of those
 * beyond a limit the first is taken too, for the record; sizes behind PASSED that were left out for
 * another reason are none. */
static int want_beyond(const MorePlan *p, const Wanted *from, int step, int count, Wanted *out,
                       int *n, Err *e)
{
    bool limited = false;
    int in_a_row = 0;
    for (int i = 1; i <= REACH && count > 0 && in_a_row < PASSED; i++) {
        Wanted w = {from->k + i * step, from->budget, false};
        const FamilyModel *m = study_size(&p->y, w.k);
        char reason[256];
        if (!m) continue;
        cell_limit(&p->y, m, study_tokens(&p->y, m, w.budget), reason);
        w.beyond_limit = reason[0] != 0;
        bool passed = w.beyond_limit && (limited || find_left_out(p, m, w.budget));
        limited = limited || w.beyond_limit;
        if (!w.beyond_limit && is_out(p, m, w.budget, &passed, e)) return -1;
        in_a_row = passed && !w.beyond_limit ? in_a_row + 1 : 0;
        if (passed) continue;
        out[(*n)++] = w;
        count -= !w.beyond_limit;
    }
    return 0;
}

/* Whoever cancels a run at a budget wants no more runs there until a retry. A cell that was left
 * out is cancelled from the start and says nothing. */
static bool was_cancelled(const MorePlan *p, double budget)
{
    for (int i = 0; i < p->n; i++) {
        const LedgerCell *c = &p->have[i];
        bool here = fabs(c->cell.budget / budget - 1) < 1e-9;
        if (here && c->state == STATE_CANCELLED && !c->cell.left_out[0]) return true;
    }
    return false;
}

/* How many sizes are to be added below and above; of a budget whose cells all failed none. */
static void count_lacking(const MorePlan *p, const Edges *g, int *below, int *above)
{
    const SweepConfig *s = p->y.s;
    int left = (int)(s->sizes + s->adaptive) - g->tried;
    *below = *above = 0;
    if (!g->any && g->tried) return;
    *below = (int)size_max(0, size_min(left, BRACKET - g->below));
    *above = (int)size_max(0, size_min(left - *below, BRACKET - g->above));
}

/* Sizes that a budget lacks; room for WANTED. */
static int want_sizes(const MorePlan *p, double budget, Wanted *out, int *n, Err *e)
{
    Edges g = find_edges(p, budget);
    int below, above;
    if (g.waiting || was_cancelled(p, budget)) return 0;
    count_lacking(p, &g, &below, &above);
    if (want_beyond(p, &(Wanted){.k = g.low, .budget = budget}, -1, below, out, n, e)) return -1;
    return want_beyond(p, &(Wanted){.k = g.high, .budget = budget}, 1, above, out, n, e);
}

static int64_t warmup_of(const Cell *c)
{
    const char *text = strstr(c->overrides, "optim.warmup_steps=");
    return text ? strtoll(text + strlen("optim.warmup_steps="), NULL, 10) : 0;
}

/* Rate, batch and warm-up of wanted size i: those of its cells if it has any, since they share a
 * trunk; without trunks what the laws say for this cell alone, as in the first plan. */
static CellSetting setting_of(const MorePlan *p, const FamilyModel *m, const Wanted *w, int n,
                              int i)
{
    const SweepConfig *s = p->y.s;
    double low = INFINITY, high = 0, D = study_tokens(&p->y, m, w[i].budget);
    if (s->reuse == REUSE_OFF) return study_setting(&p->y, m, D, D);
    for (int j = 0; j < s->n_budgets && s->reuse == REUSE_TRUNK; j++) {
        CellWish at = wish_of(p, m, s->budget[j], s->seed);
        const LedgerCell *c = find_run(p, &at);
        if (!c || !c->cell.parent[0]) continue; /* it has no trunk */
        double tokens = (double)c->cell.batch * (double)c->cell.seq_len;
        return (CellSetting){c->cell.lr, c->cell.batch, warmup_of(&c->cell), tokens};
    }
    for (int j = 0; j < n; j++) {
        if (w[j].k != w[i].k || (w[j].beyond_limit && j != i)) continue;
        D = study_tokens(&p->y, m, w[j].budget);
        low = fmin(low, D);
        high = fmax(high, D);
    }
    return study_setting(&p->y, m, low, high);
}

/* The longest piece of the size's trunk that ends at `end` or before: of the record, or new. */
static const Cell *find_trunk(const MorePlan *p, const CellWish *point, int64_t end)
{
    const Cell *best = NULL;
    for (int i = 0; i < p->n + p->more->count; i++) {
        const Cell *c = i < p->n ? &p->have[i].cell : &p->more->cell[i - p->n];
        bool usable = i >= p->n || p->have[i].state < STATE_DIVERGED;
        CellWish w = *point;
        char name[CELL_NAME];
        w.kind = CELL_TRUNK;
        w.steps = c->steps;
        if (c->kind != CELL_TRUNK || !usable || c->steps > end) continue;
        cell_name(name, &w);
        if (!strcmp(name, c->name) && (!best || c->steps > best->steps)) best = c;
    }
    return best;
}

/* Lets the point begin from the trunk, which is made longer if need be. */
static int branch_point(MorePlan *p, const CellWish *w, Cell *point, Err *e)
{
    CellWish piece = *w;
    Cell c;
    piece.kind = CELL_TRUNK;
    piece.budget = 0;
    piece.steps = cell_fall(&p->y, point->steps);
    const Cell *from = find_trunk(p, w, piece.steps);
    if (from && from->steps == piece.steps) {
        cell_adopt(point, from);
        return 0;
    }
    if (cell_build(&p->y, &piece, &c, e)) return -1;
    if (c.left_out[0]) {
        memcpy(point->left_out, c.left_out, sizeof c.left_out);
        return 0;
    }
    if (from) cell_adopt(&c, from);
    cell_adopt(point, &c);
    return cell_list_add(p->more, &c, e);
}

/* A size that its trunk's rate, batch or steps keep out is trained alone, on its own laws. */
static int build_wanted(MorePlan *p, const Wanted *w, int n, int i, Cell *c, Err *e)
{
    const SweepConfig *s = p->y.s;
    const FamilyModel *m = study_size(&p->y, w[i].k);
    CellWish wish = wish_of(p, m, w[i].budget, s->seed);
    Cell alone;
    bool branch = s->reuse == REUSE_TRUNK && s->n_budgets > 1;
    wish.set = setting_of(p, m, w, n, i);
    if (cell_build(&p->y, &wish, c, e)) return -1;
    if (!c->left_out[0] && branch && branch_point(p, &wish, c, e)) return -1;
    if (!c->left_out[0] || !branch) return 0;
    double D = study_tokens(&p->y, m, w[i].budget);
    wish.alone = true;
    wish.set = study_setting(&p->y, m, D, D);
    if (cell_build(&p->y, &wish, &alone, e)) return -1;
    if (!alone.left_out[0]) *c = alone;
    return 0;
}

/* What is left out goes into the record too, with the reason: it is passed by from then on. */
static int add_wanted(MorePlan *p, const Wanted *w, int n, int i, Err *e)
{
    Cell c;
    if (build_wanted(p, w, n, i, &c, e)) return -1;
    if (c.left_out[0]) cell_leave_out(&c);
    return cell_list_add(p->more, &c, e);
}

static int more_of_variant(MorePlan *p, Err *e)
{
    const SweepConfig *s = p->y.s;
    Wanted wanted[SWEEP_BUDGETS * WANTED];
    int n = 0, rc = 0;
    for (int j = 0; j < s->n_budgets && !rc; j++)
        rc = want_sizes(p, s->budget[j], wanted, &n, e);
    for (int i = 0; i < n && !rc; i++) rc = add_wanted(p, wanted, n, i, e);
    return rc;
}

/* Number v of the study's variants, at least one: NULL where it has none. */
static const SweepVariant *variant_at(const SweepConfig *s, int v)
{
    return s->n_variants ? &s->variant[v] : NULL;
}

static int variants(const SweepConfig *s) { return s->n_variants ? (int)s->n_variants : 1; }

int sweep_more(const SweepConfig *s, const CellInspector *i, const LedgerCell *have, int n,
               CellList *more, Err *e)
{
    MorePlan p = {.have = have, .n = n, .more = more};
    int rc = 0;
    *more = (CellList){0};
    if (!s->adaptive || !n) return 0;
    if (study_open(&p.y, s, i, e)) return -1;
    for (int v = 0; v < variants(s) && !rc; v++) {
        p.variant = variant_at(s, v);
        rc = more_of_variant(&p, e);
    }
    study_close(&p.y);
    if (rc) cell_list_clear(more);
    return rc;
}

/* ---- Brackets ---------------------------------------------------------------------------------*/

/* Why no size was added beyond number `edge`, downwards or upwards: the first that was left out, or
 * the end of the family. */
static void explain_side(const MorePlan *p, double budget, int edge, int step, char *out,
                         size_t room)
{
    const LedgerCell *first = NULL;
    int more = 0;
    for (int i = 1; i <= REACH; i++) {
        const FamilyModel *m = study_size(&p->y, edge + i * step);
        const LedgerCell *c = m ? find_left_out(p, m, budget) : NULL;
        more += c && first;
        if (c && !first) first = c;
    }
    const char *side = step < 0 ? "below" : "above";
    char others[48] = "";
    if (!first) {
        snprintf(out, room, "the family has no size further %s", side);
        return;
    }
    if (more) snprintf(others, sizeof others, " (and %d more %s)", more, side);
    const char *end = strstr(first->cell.name, " (left out)");
    int length = (int)(end ? end - first->cell.name : (ptrdiff_t)strlen(first->cell.name));
    snprintf(out, room, "%.*s%s: %s", length, first->cell.name, others, first->cell.left_out);
}

static void explain(const MorePlan *p, const Edges *g, SweepBracket *b)
{
    const SweepConfig *s = p->y.s;
    bool below = b->below < BRACKET, above = b->above < BRACKET;
    size_t room = sizeof b->why;
    char side[2][sizeof b->why / 2 - 2];
    int done = g->any ? g->below + g->above + 1 : 0, lost = g->tried - done;
    if (!below && !above) return;
    explain_side(p, b->budget, g->low, -1, side[0], sizeof *side);
    explain_side(p, b->budget, g->high, 1, side[1], sizeof *side);
    if (g->waiting)
        snprintf(b->why, room, "cells are still to be run");
    else if (was_cancelled(p, b->budget))
        snprintf(b->why, room, "a cell was cancelled");
    else if (g->tried && !g->any)
        snprintf(b->why, room, "none of its %d sizes came to an end", g->tried);
    else if (!s->adaptive)
        snprintf(b->why, room, "sweep.adaptive is 0");
    else if (g->tried >= (int)(s->sizes + s->adaptive))
        snprintf(b->why, room, "the %lld sizes of sweep.sizes and sweep.adaptive are spent, %d of "
                 "them without a loss", (long long)(s->sizes + s->adaptive), lost);
    else
        snprintf(b->why, room, "%s%s%s", below ? side[0] : "", below && above ? "; " : "",
                 above ? side[1] : "");
}

int sweep_brackets(const SweepConfig *s, const CellInspector *i, const LedgerCell *have, int n,
                   SweepBracket *out, int *count, Err *e)
{
    MorePlan p = {.have = have, .n = n};
    *count = 0;
    if (study_open(&p.y, s, i, e)) return -1;
    for (int v = 0; v < variants(s); v++)
        for (int j = 0; j < s->n_budgets; j++) {
            p.variant = variant_at(s, v);
            Edges g = find_edges(&p, s->budget[j]);
            SweepBracket *b = &out[(*count)++];
            *b = (SweepBracket){.budget = s->budget[j], .any = g.any,
                                .variant = p.variant ? p.variant->name : NULL,
                                .below = g.any ? g.below : 0, .above = g.any ? g.above : 0};
            explain(&p, &g, b);
        }
    study_close(&p.y);
    return 0;
}
