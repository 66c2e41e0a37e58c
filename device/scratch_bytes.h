/* device/scratch_bytes.h - scratch memory of the CUDA device's larger operations, known without a
 * GPU: the device takes its chunks by these, and a plan counts them. */
#ifndef ISOMOE_DEVICE_SCRATCH_BYTES_H
#define ISOMOE_DEVICE_SCRATCH_BYTES_H

#include <stdint.h>

enum { SCRATCH_CHUNKS = 64 }; /* partial sums of a reduction over rows, at most; norms: 4 times */

/* Bytes of f32 rows that the loss holds at a time (linear maps with a bias: an eighth). */
#define SCRATCH_CHUNK_BYTES ((int64_t)512 << 20)
/* cuBLASLt's workspace: a 2048th of the GPU's memory, this at most. */
#define SCRATCH_LT_BYTES ((int64_t)32 << 20)

static inline int64_t scratch_lt_bytes(int64_t memory)
{
    int64_t share = memory / 2048 / 4096 * 4096;
    return share < SCRATCH_LT_BYTES ? share : SCRATCH_LT_BYTES;
}

/* The loss of n rows against V pieces, in chunks of rows of one size: *ld numbers a row. Returns
 * the rows of a chunk, at least 1. */
int64_t scratch_loss_rows(int64_t n, int64_t V, int64_t chunk_bytes, int64_t *ld);

/* Rows (1 .. n) of `width` numbers of a biased bf16 product that are in f32 at a time. */
int64_t scratch_bias_rows(int64_t n, int64_t width, int64_t chunk_bytes);

#endif
