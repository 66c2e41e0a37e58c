/* optim/moments.h - which update each parameter gets, and where its moments lie: one array of first
 * moments (of AdamW, or Muon's momentum) for all rows, one of second moments for AdamW's rows only,
 * each row at a multiple of 64 elements; and the memory that Muon works in. Used by optim.c. */
#ifndef ISOMOE_OPTIM_MOMENTS_H
#define ISOMOE_OPTIM_MOMENTS_H

#include "optim/optim.h"

typedef struct RowMoments {
    bool muon;
    int64_t n, A, B;         /* muon: n matrices (A, B) */
    int64_t m_first, v_first; /* elements; v_first -1: no second moment */
    Tensor m, v;             /* views in the row's shape, once bound */
} RowMoments;

typedef struct Moments {
    const ParamTable *table; /* borrowed */
    RowMoments *row;         /* (table->count) owned */
    DType type;
    int64_t m_elements, v_elements, work_elements;
    Tensor m, v;             /* flat; v of at least one row: norms are always AdamW's */
    Tensor work;             /* f32, or none without Muon */
} Moments;

/* Decides everything but addresses. The table must outlive it. */
int moments_make(Moments *s, const ParamTable *table, const OptimConfig *c, Err *e);

/* Reserves the arrays in the plan and binds all views at `base` + their offsets. */
void moments_layout(Moments *s, ArenaPlan *plan, char *base);

void moments_free(Moments *s);

#endif
