/* device/cpu/gemm.h - matrix products of the CPU device.
 *
 * gemm_serial runs in the calling thread. gemm_parallel cuts C into tiles whose size depends on the
 * shape only, never on the number of threads; each tile is one serial product over the whole K (or
 * fixed K blocks in fixed order), so bits do not depend on threads. In f32 (and wherever bf16 is
 * widened) the bits of an element of gemm_serial's C do not depend on m, n or the element's place;
 * the same holds for gemm_parallel unless it splits K (few tiles, K >= 2048, C f32).
 */
#ifndef ISOMOE_DEVICE_CPU_GEMM_H
#define ISOMOE_DEVICE_CPU_GEMM_H

#include "device/cpu/cpu.h"

typedef struct Gemm {
    int64_t m, n, k;
    const void *a; /* (m, k) with row stride lda; a_trans: stored (k, m) with row stride lda */
    int64_t lda;
    bool a_trans;
    const void *b; /* (k, n) with row stride ldb; b_trans: stored (n, k) with row stride ldb */
    int64_t ldb;
    bool b_trans;
    void *c; /* (m, n) with row stride ldc */
    int64_t ldc;
    DType type;   /* of a and b: f32 or bf16 */
    DType c_type; /* f32, or bf16 when type is bf16 */
    bool add;     /* C += A B instead of C = A B */
    const float *bias; /* (n) added to every row; or NULL */
} Gemm;

#ifdef CPU_ISA
#define gemm_tiles CPU_NAME(gemm_tiles)
#define gemm_plan CPU_NAME(gemm_plan)
#define gemm_task CPU_NAME(gemm_task)
#define gemm_reduce CPU_NAME(gemm_reduce)

/* C (+)= A B, in this thread. Strides are in elements. Any m, n, k >= 0 (k = 0: C = 0 or kept). */
void gemm_serial(const Device *d, const Gemm *g);

/* The same over all threads of the device. Not to be called inside a parallel region; may call
 * cpu_scratch, which ends the life of the caller's scratch memory. */
void gemm_parallel(Device *d, const Gemm *g);

/* How a product is cut into tasks, for an operation that puts several products into one parallel
 * loop: gemm_task for each index, and, if splits > 1, gemm_reduce for each row of C when all tasks
 * are done. With splits, each sum over k is made in that many parts, in `partial`, and C is f32. */
typedef struct GemmPlan {
    int64_t tasks;
    int64_t tile_m, tile_n, rows, cols; /* rows x cols tiles of C, tile_m x tile_n each */
    int64_t splits;
    int64_t partial_bytes; /* 0 if splits == 1 */
} GemmPlan;

/* The plan for g; depends on shape and types only, the pointers are not read. split: the sum may be
 * split (which makes the bits of a row of C depend on m). */
GemmPlan gemm_plan(const Device *d, const Gemm *g, bool split);
/* The same without splits, for one of `products` products of about this shape that run together. */
GemmPlan gemm_tiles(const Device *d, const Gemm *g, int64_t products);
void gemm_task(const Device *d, const Gemm *g, const GemmPlan *p, float *partial, int64_t index);
void gemm_reduce(const Gemm *g, const GemmPlan *p, const float *partial, int64_t row);
#endif

#endif
