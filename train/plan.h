/* train/plan.h - what `isomoe plan` finds out about a configuration before anything runs. */
#ifndef ISOMOE_TRAIN_PLAN_H
#define ISOMOE_TRAIN_PLAN_H

#include <stdbool.h>
#include <stdio.h>

#include "base/arena.h"
#include "model/count.h"
#include "train/estimate.h"
#include "train/gpu_memory.h"
#include "train/plan_flops.h"
#include "train/run_config.h"

typedef struct PlanOptions {
    int64_t batch;   /* sequences of a micro-batch of a model-only file; 0: one routing group */
    int64_t seq_len; /* T; 0: the run's, or 2048 */
    const char *gpu; /* a name of cost.h: estimate a step on it; NULL: none */
    bool flops;      /* FLOPs by product and convention; so with either of these, or NULL: */
    const char *convention, *family; /* as plan_flops.h says */
} PlanOptions;

typedef struct Plan {
    const char *path;
    bool is_run;      /* false: the file has a model section and nothing else */
    RunConfig config; /* only .model when !is_run */
    ModelShape shape; /* what the memory is for: of a run, that of the stage which needs most */
    int stage;        /* the number of that stage */
    double run_tokens, run_flops; /* of all stages */
    ParamCount params;
    int64_t flops[FLOP_PARTS]; /* forward, one sequence of shape.T tokens */
    int64_t flops_train;       /* the same sequence, model FLOPs of training */
    ArenaPlan arenas;
    int64_t kv_bytes, kv_bytes_mha; /* of a token's cache in bf16; without GQA and CLA */
    int64_t capacity;               /* C; 0: dropless or dense */
    double empty_rows;    /* share of an expert buffer's rows without a token, all choices placed */
    Estimate estimate;    /* of a step on options.gpu; .gpu NULL: none asked for */
    PlanFlops by_product; /* .asked false: not asked for */
    GpuMemory beside;     /* what that GPU holds beside the tensors; none asked for: not set */
    double overflow_even; /* expected share of choices beyond C when the router is even */
} Plan;

/* Fills *p; plan_clear ends it, after a failure too. */
int plan_make(Plan *p, const char *path, const char *const *overrides, int n_overrides,
              const PlanOptions *options, Err *e);
void plan_clear(Plan *p);

void plan_print(const Plan *p, FILE *out);
struct json_t *plan_json(const Plan *p); /* new reference; NULL: out of memory */

/* E[max(0, X - C)] E / (R k) with X ~ Binomial(R, k / E): the share of choices that find no room
 * when each token takes k of E experts at random. */
double plan_overflow(int64_t R, int64_t k, int64_t E, int64_t C);

/* Bytes of keys and values a token leaves in the cache, bf16. */
int64_t plan_kv_bytes(const ModelConfig *c);

/* A count as people say it: "388.70 B" (K, M, B, T), and FLOPs: "312.94 G" (k, M, G, T, P, E);
 * both return out. */
enum { PLAN_COUNT = 24 };
const char *plan_count(char out[PLAN_COUNT], double value);
const char *plan_flops(char out[PLAN_COUNT], double value);

#endif
