/* scaling/sweep.h - what a study is: the keys of SWEEP.yaml, and the cells that follow from it. */
#ifndef ISOMOE_SCALING_SWEEP_H
#define ISOMOE_SCALING_SWEEP_H

#include <stdbool.h>

#include "base/conf.h"
#include "model/config.h"

enum { SWEEP_BUDGETS = 32, SWEEP_VARIANTS = 32, CELL_NAME = 96, CELL_OVERRIDES = 4096 };

/* A model of the family at one size, and a run of it. The run's configuration is the base
 * configuration of the sweep with `overrides` (key=value words, one a line) applied. */
typedef enum CellKind {
    CELL_TRUNK,  /* a piece of a size's stable phase: from `parent`'s end (none: from the start) to
                    its last step, no decay; its loss is no point of the study */
    CELL_POINT,  /* a run to its end: from `parent`, the trunk's piece that ends where the decay
                    begins, or without parent alone */
    CELL_CHECK   /* a run beside the study: a held-out budget, another rate */
} CellKind;

typedef struct Cell {
    char id[17];             /* 16 hex digits: hash of everything that decides the result */
    char name[CELL_NAME];    /* "C2.5e12-d128-s1": for people; unique in a sweep */
    CellKind kind;
    char parent[17];         /* id of the cell whose last checkpoint it starts from; "": none */
    double budget;           /* FLOPs asked for; 0: a trunk */
    int64_t steps, batch, seq_len; /* batch: sequences */
    int64_t seed;
    double N, N_no_embed, N_total; /* activated with and without embedding and head; total */
    double experts, top_k;   /* specialized ones, and those of a token; dense: 1 and 1 */
    double granularity;      /* width that a token uses in a block, shared experts' too, over an
                                expert's: that of a dense block that costs the same */
    double sparsity;         /* share of the experts, shared ones too, that a token does not use */
    double D;                /* tokens of the whole run, the parent's among them */
    double C;                /* model FLOPs of the whole run, exact */
    double own_flops;        /* what this cell itself trains: C less the parent's */
    double lr, lr_law_ratio, batch_law_ratio; /* peak rate; rate and batch over what the law says
                                                 for exactly this cell */
    int64_t memory;          /* bytes by plan; 0: not asked */
    int64_t disk;            /* bytes of a checkpoint of it; 0: not asked */
    double seconds;          /* estimate on this machine; NaN: not measured */
    char overrides[CELL_OVERRIDES];
    char left_out[256];      /* why the cell is not run; "": it is */
} Cell;

typedef struct CellList {
    Cell *cell; /* owned */
    int count, room;
} CellList;

/* The variant that a cell's name ends with, "" without one; `out` has CELL_NAME bytes. */
void cell_variant(const char *name, char *out);

/* Appends a copy. */
int cell_list_add(CellList *l, const Cell *c, Err *e);
void cell_list_clear(CellList *l);

#endif
