/* scaling/cell_build.h - one cell of a study from what is wanted of it: its configuration, exact
 * numbers, and why it is left out. Used by cells.c and cells_more.c. */
#ifndef ISOMOE_SCALING_CELL_BUILD_H
#define ISOMOE_SCALING_CELL_BUILD_H

#include "scaling/cells.h"
#include "scaling/family.h"

#define CELL_DEVIATION 0.005 /* largest |C / budget - 1| */

typedef struct Study {
    const SweepConfig *s;
    const CellInspector *i;
    CellFacts base;  /* the base configuration as it stands */
    Family family;
    double N_middle; /* size number 0: the prior's N at the middle of the budgets */
} Study;

int study_open(Study *y, const SweepConfig *s, const CellInspector *i, Err *e);
void study_close(Study *y);

/* Size number k of the study, N_middle spacing^k: the family's model, or NULL where none lies
 * within half a spacing. Sizes are the same for all budgets, so that trunks can be shared. */
const FamilyModel *study_size(const Study *y, int k);
double study_size_wanted(const Study *y, int k);

/* Numbers of the sizes of a budget's first plan: low .. low + s->sizes - 1; returns the middle. */
int study_sizes(const Study *y, double budget, int *low);

typedef struct CellSetting { /* what all cells of a size have in common */
    double lr;
    int64_t batch;       /* sequences */
    int64_t warmup;      /* steps */
    double batch_wanted; /* tokens that the law asked for */
} CellSetting;

/* Laws at the geometric middle of the least and the largest of the size's D; D of a budget:
 * study_tokens. */
CellSetting study_setting(const Study *y, const FamilyModel *m, double D_low, double D_high);
double study_tokens(const Study *y, const FamilyModel *m, double budget);

/* The same rate at the legal batch nearest to `factor` times the law's. */
CellSetting study_at_batch(const Study *y, CellSetting set, double factor);

typedef struct CellWish {
    CellKind kind;
    const FamilyModel *m;
    CellSetting set;
    const SweepVariant *variant; /* NULL: none */
    int64_t seed;
    double budget;               /* of a trunk: 0 */
    int64_t steps;               /* of a trunk: where it ends */
    double rate_factor;          /* on set.lr; 1 but for checks */
    bool alone;                  /* a point beside its size's trunk: on laws of its own */
    double batch_factor;         /* set is of this factor on the law's batch; 1 but for checks */
} CellWish;

/* Fills *c, without parent. A configuration that is refused, or a limit: c->left_out. Err: the
 * overrides do not fit into a cell. */
int cell_build(const Study *y, const CellWish *w, Cell *c, Err *e);

/* What laws of mixtures read of a model (sweep.h has the definitions). */
void cell_experts(const ModelConfig *m, Cell *c);

/* c goes on from the end of `parent`. */
void cell_adopt(Cell *c, const Cell *parent);

/* The step behind which the rate of a run of so many steps falls. */
int64_t cell_fall(const Study *y, int64_t steps);

/* The name that cell_build gives; `out` has CELL_NAME bytes. */
void cell_name(char *out, const CellWish *w);

/* Why a run of m with D tokens is not made; "" where it may be. `out`: 256 bytes. */
void cell_limit(const Study *y, const FamilyModel *m, double D, char *out);

/* A size at a budget for which the family has no model: a cell that is left out. */
void cell_missing(const Study *y, double budget, int k, Cell *c);

#endif
