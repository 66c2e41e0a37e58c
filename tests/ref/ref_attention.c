/* tests/ref/ref_attention.c - attention, query by query; see ref.h. */
#include <math.h>

#include "tests/ref/ref.h"

/* One query: (batch, time, head), and the rows that belong to it. */
typedef struct Query {
    int64_t b, t, h, g;
    int64_t row; /* first element of its q, o, d_o, dq */
    int64_t lse; /* index of its lse */
} Query;

static Query query_at(const RefAttention *a, int64_t index)
{
    Query u;
    u.h = index % a->H;
    u.t = index / a->H % a->Tq;
    u.b = index / a->H / a->Tq;
    u.g = u.h / (a->H / a->G);
    u.row = index * a->K;
    u.lse = (u.b * a->H + u.h) * a->Tq + u.t;
    return u;
}

static int64_t key_row(const RefAttention *a, Query u, int64_t s)
{
    return ((u.b * a->Tk + s) * a->G + u.g) * a->K;
}

static bool sees(const RefAttention *a, Query u, int64_t s)
{
    int64_t key = a->k_pos0 + s;
    if (key > a->q_pos0 + u.t) return false;
    return !a->doc_start || key >= a->doc_start[u.b * a->Tq + u.t];
}

static double dot(const double *x, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static double dot_mag(const double *x, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs(x[i] * y[i]);
    return sum;
}

static double score(const RefAttention *a, Query u, int64_t s)
{
    return a->scale * dot(a->q + u.row, a->k + key_row(a, u, s), a->K);
}

/* Relative error of P = exp(score - lse) in units of the score's: scale sum |q k| + |lse| + 1. */
static double p_mag(const RefAttention *a, Query u, int64_t s, double lse)
{
    double A = fabs(a->scale) * dot_mag(a->q + u.row, a->k + key_row(a, u, s), a->K);
    return 1 + A + fabs(lse);
}

static double log_sum_exp(const RefAttention *a, Query u)
{
    double max = -INFINITY, sum = 0;
    for (int64_t s = 0; s < a->Tk; s++)
        if (sees(a, u, s)) max = fmax(max, score(a, u, s));
    if (max == -INFINITY) return max;
    for (int64_t s = 0; s < a->Tk; s++)
        if (sees(a, u, s)) sum += exp(score(a, u, s) - max);
    return max + log(sum);
}

static void query_fwd(const RefAttention *a, Query u)
{
    double lse = a->lse[u.lse] = log_sum_exp(a, u), worst = 1;
    for (int64_t s = 0; s < a->Tk; s++)
        if (sees(a, u, s)) worst = fmax(worst, p_mag(a, u, s, lse));
    if (a->lse_mag) a->lse_mag[u.lse] = worst;
    for (int64_t i = 0; i < a->K; i++) a->o[u.row + i] = 0;
    for (int64_t s = 0; s < a->Tk; s++) {
        if (!sees(a, u, s)) continue;
        double p = exp(score(a, u, s) - lse);
        for (int64_t i = 0; i < a->K; i++) {
            double pv = p * a->v[key_row(a, u, s) + i];
            a->o[u.row + i] += pv;
            if (a->o_mag) a->o_mag[u.row + i] += fabs(pv) * worst;
            if (a->o_half) a->o_half[u.row + i] += pv * pv;
        }
    }
}

static void roots(double *x, int64_t n)
{
    for (int64_t i = 0; x && i < n; i++) x[i] = sqrt(x[i]);
}

void ref_attention_fwd(const RefAttention *a)
{
    for (int64_t index = 0; index < a->B * a->Tq * a->H; index++) query_fwd(a, query_at(a, index));
    roots(a->o_half, a->B * a->Tq * a->H * a->K);
}

/* One (query, key) pair: P = exp(scale q.k - lse); dv += P do; dS = P (do.v - do.o);
 * dq += scale dS k; dk += scale dS q. */
static void pair_bwd(const RefAttention *a, Query u, int64_t s)
{
    const double *d_o = a->d_o + u.row, *o = a->o + u.row;
    int64_t row = key_row(a, u, s);
    double lse = a->lse[u.lse], p = exp(score(a, u, s) - lse), p_err = p_mag(a, u, s, lse);
    double dS = p * (dot(d_o, a->v + row, a->K) - dot(d_o, o, a->K)) * a->scale;
    double dS_mag = p * p_err * (dot_mag(d_o, a->v + row, a->K) + dot_mag(d_o, o, a->K));
    dS_mag *= fabs(a->scale);
    for (int64_t i = 0; i < a->K; i++) {
        double q = a->q[u.row + i], k = a->k[row + i];
        a->dv[row + i] += p * d_o[i];
        a->dq[u.row + i] += dS * k;
        a->dk[row + i] += dS * q;
        if (!a->dq_mag) continue;
        a->dv_mag[row + i] += p * p_err * fabs(d_o[i]);
        a->dq_mag[u.row + i] += dS_mag * fabs(k);
        a->dk_mag[row + i] += dS_mag * fabs(q);
        /* squares, rooted below; P is rounded once, dS is made of a rounded P and rounded itself */
        a->dv_half[row + i] += p * d_o[i] * p * d_o[i];
        a->dq_half[u.row + i] += 2 * dS * k * dS * k;
        a->dk_half[row + i] += 2 * dS * q * dS * q;
    }
}

void ref_attention_bwd(const RefAttention *a)
{
    for (int64_t index = 0; index < a->B * a->Tq * a->H; index++) {
        Query u = query_at(a, index);
        for (int64_t s = 0; s < a->Tk; s++)
            if (sees(a, u, s)) pair_bwd(a, u, s);
    }
    roots(a->dq_half, a->B * a->Tq * a->H * a->K);
    roots(a->dk_half, a->B * a->Tk * a->G * a->K);
    roots(a->dv_half, a->B * a->Tk * a->G * a->K);
}
