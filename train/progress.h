/* train/progress.h - what a step gave: its line for people on stderr, its record for programs. */
#ifndef ISOMOE_TRAIN_PROGRESS_H
#define ISOMOE_TRAIN_PROGRESS_H

#include "train/run.h"

typedef struct StepResult {
    double loss;      /* mean negative log-likelihood of the step's targets */
    double lr, grad_norm;
    int skipped;      /* SKIP_..: not 0: the device left the parameters as they were, and why */
    double z_norm, z_loss; /* of dev_clip; 0 where outliers are not looked for */
    double seconds;   /* of this step */
    double flops;     /* model FLOPs of this step */
    StepStats stats;
} StepResult;

/* The step's line of log.jsonl (train/runlog.h); r->state is the one after the step. */
json_t *progress_record(const Run *r, const StepResult *s);

/* Progress since the last line: loss (smoothed), speed and its share of the matrix peak, expert
 * load, recycled and unplaced choices, rate, norm, time to go. evaluated: r->val_loss is of this
 * step. */
typedef struct Progress {
    double seconds, flops, tokens; /* since the last line */
    double step_seconds;           /* smoothed wall time of a step, with all that is around it */
} Progress;
void progress_add(Progress *p, const Run *r, const StepResult *s);
void progress_print(Progress *p, const Run *r, const StepResult *s, bool evaluated);

/* "42 s", "3 min 05 s", "2 h 07 min"; returns out. */
enum { PROGRESS_TIME = 32 };
const char *progress_time(char out[PROGRESS_TIME], double seconds);

#endif
