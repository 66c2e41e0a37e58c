/* device/cpu/muon.c - Muon's update of n matrices of one shape; see dev_muon in device.h.
 *
 * As many matrices as `work` has room for go through the phases together, so that small ones (an
 * expert's) give the threads enough to do: momentum and norm, scaling, five times three products,
 * update. The momentum and the norm's parts run over fixed chunks of a matrix, the products over
 * tiles whose elements are whole sums over k: no bit depends on threads or on how many matrices run
 * together. Called by optim/.
 */
#include "base/size.h"
#include "device/cpu/gemm.h"
#include "device/cpu/random.h"
#include "device/cpu/rows.h"

enum { STEPS = 5, PIECE = 512 };

/* X (a + b G + c G^2), of Jordan's Muon; 1e-7 keeps a zero gradient at zero. */
static const float COEF_A = 3.4445f, COEF_B = -4.7750f, COEF_C = 2.0315f;
static const double NORM_EPS = 1e-7, UPDATE_RMS = 0.2;

/* The matrices that run together. */
typedef struct Group {
    Device *d;
    MuonTensors t;
    const MuonOpt *opt;
    const StepVars *vars;
    int64_t A, B, side;   /* side: the smaller of both */
    int64_t first, count; /* matrices */
    float *x, *y;         /* (count, A, B) with row stride B, matrices `stride` apart */
    float *gram, *poly;   /* (count, side, side), matrices `square` apart */
    int64_t stride, square;
    double *squares;      /* (count, CPU_CHUNKS) */
} Group;

/* ---- Momentum and norm ------------------------------------------------------------------------*/

/* m = mu m + g, x = g + mu m for the n elements from `at` of the tensors; returns the sum of x^2 in
 * 16 fixed lanes. words: of these elements, for momentum in bf16. */
ROW_KERNEL void momentum_piece(const Group *g, DType type, const uint32_t *words, int64_t at,
                               int64_t n, float *x, double sum[LANES])
{
    const float scale = (float)g->vars->grad_scale, mu = (float)g->opt->momentum;
    for (int64_t i = 0; i < n; i += LANES) {
        const int64_t left = n - i;
        V16 grad = v_get(g->t.grad.data, DT_F32, at + i, left) * scale;
        V16 m = mu * v_get(g->t.m.data, type, at + i, left) + grad;
        V16 u = grad + mu * m;
        if (type == DT_F32) v_put(g->t.m.data, DT_F32, at + i, left, m);
        else
            v_put_random((uint16_t *)g->t.m.data + at + i, left, m,
                         random_get(words + i, left) & 0xffffu);
        v_put(x, DT_F32, i, left, u);
        for (int lane = 0; lane < LANES && lane < left; lane++)
            sum[lane] += (double)u[lane] * (double)u[lane];
    }
}

/* Chunk `chunk` of matrix i of the group. */
static void momentum_chunk(const Group *g, int64_t i, int chunk)
{
    const int64_t size = g->A * g->B, end = cpu_chunk_begin(size, chunk + 1);
    const int64_t origin = (g->first + i) * size;
    const PhiloxKey key = {g->vars->seed, RNG_ROUND, g->opt->rounding.stream,
                           (uint64_t)g->vars->step};
    uint32_t buffer[RANDOM_ROOM(PIECE)];
    double sum[LANES] = {0}, total = 0;
    for (int64_t at = cpu_chunk_begin(size, chunk); at < end; at += PIECE) {
        const int64_t n = size_min(PIECE, end - at);
        const uint64_t word = g->opt->rounding.first + (uint64_t)(origin + at);
        float *x = g->x + i * g->stride + at;
        if (g->t.m.type == DT_F32) momentum_piece(g, DT_F32, NULL, origin + at, n, x, sum);
        else
            momentum_piece(g, DT_BF16, random_words(&key, word, n, buffer), origin + at, n, x, sum);
    }
    for (int lane = 0; lane < LANES; lane++) total += sum[lane];
    g->squares[i * CPU_CHUNKS + chunk] = total;
}

/* x *= 1 / (|x| + eps) for a chunk of matrix i. */
static void scale_chunk(const Group *g, int64_t i, int chunk)
{
    const int64_t size = g->A * g->B, end = cpu_chunk_begin(size, chunk + 1);
    float *x = g->x + i * g->stride;
    double sum = 0;
    for (int c = 0; c < CPU_CHUNKS; c++) sum += g->squares[i * CPU_CHUNKS + c];
    const float factor = (float)(1 / (sqrt(sum) + NORM_EPS));
    for (int64_t at = cpu_chunk_begin(size, chunk); at < end; at++) x[at] *= factor;
}

/* ---- Newton-Schulz ----------------------------------------------------------------------------*/

typedef struct Products { /* one product a matrix; strides between matrices */
    Gemm g;
    int64_t a, b, c;
} Products;

static void run_products(const Group *g, const Products *p)
{
    const GemmPlan plan = gemm_tiles(g->d, &p->g, g->count);
#pragma omp parallel for num_threads(g->d->threads) schedule(dynamic)
    for (int64_t i = 0; i < g->count * plan.tasks; i++) {
        const int64_t matrix = i / plan.tasks;
        Gemm one = p->g;
        one.a = (const float *)one.a + matrix * p->a;
        one.b = (const float *)one.b + matrix * p->b;
        one.c = (float *)one.c + matrix * p->c;
        gemm_task(g->d, &one, &plan, NULL, i % plan.tasks);
    }
}

/* gram = X X^T, or X^T X where that is smaller; poly = gram gram. */
static void make_gram(const Group *g)
{
    const bool wide = g->A <= g->B;
    const int64_t S = g->side;
    const Products gram = {.g = {.m = S, .n = S, .k = wide ? g->B : g->A, .a = g->x, .lda = g->B,
                                 .a_trans = !wide, .b = g->x, .ldb = g->B, .b_trans = wide,
                                 .c = g->gram, .ldc = S, .type = DT_F32, .c_type = DT_F32},
                           .a = g->stride, .b = g->stride, .c = g->square};
    const Products square = {.g = {.m = S, .n = S, .k = S, .a = g->gram, .lda = S, .b = g->gram,
                                   .ldb = S, .c = g->poly, .ldc = S, .type = DT_F32,
                                   .c_type = DT_F32},
                             .a = g->square, .b = g->square, .c = g->square};
    run_products(g, &gram);
    run_products(g, &square);
}

/* poly = a + b gram + c poly, row by row. */
static void make_poly(const Group *g)
{
    const int64_t S = g->side;
#pragma omp parallel for num_threads(g->d->threads) schedule(static)
    for (int64_t row = 0; row < g->count * S; row++) {
        const int64_t at = row / S * g->square + row % S * S;
        for (int64_t j = 0; j < S; j++)
            g->poly[at + j] = COEF_B * g->gram[at + j] + COEF_C * g->poly[at + j];
        g->poly[at + row % S] += COEF_A;
    }
}

/* y = poly x, or x poly; then x and y change places. */
static void apply_poly(Group *g)
{
    const bool wide = g->A <= g->B;
    const Products p = {.g = {.m = g->A, .n = g->B, .k = g->side, .a = wide ? g->poly : g->x,
                              .lda = wide ? g->side : g->B, .b = wide ? g->x : g->poly,
                              .ldb = wide ? g->B : g->side, .c = g->y, .ldc = g->B,
                              .type = DT_F32, .c_type = DT_F32},
                        .a = wide ? g->square : g->stride, .b = wide ? g->stride : g->square,
                        .c = g->stride};
    run_products(g, &p);
    float *x = g->x;
    g->x = g->y;
    g->y = x;
}

/* ---- Update -----------------------------------------------------------------------------------*/

static void update_chunk(const Group *g, int64_t i, int chunk)
{
    const int64_t size = g->A * g->B, matrix = g->first + i, n = g->t.master.dim[0];
    const int64_t end = cpu_chunk_begin(size, chunk + 1);
    const Tensor each = g->opt->lr_each;
    double lr = g->vars->lr * g->opt->lr_ratio;
    if (tensor_given(each)) lr *= ((const float *)each.data)[matrix / (n / tensor_elements(each))];
    const float step = (float)(lr * UPDATE_RMS * sqrt((double)size_max(g->A, g->B)));
    const float keep = (float)(lr * g->opt->weight_decay);
    const float *x = g->x + i * g->stride;
    for (int64_t at = cpu_chunk_begin(size, chunk); at < end; at += LANES) {
        const int64_t left = end - at, to = matrix * size + at;
        V16 w = v_get(g->t.master.data, DT_F32, to, left);
        w -= step * v_get(x, DT_F32, at, left) + keep * w;
        v_put(g->t.master.data, DT_F32, to, left, w);
        if (tensor_given(g->t.weight)) v_put(g->t.weight.data, DT_BF16, to, left, w);
    }
}

typedef void ChunkCall(const Group *g, int64_t i, int chunk);

static void run_chunks(const Group *g, ChunkCall *call)
{
    const bool worth = g->count * g->A * g->B > ROWS_SERIAL;
#pragma omp parallel for num_threads(g->d->threads) schedule(static) if (worth)
    for (int64_t i = 0; i < g->count * CPU_CHUNKS; i++)
        call(g, i / CPU_CHUNKS, (int)(i % CPU_CHUNKS));
}

int muon_cpu(Device *d, MuonTensors t, const MuonOpt *opt, const StepVars *vars)
{
    const int64_t n = t.master.dim[0], A = t.master.dim[1], B = t.master.dim[2];
    const int64_t side = size_min(A, B);
    if (vars->skip || n * A * B == 0) return 0;
    const int64_t together = size_min(n, tensor_elements(t.work) / dev_muon_work(A, B));
    double *squares = cpu_scratch(d, together * CPU_CHUNKS * (int64_t)sizeof *squares);
    for (int64_t first = 0; first < n; first += together) {
        Group g = {.d = d, .t = t, .opt = opt, .vars = vars, .A = A, .B = B, .side = side,
                   .first = first, .count = size_min(together, n - first), .squares = squares};
        g.stride = size_round_up(A * B, LANES);
        g.square = size_round_up(side * side, LANES);
        g.x = t.work.data;
        g.y = g.x + together * g.stride;
        g.gram = g.y + together * g.stride;
        g.poly = g.gram + together * g.square;
        run_chunks(&g, momentum_chunk);
        run_chunks(&g, scale_chunk);
        for (int step = 0; step < STEPS; step++) {
            make_gram(&g);
            make_poly(&g);
            apply_poly(&g);
        }
        run_chunks(&g, update_chunk);
    }
    return 0;
}
