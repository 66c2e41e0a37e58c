/* device/device.h - THE table of operations: everything that model/ and optim/ ask of a device.
 *
 * Callers use the dev_* wrappers below. A wrapper checks shapes and types (a mismatch is a
 * programmer's mistake: it aborts with both shapes), times the operation, adds its FLOPs and bytes
 * to the account, calls the device's entry (or the default made of other entries) and aborts with
 * the operation's name if the entry fails. Only making a device and allocating memory can fail as
 * the world fails; they return and fill an Err.
 *
 * Contracts that hold for every operation:
 *  - Tensors are dense row-major views into memory of this device. Activations, their gradients and
 *    matrix weights have the compute type (bf16 or f32, one type per call); norm weights, biases,
 *    router weights, all statistics and all gradients of parameters are f32. Accumulation is f32.
 *  - Gradients of parameters are ADDED into (dw += ...). Gradients of activations are written,
 *    or added to where a comment or a flag `..._add` says so.
 *  - Outputs do not overlap inputs unless the comment allows it.
 *  - The same call gives the same bits for any number of threads. Sums have a fixed order.
 *  - No operation waits for the host; row counts that depend on data stay on the device.
 *  - Distribution is foreseen: attention takes offsets and returns its log-sum-exp, cross-entropy
 *    takes a vocabulary shard, routing takes the global index of its first group.
 * N tokens, D width, O/I outputs/inputs of a linear map, R rows of an expert buffer; see tensor.h.
 */
#ifndef ISOMOE_DEVICE_DEVICE_H
#define ISOMOE_DEVICE_DEVICE_H

#include "base/err.h"
#include "device/tensor.h"

typedef struct Device Device;

/* Values that change from step to step, in device memory: written by dev_step_begin, read and (by
 * dev_clip) written by operations on the device. Host code reads them with dev_download. */
typedef struct StepVars {
    uint64_t seed;
    int64_t step;
    double lr;         /* base learning rate of this step */
    double bias1;      /* 1 - beta1^t of AdamW, t = updates made including this one */
    double bias2;      /* 1 - beta2^t */
    double loss_scale; /* 1 / targets of the global batch: d(loss)/d(sum of token losses) */
    double grad_norm;  /* set by dev_clip */
    double grad_scale; /* set by dev_clip: factor on every gradient */
    int64_t skip;      /* set by dev_clip: SKIP_..; not 0: the update does nothing */
    double z_norm;     /* set by dev_clip: standard deviations of this step's norm and mean loss */
    double z_loss;     /*   above the mean of the window; 0 while it is not full, or off */
} StepVars;

enum { SKIP_NO, SKIP_NOT_FINITE, SKIP_NORM, SKIP_LOSS }; /* of norm or loss; outliers of them */

/* ---- Linear maps ------------------------------------------------------------------------------*/

typedef struct LinearGrad {
    Tensor dx;    /* (N, I) or none */
    bool dx_add;  /* add into dx instead of writing it */
    Tensor dw;    /* (O, I) f32, added into; or none */
    Tensor dbias; /* (O) f32, added into; or none */
} LinearGrad;

/* y (N, O) = x (N, I) w (O, I)^T + bias (O) f32 (or none). y has x's type, or is f32. */
void dev_linear_fwd(Device *d, Tensor y, Tensor x, Tensor w, Tensor bias);
/* dx (+)= dy w; dw += dy^T x; dbias += column sums of dy. dy has x's type. */
void dev_linear_bwd(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w);

/* The same for E experts: rows row_begin[e] .. row_begin[e+1]-1 of x (R, I) and y (R, O) belong to
 * expert e with w (E, O, I). row_begin (E+1) i32 on the device, nondecreasing, row_begin[0] = 0;
 * rows of y from row_begin[E] on are left as they are. y has x's type. A row_begin of that shape
 * without memory (rows_equal) says that each expert has R / E rows, R being a multiple of E: where
 * rows are placed by capacity, so that a device knows them without reading. */
static inline Tensor rows_equal(int64_t experts)
{
    Tensor none = {NULL, {experts + 1}, 1, DT_I32};
    return none;
}

void dev_expert_linear_fwd(Device *d, Tensor y, Tensor x, Tensor w, Tensor row_begin);
/* g.dx (R, I) written or added to (rows from row_begin[E] on: whatever), g.dw (E, O, I) f32 added
 * into; no bias. */
void dev_expert_linear_bwd(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w,
                           Tensor row_begin);

/* ---- Embedding, norm, activation --------------------------------------------------------------*/

/* x (N, D) = rows `tokens` (N) i32 of w (V, D). Tokens are in 0..V-1. */
void dev_embed_fwd(Device *d, Tensor x, Tensor tokens, Tensor w);
/* dw (V, D) f32 += rows of dx (N, D), in token order. */
void dev_embed_bwd(Device *d, Tensor dw, Tensor dx, Tensor tokens);

typedef struct NormFwd {
    Tensor y;        /* (N, D) */
    Tensor rstd;     /* (N) f32: 1 / sqrt(mean(s^2) + eps) */
    Tensor x;        /* (N, D) */
    Tensor w;        /* (D) f32 */
    Tensor residual; /* (N, D) or none; then s = x + residual rounded to the type, else s = x */
    Tensor sum;      /* (N, D) receives s; given exactly when residual is; may be residual or x */
} NormFwd;

/* RMSNorm: y = s * rstd * w. */
void dev_rmsnorm_fwd(Device *d, NormFwd a, double eps);
/* With s^ = s rstd and g = dy w: dx += rstd (g - s^ mean(g s^)); dw (D) += column sums of dy s^.
 * dx (N, D) is ADDED into: it is the gradient of the residual stream. */
void dev_rmsnorm_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd);

/* h (R, F) = silu(g) u with gu (R, 2F) = [g | u]. */
void dev_swiglu_fwd(Device *d, Tensor h, Tensor gu);
/* dgu = [dh u silu'(g) | dh silu(g)], silu'(g) = s (1 + g (1 - s)), s = sigmoid(g).
 * dgu (R, 2F) may be gu. */
void dev_swiglu_bwd(Device *d, Tensor dgu, Tensor dh, Tensor gu);

/* ---- Experts of own widths ---------------------------------------------------------------------
 * Expert e has matrices of a width F_e of its own (HMoE, arXiv 2408.10681). Row buffers are as wide
 * as the widest expert; a row of expert e uses the first columns, as many as its matrix has. What
 * lies behind them is neither read nor written. row_begin (E+1) i32 as above (or rows_equal), E at
 * most EXPERTS_EACH_MAX; arrays of E are host memory. */

enum { EXPERTS_EACH_MAX = 256 };

/* Rows of expert e: y[:O_e] = x[:I_e] w[e] (O_e, I_e)^T. x (R, I), I at least every I_e; y (R, O),
 * O at least every O_e, x's type; its rows from row_begin[E] on are left as they are. */
void dev_expert_each_fwd(Device *d, Tensor y, Tensor x, const Tensor *w, Tensor row_begin);

typedef struct EachGrad {
    Tensor dx;        /* (R, I) or none; rows from row_begin[E] on: whatever */
    bool dx_add;      /* add into dx instead of writing it */
    const Tensor *dw; /* [E] (O_e, I_e) f32, added into; or NULL */
} EachGrad;

/* Rows of expert e: dx[:I_e] (+)= dy[:O_e] w[e]; dw[e] += dy^T x over its rows. */
void dev_expert_each_bwd(Device *d, EachGrad g, Tensor dy, Tensor x, const Tensor *w,
                         Tensor row_begin);

/* SwiGLU of rows of expert e with F = widths[e]: h[:F] = silu(g) u from gu[:2F] = [g | u]. h (R,
 * W), gu (R, 2W), W at least every width. */
void dev_expert_swiglu_fwd(Device *d, Tensor h, Tensor gu, const int32_t *widths,
                           Tensor row_begin);
/* dgu[:2F] = [dh u silu'(g) | dh silu(g)] as in dev_swiglu_bwd. dgu may be gu. */
void dev_expert_swiglu_bwd(Device *d, Tensor dgu, Tensor dh, Tensor gu, const int32_t *widths,
                           Tensor row_begin);

/* ---- Heads: rotation and QK-norm --------------------------------------------------------------*/

typedef enum QkNorm {
    QK_NONE, QK_HEAD_AFTER_ROPE, QK_HEAD_BEFORE_ROPE, QK_FULL_BEFORE_ROPE
} QkNorm;

typedef struct QkOpt {
    QkNorm norm;
    double eps;
    Tensor rope;  /* (positions, K/2, 2) f32: cos, sin of position * inverse frequency i */
    int64_t T;    /* token n of the N has position pos0 + n % T */
    int64_t pos0;
    bool dx_add;  /* backward: add into dx (a key shared by several layers) */
} QkOpt;

/* y (N, H, K) from x (N, H, K): RoPE in the NeoX form (pairs i, i + K/2):
 * y_i = x_i cos - x_{i+K/2} sin, y_{i+K/2} = x_{i+K/2} cos + x_i sin, and RMSNorm with w f32:
 * (K) over each head after or before the rotation, or (H*K) over all heads before it.
 * rstd (N, H), or (N, 1) for the full width, f32; w and rstd none for QK_NONE. y may be x only for
 * QK_NONE. */
void dev_qk_fwd(Device *d, Tensor y, Tensor rstd, Tensor x, Tensor w, const QkOpt *opt);
/* dx (N, H, K) from dy; dw added into. x is the forward input. */
void dev_qk_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd,
                const QkOpt *opt);

/* ---- Attention --------------------------------------------------------------------------------*/

typedef struct AttnOpt {
    double scale;     /* usually 1 / sqrt(K) */
    int64_t q_pos0;   /* position of query 0; query t may see key s iff */
    int64_t k_pos0;   /*   k_pos0 + s <= q_pos0 + t  and  k_pos0 + s >= doc_start[b][t] */
    Tensor doc_start; /* (B, Tq) i32, or none: documents are not separated */
    bool any_order;   /* backward: sums may be made in any order, with other last bits each time */
} AttnOpt;

typedef struct AttnTensors {
    Tensor q;   /* (B, Tq, H, K) */
    Tensor k;   /* (B, Tk, G, K); query head h reads key head h / (H / G) */
    Tensor v;   /* (B, Tk, G, K) */
    Tensor o;   /* (B, Tq, H, K) */
    Tensor lse; /* (B, H, Tq) f32: log of the sum of exp(scale q.k); -inf where nothing is seen */
} AttnTensors;

typedef struct AttnGrad {
    Tensor dq;   /* (B, Tq, H, K) written */
    Tensor dk;   /* (B, Tk, G, K) written */
    Tensor dv;   /* (B, Tk, G, K) written, or added to: */
    bool dv_add; /* (a value shared by several layers) */
} AttnGrad;

/* o = softmax(scale q k^T + mask) v. A query that sees no key gets o = 0. */
void dev_attention_fwd(Device *d, AttnTensors a, const AttnOpt *opt);
/* P = exp(scale q k^T - lse); dv = P^T do; dS = P (do v^T - rowsum(do o)); dq = scale dS k;
 * dk = scale dS^T q. d_o (B, Tq, H, K). */
void dev_attention_bwd(Device *d, AttnGrad g, Tensor d_o, AttnTensors a, const AttnOpt *opt);

/* ---- Routing ----------------------------------------------------------------------------------*/

typedef enum RouteMode {
    ROUTE_RECYCLE,
    ROUTE_DROPLESS,
    ROUTE_DROP,          /* as recycle, but what its expert has no room for stays unplaced */
    ROUTE_EXPERT_CHOICE, /* each expert takes the C tokens of the group that score it highest */
    ROUTE_REPLAY         /* routing.expert is given: recorded choices. Buffers of capacity C, or, of
                            capacity 0, as for dropless */
} RouteMode;

typedef enum RouteScore { SCORE_SOFTMAX, SCORE_SIGMOID } RouteScore;

typedef struct RouteOpt {
    RouteMode mode;
    int score;            /* RouteScore: softmax over all experts, or a sigmoid of each logit */
    bool renorm;          /* weights divided by their sum over the placed choices */
    double weight_scale;  /* factor on every weight; 1: none */
    bool drop_by_score;   /* ROUTE_DROP: an expert keeps the choices with the highest scores (ties:
                             earlier token), not those that come first in (rank, token) order */
    double top_p;         /* 0 < top_p < 1 (softmax only): a token takes experts by falling key
                             until the sum (f32) of their scores passes top_p, at most k; the rest
                             are -1. 0: off */
    int64_t blocks;       /* > 0: the experts are `blocks` equal runs, of which a token may use */
    int64_t blocks_top;   /*   the blocks_top best; a block's value: the sum (f32, largest first) of
                               its max(1, k / blocks_top) highest selection keys; ties: lower block.
                               Neither blocks, top_p nor bias where experts choose */
    Tensor bias;          /* (E) f32 or none: selection key = score + bias; never in the weights */
    int64_t group_tokens; /* R; N is a multiple of it. Dropless: only the balance loss uses it */
    int64_t capacity;     /* C: rows an expert has in each group; dropless: unread, 0 in a replay */
    int64_t group0;       /* global index of the first group: keys the random draws */
    uint32_t layer;       /* ditto */
    const StepVars *vars; /* device pointer; seed and step */
    double aux_scale;     /* factor on d(sum over groups of l_aux): coefficient / groups in all */
    double z_scale;       /* factor on d(sum over tokens of lse^2): coefficient / tokens in all */
    double entropy_scale; /* factor on d(sum over tokens of H): coefficient / tokens in all */
    Tensor balance_f;     /* (E) f32 or none: f_e of l_aux; none: of the group itself */
    Tensor balance_width; /* (E) f32 or none: factor on f_e: width of the expert / mean width (the
                             P-penalty of HMoE) */
} RouteOpt;

/* No capacity: rows of the expert buffer without gaps, N k at most. */
static inline bool route_is_compact(const RouteOpt *opt)
{
    return opt->mode == ROUTE_DROPLESS || (opt->mode == ROUTE_REPLAY && opt->capacity == 0);
}

enum { /* columns of Routing.stats, one row a group */
    STAT_AUX,      /* l_aux = E sum_e f_e P_e; f_e: share of the group's tokens with e among their
                      choices (before capacity), P_e: mean score, sigmoid scores of a token divided
                      by their sum over all experts (0 where that sum is 0). With balance_f,
                      balance_width: E sum_e balance_f_e balance_width_e P_e */
    STAT_Z,        /* sum over tokens of logsumexp(logits)^2 */
    STAT_OVERFLOW, /* choices that their expert had no room for */
    STAT_RECYCLED, /* of those, placed at another expert */
    STAT_UNPLACED, /* of those, placed nowhere (weight 0) */
    STAT_MAX_LOAD, /* largest number of choices (before capacity) that an expert got */
    STAT_CHOICES,  /* choices made: R k, fewer with top_p; expert choice: E min(C, R) */
    STAT_ENTROPY,  /* sum over tokens of H = -sum_e p_e log p_e, p as in P_e */
    STAT_COUNT
};

/* Everything that routing leaves for the rest of the layer; memory planned by the model. E experts,
 * k choices a token (expert choice: k = E slots, filled by ascending expert, then -1), Gr = N / R
 * groups. Rows of an expert buffer: dropless: R_rows = N * k, sorted by expert, then by token; else
 * R_rows = E * Gr * C, expert e, group g, place c is row (e * Gr + g) * C + c. Places are taken in
 * (token, choice) order, whoever came first, and the empty ones stand last: rows follow from
 * `expert` alone. */
typedef struct Routing {
    Tensor probs;     /* (N, E) f32: scores: softmax of the logits, or their sigmoids */
    Tensor first;     /* (N, k) i32: the choices: experts with the k largest selection keys, in
                         order (ties: lower expert); -1: none (top_p, expert choice) */
    Tensor expert;    /* (N, k) i32: the expert in force after capacity; -1 = unplaced, or none */
    Tensor row;       /* (N, k) i32: row of the expert buffer; -1 = unplaced */
    Tensor weight;    /* (N, k) f32: combine weight; 0 = unplaced */
    Tensor row_src;   /* (R_rows) i32: n * k + j of the choice in the row; -1 = empty */
    Tensor row_begin; /* (E + 1) i32 */
    Tensor load;      /* (Gr, E) i32: choices placed at the expert */
    Tensor count;     /* (Gr, E) i32: choices of the expert, before capacity */
    Tensor stats;     /* (Gr, STAT_COUNT) f32 */
} Routing;

/* logits (N, E) f32 = x (N, D) w (E, D)^T, w f32, x widened. */
void dev_router_fwd(Device *d, Tensor logits, Tensor x, Tensor w);
/* dx (N, D) ADDED into; dw (E, D) f32 added into. */
void dev_router_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogits, Tensor x, Tensor w);

/* Fills the Routing from logits (N, E). Selection keys are the logits themselves where nothing else
 * enters (no bias, no blocks; every score rises with its logit), else score + bias in f32. Capacity
 * (docs/MATH.md): per group, choices by rank (all first choices in token order, then all second
 * ones, ...) take places while their expert has room. Recycling: the lost ones, in (rank, token)
 * order, are matched one to one to the free places in random order: free places are listed by
 * expert, place i gets the key philox_u32(key, pass << 20 | i), the list is sorted by (key, i). A
 * match to an expert that the token already has leaves both unmatched; they are tried again in at
 * most 4 further passes (fresh keys, list rebuilt). Expert choice: expert e takes the C tokens of
 * the group with the highest scores p_e (ties: earlier token); all R if C is larger. The weight of
 * a choice is weight_scale times the score of the expert in force, with renorm over the sum of the
 * placed ones (all 0 where that sum is 0). Philox key: {seed, RNG_RECYCLE, layer, step << 32 |
 * group}. Replay: routing.expert (N, k) is read (-1: unplaced; at most C of a group at one expert);
 * the rest follows as for recycle: `first` is what would have been chosen, and a choice that is
 * elsewhere counts as overflow. */
void dev_route_fwd(Device *d, Routing *r, Tensor logits, const RouteOpt *opt);
/* dlogits (N, E) f32 written: from dweight (N, k) f32 through weights and scores, plus the balance
 * loss (aux_scale E f_e / R on each P term), the z-loss (z_scale 2 lse softmax_e) and the entropy
 * (entropy_scale dH). Choices, f_e and bias have no gradient. */
void dev_route_bwd(Device *d, Tensor dlogits, const Routing *r, Tensor dweight, Tensor logits,
                   const RouteOpt *opt);

/* Noisy gate in training (Shazeer et al. 2017; LLaMA-MoE): noisy (N, E) = clean + eps s, s =
 * softplus(raw) + 0.01, eps standard normal number n E + e of the Philox stream {seed, RNG_GATE,
 * layer, step << 32 | group}, n the token in its group of R. All f32. Uses group_tokens, group0,
 * layer, vars of opt. noisy may be clean only where the balance below is not used. */
void dev_gate_noise_fwd(Device *d, Tensor noisy, Tensor clean, Tensor raw, const RouteOpt *opt);
/* draw (N, E) written = dnoisy eps sigmoid(raw); the gradient of clean is dnoisy itself. */
void dev_gate_noise_bwd(Device *d, Tensor draw, Tensor dnoisy, Tensor raw, const RouteOpt *opt);

typedef struct GateCv {
    Tensor noisy, clean, raw;     /* (N, E) f32 as above */
    Tensor first;                 /* (N, k) i32: the choices by noisy logits */
    Tensor loss;                  /* (Gr) f32: forward writes l_cv of each group */
    Tensor dnoisy, dclean, draw;  /* (N, E) f32, backward ADDS into each */
} GateCv;

/* Per group l_cv = CV2(importance) + CV2(load), CV2(v) = unbiased variance / (mean^2 + 1e-10) over
 * the E experts; importance_e = sum over tokens of the softmax over the token's chosen noisy logits
 * (0 if not chosen); load_e = sum over tokens of Phi((clean_e - t_e) / s_e), t_e the (k+1)-th
 * largest noisy logit of the token where e is among its k choices, else the k-th. Needs k < E. The
 * gradient takes the order as constant; t_e is a noisy logit and has a gradient. backward: times
 * `scale` = coefficient / groups in all. */
void dev_gate_cv_fwd(Device *d, const GateCv *a, const RouteOpt *opt);
void dev_gate_cv_bwd(Device *d, const GateCv *a, double scale, const RouteOpt *opt);

/* y = tanh(x), f32 of one shape: the hidden layer of a router of two. y may be x. */
void dev_tanh_fwd(Device *d, Tensor y, Tensor x);
/* dx = dy (1 - y^2), from the forward result y. dx may be dy. */
void dev_tanh_bwd(Device *d, Tensor dx, Tensor dy, Tensor y);

/* total (L, E) f64 += sum over micro-batches and groups of counts (M, L, Gr, E) i32. */
void dev_count_sum(Device *d, Tensor total, Tensor counts);
/* After a step, from total (L, E) f64: f (L, E) f32 written = total / tokens; bias (L, E) f32 +=
 * rate sign(mean over the layer's experts - total), sign(0) = 0 (DeepSeek-V3). f and bias may each
 * be none. */
void dev_balance_update(Device *d, Tensor f, Tensor bias, Tensor total, double tokens, double rate);

/* xe (R_rows, D): row r = x (N, D) at token row_src[r] / k, zeros if empty. */
void dev_dispatch_fwd(Device *d, Tensor xe, Tensor x, const Routing *r);
/* dx (N, D) written: sum over j of dxe at row[n][j], in order of j. */
void dev_dispatch_bwd(Device *d, Tensor dx, Tensor dxe, const Routing *r);

/* y (N, D) = base (N, D; or none) + sum over j of weight[n][j] ye[row[n][j]]. y may be base. */
void dev_combine_fwd(Device *d, Tensor y, Tensor base, Tensor ye, const Routing *r);
/* dye (R_rows, D) written: weight dy at the row's token, zeros if empty; dweight (N, k) f32
 * written: dy . ye, 0 if unplaced. dye may be ye. */
void dev_combine_bwd(Device *d, Tensor dye, Tensor dweight, Tensor dy, Tensor ye,
                     const Routing *r);

/* ---- Loss -------------------------------------------------------------------------------------*/

typedef struct CeOpt {
    int64_t vocab0;       /* id of row 0 of w: w is a shard of the vocabulary */
    const StepVars *vars; /* device pointer; loss_scale. Backward only */
    double logit_scale;   /* s, factor on every logit (width transfer); 0: 1 */
} CeOpt;

/* Linear + cross-entropy; logits z = s x w^T (f32) exist only chunk by chunk. x (N, D), w (V, D),
 * targets (N) i32, -1 = not counted. lse (N) f32: log sum exp z over this shard; target_logit (N)
 * f32: z at the target, 0 where the target is not in this shard. Both filled for every token. */
void dev_ce_fwd(Device *d, Tensor lse, Tensor target_logit, Tensor x, Tensor w, Tensor targets,
                const CeOpt *opt);
/* dz = s loss_scale (exp(z - lse) - onehot(target)), 0 where not counted: the gradient of x w^T; dx
 * (N, D) written = dz w, dw (V, D) f32 += dz^T x. lse is the one over the whole vocabulary. Uses
 * g.dx, g.dw. */
void dev_ce_bwd(Device *d, LinearGrad g, Tensor x, Tensor w, Tensor targets, Tensor lse,
                const CeOpt *opt);

typedef struct CeTrain {
    Tensor lse, target_logit; /* (N) f32 written */
    Tensor dx;                /* (N, D) written */
    Tensor dw;                /* (V, D) f32 added into */
} CeTrain;

/* Forward and backward in one pass over chunks of rows; w is the whole vocabulary (vocab0 = 0).
 * Optional entry; the default is ce_fwd + ce_bwd. */
void dev_ce_train(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt);

/* sum (2) f64: sum[0] += sum over counted tokens of lse - target_logit; sum[1] += their number. */
void dev_nll_sum(Device *d, Tensor sum, Tensor lse, Tensor target_logit, Tensor targets);

/* ---- Optimizer --------------------------------------------------------------------------------*/

typedef struct AdamwTensors {
    Tensor master; /* f32, updated */
    Tensor weight; /* bf16 copy, written; or none */
    Tensor grad;   /* f32 */
    Tensor m, v;   /* f32, or both bf16; updated */
} AdamwTensors;

/* Moments in bf16 are computed and used in f32, then stored with stochastic rounding keyed by
 * element: away from zero when the 16 bits that are dropped plus 16 random bits carry, so that the
 * expectation is the f32 value. Element i uses word first + i (below 2^34) of the Philox stream
 * {seed, RNG_ROUND, stream, step}: the low half for m, the high half for v. NaN and infinity
 * stay. */
typedef struct Rounding {
    uint32_t stream; /* index of the parameter */
    uint64_t first;  /* index of element 0 in it */
} Rounding;

typedef struct AdamwOpt {
    double beta1, beta2, eps, weight_decay;
    double lr_ratio; /* factor on vars->lr */
    Tensor lr_each;  /* (n) f32 or none: the elements are n equal runs, one behind the other (the
                        experts of a layer); run i has the further factor lr_each[i] */
    Rounding rounding;
} AdamwOpt;

/* AdamW (Loshchilov & Hutter 2019): g = grad grad_scale; m = b1 m + (1-b1) g; v = b2 v + (1-b2)
 * g^2; w -= lr lr_ratio lr_each ((m / bias1) / (sqrt(v / bias2) + eps) + weight_decay w). All
 * tensors of one size. Does nothing when vars->skip. */
void dev_adamw(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars);

typedef struct AdamwRow {
    AdamwTensors t;
    AdamwOpt opt;
} AdamwRow;

/* dev_adamw of n rows, with the same bits; moments of all rows have one type. Optional entry: on a
 * GPU a few launches whatever n is, from a table in device memory that is made when the rows are
 * not those of the call before. */
void dev_adamw_rows(Device *d, const AdamwRow *rows, int n, const StepVars *vars);

typedef struct MuonTensors {
    Tensor master; /* (n, A, B) f32: n matrices; updated */
    Tensor weight; /* (n, A, B) bf16 copy, written; or none */
    Tensor grad;   /* (n, A, B) f32 */
    Tensor m;      /* (n, A, B) f32 or bf16; updated */
    Tensor work;   /* (W) f32, W at least dev_muon_work(A, B); n times that many and fewer let so
                      many matrices run together, with the same bits. Contents: whatever */
} MuonTensors;

typedef struct MuonOpt {
    double momentum, weight_decay;
    double lr_ratio; /* factor on vars->lr */
    Tensor lr_each;  /* (E) f32 or none, n a multiple of E: matrix i has the further factor
                        lr_each[i / (n / E)] */
    Rounding rounding;
} MuonOpt;

/* Elements of work for one matrix. */
int64_t dev_muon_work(int64_t A, int64_t B);

/* Muon (Jordan 2024) with the update's size of Moonlight (arXiv 2502.16982), each matrix by itself:
 * g = grad grad_scale; m = momentum m + g; u = g + momentum m (Nesterov); X = u / (|u|_F + 1e-7);
 * five times X = a X + (b G + c G^2) X with G = X X^T, a 3.4445, b -4.7750, c 2.0315 (where A > B,
 * G = X^T X on the right of X: the same numbers); w -= lr lr_ratio lr_each (0.2 sqrt(max(A, B)) X +
 * weight_decay w). All products f32. Does nothing when vars->skip. */
void dev_muon(Device *d, MuonTensors t, const MuonOpt *opt, const StepVars *vars);

/* sum (1) f64 += sum of x^2. */
void dev_sqsum(Device *d, Tensor sum, Tensor x);
/* sum (1) f64 += sum of (a - b)^2; a and b f32 of one shape. */
void dev_sqdiff(Device *d, Tensor sum, Tensor a, Tensor b);
typedef struct ClipOpt {
    double max_norm; /* 0: no clipping */
    double z_max;    /* 0: outliers are not looked for */
    int64_t window;  /* W, at least 2 */
    Tensor loss;     /* (2) f64: sum of the step's token losses, their number; or none */
    Tensor history;  /* (1 + 2 W) f64, zeros at first, updated: number of steps taken in, ring of
                        norms, ring of mean losses (step i of those taken in is at i % W); none if
                        z_max is 0 */
} ClipOpt;

/* From sum (1) f64: grad_norm = sqrt(sum); grad_scale = min(1, max_norm / norm) (without meaning
 * where the norm is not finite). skip: SKIP_NOT_FINITE if norm or mean loss is not finite; else
 * SKIP_NORM, or else SKIP_LOSS, if that lies more than z_max population standard deviations above
 * the mean of the last W steps, once W have been taken in. Then the step is taken in, also if it is
 * an outlier: a lasting change is one for a few steps only, where a window of accepted steps would
 * refuse the new level for ever. What is not finite is not (mean and deviation would not be
 * numbers while it is in the window), nor a step without targets. vars is a device pointer. */
void dev_clip(Device *d, StepVars *vars, Tensor sum, const ClipOpt *opt);
/* Copies *host over *vars (device pointer). */
void dev_step_begin(Device *d, StepVars *vars, const StepVars *host);

/* ---- Graphs -----------------------------------------------------------------------------------*/

/* The operations between begin and end are one unit that a device may record and replay: launched
 * at once, with no work on the host between them. Two units with one key must issue the same
 * operations on the same memory with the same numbers; only what lies in device memory (StepVars,
 * rates) and what is uploaded inside may differ. The first unit of a key runs as ever, the second
 * is recorded, later ones replay; another key begins anew. A replayed unit whose operations (name,
 * FLOPs, bytes) differ from those recorded is a programmer's mistake and aborts. Inside, nothing is
 * downloaded, allocated, freed or waited for. Devices without graphs run everything as ever. */
void dev_graph_begin(Device *d, uint64_t key);
void dev_graph_end(Device *d);

/* ---- Memory and plain operations --------------------------------------------------------------*/

/* Memory of the device, 64-byte aligned, uninitialised; NULL and Err when there is not enough. */
void *dev_alloc(Device *d, int64_t bytes, const char *what, Err *e);
void dev_free(Device *d, void *memory);
void dev_upload(Device *d, Tensor dst, const void *host);    /* host array of dst's type and size */
void dev_download(Device *d, void *host, Tensor src);        /* waits for the device */
void dev_copy(Device *d, Tensor dst, Tensor src);            /* one type, one size */
void dev_cast(Device *d, Tensor dst, Tensor src);            /* f32 <-> bf16 */
void dev_fill(Device *d, Tensor t, double value);            /* any type */
void dev_add(Device *d, Tensor y, Tensor a, Tensor b);       /* y = a + b; y may be a or b */
void dev_sync(Device *d);

/* Promises that w (2-D, or 3-D of experts) only changes between calls of dev_weights_changed, so
 * that a device may keep packed copies. Optional entry; the default does nothing. */
void dev_weight_hint(Device *d, Tensor w);
void dev_weights_changed(Device *d);

/* ---- Devices ----------------------------------------------------------------------------------*/

typedef struct DeviceOptions {
    int threads; /* CPU: 0 = all that the affinity mask allows (OMP_NUM_THREADS respected) */
} DeviceOptions;

/* name: "cpu", "cuda", "auto" or "dry" (checks and books operations, computes nothing; what is
 * downloaded is zeros). NULL and Err on failure. */
Device *device_create(const char *name, const DeviceOptions *options, Err *e);
void device_destroy(Device **d);
const char *device_name(const Device *d);    /* "cpu" */
const char *device_variant(const Device *d); /* "amx", "avx512", ..: what bits depend on */
int device_threads(const Device *d);
/* One line on what runs attention: a library and its version, or "own kernels: why". */
const char *device_attention(Device *d);
/* A GPU as its memory is planned for; sm 0: the device is none. */
typedef struct DeviceGpu {
    int sm;         /* compute capability: 90 */
    int64_t memory; /* bytes of it all */
    bool library;   /* attention's library (cuDNN) is there */
} DeviceGpu;
DeviceGpu device_gpu(Device *d);
/* Most workspace in bytes that a call of attention's library may take from now on; what needs more
 * goes to the own kernels. By default sdpa_most(memory). Nothing on a device that is no GPU. */
void device_limit_attention(Device *d, int64_t bytes);
/* Why "auto" took the CPU although this build has the CUDA device; "" if it did not or has none. */
const char *device_why_cpu(const Device *d);
bool device_cuda_built(void);

/* Account of one operation since the last reset. */
typedef struct DeviceAccount {
    const char *name;
    int64_t calls, flops, bytes; /* FLOPs of products (2 a multiply-add); bytes that must move */
    double seconds;
} DeviceAccount;

int device_accounts(const Device *d, const DeviceAccount **accounts); /* returns how many */
void device_reset_accounts(Device *d);
int64_t device_scratch_bytes(const Device *d); /* scratch memory that the device holds itself */
/* Takes scratch memory for operations that need up to `bytes` now, so that they do not run out of
 * memory later, where it would abort; 0, or -1 with Err. Nothing on a device that is no GPU. */
int device_reserve_scratch(Device *d, int64_t bytes, Err *e);

/* Bytes that new tensors can have at most: of a GPU what is free; of the CPU all memory and swap of
 * the machine or of the control group, whatever else runs there. -1: not known. */
int64_t device_memory_room(const Device *d);

/* Share of time: register-only loop of the best matrix instruction, FLOP/s over all threads; and
 * the STREAM triad, bytes/s over all threads. Measured now, about `seconds` each. */
double device_matrix_peak(Device *d, DType type, double seconds);
double device_memory_peak(Device *d, double seconds);

#endif
