/* train/checkpoint.h - checkpoints: a folder a step, <run>/checkpoints/step-000000123/ with
 * rank-0000.h5 (tensors under global names with global shape and offset) and manifest.json, which is
 * renamed in last: only a folder with a valid manifest is a checkpoint. */
#ifndef ISOMOE_TRAIN_CHECKPOINT_H
#define ISOMOE_TRAIN_CHECKPOINT_H

#include "optim/optim.h"
#include "train/run_config.h"

typedef struct TrainState { /* everything but tensors that a run needs to go on bit-exactly */
    int64_t step;           /* steps done */
    int64_t updates;        /* optimizer updates made (steps not skipped) */
    int64_t sequence;       /* data position: sequences consumed */
    int64_t steps_total;    /* the run's length in force (train.minutes may have cut it) */
    double tokens;          /* tokens trained on */
    double flops;           /* model FLOPs spent */
    double seconds;         /* wall time spent training */
    double loss_ema;        /* smoothed training loss of the progress line */
} TrainState;

/* Writes masters, moments and state. e names the file on failure; an older checkpoint is never
 * touched before the new one is complete. */
int checkpoint_save(const char *run_folder, Model *m, Optimizer *o, const RunConfig *c,
                    const TrainState *s, Err *e);

/* Reads the manifest only: the resolved config of the run. `path`: a checkpoint folder, or a run
 * folder (then the newest valid checkpoint). found (IO_PATH_MAX bytes) receives the folder. */
int checkpoint_open(const char *path, RunConfig *c, TrainState *s, char *found, Err *e);

/* Fills model (and optimizer unless NULL) from the folder; every tensor accounted for, none unread,
 * none unwritten; checksums verified. */
int checkpoint_load(const char *folder, Model *m, Optimizer *o, Err *e);

/* Newest valid checkpoint of a run folder into found; 0 and an empty string when there is none. */
int checkpoint_newest(const char *run_folder, char *found, Err *e);

#endif
