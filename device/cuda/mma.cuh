/* device/cuda/mma.cuh - the tensor cores' instructions, for one warp: m16n8k16 in bf16, the loads
 * of its operands from shared memory, and copies from global to shared memory that run beside.
 *
 * THE PTX BELOW HAS BEEN COMPILED AND ASSEMBLED (sm_80, sm_90, sm_100), AND NEVER RUN. What has run
 * is the emulator's form of the same functions (tests/simt/simt_mma.h), with the layouts of this
 * file's functions; tests/simt/test_simt_mma.cu holds both to the PTX manual: the layouts to a
 * table of its own, the text of the instructions to their form.
 *
 * A warp multiplies A (16, 16) by B (16, 8) and adds to C (16, 8); each lane holds a part:
 *   a[r]: two bf16, the first in the low half: A at (mma_a_row(lane, r), mma_a_k(lane, r)) and the
 *         next k
 *   b[r]: two bf16: B at (mma_b_k(lane, r), mma_b_col(lane)) and the next k
 *   c[i]: f32: C at (mma_c_row(lane, i), mma_c_col(lane, i))
 * (PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".) All 32 lanes take part
 * in mma_bf16 and in the matrix loads, at one place of the code.
 */
#ifndef ISOMOE_DEVICE_CUDA_MMA_CUH
#define ISOMOE_DEVICE_CUDA_MMA_CUH

#include "device/cuda/common.cuh"

enum { MMA_ROWS = 16, MMA_COLS = 8, MMA_DEPTH = 16, MATRIX_ROWS = 8 };

/* ---- Layouts: the one table, for kernels and for the emulator ---------------------------------*/

static inline __host__ __device__ int mma_a_row(int lane, int r) { return lane / 4 + r % 2 * 8; }
static inline __host__ __device__ int mma_a_k(int lane, int r) { return lane % 4 * 2 + r / 2 * 8; }
static inline __host__ __device__ int mma_b_k(int lane, int r) { return lane % 4 * 2 + r * 8; }
static inline __host__ __device__ int mma_b_col(int lane) { return lane / 4; }
static inline __host__ __device__ int mma_c_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
static inline __host__ __device__ int mma_c_col(int lane, int i) { return lane % 4 * 2 + i % 2; }

/* Matrices (8, 8) in shared memory: lane 8 m + i names row i of matrix m, 8 bf16 on 16 bytes; a
 * lane receives of matrix r the two elements (matrix_row(lane), matrix_col(lane)) and the next
 * column, or those of the transposed matrix. */
static inline __host__ __device__ int matrix_row(int lane) { return lane / 4; }
static inline __host__ __device__ int matrix_col(int lane) { return lane % 4 * 2; }

/* ---- Instructions -----------------------------------------------------------------------------*/

#ifdef __CUDACC__

/* c += a b, f32; how the 16 products of an element are added up is the hardware's own affair. */
static inline __device__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four matrices, r[m] of matrix m. `row`: shared memory, on 16 bytes. */
static inline __device__ void matrix_load(uint32_t (&r)[4], const uint4 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* The same of the transposed matrices. */
static inline __device__ void matrix_load_trans(uint32_t (&r)[4], const uint4 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* Starts a copy of `bytes` (0..16) bytes of global memory to shared memory, zeros behind them: 16
 * bytes at `to` in all. Both on 16 bytes. Until its group has been waited for, nobody touches
 * `to`. */
static inline __device__ void copy_start(uint4 *to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from)),
                   "r"(bytes)
                 : "memory");
}

/* What the thread has started since its last group becomes a group (which may be empty). */
static inline __device__ void copy_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits until at most LEFT of the thread's latest groups are under way: the older ones' bytes are
 * there for this thread; for others behind a barrier that follows. */
template <int LEFT> static inline __device__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#else
#include <simt_mma.h> /* the same names, from tests/simt */
#endif

#endif
