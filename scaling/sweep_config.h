/* scaling/sweep_config.h - SWEEP.yaml: budgets, a family of models, laws of rate and batch, limits.
 * The run itself (data, optimizer, everything that is the same in all cells) is the base
 * configuration, a file for `isomoe train`. Keys: docs/FORMATS.md. */
#ifndef ISOMOE_SCALING_SWEEP_CONFIG_H
#define ISOMOE_SCALING_SWEEP_CONFIG_H

#include "scaling/rates.h"
#include "scaling/sweep.h"

enum { SWEEP_CHECKS = 8, VARIANT_NAME = 24 };

typedef enum CentrePrior { CENTRE_HUNYUAN, CENTRE_RATIO, CENTRE_POWER } CentrePrior;
typedef enum CentreCount { COUNT_ACTIVE, COUNT_ACTIVE_NO_EMBED } CentreCount;
typedef enum SweepCheck { CHECK_OFF, CHECK_FIT } SweepCheck;
typedef enum SweepReuse { REUSE_OFF, REUSE_TRUNK } SweepReuse;
typedef struct SweepFamily { /* what changes with the size; the base configuration says the rest */
    int64_t width_step, width_min, width_max; /* d_model */
    int64_t layer_step, layers_min, layers_max; /* layer_step 0: cla_share */
    double aspect;       /* d_model / n_layers */
    double aspect_slack; /* models within this factor of it are in the family */
    int64_t head_dim;    /* n_heads = d_model / head_dim */
    int64_t query_group; /* heads that share a K and V: n_kv_heads is the largest divisor of n_heads
                            up to n_heads / query_group, at least 1 */
    double expert_ratio, shared_ratio; /* widths / d_model; 0: the base's width for all */
    int64_t ffn_step;    /* widths are multiples of it */
} SweepFamily;

typedef struct SweepCentre { /* where sizes lie: N_opt(C), a prior law */
    int prior;               /* CentrePrior */
    int count;               /* CentreCount: what N counts */
    double tokens_per_param; /* ratio: C = 6 N D, D = this N */
    double factor, exponent; /* power: N = factor C^exponent */
} SweepCentre;

typedef struct SweepLaw { /* of the peak rate, or of the tokens a step: a name of rates.h, with the
                             constants that the law does not have itself */
    char name[CONF_STRING];
    double factor;           /* on what the law says */
    double value, n, d, c;   /* constant: value; power: value N^n D^d C^c */
    bool total;              /* power: N is all parameters */
    double eps_max, b_noise, b_star, alpha, loss; /* surge, surge_sgd; the loss for b_star */
    RateLaw law;             /* resolved */
} SweepLaw;

typedef struct SweepLimits {
    double ratio;            /* a cell's rate and batch over its own laws': within this factor */
    double memory;           /* bytes of a cell; 0: any */
    double min_params, max_params; /* N, as centre.count counts; 0: any */
    double min_tokens, max_tokens; /* D; 0: any */
    double min_per_param, max_per_param; /* D / N; 0: any */
    double unique_tokens, epochs;  /* D is at most their product; unique_tokens 0: any */
} SweepLimits;

typedef struct SweepVariant { /* an element of variants: the whole study once more, with these */
    char name[CONF_STRING];
    char overrides[CONF_STRING]; /* "model.routing=drop model.capacity_factor=1.0" */
} SweepVariant;

struct SweepConfig {
    char name[CONF_STRING], out[CONF_STRING], base[CONF_STRING];
    char budget_text[CONF_LONG_STRING], check_text[CONF_STRING];
    char check_batch_text[CONF_STRING];
    int n_budgets, n_checks, n_check_batches; /* of the three lists, as numbers */
    double budget[SWEEP_BUDGETS];  /* FLOPs, rising */
    double check[SWEEP_CHECKS];    /* factors on the rate, run beside each budget's centre */
    double check_batch[SWEEP_CHECKS]; /* the same on the batch, at all of these rates */
    int64_t sizes;                 /* a budget */
    double spacing;                /* N of neighbouring sizes: this factor apart */
    int64_t seed, seeds;           /* first seed; how many at each budget's centre */
    int64_t adaptive;              /* sizes added at most to a budget */
    int reuse;                     /* SweepReuse */
    int schedule;                  /* 0 wsd_sqrt, 1 wsd */
    double cooldown;               /* last part of a run, in which the rate falls */
    double warmup;                 /* part of a size's shortest run; 0: the base's warmup_steps */
    int check_by;                  /* SweepCheck */
    double held_out;               /* over the largest budget; 0: none */
    bool measure;                  /* steps of each size are timed before the first cell runs */
    bool force;                    /* ratios beyond limits.ratio are taken */
    int64_t jobs, cores, tries;    /* cells at a time; cores of each; tries of one */
    double time_limit;             /* seconds of a trainer without progress; 0: any */
    double retry_rate;             /* factor on the rate of a diverged cell's second try */
    SweepFamily family;
    SweepCentre centre;
    SweepLaw rate, batch;
    double rounding;               /* of the batch: largest ratio of a legal one to the law's */
    SweepLimits limits;
    CriticalBatch critical;        /* b_star 0: none */
    int64_t n_variants;            /* 0: the study alone */
    SweepVariant variant[SWEEP_VARIANTS];
};
typedef struct SweepConfig SweepConfig;

const ConfTable *sweep_config_table(void);

/* Reads, applies overrides ("sweep.jobs=2"), checks combinations. */
int sweep_config_read(SweepConfig *s, const char *path, const char *const *overrides, int n,
                      Err *e);

/* N_opt(C) by the prior law, in parameters as centre.count counts them. */
double sweep_centre(const SweepConfig *s, double C);

#endif
