/* tests/test_ref.c - the oracle's backward functions against central differences of its forward
 * ones, and values worked out by hand. Everything in double, so a difference of 1e-6 is a mistake.
 *
 * Each test makes the arrays of one operation, the gradient of L = sum(c * output) with random c by
 * the backward function, and (L(x + h) - L(x - h)) / 2h for every element x of every input.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "tests/ref/harness.h"
#include "tests/ref/ref.h"

#define STEP 1e-5
#define LIMIT 1e-6

enum { POOL = 1 << 16 };
static double pool[POOL]; /* arrays of one test */
static int used;
static Rig *rng;

static int setup(void **state)
{
    (void)state;
    used = 0;
    rng = rig_new("ref", "differences");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_free(rng);
    return 0;
}

static double *zeros(int64_t n)
{
    double *x = pool + used;
    used += (int)n;
    assert_true(used <= POOL);
    memset(x, 0, sizeof *x * (size_t)n);
    return x;
}

static double *normals(int64_t n)
{
    double *x = zeros(n);
    for (int64_t i = 0; i < n; i++) x[i] = rig_normal(rng);
    return x;
}

static double product(const double *c, const double *y, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += c[i] * y[i];
    return sum;
}

/* Relative error over the whole array: |difference| / |gradient|. */
static void check_gradient(const char *name, double *x, const double *grad, int64_t n,
                           double (*loss)(const void *), const void *a)
{
    double error = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double x0 = x[i];
        x[i] = x0 + STEP;
        double up = loss(a);
        x[i] = x0 - STEP;
        double slope = (up - loss(a)) / (2 * STEP);
        x[i] = x0;
        error += (slope - grad[i]) * (slope - grad[i]);
        size += grad[i] * grad[i];
    }
    loss(a);
    if (!(sqrt(error) < LIMIT * sqrt(size)) || size == 0)
        fail_msg("d/d%s: relative error %g", name, sqrt(error / size));
}

static double linear_loss(const void *p)
{
    const RefLinear *a = p;
    ref_linear_fwd(a);
    return product(a->dy, a->y, a->N * a->O);
}

static void linear(void **state)
{
    (void)state;
    int64_t N = 3, O = 4, I = 5;
    RefLinear a = {.N = N, .O = O, .I = I, .x = normals(N * I), .w = normals(O * I),
                   .bias = normals(O), .y = zeros(N * O), .dy = normals(N * O),
                   .dx = zeros(N * I), .dw = zeros(O * I), .dbias = zeros(O)};
    ref_linear_bwd(&a);
    check_gradient("x", a.x, a.dx, N * I, linear_loss, &a);
    check_gradient("w", a.w, a.dw, O * I, linear_loss, &a);
    check_gradient("bias", a.bias, a.dbias, O, linear_loss, &a);
}

static double expert_loss(const void *p)
{
    const RefExpert *a = p;
    ref_expert_fwd(a);
    return product(a->dy, a->y, a->row_begin[a->E] * a->O);
}

static void expert(void **state)
{
    (void)state;
    const int32_t begin[] = {0, 2, 2, 5};
    int64_t E = 3, R = 5, O = 3, I = 4;
    RefExpert a = {.E = E, .O = O, .I = I, .row_begin = begin, .x = normals(R * I),
                   .w = normals(E * O * I), .y = zeros(R * O), .dy = normals(R * O),
                   .dx = zeros(R * I), .dw = zeros(E * O * I)};
    ref_expert_bwd(&a);
    check_gradient("x", a.x, a.dx, R * I, expert_loss, &a);
    check_gradient("w", a.w, a.dw, E * O * I, expert_loss, &a);
}

static double each_loss(const void *p)
{
    const RefEach *a = p;
    ref_each_fwd(a);
    double sum = 0;
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t r = a->row_begin[e]; r < a->row_begin[e + 1]; r++)
            sum += product(a->dy + r * a->O, a->y + r * a->O, a->out[e]);
    return sum;
}

/* Unused columns of x and dy hold values; dx stays 0 there, as the differences say. */
static void each(void **state)
{
    (void)state;
    const int32_t begin[] = {0, 2, 2, 5};
    const int64_t out[] = {3, 5, 2}, in[] = {4, 1, 6};
    int64_t E = 3, R = 5, O = 5, I = 6;
    double *w[] = {normals(12), normals(5), normals(12)};
    double *dw[] = {zeros(12), zeros(5), zeros(12)};
    RefEach a = {.E = E, .O = O, .I = I, .row_begin = begin, .out = out, .in = in,
                 .x = normals(R * I), .y = zeros(R * O), .dy = normals(R * O),
                 .dx = zeros(R * I), .w = w, .dw = dw};
    ref_each_bwd(&a);
    check_gradient("x", a.x, a.dx, R * I, each_loss, &a);
    check_gradient("w[0]", w[0], dw[0], 12, each_loss, &a);
    check_gradient("w[2]", w[2], dw[2], 12, each_loss, &a);
}

static double each_swiglu_loss(const void *p)
{
    const RefEachSwiglu *a = p;
    ref_each_swiglu_fwd(a);
    double sum = 0;
    for (int64_t e = 0; e < a->E; e++)
        for (int64_t r = a->row_begin[e]; r < a->row_begin[e + 1]; r++)
            sum += product(a->dh + r * a->W, a->h + r * a->W, a->widths[e]);
    return sum;
}

static void each_swiglu(void **state)
{
    (void)state;
    const int32_t begin[] = {0, 1, 4}, widths[] = {5, 2};
    RefEachSwiglu a = {.E = 2, .W = 5, .row_begin = begin, .widths = widths, .gu = normals(40),
                       .h = zeros(20), .dh = normals(20), .dgu = zeros(40)};
    ref_each_swiglu_bwd(&a);
    check_gradient("gu", a.gu, a.dgu, 40, each_swiglu_loss, &a);
}

static double embed_loss(const void *p)
{
    const RefEmbed *a = p;
    ref_embed_fwd(a);
    return product(a->dx, a->x, a->N * a->D);
}

static void embed(void **state)
{
    (void)state;
    const int32_t tokens[] = {3, 0, 3, 1};
    RefEmbed a = {.N = 4, .D = 3, .tokens = tokens, .w = normals(15), .x = zeros(12),
                  .dx = normals(12), .dw = zeros(15)};
    ref_embed_bwd(&a);
    check_gradient("w", a.w, a.dw, 15, embed_loss, &a);
}

static double rmsnorm_loss(const void *p)
{
    const RefNorm *a = p;
    ref_rmsnorm_fwd(a);
    return product(a->dy, a->y, a->N * a->D);
}

static void rmsnorm(void **state)
{
    (void)state;
    int64_t N = 3, D = 7;
    RefNorm a = {.N = N, .D = D, .eps = 0.1, .s = normals(N * D), .w = normals(D),
                 .y = zeros(N * D), .rstd = zeros(N), .dy = normals(N * D), .dx = zeros(N * D),
                 .dw = zeros(D)};
    ref_rmsnorm_fwd(&a);
    ref_rmsnorm_bwd(&a);
    check_gradient("s", a.s, a.dx, N * D, rmsnorm_loss, &a);
    check_gradient("w", a.w, a.dw, D, rmsnorm_loss, &a);
}

static double swiglu_loss(const void *p)
{
    const RefSwiglu *a = p;
    ref_swiglu_fwd(a);
    return product(a->dh, a->h, a->R * a->F);
}

static void swiglu(void **state)
{
    (void)state;
    int64_t R = 3, F = 5;
    RefSwiglu a = {.R = R, .F = F, .gu = normals(2 * R * F), .h = zeros(R * F),
                   .dh = normals(R * F), .dgu = zeros(2 * R * F)};
    ref_swiglu_bwd(&a);
    check_gradient("gu", a.gu, a.dgu, 2 * R * F, swiglu_loss, &a);
}

static double qk_loss(const void *p)
{
    const RefQk *a = p;
    ref_qk_fwd(a);
    return product(a->dy, a->y, a->N * a->H * a->K);
}

static void qk(void **state)
{
    (void)state;
    for (int norm = QK_NONE; norm <= QK_FULL_BEFORE_ROPE; norm++) {
        used = 0;
        int64_t N = 5, H = 3, K = 4, size = N * H * K;
        RefQk a = {.N = N, .H = H, .K = K, .T = 3, .pos0 = 2, .norm = norm, .eps = 0.1,
                   .rope = zeros(5 * K), .x = normals(size), .w = normals(H * K),
                   .y = zeros(size), .rstd = zeros(N * H), .dy = normals(size),
                   .dx = zeros(size), .dw = zeros(H * K)};
        for (int i = 0; i < 5 * K / 2; i++) {
            a.rope[2 * i] = cos(0.7 * i);
            a.rope[2 * i + 1] = sin(0.7 * i);
        }
        ref_qk_fwd(&a);
        ref_qk_bwd(&a);
        check_gradient("x", a.x, a.dx, size, qk_loss, &a);
        if (norm == QK_NONE) continue;
        check_gradient("w", a.w, a.dw, norm == QK_FULL_BEFORE_ROPE ? H * K : K, qk_loss, &a);
    }
}

static double attention_loss(const void *p)
{
    const RefAttention *a = p;
    ref_attention_fwd(a);
    return product(a->d_o, a->o, a->B * a->Tq * a->H * a->K);
}

static void attention(void **state)
{
    (void)state;
    const int32_t docs[] = {0, 0, 4, 4, 4, 0, 2, 2, 5, 5};
    for (int with_docs = 0; with_docs < 2; with_docs++) {
        used = 0;
        int64_t B = 2, Tq = 5, Tk = 6, H = 4, G = 2, K = 3;
        int64_t nq = B * Tq * H * K, nk = B * Tk * G * K;
        RefAttention a = {.B = B, .Tq = Tq, .Tk = Tk, .H = H, .G = G, .K = K, .scale = 0.7,
                          .q_pos0 = 2, .k_pos0 = 1, .doc_start = with_docs ? docs : NULL,
                          .q = normals(nq), .k = normals(nk), .v = normals(nk), .o = zeros(nq),
                          .lse = zeros(B * H * Tq), .d_o = normals(nq), .dq = zeros(nq),
                          .dk = zeros(nk), .dv = zeros(nk)};
        ref_attention_fwd(&a);
        ref_attention_bwd(&a);
        check_gradient("q", a.q, a.dq, nq, attention_loss, &a);
        check_gradient("k", a.k, a.dk, nk, attention_loss, &a);
        check_gradient("v", a.v, a.dv, nk, attention_loss, &a);
    }
}

/* Weights, balance loss, z-loss and entropy together; the assignment stays as it is. */
static double route_loss(const void *p)
{
    const RefRoute *a = p;
    ref_route_values(a);
    double sum = product(a->dweight, a->weight, a->N * a->k);
    for (int64_t g = 0; g < a->N / a->group_tokens; g++) {
        sum += a->aux_scale * a->stats[g * STAT_COUNT + STAT_AUX];
        sum += a->z_scale * a->stats[g * STAT_COUNT + STAT_Z];
        sum += a->entropy_scale * a->stats[g * STAT_COUNT + STAT_ENTROPY];
    }
    return sum;
}

typedef struct RouteArrays {
    int32_t first[64], expert[64], row[64], row_src[256], row_begin[16], load[64], count[64];
} RouteArrays;

static RefRoute route_case(RouteArrays *i, int64_t N, int64_t E, int64_t k, int64_t R, int64_t C)
{
    return (RefRoute){.N = N, .E = E, .k = k, .weight_scale = 1, .group_tokens = R, .capacity = C,
                      .seed = 5, .step = 7, .layer = 3, .logits = normals(N * E),
                      .probs = zeros(N * E), .lse = zeros(N), .first = i->first,
                      .expert = i->expert, .row = i->row, .row_src = i->row_src,
                      .row_begin = i->row_begin, .load = i->load, .count = i->count,
                      .weight = zeros(N * k), .stats = zeros(N / R * STAT_COUNT),
                      .dweight = normals(N * k), .dlogits = zeros(N * E)};
}

/* Kinds of routing by their gradients; bits 1, 2, 4: sigmoid, renormalised, given f and width. */
static void route_gradients(RouteMode mode, int kind, bool entropy)
{
    used = 0;
    RouteArrays arrays;
    bool by_expert = mode == ROUTE_EXPERT_CHOICE;
    RefRoute a = route_case(&arrays, 12, 5, by_expert ? 5 : 2, 6, 2);
    a.mode = mode;
    a.score = kind & 1 ? SCORE_SIGMOID : SCORE_SOFTMAX;
    a.renorm = kind & 2;
    a.weight_scale = 1.7;
    a.aux_scale = 0.3;
    a.z_scale = 0.05;
    a.entropy_scale = entropy ? 0.2 : 0;
    a.drop_by_score = true;
    if (kind & 4) {
        a.balance_f = normals(5);
        a.balance_width = normals(5);
    }
    if (!by_expert) a.bias = normals(5);
    ref_route_fwd(&a);
    ref_route_bwd(&a);
    check_gradient("logits", a.logits, a.dlogits, 60, route_loss, &a);
}

static void route(void **state)
{
    (void)state;
    for (int kind = 0; kind < 16; kind++)
        for (RouteMode mode = ROUTE_RECYCLE; mode <= ROUTE_EXPERT_CHOICE; mode++)
            route_gradients(mode, kind, kind & 8);
}

/* Choices by hand: two blocks of three, where the best expert is not in the best pair of blocks. */
static void route_blocks(void **state)
{
    (void)state;
    RouteArrays arrays;
    RefRoute a = route_case(&arrays, 1, 6, 2, 1, 1);
    const double logits[6] = {0.5, -9, -8, 0.1, 0.2, -7};
    memcpy(a.logits, logits, sizeof logits);
    a.blocks = 2;
    a.blocks_top = 1; /* the sum of two scores decides: 0.1 and 0.2 against 0.5 and nothing */
    ref_route_fwd(&a);
    assert_true(arrays.first[0] == 4 && arrays.first[1] == 3);
    a.blocks_top = 2;
    ref_route_fwd(&a);
    assert_true(arrays.first[0] == 0 && arrays.first[1] == 4);
    a.blocks = 0;
    a.top_p = 0.3; /* the best has 0.39 of the sum */
    ref_route_fwd(&a);
    assert_true(arrays.first[0] == 0 && arrays.first[1] == -1);
    assert_true(a.stats[STAT_CHOICES] == 1);
}

/* The worked example of the paper's figure: A, C, D want expert 1 (here 0), B wants expert 4. */
static void route_toy(void **state)
{
    (void)state;
    RouteArrays arrays;
    RefRoute a = route_case(&arrays, 4, 5, 1, 4, 2);
    for (int i = 0; i < 20; i++) a.logits[i] = 0;
    a.logits[0] = a.logits[5 + 3] = a.logits[10] = a.logits[15] = 5;
    ref_route_fwd(&a);
    assert_int_equal(arrays.expert[0], 0);
    assert_int_equal(arrays.expert[1], 3);
    assert_int_equal(arrays.expert[2], 0);
    assert_int_not_equal(arrays.expert[3], 0);
    assert_true(arrays.expert[3] > 0);
    assert_true(fabs(a.weight[0] - 0.973756) < 1e-6);
    assert_true(fabs(a.weight[3] - 0.0065611) < 1e-7);
    assert_true(fabs(a.stats[STAT_AUX] - 3.05529) < 1e-5);
    assert_true(a.stats[STAT_OVERFLOW] == 1 && a.stats[STAT_RECYCLED] == 1);
    assert_true(a.stats[STAT_UNPLACED] == 0 && a.stats[STAT_MAX_LOAD] == 3);
}

/* Sum over groups, times scale; with noise: of logits that are made noisy first. */
static double gate_loss(const void *p)
{
    const RefGate *a = p;
    double sum = 0;
    ref_gate_cv_fwd(a);
    for (int64_t g = 0; g < a->N / a->group_tokens; g++) sum += a->scale * a->loss[g];
    return sum;
}

static double noise_loss(const void *p)
{
    const RefGate *a = p;
    ref_gate_noise_fwd(a);
    return product(a->dnoisy, a->noisy, a->N * a->E);
}

static void gate(void **state)
{
    (void)state;
    enum { N = 8, E = 5, SIZE = N * E };
    for (int k = 1; k < E; k++) {
        used = 0;
        int32_t first[N * E];
        RefGate a = {.N = N, .E = E, .k = k, .group_tokens = 4, .seed = 6, .step = 3, .layer = 1,
                     .clean = normals(SIZE), .raw = normals(SIZE), .noisy = zeros(SIZE),
                     .dnoisy = normals(SIZE), .dclean = zeros(SIZE), .draw = zeros(SIZE),
                     .first = first, .loss = zeros(2), .scale = 0.7};
        ref_gate_noise_bwd(&a);
        check_gradient("raw", a.raw, a.draw, SIZE, noise_loss, &a);
        ref_gate_noise_fwd(&a);
        for (int n = 0; n < N; n++) /* best first */
            for (int e = 0; e < E; e++) {
                int above = 0;
                for (int i = 0; i < E; i++) above += a.noisy[n * E + i] > a.noisy[n * E + e];
                if (above < k) first[n * k + above] = e;
            }
        a.dnoisy = zeros(SIZE), a.draw = zeros(SIZE);
        ref_gate_cv_bwd(&a);
        check_gradient("noisy", a.noisy, a.dnoisy, SIZE, gate_loss, &a);
        check_gradient("clean", a.clean, a.dclean, SIZE, gate_loss, &a);
        check_gradient("raw of cv", a.raw, a.draw, SIZE, gate_loss, &a);
    }
}

static double dispatch_loss(const void *p)
{
    const RefCombine *a = p;
    ref_dispatch_fwd(a);
    return product(a->dxe, a->xe, a->rows * a->D);
}

static double combine_loss(const void *p)
{
    const RefCombine *a = p;
    ref_combine_fwd(a);
    return product(a->dy, a->y, a->N * a->D);
}

static void combine(void **state)
{
    (void)state;
    const int32_t row[] = {4, 0, -1, 2, 3, -1}, row_src[] = {1, -1, 3, 4, 0};
    RefCombine a = {.N = 3, .D = 4, .k = 2, .rows = 5, .row = row, .row_src = row_src,
                    .x = normals(12), .xe = zeros(20), .dx = zeros(12), .dxe = normals(20),
                    .weight = normals(6), .base = normals(12), .ye = normals(20), .y = zeros(12),
                    .dy = normals(12), .dye = zeros(20), .dweight = zeros(6)};
    ref_dispatch_bwd(&a);
    ref_combine_bwd(&a);
    check_gradient("x", a.x, a.dx, 12, dispatch_loss, &a);
    check_gradient("ye", a.ye, a.dye, 20, combine_loss, &a);
    check_gradient("weight", a.weight, a.dweight, 6, combine_loss, &a);
}

static double ce_loss(const void *p)
{
    const RefCe *a = p;
    double sum[2] = {0};
    ref_ce_fwd(a);
    ref_nll_sum(sum, a);
    return a->loss_scale * sum[0];
}

static void cross_entropy(void **state)
{
    (void)state;
    const int32_t targets[] = {2, -1, 0, 6};
    RefCe a = {.N = 4, .D = 3, .V = 7, .loss_scale = 0.25, .targets = targets, .x = normals(12),
               .w = normals(21), .lse = zeros(4), .target_logit = zeros(4), .dx = zeros(12),
               .dw = zeros(21)};
    ref_ce_fwd(&a);
    ref_ce_bwd(&a);
    check_gradient("x", a.x, a.dx, 12, ce_loss, &a);
    check_gradient("w", a.w, a.dw, 21, ce_loss, &a);
    a.logit_scale = 0.4;
    a.dx = zeros(12), a.dw = zeros(21);
    ref_ce_fwd(&a);
    ref_ce_bwd(&a);
    check_gradient("x, scaled logits", a.x, a.dx, 12, ce_loss, &a);
    check_gradient("w, scaled logits", a.w, a.dw, 21, ce_loss, &a);
}

/* Two shards of the vocabulary, with the log-sum-exp over both, give the gradients of the whole. */
static void cross_entropy_shards(void **state)
{
    (void)state;
    const int32_t targets[] = {2, -1, 0, 6};
    RefCe all = {.N = 4, .D = 3, .V = 7, .loss_scale = 0.25, .targets = targets,
                 .x = normals(12), .w = normals(21), .lse = zeros(4), .target_logit = zeros(4),
                 .dx = zeros(12), .dw = zeros(21)};
    ref_ce_fwd(&all);
    ref_ce_bwd(&all);
    RefCe part = all;
    part.dx = zeros(12);
    part.dw = zeros(21);
    for (int shard = 0; shard < 2; shard++) {
        part.vocab0 = shard ? 4 : 0;
        part.V = shard ? 3 : 4;
        part.w = all.w + part.vocab0 * 3;
        double *dw = part.dw;
        part.dw = dw + part.vocab0 * 3;
        ref_ce_bwd(&part);
        part.dw = dw;
    }
    for (int i = 0; i < 12; i++) assert_true(fabs(part.dx[i] - all.dx[i]) < 1e-14);
    for (int i = 0; i < 21; i++) assert_true(fabs(part.dw[i] - all.dw[i]) < 1e-14);
}

/* One weight by hand: the first AdamW step with equal bias corrections is lr * sign(g). */
static void adamw(void **state)
{
    (void)state;
    double w = 2, g = -3, m = 0, v = 0;
    RefAdamw a = {.n = 1, .opt = {.beta1 = 0.9, .beta2 = 0.99, .eps = 0, .weight_decay = 0.5,
                                  .lr_ratio = 0.1},
                  .vars = {.lr = 0.2, .bias1 = 0.1, .bias2 = 0.01, .grad_scale = 0.5},
                  .w = &w, .grad = &g, .m = &m, .v = &v};
    ref_adamw(&a);
    assert_true(fabs(w - (2 + 0.02 * (1 - 0.5 * 2))) < 1e-12);
    assert_true(fabs(m + 0.15) < 1e-12 && fabs(v - 0.0225) < 1e-12);
    a.vars.skip = 1;
    ref_adamw(&a);
    assert_true(fabs(m + 0.15) < 1e-12);
}

/* Steps of bf16 by hand: 2^-7 from 1 on, 2^-8 below it, 2^-133 for the smallest. */
static void rounding(void **state)
{
    (void)state;
    double half = 1 + 0x1p-8; /* half-way */
    assert_true(ref_round_random(half, 0x7fff) == 1 && ref_round_random(half, 0x8000) == 1.0078125);
    assert_true(ref_round_random(-half, 0x7fff) == -1);
    assert_true(ref_round_random(-half, 0x8000) == -1.0078125);
    assert_true(ref_round_random(1 - 0x1p-16, 0xff) == 1 - 0x1p-8);
    assert_true(ref_round_random(1 - 0x1p-16, 0x100) == 1);
    assert_true(ref_round_random(0.75, 0xffff) == 0.75 && ref_round_random(0, 0xffff) == 0);
    assert_true(ref_round_random(0x1.8p-133, 0x8000) == 0x1p-132);
    assert_true(ref_round_random(0x1.8p-133, 0x7fff) == 0x1p-133);
}

/* Orthogonal rows of equal length keep their direction, and their singular values s all follow s ->
 * a s + b s^3 + c s^5 from 1 / sqrt(2); Nesterov's u of the first step is (1 + momentum) g. */
static void muon(void **state)
{
    (void)state;
    double s = sqrt(0.5), o[4], w[4] = {1, 1, 1, 1}, m[4] = {0}, grad[4] = {30, -40, 40, 30};
    for (int step = 0; step < 5; step++)
        s = 3.4445 * s - 4.7750 * s * s * s + 2.0315 * s * s * s * s * s;
    RefMuon a = {.n = 1, .A = 2, .B = 2, .opt = {.momentum = 0.9, .weight_decay = 0.5,
                                                 .lr_ratio = 0.1},
                 .vars = {.lr = 0.2, .grad_scale = 0.5}, .w = w, .grad = grad, .m = m, .o = o};
    ref_muon(&a);
    assert_true(fabs(o[0] - 0.6 * s) < 1e-6 && fabs(o[1] + 0.8 * s) < 1e-6);
    assert_true(fabs(w[2] - (1 - 0.02 * (0.2 * sqrt(2) * 0.8 * s + 0.5))) < 1e-6);
    assert_true(m[1] == -20);
    a.vars.grad_scale = 0; /* the momentum alone: u = 0.9 m, m = 0.9 m */
    ref_muon(&a);
    assert_true(m[1] == -18 && fabs(o[3] - 0.6 * s) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(linear, setup, teardown),
        cmocka_unit_test_setup_teardown(expert, setup, teardown),
        cmocka_unit_test_setup_teardown(each, setup, teardown),
        cmocka_unit_test_setup_teardown(each_swiglu, setup, teardown),
        cmocka_unit_test_setup_teardown(embed, setup, teardown),
        cmocka_unit_test_setup_teardown(rmsnorm, setup, teardown),
        cmocka_unit_test_setup_teardown(swiglu, setup, teardown),
        cmocka_unit_test_setup_teardown(qk, setup, teardown),
        cmocka_unit_test_setup_teardown(attention, setup, teardown),
        cmocka_unit_test_setup_teardown(route, setup, teardown),
        cmocka_unit_test_setup_teardown(gate, setup, teardown),
        cmocka_unit_test_setup_teardown(route_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(route_toy, setup, teardown),
        cmocka_unit_test_setup_teardown(combine, setup, teardown),
        cmocka_unit_test_setup_teardown(cross_entropy, setup, teardown),
        cmocka_unit_test_setup_teardown(cross_entropy_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(adamw, setup, teardown),
        cmocka_unit_test_setup_teardown(rounding, setup, teardown),
        cmocka_unit_test_setup_teardown(muon, setup, teardown),
    };
    return cmocka_run_group_tests_name("ref", tests, NULL, NULL);
}
