/* tests/ref/ref_each.c - experts of own widths; see ref.h. */
#include <math.h>

#include "tests/ref/ref.h"

void ref_each_fwd(const RefEach *a)
{
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t r = a->row_begin[e]; r < a->row_begin[e + 1]; r++)
            for (int64_t o = 0; o < a->out[e]; o++) {
                double sum = 0;
                for (int64_t i = 0; i < a->in[e]; i++)
                    sum += a->x[r * a->I + i] * a->w[e][o * a->in[e] + i];
                a->y[r * a->O + o] = sum;
            }
}

/* dx = dy w[e]; dw[e] = dy^T x over the rows of e. */
void ref_each_bwd(const RefEach *a)
{
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t r = a->row_begin[e]; r < a->row_begin[e + 1]; r++)
            for (int64_t o = 0; o < a->out[e]; o++)
                for (int64_t i = 0; i < a->in[e]; i++) {
                    double dy = a->dy[r * a->O + o];
                    if (a->dx) a->dx[r * a->I + i] += dy * a->w[e][o * a->in[e] + i];
                    if (a->dw) a->dw[e][o * a->in[e] + i] += dy * a->x[r * a->I + i];
                }
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

void ref_each_swiglu_fwd(const RefEachSwiglu *a)
{
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t r = a->row_begin[e]; r < a->row_begin[e + 1]; r++)
            for (int64_t f = 0; f < a->widths[e]; f++) {
                const double *g = a->gu + r * 2 * a->W, *u = g + a->widths[e];
                a->h[r * a->W + f] = g[f] * sigmoid(g[f]) * u[f];
            }
}

/* d(u) = dh silu(g); d(g) = dh u (s + g s (1 - s)), s = sigmoid(g). */
void ref_each_swiglu_bwd(const RefEachSwiglu *a)
{
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t r = a->row_begin[e]; r < a->row_begin[e + 1]; r++)
            for (int64_t f = 0; f < a->widths[e]; f++) {
                int64_t F = a->widths[e], at = r * 2 * a->W + f;
                double g = a->gu[at], u = a->gu[at + F], s = sigmoid(g);
                double dh = a->dh[r * a->W + f];
                a->dgu[at] += dh * u * (s + g * s * (1 - s));
                a->dgu[at + F] += dh * g * s;
                if (!a->dgu_mag) continue;
                a->dgu_mag[at] += fabs(dh * u) * s * (1 + fabs(g)); /* as in ref_swiglu_bwd */
                a->dgu_mag[at + F] += fabs(dh * g * s);
            }
}
