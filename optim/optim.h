/* optim/optim.h - the optimizer over the parameter table: clipping and AdamW, on device operations.
 * State: moments m and v, f32, flat over the parameter space. */
#ifndef ISOMOE_OPTIM_OPTIM_H
#define ISOMOE_OPTIM_OPTIM_H

#include "model/model.h"

typedef struct OptimConfig {
    double lr, beta1, beta2, eps, weight_decay, clip;
    double expert_lr_ratio; /* specialized experts' rate / the others' */
    int schedule;           /* ScheduleKind */
    int64_t warmup_steps, decay_steps; /* wsd: linear or 1-sqrt decay over the last decay_steps */
    double final_lr_ratio;             /* rate at the end / peak */
} OptimConfig;

typedef enum ScheduleKind { SCHEDULE_WSD, SCHEDULE_WSD_SQRT, SCHEDULE_COSINE, SCHEDULE_CONSTANT }
    ScheduleKind;

/* Learning rate of step (0-based) of `steps`: linear warm-up (step + 1) / warmup; then as named. */
double schedule_lr(const OptimConfig *c, int64_t step, int64_t steps);

typedef struct Optimizer Optimizer;

/* Adds the optimizer's arena to a plan. */
int optimizer_plan(const ModelConfig *c, ArenaPlan *plan, Err *e);
Optimizer *optimizer_create(Model *m, const OptimConfig *c, Err *e); /* moments zero */
void optimizer_destroy(Optimizer **o);

/* Before the micro-batches of a step: writes the step's variables to the device. updates: updates
 * made so far; targets: counted targets of the global batch. */
void optimizer_begin(Optimizer *o, uint64_t seed, int64_t step, double lr, int64_t updates,
                     double targets);
/* After them: norm, clip, AdamW on every row, weights refreshed. *vars receives what the device
 * decided (norm, scale, skip). */
void optimizer_step(Optimizer *o, StepVars *vars);

/* What the optimizer carries from step to step besides the moments; returns how many. */
int optimizer_state(Optimizer *o, StateTensor out[STATE_MAX]);

Tensor optimizer_m(Optimizer *o); /* f32 flat, for checkpoints */
Tensor optimizer_v(Optimizer *o);

#endif
