/* tests/sweep_cells.h - a small study for the tests of sweeps: its file, its cells. */
#ifndef ISOMOE_TESTS_SWEEP_CELLS_H
#define ISOMOE_TESTS_SWEEP_CELLS_H

#include "tests/train_help.h"

#include "train/sweep_plan.h"

#define SWEEP_FAMILY                                                                               \
    "family: {width_step: 4, width_min: 16, width_max: 256, aspect: 24, aspect_slack: 2,\n"        \
    "  head_dim: 4, query_group: 2, expert_ratio: 0.5, shared_ratio: 0.5, ffn_step: 8}\n"
#define SWEEP_LAWS                                                                                 \
    "centre: {prior: ratio, tokens_per_param: 10}\n"                                               \
    "rate: {law: constant, value: 0.003}\n"                                                        \
    "batch: {law: constant, value: 512}\n"
#define SWEEP_GOOD                                                                                 \
    "sweep: {name: test, out: runs/sweep-test, base: configs/runs/tiny.yaml,\n"                    \
    "  budgets: '2e11, 5e11, 1.2e12', sizes: 3, spacing: 1.4, adaptive: 4, cooldown: 0.2,\n"       \
    "  warmup: 0.05}\n" SWEEP_FAMILY SWEEP_LAWS

enum { SWEEP_OVERRIDES = 12 };

/* SWEEP_GOOD with overrides (ends with NULL). */
__attribute__((unused)) static void read_sweep(SweepConfig *s, const char *const *overrides)
{
    Err e = {0};
    int n = 0;
    while (overrides && n < SWEEP_OVERRIDES && overrides[n]) n++;
    write_file(at("sweep.yaml"), SWEEP_GOOD);
    if (sweep_config_read(s, at("sweep.yaml"), overrides, n, &e)) fail_msg("%s", e.message);
}

__attribute__((unused)) static void plan_cells(const SweepConfig *s, CellList *l)
{
    Err e = {0};
    SweepSource source = {.base = s->base};
    CellInspector i = sweep_inspector(&source);
    if (sweep_cells(s, &i, l, &e)) fail_msg("%s", e.message);
}

#define CELLS(s, l, ...)                                                                           \
    do {                                                                                           \
        read_sweep(s, (const char *const[]){__VA_ARGS__, NULL});                                   \
        plan_cells(s, l);                                                                          \
    } while (0)

__attribute__((unused)) static const Cell *cell_by_id(const CellList *l, const char *id)
{
    for (int i = 0; i < l->count; i++)
        if (!strcmp(l->cell[i].id, id)) return &l->cell[i];
    return NULL;
}

__attribute__((unused)) static const Cell *cell_by_name(const CellList *l, const char *name)
{
    for (int i = 0; i < l->count; i++)
        if (!strcmp(l->cell[i].name, name)) return &l->cell[i];
    return NULL;
}

#endif
