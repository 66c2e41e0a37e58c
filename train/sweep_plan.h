/* train/sweep_plan.h - what scaling/cells.h asks of the program: a cell's configuration as
 * `isomoe train` and `isomoe plan` read it; and what a step of it takes on this machine. */
#ifndef ISOMOE_TRAIN_SWEEP_PLAN_H
#define ISOMOE_TRAIN_SWEEP_PLAN_H

#include "scaling/cells.h"
#include "scaling/sweep_config.h"

enum { SWEEP_WORDS = 160 };

/* Overrides, one a line, as words; `text` is cut up. Returns how many, or -1: more than
 * SWEEP_WORDS. */
int sweep_words(char *text, const char **words);

/* self: the path of the base configuration. */
CellInspector sweep_inspector(const char *base);

/* Opens the data that the cells train on and are judged by, once for each variant: what is missing
 * is an error before a cell fails for it. */
int sweep_data(const SweepConfig *s, const CellList *l, Err *e);

/* Fills `seconds` of the cells whose times FOLDER/measured.json keeps; runs and makes nothing. */
int sweep_times_kept(const SweepConfig *s, CellList *l, Err *e);

/* Fills `seconds` of every cell that is run: ten steps of each size and batch are trained by
 * `program` below `folder`, one after the other with `cores` threads, and what comes beside the
 * steps (start, held-out loss, checkpoint) is measured too. Measurements of the same configuration
 * by the same code on the same machine are kept in FOLDER/measured.json and not made again. */
int sweep_measure(const SweepConfig *s, const char *program, CellList *l, Err *e);

#endif
