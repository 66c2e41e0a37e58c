/* train/routing_stats.h - what the routers of a model do on held-out text, by layer and domain: how
 * evenly the experts are used, how sure the routers are, and whether experts belong to domains.
 * Formulas: docs/MATH.md, "Evaluation". Entropies and informations are in bits.
 */
#ifndef ISOMOE_TRAIN_ROUTING_STATS_H
#define ISOMOE_TRAIN_ROUTING_STATS_H

#include <jansson.h>
#include <stdio.h>

#include "model/model.h"

enum { ROUTING_NAME = 64 };

typedef struct RoutingSums { /* over the tokens of one domain; L layers, E experts */
    char name[ROUTING_NAME]; /* of the domain */
    int64_t L, E;
    int64_t *choices; /* (L, E) choices of the expert, all ranks alike */
    double *score;    /* (L, E) sum over tokens of p, the scores divided by their sum */
    double *entropy;  /* (L) sum over tokens of H(p) */
    int64_t *tokens;  /* (L) */
    Device *device;
    float *probs;     /* one layer's, from the device */
    int32_t *first;
    int64_t room, top_k; /* tokens that these two hold, and choices of each */
} RoutingSums;

/* For a model with experts. *s is filled from nothing; routing_sums_free ends it, always. */
int routing_sums_init(RoutingSums *s, Model *m, const char *name, Err *e);
void routing_sums_free(RoutingSums *s);

/* A RouteObserver (model_observe) with a RoutingSums as context. */
void routing_sums_add(void *sums, int64_t layer, const Routing *r);

/* Share of the layer's choices that fall on the expert; NaN without choices. */
double routing_share(const RoutingSums *s, int64_t layer, int64_t expert);

typedef struct LayerRouting {
    double max_load;      /* largest share / mean share */
    double cv;            /* standard deviation of the shares / their mean */
    double mean_entropy;  /* H of the mean of p over tokens: log2 E where all are used alike */
    double token_entropy; /* mean over tokens of H(p): 0 where the router is certain */
} LayerRouting;

LayerRouting routing_layer(const RoutingSums *s, int64_t layer);

typedef struct Specialization {
    double information; /* I(domain; expert of a choice), domains taken as equally likely */
    double share;       /* of the largest possible: min(log2 domains, log2 E) */
    double chance;      /* what as many independent choices would show without specialization */
} Specialization;

/* NaN for fewer than two domains. */
Specialization routing_specialization(const RoutingSums *domain, int n, int64_t layer);

/* What domain i's choices tell of it: sum_e q_e log2(q_e / mean over domains), bits; the mean over
 * domains is the information. NaN for fewer than two domains. */
double routing_domain_bits(const RoutingSums *domain, int n, int i, int64_t layer);

/* Jensen-Shannon distance (the root of the divergence in bits; 0 .. 1) of two domains' loads. */
double routing_distance(const RoutingSums *a, const RoutingSums *b, int64_t layer);

/* All of it. New reference, or NULL. */
json_t *routing_json(const RoutingSums *domain, int n);
void routing_print(const RoutingSums *domain, int n, FILE *out);

#endif
