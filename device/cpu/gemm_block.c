/* device/cpu/gemm_block.c - C (+)= A B in f32, for operands of f32 or bf16, in one thread.
 *
 * The usual three levels: a panel of B (DEPTH x COLS) and a panel of A (ROWS x DEPTH) are copied in
 * the order in which they are read (gemm_pack.h); the innermost loop keeps the sums of a tile,
 * TILE_ROWS x TILE_COLS, in registers through the whole depth. What a tile has beyond the edges of
 * C is computed from zeros, or from A's next rows, and not stored. Called by gemm.c and router.c.
 */
#include "device/cpu/gemm_block.h"

#include "device/cpu/gemm_pack.h"
#include "device/cpu_dnnl.h"

enum { LINE = 64 }; /* bytes that memory is fetched in */

typedef struct Panels {
    float *a, *b;
} Panels;

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

/* Where the product of two panels is: in a band of `rows` rows of C from i0; the panel of A from
 * row i, that of B from column j (cols), both from k (depth). */
typedef struct Place {
    int64_t i0, rows, i, j, cols, k, depth;
} Place;

/* What the next panels will be copied from: fetched into L2 while the panels at hand are
 * multiplied, a few lines with each tile. Without that, copying waits for memory: 5% of the time in
 * forward products, 15% in weight gradients. */
typedef struct Ahead {
    const char *row;
    int64_t step, bytes, rows; /* bytes: wanted of each row */
    int64_t at;
} Ahead;

INLINE void ahead_fetch(Ahead *w, int64_t lines)
{
    for (; lines > 0 && w->rows > 0; lines--) {
        __builtin_prefetch(w->row + w->at, 0, 2);
        w->at += LINE;
        if (w->at < w->bytes) continue;
        w->at = 0;
        w->row += w->step;
        w->rows--;
    }
}

static Ahead ahead_of(const void *p, DType type, int64_t at, int64_t ld, int64_t rows,
                      int64_t cols)
{
    const int64_t size = (int64_t)dtype_size(type);
    return (Ahead){(const char *)p + at * size, ld * size, cols * size, rows, 0};
}

static Ahead ahead_a(const Job *job, int64_t i, int64_t rows, int64_t k, int64_t depth)
{
    const Gemm *g = job->g;
    if (g->a_trans) return ahead_of(g->a, job->a_type, k * g->lda + i, g->lda, depth, rows);
    return ahead_of(g->a, job->a_type, i * g->lda + k, g->lda, rows, depth);
}

static Ahead ahead_b(const Job *job, int64_t k, int64_t depth, int64_t j, int64_t cols)
{
    const Gemm *g = job->g;
    if (g->b_trans) return ahead_of(g->b, job->b_type, j * g->ldb + k, g->ldb, cols, depth);
    return ahead_of(g->b, job->b_type, k * g->ldb + j, g->ldb, depth, cols);
}

static int64_t ahead_lines(const Ahead *w) { return w->rows * size_ceil_div(w->bytes, LINE); }

/* The panels that come after those of p. */
static void ahead_next(Ahead next[2], const Job *job, const Place *p)
{
    const Gemm *g = job->g;
    const int64_t i = p->i + ROWS, end = p->i0 + p->rows;
    const int64_t k = p->k + p->depth, depth = size_min(g->k - k, DEPTH);
    next[0] = next[1] = (Ahead){0};
    if (i < end) next[0] = ahead_a(job, i, size_min(end - i, ROWS), p->k, p->depth);
    else if (depth > 0) {
        next[0] = ahead_a(job, p->i0, size_min(p->rows, ROWS), k, depth);
        next[1] = ahead_b(job, k, depth, p->j, p->cols);
    }
}

/* c (rows x cols) (+)= panel a times panel b. */
static void panel_product(const Job *job, const Panels *in, int64_t rows, int64_t cols,
                          int64_t depth, Sink c, Ahead next[2])
{
    const bool a_trans = job->g->a_trans;
    const int64_t tiles = size_ceil_div(rows, TILE_ROWS) * size_ceil_div(cols, TILE_COLS);
    const int64_t lines_a = size_ceil_div(ahead_lines(&next[0]), tiles);
    const int64_t lines_b = size_ceil_div(ahead_lines(&next[1]), tiles);
    for (int64_t j = 0; j < cols; j += TILE_COLS) {
        const float *bj = in->b + j * depth;
        const int64_t width = size_min(cols - j, TILE_COLS);
        for (int64_t i = 0; i < rows; i += TILE_ROWS) {
            const float *ai =
                in->a + (a_trans ? i / TILE_ROWS * cols_tile_step(depth) : i * DEPTH_STRIDE);
            const int64_t height = size_min(rows - i, TILE_ROWS);
            const Sink to = {c.data + i * c.ld + j, c.ld, c.add};
            ahead_fetch(&next[0], lines_a);
            ahead_fetch(&next[1], lines_b);
            if (width < TILE_COLS || height < TILE_ROWS)
                edge_product(depth, ai, bj, a_trans, to, height, width);
            else if (a_trans) tile_of_cols(depth, ai, bj, to, TILE_COLS);
            else tile_of_rows(depth, ai, bj, to, TILE_COLS);
        }
    }
}

/* Complete sums (rows x cols) become C at (i0, j0): with the bias, in C's type. */
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

/* All of C's columns for the rows of the band. With bf16 C the sums wait in `sums` (rows x COLS, or
 * ROWS x COLS when one block covers the depth) until they are complete. */
static void row_band(const Job *job, int64_t i0, int64_t rows, float *sums)
{
    const Gemm *g = job->g;
    const Panels panels = {cpu_thread_scratch(0, PANEL_A_BYTES),
                           cpu_thread_scratch(1, PANEL_B_BYTES)};
    Place p = {.i0 = i0, .rows = rows};
    for (p.j = 0; p.j < g->n; p.j += COLS)
        for (p.k = 0; p.k < g->k; p.k += DEPTH) {
            p.cols = size_min(g->n - p.j, COLS);
            p.depth = size_min(g->k - p.k, DEPTH);
            pack_b(panels.b, job, p.k, p.depth, p.j, p.cols);
            for (p.i = i0; p.i < i0 + rows; p.i += ROWS) {
                const int64_t count = size_min(i0 + rows - p.i, ROWS);
                Sink to = {(float *)g->c + p.i * g->ldc + p.j, g->ldc, g->add || p.k > 0};
                if (sums != NULL)
                    to = (Sink){sums + (g->k > DEPTH ? p.i - i0 : 0) * COLS, COLS, p.k > 0};
                Ahead next[2];
                ahead_next(next, job, &p);
                pack_a(panels.a, job, p.i, count, p.k, p.depth);
                panel_product(job, &panels, count, p.cols, p.depth, to, next);
                if (p.k + p.depth == g->k) finish(g, p.i, count, p.j, p.cols, to);
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
