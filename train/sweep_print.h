/* train/sweep_print.h - a sweep's cells as a table for people and as JSON. */
#ifndef ISOMOE_TRAIN_SWEEP_PRINT_H
#define ISOMOE_TRAIN_SWEEP_PRINT_H

#include <stdio.h>

#include "scaling/cells.h"
#include "scaling/sweep_config.h"

/* held_out: the check behind the fit, or NULL; whose N it has: "the prior's N". */
void sweep_print(const SweepConfig *s, const CellList *l, const Cell *held_out, const char *whose,
                 FILE *out);

/* Warns of budgets whose sizes cannot bracket the least loss: what can be run of them all lies on
 * one side of the prior's N, or nothing can. */
void sweep_warn(const SweepConfig *s, const CellList *l);

/* New reference; NULL: out of memory. */
struct json_t *sweep_json(const SweepConfig *s, const CellList *l, const Cell *held_out);

/* "2 h 05 min", "31 s"; "-" of NaN. Returns out. */
enum { SWEEP_TIME = 32 };
const char *sweep_time(char out[SWEEP_TIME], double seconds);

#endif
