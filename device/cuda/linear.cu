/* device/cuda/linear.cu - y (N, O) = x (N, I) w (O, I)^T + bias, and its gradients.
 *
 * The products are cuBLASLt's (gemm.h). Own kernels: a bias in f32 under a y in bf16 (the library
 * wants both of one type) is added to the f32 product of a run of rows, which is rounded once;
 * dbias is the column sums of dy, chunks of rows first.
 * Bytes beyond what must move: biased bf16 forward: 8 an element of y (write and read f32); dbias:
 * dy once, and 8 O a chunk.
 */
#include "device/cuda/common.cuh"
#include "device/cuda/gemm.h"

enum { LINEAR_BLOCK = 128, SUM_ROWS = 32 };

/* ---- Forward ----------------------------------------------------------------------------------*/

/* y = z + bias for n elements in rows of `cols`. */
KERNEL(LINEAR_BLOCK)
bias_kernel(bf16 *y, const float *z, const float *bias, int64_t n, int64_t cols)
{
    int64_t i = (int64_t)blockIdx.x * LINEAR_BLOCK + threadIdx.x;
    if (i < n) y[i] = from_f32<bf16>(z[i] + bias[i % cols]);
}

/* The products of runs of rows in f32 scratch, then rounded with the bias. */
static int biased_rows(Device *d, CudaGemm g, const float *bias)
{
    const char *what = "linear_fwd";
    int64_t run = scratch_bias_rows(g.m, g.n, cuda_state(d)->chunk_bytes);
    float *z = (float *)cuda_scratch(d, run * g.n * (int64_t)sizeof(float));
    if (!z) return -1;
    const char *x = (const char *)g.a;
    bf16 *y = (bf16 *)g.c;
    int64_t rows = g.m;
    for (int64_t row = 0; row < rows; row += run) {
        int64_t count = row + run < rows ? run : rows - row;
        g.m = count;
        g.a = x + row * g.lda * (int64_t)sizeof(bf16);
        g.c = z;
        g.c_type = DT_F32;
        int rc = gemm_run(d, what, &g);
        if (rc) return rc;
        LAUNCH(bias_kernel, dim3((unsigned)ceil_div(count * g.n, LINEAR_BLOCK)), LINEAR_BLOCK, 0,
               cuda_stream(d), y + row * g.n, z, bias, count * g.n, g.n);
    }
    return cuda_launched(d, what);
}

int linear_fwd_cuda(Device *d, Tensor y, Tensor x, Tensor w, Tensor bias)
{
    const int64_t in = tensor_cols(x), out = tensor_cols(y);
    CudaGemm g = {.m = tensor_rows(x), .n = out, .k = in, .a = x.data, .lda = in, .b = w.data,
                  .ldb = in, .b_trans = true, .c = y.data, .ldc = out, .type = x.type,
                  .c_type = y.type};
    if (g.m == 0) return 0;
    if (tensor_given(bias) && y.type == DT_BF16 && gemm_fits_library(&g))
        return biased_rows(d, g, (const float *)bias.data);
    g.bias = (const float *)bias.data;
    return gemm_run(d, "linear_fwd", &g);
}

/* ---- Backward ---------------------------------------------------------------------------------*/

/* partial (chunks, O): column sums of dy over chunk blockIdx.y of `rows` rows; a thread has W
 * neighbouring columns. */
template <typename T, int W>
KERNEL(LINEAR_BLOCK)
column_sums_kernel(float *partial, const T *dy, int64_t N, int64_t O, int64_t rows)
{
    int64_t j = ((int64_t)blockIdx.x * LINEAR_BLOCK + threadIdx.x) * W;
    if (j >= O) return;
    int64_t begin = blockIdx.y * rows, end = begin + rows < N ? begin + rows : N;
    float sum[W] = {};
    for (int64_t i = begin; i < end; i++) {
        if constexpr (W == 1) {
            sum[0] += to_f32(dy[i * O + j]);
        } else {
            Pack<T> p = pack_load(dy + i * O + j);
#pragma unroll
            for (int c = 0; c < W; c++) sum[c] += to_f32(p.x[c]);
        }
    }
#pragma unroll
    for (int c = 0; c < W; c++) partial[blockIdx.y * O + j + c] = sum[c];
}

/* dbias += the chunks' sums, in their order. */
KERNEL(LINEAR_BLOCK)
add_chunks_kernel(float *dbias, const float *partial, int64_t O, int chunks)
{
    int64_t j = (int64_t)blockIdx.x * LINEAR_BLOCK + threadIdx.x;
    if (j >= O) return;
    float sum = 0;
    for (int c = 0; c < chunks; c++) sum += partial[c * O + j];
    dbias[j] += sum;
}

template <typename T> static int column_sums(Device *d, Tensor dbias, Tensor dy)
{
    int64_t N = tensor_rows(dy), O = tensor_cols(dy), rows = ceil_div(N, CUDA_CHUNKS);
    if (rows < SUM_ROWS) rows = SUM_ROWS;
    int chunks = (int)ceil_div(N, rows);
    float *partial = (float *)cuda_scratch(d, chunks * O * (int64_t)sizeof(float));
    if (!partial) return -1;
    const T *from = (const T *)dy.data;
    cudaStream_t stream = cuda_stream(d);
    bool packs = pack_fits<T>(from, O);
    dim3 grid((unsigned)ceil_div(packs ? O / Pack<T>::N : O, LINEAR_BLOCK), (unsigned)chunks);
    if (packs)
        LAUNCH((column_sums_kernel<T, Pack<T>::N>), grid, LINEAR_BLOCK, 0, stream, partial, from,
               N, O, rows);
    else
        LAUNCH((column_sums_kernel<T, 1>), grid, LINEAR_BLOCK, 0, stream, partial, from, N, O,
               rows);
    LAUNCH(add_chunks_kernel, dim3((unsigned)ceil_div(O, LINEAR_BLOCK)), LINEAR_BLOCK, 0, stream,
           (float *)dbias.data, partial, O, chunks);
    return cuda_launched(d, "linear_bwd");
}

/* dx (+)= dy w
 * dw += dy^T x, dbias += column sums of dy */
int linear_bwd_cuda(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w)
{
    const int64_t n = tensor_rows(dy), in = tensor_cols(x), out = tensor_cols(dy);
    const float add = g.dx_add ? 1 : 0;
    const CudaGemm dx = {.m = n, .n = in, .k = out, .a = dy.data, .lda = out, .b = w.data,
                         .ldb = in, .c = g.dx.data, .ldc = in, .add = g.dx.data, .beta = add,
                         .type = dy.type, .c_type = dy.type};
    const CudaGemm dw = {.m = out, .n = in, .k = n, .a = dy.data, .lda = out, .a_trans = true,
                         .b = x.data, .ldb = in, .c = g.dw.data, .ldc = in, .add = g.dw.data,
                         .beta = 1, .type = dy.type, .c_type = DT_F32};
    int rc = 0;
    if (n == 0) return 0;
    if (tensor_given(g.dx)) rc = gemm_run(d, "linear_bwd", &dx);
    if (!rc && tensor_given(g.dw)) rc = gemm_run(d, "linear_bwd", &dw);
    if (rc || !tensor_given(g.dbias)) return rc;
    return dy.type == DT_F32 ? column_sums<float>(d, g.dbias, dy)
                             : column_sums<bf16>(d, g.dbias, dy);
}
