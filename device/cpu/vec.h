/* device/cpu/vec.h - 16-lane vectors in plain GNU C: one source for every instruction set.
 *
 * The lane count is 16 everywhere (gcc splits a vector into two or four registers where it must),
 * so that sums have the same order, and the same code runs from SSE to AVX-512. Types: V16 of
 * float, I16 of int32. Loads and stores take any alignment.
 */
#ifndef ISOMOE_DEVICE_CPU_VEC_H
#define ISOMOE_DEVICE_CPU_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "device/tensor.h"

typedef float V16 __attribute__((vector_size(64)));
typedef int32_t I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32)));

enum { LANES = 16 };

static inline V16 v_set(float x) { return x - (V16){0}; }

static inline V16 v_load(const float *p)
{
    V16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void v_store(float *p, V16 v) { memcpy(p, &v, sizeof v); }

static inline V16 v_load_bf16(const uint16_t *p)
{
    H16 h;
    memcpy(&h, p, sizeof h);
    return (V16)(__builtin_convertvector(h, U16) << 16);
}

/* Round to nearest even, NaN kept: the lanes of bf16_from_f32. */
static inline void v_store_bf16(uint16_t *p, V16 v)
{
    U16 u = (U16)v;
    U16 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    U16 quiet = (u >> 16) | 0x40u;
    U16 is_nan = (U16)((u & 0x7fffffffu) > 0x7f800000u); /* all ones where NaN */
    H16 h = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), H16);
    memcpy(p, &h, sizeof h);
}

/* First `count` (< 16) elements; the other lanes are `fill` when loading, kept when storing. */
static inline V16 v_load_part(const float *p, int64_t count, float fill)
{
    float lane[LANES];
    for (int i = 0; i < LANES; i++) lane[i] = i < count ? p[i] : fill;
    return v_load(lane);
}

static inline V16 v_load_bf16_part(const uint16_t *p, int64_t count, float fill)
{
    float lane[LANES];
    for (int i = 0; i < LANES; i++) lane[i] = i < count ? bf16_to_f32(p[i]) : fill;
    return v_load(lane);
}

static inline void v_store_part(float *p, V16 v, int64_t count)
{
    float lane[LANES];
    v_store(lane, v);
    for (int64_t i = 0; i < count; i++) p[i] = lane[i];
}

static inline void v_store_bf16_part(uint16_t *p, V16 v, int64_t count)
{
    float lane[LANES];
    v_store(lane, v);
    for (int64_t i = 0; i < count; i++) p[i] = bf16_from_f32(lane[i]);
}

/* Element i onwards of an array of the given type (f32 or bf16); n elements are left at i. */
static inline V16 v_get(const void *array, DType type, int64_t i, int64_t n)
{
    if (type == DT_F32)
        return n >= LANES ? v_load((const float *)array + i)
                          : v_load_part((const float *)array + i, n, 0.0f);
    return n >= LANES ? v_load_bf16((const uint16_t *)array + i)
                      : v_load_bf16_part((const uint16_t *)array + i, n, 0.0f);
}

static inline void v_put(void *array, DType type, int64_t i, int64_t n, V16 v)
{
    if (type == DT_F32) {
        if (n >= LANES) v_store((float *)array + i, v);
        else v_store_part((float *)array + i, v, n);
    } else {
        if (n >= LANES) v_store_bf16((uint16_t *)array + i, v);
        else v_store_bf16_part((uint16_t *)array + i, v, n);
    }
}

static inline V16 v_select(I16 mask, V16 yes, V16 no)
{
    return (V16)(((I16)yes & mask) | ((I16)no & ~mask));
}

static inline V16 v_max(V16 a, V16 b) { return v_select(a > b, a, b); }
static inline V16 v_min(V16 a, V16 b) { return v_select(a < b, a, b); }

/* Sum of the lanes as a fixed tree: 16 -> 8 -> 4 -> 2 -> 1. */
static inline float v_sum(V16 v)
{
    float lane[LANES];
    v_store(lane, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}

static inline float v_max_lane(V16 v)
{
    float lane[LANES];
    v_store(lane, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
}

/* e^x: 2^n e^r with r in [-ln2/2, ln2/2], e^r by its Taylor polynomial of degree 7 in Horner form
 * (relative error below 2e-7 in f32). Below -87.3 the result is 0, above 88.3 it is infinite; NaN
 * stays NaN. */
static inline V16 v_exp(V16 x)
{
    const V16 magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    V16 clamped = v_min(v_max(x, v_set(-87.3f)), v_set(88.3f));
    V16 shifted = clamped * 1.44269504f + magic;
    V16 n = shifted - magic;
    V16 r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
    V16 p = v_set(1.9841270e-4f);
    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    I16 exponent = ((I16)shifted - (I16)magic + 127) << 23;
    V16 result = p * (V16)exponent;
    result = v_select(x < v_set(-87.3f), v_set(0.0f), result);
    result = v_select(x > v_set(88.3f), v_set(INFINITY), result);
    return v_select(x != x, x, result);
}

/* 1 / (1 + e^-x). */
static inline V16 v_sigmoid(V16 x) { return 1.0f / (1.0f + v_exp(-x)); }

#endif
