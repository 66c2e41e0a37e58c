/* device/cpu/attention_mul.c - C (+)= A B for the small f32 panels of attention.
 *
 * Both operands are already laid out as the innermost loop wants them: A row-major (its elements
 * are broadcast), B with n contiguous. m is a multiple of 16, n of LANES. An element of C is one
 * sum over k in ascending order, continued from C if add: m, n and cutting k in pieces do not
 * change its bits. gemm_serial would copy both operands first. Called by attention_fwd.c and
 * attention_bwd.c.
 */
#include "device/cpu/attention.h"
#include "device/cpu/native.h"

/* C (rows x vectors of columns) (+)= A (rows x k) B (k x vectors of columns), sums in registers. */
ROW_KERNEL void tile(const Gemm *g, const float *a, const float *b, float *c, int rows, int vectors)
{
    VF sum[16][4] = {0};
    if (g->add)
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] = vf_load(c + r * g->ldc + v * WIDTH);
    for (int64_t k = 0; k < g->k; k++, a++, b += g->ldb) {
        VF line[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) line[v] = vf_load(b + v * WIDTH);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const VF x = a[r * g->lda] - (VF){0};
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[r][v] += x * line[v];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) vf_store(c + r * g->ldc + v * WIDTH, sum[r][v]);
}

/* Columns j .. j + vectors * WIDTH - 1 of C; returns the next column. */
ROW_KERNEL int64_t columns(const Gemm *g, int64_t j, int rows, int vectors)
{
    for (int64_t i = 0; i < g->m; i += rows)
        tile(g, (const float *)g->a + i * g->lda, (const float *)g->b + j,
             (float *)g->c + i * g->ldc + j, rows, vectors);
    return j + vectors * WIDTH;
}

/* Tiles have as many sums as hide an addition's latency and fit the registers (32 of AVX-512, else
 * 16); their rows divide 16. */
static void mul_f32(const Gemm *g)
{
    for (int64_t j = 0; j < g->n;) {
        int64_t left = (g->n - j) / WIDTH;
        if (WIDTH < 16) j = columns(g, j, 4, 2);
        else if (left >= 4) j = columns(g, j, 4, 4);
        else if (left == 3) j = columns(g, j, 8, 3);
        else if (left == 2) j = columns(g, j, 8, 2);
        else j = columns(g, j, 16, 1);
    }
}

void attn_mul(const Device *d, const Gemm *g)
{
    if (g->type == DT_F32) mul_f32(g);
    else gemm_serial(d, g);
}
