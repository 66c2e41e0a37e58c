/* tests/simt/sim_mma.cc - products and loads of matrices by a warp, all 32 lanes at once: what
 * sim_warp.cc calls when the last of them has come. Where a lane's numbers belong is said by the
 * layout functions of device/cuda/mma.cuh alone. */
#include "device/cuda/mma.cuh"
#include "tests/simt/sim_block.h"

static float half_of(uint32_t bits, int half)
{
    return __uint_as_float(half ? bits & 0xffff0000u : bits << 16);
}

/* Products of bf16 are exact in f32; they are added in the order of k. (A GPU adds several at once,
 * and rounds otherwise.) */
void sim_mma(const SimThread *lanes)
{
    float a[MMA_ROWS][MMA_DEPTH], b[MMA_DEPTH][MMA_COLS], c[MMA_ROWS][MMA_COLS];
    for (int lane = 0; lane < SIM_WARP; lane++) {
        const SimMma *m = (const SimMma *)(uintptr_t)lanes[lane].value;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++)
                a[mma_a_row(lane, r)][mma_a_k(lane, r) + half] = half_of(m->a[r], half);
            for (int r = 0; r < 2; r++)
                b[mma_b_k(lane, r) + half][mma_b_col(lane)] = half_of(m->b[r], half);
        }
        for (int i = 0; i < 4; i++) c[mma_c_row(lane, i)][mma_c_col(lane, i)] = m->c[i];
    }
    for (int row = 0; row < MMA_ROWS; row++)
        for (int k = 0; k < MMA_DEPTH; k++)
            for (int col = 0; col < MMA_COLS; col++) c[row][col] += a[row][k] * b[k][col];
    for (int lane = 0; lane < SIM_WARP; lane++) {
        const SimMma *m = (const SimMma *)(uintptr_t)lanes[lane].value;
        for (int i = 0; i < 4; i++) m->c[i] = c[mma_c_row(lane, i)][mma_c_col(lane, i)];
    }
}

void sim_matrix(const SimThread *lanes, bool transposed)
{
    uint16_t matrix[4][MATRIX_ROWS][8];
    for (int lane = 0; lane < SIM_WARP; lane++) {
        const SimMatrixLoad *m = (const SimMatrixLoad *)(uintptr_t)lanes[lane].value;
        memcpy(matrix[lane / MATRIX_ROWS][lane % MATRIX_ROWS], &m->row, sizeof m->row);
    }
    for (int lane = 0; lane < SIM_WARP; lane++) {
        const SimMatrixLoad *m = (const SimMatrixLoad *)(uintptr_t)lanes[lane].value;
        int row = matrix_row(lane), col = matrix_col(lane);
        for (int r = 0; r < 4; r++) {
            uint16_t first = transposed ? matrix[r][col][row] : matrix[r][row][col];
            uint16_t second = transposed ? matrix[r][col + 1][row] : matrix[r][row][col + 1];
            m->r[r] = (uint32_t)second << 16 | first;
        }
    }
}

void sim_need_shared(const char *call, const void *p, SimSite site)
{
    const SimShared *part = sim_shared_at(p);
    if ((uintptr_t)p % 16) sim_fault(&site, "%s: %p is not on 16 bytes", call, p);
    if (!part) sim_fault(&site, "%s: %p is no shared memory of this block", call, p);
    if ((const char *)p + 16 > part->start + part->bytes)
        sim_fault(&site, "%s: 16 bytes at byte %td of SHARED %s, which has %zu", call,
                  (const char *)p - part->start, part->name, part->bytes);
}
