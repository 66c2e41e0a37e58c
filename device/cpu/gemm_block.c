/* device/cpu/gemm_block.c - C (+)= A B in f32, for operands of f32 or bf16, in one thread.
 *
 * The usual three levels: a panel of B (DEPTH x COLS) and a panel of A (ROWS x DEPTH) are widened to
 * f32 and laid out as the innermost loop reads them; that loop keeps TILE_ROWS x TILE_COLS sums in
 * registers through the whole depth. A panel of B is laid out as [COLS / TILE_COLS][depth]
 * [TILE_COLS]; one of A row by row, or, when A is stored (k, m), as [ROWS / TILE_ROWS][depth]
 * [TILE_ROWS]: either way a copy of pieces of rows. What a tile has beyond the edges of C is
 * computed from zeros (or from A's next rows) and not stored. Called by gemm.c.
 */
#include "device/cpu/gemm_block.h"

#include <string.h>

#include "base/size.h"
#include "device/cpu/native.h"
#include "device/cpu/vec.h"
#include "device/cpu_dnnl.h"

/* The sums, a row of B and one element of A fill the registers: 24 + 4 + 1 of 32, or of 16. */
#if defined __AVX512F__
enum { TILE_ROWS = 6, VECTORS = 4 };
#elif defined __AVX2__
enum { TILE_ROWS = 6, VECTORS = 2 };
#else
enum { TILE_ROWS = 4, VECTORS = 2 };
#endif
enum {
    TILE_COLS = VECTORS * WIDTH,
    DEPTH = 128, /* short, so that two threads of one core share its L1 and L2 */
    DEPTH_STRIDE = DEPTH + 16, /* not a power of two: rows of A would share their cache sets */
    ROWS = 96,
    COLS = 256,
    BAND = 4 * ROWS, /* rows whose sums wait when C is bf16 and the depth takes several blocks */
    PANEL_A_BYTES = (ROWS * DEPTH_STRIDE + WIDTH) * 4,
    PANEL_B_BYTES = DEPTH * COLS * 4,
};
_Static_assert(ROWS % TILE_ROWS == 0 && COLS % TILE_COLS == 0, "panels are whole tiles");
_Static_assert((int)TILE_ROWS <= (int)WIDTH, "pack_a copies one register for each k");

#define INLINE static inline __attribute__((always_inline))

/* A product whose operands may differ in type. */
typedef struct Job {
    const Gemm *g;
    DType a_type, b_type;
} Job;

/* Where a panel's product goes. */
typedef struct Sink {
    float *data;
    int64_t ld;
    bool add;
} Sink;

/* c (TILE_ROWS x vectors * WIDTH) (+)= sum over k of column k of a times row k of b. Element (r, k)
 * of a is at r * row_step + k * k_step. */
INLINE void tile_product(int64_t depth, const float *a, int row_step, int k_step, const float *b,
                         Sink c, int vectors)
{
    VF sum[TILE_ROWS][VECTORS] = {0};
    for (int64_t k = 0; k < depth; k++, a += k_step, b += TILE_COLS) {
        VF row[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) row[v] = vf_load(b + v * WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
            const VF x = a[r * row_step] - (VF){0};
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] += x * row[v];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; r++, c.data += c.ld) {
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const VF old = c.add ? vf_load(c.data + v * WIDTH) : (VF){0};
            vf_store(c.data + v * WIDTH, old + sum[r][v]);
        }
    }
}

/* Code for one, two or all vectors of a row of the tile; `cols` are wanted. */
INLINE void tile_some(int64_t depth, const float *a, int row_step, int k_step, const float *b,
                      Sink c, int64_t cols)
{
    if (cols <= WIDTH) tile_product(depth, a, row_step, k_step, b, c, 1);
    else if (cols <= 2 * WIDTH) tile_product(depth, a, row_step, k_step, b, c, 2);
    else tile_product(depth, a, row_step, k_step, b, c, VECTORS);
}

static void tile_of_rows(int64_t depth, const float *a, const float *b, Sink c, int64_t cols)
{
    tile_some(depth, a, DEPTH_STRIDE, 1, b, c, cols);
}

static void tile_of_cols(int64_t depth, const float *a, const float *b, Sink c, int64_t cols)
{
    tile_some(depth, a, 1, TILE_ROWS, b, c, cols);
}

static inline float element(const void *p, DType type, int64_t at)
{
    return type == DT_F32 ? ((const float *)p)[at] : bf16_to_f32(((const uint16_t *)p)[at]);
}

/* dst = `count` elements at `src`, widened; then zeros up to `whole`. */
static inline void copy_row(float *dst, const void *src, DType type, int64_t at, int64_t count,
                            int64_t whole)
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) v_store(dst + i, v_get(src, type, at + i, LANES));
    for (; i < count; i++) dst[i] = element(src, type, at + i);
    for (; i < whole; i++) dst[i] = 0.0f;
}

INLINE VF load_widened(const void *p, DType type, int64_t at)
{
    if (type == DT_F32) return vf_load((const float *)p + at);
    uint16_t __attribute__((vector_size(2 * WIDTH))) half;
    memcpy(&half, (const uint16_t *)p + at, sizeof half);
    return (VF)(__builtin_convertvector(half, VI) << 16);
}

/* One step of the transposition of WIDTH vectors: exchanges blocks of `step` lanes. */
INLINE void exchange(VF v[WIDTH], int step)
{
    VI lane;
    for (int i = 0; i < WIDTH; i++) lane[i] = i;
    const VI upper = (lane & step) != 0;
    const VI low = (~upper & lane) | (upper & (lane - step + WIDTH));
    const VI high = (~upper & (lane + step)) | (upper & (lane + WIDTH));
#pragma GCC unroll 16
    for (int i = 0; i < WIDTH; i++) {
        if (i & step) continue;
        const VF x = v[i], y = v[i + step];
        v[i] = __builtin_shuffle(x, y, low);
        v[i + step] = __builtin_shuffle(x, y, high);
    }
}

/* dst[k][j] (row stride TILE_COLS) = element k of row j, at at + j * ld + k, for WIDTH rows. */
INLINE void transpose_rows(float *dst, const void *src, DType type, int64_t at, int64_t ld,
                           int64_t depth)
{
    int64_t k = 0;
    for (; k + WIDTH <= depth; k += WIDTH) {
        VF v[WIDTH];
#pragma GCC unroll 16
        for (int j = 0; j < WIDTH; j++) v[j] = load_widened(src, type, at + j * ld + k);
        exchange(v, 1);
        exchange(v, 2);
        if (WIDTH > 4) exchange(v, 4 % WIDTH);
        if (WIDTH > 8) exchange(v, 8 % WIDTH);
#pragma GCC unroll 16
        for (int j = 0; j < WIDTH; j++) vf_store(dst + (k + j) * TILE_COLS, v[j]);
    }
    for (; k < depth; k++)
        for (int j = 0; j < WIDTH; j++) dst[k * TILE_COLS + j] = element(src, type, at + j * ld + k);
}

/* The same where fewer than WIDTH rows are left; zeros for the others. */
static void transpose_some(float *dst, const Job *job, int64_t at, int64_t rows, int64_t depth)
{
    const Gemm *g = job->g;
    for (int64_t k = 0; k < depth; k++)
        for (int64_t j = 0; j < WIDTH; j++)
            dst[k * TILE_COLS + j] =
                j < rows ? element(g->b, job->b_type, at + j * g->ldb + k) : 0.0f;
}

/* Rows k0.. (depth) and columns j0.. (cols) of B into panel (see the top). */
static void pack_b(float *panel, const Job *job, int64_t k0, int64_t depth, int64_t j0,
                   int64_t cols)
{
    const Gemm *g = job->g;
    for (int64_t j = 0; !g->b_trans && j < cols; j += TILE_COLS)
        for (int64_t k = 0; k < depth; k++)
            copy_row(panel + j * depth + k * TILE_COLS, g->b, job->b_type,
                     (k0 + k) * g->ldb + j0 + j, size_min(cols - j, TILE_COLS), TILE_COLS);
    if (!g->b_trans) return;
    for (int64_t j = 0; j < size_round_up(cols, TILE_COLS); j += WIDTH) {
        const int64_t at = (j0 + j) * g->ldb + k0;
        float *dst = panel + j / TILE_COLS * TILE_COLS * depth + j % TILE_COLS;
        if (j + WIDTH > cols) transpose_some(dst, job, at, cols - j, depth);
        else if (job->b_type == DT_F32) transpose_rows(dst, g->b, DT_F32, at, g->ldb, depth);
        else transpose_rows(dst, g->b, DT_BF16, at, g->ldb, depth);
    }
}

/* Rows i0.. (rows) and columns k0.. (depth) of A into panel. Where A is stored (k, m), a whole
 * register is copied for each k: what exceeds TILE_ROWS is overwritten by the next k. */
static void pack_a(float *panel, const Job *job, int64_t i0, int64_t rows, int64_t k0,
                   int64_t depth)
{
    const Gemm *g = job->g;
    const int64_t whole = size_round_up(rows, TILE_ROWS);
    if (!g->a_trans) {
        for (int64_t i = 0; i < whole; i++)
            copy_row(panel + i * DEPTH_STRIDE, g->a, job->a_type, (i0 + i) * g->lda + k0,
                     i < rows ? depth : 0, depth);
        return;
    }
    for (int64_t i = i0; i < i0 + rows; i += TILE_ROWS) {
        int64_t at = k0 * g->lda + i;
        if (i + WIDTH > g->m)
            for (int64_t k = 0; k < depth; k++, panel += TILE_ROWS, at += g->lda)
                copy_row(panel, g->a, job->a_type, at, size_min(g->m - i, TILE_ROWS), TILE_ROWS);
        else if (job->a_type == DT_F32)
            for (int64_t k = 0; k < depth; k++, panel += TILE_ROWS, at += g->lda)
                vf_store(panel, load_widened(g->a, DT_F32, at));
        else
            for (int64_t k = 0; k < depth; k++, panel += TILE_ROWS, at += g->lda)
                vf_store(panel, load_widened(g->a, DT_BF16, at));
    }
}

/* A tile that does not fit into C: computed aside, then rows x cols of it stored. */
static void edge_product(int64_t depth, const float *a, const float *b, bool a_trans, Sink c,
                         int64_t rows, int64_t cols)
{
    float tile[TILE_ROWS * TILE_COLS];
    const Sink aside = {tile, TILE_COLS, false};
    if (a_trans) tile_of_cols(depth, a, b, aside, cols);
    else tile_of_rows(depth, a, b, aside, cols);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t s = 0; s < cols; s++) {
            float *out = c.data + r * c.ld + s;
            *out = tile[r * TILE_COLS + s] + (c.add ? *out : 0.0f);
        }
}

/* c (rows x cols) (+)= panel a times panel b. */
static void panel_product(const float *a, const float *b, int64_t rows, int64_t cols,
                          int64_t depth, bool a_trans, Sink c)
{
    for (int64_t j = 0; j < cols; j += TILE_COLS) {
        const float *bj = b + j * depth;
        const int64_t width = size_min(cols - j, TILE_COLS);
        for (int64_t i = 0; i < rows; i += TILE_ROWS) {
            const float *ai = a + i * (a_trans ? depth : DEPTH_STRIDE);
            const int64_t height = size_min(rows - i, TILE_ROWS);
            const Sink to = {c.data + i * c.ld + j, c.ld, c.add};
            if (width < TILE_COLS || height < TILE_ROWS)
                edge_product(depth, ai, bj, a_trans, to, height, width);
            else if (a_trans) tile_of_cols(depth, ai, bj, to, TILE_COLS);
            else tile_of_rows(depth, ai, bj, to, TILE_COLS);
        }
    }
}

/* Sums of rows x cols, complete, become C at (i0, j0): the bias, and C's type if `sums` is not C. */
static void finish(const Gemm *g, int64_t i0, int64_t rows, int64_t j0, int64_t cols, Sink sums)
{
    const bool narrow = g->c_type == DT_BF16;
    if (!narrow && g->bias == NULL) return;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j += LANES) {
            const int64_t at = (i0 + i) * g->ldc + j0 + j, left = cols - j;
            V16 v = v_get(sums.data, DT_F32, i * sums.ld + j, left);
            if (narrow && g->add) v += v_get(g->c, DT_BF16, at, left);
            if (g->bias != NULL) v += v_get(g->bias, DT_F32, j0 + j, left);
            v_put(g->c, g->c_type, at, left, v);
        }
}

/* All of C's columns for `rows` rows from i0 on. With bf16 C the sums wait in `sums` (rows x COLS,
 * or ROWS x COLS when one block covers the depth) until they are complete. */
static void row_band(const Job *job, int64_t i0, int64_t rows, float *sums)
{
    const Gemm *g = job->g;
    float *panel_a = cpu_thread_scratch(0, PANEL_A_BYTES);
    float *panel_b = cpu_thread_scratch(1, PANEL_B_BYTES);
    for (int64_t j = 0; j < g->n; j += COLS)
        for (int64_t k = 0; k < g->k; k += DEPTH) {
            const int64_t cols = size_min(g->n - j, COLS), depth = size_min(g->k - k, DEPTH);
            pack_b(panel_b, job, k, depth, j, cols);
            for (int64_t i = i0; i < i0 + rows; i += ROWS) {
                const int64_t count = size_min(i0 + rows - i, ROWS);
                Sink to = {(float *)g->c + i * g->ldc + j, g->ldc, g->add || k > 0};
                if (sums != NULL)
                    to = (Sink){sums + (g->k > DEPTH ? i - i0 : 0) * COLS, COLS, k > 0};
                pack_a(panel_a, job, i, count, k, depth);
                panel_product(panel_a, panel_b, count, cols, depth, g->a_trans, to);
                if (k + depth == g->k) finish(g, i, count, j, cols, to);
            }
        }
}

void gemm_block(const Gemm *g, DType a_type, DType b_type)
{
    const Job job = {g, a_type, b_type};
    const bool narrow = g->c_type == DT_BF16;
    const int64_t band = narrow && g->k > DEPTH ? BAND : g->m;
    float *sums = NULL;
    if (narrow)
        sums = cpu_thread_scratch(2, (g->k > DEPTH ? BAND : ROWS) * COLS * (int64_t)sizeof *sums);
    for (int64_t i = 0; i < g->m; i += band) row_band(&job, i, size_min(g->m - i, band), sums);
}
