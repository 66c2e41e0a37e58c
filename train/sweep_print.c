/* train/sweep_print.c - see sweep_print.h. */
#include "train/sweep_print.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "train/json_out.h"
#include "train/plan.h"

static const char *const kinds[] = {"trunk", "point", "check"};

const char *sweep_time(char out[SWEEP_TIME], double seconds)
{
    if (!isfinite(seconds)) snprintf(out, SWEEP_TIME, "-");
    else if (seconds < 100) snprintf(out, SWEEP_TIME, "%.3g s", seconds);
    else if (seconds < 5990) snprintf(out, SWEEP_TIME, "%.0f min", seconds / 60);
    else snprintf(out, SWEEP_TIME, "%.0f h %02.0f min", floor(seconds / 3600),
                  floor(fmod(seconds, 3600) / 60));
    return out;
}

static void print_head(FILE *out)
{
    fprintf(out, "%-28s %9s %9s %9s %9s %7s %8s %6s %9s %5s %5s %10s %8s\n", "cell", "N act.",
            "no embed", "N total", "tokens", "C off", "steps", "batch", "rate", "x law", "x law",
            "memory", "time");
    fprintf(out, "%-28s %9s %9s %9s %9s %7s %8s %6s %9s %5s %5s %10s %8s\n", "", "", "", "", "",
            "%", "", "seq.", "", "rate", "batch", "", "");
}

static void print_cell(const Cell *c, FILE *out)
{
    char n[3][PLAN_COUNT], d[PLAN_COUNT], memory[ARENA_HUMAN], time[SWEEP_TIME], off[16] = "";
    if (c->left_out[0]) {
        fprintf(out, "%-28s left out: %s\n", c->name, c->left_out);
        return;
    }
    if (c->kind != CELL_TRUNK) snprintf(off, sizeof off, "%+.3f", 100 * (c->C / c->budget - 1));
    fprintf(out, "%-28s %9s %9s %9s %9s %7s %8lld %6lld %9.4g %5.2f %5.2f %10s %8s\n", c->name,
            plan_count(n[0], c->N), plan_count(n[1], c->N_no_embed), plan_count(n[2], c->N_total),
            plan_count(d, c->D), off, (long long)c->steps, (long long)c->batch, c->lr,
            c->lr_law_ratio, c->batch_law_ratio, arena_human(memory, c->memory),
            sweep_time(time, c->seconds));
}

static void print_totals(const SweepConfig *s, const SweepTotals *t, FILE *out)
{
    char flops[PLAN_COUNT], alone[PLAN_COUNT], all[SWEEP_TIME], side[SWEEP_TIME];
    char disk[ARENA_HUMAN];
    fprintf(out, "\n%d points, %d pieces of trunks, %d checks; %d left out\n", t->points, t->trunks,
            t->checks, t->left_out);
    fprintf(out, "%s FLOPs", plan_flops(flops, t->flops));
    if (t->trunks)
        fprintf(out, "; each alone %s: reuse saves %.1f %%", plan_flops(alone, t->alone),
                100 * (1 - t->flops / t->alone));
    fprintf(out, "; %s of checkpoints\n", arena_human(disk, (int64_t)t->disk));
    if (isfinite(t->seconds))
        fprintf(out, "%s one after the other, %s with %lld at a time\n",
                sweep_time(all, t->seconds), sweep_time(side, t->seconds / (double)s->jobs),
                (long long)s->jobs);
}

void sweep_print(const SweepConfig *s, const CellList *l, const Cell *held_out, const char *whose,
                 FILE *out)
{
    char number[PLAN_COUNT];
    double budget = -1;
    const Cell *last = l->cell + l->count;
    fprintf(out, "%s: %d budgets, %lld sizes each, base %s\n\n", s->name, s->n_budgets,
            (long long)s->sizes, s->base);
    print_head(out);
    for (int i = 0; i < l->count; i++) {
        const Cell *c = &l->cell[i], *next = c;
        while (next < last && next->kind == CELL_TRUNK) next++; /* the point that it is for */
        if (next < last && next->budget != budget) {
            budget = next->budget;
            fprintf(out, "-- %s FLOPs, prior N %s\n", plan_flops(number, budget),
                    plan_count((char[PLAN_COUNT]){0}, sweep_centre(s, budget)));
        }
        print_cell(c, out);
    }
    SweepTotals t = sweep_totals(l);
    print_totals(s, &t, out);
    if (!held_out) return;
    fprintf(out, "\nthe check at the held-out budget, at %s:\n", whose);
    print_cell(held_out, out);
}

void sweep_warn(const SweepConfig *s, const CellList *l)
{
    for (int j = 0; j < s->n_budgets; j++) {
        char flops[PLAN_COUNT], params[PLAN_COUNT];
        double centre = sweep_centre(s, s->budget[j]);
        int below = 0, above = 0, all = 0;
        for (int i = 0; i < l->count; i++) {
            const Cell *c = &l->cell[i];
            if (c->kind != CELL_POINT || c->budget != s->budget[j] || c->left_out[0]) continue;
            double N = s->centre.count == COUNT_ACTIVE ? c->N : c->N_no_embed;
            below += N < centre;
            above += N > centre;
            all++;
        }
        if (!all)
            log_warn("%s FLOPs: no size can be run", plan_flops(flops, s->budget[j]));
        else if (s->sizes > 2 && (!below || !above))
            log_warn("%s FLOPs: all sizes that can be run lie %s the prior's N %s: the least loss "
                     "may not be bracketed", plan_flops(flops, s->budget[j]),
                     below ? "below" : "above", plan_count(params, centre));
    }
}

static json_t *cell_json(const Cell *c)
{
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I}", "id", c->id, "name", c->name, "kind",
        kinds[c->kind], "parent", c->parent[0] ? json_string(c->parent) : json_null(), "budget",
        c->budget > 0 ? json_real(c->budget) : json_null(), "steps", (json_int_t)c->steps, "batch",
        (json_int_t)c->batch, "seq_len", (json_int_t)c->seq_len, "seed", (json_int_t)c->seed);
    if (!o) return NULL;
    const struct {
        const char *name;
        double value;
    } reals[] = {
        {"N", c->N}, {"N_no_embed", c->N_no_embed}, {"N_total", c->N_total}, {"D", c->D},
        {"C", c->C}, {"own_flops", c->own_flops}, {"experts", c->experts}, {"top_k", c->top_k},
        {"granularity", c->granularity}, {"sparsity", c->sparsity},
        {"deviation", c->budget > 0 ? c->C / c->budget - 1 : NAN}, {"lr", c->lr},
        {"lr_law_ratio", c->lr_law_ratio}, {"batch_law_ratio", c->batch_law_ratio},
        {"seconds", c->seconds},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        json_object_set_new(o, reals[i].name, json_out_real(reals[i].value));
    json_object_set_new(o, "memory", json_integer((json_int_t)c->memory));
    json_object_set_new(o, "disk", json_integer((json_int_t)c->disk));
    json_object_set_new(o, "overrides", json_out_text(c->overrides, strlen(c->overrides)));
    json_object_set_new(o, "left_out", c->left_out[0]
                                           ? json_out_text(c->left_out, strlen(c->left_out))
                                           : json_null());
    return o;
}

json_t *sweep_json(const SweepConfig *s, const CellList *l, const Cell *held_out)
{
    SweepTotals t = sweep_totals(l);
    json_t *cells = json_array();
    for (int i = 0; cells && i < l->count; i++)
        if (json_array_append_new(cells, cell_json(&l->cell[i]))) {
            json_decref(cells);
            cells = NULL;
        }
    return json_pack("{s:s, s:s, s:o, s:o, s:{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:o, s:f, s:I}}",
                     "name", s->name, "base", s->base, "cells", cells, "held_out",
                     held_out ? cell_json(held_out) : json_null(), "totals", "points", t.points,
                     "trunks", t.trunks, "checks", t.checks, "left_out", t.left_out, "flops",
                     t.flops, "flops_alone", t.alone, "flops_saved",
                     t.alone > 0 ? t.alone - t.flops : 0.0, "seconds", json_out_real(t.seconds),
                     "disk", t.disk, "memory", (json_int_t)t.memory);
}
