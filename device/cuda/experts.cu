/* device/cuda/experts.cu - linear maps of experts over the rows of a buffer: one stack of matrices
 * (expert_linear), or each expert's own (expert_each).
 *
 * Rows in equal runs (rows_equal: where capacity places them) are products of known sizes: one
 * batched call of cuBLASLt for a stack, a call an expert for own matrices. Runs whose lengths stand
 * on the device (dropless) go through own kernels, bf16 on tensor cores (mma_tile.cuh), f32 without
 * (tile.cuh). Their grids are the worst case of the shapes: tiles of t rows (128, f32 64), slot
 * row_begin[e] / t + e and following for expert e, which leaves each expert slots enough and R / t
 * + E in all; a block that finds no rows ends. A gradient of weights is one sum over the expert's
 * rows, in their order: no chunks, for experts and tiles are enough blocks. Bytes: see tile.cuh,
 * mma_tile.cuh.
 */
#include "device/cuda/gemm.h"
#include "device/cuda/mma_tile.cuh"
#include "device/cuda/tile.cuh"

/* ---- The experts' matrices --------------------------------------------------------------------*/

/* Matrices (out, in) of kernels: one stack, or each with sizes of its own. */
template <typename T> struct Stack {
    T *p;
    int64_t rows, cols;
    __device__ T *at(int e) const { return p + e * rows * cols; }
    __device__ int64_t out(int) const { return rows; }
    __device__ int64_t in(int) const { return cols; }
};

template <typename T> struct Each {
    T *p[EXPERTS_EACH_MAX];
    int32_t rows[EXPERTS_EACH_MAX], cols[EXPERTS_EACH_MAX];
    __device__ T *at(int e) const { return p[e]; }
    __device__ int64_t out(int e) const { return rows[e]; }
    __device__ int64_t in(int e) const { return cols[e]; }
};

/* On the host: `each` one by one, or, if that is NULL, the stack (E, O, I). */
typedef struct Matrices {
    const Tensor *each;
    Tensor stack;
} Matrices;

static bool matrices_given(const Matrices *w) { return w->each || tensor_given(w->stack); }

static Tensor matrix_of(const Matrices *w, int64_t e)
{
    if (w->each) return w->each[e];
    const int64_t out = w->stack.dim[1], in = w->stack.dim[2];
    char *data = (char *)w->stack.data + e * out * in * (int64_t)dtype_size(w->stack.type);
    return tensor_2d(data, w->stack.type, out, in);
}

/* Rows and columns of the largest matrix. */
static void largest(const Matrices *w, int64_t experts, int64_t *out, int64_t *in)
{
    *out = *in = 0;
    for (int64_t e = 0; e < experts; e++) {
        const Tensor m = matrix_of(w, e);
        if (m.dim[0] > *out) *out = m.dim[0];
        if (m.dim[1] > *in) *in = m.dim[1];
    }
}

template <typename T> static Stack<T> kernel_stack(const Matrices *w)
{
    return {(T *)w->stack.data, w->stack.dim[1], w->stack.dim[2]};
}

template <typename T> static Each<T> kernel_each(const Matrices *w, int64_t experts)
{
    Each<T> m = {};
    for (int64_t e = 0; e < experts; e++) {
        m.p[e] = (T *)w->each[e].data;
        m.rows[e] = (int32_t)w->each[e].dim[0];
        m.cols[e] = (int32_t)w->each[e].dim[1];
    }
    return m;
}

/* One call of the device: y = x w^T, or dx (+)= dy w, or dw += dy^T x. */
typedef struct ExpertCall {
    const char *what;
    Tensor x, y, w_rows; /* buffers of rows: inputs' side, outputs' side; row_begin */
    Matrices w;          /* the weights, or their gradients */
    bool add;            /* into dx */
    int64_t experts;
} ExpertCall;

typedef enum Product { PRODUCT_Y, PRODUCT_X, PRODUCT_W } Product;

/* ---- Equal runs of rows -----------------------------------------------------------------------*/

/* The product of expert e's matrix; rows of the buffers are as wide as these. */
static CudaGemm equal_product(const ExpertCall *c, Product product, int64_t e)
{
    const Tensor w = matrix_of(&c->w, e);
    const int64_t rows = tensor_rows(c->x) / c->experts, out = w.dim[0], in = w.dim[1];
    const int64_t wide_x = tensor_cols(c->x), wide_y = tensor_cols(c->y);
    const int64_t size = (int64_t)dtype_size(c->x.type);
    char *x = (char *)c->x.data + e * rows * wide_x * size;
    char *y = (char *)c->y.data + e * rows * wide_y * size;
    const int64_t step_x = rows * wide_x, step_y = rows * wide_y, step_w = out * in;
    switch (product) {
    case PRODUCT_Y:
        return {.m = rows, .n = out, .k = in, .a = x, .lda = wide_x, .a_step = step_x,
                .b = w.data, .ldb = in, .b_step = step_w, .b_trans = true, .c = y, .ldc = wide_y,
                .c_step = step_y, .type = c->x.type, .c_type = c->x.type};
    case PRODUCT_X:
        return {.m = rows, .n = in, .k = out, .a = y, .lda = wide_y, .a_step = step_y,
                .b = w.data, .ldb = in, .b_step = step_w, .c = x, .ldc = wide_x,
                .c_step = step_x, .add = x, .beta = c->add ? 1.0f : 0.0f, .type = c->x.type,
                .c_type = c->x.type};
    default:
        return {.m = out, .n = in, .k = rows, .a = y, .lda = wide_y, .a_step = step_y,
                .a_trans = true, .b = x, .ldb = wide_x, .b_step = step_x, .c = w.data, .ldc = in,
                .c_step = step_w, .add = w.data, .beta = 1, .type = c->x.type, .c_type = DT_F32};
    }
}

static int run_equal(Device *d, const ExpertCall *c, Product product)
{
    if (!c->w.each) {
        CudaGemm all = equal_product(c, product, 0);
        all.count = c->experts;
        return gemm_run(d, c->what, &all);
    }
    int rc = 0;
    for (int64_t e = 0; e < c->experts && !rc; e++) {
        const CudaGemm one = equal_product(c, product, e);
        rc = gemm_run(d, c->what, &one);
    }
    return rc;
}

/* ---- Runs that the device knows ---------------------------------------------------------------*/

/* Buffers of a kernel: rows ldx, ldy elements apart. */
template <typename T> struct Buffers {
    T *x, *y;
    int64_t ldx, ldy;
    const int32_t *begin; /* (experts + 1) */
    int experts;
    bool add;
};

/* Expert of a slot of `tile` rows: the last whose slots begin at or before it. Whole warps call
 * it: a lane an expert, so that the numbers of 32 experts come in one access. */
static inline __device__ int slot_expert(const int32_t *begin, int experts, int slot, int tile)
{
    int lane = (int)threadIdx.x % WARP, before = 0;
    for (int first = 0; first < experts; first += WARP) {
        int e = first + lane;
        bool starts = e < experts && begin[e] / tile + e <= slot;
        before += __popc(__ballot_sync(WARP_ALL, starts));
    }
    return before - 1;
}

/* What a block of y = x w^T (FORWARD) or x (+)= y w makes: `rows` rows from `row` on of expert e,
 * `cols` columns from `col` on; at most a tile of both are the block's. */
struct Spot {
    int e;
    int64_t row, rows, col, cols;
};

/* Tile blockIdx.x of the columns, slot blockIdx.y of the rows. */
template <bool FORWARD, typename T, typename W>
static inline __device__ Spot spot_of(const Buffers<T> &s, const W &w, int tile)
{
    int slot = (int)blockIdx.y, e = slot_expert(s.begin, s.experts, slot, tile);
    int64_t row = s.begin[e] + (int64_t)(slot - s.begin[e] / tile - e) * tile;
    int64_t col = (int64_t)blockIdx.x * tile;
    return {e, row, s.begin[e + 1] - row, col, (FORWARD ? w.out(e) : w.in(e)) - col};
}

template <typename T, typename W, bool FORWARD>
KERNEL(TILE_BLOCK) expert_rows_kernel(Buffers<T> s, BY_VALUE W w)
{
    SHARED(float4, sa, [TILE_K][TILE_ROW]);
    SHARED(float4, sb, [TILE_K][TILE_ROW]);
    float sum[TILE_OWN][TILE_OWN];
    const Spot at = spot_of<FORWARD>(s, w, TILE);
    if (at.rows <= 0 || at.cols <= 0) return;
    const T *m = w.at(at.e);
    int64_t out = w.out(at.e), in = w.in(at.e);
    TileInput<T> a = FORWARD ? TileInput<T>{s.x + at.row * s.ldx, s.ldx, 1, at.rows}
                             : TileInput<T>{s.y + at.row * s.ldy, s.ldy, 1, at.rows};
    TileInput<T> b = FORWARD ? TileInput<T>{m + at.col * in, in, 1, at.cols}
                             : TileInput<T>{m + at.col, 1, in, at.cols};
    tile_product(sum, sa, sb, a, b, FORWARD ? in : out);
    int64_t ldc = FORWARD ? s.ldy : s.ldx;
    T *c = (FORWARD ? s.y : s.x) + at.row * ldc + at.col;
    tile_store(sum, at.rows, at.cols, [&](int i, int j, float v) {
        T *place = c + i * ldc + j;
        *place = from_f32<T>(s.add ? to_f32(*place) + v : v);
    });
}

/* The same in bf16, on tensor cores. */
template <typename W, bool FORWARD>
KERNEL(MMA_BLOCK, 2) expert_rows_mma_kernel(Buffers<bf16> s, BY_VALUE W w)
{
    SHARED(uint4, stages, [MMA_STAGES][2][MMA_PACKS]);
    MmaSums sum;
    const Spot at = spot_of<FORWARD>(s, w, MMA_TILE);
    if (at.rows <= 0 || at.cols <= 0) return;
    const bf16 *m = w.at(at.e);
    int64_t out = w.out(at.e), in = w.in(at.e);
    MmaInput a = FORWARD ? mma_input(s.x + at.row * s.ldx, s.ldx, at.rows, in)
                         : mma_input(s.y + at.row * s.ldy, s.ldy, at.rows, out);
    MmaInput b = FORWARD ? mma_input(m + at.col * in, in, at.cols, in)
                         : mma_input(m + at.col, in, at.cols, out);
    mma_product<true, FORWARD>(sum, stages, a, b);
    int64_t ldc = FORWARD ? s.ldy : s.ldx;
    bf16 *c = (FORWARD ? s.y : s.x) + at.row * ldc + at.col;
    mma_store(sum, at.rows, at.cols, [&](int i, int j, int count, float2 v) {
        bf16 *place = c + i * ldc + j;
        mma_write(place, count, s.add ? mma_plus(v, mma_read(place, count)) : v);
    });
}

/* dw[e] += y^T x over the rows of e: tile blockIdx.x of the largest matrix, e = blockIdx.y. */
template <typename T, typename W>
KERNEL(TILE_BLOCK) expert_weights_kernel(Buffers<T> s, BY_VALUE W w, int across)
{
    SHARED(float4, sa, [TILE_K][TILE_ROW]);
    SHARED(float4, sb, [TILE_K][TILE_ROW]);
    float sum[TILE_OWN][TILE_OWN];
    int e = (int)blockIdx.y;
    int64_t i0 = (int64_t)(blockIdx.x / across) * TILE, j0 = (int64_t)(blockIdx.x % across) * TILE;
    int64_t row = s.begin[e], rows = s.begin[e + 1] - row, out = w.out(e), in = w.in(e);
    if (rows <= 0 || i0 >= out || j0 >= in) return;
    TileInput<T> a = {s.y + row * s.ldy + i0, 1, s.ldy, out - i0};
    TileInput<T> b = {s.x + row * s.ldx + j0, 1, s.ldx, in - j0};
    tile_product(sum, sa, sb, a, b, rows);
    float *c = w.at(e) + i0 * in + j0;
    tile_store(sum, out - i0, in - j0, [&](int i, int j, float v) { c[i * in + j] += v; });
}

/* The same of bf16 rows, on tensor cores. */
template <typename W>
KERNEL(MMA_BLOCK, 2) expert_weights_mma_kernel(Buffers<bf16> s, BY_VALUE W w, int across)
{
    SHARED(uint4, stages, [MMA_STAGES][2][MMA_PACKS]);
    MmaSums sum;
    int e = (int)blockIdx.y;
    int64_t i0 = (int64_t)(blockIdx.x / across) * MMA_TILE;
    int64_t j0 = (int64_t)(blockIdx.x % across) * MMA_TILE;
    int64_t row = s.begin[e], rows = s.begin[e + 1] - row, out = w.out(e), in = w.in(e);
    if (rows <= 0 || i0 >= out || j0 >= in) return;
    mma_product<false, false>(sum, stages,
                              mma_input(s.y + row * s.ldy + i0, s.ldy, out - i0, rows),
                              mma_input(s.x + row * s.ldx + j0, s.ldx, in - j0, rows));
    float *c = w.at(e) + i0 * in + j0;
    mma_store(sum, out - i0, in - j0, [&](int i, int j, int count, float2 v) {
        float *place = c + i * in + j;
        mma_write(place, count, mma_plus(v, mma_read(place, count)));
    });
}

/* Rows and columns of a type's tile. */
template <typename T> static constexpr int tile_of()
{
    return sizeof(T) == sizeof(bf16) ? (int)MMA_TILE : (int)TILE;
}

template <typename W, typename G>
static void launch_product(Product product, dim3 grid, cudaStream_t stream, const Buffers<float> &s,
                           const W &w, const G &dw, int across)
{
    if (product == PRODUCT_Y)
        LAUNCH((expert_rows_kernel<float, W, true>), grid, TILE_BLOCK, 0, stream, s, w);
    else if (product == PRODUCT_X)
        LAUNCH((expert_rows_kernel<float, W, false>), grid, TILE_BLOCK, 0, stream, s, w);
    else
        LAUNCH((expert_weights_kernel<float, G>), grid, TILE_BLOCK, 0, stream, s, dw, across);
}

template <typename W, typename G>
static void launch_product(Product product, dim3 grid, cudaStream_t stream, const Buffers<bf16> &s,
                           const W &w, const G &dw, int across)
{
    if (product == PRODUCT_Y)
        LAUNCH((expert_rows_mma_kernel<W, true>), grid, MMA_BLOCK, 0, stream, s, w);
    else if (product == PRODUCT_X)
        LAUNCH((expert_rows_mma_kernel<W, false>), grid, MMA_BLOCK, 0, stream, s, w);
    else
        LAUNCH((expert_weights_mma_kernel<G>), grid, MMA_BLOCK, 0, stream, s, dw, across);
}

template <typename T, typename W, typename G>
static int launch_runs(Device *d, const ExpertCall *c, Product product, const W &w, const G &dw)
{
    Buffers<T> s = {(T *)c->x.data, (T *)c->y.data, tensor_cols(c->x), tensor_cols(c->y),
                    (const int32_t *)c->w_rows.data, (int)c->experts, c->add};
    const int tile = tile_of<T>();
    int64_t out, in, slots = tensor_rows(c->x) / tile + c->experts;
    largest(&c->w, c->experts, &out, &in);
    int64_t across = ceil_div(in, tile), down = ceil_div(out, tile);
    if (slots > 65535) return cuda_failed(d, c->what, "more than 65535 tiles of rows");
    dim3 grid((unsigned)(product == PRODUCT_Y ? down : across), (unsigned)slots);
    if (product == PRODUCT_W) grid = dim3((unsigned)(across * down), (unsigned)c->experts);
    launch_product(product, grid, cuda_stream(d), s, w, dw, (int)across);
    return cuda_launched(d, c->what);
}

template <typename T> static int run_runs(Device *d, const ExpertCall *c, Product product)
{
    if (c->w.each)
        return launch_runs<T>(d, c, product, kernel_each<T>(&c->w, c->experts),
                              kernel_each<float>(&c->w, c->experts));
    return launch_runs<T>(d, c, product, kernel_stack<T>(&c->w), kernel_stack<float>(&c->w));
}

static int run(Device *d, const ExpertCall *c, Product product)
{
    if (tensor_rows(c->x) == 0) return 0;
    if (!tensor_given(c->w_rows)) return run_equal(d, c, product);
    return c->x.type == DT_F32 ? run_runs<float>(d, c, product) : run_runs<bf16>(d, c, product);
}

/* ---- Entries ----------------------------------------------------------------------------------*/

static int experts_fwd(Device *d, const char *what, Tensor y, Tensor x, Matrices w,
                       Tensor row_begin)
{
    const ExpertCall c = {what, x, y, row_begin, w, false, tensor_elements(row_begin) - 1};
    return run(d, &c, PRODUCT_Y);
}

/* dx (+)= dy w[e] for the rows of expert e, if dx is given
 * dw[e] += dy^T x over the rows of expert e, if dw is given */
static int experts_bwd(Device *d, const ExpertCall *c, Tensor dx, Matrices dw)
{
    ExpertCall to_x = *c, to_w = *c;
    int rc = 0;
    to_x.x = dx;
    to_w.w = dw;
    if (tensor_given(dx)) rc = run(d, &to_x, PRODUCT_X);
    return rc || !matrices_given(&dw) ? rc : run(d, &to_w, PRODUCT_W);
}

int expert_linear_fwd_cuda(Device *d, Tensor y, Tensor x, Tensor w, Tensor row_begin)
{
    return experts_fwd(d, "expert_linear_fwd", y, x, {NULL, w}, row_begin);
}

int expert_linear_bwd_cuda(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w,
                           Tensor row_begin)
{
    const ExpertCall c = {"expert_linear_bwd", x, dy, row_begin, {NULL, w}, g.dx_add,
                          tensor_elements(row_begin) - 1};
    return experts_bwd(d, &c, g.dx, {NULL, g.dw});
}

int expert_each_fwd_cuda(Device *d, Tensor y, Tensor x, const Tensor *w, Tensor row_begin)
{
    return experts_fwd(d, "expert_each_fwd", y, x, {w, tensor_none()}, row_begin);
}

int expert_each_bwd_cuda(Device *d, EachGrad g, Tensor dy, Tensor x, const Tensor *w,
                         Tensor row_begin)
{
    const ExpertCall c = {"expert_each_bwd", x, dy, row_begin, {w, tensor_none()}, g.dx_add,
                          tensor_elements(row_begin) - 1};
    return experts_bwd(d, &c, g.dx, {g.dw, tensor_none()});
}
