/* tests/ref/ref_combine.c - rows to the experts and back; see ref.h. */
#include "tests/ref/ref.h"

void ref_dispatch_fwd(const RefCombine *a)
{
    for (int64_t r = 0; r < a->rows; r++)
        for (int64_t i = 0; i < a->D; i++)
            a->xe[r * a->D + i] = a->row_src[r] < 0 ? 0 : a->x[a->row_src[r] / a->k * a->D + i];
}

/* dx[n] = sum over j of dxe[row[n][j]]. */
void ref_dispatch_bwd(const RefCombine *a)
{
    for (int64_t c = 0; c < a->N * a->k; c++)
        for (int64_t i = 0; i < a->D && a->row[c] >= 0; i++)
            a->dx[c / a->k * a->D + i] += a->dxe[a->row[c] * a->D + i];
}

void ref_combine_fwd(const RefCombine *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t i = 0; i < a->D; i++) {
            double sum = a->base ? a->base[n * a->D + i] : 0;
            for (int64_t c = n * a->k; c < (n + 1) * a->k; c++)
                if (a->row[c] >= 0) sum += a->weight[c] * a->ye[a->row[c] * a->D + i];
            a->y[n * a->D + i] = sum;
        }
}

/* dye[row] = weight dy, dweight = dy . ye; zeros for empty rows and unplaced choices. */
void ref_combine_bwd(const RefCombine *a)
{
    for (int64_t r = 0; r < a->rows; r++) {
        int64_t c = a->row_src[r];
        for (int64_t i = 0; i < a->D && c >= 0; i++) {
            double dy = a->dy[c / a->k * a->D + i];
            a->dye[r * a->D + i] += a->weight[c] * dy;
            a->dweight[c] += dy * a->ye[r * a->D + i];
        }
    }
}
