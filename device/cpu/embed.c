/* device/cpu/embed.c - token embedding: x (N, D) = rows `tokens` (N) of w (V, D), and its gradient.
 *
 * Called once a forward and once a backward pass by model/.
 */
#include <omp.h>

#include "device/cpu/rows.h"

int embed_fwd_cpu(Device *d, Tensor x, Tensor tokens, Tensor w)
{
    int64_t N = tensor_elements(tokens), D = tensor_cols(w), V = tensor_rows(w);
    size_t row_bytes = (size_t)D * dtype_size(w.type);
    const int32_t *token = tokens.data;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * D > ROWS_SERIAL)
    for (int64_t n = 0; n < N; n++) {
        CHECK(token[n] >= 0 && token[n] < V, "token %d at %ld of a vocabulary of %ld", token[n],
              (long)n, (long)V);
        memcpy(row_at(x, n, D), row_at(w, token[n], D), row_bytes);
    }
    return 0;
}

ROW_KERNEL void add_row(float *dw, const void *dx, DType type, int64_t D)
{
    int64_t i = 0;
    for (; i + LANES <= D; i += LANES) v_store(dw + i, v_load(dw + i) + v_get(dx, type, i, LANES));
    if (i < D) v_store_part(dw + i, v_get(dw, DT_F32, i, D - i) + v_get(dx, type, i, D - i), D - i);
}

/* Which of `owners` threads adds up a vocabulary row: any choice gives the same bits, because one
 * thread sees all tokens of a row in order. Hashed, since frequent tokens have neighbouring ids. */
static inline uint32_t row_owner(int32_t token, uint32_t owners)
{
    return (uint32_t)((uint64_t)((uint32_t)token * 2654435761u) * owners >> 32);
}

/* dw[token] += dx for every token, in token order. */
int embed_bwd_cpu(Device *d, Tensor dw, Tensor dx, Tensor tokens)
{
    int64_t N = tensor_elements(tokens), D = tensor_cols(dw), V = tensor_rows(dw);
    const int32_t *token = tokens.data;
#pragma omp parallel num_threads(d->threads) if (N * D > ROWS_SERIAL)
    {
        uint32_t owners = (uint32_t)omp_get_num_threads(), me = (uint32_t)omp_get_thread_num();
        for (int64_t n = 0; n < N; n++) {
            if (row_owner(token[n], owners) != me) continue;
            CHECK(token[n] >= 0 && token[n] < V, "token %d at %ld of a vocabulary of %ld",
                  token[n], (long)n, (long)V);
            float *row = (float *)dw.data + token[n] * D;
            if (dx.type == DT_F32) add_row(row, row_at(dx, n, D), DT_F32, D);
            else add_row(row, row_at(dx, n, D), DT_BF16, D);
        }
    }
    return 0;
}
