/* tests/ref/ref_norm.c - RMSNorm, SwiGLU, rotation and QK-norm; see ref.h. */
#include <math.h>
#include <stdlib.h>

#include "tests/ref/ref.h"

static double rstd_of(const double *s, int64_t width, double eps)
{
    double sum = 0;
    for (int64_t i = 0; i < width; i++) sum += s[i] * s[i];
    return 1 / sqrt(sum / (double)width + eps);
}

void ref_rmsnorm_fwd(const RefNorm *a)
{
    for (int64_t n = 0; n < a->N; n++) {
        const double *s = a->s + n * a->D;
        a->rstd[n] = rstd_of(s, a->D, a->eps);
        for (int64_t i = 0; i < a->D; i++) a->y[n * a->D + i] = s[i] * a->rstd[n] * a->w[i];
    }
}

/* One row of a norm backward; ds and dw are added to, magnitudes too where they are given. */
typedef struct NormRow {
    int64_t width;
    const double *s, *w, *dy;
    double rstd;
    const double *dy_mag; /* magnitudes of dy, or NULL: |dy| */
    double *ds, *dw, *ds_mag, *dw_mag;
} NormRow;

/* With s^ = s rstd and g = dy w: ds = rstd (g - s^ mean(g s^)); dw = dy s^. */
static void norm_row_bwd(const NormRow *r)
{
    double mean = 0, mean_mag = 0;
    for (int64_t i = 0; i < r->width; i++) {
        double dy_mag = r->dy_mag ? r->dy_mag[i] : fabs(r->dy[i]);
        mean += r->dy[i] * r->w[i] * r->s[i] * r->rstd / (double)r->width;
        mean_mag += dy_mag * fabs(r->w[i] * r->s[i]) * r->rstd / (double)r->width;
    }
    for (int64_t i = 0; i < r->width; i++) {
        double dy_mag = r->dy_mag ? r->dy_mag[i] : fabs(r->dy[i]);
        double hat = r->s[i] * r->rstd;
        if (r->ds) r->ds[i] += r->rstd * (r->dy[i] * r->w[i] - hat * mean);
        if (r->ds_mag) r->ds_mag[i] += r->rstd * (dy_mag * fabs(r->w[i]) + fabs(hat) * mean_mag);
        if (r->dw) r->dw[i] += r->dy[i] * hat;
        if (r->dw_mag) r->dw_mag[i] += dy_mag * fabs(hat);
    }
}

void ref_rmsnorm_bwd(const RefNorm *a)
{
    for (int64_t n = 0; n < a->N; n++) {
        int64_t at = n * a->D;
        NormRow row = {.width = a->D,
                       .s = a->s + at,
                       .w = a->w,
                       .dy = a->dy + at,
                       .rstd = a->rstd[n],
                       .ds = a->dx ? a->dx + at : NULL,
                       .dw = a->dw,
                       .ds_mag = a->dx_mag ? a->dx_mag + at : NULL,
                       .dw_mag = a->dw_mag};
        norm_row_bwd(&row);
    }
}

void ref_swiglu_fwd(const RefSwiglu *a)
{
    for (int64_t r = 0; r < a->R; r++)
        for (int64_t f = 0; f < a->F; f++) {
            double g = a->gu[r * 2 * a->F + f], u = a->gu[r * 2 * a->F + a->F + f];
            a->h[r * a->F + f] = g / (1 + exp(-g)) * u;
        }
}

/* dg = dh u s (1 + g (1 - s)), du = dh g s, s = sigmoid(g). */
void ref_swiglu_bwd(const RefSwiglu *a)
{
    for (int64_t r = 0; r < a->R; r++)
        for (int64_t f = 0; f < a->F; f++) {
            int64_t ig = r * 2 * a->F + f, iu = ig + a->F;
            double g = a->gu[ig], u = a->gu[iu], dh = a->dh[r * a->F + f], s = 1 / (1 + exp(-g));
            a->dgu[ig] += dh * u * s * (1 + g * (1 - s));
            a->dgu[iu] += dh * g * s;
            if (!a->dgu_mag) continue;
            /* 1 - s loses up to |g| units when s is near 1 */
            a->dgu_mag[ig] += fabs(dh * u) * s * (1 + fabs(g));
            a->dgu_mag[iu] += fabs(dh * g) * s;
        }
}

/* Rotation of all heads of a token by +angle or, with sign -1, -angle; with mag the sum of the
 * terms' magnitudes instead. */
static void rotate(const RefQk *a, int64_t n, double *out, const double *in, double sign, bool mag)
{
    int64_t half = a->K / 2;
    const double *cs = a->rope + (a->pos0 + n % a->T) * a->K;
    for (int64_t h = 0; h < a->H; h++)
        for (int64_t i = 0; i < half; i++) {
            double x = in[h * a->K + i], y = in[h * a->K + half + i];
            double c = cs[2 * i], s = sign * cs[2 * i + 1];
            out[h * a->K + i] = mag ? fabs(x * c) + fabs(y * s) : x * c - y * s;
            out[h * a->K + half + i] = mag ? fabs(y * c) + fabs(x * s) : y * c + x * s;
        }
}

/* Width that one rstd covers, and how many of them a token has. */
static int64_t norm_width(const RefQk *a)
{
    return a->norm == QK_FULL_BEFORE_ROPE ? a->H * a->K : a->K;
}

static void norm_token(const RefQk *a, int64_t n, double *out, const double *in)
{
    int64_t width = norm_width(a), parts = a->H * a->K / width;
    for (int64_t p = 0; p < parts; p++) {
        double r = rstd_of(in + p * width, width, a->eps);
        a->rstd[n * parts + p] = r;
        for (int64_t i = 0; i < width; i++)
            out[p * width + i] = in[p * width + i] * r * a->w[i];
    }
}

void ref_qk_fwd(const RefQk *a)
{
    int64_t width = a->H * a->K;
    double *mid = malloc(sizeof *mid * (size_t)width);
    for (int64_t n = 0; n < a->N; n++) {
        const double *x = a->x + n * width;
        double *y = a->y + n * width, *mag = a->y_mag ? a->y_mag + n * width : NULL;
        if (a->norm == QK_NONE) {
            rotate(a, n, y, x, 1, false);
            if (mag) rotate(a, n, mag, x, 1, true);
        } else if (a->norm == QK_HEAD_AFTER_ROPE) {
            rotate(a, n, mid, x, 1, false);
            norm_token(a, n, y, mid);
            if (!mag) continue;
            rotate(a, n, mag, x, 1, true);
            for (int64_t i = 0; i < width; i++)
                mag[i] *= a->rstd[n * a->H + i / a->K] * fabs(a->w[i % a->K]);
        } else {
            norm_token(a, n, mid, x);
            rotate(a, n, y, mid, 1, false);
            if (mag) rotate(a, n, mag, mid, 1, true);
        }
    }
    free(mid);
}

/* Backward of the norm of one token: ds (+= ) from dy with magnitudes dy_mag. */
static void norm_token_bwd(const RefQk *a, int64_t n, NormRow token)
{
    int64_t width = norm_width(a), parts = a->H * a->K / width;
    for (int64_t p = 0; p < parts; p++) {
        NormRow row = {.width = width,
                       .s = token.s + p * width,
                       .w = a->w,
                       .dy = token.dy + p * width,
                       .dy_mag = token.dy_mag + p * width,
                       .rstd = a->rstd[n * parts + p],
                       .ds = token.ds + p * width,
                       .ds_mag = token.ds_mag + p * width,
                       .dw = a->dw,
                       .dw_mag = a->dw_mag};
        norm_row_bwd(&row);
    }
}

/* The transposed steps in reverse order: rotation by -angle, norm backward with its input. */
static void qk_token_bwd(const RefQk *a, int64_t n, double *work)
{
    int64_t width = a->H * a->K;
    const double *x = a->x + n * width, *dy = a->dy + n * width;
    double *mid = work, *mid_mag = work + width, *dx = work + 2 * width, *mag = work + 3 * width;
    double *s = work + 4 * width, *dy_mag = work + 5 * width;
    for (int64_t i = 0; i < width; i++) {
        dx[i] = mag[i] = mid[i] = mid_mag[i] = 0;
        dy_mag[i] = fabs(dy[i]);
    }
    if (a->norm == QK_HEAD_AFTER_ROPE) {
        rotate(a, n, s, x, 1, false);
        norm_token_bwd(a, n, (NormRow){.s = s, .dy = dy, .dy_mag = dy_mag, .ds = mid,
                                       .ds_mag = mid_mag});
        rotate(a, n, dx, mid, -1, false);
        rotate(a, n, mag, mid_mag, -1, true);
    } else {
        rotate(a, n, mid, dy, -1, false);
        rotate(a, n, mid_mag, dy, -1, true);
        if (a->norm == QK_NONE)
            for (int64_t i = 0; i < width; i++) dx[i] = mid[i], mag[i] = mid_mag[i];
        else
            norm_token_bwd(a, n, (NormRow){.s = x, .dy = mid, .dy_mag = mid_mag, .ds = dx,
                                           .ds_mag = mag});
    }
    for (int64_t i = 0; i < width; i++) {
        a->dx[n * width + i] += dx[i];
        if (a->dx_mag) a->dx_mag[n * width + i] += mag[i];
    }
}

void ref_qk_bwd(const RefQk *a)
{
    double *work = malloc(sizeof *work * (size_t)(6 * a->H * a->K));
    for (int64_t n = 0; n < a->N; n++) qk_token_bwd(a, n, work);
    free(work);
}
