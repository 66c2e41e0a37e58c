/* device/cpu/dispatch.c - tokens to rows of the expert buffer and back.
 *
 * Dispatch copies token rows x (N, D) into the buffer xe (R_rows, D); combine adds the weighted
 * rows of the experts' output ye to base. Which row belongs to which choice stands in the Routing.
 * Called by the MoE layer of model/ around the expert feed-forward.
 */
#include <omp.h>

#include "device/cpu/rows.h"

int dispatch_fwd_cpu(Device *d, Tensor xe, Tensor x, const Routing *r)
{
    int64_t rows = tensor_elements(r->row_src), k = tensor_cols(r->row), D = tensor_cols(x);
    size_t row_bytes = (size_t)D * dtype_size(x.type);
    const int32_t *src = r->row_src.data;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (rows * D > ROWS_SERIAL)
    for (int64_t row = 0; row < rows; row++) {
        if (src[row] < 0) memset(row_at(xe, row, D), 0, row_bytes);
        else memcpy(row_at(xe, row, D), row_at(x, src[row] / k, D), row_bytes);
    }
    return 0;
}

typedef struct ChoiceRow {
    const void *from;
    float weight;
} ChoiceRow;

/* Threads' lists of k choices stand in cache lines of their own. */
static int64_t list_stride(int64_t k) { return size_round_up(k, 64 / (int64_t)sizeof(ChoiceRow)); }

/* One token: to = base (or 0) + sum over its placed choices of weight from. */
typedef struct TokenSum {
    void *to;
    const void *base; /* NULL: none. A vector of it is read before `to` is written: may be `to` */
    ChoiceRow *choice; /* (k) this thread's scratch */
    int64_t n_choices;
} TokenSum;

/* weight NULL: all 1. */
static void list_choices(TokenSum *t, Tensor rows, const int32_t *row, const float *weight,
                         int64_t k)
{
    int64_t D = tensor_cols(rows);
    t->n_choices = 0;
    for (int64_t j = 0; j < k; j++) {
        if (row[j] < 0) continue;
        t->choice[t->n_choices++] = (ChoiceRow){.from = row_at(rows, row[j], D),
                                                .weight = weight ? weight[j] : 1.0f};
    }
}

ROW_KERNEL void sum_vector(const TokenSum *t, DType type, int64_t i, int64_t n)
{
    V16 sum = t->base ? v_get(t->base, type, i, n) : (V16){0};
    for (int64_t j = 0; j < t->n_choices; j++)
        sum += t->choice[j].weight * v_get(t->choice[j].from, type, i, n);
    v_put(t->to, type, i, n, sum);
}

ROW_KERNEL void sum_row(const TokenSum *t, DType type, int64_t D)
{
    int64_t i = 0;
    for (; i + LANES <= D; i += LANES) sum_vector(t, type, i, LANES);
    if (i < D) sum_vector(t, type, i, D - i);
}

static void sum_token(const TokenSum *t, DType type, int64_t D)
{
    if (type == DT_F32) sum_row(t, DT_F32, D);
    else sum_row(t, DT_BF16, D);
}

/* dx[n] = sum over j of dxe[row[n][j]]. */
int dispatch_bwd_cpu(Device *d, Tensor dx, Tensor dxe, const Routing *r)
{
    int64_t N = tensor_rows(dx), D = tensor_cols(dx), k = tensor_cols(r->row);
    const int64_t stride = list_stride(k);
    ChoiceRow *lists = cpu_scratch(d, d->threads * stride * (int64_t)sizeof *lists);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * D > ROWS_SERIAL)
    for (int64_t n = 0; n < N; n++) {
        TokenSum t = {.to = row_at(dx, n, D), .choice = lists + omp_get_thread_num() * stride};
        list_choices(&t, dxe, (const int32_t *)r->row.data + n * k, NULL, k);
        sum_token(&t, dx.type, D);
    }
    return 0;
}

int combine_fwd_cpu(Device *d, Tensor y, Tensor base, Tensor ye, const Routing *r)
{
    int64_t N = tensor_rows(y), D = tensor_cols(y), k = tensor_cols(r->row);
    const int64_t stride = list_stride(k);
    ChoiceRow *lists = cpu_scratch(d, d->threads * stride * (int64_t)sizeof *lists);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * D > ROWS_SERIAL)
    for (int64_t n = 0; n < N; n++) {
        TokenSum t = {.to = row_at(y, n, D),
                      .base = tensor_given(base) ? row_at(base, n, D) : NULL,
                      .choice = lists + omp_get_thread_num() * stride};
        list_choices(&t, ye, (const int32_t *)r->row.data + n * k,
                     (const float *)r->weight.data + n * k, k);
        sum_token(&t, y.type, D);
    }
    return 0;
}

/* One choice: a row of dye and ye, the token's dy. */
typedef struct ChoiceGrad {
    void *dye;
    const void *dy, *ye; /* a vector of ye is read before dye is written: dye may be ye */
    float weight;
} ChoiceGrad;

ROW_KERNEL void split_vector(V16 *dot, const ChoiceGrad *c, DType type, int64_t i, int64_t n)
{
    V16 dy = v_get(c->dy, type, i, n);
    *dot += dy * v_get(c->ye, type, i, n);
    v_put(c->dye, type, i, n, c->weight * dy);
}

/* dye = weight dy; returns dy . ye. */
ROW_KERNEL float split_row(const ChoiceGrad *c, DType type, int64_t D)
{
    V16 dot0 = {0}, dot1 = {0};
    int64_t i = 0;
    for (; i + 2 * LANES <= D; i += 2 * LANES) {
        split_vector(&dot0, c, type, i, LANES);
        split_vector(&dot1, c, type, i + LANES, LANES);
    }
    for (; i < D; i += LANES) split_vector(&dot0, c, type, i, D - i);
    return v_sum(dot0 + dot1);
}

/* dye[row[n][j]] = weight[n][j] dy[n]; dweight[n][j] = dy[n] . ye[row[n][j]].
 * Empty rows get zeros: they are inputs of the experts' weight gradients. */
int combine_bwd_cpu(Device *d, Tensor dye, Tensor dweight, Tensor dy, Tensor ye, const Routing *r)
{
    int64_t N = tensor_rows(dy), D = tensor_cols(dy), k = tensor_cols(r->row);
    int64_t rows = tensor_elements(r->row_src);
    const int32_t *row = r->row.data, *src = r->row_src.data;
    const float *weight = r->weight.data;
    float *dw = dweight.data;
#pragma omp parallel num_threads(d->threads) if (rows * D > ROWS_SERIAL)
    {
#pragma omp for schedule(static) nowait
        for (int64_t n = 0; n < N; n++) {
            for (int64_t i = n * k; i < (n + 1) * k; i++) {
                dw[i] = 0.0f;
                if (row[i] < 0) continue;
                ChoiceGrad c = {.dye = row_at(dye, row[i], D), .dy = row_at(dy, n, D),
                                .ye = row_at(ye, row[i], D), .weight = weight[i]};
                dw[i] = dy.type == DT_F32 ? split_row(&c, DT_F32, D) : split_row(&c, DT_BF16, D);
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++)
            if (src[i] < 0) memset(row_at(dye, i, D), 0, (size_t)D * dtype_size(dye.type));
    }
    return 0;
}
