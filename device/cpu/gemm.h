/* device/cpu/gemm.h - matrix products of the CPU device, on oneDNN.
 *
 * gemm_serial runs in the calling thread; oneDNN primitives are made and called single-threaded and
 * kept in a cache of the thread. gemm_parallel cuts C into tiles whose size depends on the shape and
 * the instruction set only, never on the number of threads; each tile is one serial product over the
 * whole K (or fixed K blocks in fixed order), so bits do not depend on threads.
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
} Gemm;

/* C (+)= A B, in this thread. Strides are in elements. Any m, n, k >= 0 (k = 0: C = 0 or kept). */
void gemm_serial(const Device *d, const Gemm *g);

/* The same over all threads of the device. Not to be called inside a parallel region. */
void gemm_parallel(Device *d, const Gemm *g);

#endif
