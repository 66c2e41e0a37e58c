/* train/run.h - everything that a training run stands on: folder and lock, device, data, model,
 * optimizer, record, state; made fresh or from the newest checkpoint. Used by cmd_train.c and
 * loop.c. */
#ifndef ISOMOE_TRAIN_RUN_H
#define ISOMOE_TRAIN_RUN_H

#include "base/io.h"
#include "data/loader.h"
#include "model/count.h"
#include "train/checkpoint.h"
#include "train/gpu_memory.h"
#include "train/routing_file.h"
#include "train/runlog.h"
#include "train/stages.h"

typedef struct RunOptions {
    const char *path; /* of the configuration */
    const char *const *overrides;
    int n_overrides;
    bool fresh;       /* refuse a run folder that is not empty */
    bool must_resume; /* refuse one without a checkpoint */
} RunOptions;

typedef struct Run {
    RunConfig config;
    const char *folder; /* config.train.out */
    int lock;
    Device *device;
    Loader *train, *val;
    Loader *probe[RUN_SOURCES]; /* held-out text by source, for data.dynamic; else NULL */
    Model *model;
    Optimizer *optimizer;
    RunLog log;
    Stage stage;        /* in force; state.stage is its number */
    RoutingFile *record, *replay; /* of the router's choices; or NULL */
    TrainState state;   /* steps_total 0: not yet known (train.minutes) */
    char resumed[IO_PATH_MAX]; /* the checkpoint it goes on from; empty: none */
    char from[IO_PATH_MAX];    /* the other run's checkpoint that it branches from; empty: none */
    ParamCount params;
    int64_t memory;     /* bytes of all arenas */
    int64_t eval_sequences; /* of the stage's length: those that exist */
    int64_t eval_targets; /* of the last held-out loss */
    double val_loss;    /* the last one; NaN: none yet */
    double matrix_peak; /* FLOP/s, measured at the start */
    bool complete;      /* nothing is left to do; then only config, state and resumed are filled */
    GpuMemory beside;   /* what a GPU holds beside the arenas; zeros on the CPU */
} Run;

/* Fills *r; run_close ends it, after a failure too. */
int run_open(Run *r, const RunOptions *options, Err *e);
void run_close(Run *r);

/* The length in force: steps_total, or train.steps while it is not yet known. */
int64_t run_steps(const Run *r);

#endif
