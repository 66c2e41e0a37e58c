/* device/cpu/rmsnorm.c - RMSNorm over rows, with the residual addition in front of it.
 *
 * s = x (+ residual, rounded to the type); rstd = 1 / sqrt(mean(s^2) + eps); y = s rstd w.
 * x, residual, y (N, D); w (D) f32; rstd (N) f32. Called by the blocks of model/.
 */
#include "device/cpu/rows.h"

/* One row of the tensors. */
typedef struct NormRow {
    void *y, *sum;
    const void *x, *residual; /* residual NULL: none */
    const float *w;
} NormRow;

/* s of one vector, into sum if there is a residual; adds s^2 to *squares. */
ROW_KERNEL void square_vector(V16 *squares, const NormRow *row, DType type, int64_t i, int64_t n)
{
    V16 s = v_get(row->x, type, i, n);
    if (row->residual) {
        v_put(row->sum, type, i, n, s + v_get(row->residual, type, i, n));
        s = v_get(row->sum, type, i, n); /* rounded */
    }
    *squares += s * s;
}

/* Sum of s^2. Two accumulators, because one addition waits for the one before it. */
ROW_KERNEL float square_row(const NormRow *row, DType type, int64_t D)
{
    V16 sum0 = {0}, sum1 = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) {
        square_vector(&sum0, row, type, i, LANES);
        square_vector(&sum1, row, type, i + LANES, LANES);
    }
    for (; i < D; i += LANES) square_vector(&sum0, row, type, i, D - i);
    return v_sum(sum0 + sum1);
}

ROW_KERNEL void scale_vector(const NormRow *row, float rstd, DType type, int64_t i, int64_t n)
{
    V16 s = v_get(row->residual ? row->sum : row->x, type, i, n);
    v_put(row->y, type, i, n, s * rstd * v_get(row->w, DT_F32, i, n));
}

/* Returns rstd of the row. */
ROW_KERNEL float norm_row(const NormRow *row, DType type, int64_t D, double eps)
{
    float rstd = 1.0f / sqrtf(square_row(row, type, D) / (float)D + (float)eps);
    int64_t i = 0;
    for (; i + LANES <= D; i += LANES) scale_vector(row, rstd, type, i, LANES);
    if (i < D) scale_vector(row, rstd, type, i, D - i);
    return rstd;
}

int rmsnorm_fwd_cpu(Device *d, NormFwd a, double eps)
{
    int64_t N = tensor_rows(a.x), D = tensor_cols(a.x);
    float *rstd = a.rstd.data;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * D > ROWS_SERIAL)
    for (int64_t n = 0; n < N; n++) {
        NormRow row = {.y = row_at(a.y, n, D), .x = row_at(a.x, n, D), .w = a.w.data};
        if (tensor_given(a.residual)) {
            row.residual = row_at(a.residual, n, D);
            row.sum = row_at(a.sum, n, D);
        }
        if (a.x.type == DT_F32) rstd[n] = norm_row(&row, DT_F32, D, eps);
        else rstd[n] = norm_row(&row, DT_BF16, D, eps);
    }
    return 0;
}

/* One row of the tensors; dw is the partial sum of the row's chunk. */
typedef struct NormGradRow {
    void *dx;
    float *dw;
    const void *dy, *x;
    const float *w;
    float rstd;
} NormGradRow;

/* dw += dy s^; adds g s^ to *sum. */
ROW_KERNEL void dw_vector(V16 *sum, const NormGradRow *row, DType type, int64_t i, int64_t n)
{
    V16 p = v_get(row->dy, type, i, n) * (v_get(row->x, type, i, n) * row->rstd);
    v_put(row->dw, DT_F32, i, n, v_get(row->dw, DT_F32, i, n) + p);
    *sum += p * v_get(row->w, DT_F32, i, n);
}

/* Returns mean(g s^); dw in the same pass over the row. */
ROW_KERNEL float dw_row(const NormGradRow *row, DType type, int64_t D)
{
    V16 sum0 = {0}, sum1 = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) {
        dw_vector(&sum0, row, type, i, LANES);
        dw_vector(&sum1, row, type, i + LANES, LANES);
    }
    for (; i < D; i += LANES) dw_vector(&sum0, row, type, i, D - i);
    return v_sum(sum0 + sum1) / (float)D;
}

ROW_KERNEL void dx_vector(const NormGradRow *row, float mean, DType type, int64_t i, int64_t n)
{
    V16 g = v_get(row->dy, type, i, n) * v_get(row->w, DT_F32, i, n);
    V16 s = v_get(row->x, type, i, n) * row->rstd;
    v_put(row->dx, type, i, n, v_get(row->dx, type, i, n) + row->rstd * (g - s * mean));
}

/* dx += rstd (g - s^ mean(g s^)), dw += dy s^;  g = dy w, s^ = x rstd. */
ROW_KERNEL void grad_row(const NormGradRow *row, DType type, int64_t D)
{
    float mean = dw_row(row, type, D);
    int64_t i = 0;
    for (; i + LANES <= D; i += LANES) dx_vector(row, mean, type, i, LANES);
    if (i < D) dx_vector(row, mean, type, i, D - i);
}

/* sum[i] += part[0][i] + part[1][i] + ... for the CPU_CHUNKS partial sums of `cols` columns. */
static void add_parts(float *sum, const float *part, int64_t cols)
{
    for (int64_t i = 0; i < cols; i++) {
        float total = 0.0f;
        for (int c = 0; c < CPU_CHUNKS; c++) total += part[c * cols + i];
        sum[i] += total;
    }
}

int rmsnorm_bwd_cpu(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd)
{
    int64_t N = tensor_rows(x), D = tensor_cols(x);
    float *part = cpu_scratch(d, CPU_CHUNKS * D * (int64_t)sizeof *part);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * D > ROWS_SERIAL)
    for (int c = 0; c < CPU_CHUNKS; c++) {
        memset(part + c * D, 0, (size_t)D * sizeof *part);
        for (int64_t n = cpu_chunk_begin(N, c); n < cpu_chunk_begin(N, c + 1); n++) {
            NormGradRow row = {.dx = row_at(dx, n, D), .dw = part + c * D,
                               .dy = row_at(dy, n, D), .x = row_at(x, n, D), .w = w.data,
                               .rstd = ((const float *)rstd.data)[n]};
            if (x.type == DT_F32) grad_row(&row, DT_F32, D);
            else grad_row(&row, DT_BF16, D);
        }
    }
    add_parts(dw.data, part, D);
    return 0;
}
