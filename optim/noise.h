/* optim/noise.h - the gradient noise scale B_noise: the batch, in tokens, at which the gradient's
 * noise is as large as the gradient (McCandlish et al. 2018, arXiv 1812.06162).
 *
 * Measured (its appendix A.1): with G_big the gradient of a whole batch of B_big tokens, G_small
 * those of its parts of B_small tokens,
 *     |G|^2   = (B_big |G_big|^2 - B_small |G_small|^2) / (B_big - B_small),
 *     S       = (|G_small|^2 - |G_big|^2) / (1/B_small - 1/B_big),
 *     B_noise = S / |G|^2,
 * |G_small|^2 the mean over the parts ("units"). |G|^2 and S are free of bias, their quotient is
 * not: both are smoothed over steps before they are divided. A unit's gradient is the mean over its
 * own targets. Where units differ in their number of targets, 1/B_small is the mean over the units
 * of 1 / (tokens that the unit counts for): |G_small|^2 then still is |G|^2 + S / B_small. */
#ifndef ISOMOE_OPTIM_NOISE_H
#define ISOMOE_OPTIM_NOISE_H

#include <stdbool.h>
#include <stdint.h>

/* B*(L) = b_star / loss^(1/alpha) (Kaplan et al. 2020, arXiv 2001.08361), in tokens; loss in nats a
 * token. 0 where loss is not a positive number: unknown. */
double noise_from_loss(double b_star, double alpha, double loss);

enum {
    NOISE_UNITS_MAX = 1024, /* units of a step */
    NOISE_WARM = 10         /* measured steps before the first estimate is believed */
};

typedef struct NoiseState { /* all zero at first */
    double steps;    /* measured steps */
    double g2, s;    /* moving averages of |G|^2 and of S (square times tokens) */
    double tokens;   /* B_noise: the newest usable estimate; 0: none yet */
} NoiseState;

typedef struct NoiseStep { /* what one step gave */
    int units;             /* at least 2 */
    const double *square;  /* (units) |part of the unit in the whole batch's gradient|^2 */
    const double *targets; /* (units) counted targets */
    double big;            /* |G_big|^2 */
    double tokens;         /* B_big */
} NoiseStep;

/* Takes a step in: averages with factor `decay`, the first steps weighted evenly as they come. The
 * estimate moves only when NOISE_WARM steps are in and both averages are positive: until then, and
 * wherever noise has made one negative, the last usable one stays. A step that says nothing (a unit
 * without targets, a number that is not finite) is left out: false. */
bool noise_observe(NoiseState *n, const NoiseStep *step, double decay);

/* Weight of the newest value in a moving average of `count` values (this one included) that is free
 * of the bias towards its start: (1 - d) / (1 - d^count); 1 for the first. avg += weight (value -
 * avg) then keeps a constant exactly. */
double average_weight(double decay, double count);

#endif
