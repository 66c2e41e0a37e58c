/* scaling/published.c - see published.h. */
#include "scaling/published.h"

#include <math.h>

static const double n_factor = 5.9e-3, n_power = 0.5305, d_factor = 3.2, d_power = 0.50;

double hunyuan_compute(double N, double D) { return 9.59 * N * D + 2.3e8 * D; }
double hunyuan_n_opt(double c_min) { return n_factor * pow(c_min, n_power); }
double hunyuan_d_opt(double c_min) { return d_factor * pow(c_min, d_power); }
double hunyuan_budget(double N) { return pow(N / n_factor, 1 / n_power); }
