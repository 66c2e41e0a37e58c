/* device/cpu/balance.c - between steps: counts of choices over a global batch, and what follows
 * from them for the next step: the shares f of the balance loss, and the bias on the choice
 * (DeepSeek-V3, section 2.1.2: loss-free balancing).
 *
 * Counts are whole numbers in f64, so their sums are exact in any order. Called through
 * dev_count_sum and dev_balance_update.
 */
#pragma GCC optimize("fp-contract=off")

#include "device/cpu/rows.h"

/* total (L, E) += sum over m, g of counts (M, L, Gr, E). */
int count_sum_cpu(Device *d, Tensor total, Tensor counts)
{
    const int64_t M = counts.dim[0], L = counts.dim[1], Gr = counts.dim[2], E = counts.dim[3];
    const int32_t *count = counts.data;
    double *sum = total.data;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (M * L * Gr * E > ROWS_SERIAL)
    for (int64_t l = 0; l < L; l++)
        for (int64_t m = 0; m < M; m++)
            for (int64_t i = 0; i < Gr * E; i++)
                sum[l * E + i % E] += (double)count[(m * L + l) * Gr * E + i];
    return 0;
}

/* bias += rate sign(mean - total); E times both sides, so that equal is equal exactly. */
static void layer_bias(float *bias, const double *total, int64_t E, double rate)
{
    double sum = 0.0;
    for (int64_t e = 0; e < E; e++) sum += total[e];
    for (int64_t e = 0; e < E; e++) {
        double above = sum - (double)E * total[e];
        bias[e] = (float)((double)bias[e] + rate * (double)((above > 0.0) - (above < 0.0)));
    }
}

int balance_update_cpu(Device *d, Tensor f, Tensor bias, Tensor total, double tokens, double rate)
{
    const int64_t L = tensor_rows(total), E = tensor_cols(total);
    const double *sum = total.data;
    (void)d; /* L * E numbers: not worth waking threads */
    for (int64_t i = 0; f.data && i < L * E; i++) ((float *)f.data)[i] = (float)(sum[i] / tokens);
    for (int64_t l = 0; bias.data && l < L; l++)
        layer_bias((float *)bias.data + l * E, sum + l * E, E, rate);
    return 0;
}
