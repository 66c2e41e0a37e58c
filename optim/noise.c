/* optim/noise.c - see noise.h. */
#include "optim/noise.h"

#include <math.h>

#include "base/err.h"

double noise_from_loss(double b_star, double alpha, double loss)
{
    if (!(loss > 0) || !isfinite(loss)) return 0;
    double tokens = b_star * pow(loss, -1 / alpha);
    return isfinite(tokens) ? tokens : 0;
}

double average_weight(double decay, double count)
{
    return count > 1 ? (1 - decay) / (1 - pow(decay, count)) : 1;
}

/* With M targets in all and m_j of unit j, the unit's own gradient is M / m_j times its part. */
bool noise_observe(NoiseState *n, const NoiseStep *step, double decay)
{
    double all = 0, small = 0, ratio = 0, units = step->units;
    CHECK(step->units >= 2, "%d units", step->units);
    for (int j = 0; j < step->units; j++) all += step->targets[j];
    for (int j = 0; j < step->units; j++) {
        double grow = all / step->targets[j];
        if (!(step->targets[j] > 0)) return false;
        small += grow * grow * step->square[j] / units;
        ratio += grow / units; /* becomes B_big / B_small */
    }
    double g2 = (ratio * step->big - small) / (ratio - 1);
    double s = step->tokens * (small - step->big) / (ratio - 1);
    if (!isfinite(g2) || !isfinite(s)) return false;
    n->steps++;
    double weight = average_weight(decay, n->steps);
    n->g2 += weight * (g2 - n->g2);
    n->s += weight * (s - n->s);
    double tokens = n->s / n->g2;
    if (n->steps >= NOISE_WARM && n->g2 > 0 && n->s > 0 && isfinite(tokens)) n->tokens = tokens;
    return true;
}
