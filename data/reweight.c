/* data/reweight.c - see reweight.h. */
#include "data/reweight.h"

#include <math.h>
#include <stdbool.h>

#include "base/err.h"

enum { MAX = 64 };
#define SHARE_MIN 0x1p-32

static void normalise(double *share, int n)
{
    double sum = 0;
    for (int s = 0; s < n; s++) sum += share[s];
    for (int s = 0; s < n; s++) share[s] /= sum;
}

void reweight(const Reweight *how, double *weight, const double *loss, const double *ref, int n)
{
    double power[MAX], most = -INFINITY;
    bool shares[MAX];
    int K = 0;
    CHECK(n >= 1 && n <= MAX && how->rule != REWEIGHT_OFF, "%d sources, rule %d", n, how->rule);
    for (int s = 0; s < n; s++) {
        double excess = loss[s] - ref[s];
        shares[s] = weight[s] > 0;
        CHECK(isfinite(excess) || !shares[s], "loss %g of source %d", loss[s], s);
        if (how->rule == REWEIGHT_SHEARED_LLAMA_PAPER) excess = fmax(0, excess);
        power[s] = how->eta * excess;
        if (!shares[s]) continue;
        most = fmax(most, power[s]); /* the largest exponent becomes 0: none overflows */
        K++;
    }
    CHECK(K > 0, "none of %d sources has a weight", n);
    double smooth = how->rule == REWEIGHT_SHEARED_LLAMA ? how->smooth : 0;
    for (int s = 0; s < n; s++) weight[s] = shares[s] ? weight[s] * exp(power[s] - most) : 0;
    normalise(weight, n);
    for (int s = 0; s < n; s++)
        if (shares[s]) weight[s] = fmax((1 - smooth) * weight[s] + smooth / K, SHARE_MIN);
    normalise(weight, n);
}
