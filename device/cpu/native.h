/* device/cpu/native.h - one register of the instruction set at hand as a vector of floats.
 *
 * For the innermost loops whose results do not depend on the width, because each lane is an element
 * of its own; wherever lanes are summed, use the 16 lanes of vec.h instead.
 */
#ifndef ISOMOE_DEVICE_CPU_NATIVE_H
#define ISOMOE_DEVICE_CPU_NATIVE_H

#include <stdint.h>
#include <string.h>

#if defined __AVX512F__
enum { WIDTH = 16 };
#elif defined __AVX2__
enum { WIDTH = 8 };
#else
enum { WIDTH = 4 };
#endif

typedef float VF __attribute__((vector_size(4 * WIDTH)));
typedef int32_t VI __attribute__((vector_size(4 * WIDTH)));

static inline VF vf_load(const float *p)
{
    VF v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vf_store(float *p, VF v) { memcpy(p, &v, sizeof v); }

#endif
