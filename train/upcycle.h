/* train/upcycle.h - `isomoe upcycle`: a mixture of experts out of a trained dense model.
 *
 * The neurons of each dense feed-forward layer become those of the experts (train/split.h); a
 * neuron's row of gate, row of up and column of down move together. All else is copied; the
 * router is initialised as the new configuration says. Methods: random, clustered, inner, inter
 * (LLaMA-MoE, arXiv 2406.16554), copy (every expert is the whole layer: sparse upcycling, arXiv
 * 2212.05055). docs/MATH.md, "Dense to mixture of experts", has the formulas and what
 * model.routed_scale makes up for.
 */
#ifndef ISOMOE_TRAIN_UPCYCLE_H
#define ISOMOE_TRAIN_UPCYCLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/io.h"

typedef enum UpcycleMethod {
    UPCYCLE_RANDOM, UPCYCLE_CLUSTERED, UPCYCLE_INNER, UPCYCLE_INTER, UPCYCLE_COPY, UPCYCLE_METHODS
} UpcycleMethod;
extern const char *const upcycle_name[UPCYCLE_METHODS];

/* What becomes of model.routed_scale. */
typedef enum UpcycleRescale {
    UPCYCLE_RESCALE_DEFAULT, /* as auto, unless the configuration gives the key */
    UPCYCLE_RESCALE_AUTO,    /* neurons of the dense layer / those that a token uses in the new one,
                                at least 1: N / k of a split into N equal parts; 1 for copies;
                                over the sum of an even router's weights, where they are raw */
    UPCYCLE_RESCALE_NONE,    /* as configured */
    UPCYCLE_RESCALE_VALUE
} UpcycleRescale;

typedef struct UpcycleOptions {
    const char *dense;  /* run or checkpoint folder of a dense model */
    const char *config; /* of the run that will train the new model */
    const char *const *overrides;
    int n_overrides;
    UpcycleMethod method;
    const char *data;   /* inner, inter: a folder of prepared data; NULL: data.train */
    int64_t sequences;  /* inner, inter: of that data, for each expert */
    UpcycleRescale rescale; /* AUTO and VALUE contradict a configuration with another value: an
                               error */
    double rescale_value;   /* UPCYCLE_RESCALE_VALUE */
} UpcycleOptions;

typedef struct UpcycleResult {
    char out[IO_PATH_MAX];        /* the run folder */
    int64_t params_dense, params; /* activated or not */
    double routed_scale;          /* of the run that was made */
    double scale_auto;            /* what UPCYCLE_RESCALE_AUTO gives */
    bool scale_configured;        /* the configuration gives model.routed_scale, and it stayed */
} UpcycleResult;

/* Makes the run folder train.out of the configuration with a checkpoint of step 0 (moments zero)
 * and a config.yaml that has the rescale in it, with which `isomoe train` goes on as from any other
 * checkpoint. The folder must be empty. The data of the configuration must have the tokenizer that
 * the dense model was trained with. */
int upcycle_run(const UpcycleOptions *o, UpcycleResult *result, Err *e);

#endif
