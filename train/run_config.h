/* train/run_config.h - a whole run: the model section and everything around it. */
#ifndef ISOMOE_TRAIN_RUN_CONFIG_H
#define ISOMOE_TRAIN_RUN_CONFIG_H

#include "data/loader.h"
#include "model/config.h"
#include "optim/optim.h"

enum { RUN_SOURCES = LOADER_MAX_SOURCES };

typedef struct SourceConfig { /* an element of data.sources */
    char name[CONF_STRING];
    char path[CONF_STRING];  /* folder made by `isomoe prepare` */
    double weight;           /* share of the sequences; 0: only in stages that name it */
} SourceConfig;

typedef struct DataConfig {
    char train[CONF_STRING]; /* folder made by `isomoe prepare`; empty: sources */
    char val[CONF_STRING];   /* data.train by default (its val shards); empty: those of sources */
    int64_t n_sources;       /* 0: data.train is the one source */
    SourceConfig source[RUN_SOURCES];
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
} TrainConfig;

typedef struct RunConfig {
    ModelConfig model;
    DataConfig data;
    OptimConfig optim;
    TrainConfig train;
} RunConfig;

const ConfTable *run_config_table(void);

typedef struct RunCheck { /* what a check of combinations needs for conf_fail */
    const int *lines;
    const char *path;
    Err *e;
} RunCheck;

/* Reads, applies overrides, resolves and checks combinations (with file and line). */
int run_config_read(RunConfig *c, const char *path, const char *const *overrides, int n, Err *e);

/* From the resolved text kept in a checkpoint. */
int run_config_read_text(RunConfig *c, const char *text, const char *name, Err *e);

ModelShape run_config_shape(const RunConfig *c);

#endif
