/* device/cuda/mma_tile.cuh - a tile of a bf16 product by one block on tensor cores.
 *
 * 256 threads make a tile of 128 x 128: eight warps, 2 down and 4 across, 64 x 32 each, whose sums
 * (64 f32 a thread) stay in registers. Slices of 32 of both operands go through shared memory as
 * bf16, in three stages: while one is multiplied, two are on their way (copies of 16 bytes that
 * pass by the registers). One barrier a slice.
 *
 * An operand lies in global memory along k (its rows are the tile's) or along i (its rows are k's),
 * and the same way in shared memory, where 16 bytes are moved within their line so that neither the
 * eight rows of a matrix nor eight neighbouring copies meet in a bank. Rows that do not start on 16
 * bytes are read element by element, and stored at once.
 *
 * A sum runs over k in slices in order: its bits depend on the operands alone. Traffic of a product
 * (m, n, k): m k n/128 + k n m/128 elements read (from cache, most of it), m n written, against
 * m k + k n + m n that must move.
 */
#ifndef ISOMOE_DEVICE_CUDA_MMA_TILE_CUH
#define ISOMOE_DEVICE_CUDA_MMA_TILE_CUH

#include "device/cuda/mma.cuh"

enum {
    MMA_TILE = 128,       /* rows and columns of a tile */
    MMA_SLICE = 32,       /* of k */
    MMA_STAGES = 3,
    MMA_BLOCK = 256,
    MMA_PACK = 8,         /* bf16 in 16 bytes */
    MMA_PACKS = MMA_TILE * MMA_SLICE / MMA_PACK, /* of an operand's slice */
    MMA_OWN_ROWS = 64, MMA_OWN_COLS = 32,        /* a warp's */
    MMA_DOWN = MMA_OWN_ROWS / MMA_ROWS, MMA_ACROSS = MMA_OWN_COLS / MMA_COLS
};

/* A thread's sums: [16 rows][8 columns][4 of them]. */
typedef float MmaSums[MMA_DOWN][MMA_ACROSS][4];
/* Shared memory of a block: stage, operand, packs. */
typedef uint4 MmaStages[MMA_STAGES][2][MMA_PACKS];

/* One operand of a tile: `left` of its i count (more than a tile's are as many), `depth` of its k;
 * rows ld elements apart. */
struct MmaInput {
    const bf16 *p;
    int64_t ld;
    int left, depth;
};

static inline __device__ MmaInput mma_input(const bf16 *p, int64_t ld, int64_t left, int64_t depth)
{
    return {p, ld, left < MMA_TILE ? (int)left : (int)MMA_TILE, (int)depth};
}

/* Where a pack stands in shared memory. ALONG_K: `line` is i (128 of them), `pack` one of 4 along
 * k; else `line` is k (32), `pack` one of 16 along i. */
template <bool ALONG_K> static inline __host__ __device__ int mma_place(int line, int pack)
{
    return ALONG_K ? line * 4 + (pack ^ (line / 2 % 4)) : line * 16 + (pack ^ (line % 8));
}

/* ---- From global memory -----------------------------------------------------------------------*/

/* What a thread brings of an operand: two packs a slice, STEP lines apart. */
template <bool ALONG_K> struct MmaStream {
    static constexpr int PACKS = (ALONG_K ? (int)MMA_SLICE : (int)MMA_TILE) / MMA_PACK; /* a line */
    static constexpr int STEP = MMA_BLOCK / PACKS;
    const bf16 *p; /* its next pack */
    int64_t ld;
    int place;     /* in a stage */
    int lines;     /* that the operand has from this one on */
    int elements;  /* that the line has from here on */
    bool aligned;
};

template <bool ALONG_K> static inline __device__ MmaStream<ALONG_K> mma_stream(const MmaInput &in)
{
    const int line = (int)threadIdx.x / MmaStream<ALONG_K>::PACKS;
    const int pack = (int)threadIdx.x % MmaStream<ALONG_K>::PACKS;
    return {in.p + line * in.ld + pack * MMA_PACK, in.ld, mma_place<ALONG_K>(line, pack),
            (ALONG_K ? in.left : in.depth) - line,
            (ALONG_K ? in.depth : in.left) - pack * MMA_PACK,
            ((uintptr_t)in.p | (uintptr_t)in.ld * sizeof(bf16)) % 16 == 0};
}

/* Up to 8 elements one by one, zeros behind `count`. */
static inline __device__ uint4 mma_elements(const bf16 *from, int count)
{
    Pack<bf16> p;
#pragma unroll
    for (int j = 0; j < MMA_PACK; j++) p.x[j] = j < count ? from[j] : from_f32<bf16>(0.0f);
    return p.bits;
}

/* Starts to bring the next slice into a stage, zeros behind the operand's ends; steps over it. */
template <bool ALONG_K>
static inline __device__ void mma_bring(uint4 *stage, MmaStream<ALONG_K> &s)
{
    constexpr int STEP = MmaStream<ALONG_K>::STEP;
    static_assert(STEP % 8 == 0, "places of two packs differ as their lines do");
#pragma unroll
    for (int j = 0; j < MMA_PACKS / MMA_BLOCK; j++) {
        int count = s.elements < MMA_PACK ? s.elements : (int)MMA_PACK;
        if (count < 0 || s.lines <= j * STEP) count = 0;
        const bf16 *from = s.p + j * STEP * s.ld;
        uint4 *to = stage + s.place + j * MMA_BLOCK;
        if (s.aligned) copy_start(to, from, count * (int)sizeof(bf16));
        else *to = mma_elements(from, count);
    }
    s.p += ALONG_K ? (int64_t)MMA_SLICE : MMA_SLICE * s.ld;
    if (ALONG_K) s.elements -= MMA_SLICE;
    else s.lines -= MMA_SLICE;
}

/* ---- From shared memory -----------------------------------------------------------------------*/

/* Four matrices of a slice in a warp's registers: elements i0 .. i0 + 15 and k0 .. k0 + 15, in the
 * order of `a`'s registers: (i, k) halves 00, 10, 01, 11. For a product's right side, registers 0
 * and 2 are `b` of the first eight columns, 1 and 3 of the others. */
template <bool ALONG_K>
static inline __device__ void mma_fragment(uint32_t (&r)[4], const uint4 *slice, int i0, int k0)
{
    int lane = (int)threadIdx.x % WARP, in = lane % MATRIX_ROWS, matrix = lane / MATRIX_ROWS;
    int i = i0 + matrix % 2 * MATRIX_ROWS, k = k0 + matrix / 2 * MATRIX_ROWS;
    if constexpr (ALONG_K) matrix_load(r, slice + mma_place<true>(i + in, k / MMA_PACK));
    else matrix_load_trans(r, slice + mma_place<false>(k + in, i / MMA_PACK));
}

/* The first row and column of the warp's part of the tile. */
static inline __device__ int mma_own_row() { return (int)threadIdx.x / WARP / 4 * MMA_OWN_ROWS; }
static inline __device__ int mma_own_col() { return (int)threadIdx.x / WARP % 4 * MMA_OWN_COLS; }

/* sum += one slice. */
template <bool A_ALONG_K, bool B_ALONG_K>
static inline __device__ void mma_multiply(MmaSums &sum, const uint4 *sa, const uint4 *sb)
{
#pragma unroll
    for (int k = 0; k < MMA_SLICE; k += MMA_DEPTH) {
        uint32_t a[MMA_DOWN][4], b[MMA_ACROSS / 2][4];
#pragma unroll
        for (int m = 0; m < MMA_DOWN; m++)
            mma_fragment<A_ALONG_K>(a[m], sa, mma_own_row() + m * MMA_ROWS, k);
#pragma unroll
        for (int n = 0; n < MMA_ACROSS / 2; n++)
            mma_fragment<B_ALONG_K>(b[n], sb, mma_own_col() + n * 2 * MMA_COLS, k);
#pragma unroll
        for (int m = 0; m < MMA_DOWN; m++)
#pragma unroll
            for (int n = 0; n < MMA_ACROSS; n++)
                mma_bf16(sum[m][n], a[m], b[n / 2][n % 2], b[n / 2][n % 2 + 2]);
    }
}

/* ---- The tile ---------------------------------------------------------------------------------*/

/* sum = the tile's product over a.depth (= b.depth) of k: element (i, j) is the sum over k of a(i,
 * k) b(j, k). All threads of the block call it; a warp whose part lies behind the ends computes
 * nothing. */
template <bool A_ALONG_K, bool B_ALONG_K>
static inline __device__ void mma_product(MmaSums &sum, MmaStages &stages, const MmaInput &a,
                                          const MmaInput &b)
{
    MmaStream<A_ALONG_K> left = mma_stream<A_ALONG_K>(a);
    MmaStream<B_ALONG_K> right = mma_stream<B_ALONG_K>(b);
    const bool mine = mma_own_row() < a.left && mma_own_col() < b.left;
    const int slices = (a.depth + MMA_SLICE - 1) / MMA_SLICE;
    int use = 0, fill = 0; /* stages */
#pragma unroll
    for (int m = 0; m < MMA_DOWN; m++)
#pragma unroll
        for (int n = 0; n < MMA_ACROSS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sum[m][n][i] = 0.0f;
    for (int s = 1 - MMA_STAGES; s < slices; s++) {
        if (s >= 0) {
            copy_wait<MMA_STAGES - 2>(); /* slice s is there, as far as this thread brought it */
            __syncthreads();             /* all of it; and slice s - 1 has been used */
        }
        if (s + MMA_STAGES - 1 < slices) {
            mma_bring(stages[fill][0], left);
            mma_bring(stages[fill][1], right);
            fill = fill + 1 == MMA_STAGES ? 0 : fill + 1;
        }
        copy_group();
        if (s < 0) continue;
        if (mine) mma_multiply<A_ALONG_K, B_ALONG_K>(sum, stages[use][0], stages[use][1]);
        use = use + 1 == MMA_STAGES ? 0 : use + 1;
    }
}

/* Calls put(i, j, count, pair) for the thread's pairs of neighbouring columns within
 * (rows, cols) of the tile; j is even, count 1 where the second one is outside. */
template <typename Put>
static inline __device__ void mma_store(const MmaSums &sum, int64_t rows, int64_t cols, Put put)
{
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < MMA_DOWN; m++)
#pragma unroll
        for (int n = 0; n < MMA_ACROSS; n++)
#pragma unroll
            for (int c = 0; c < 4; c += 2) {
                int i = mma_own_row() + m * MMA_ROWS + mma_c_row(lane, c);
                int j = mma_own_col() + n * MMA_COLS + mma_c_col(lane, c);
                if (i < rows && j < cols)
                    put(i, j, j + 1 < cols ? 2 : 1,
                        make_float2(sum[m][n][c], sum[m][n][c + 1]));
            }
}

static inline __device__ float2 mma_plus(float2 a, float2 b)
{
    return make_float2(a.x + b.x, a.y + b.y);
}

/* Two neighbouring numbers in memory, in one access where they stand on their common size. */
static inline __device__ bool mma_pair(const void *p, int size)
{
    return (uintptr_t)p % (uintptr_t)(2 * size) == 0;
}

static inline __device__ float2 mma_read(const float *from, int count)
{
    if (count == 2 && mma_pair(from, 4)) return *(const float2 *)from;
    return make_float2(from[0], count == 2 ? from[1] : 0.0f);
}

static inline __device__ float2 mma_read(const bf16 *from, int count)
{
    if (count == 2 && mma_pair(from, 2)) return __bfloat1622float2(*(const __nv_bfloat162 *)from);
    return make_float2(to_f32(from[0]), count == 2 ? to_f32(from[1]) : 0.0f);
}

static inline __device__ void mma_write(float *to, int count, float2 v)
{
    if (count == 2 && mma_pair(to, 4)) {
        *(float2 *)to = v;
        return;
    }
    to[0] = v.x;
    if (count == 2) to[1] = v.y;
}

static inline __device__ void mma_write(bf16 *to, int count, float2 v)
{
    if (count == 2 && mma_pair(to, 2)) {
        *(__nv_bfloat162 *)to = __floats2bfloat162_rn(v.x, v.y);
        return;
    }
    to[0] = from_f32<bf16>(v.x);
    if (count == 2) to[1] = from_f32<bf16>(v.y);
}

#endif
