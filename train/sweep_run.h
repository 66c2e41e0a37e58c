/* train/sweep_run.h - a sweep's folder: running what is planned, and what is asked of it later. */
#ifndef ISOMOE_TRAIN_SWEEP_RUN_H
#define ISOMOE_TRAIN_SWEEP_RUN_H

#include "scaling/launch.h"
#include "train/sweep_plan.h"

typedef struct SweepRecord { /* of a sweep that was begun; {0}: of one that was not */
    LedgerCell *have; /* (n), owned */
    int n;
} SweepRecord;

/* What stands in the ledger of the folder, if there is one. */
int sweep_record_read(SweepRecord *out, const char *folder, Err *e);

typedef struct SweepRun {
    const SweepConfig *s;
    const SweepSource *source; /* that the cells were made from */
    const SweepRecord *record;
    const CellInspector *inspector;
    const LaunchMode *mode;
    bool adapt;   /* sizes are added until least losses are bracketed; false: a check alone */
    const char *note; /* kept in the ledger under this key and with this text before anything */
    const char *note_text; /* runs; NULL: nothing */
    bool ended;   /* out: the last sweep_run left nothing to run, and a point is done */
} SweepRun;

/* Adds the cells to the ledger of s->out, where they are not yet, and runs what is left there.
 * Returns an ExitCode: EXIT_DIVERGED where all points diverged, EXIT_FAILED where a cell failed or
 * no point is done; where no cell can be run, without making the folder. */
int sweep_run(SweepRun *r, const CellList *cells, Err *e);

/* `sweep status FOLDER`, `sweep retry|cancel FOLDER [CELL]`; which NULL: all cells. A folder
 * without a ledger is an error. Each returns an ExitCode. */
int sweep_status(const char *folder, bool json, Err *e);
int sweep_retry(const char *folder, const char *which, Err *e);
int sweep_cancel(const char *folder, const char *which, Err *e);

/* The program that runs now; `out` has IO_PATH_MAX bytes. */
int sweep_program(char *out, Err *e);

#endif
