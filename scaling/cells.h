/* scaling/cells.h - from a study's description to its cells. Nothing runs here. */
#ifndef ISOMOE_SCALING_CELLS_H
#define ISOMOE_SCALING_CELLS_H

#include "scaling/ledger.h"

typedef struct SweepConfig SweepConfig; /* scaling/sweep_config.h */

typedef struct CellFacts { /* of a base configuration with a cell's overrides */
    ModelConfig model;
    int64_t seq_len, batch, steps;
    int64_t warmup;        /* steps */
    double lr;             /* peak */
    int64_t memory;        /* bytes of all arenas, by plan */
    int64_t disk;          /* bytes of a checkpoint: weights and the optimizer's state */
    uint64_t hash;         /* of the resolved configuration, without what changes no result */
} CellFacts;

/* What the program knows and this folder does not: how a run's configuration is read and checked,
 * and what memory it needs. Filled by train/cmd_sweep.c; nothing runs. */
typedef struct CellInspector {
    int (*inspect)(void *self, const char *overrides, CellFacts *out, Err *e);
    void *self;
} CellInspector;

/* The cells of the study's first plan, those left out too (left_out says why): trunks before what
 * starts from them, budgets rising. Every C within 0.5 % of its budget, or left out. Err: the base
 * configuration is wrong, or no model of the family exists. */
int sweep_cells(const SweepConfig *s, const CellInspector *i, CellList *out, Err *e);

/* The same for a sweep that was begun: cells that stand in its record `have` (n) keep their ids and
 * parents there, whatever the plan left out then. */
int sweep_cells_of(const SweepConfig *s, const CellInspector *i, const LedgerCell *have, int n,
                   CellList *out, Err *e);

/* The same run may stand in the record `have` (n) under another id: of a plan that had other pieces
 * of its trunk or left it out, or of a program whose ids did not cover the data's content. Then *c
 * becomes that cell. */
void cell_be_recorded(Cell *c, const LedgerCell *have, int n);

/* What is to be added now that `have` (n) ended so: sizes at the edges of budgets whose least loss
 * is not yet bracketed by two on each side, within the study's limit; nothing when all is done, and
 * nothing at a budget that still has cells to run, or in which one was cancelled. */
int sweep_more(const SweepConfig *s, const CellInspector *i, const LedgerCell *have, int n,
               CellList *more, Err *e);

typedef struct SweepBracket { /* of a budget, and of a variant */
    double budget;
    const char *variant; /* of the configuration; NULL: none */
    int below, above;    /* finished sizes below and above the one of least loss */
    bool any;            /* one is finished at all */
} SweepBracket;

/* How far each least loss is bracketed; out: SWEEP_BUDGETS SWEEP_VARIANTS of them, *count filled.
 */
int sweep_brackets(const SweepConfig *s, const CellInspector *i, const LedgerCell *have, int n,
                   SweepBracket *out, int *count, Err *e);

/* The check at sweep.held_out times the largest budget, trained alone: the family's model nearest
 * to N activated parameters with embedding and head, as a ledger's runs are fitted; 0: to the
 * prior's optimum. */
int sweep_held_out(const SweepConfig *s, const CellInspector *i, double N, CellList *more, Err *e);

typedef struct CellLoss { /* what a fit predicts for a run of c's N, N_total, D and experts */
    double (*loss)(void *self, const Cell *c);
    void *self;
} CellLoss;

/* The same at the best model of the family: that of the least loss at the D which the budget buys
 * it, by its exact count. */
int sweep_held_out_best(const SweepConfig *s, const CellInspector *i, const CellLoss *law,
                        CellList *more, Err *e);

typedef struct SweepTotals {
    int points, trunks, checks, left_out;
    double flops;       /* that all cells train together */
    double alone;       /* the same when every point is trained alone */
    double seconds;     /* one after the other; NaN: a cell is not measured */
    double disk;        /* bytes: the last checkpoint of every cell */
    int64_t memory;     /* of the largest cell */
} SweepTotals;

SweepTotals sweep_totals(const CellList *l);

#endif
