/* scaling/profile_noise.h - how far minima of isoFLOP curves move with the noise of their runs,
 * where that is known: every loss is moved by a draw of its own noise, the curves are laid anew
 * (Porian et al. 2024). Unlike the scatter of minima about a line it needs no third budget, and
 * does not take a bent line for noise. */
#ifndef ISOMOE_SCALING_PROFILE_NOISE_H
#define ISOMOE_SCALING_PROFILE_NOISE_H

#include "scaling/profile.h"

typedef struct ProfileNoiseOptions {
    double C;         /* FLOPs at which N_opt and D_opt are asked for */
    int replicates;   /* >= 2 */
    double level;     /* in (0, 1) */
    uint64_t seed;
    int threads;      /* 0: all; they change no bit */
} ProfileNoiseOptions;

typedef struct ProfileNoise {
    Interval n_opt, d_opt, n_exponent, d_exponent; /* percentiles; NaN: too many are missing */
    int missing;      /* replicates without a power law */
    double sd;        /* root mean square of the noise of the losses, nats */
} ProfileNoise;

/* t, weight: as given to profile_fit; method: whose minima. Err: no noise is known of a row (column
 * RUN_NOISE, or runs that differ by their seed alone), no memory. */
int profile_noise(const RunTable *t, const double *weight, ProfileMethod method,
                  const ProfileNoiseOptions *o, ProfileNoise *out, Err *e);

#endif
