/* device/cpu/route.h - scores and choices of one token, shared by the files of routing. */
#ifndef ISOMOE_DEVICE_CPU_ROUTE_H
#define ISOMOE_DEVICE_CPU_ROUTE_H

#include "device/cpu/cpu.h"

#define route_score CPU_NAME(route_score)
#define route_choose CPU_NAME(route_choose)

typedef struct TokenScores {
    float lse;       /* logsumexp of the logits */
    float entropy;   /* H = -sum p log p, p = scores / their sum */
    double to_share; /* 1 / sum of the scores (softmax: 1); 0 where that sum is 0 */
} TokenScores;

/* scores (E) from logits (E): softmax or sigmoids. */
TokenScores route_score(float *scores, const float *logits, int64_t E, int score);

typedef struct TokenChoice {
    const RouteOpt *opt;
    int64_t E, k;
    const float *logits, *scores; /* (E) of the token */
    int32_t *first;               /* (k) out */
    int32_t *key;                 /* (2 E) scratch */
} TokenChoice;

/* The k experts with the largest selection keys, cut by blocks and top_p as opt says. */
void route_choose(const TokenChoice *c);

#endif
