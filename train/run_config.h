/* train/run_config.h - a whole run: the model section and everything around it. */
#ifndef ISOMOE_TRAIN_RUN_CONFIG_H
#define ISOMOE_TRAIN_RUN_CONFIG_H

#include "model/config.h"
#include "optim/optim.h"

typedef struct DataConfig {
    char train[CONF_STRING]; /* folder made by `isomoe prepare` */
    char val[CONF_STRING];   /* the same folder by default (its val shards) */
    int64_t seq_len;         /* T */
    bool mask_documents;     /* documents in a sequence do not see each other */
} DataConfig;

typedef struct TrainConfig {
    char out[CONF_STRING];   /* run folder */
    int64_t steps;
    int64_t batch;           /* sequences of the global batch */
    int64_t micro_batch;     /* sequences of a micro-batch; divides batch. 0: chosen: the largest
                                divisor of batch with at most 8192 tokens */
    int64_t seed;
    int precision;           /* 0 bf16, 1 f32 */
    char device[CONF_STRING];/* auto | cpu | cuda */
    int64_t threads;         /* 0: all */
    int64_t eval_every;      /* steps; 0: only at the end */
    int64_t eval_sequences;  /* of the held-out set, the first ones in file order */
    int64_t checkpoint_every;/* steps; 0: only at the end */
    int64_t keep_checkpoints;/* newest ones kept; 0: all */
    int64_t log_every;       /* progress lines; the record has every step */
    double minutes;          /* 0: no limit. Else `steps` is cut to what fits, measured over the
                                first steps; the cut is recorded and is part of the checkpoint */
    char routing_record[CONF_STRING]; /* file that receives the router's choices; empty: none */
    char routing_replay[CONF_STRING]; /* file that they come from; empty: the router decides */
} TrainConfig;

typedef struct RunConfig {
    ModelConfig model;
    DataConfig data;
    OptimConfig optim;
    TrainConfig train;
} RunConfig;

const ConfTable *run_config_table(void);

/* Reads, applies overrides, resolves and checks combinations (with file and line). */
int run_config_read(RunConfig *c, const char *path, const char *const *overrides, int n, Err *e);

/* From the resolved text kept in a checkpoint. */
int run_config_read_text(RunConfig *c, const char *text, const char *name, Err *e);

ModelShape run_config_shape(const RunConfig *c);

#endif
