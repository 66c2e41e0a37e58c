/* scaling/driver.h - runs the cells of a sweep until nothing is left. Folders:
 *
 *   SWEEP/ledger.sqlite         (scaling/ledger.h)
 *   SWEEP/base.yaml             the configuration that every cell's overrides are applied to
 *   SWEEP/cells/ID/             a cell's run folder: train.out is set by the driver, train.from is
 *                               the parent's
 *   SWEEP/cells/ID.lock         held while a trainer of the cell lives, whoever started it
 *   SWEEP/cells/ID.out          what its trainers printed
 *   SWEEP/cells/ID.diverged-N/  a diverged try, moved aside
 *
 * A trainer that hangs is ended: one whose time of cells/ID/lock (train/run_folder.h), record and
 * output have stood still for longer than time_limit.
 *
 * A driver may die at any moment. Its trainers get SIGTERM then, write a checkpoint and end; the
 * cell's lock keeps a second trainer away until they have. */
#ifndef ISOMOE_SCALING_DRIVER_H
#define ISOMOE_SCALING_DRIVER_H

#include "scaling/launch.h"
#include "scaling/ledger.h"

typedef enum DriverEnd {
    DRIVER_ERROR = -1, /* e is filled: the ledger could not be written, a callback failed */
    DRIVER_DONE,       /* no cell is left to run; some may have failed: ledger_counts */
    DRIVER_STOPPED     /* by SIGINT or SIGTERM: cells are planned again, checkpoints written */
} DriverEnd;

typedef struct DriverOptions {
    const char *folder;      /* SWEEP; of the ledger that is given too */
    const char *program;     /* isomoe */
    const LaunchMode *mode;  /* NULL: local */
    const char *start;       /* in place of mode->start, or NULL */
    int jobs;                /* at a time; 0: as many as cores / threads */
    int threads;             /* of a trainer; 0: cores / jobs */
    int ranks;               /* {ranks} of mode->start; 0: 1 */
    LedgerTries tries;       /* {0}: 3, 1, 0.5 */
    double grace;            /* seconds from SIGTERM to SIGKILL; 0: 60 */
    double time_limit;       /* seconds a trainer may take without a sign of progress, and never
                                less than 20 times a step; 0: 600, below 0: any */
} DriverOptions;

enum { DRIVER_SHOWN = 4 };

typedef struct DriverProgress {
    int counts[CELL_STATES];
    int mine;                       /* trainers of this driver */
    char names[DRIVER_SHOWN][CELL_NAME]; /* of the first of them */
    double flops_done, flops_left;  /* own_flops of the cells */
    double rate;                    /* FLOP/s of all trainers together; NaN: not measured yet */
    double elapsed, eta;            /* seconds; eta NaN: not known */
    const char *event;              /* "C2.5e12-d128: done, loss 3.1415", or NULL: only time */
} DriverProgress;

/* Any of them may be NULL. */
typedef struct DriverCalls {
    void *self;
    /* Everything planned has ended: adds cells to `more` (empty) if the study asks for some. */
    int (*more)(void *self, const LedgerCell *have, int n, CellList *more, Err *e);
    /* About once a second, and with every event. */
    void (*progress)(void *self, const DriverProgress *p);
} DriverCalls;

/* SIGINT, SIGTERM and SIGCHLD are the driver's while it runs; handlers stand again afterwards. The
 * first SIGINT or SIGTERM is handed on to the trainers, the second kills them. */
DriverEnd driver_run(Ledger *l, const DriverOptions *o, const DriverCalls *calls, Err *e);

/* "12 of 30 done, 2 running, 1 failed; 41 %, 3.2 GFLOP/s, 12 min left: NAME, NAME" */
void driver_progress_line(const DriverProgress *p, char *out, size_t size);

#endif
