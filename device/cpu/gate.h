/* device/cpu/gate.h - the scale of a noisy gate's noise, shared by gate.c and gate_cv.c. */
#ifndef ISOMOE_DEVICE_CPU_GATE_H
#define ISOMOE_DEVICE_CPU_GATE_H

#include <math.h>

/* s = softplus(raw) + 0.01 */
static inline double gate_spread(double raw)
{
    return fmax(raw, 0.0) + log1p(exp(-fabs(raw))) + 0.01;
}

/* ds / draw = sigmoid(raw) */
static inline double gate_slope(double raw) { return 1.0 / (1.0 + exp(-raw)); }

#endif
