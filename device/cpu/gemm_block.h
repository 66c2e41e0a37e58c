/* device/cpu/gemm_block.h - the two kinds of serial product behind gemm_serial. */
#ifndef ISOMOE_DEVICE_CPU_GEMM_BLOCK_H
#define ISOMOE_DEVICE_CPU_GEMM_BLOCK_H

#include "device/cpu/gemm.h"

#define gemm_block CPU_NAME(gemm_block)
#define gemm_native CPU_NAME(gemm_native)

/* C (+)= A B in this thread, operands widened to f32 where they are bf16; m, n, k > 0. The types of
 * A and B are the arguments (g->type is not read); C is f32 or bf16. An element of C is one sum
 * over k in ascending order, in blocks of fixed length: its bits do not depend on m, n or place. */
void gemm_block(const Gemm *g, DType a_type, DType b_type);

/* The same for bf16 operands through oneDNN; m, n, k > 0. */
void gemm_native(const Gemm *g);

#endif
