/* train/rates_answer.h - what `isomoe fit --rates` answers: laws of the peak rate and the batch
 * from a grid of runs, Surge's law of each cell, B_crit(L). */
#ifndef ISOMOE_TRAIN_RATES_ANSWER_H
#define ISOMOE_TRAIN_RATES_ANSWER_H

#include <jansson.h>
#include <stdio.h>

#include "scaling/hygiene.h"
#include "scaling/noise_fit.h"
#include "scaling/rate_fit.h"

typedef struct RatesAnswer {
    bool total;              /* N is all parameters */
    bool body;               /* N is without embedding and head, as a sweep's laws read it */
    RunTable all, runs;      /* as read, sorted; the usable ones */
    Hygiene hygiene;
    RateFit grid;            /* cells and curves; laws where no_rate is "" */
    SurgeFit *surge;         /* (grid.cells) points 0: none; owned */
    NoiseFit noise;          /* where no_noise is "" */
    unsigned lr_free;        /* exponents of the rate's law that were fitted: bits of RateFree */
    char held[ERR_MESSAGE_MAX]; /* why not both; "": both */
    char no_rate[ERR_MESSAGE_MAX], no_noise[ERR_MESSAGE_MAX];
} RatesAnswer;

enum { RATES_YAML = 192 };

/* A section of a sweep's file with the law, "rate: {law: power, value: .., exp_n: ..}"; "" where
 * its numbers are out of the range of sweep_config.h. what: "rate" or "batch". */
void rates_answer_yaml(const RatesAnswer *a, const char *what, char out[RATES_YAML]);

/* source: a CSV file (mapping, where: of its columns and rows, or NULL) or a sweep's folder. N is
 * N_no_embed (total: N_total less what N has beyond it) where all usable runs say it. Where N and D
 * cannot be told apart, or the cells are too few for both exponents, the rate's law has that of N
 * alone, or of D. One of the laws may lack; why is said in its place. Err: what reading says, no
 * usable run, neither cells nor B_crit. rates_answer_clear ends it, after a failure too. */
int rates_answer_make(RatesAnswer *out, const char *source, const char *mapping, const char *where,
                      bool total, Err *e);
void rates_answer_clear(RatesAnswer *a);

/* New reference. Nothing in it depends on the order of rows. */
json_t *rates_answer_json(const RatesAnswer *a);

void rates_answer_print(const RatesAnswer *a, FILE *out);

#endif
