/* tests/ref/ref_optim.c - AdamW, norm and clipping; see ref.h. */
#include <math.h>

#include "tests/ref/ref.h"

void ref_adamw(const RefAdamw *a)
{
    const AdamwOpt *o = &a->opt;
    const StepVars *s = &a->vars;
    for (int64_t i = 0; i < a->n; i++) {
        double g = a->grad[i] * s->grad_scale, lr = s->lr * o->lr_ratio;
        if (a->runs) lr *= a->each[i * a->runs / a->n];
        if (a->w_mag) {
            a->m_mag[i] = fabs(o->beta1 * a->m[i]) + fabs((1 - o->beta1) * g);
            a->v_mag[i] = fabs(o->beta2 * a->v[i]) + fabs((1 - o->beta2) * g * g);
            a->w_mag[i] = fabs(a->w[i]);
        }
        if (s->skip) continue;
        a->m[i] = o->beta1 * a->m[i] + (1 - o->beta1) * g;
        a->v[i] = o->beta2 * a->v[i] + (1 - o->beta2) * g * g;
        double below = sqrt(a->v[i] / s->bias2) + o->eps;
        if (a->w_mag)
            a->w_mag[i] += fabs(lr) * (a->m_mag[i] / s->bias1 / below + o->weight_decay * fabs(a->w[i]));
        a->w[i] -= lr * (a->m[i] / s->bias1 / below + o->weight_decay * a->w[i]);
    }
}

double ref_sqsum(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sum;
}

void ref_clip(StepVars *vars, double sum, double max_norm)
{
    vars->grad_norm = sqrt(sum);
    vars->grad_scale = max_norm > 0 && vars->grad_norm > max_norm ? max_norm / vars->grad_norm : 1;
    vars->skip = !isfinite(vars->grad_norm);
}
