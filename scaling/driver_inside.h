/* scaling/driver_inside.h - what the driver's files share. */
#ifndef ISOMOE_SCALING_DRIVER_INSIDE_H
#define ISOMOE_SCALING_DRIVER_INSIDE_H

#include <signal.h>

#include "scaling/driver.h"

enum { WATCHED = 3 };

typedef struct Watch { /* of a trainer: driver_watch.c */
    int64_t mark[WATCHED]; /* of its files, as last seen */
    bool begun;            /* one of the run's own changed since the start */
    double looked;         /* log_seconds */
    double quiet, longest; /* seconds since the last sign; between any two */
} Watch;

typedef struct Slot {
    LedgerCell cell;      /* id empty: free */
    double parent_factor; /* rate factor of the run it starts from */
    pid_t pid;            /* of the trainer; 0: none yet */
    int lock;             /* of the cell, until the trainer has it; -1 */
    off_t output_from;    /* where this try's output begins */
    double asked;         /* log_seconds at which it got SIGTERM; 0: not */
    bool cancel, waiting; /* asked to be cancelled; waiting for the lock */
    bool killed;          /* it got its last signal */
    bool hung;            /* got SIGTERM since it made no progress; why says so */
    char why[160];
    Watch watch;
} Slot;

typedef struct DriverSignals { /* and what stood before */
    sigset_t child, before;
    struct sigaction old_int, old_term, old_child;
} DriverSignals;

typedef struct Driver {
    Ledger *l;
    DriverOptions o;      /* settled: nothing is 0 any more */
    LaunchMode mode;
    const DriverCalls *calls;
    Slot *slot;           /* (jobs), owned */
    int jobs, threads;
    int first_core;       /* of slot 0, among those that may be used */
    int stopping;         /* signals to stop so far */
    int idle;             /* rounds in which cells were planned and none could run */
    double began, beat, request, shown, watched; /* log_seconds */
    DriverSignals signals;
    int heard;            /* of the signals to stop */
    Err *e, *caller_e;
} Driver;

/* Options with their defaults, folders, slots; not the ledger. */
int driver_settle(Driver *d, const DriverOptions *o);

/* SWEEP/cells/ID and a suffix. */
int driver_path(Driver *d, const char *id, const char *suffix, char out[IO_PATH_MAX]);

/* Starts the trainer of the slot's cell, whose lock the slot holds. */
int driver_launch(Driver *d, Slot *s);

/* Runs the mode's commands that end the slot's job, or the one that kills it. */
void driver_stop_command(Driver *d, Slot *s, bool kills);

/* The slot's trainer is about to start: what lies in its folder is no sign of it. */
void driver_watch(Driver *d, Slot *s);

/* Looks for signs of progress of the slot's trainer. True, once and with why filled: there has been
 * none for longer than it may take. */
bool driver_hangs(Driver *d, Slot *s);

/* Calls progress; event may be NULL. */
void driver_show(Driver *d, const char *event);

#endif
