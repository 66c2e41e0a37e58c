/* device/cpu/basic.c - operations on plain arrays: cast, fill, add, sums of squares.
 *
 * Called by optim/ (casts, the gradient norm) and model/ (sums of gradients).
 */
#include "device/cpu/rows.h"

ROW_KERNEL void add_vector(Tensor y, Tensor a, Tensor b, DType type, int64_t i, int64_t n)
{
    v_put(y.data, type, i, n, v_get(a.data, type, i, n) + v_get(b.data, type, i, n));
}

ROW_KERNEL void add_block(Tensor y, Tensor a, Tensor b, DType type, int64_t begin, int64_t end)
{
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) add_vector(y, a, b, type, i, LANES);
    if (i < end) add_vector(y, a, b, type, i, end - i);
}

int add_cpu(Device *d, Tensor y, Tensor a, Tensor b)
{
    CHECK(type_is_float(y.type), "add of %s", dtype_name(y.type));
    int64_t n = tensor_elements(y), blocks = size_ceil_div(n, ROWS_BLOCK);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t begin = block * ROWS_BLOCK, end = size_min(begin + ROWS_BLOCK, n);
        if (y.type == DT_F32) add_block(y, a, b, DT_F32, begin, end);
        else add_block(y, a, b, DT_BF16, begin, end);
    }
    return 0;
}

ROW_KERNEL void cast_block(Tensor dst, DType dst_type, Tensor src, DType src_type, int64_t begin,
                           int64_t end)
{
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES)
        v_put(dst.data, dst_type, i, LANES, v_get(src.data, src_type, i, LANES));
    if (i < end) v_put(dst.data, dst_type, i, end - i, v_get(src.data, src_type, i, end - i));
}

int cast_cpu(Device *d, Tensor dst, Tensor src)
{
    CHECK(type_is_float(dst.type) && type_is_float(src.type), "cast of %s to %s",
          dtype_name(src.type), dtype_name(dst.type));
    int64_t n = tensor_elements(dst), blocks = size_ceil_div(n, ROWS_BLOCK);
    int64_t size = (int64_t)dtype_size(dst.type);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int64_t block = 0; block < blocks; block++) {
        int64_t begin = block * ROWS_BLOCK, end = size_min(begin + ROWS_BLOCK, n);
        if (dst.type == src.type)
            memmove((char *)dst.data + begin * size, (const char *)src.data + begin * size,
                    (size_t)((end - begin) * size));
        else if (dst.type == DT_F32) cast_block(dst, DT_F32, src, DT_BF16, begin, end);
        else cast_block(dst, DT_BF16, src, DT_F32, begin, end);
    }
    return 0;
}

static void fill_block(Tensor t, double value, int64_t begin, int64_t end)
{
    float f32 = (float)value;
    uint16_t bf16 = bf16_from_f32(f32);
    int32_t i32 = t.type == DT_I32 ? (int32_t)value : 0;
    switch (t.type) {
    case DT_F32:
        for (int64_t i = begin; i < end; i++) ((float *)t.data)[i] = f32;
        break;
    case DT_BF16:
        for (int64_t i = begin; i < end; i++) ((uint16_t *)t.data)[i] = bf16;
        break;
    case DT_I32:
        for (int64_t i = begin; i < end; i++) ((int32_t *)t.data)[i] = i32;
        break;
    case DT_F64:
        for (int64_t i = begin; i < end; i++) ((double *)t.data)[i] = value;
        break;
    case DT_COUNT: break;
    }
}

int fill_cpu(Device *d, Tensor t, double value)
{
    int64_t n = tensor_elements(t), blocks = size_ceil_div(n, ROWS_BLOCK);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int64_t block = 0; block < blocks; block++)
        fill_block(t, value, block * ROWS_BLOCK, size_min((block + 1) * ROWS_BLOCK, n));
    return 0;
}

enum { SUM_LANES = 16 }; /* partial sums of a chunk; the compiler keeps them in registers */

ROW_KERNEL double element(const void *x, DType type, int64_t i)
{
    return type == DT_F32 ? ((const float *)x)[i] : bf16_to_f32(((const uint16_t *)x)[i]);
}

/* Sum of x^2 of one chunk in double: a product of two floats is exact there, so the bits do not
 * even depend on the instruction set. */
ROW_KERNEL double sqsum_chunk(const void *x, DType type, int64_t begin, int64_t end)
{
    double sum[SUM_LANES] = {0}, total = 0.0;
    int64_t i = begin;
    for (; i + SUM_LANES <= end; i += SUM_LANES)
        for (int lane = 0; lane < SUM_LANES; lane++)
            sum[lane] += element(x, type, i + lane) * element(x, type, i + lane);
    for (; i < end; i++) sum[0] += element(x, type, i) * element(x, type, i);
    for (int lane = 0; lane < SUM_LANES; lane++) total += sum[lane];
    return total;
}

int sqsum_cpu(Device *d, Tensor sum, Tensor x)
{
    CHECK(type_is_float(x.type), "sqsum of %s", dtype_name(x.type));
    int64_t n = tensor_elements(x);
    double part[CPU_CHUNKS];
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int c = 0; c < CPU_CHUNKS; c++) {
        int64_t begin = cpu_chunk_begin(n, c), end = cpu_chunk_begin(n, c + 1);
        part[c] = x.type == DT_F32 ? sqsum_chunk(x.data, DT_F32, begin, end)
                                   : sqsum_chunk(x.data, DT_BF16, begin, end);
    }
    double total = 0.0;
    for (int c = 0; c < CPU_CHUNKS; c++) total += part[c];
    *(double *)sum.data += total;
    return 0;
}

/* Sum of (a - b)^2 of one chunk, as above: differences in double. */
ROW_KERNEL double sqdiff_chunk(const float *a, const float *b, int64_t begin, int64_t end)
{
    double sum[SUM_LANES] = {0}, total = 0.0;
    int64_t i = begin;
    for (; i + SUM_LANES <= end; i += SUM_LANES)
        for (int lane = 0; lane < SUM_LANES; lane++) {
            double x = (double)a[i + lane] - (double)b[i + lane];
            sum[lane] += x * x;
        }
    for (; i < end; i++) sum[0] += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    for (int lane = 0; lane < SUM_LANES; lane++) total += sum[lane];
    return total;
}

int sqdiff_cpu(Device *d, Tensor sum, Tensor a, Tensor b)
{
    int64_t n = tensor_elements(a);
    double part[CPU_CHUNKS], total = 0.0;
#pragma omp parallel for num_threads(d->threads) schedule(static) if (n > ROWS_SERIAL)
    for (int c = 0; c < CPU_CHUNKS; c++)
        part[c] = sqdiff_chunk(a.data, b.data, cpu_chunk_begin(n, c), cpu_chunk_begin(n, c + 1));
    for (int c = 0; c < CPU_CHUNKS; c++) total += part[c];
    *(double *)sum.data += total;
    return 0;
}
