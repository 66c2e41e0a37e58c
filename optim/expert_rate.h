/* optim/expert_rate.h - expert-specific learning rates (Hunyuan-Large, arXiv 2411.02265, 2.2.4).
 *
 * AdamW's best rate at batch B is e(B) = 2 e_max / (sqrt(B_noise/B) + sqrt(B/B_noise)) (Li et al.
 * 2024, arXiv 2405.14578). A specialized expert sees a batch of B/n, so its best rate is e(B/n) =
 * g_n(x) e(B), x = B/B_noise. Two ways to n: `auto`, one for all from the model, E/k; and `load`,
 * one for each expert of each layer, B over the tokens it really received, smoothed over the steps
 * before this one. B_noise is given, taken from the smoothed training loss, or measured
 * (optim/noise.h). As long as it is not known, x counts as 0: g_n's lower bound 1/sqrt(n), so that
 * an expert is never faster than the formula could allow. docs/MATH.md has the reasons. */
#ifndef ISOMOE_OPTIM_EXPERT_RATE_H
#define ISOMOE_OPTIM_EXPERT_RATE_H

#include "model/model.h"
#include "optim/noise.h"

typedef enum ExpertLr { EXPERT_LR_RATIO, EXPERT_LR_AUTO, EXPERT_LR_LOAD } ExpertLr;
typedef enum NoiseSource { NOISE_GIVEN, NOISE_LOSS, NOISE_MEASURED } NoiseSource;

typedef struct ExpertRateConfig {
    int mode;            /* ExpertLr; ratio: no factors here */
    int noise;           /* NoiseSource; not for ratio */
    double load_decay;   /* load: of the moving average of the tokens */
    double noise_tokens; /* given: B_noise */
    double noise_b_star, noise_alpha; /* loss: B_noise = b_star / loss^(1/alpha) */
    int64_t noise_unit;  /* measured: sequences of a unit; divides the batch at least in two */
    double noise_decay;  /* measured: of the moving averages */
} ExpertRateConfig;

/* g_n(x) = e(B/n) / e(B) = sqrt(n) (1 + x) / (n + x), n >= 1, x = B / B_noise >= 0: 1/sqrt(n) at
 * x = 0, 1 at sqrt(n), towards sqrt(n) for large x; towards 0 like 1/sqrt(n) for large n. */
double expert_rate_ratio(double n, double x);

/* B over the tokens of an expert under perfect balance: E/k; expert choice: R/C. */
double expert_rate_split(const ModelConfig *c);

typedef struct ExpertRates ExpertRates;

/* Adds its arena to a plan: state, and for a measured B_noise a second copy of the gradients.
 * Nothing for mode ratio. */
int expert_rates_plan(const ModelConfig *model, const ExpertRateConfig *c, ArenaPlan *plan, Err *e);

/* *out is NULL for mode ratio. The model must have experts and outlive it. -1: no memory. */
int expert_rates_create(ExpertRates **out, Model *m, const ExpertRateConfig *c, Err *e);
void expert_rates_destroy(ExpertRates **r);

/* What is carried from step to step, for checkpoints: adds to out, returns how many. */
int expert_rates_state(ExpertRates *r, StateTensor *out);

/* A step: begin before the first micro-batch, micro behind each, end behind the optimizer's step.
 * begin: writes the factors into `factors` (L, E) f32 on the device, from what the steps before
 * this one have shown. batch sequences of T tokens; loss: the smoothed training loss, nats. */
void expert_rates_begin(ExpertRates *r, Tensor factors, int64_t batch, int64_t T, double loss);
/* sequences: done in this step so far. The gradients themselves are not touched. */
void expert_rates_micro(ExpertRates *r, int64_t sequences);
/* n_micro: micro-batches of the step; grad_norm: of the whole gradient, not clipped (not finite: a
 * skipped step, from which no noise is learned); targets: (batch, T) of the whole batch, host
 * memory, -1 not counted. */
void expert_rates_end(ExpertRates *r, int n_micro, double grad_norm, const int32_t *targets);

typedef struct ExpertRateView { /* of the step begun last */
    int64_t layers, experts;
    const float *factor; /* (L, E), borrowed */
    double noise_tokens; /* B_noise; 0: not known yet */
} ExpertRateView;

ExpertRateView expert_rates_view(const ExpertRates *r);

#endif
