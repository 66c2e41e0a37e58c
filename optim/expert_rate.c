/* optim/expert_rate.c - see expert_rate.h. */
#include "optim/expert_rate.h"

#include <math.h>

double expert_rate_ratio(double n, double x) { return sqrt(n) * (1 + x) / (n + x); }
