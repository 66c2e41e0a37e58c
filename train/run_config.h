/* train/run_config.h - a whole run: the model section and everything around it. */
#ifndef ISOMOE_TRAIN_RUN_CONFIG_H
#define ISOMOE_TRAIN_RUN_CONFIG_H

#include "data/loader.h"
#include "model/config.h"
#include "optim/optim.h"

enum { RUN_SOURCES = LOADER_MAX_SOURCES, RUN_STAGES = 16 };

typedef struct SourceConfig { /* an element of data.sources */
    char name[CONF_STRING];
    char path[CONF_STRING];  /* folder made by `isomoe prepare` */
    double weight;           /* share of the sequences; 0: only in stages that name it */
    double ref_loss;         /* nats a token, for data.dynamic */
} SourceConfig;

typedef struct DataConfig {
    char train[CONF_STRING]; /* folder made by `isomoe prepare`; empty: sources */
    char val[CONF_STRING];   /* data.train by default (its val shards); empty: those of sources */
    int64_t n_sources;       /* 0: data.train is the one source */
    SourceConfig source[RUN_SOURCES];
    int dynamic;             /* ReweightRule */
    int64_t dynamic_every;   /* steps */
    double dynamic_eta, dynamic_smooth;
    int64_t dynamic_sequences; /* of each source's held-out text */
    int64_t seq_len;         /* T */
    bool mask_documents;     /* documents in a sequence do not see each other */
} DataConfig;

typedef struct TrainConfig {
    char out[CONF_STRING];   /* run folder */
    char from[CONF_STRING];  /* checkpoint or run folder that a new run branches from; or empty */
    int64_t steps;
    int64_t batch;           /* sequences of the global batch */
    int64_t micro_batch;     /* sequences of a micro-batch; divides batch. 0: chosen: the largest
                                divisor of batch with at most 8192 tokens */
    int64_t seed;
    int precision;           /* 0 bf16, 1 f32 */
    char device[CONF_STRING];/* auto | cpu | cuda */
    bool deterministic;      /* false: attention's gradients on a GPU may add up in any order */
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

typedef struct StageConfig { /* an element of stages; train/stages.h fills in what is 0 */
    char name[CONF_STRING];
    char weights[CONF_STRING]; /* "web=0.5 code=0.5"; empty: data.sources', or those in force */
    int64_t steps;             /* 0, in the last one: the rest */
    double share;              /* of the run's tokens, of the last stage; 0: by steps */
    int64_t seq_len, batch, micro_batch;
    double rope_theta;
    bool anneal;               /* the last phase of optim.schedule begins with it */
} StageConfig;

typedef struct RunConfig {
    ModelConfig model;
    DataConfig data;
    OptimConfig optim;
    TrainConfig train;
    int64_t n_stages;        /* 0: the run is one stage */
    StageConfig stage[RUN_STAGES];
} RunConfig;

const ConfTable *run_config_table(void);

typedef struct RunCheck { /* what a check of combinations needs for conf_fail */
    const int *lines;
    const char *path;
    Err *e;
} RunCheck;

/* Reads, applies overrides, resolves and checks combinations (with file and line). */
int run_config_read(RunConfig *c, const char *path, const char *const *overrides, int n, Err *e);

typedef struct RunGiven { /* a key, and whether the file or the command line gives it */
    const char *key;
    bool given;
} RunGiven;

/* As run_config_read; and fills key->given. */
int run_config_read_given(RunConfig *c, const char *path, const char *const *overrides, int n,
                          RunGiven *key, Err *e);

/* From the resolved text kept in a checkpoint. */
int run_config_read_text(RunConfig *c, const char *text, const char *name, Err *e);

/* The largest divisor of the batch that holds whole routing groups in at most 8192 tokens; when
 * even the smallest one is larger, that one; 0 when there is none. */
int64_t run_config_micro(const RunConfig *c, int64_t seq_len, int64_t batch);

/* Has `key` its default value? For keys that have an effect only with another one. */
bool run_config_is_default(const RunConfig *c, const char *key);

/* Of data.seq_len and train.batch; the shapes of stages: train/stages.h. */
ModelShape run_config_shape(const RunConfig *c);

#endif
