/* train/sweep_plan.h - what scaling/cells.h asks of the program: a cell's configuration as
 * `isomoe train` and `isomoe plan` read it; and what a step of it takes on this machine. */
#ifndef ISOMOE_TRAIN_SWEEP_PLAN_H
#define ISOMOE_TRAIN_SWEEP_PLAN_H

#include "base/io.h"
#include "scaling/cells.h"
#include "scaling/sweep_config.h"

enum { SWEEP_WORDS = 160 };

/* Overrides, one a line, as words; `text` is cut up. Returns how many, or -1: more than
 * SWEEP_WORDS. */
int sweep_words(char *text, const char **words);

enum { SWEEP_CONTENTS = 64, SWEEP_SPLIT = 8 };

typedef struct SweepContent { /* of a path that cells train on or are judged by */
    char path[IO_PATH_MAX], split[SWEEP_SPLIT];
    uint64_t hash; /* of tokenizer and tokens; 0: cannot be read here */
} SweepContent;

typedef struct SweepSource { /* {base}: what cells are made from; the rest is found on the way */
    const char *base;        /* path of the base configuration */
    SweepContent content[SWEEP_CONTENTS];
    int contents;
} SweepSource;

/* *source outlives it, and learns what the configurations' data hold. */
CellInspector sweep_inspector(SweepSource *source);

/* Opens the data that the cells train on and are judged by, once for each variant: what is missing
 * is an error before a cell fails for it. have (n): the study's record; where the record of one of
 * its runs says that it trained on other data, that is an error too. */
int sweep_data(const SweepConfig *s, const CellList *l, const LedgerCell *have, int n, Err *e);

/* Fills `seconds` of the cells whose times FOLDER/measured.json keeps; runs and makes nothing. */
int sweep_times_kept(const SweepConfig *s, CellList *l, Err *e);

/* Fills `seconds` of every cell that is run: ten steps of each size and batch are trained by
 * `program` below `folder`, one after the other with `cores` threads, and what comes beside the
 * steps (start, held-out loss, checkpoint) is measured too. Measurements of the same configuration
 * by the same code on the same machine are kept in FOLDER/measured.json and not made again. */
int sweep_measure(const SweepConfig *s, const char *program, CellList *l, Err *e);

/* Is that little work: under a twentieth of the study's FLOPs, and no study for GPUs? */
#define SWEEP_MEASURE_SHARE 0.05
#define SWEEP_MEASURE_FLOPS 5e12 /* one or two minutes of two cores */
bool sweep_measure_is_short(const CellList *l);

#endif
