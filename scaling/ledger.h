/* scaling/ledger.h - the record of a sweep: one SQLite file, written by drivers alone. A cell's
 * trainer writes its result file atomically and a driver takes it in, so that a driver may die at
 * any moment: nothing is lost and nothing finished twice.
 *
 * States: planned -> running -> done | diverged | failed | preempted; preempted and failed ones go
 * back to planned while they have tries left; a diverged one is tried once more at a lower rate.
 * A driver holds a running cell by a lease. The lease of a driver that no longer lives (by boot,
 * process and its start; from another PID namespace by a heartbeat that has stopped) is taken back,
 * that of a living one never. Two drivers on one host share the work; one on another host is
 * refused (SQLite's locks do not hold on network file systems).
 *
 * Every change is one transaction and leaves a row in the event log (docs/FORMATS.md). Any call
 * that takes an Err may fail with: a full disk, a locked, damaged or foreign file; the ledger then
 * is as it was before the call. */
#ifndef ISOMOE_SCALING_LEDGER_H
#define ISOMOE_SCALING_LEDGER_H

#include "scaling/rates.h"
#include "scaling/runs.h"
#include "scaling/sweep.h"

typedef enum CellState {
    STATE_PLANNED, STATE_RUNNING, STATE_DONE, STATE_DIVERGED, STATE_FAILED, STATE_PREEMPTED,
    STATE_CANCELLED, CELL_STATES
} CellState;

enum { CELL_REASON = 512 };

typedef struct CellResult { /* what a trainer's result.json says */
    double loss;            /* held out, nats a token, dropless */
    double train_loss, tokens, flops, seconds, b_noise; /* NaN: not known */
    int64_t steps;
} CellResult;

typedef struct LedgerCell { /* a cell as the ledger holds it */
    Cell cell;
    CellState state;
    int tries;              /* that ended by themselves; a driver's death or stop is none */
    double lr_factor;       /* of the try in force: 1, lower after a divergence */
    CellResult result;      /* of a done one; loss NaN else */
    char reason[CELL_REASON]; /* of failed, diverged, preempted, cancelled; of the try before */
    double started, ended;  /* Unix seconds; 0: not yet */
} LedgerCell;

typedef struct Ledger Ledger;

const char *cell_state_name(CellState s);

/* The sweep's folder that a path given by a person means, without slashes at its end: out (room
 * bytes). Of a file named ledger.sqlite it is the file's folder; any other path is itself. Err: an
 * SQLite file of another name, too long a path. */
int ledger_folder(const char *path, char *out, size_t room, Err *e);

/* Opens or makes FOLDER/ledger.sqlite. read_only: for status, fit and report while drivers work;
 * needs no lock. Err: no such folder, no permission, a locked or foreign file, a disk that is full,
 * another host's ledger, another version. */
Ledger *ledger_open(const char *folder, bool read_only, Err *e);
void ledger_close(Ledger **l);

/* All cells, in the order in which they were added. *out (count) is the caller's to free. */
int ledger_cells(Ledger *l, LedgerCell **out, int *count, Err *e);

/* Done points (CELL_POINT) as a table of runs; checks too if with_checks. */
int ledger_runs(Ledger *l, bool with_checks, RunTable *out, Err *e);

/* Done points and checks, for laws of rate and batch. merge: runs of variants that
 * override optim.lr and train.batch alone are named as those without a variant: their model is the
 * base's. */
int ledger_rate_runs(Ledger *l, bool merge, RunTable *out, Err *e);

/* Number of cells in each state. */
int ledger_counts(Ledger *l, int counts[CELL_STATES], Err *e);

/* Adds cells as planned, those left out as cancelled; all or none. A cell whose id is there is
 * passed over; *added (or NULL): how many were new. Err: a name twice, a parent that is neither in
 * the ledger nor earlier in the list. */
int ledger_add(Ledger *l, const CellList *cells, int *added, Err *e);

/* The same for cells that a study asks for by itself; none where the whole sweep was cancelled. */
int ledger_extend(Ledger *l, const CellList *cells, int *added, Err *e);

/* *cancelled: `sweep cancel` was asked for all cells, and no `sweep retry` for all since. */
int ledger_is_cancelled(Ledger *l, bool *cancelled, Err *e);

/* A text kept beside the cells (hash of the study, its file name). get: *out is the caller's to
 * free, NULL if there is none. */
int ledger_note_set(Ledger *l, const char *key, const char *value, Err *e);
int ledger_note_get(Ledger *l, const char *key, char **out, Err *e);

/* The law of B_crit(L) that C_min is told by: kept by the sweep; b_star 0: none is. */
int ledger_critical_set(Ledger *l, const CriticalBatch *law, Err *e);
int ledger_critical_get(Ledger *l, CriticalBatch *law, Err *e);

/* C_min = C / (1 + B / B_crit(L)) of a finished cell, at the held-out loss that it measured. B_crit
 * by the law; without one it is the B_noise that the run measured; NaN: neither, or not done. */
double ledger_c_min(const LedgerCell *c, const CriticalBatch *law);

/* failed, diverged and cancelled cells -> planned, with all their tries; a diverged one at half of
 * its last rate. which: an id or a name, or NULL for all of them, which ends what a cancelling of
 * all forbade; parents that stand in its way are
 * taken along. A cell that was left out stays. *changed: how many. Err: no such cell. */
int ledger_retry(Ledger *l, const char *which, int *changed, Err *e);

/* planned cells -> cancelled, with what starts from them; a running one is asked to stop and is
 * cancelled by its driver. which, *changed: as above; NULL: nothing is added by ledger_extend until
 * a retry of all. */
int ledger_cancel(Ledger *l, const char *which, int *changed, Err *e);

/* ---- For drivers ------------------------------------------------------------------------------*/

typedef struct LedgerTries {
    int most;           /* tries of a cell that fails or is preempted; >= 1 */
    int diverged;       /* further tries of a diverged one: 1 */
    double lower;       /* factor of the rate of each of them: 0.5 */
} LedgerTries;

/* Makes this process a driver that uses `cores` cores. *first: the lowest core behind which so
 * many are no other living driver's. Calls below are a driver's. */
int ledger_join(Ledger *l, int cores, int *first, Err *e);

/* Ends it: cells that it still holds are planned again. */
int ledger_leave(Ledger *l, Err *e);

/* Renews the heartbeat; takes back what drivers hold that no longer live (*reclaimed, or NULL). Err
 * too, as of ledger_take: others took this driver for dead and its cells back. */
int ledger_beat(Ledger *l, int *reclaimed, Err *e);

/* The next planned cell whose parent is done, as running, ours. *found false: none now.
 * *parent_factor: the rate factor under which its parent was done (1 without a parent). Where it is
 * out's, the cell starts from its parent, else alone. */
int ledger_take(Ledger *l, LedgerCell *out, double *parent_factor, bool *found, Err *e);

/* A cell of ours is done, by a run at lr_factor of its rate (0: that of the try in force). Err too:
 * it is not ours and running (nothing is taken in twice). */
int ledger_finish(Ledger *l, const char *id, double lr_factor, const CellResult *result, Err *e);

/* A try of a cell of ours ended as diverged, failed, preempted or cancelled; *now: the state that
 * follows by `tries`; cancelled where that was asked for. What starts from a cell that is given up
 * is given up with it. */
int ledger_end_try(Ledger *l, const char *id, CellState how, const char *reason,
                   const LedgerTries *tries, CellState *now, Err *e);

/* Hands a cell of ours back as planned, cancelled where that was asked for; no try. */
int ledger_hand_back(Ledger *l, const char *id, const char *reason, Err *e);

/* Ids of our running cells that are asked to stop: (CELL id[17]) * count, the caller's to free. */
int ledger_requests(Ledger *l, char (**ids)[17], int *count, Err *e);

#endif
