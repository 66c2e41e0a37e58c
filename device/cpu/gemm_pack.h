/* device/cpu/gemm_pack.h - panels of A and B as the innermost loop of gemm_block.c reads them.
 *
 * Pieces of A and B are widened to f32 and laid out tile by tile. A panel of B (depth x columns) is
 * [columns / TILE_COLS][depth][TILE_COLS]. One of A (rows x depth) is row by row with the stride
 * DEPTH_STRIDE, or, when A is stored (k, m), [rows / TILE_ROWS][depth][TILE_ROWS] with gaps of
 * WIDTH between the tiles: either way a copy of pieces of rows; only a B stored (n, k) is
 * transposed.
 */
#ifndef ISOMOE_DEVICE_CPU_GEMM_PACK_H
#define ISOMOE_DEVICE_CPU_GEMM_PACK_H

#include <string.h>

#include "base/size.h"
#include "device/cpu/gemm.h"
#include "device/cpu/native.h"
#include "device/cpu/vec.h"

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
    DEPTH = 128, /* a tile's strips of A and B stay in L1, all panels in half of L2 */
    DEPTH_STRIDE = DEPTH + 16, /* not a power of two: rows of A would share their cache sets */
    ROWS = 96,
    COLS = 256,
    BAND = 4 * ROWS, /* rows whose sums wait when C is bf16 and the depth takes several blocks */
    PANEL_A_BYTES = ROWS / TILE_ROWS * (DEPTH_STRIDE * TILE_ROWS + WIDTH) * 4,
    PANEL_B_BYTES = DEPTH * COLS * 4,
};
_Static_assert(ROWS % TILE_ROWS == 0 && COLS % TILE_COLS == 0, "panels are whole tiles");
_Static_assert((int)TILE_ROWS <= (int)WIDTH, "scatter_row copies one register for each k");

#define INLINE static inline __attribute__((always_inline))

/* A product whose operands may differ in type. */
typedef struct Job {
    const Gemm *g;
    DType a_type, b_type;
} Job;

/* Distance of the tiles of a panel of A that is stored (k, m). */
static inline int64_t cols_tile_step(int64_t depth) { return depth * TILE_ROWS + WIDTH; }

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
        for (int j = 0; j < WIDTH; j++)
            dst[k * TILE_COLS + j] = element(src, type, at + j * ld + k);
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

/* `rows` elements from `at` on, of a row of A that is stored (k, m), to the tiles of the panel. A
 * whole register is copied for each tile where `readable` elements allow it: what exceeds TILE_ROWS
 * is overwritten by the next k, or lies in the gap. */
INLINE void scatter_row(float *panel, const void *a, DType type, int64_t at, int64_t rows,
                        int64_t readable, int64_t tile_step)
{
    for (int64_t i = 0; i < rows; i += TILE_ROWS, panel += tile_step) {
        if (i + WIDTH <= readable) vf_store(panel, load_widened(a, type, at + i));
        else copy_row(panel, a, type, at + i, size_min(rows - i, TILE_ROWS), TILE_ROWS);
    }
}

/* Rows i0.. (rows) and columns k0.. (depth) of A into panel. */
static void pack_a(float *panel, const Job *job, int64_t i0, int64_t rows, int64_t k0,
                   int64_t depth)
{
    const Gemm *g = job->g;
    const int64_t whole = size_round_up(rows, TILE_ROWS);
    for (int64_t i = 0; !g->a_trans && i < whole; i++)
        copy_row(panel + i * DEPTH_STRIDE, g->a, job->a_type, (i0 + i) * g->lda + k0,
                 i < rows ? depth : 0, depth);
    for (int64_t k = 0; g->a_trans && k < depth; k++, panel += TILE_ROWS) {
        const int64_t at = (k0 + k) * g->lda + i0;
        if (job->a_type == DT_F32)
            scatter_row(panel, g->a, DT_F32, at, rows, g->m - i0, cols_tile_step(depth));
        else scatter_row(panel, g->a, DT_BF16, at, rows, g->m - i0, cols_tile_step(depth));
    }
}

#endif
