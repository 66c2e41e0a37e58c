/* train/checkpoint.h - checkpoints: a folder a step, <run>/checkpoints/step-000000123/ with
 * rank-0000.h5 (tensors under global names with global shape and offset) and manifest.json, which
 * is renamed in last: only a folder with a valid manifest is a checkpoint. The folder itself is
 * made under a temporary name (step-000000123.tmp.<pid>) and renamed when it is complete and on
 * disk.
 *
 * Nothing is believed when read: the manifest carries its own checksum, the file's size and
 * checksum, and every tensor's; names, shapes and types must be those of the model. A folder
 * without a manifest is passed over with a warning; one with a damaged manifest or file is an
 * error, never a silent step back to an older checkpoint. */
#ifndef ISOMOE_TRAIN_CHECKPOINT_H
#define ISOMOE_TRAIN_CHECKPOINT_H

#include "optim/optim.h"
#include "train/run_config.h"

typedef struct TrainState { /* everything but tensors that a run needs to go on bit-exactly */
    int64_t step;           /* steps done */
    int64_t updates;        /* optimizer updates made (steps not skipped) */
    int64_t sequence;       /* data position: sequences consumed */
    int64_t stage;          /* number of the stage in which the last step was made */
    LoaderSegment segment;  /* of the data, in force */
    int64_t reweighted;     /* step of the last change of dynamic weights; 0: none */
    int64_t steps_total;    /* the run's length in force (train.minutes may have cut it) */
    double tokens;          /* tokens trained on */
    double flops;           /* model FLOPs spent */
    double seconds;         /* wall time spent training */
    double loss_ema;        /* smoothed training loss of the progress line */
    uint64_t run_id;        /* hash of the first resolved configuration and of the data */
    uint64_t tokenizer_hash, data_hash, val_hash; /* what was trained on; 0: unknown */
    uint64_t from_run;      /* run_id of the run that this one branched from; 0: none */
    int64_t from_step;      /* the step it did so at */
    uint64_t replay_run;    /* run_id of the run whose routing record it replays; 0: none */
    char variant[128];       /* the device's variant, on which bits depend; set by save */
} TrainState;

/* Writes masters, moments and state, then removes all but the newest keep_checkpoints (nothing that
 * is no checkpoint, and never the one just written). e names the file on failure; an older
 * checkpoint is never touched before the new one is complete. */
int checkpoint_save(const char *run_folder, Model *m, Optimizer *o, const RunConfig *c,
                    const TrainState *s, Err *e);

/* Reads the manifest only: the resolved config of the run (c) and its state (s); either may be
 * NULL. `path`: a checkpoint folder, or a run folder (then the newest valid checkpoint; none is an
 * error). found (IO_PATH_MAX bytes) receives the folder. */
int checkpoint_open(const char *path, RunConfig *c, TrainState *s, char *found, Err *e);

/* Fills model (and optimizer unless NULL) from the folder; every tensor accounted for, none unread,
 * none unwritten; checksums verified. */
int checkpoint_load(const char *folder, Model *m, Optimizer *o, Err *e);

/* Newest checkpoint of a run folder into found (IO_PATH_MAX bytes); 0 and an empty string when
 * there is none. */
int checkpoint_newest(const char *run_folder, char *found, Err *e);

#endif
