/* tests/simt/simt_mma.h - the functions of device/cuda/mma.cuh for the emulator; see there. Reads
 * and writes of shared memory stand here, in the kernels' own objects, so that the sanitizers and
 * the checker see them as any other access. */
#ifndef ISOMOE_TESTS_SIMT_SIMT_MMA_H
#define ISOMOE_TESTS_SIMT_SIMT_MMA_H

#include "tests/simt/simt.h"

/* ---- Matrices of a warp (sim_mma.cc) ----------------------------------------------------------*/

/* What a lane brings to mma_bf16, and to a matrix load. */
struct SimMma {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
};
struct SimMatrixLoad {
    uint4 row;
    uint32_t *r;
};

static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                            SIM_HERE)
{
    SimMma lane = {c, a, {b0, b1}};
    sim_warp({SIM_MMA, 0xffffffffu, (uint64_t)(uintptr_t)&lane, 0, 32, {file, line}});
}

/* Faults unless [p, p + 16) is shared memory on 16 bytes. */
void sim_need_shared(const char *call, const void *p, SimSite site);

/* (File and line, not a SimSite: a copy of one looks to the checker like a pack out of place.) */
static inline void sim_matrix_load(uint32_t (&r)[4], const uint4 *row, SimWarpOp op,
                                   const char *file, int line)
{
    sim_need_shared("matrix_load", row, {file, line});
    SimMatrixLoad lane = {*row, r};
    sim_warp({op, 0xffffffffu, (uint64_t)(uintptr_t)&lane, 0, 32, {file, line}});
}
static inline void matrix_load(uint32_t (&r)[4], const uint4 *row, SIM_HERE)
{
    sim_matrix_load(r, row, SIM_MATRIX, file, line);
}
static inline void matrix_load_trans(uint32_t (&r)[4], const uint4 *row, SIM_HERE)
{
    sim_matrix_load(r, row, SIM_MATRIX_TRANS, file, line);
}

/* ---- Copies that run beside (sim_async.cc) ----------------------------------------------------*/

/* A copy is made when its thread waits for it, as late as it may be. Before, its 16 bytes are
 * NaN, written when it starts: so both ends are accesses that the checker orders against others. */
struct SimCopy {
    uint4 *to;
    const void *from;
    int bytes;
};
void sim_copy_start(const SimCopy &copy, SimSite site); /* faults if it may not be */
void sim_copy_group();
/* The oldest copy that is not among the latest `left` groups; false: there is none. */
bool sim_copy_due(int left, SimCopy *copy);

static inline void copy_start(uint4 *to, const void *from, int bytes, SIM_HERE)
{
    sim_copy_start({to, from, bytes}, {file, line});
    *to = make_uint4(~0u, ~0u, ~0u, ~0u);
}

static inline void copy_group() { sim_copy_group(); }

template <int LEFT> static inline void copy_wait()
{
    SimCopy copy;
    while (sim_copy_due(LEFT, &copy)) {
        if (copy.bytes == 16) {
            *copy.to = *(const uint4 *)copy.from;
            continue;
        }
        union {
            uint4 all;
            unsigned char byte[16];
        } v = {make_uint4(0, 0, 0, 0)};
        for (int i = 0; i < copy.bytes; i++) v.byte[i] = ((const unsigned char *)copy.from)[i];
        *copy.to = v.all;
    }
}

#endif
