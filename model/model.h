/* model/model.h - the model on a device: memory, forward and backward, evaluation, decoding.
 *
 * All memory is planned from the config (model_plan), printed and allocated once in model_create;
 * nothing is allocated in a step. Loss = sum over counted targets of the global batch of their
 * negative log-likelihood / number of those targets + aux_coef * sum over layers of the mean over
 * groups of l_aux + z_coef * sum over layers of the mean over tokens of logsumexp(router logits)^2
 * + entropy_coef * sum over layers of the mean over tokens of the entropy of the scores
 * + cv_coef * sum over layers of the mean over groups of l_cv (noisy gate; docs/MATH.md).
 * Every gradient is the gradient of that number.
 */
#ifndef ISOMOE_MODEL_MODEL_H
#define ISOMOE_MODEL_MODEL_H

#include "base/arena.h"
#include "model/params.h"

typedef struct ModelShape {
    DType type;           /* compute type: DT_BF16 or DT_F32 */
    int64_t B, T;         /* largest micro-batch: sequences, tokens of a sequence */
    int64_t micro_batches; /* of a step */
    int64_t rope_positions; /* 0: T. Longer for decoding */
    bool train;           /* gradients and saved activations exist */
    bool any_order;       /* attention's gradients may add up in any order: other bits each time */
    int64_t reserve;      /* bytes of the one block of memory; 0: what the shape needs. More: room
                             for a later model_reshape */
} ModelShape;

typedef struct Model Model;

/* Bytes of each arena ("weights", "master", "grads", "moments", "activations", "work") as named
 * rows, without allocating. */
int model_plan(const ModelConfig *c, const ModelShape *shape, ArenaPlan *plan, Err *e);

/* NULL on error. The config is copied. Parameters are uninitialised. */
Model *model_create(Device *d, const ModelConfig *c, const ModelShape *shape, Err *e);
void model_destroy(Model **m);

/* Another B, T, number of micro-batches and base of the rotation (model.rope_theta), in the memory
 * that is there: activations and work tensors are laid out anew; weights, gradients, step variables
 * and state keep their places and values. What an earlier pass left (statistics, losses) is lost.
 * Type, train and reserve stay those of model_create. An error, with the model as it was, when the
 * shape cannot be served or needs more than the block. No decoder may exist. */
int model_reshape(Model *m, const ModelShape *shape, double rope_theta, Err *e);

Device *model_device(Model *m);
const ModelConfig *model_config(const Model *m);
const ModelShape *model_shape(const Model *m);
const ParamTable *model_params(const Model *m);

/* A tensor besides the parameters that training carries from step to step (a bias of the router, a
 * moving average): checkpoints keep it under its name. */
typedef struct StateTensor {
    const char *name; /* "route_bias"; static */
    Tensor tensor;    /* device memory */
} StateTensor;
enum { STATE_MAX = 16 };

/* The model's own, into out; returns how many. A model that was not made for training may have
 * fewer than one that was. */
int model_state(Model *m, StateTensor out[STATE_MAX]);

/* Flat arrays over the parameter space, device memory. */
Tensor model_master(Model *m); /* f32 */
Tensor model_grads(Model *m);  /* f32; train only */
Tensor model_weights(Model *m); /* bf16 copy, or none in f32 mode */
StepVars *model_vars(Model *m); /* device pointer */
Tensor model_loss_sums(Model *m); /* (2) f64: token losses since model_zero_grads; targets */

void model_init(Model *m, uint64_t seed); /* fills the masters and refreshes the weights */
/* Copies masters into the compute weights; after init, load and each update made outside adamw. */
void model_refresh_weights(Model *m);

typedef struct MicroBatch { /* host arrays (B, T); B at most shape.B, T exactly shape.T */
    int64_t B;
    const int32_t *tokens, *targets, *doc_start; /* doc_start may be NULL: no documents */
    int64_t group0; /* global index of the first routing group */
    int index;      /* 0 .. micro_batches-1: where its statistics go */
    const int32_t *routing; /* (L, B T, slots) experts in force to replay (train only; -1: none);
                               NULL: the router decides */
} MicroBatch;

void model_zero_grads(Model *m);

/* Forward and backward: adds gradients and loss sums. `groups_total`, `tokens_total`: of the global
 * batch, for the means of the auxiliary losses; the mean over targets is vars->loss_scale. */
void model_train_micro(Model *m, const MicroBatch *b, int64_t groups_total, int64_t tokens_total);

typedef struct StepStats { /* of the micro-batches since model_zero_grads; host memory */
    double loss_sum, targets;      /* sum of negative log-likelihoods, and their number */
    double aux, z;                 /* sum over layers of mean l_aux; of mean lse^2 */
    double entropy, cv;            /* sum over layers of mean entropy; of mean l_cv */
    double choices;                /* experts chosen a token, mean over tokens and layers */
    double overflow, recycled, unplaced; /* shares of all choices */
    double max_load;               /* largest expert load / mean load, mean over layers */
    double active_width;           /* mean over tokens and layers of the sum of the widths of the
                                      experts that a token was placed at */
    double load[256];              /* share of placed choices by expert index, summed over layers
                                      and normalised to 1; the first 256 experts */
} StepStats;

void model_stats(Model *m, int n_micro, StepStats *out);

/* After the last micro-batch of a step and its update: shares of choices for the balance loss of
 * the next step, and the loss-free bias. A step that was skipped (vars->skip) leaves both as they
 * are. Nothing to do unless model.balance is global or model.bias_rate is set. */
void model_end_step(Model *m, int n_micro);

/* Experts in force of the last training micro-batch, (L, N, slots) into host memory; slots as
 * model_slots says. */
void model_read_routing(Model *m, int32_t *routing);

/* load (L, E), host memory: choices that each expert of each layer really received (in force, after
 * capacity) in the step's micro-batches 0 .. n_micro-1. */
void model_loads(Model *m, int n_micro, double *load);

/* Held-out loss: dropless, no gradients. Adds to sums[0] the negative log-likelihood, to sums[1]
 * the number of targets. If token_nll is given (B*T floats) it receives each token's, 0 where
 * ignored. */
void model_eval_micro(Model *m, const MicroBatch *b, double sums[2], float *token_nll);

/* Called behind the routing of each layer of every pass without gradients (model_eval_micro,
 * model_logits, decoding), layers in order; r is cut to the pass's tokens. Its tensors are device
 * memory that the next layer writes over: dev_download what you need. Passes in training are not
 * observed: model_stats tells of them. call NULL: nobody. */
typedef void (*RouteObserver)(void *context, int64_t layer, const Routing *r);
void model_observe(Model *m, RouteObserver call, void *context);

/* Logits (B*T, V) f32 into host memory: for tests and small tools. Routing dropless. */
void model_logits(Model *m, const MicroBatch *b, float *logits);

/* Decoding one sequence with a cache of keys and values. Refused for an expert-choice model
 * (model_check_causal). */
typedef struct Decoder Decoder;
Decoder *decoder_create(Model *m, int64_t max_tokens, Err *e);
void decoder_destroy(Decoder **d);
/* Feeds `count` tokens behind those already there; logits (V floats, host) of the last one. Fails
 * when max_tokens would be passed. */
int decoder_feed(Decoder *d, const int32_t *tokens, int64_t count, float *logits, Err *e);

#endif
