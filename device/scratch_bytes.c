/* device/scratch_bytes.c - see scratch_bytes.h. */
#include "device/scratch_bytes.h"

#include "base/size.h"

enum { LOSS_LINE = 32, LOSS_ROWS = 16, BIAS_ROWS = 128, F32 = 4 };

int64_t scratch_loss_rows(int64_t n, int64_t V, int64_t chunk_bytes, int64_t *ld)
{
    *ld = size_round_up(V, LOSS_LINE);
    int64_t most = size_max(chunk_bytes / (*ld * F32) / LOSS_ROWS * LOSS_ROWS, LOSS_ROWS);
    int64_t chunks = size_ceil_div(size_max(n, 1), most);
    return size_max(size_min(size_round_up(size_ceil_div(n, chunks), LOSS_ROWS), n), 1);
}

int64_t scratch_bias_rows(int64_t n, int64_t width, int64_t chunk_bytes)
{
    int64_t rows = chunk_bytes / 8 / (width * F32) / BIAS_ROWS * BIAS_ROWS;
    return size_max(size_min(size_max(rows, BIAS_ROWS), n), 1);
}
