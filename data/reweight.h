/* data/reweight.h - weights of sources that follow their losses (Sheared-LLaMA, arXiv 2310.06694,
 * as LLaMA-MoE's published code has it, arXiv 2406.16554).
 *
 * With l_s the held-out loss of source s, r_s its reference, a_s its share now, over the K sources
 * that have a share:
 *     sheared_llama        b = softmax(log a + eta (l - r)); a' = (1 - smooth) b + smooth / K
 *     sheared_llama_paper  a' ~ a exp(eta max(0, l - r))
 * a' sums to 1. A source without a share keeps none; a share below 2^-32, which no mixture can
 * give, is raised to that.
 */
#ifndef ISOMOE_DATA_REWEIGHT_H
#define ISOMOE_DATA_REWEIGHT_H

typedef enum ReweightRule {
    REWEIGHT_OFF,
    REWEIGHT_SHEARED_LLAMA,
    REWEIGHT_SHEARED_LLAMA_PAPER
} ReweightRule;

typedef struct Reweight {
    ReweightRule rule;
    double eta;
    double smooth; /* of sheared_llama; 0 .. 1 */
} Reweight;

/* weight (n), >= 0 with a sum above 0, becomes the new shares. Losses are finite. */
void reweight(const Reweight *how, double *weight, const double *loss, const double *ref, int n);

#endif
