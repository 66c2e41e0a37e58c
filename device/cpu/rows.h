/* device/cpu/rows.h - what the operations that work row by row, or element by element, share. */
#ifndef ISOMOE_DEVICE_CPU_ROWS_H
#define ISOMOE_DEVICE_CPU_ROWS_H

#include "base/size.h"
#include "device/cpu/cpu.h"
#include "device/cpu/vec.h"

/* Kernels take the element type, and `n`, the number of elements left, as arguments, and are
 * inlined where both are constants: one call per type; n = LANES in the loop, the rest in a call
 * behind it. */
#define ROW_KERNEL static inline __attribute__((always_inline))

/* With fewer elements than this, waking the threads costs more than it saves. */
enum { ROWS_SERIAL = 2048 };

/* Elementwise operations are cut into blocks of this many elements. Block bounds do not depend on
 * the number of threads, so an element is always in the same place of a vector loop or its tail. */
enum { ROWS_BLOCK = 1 << 14 };

static inline bool type_is_float(DType type) { return type == DT_F32 || type == DT_BF16; }

/* Address of row n of a matrix with `cols` columns. */
static inline void *row_at(Tensor t, int64_t n, int64_t cols)
{
    return (char *)t.data + n * cols * (int64_t)dtype_size(t.type);
}

#endif
