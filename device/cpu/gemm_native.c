/* device/cpu/gemm_native.c - C (+)= A B of bf16 operands through oneDNN, where there is AMX.
 *
 * Two properties of oneDNN 2.6 decide what happens here. Its AMX code takes dense matrices only
 * (with another row stride it falls back to code several times slower): strided ones are copied. A
 * primitive is made for exact sizes, at about a millisecond: sizes that depend on the data (rows of
 * an expert) would make one after another, so every size is rounded up to a multiple of ROUND, with
 * zeros in the copies. Products of that size are the same bits for any m, so a row of C does not
 * depend on the number of rows. Called by gemm.c.
 */
#include <string.h>

#include "base/size.h"
#include "device/cpu/gemm_block.h"
#include "device/cpu/vec.h"
#include "device/cpu_dnnl.h"

enum { ROUND = 32, DEPTH = 1024, SLOT_A = 0, SLOT_B = 1, SLOT_C = 2 };

/* The matrix p (rows x cols, row stride ld) as a dense matrix of whole_rows x whole_cols, in the
 * thread's slot, zeros outside; p itself where it is that already. */
static const void *dense(const void *p, int64_t rows, int64_t cols, int64_t ld, int slot)
{
    const int64_t whole_rows = size_round_up(rows, ROUND), whole_cols = size_round_up(cols, ROUND);
    if (ld == whole_cols && rows == whole_rows && cols == whole_cols) return p;
    uint16_t *copy = cpu_thread_scratch(slot, whole_rows * whole_cols * (int64_t)sizeof *copy);
    for (int64_t i = 0; i < whole_rows; i++) {
        const int64_t count = i < rows ? cols : 0;
        uint16_t *row = copy + i * whole_cols;
        if (count > 0) memcpy(row, (const uint16_t *)p + i * ld, (size_t)count * sizeof *row);
        memset(row + count, 0, (size_t)(whole_cols - count) * sizeof *row);
    }
    return copy;
}

/* C (+)= sums (f32, row stride ld) + bias, rounded once. */
static void add_sums(const Gemm *g, const float *sums, int64_t ld)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j += LANES) {
            const int64_t at = i * g->ldc + j, left = g->n - j;
            V16 v = v_get(sums, DT_F32, i * ld + j, left);
            if (g->add) v += v_get(g->c, g->c_type, at, left);
            if (g->bias != NULL) v += v_get(g->bias, DT_F32, j, left);
            v_put(g->c, g->c_type, at, left, v);
        }
}

/* C (+)= A B for a depth that fits the caches; C is not bf16 unless this is the whole depth. */
static void native_block(const Gemm *g)
{
    Gemm h = *g;
    h.m = size_round_up(g->m, ROUND);
    h.n = size_round_up(g->n, ROUND);
    h.k = size_round_up(g->k, ROUND);
    h.lda = g->a_trans ? h.m : h.k;
    h.ldb = g->b_trans ? h.k : h.n;
    h.ldc = h.n;
    h.bias = NULL;
    h.a = dense(g->a, g->a_trans ? g->k : g->m, g->a_trans ? g->m : g->k, g->lda, SLOT_A);
    h.b = dense(g->b, g->b_trans ? g->n : g->k, g->b_trans ? g->k : g->n, g->ldb, SLOT_B);
    const bool direct = g->ldc == h.n && g->m == h.m && g->n == h.n && g->bias == NULL;
    if (!direct) {
        h.add = false;
        h.c_type = DT_F32;
        h.c = cpu_thread_scratch(SLOT_C, h.m * h.n * (int64_t)sizeof(float));
    }
    cpu_dnnl_gemm(&h);
    if (!direct) add_sums(g, h.c, h.ldc);
}

void gemm_native(const Gemm *g)
{
    /* A weight gradient copies its operands: by blocks, so that the copies stay in the cache. */
    const int64_t block = g->a_trans && g->c_type == DT_F32 && g->bias == NULL ? DEPTH : g->k;
    Gemm h = *g;
    for (int64_t k = 0; k < g->k; k += block) {
        h.k = size_min(g->k - k, block);
        h.a = (const uint16_t *)g->a + (g->a_trans ? k * g->lda : k);
        h.b = (const uint16_t *)g->b + (g->b_trans ? k : k * g->ldb);
        h.add = g->add || k > 0;
        native_block(&h);
    }
}
