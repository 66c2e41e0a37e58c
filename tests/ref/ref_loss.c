/* tests/ref/ref_loss.c - linear + cross-entropy; see ref.h. */
#include <math.h>

#include "tests/ref/ref.h"

static double scale_of(const RefCe *a) { return a->logit_scale == 0 ? 1 : a->logit_scale; }

static double logit(const RefCe *a, int64_t n, int64_t v, double *mag)
{
    double sum = 0, sum_mag = 0;
    for (int64_t i = 0; i < a->D; i++) {
        double term = a->x[n * a->D + i] * a->w[v * a->D + i];
        sum += term;
        sum_mag += fabs(term);
    }
    if (mag) *mag = sum_mag * fabs(scale_of(a));
    return sum * scale_of(a);
}

void ref_ce_fwd(const RefCe *a)
{
    for (int64_t n = 0; n < a->N; n++) {
        double max = -INFINITY, sum = 0, worst = 0, mag;
        int64_t target = a->targets[n] - a->vocab0;
        a->target_logit[n] = 0;
        for (int64_t v = 0; v < a->V; v++) {
            double z = logit(a, n, v, &mag);
            worst = fmax(worst, mag);
            if (z > max) {
                sum *= exp(max - z);
                max = z;
            }
            sum += exp(z - max);
            if (a->targets[n] < 0 || v != target) continue;
            a->target_logit[n] = z;
            if (a->target_mag) a->target_mag[n] = mag;
        }
        a->lse[n] = max + log(sum);
        if (a->lse_mag) a->lse_mag[n] = 1 + worst + fabs(a->lse[n]);
    }
}

/* Of z = s x w^T: dz = s loss_scale (exp(z - lse) - onehot(target)); dx = dz w, dw = dz^T x. */
void ref_ce_bwd(const RefCe *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t v = 0; v < a->V && a->targets[n] >= 0; v++) {
            double mag, z = logit(a, n, v, &mag), p = exp(z - a->lse[n]);
            double onehot = a->targets[n] - a->vocab0 == v;
            double scale = a->loss_scale * scale_of(a), dz = scale * (p - onehot);
            double dz_mag = scale * (p * (1 + mag + fabs(a->lse[n])) + onehot);
            for (int64_t i = 0; i < a->D; i++) {
                double x = a->x[n * a->D + i], w = a->w[v * a->D + i];
                a->dx[n * a->D + i] += dz * w;
                a->dw[v * a->D + i] += dz * x;
                if (!a->dx_mag) continue;
                a->dx_mag[n * a->D + i] += dz_mag * fabs(w);
                a->dw_mag[v * a->D + i] += dz_mag * fabs(x);
                a->dx_half[n * a->D + i] += dz * w * dz * w; /* squares, rooted below */
                a->dw_half[v * a->D + i] += dz * x * dz * x;
            }
        }
    for (int64_t i = 0; a->dx_half && i < a->N * a->D; i++) a->dx_half[i] = sqrt(a->dx_half[i]);
    for (int64_t i = 0; a->dw_half && i < a->V * a->D; i++) a->dw_half[i] = sqrt(a->dw_half[i]);
}

void ref_nll_sum(double sum[2], const RefCe *a)
{
    for (int64_t n = 0; n < a->N; n++) {
        if (a->targets[n] < 0) continue;
        sum[0] += a->lse[n] - a->target_logit[n];
        sum[1] += 1;
    }
}
