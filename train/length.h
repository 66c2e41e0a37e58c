/* train/length.h - how long a run is: steps that fit into train.minutes, and the schedule of a run
 * that was cut to them. */
#ifndef ISOMOE_TRAIN_LENGTH_H
#define ISOMOE_TRAIN_LENGTH_H

#include "train/run_config.h"

/* What the first steps have shown. */
typedef struct Pace {
    double step;  /* seconds of a step */
    double eval;  /* seconds of a held-out loss */
    double left;  /* seconds that remain */
} Pace;

/* Total steps of a run that has done `done`: done + S with S step + (S / eval_every + 1) eval <=
 * left, S >= 1, and not more than c's steps. The last held-out loss counts as one even when
 * eval_every is 0. */
int64_t length_fit(const TrainConfig *c, int64_t done, Pace pace);

/* The optimizer's configuration for a run of `total` <= steps: decay_steps scaled by total / steps
 * (rounded); the warm-up, which has begun, as it is, but over before the decay begins. */
OptimConfig length_schedule(const OptimConfig *c, int64_t steps, int64_t total);

#endif
