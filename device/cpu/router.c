/* device/cpu/router.c - logits (N, E) = x (N, D) w (E, D)^T, logits and w f32, and its gradients.
 *
 * E is small and the precision is f32 whatever x is: the choice of experts hangs on these numbers.
 * Rows are cut into tasks of ROWS; a row's logits have the same bits whatever N is. Called through
 * dev_router_fwd and dev_router_bwd.
 */
#include "base/size.h"
#include "device/cpu/gemm_block.h"
#include "device/cpu/vec.h"

enum { ROWS = 192 };

static const void *rows_from(Tensor t, int64_t row)
{
    return (const char *)t.data + (size_t)(row * tensor_cols(t)) * dtype_size(t.type);
}

int router_fwd_cpu(Device *d, Tensor logits, Tensor x, Tensor w)
{
    const int64_t n = tensor_rows(x), width = tensor_cols(x), experts = tensor_cols(logits);
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
    for (int64_t i = 0; i < n; i += ROWS) {
        const Gemm g = {.m = size_min(n - i, ROWS),
                        .n = experts,
                        .k = width,
                        .a = rows_from(x, i),
                        .lda = width,
                        .b = w.data,
                        .ldb = width,
                        .b_trans = true,
                        .c = (float *)logits.data + i * experts,
                        .ldc = experts,
                        .c_type = DT_F32};
        gemm_block(&g, x.type, DT_F32);
    }
    return 0;
}

/* Rows i.. of dx += dlogits w. */
static void rows_bwd(Tensor dx, Tensor dlogits, Tensor w, int64_t i, int64_t rows)
{
    const int64_t width = tensor_cols(dx), experts = tensor_cols(dlogits);
    const Gemm g = {.m = rows,
                    .n = width,
                    .k = experts,
                    .a = rows_from(dlogits, i),
                    .lda = experts,
                    .b = w.data,
                    .ldb = width,
                    .c = (void *)(uintptr_t)rows_from(dx, i),
                    .ldc = width,
                    .c_type = dx.type,
                    .add = true};
    gemm_block(&g, DT_F32, DT_F32);
}

/* partial (E, D) = dlogits^T x over rows i.. */
static void weights_bwd(float *partial, Tensor dlogits, Tensor x, int64_t i, int64_t rows)
{
    const int64_t width = tensor_cols(x), experts = tensor_cols(dlogits);
    const Gemm g = {.m = experts,
                    .n = width,
                    .k = rows,
                    .a = rows_from(dlogits, i),
                    .lda = experts,
                    .a_trans = true,
                    .b = rows_from(x, i),
                    .ldb = width,
                    .c = partial,
                    .ldc = width,
                    .c_type = DT_F32};
    gemm_block(&g, DT_F32, x.type);
}

/* dx += dlogits w
 * dw += dlogits^T x, in CPU_CHUNKS partial sums over the rows, added up in order */
int router_bwd_cpu(Device *d, Tensor dx, Tensor dw, Tensor dlogits, Tensor x, Tensor w)
{
    const int64_t n = tensor_rows(x), size = tensor_elements(dw);
    const int64_t tiles = size_ceil_div(n, ROWS);
    float *partial = cpu_scratch(d, CPU_CHUNKS * size * (int64_t)sizeof *partial);
    float *sum = dw.data;
    if (n == 0) return 0;
#pragma omp parallel num_threads(d->threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < CPU_CHUNKS + tiles; i++) {
            const int c = (int)size_min(i, CPU_CHUNKS - 1);
            const int64_t begin = cpu_chunk_begin(n, c), end = cpu_chunk_begin(n, c + 1);
            const int64_t row = (i - CPU_CHUNKS) * ROWS;
            if (row >= 0) rows_bwd(dx, dlogits, w, row, size_min(n - row, ROWS));
            else if (end > begin) weights_bwd(partial + c * size, dlogits, x, begin, end - begin);
        }
#pragma omp for
        for (int64_t j = 0; j < size; j += LANES) {
            V16 total = v_get(sum, DT_F32, j, size - j);
            for (int c = 0; c < CPU_CHUNKS; c++)
                if (cpu_chunk_begin(n, c + 1) > cpu_chunk_begin(n, c))
                    total += v_get(partial, DT_F32, c * size + j, size - j);
            v_put(sum, DT_F32, j, size - j, total);
        }
    }
    return 0;
}
