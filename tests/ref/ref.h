/* tests/ref/ref.h - the oracle: every operation of device/device.h as plain loops in double.
 *
 * Written from the contract, not from an implementation; slow and obvious on purpose. An operation
 * is a struct of double arrays and sizes (letters as in device/tensor.h). Forward functions write
 * their outputs. Backward functions ADD into every gradient array given (NULL: not wanted), so the
 * caller's starting values decide between "written" and "added". tests/test_ref.c holds each
 * backward against central differences of its forward.
 *
 * Arrays named X_mag get the sum of the magnitudes of the terms of X, and X_half the root of the
 * sum of squares of those terms that an implementation may round to bf16 on the way: tol.h turns
 * them into tolerances. NULL: not wanted. For bilinear operations the magnitude is the operation
 * itself on absolute values, so they have no such arrays.
 */
#ifndef ISOMOE_TESTS_REF_REF_H
#define ISOMOE_TESTS_REF_REF_H

#include "device/device.h"

/* y (N, O) = x (N, I) w (O, I)^T + bias (O). */
typedef struct RefLinear {
    int64_t N, O, I;
    double *x, *w, *bias, *y;
    double *dy, *dx, *dw, *dbias;
} RefLinear;
void ref_linear_fwd(const RefLinear *a);
void ref_linear_bwd(const RefLinear *a);

/* Expert e: rows row_begin[e] .. row_begin[e+1]-1 with w (E, O, I). */
typedef struct RefExpert {
    int64_t E, O, I;
    const int32_t *row_begin;
    double *x, *w, *y;
    double *dy, *dx, *dw;
} RefExpert;
void ref_expert_fwd(const RefExpert *a);
void ref_expert_bwd(const RefExpert *a);

/* Experts of own widths: expert e with w[e] (out[e], in[e]) on the first columns of its rows of
 * x (R, I) and y (R, O). */
typedef struct RefEach {
    int64_t E, O, I;
    const int32_t *row_begin;
    const int64_t *out, *in;
    double *x, *y, *dy, *dx;
    double *const *w, *const *dw;
} RefEach;
void ref_each_fwd(const RefEach *a);
void ref_each_bwd(const RefEach *a);

/* SwiGLU of rows of h (R, W), gu (R, 2W), of which expert e uses widths[e] and 2 widths[e]. */
typedef struct RefEachSwiglu {
    int64_t E, W;
    const int32_t *row_begin, *widths;
    double *gu, *h, *dh, *dgu, *dgu_mag;
} RefEachSwiglu;
void ref_each_swiglu_fwd(const RefEachSwiglu *a);
void ref_each_swiglu_bwd(const RefEachSwiglu *a);

/* x (N, D) = rows `tokens` of w (V, D). */
typedef struct RefEmbed {
    int64_t N, D;
    const int32_t *tokens;
    double *w, *x;
    double *dx, *dw;
} RefEmbed;
void ref_embed_fwd(const RefEmbed *a);
void ref_embed_bwd(const RefEmbed *a);

/* RMSNorm of s (N, D); the backward uses the rstd (N) that it is given. */
typedef struct RefNorm {
    int64_t N, D;
    double eps;
    double *s, *w, *y, *rstd;
    double *dy, *dx, *dw;
    double *dx_mag, *dw_mag;
} RefNorm;
void ref_rmsnorm_fwd(const RefNorm *a);
void ref_rmsnorm_bwd(const RefNorm *a);

/* h (R, F) = silu(g) u, gu (R, 2F) = [g | u]. */
typedef struct RefSwiglu {
    int64_t R, F;
    double *gu, *h;
    double *dh, *dgu, *dgu_mag;
} RefSwiglu;
void ref_swiglu_fwd(const RefSwiglu *a);
void ref_swiglu_bwd(const RefSwiglu *a);

/* RoPE and QK-norm of x (N, H, K); rope (positions, K/2, 2). */
typedef struct RefQk {
    int64_t N, H, K, T, pos0;
    QkNorm norm;
    double eps;
    double *rope, *x, *w, *y, *rstd;
    double *dy, *dx, *dw;
    double *y_mag, *dx_mag, *dw_mag;
} RefQk;
void ref_qk_fwd(const RefQk *a);
void ref_qk_bwd(const RefQk *a);

/* Attention. The backward takes o and lse as they are given. */
typedef struct RefAttention {
    int64_t B, Tq, Tk, H, G, K;
    double scale;
    int64_t q_pos0, k_pos0;
    const int32_t *doc_start; /* (B, Tq) or NULL */
    double *q, *k, *v, *o, *lse;
    double *d_o, *dq, *dk, *dv;
    double *o_mag, *o_half, *lse_mag;
    double *dq_mag, *dk_mag, *dv_mag, *dq_half, *dk_half, *dv_half;
} RefAttention;
void ref_attention_fwd(const RefAttention *a);
void ref_attention_bwd(const RefAttention *a);

/* Routing; arrays and options as in struct Routing and RouteOpt. */
typedef struct RefRoute {
    int64_t N, E, k;
    RouteMode mode;
    RouteScore score;
    bool renorm, drop_by_score;
    int64_t group_tokens, capacity, group0;
    int64_t blocks, blocks_top;
    double top_p, weight_scale;
    uint32_t layer;
    uint64_t seed;
    int64_t step;
    double aux_scale, z_scale, entropy_scale;
    double *bias, *balance_f, *balance_width; /* (E) or NULL */
    double *logits, *probs, *lse;
    int32_t *first, *expert, *row, *row_src, *row_begin, *load, *count;
    double *weight, *stats; /* stats (Gr, STAT_COUNT) */
    double *dweight, *dlogits, *dlogits_mag;
} RefRoute;
int64_t ref_route_rows(const RefRoute *a); /* rows of the expert buffer */
void ref_route_fwd(const RefRoute *a);     /* the next three */
void ref_route_scores(const RefRoute *a);  /* probs, lse */
void ref_route_assign(const RefRoute *a);  /* from probs: first, expert, row*, load, count, stats */
void ref_route_values(const RefRoute *a);  /* scores again; weight, STAT_AUX, _Z, _ENTROPY */
void ref_route_bwd(const RefRoute *a);     /* from probs, expert, count, logits, dweight */

/* Noisy gate (ref_gate.c): noise, and l_cv of each of the N / R groups. */
typedef struct RefGate {
    int64_t N, E, k, group_tokens, group0;
    uint32_t layer;
    uint64_t seed;
    int64_t step;
    double *clean, *raw, *noisy; /* (N, E) */
    double *dnoisy, *dclean, *draw;
    const int32_t *first;        /* (N, k) */
    double *loss;                /* (Gr) */
    double scale;                /* of the sum of l_cv, going back */
} RefGate;
void ref_gate_noise_fwd(const RefGate *a); /* noisy */
void ref_gate_noise_bwd(const RefGate *a); /* dnoisy to draw */
void ref_gate_cv_fwd(const RefGate *a);    /* loss */
void ref_gate_cv_bwd(const RefGate *a);    /* dnoisy, dclean, draw */

/* x (N, D) to and from an expert buffer xe or ye (rows, D). */
typedef struct RefCombine {
    int64_t N, D, k, rows;
    const int32_t *row, *row_src;
    double *x, *xe, *dx, *dxe;                   /* dispatch */
    double *weight, *base, *ye, *y;              /* combine */
    double *dy, *dye, *dweight;
} RefCombine;
void ref_dispatch_fwd(const RefCombine *a);
void ref_dispatch_bwd(const RefCombine *a);
void ref_combine_fwd(const RefCombine *a);
void ref_combine_bwd(const RefCombine *a);

/* Cross-entropy with w (V, D) holding the ids vocab0 .. vocab0+V-1. */
typedef struct RefCe {
    int64_t N, D, V, vocab0;
    double loss_scale;
    double logit_scale; /* factor on every logit; 0: 1 */
    const int32_t *targets;
    double *x, *w, *lse, *target_logit;
    double *dx, *dw;
    double *lse_mag, *target_mag, *dx_mag, *dx_half, *dw_mag, *dw_half;
} RefCe;
void ref_ce_fwd(const RefCe *a);
void ref_ce_bwd(const RefCe *a); /* uses lse as given */
/* sum[0] += sum over counted tokens of lse - target_logit, sum[1] += their number. */
void ref_nll_sum(double sum[2], const RefCe *a);

typedef struct RefAdamw {
    int64_t n;
    AdamwOpt opt;
    StepVars vars;
    double *w, *grad, *m, *v;            /* w, m, v updated in place */
    double *w_mag, *m_mag, *v_mag;
    int64_t runs;                        /* of lr_each, or 0 */
    const double *each;                  /* (runs) */
} RefAdamw;
void ref_adamw(const RefAdamw *a);
double ref_sqsum(const double *x, int64_t n);

/* The two neighbours of x in bf16 (one, if x is there): away from zero when the part of the step
 * between them that x has covered, plus bits / 65536, reaches 1. bits below 65536. */
double ref_round_random(double x, uint32_t bits);
/* Is `got` that for a number within `error` of x? */
bool ref_rounds_to(double got, double x, double error, uint32_t bits);

/* n matrices (A, B), always through G = X X^T. */
typedef struct RefMuon {
    int64_t n, A, B;
    MuonOpt opt;
    StepVars vars;
    double *w, *grad, *m;    /* w and m updated in place; m unrounded */
    double *w_mag, *m_mag;   /* an element of O counts with its matrix's rms at least */
    double *o;               /* (n, A, B) the orthogonalised updates */
    int64_t runs;            /* of lr_each, or 0 */
    const double *each;      /* (runs) */
} RefMuon;
void ref_muon(const RefMuon *a);

/* grad_norm, grad_scale, skip, z_norm and z_loss of *vars. history: the norms and mean losses taken
 * in so far, oldest first (2, taken); appended to by the caller if the result is true. loss: the
 * two sums, or NULL. */
bool ref_clip(StepVars *vars, double sum, const ClipOpt *opt, const double *loss,
              const double *norms, const double *losses, int64_t taken);

#endif
