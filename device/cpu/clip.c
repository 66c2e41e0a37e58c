/* device/cpu/clip.c - the norm of the gradient, its clipping, and whether the step is skipped: not
 * finite, or an outlier among the latest steps. Called by optim/ through dev_clip. */
#include "device/cpu/cpu.h"

#include <math.h>

/* How many population standard deviations x lies above the mean of the n values; with no spread, 0
 * or (above it) infinity. */
static double z_score(const double *value, int64_t n, double x)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) sum += value[i];
    double mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (value[i] - mean) * (value[i] - mean);
    double deviation = sqrt(squares / (double)n);
    if (deviation > 0) return (x - mean) / deviation;
    return x > mean ? INFINITY : 0;
}

/* Judges a finite step by the window, if that is full, then takes it in. */
static void judge_outlier(StepVars *vars, const ClipOpt *opt, double loss)
{
    double *count = opt->history.data, *norms = count + 1, *losses = norms + opt->window;
    if (*count >= (double)opt->window) {
        vars->z_norm = z_score(norms, opt->window, vars->grad_norm);
        vars->z_loss = z_score(losses, opt->window, loss);
        if (vars->z_norm > opt->z_max) vars->skip = SKIP_NORM;
        else if (vars->z_loss > opt->z_max) vars->skip = SKIP_LOSS;
    }
    int64_t at = (int64_t)*count % opt->window;
    norms[at] = vars->grad_norm;
    losses[at] = loss;
    *count += 1;
}

int clip_cpu(Device *d, StepVars *vars, Tensor sum, const ClipOpt *opt)
{
    (void)d;
    const double *sums = opt->loss.data;
    double norm = sqrt(*(const double *)sum.data), max_norm = opt->max_norm;
    bool counted = !sums || sums[1] != 0; /* a step without targets has no loss */
    double loss = sums && counted ? sums[0] / sums[1] : 0;
    vars->grad_norm = norm;
    vars->grad_scale = max_norm > 0 && norm > max_norm ? max_norm / norm : 1.0;
    vars->z_norm = vars->z_loss = 0;
    vars->skip = isfinite(norm) && isfinite(loss) ? SKIP_NO : SKIP_NOT_FINITE;
    if (opt->z_max > 0 && counted && vars->skip == SKIP_NO) judge_outlier(vars, opt, loss);
    return 0;
}
