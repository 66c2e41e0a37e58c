/* device/cpu/gemm.c - C (+)= A B: which code computes it, and how it is spread over threads.
 *
 * Products run on the own blocked f32 code of gemm_block.c, bf16 operands widened panel by panel;
 * with AMX, bf16 products run on oneDNN (gemm_native.c). Called by linear, expert_linear, ce and
 * attention.
 */
#include "device/cpu/gemm.h"

#include "base/size.h"
#include "device/cpu/gemm_block.h"
#include "device/cpu/vec.h"

/* The largest and the smallest tile of C that is one task. The own code likes tall tiles, because
 * what it copies of B serves all their rows; oneDNN takes C without a copy where a tile has all of
 * its columns. oneDNN's bits depend on the number of columns of the tile, so in a forward product
 * that must not depend on the number of rows. */
enum { TILE_M = 512, TILE_N = 256, TILE_MIN = 64 };
enum { NATIVE_M = 256, NATIVE_N = 1024, NATIVE_MIN = 128 };
enum { TILES_WANTED = 8, TILES_WANTED_MANY = 32 };

/* A product with few tiles and a long sum is cut along k into SPLITS partial sums. */
enum { SPLIT_TILES = 4, SPLIT_K = 2048, SPLITS = 8 };

static bool is_native(const Device *d, const Gemm *g)
{
    return g->type == DT_BF16 && cpu_state(d)->native_bf16;
}

/* The product over an empty sum. */
static void empty_product(const Gemm *g)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j += LANES) {
            V16 v = v_set(0.0f);
            if (g->add) v += v_get(g->c, g->c_type, i * g->ldc + j, g->n - j);
            if (g->bias != NULL) v += v_get(g->bias, DT_F32, j, g->n - j);
            v_put(g->c, g->c_type, i * g->ldc + j, g->n - j, v);
        }
}

static void gemm_check(const Gemm *g)
{
    const int64_t a = g->a_trans ? g->m : g->k, b = g->b_trans ? g->k : g->n;
    CHECK(g->m >= 0 && g->n >= 0 && g->k >= 0 && g->lda >= a && g->ldb >= b && g->ldc >= g->n,
          "m %lld n %lld k %lld, strides a %lld b %lld c %lld", (long long)g->m, (long long)g->n,
          (long long)g->k, (long long)g->lda, (long long)g->ldb, (long long)g->ldc);
    CHECK(g->c_type == DT_F32 || (g->type == DT_BF16 && g->c_type == DT_BF16), "%s to %s",
          dtype_name(g->type), dtype_name(g->c_type));
}

void gemm_serial(const Device *d, const Gemm *g)
{
    gemm_check(g);
    if (g->m == 0 || g->n == 0) return;
    if (g->k == 0) empty_product(g);
    else if (is_native(d, g)) gemm_native(g);
    else gemm_block(g, g->type, g->type);
}

GemmPlan gemm_tiles(const Device *d, const Gemm *g, int64_t products)
{
    const bool native = is_native(d, g);
    const int64_t least = native ? NATIVE_MIN : TILE_MIN;
    const int64_t wanted = products > 1 ? TILES_WANTED_MANY : TILES_WANTED;
    GemmPlan p = {.tile_m = native ? NATIVE_M : TILE_M, .tile_n = native ? NATIVE_N : TILE_N,
                  .splits = 1};
    for (;;) {
        p.rows = size_ceil_div(g->m, p.tile_m);
        p.cols = size_ceil_div(g->n, p.tile_n);
        p.tasks = p.rows * p.cols;
        if (products * p.tasks >= wanted) return p;
        if (p.tile_m > least && (native || p.tile_m > p.tile_n)) p.tile_m /= 2;
        else if (p.tile_n > least && !(native && !g->a_trans)) p.tile_n /= 2;
        else if (p.tile_m > least) p.tile_m /= 2;
        else return p;
    }
}

GemmPlan gemm_plan(const Device *d, const Gemm *g, bool split)
{
    GemmPlan p = gemm_tiles(d, g, 1);
    if (split && p.tasks < SPLIT_TILES && g->k >= SPLIT_K) {
        p.splits = SPLITS;
        p.partial_bytes = SPLITS * g->m * g->n * (int64_t)sizeof(float);
        p.tasks *= p.splits;
    }
    return p;
}

void gemm_task(const Device *d, const Gemm *g, const GemmPlan *p, float *partial, int64_t index)
{
    const int64_t tile = index / p->splits, split = index % p->splits;
    const int64_t i = tile / p->cols * p->tile_m, j = tile % p->cols * p->tile_n;
    const int64_t k0 = g->k * split / p->splits, k1 = g->k * (split + 1) / p->splits;
    const size_t size = dtype_size(g->type);
    Gemm h = *g;
    h.m = size_min(g->m - i, p->tile_m);
    h.n = size_min(g->n - j, p->tile_n);
    h.k = k1 - k0;
    h.a = (const char *)g->a + (size_t)(g->a_trans ? k0 * g->lda + i : i * g->lda + k0) * size;
    h.b = (const char *)g->b + (size_t)(g->b_trans ? j * g->ldb + k0 : k0 * g->ldb + j) * size;
    h.c = (char *)g->c + (size_t)(i * g->ldc + j) * dtype_size(g->c_type);
    h.bias = g->bias == NULL ? NULL : g->bias + j;
    if (p->splits > 1) {
        h.c = partial + (split * g->m + i) * g->n + j;
        h.ldc = g->n;
        h.add = false;
    }
    gemm_serial(d, &h);
}

void gemm_reduce(const Gemm *g, const GemmPlan *p, const float *partial, int64_t row)
{
    float *c = (float *)g->c + row * g->ldc;
    for (int64_t j = 0; j < g->n; j += LANES) {
        const int64_t left = g->n - j;
        V16 sum = v_get(partial, DT_F32, row * g->n + j, left);
        for (int64_t s = 1; s < p->splits; s++)
            sum += v_get(partial, DT_F32, (s * g->m + row) * g->n + j, left);
        v_put(c, DT_F32, j, left, g->add ? v_get(c, DT_F32, j, left) + sum : sum);
    }
}

void gemm_parallel(Device *d, const Gemm *g)
{
    const bool may_split = g->c_type == DT_F32 && g->bias == NULL;
    const GemmPlan p = gemm_plan(d, g, may_split);
    float *partial = p.splits > 1 ? cpu_scratch(d, p.partial_bytes) : NULL;
#pragma omp parallel num_threads(d->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < p.tasks; i++) gemm_task(d, g, &p, partial, i);
        if (p.splits > 1) {
#pragma omp for
            for (int64_t i = 0; i < g->m; i++) gemm_reduce(g, &p, partial, i);
        }
    }
}
