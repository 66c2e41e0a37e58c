/* tests/simt/sim_block.h - the block that runs: its threads, what they wait for, who is ready.
 * Between sim_sched.cc, sim_warp.cc, sim_mma.cc, sim_async.cc and
 * sim_shared.cc. */
#ifndef ISOMOE_TESTS_SIMT_SIM_BLOCK_H
#define ISOMOE_TESTS_SIMT_SIM_BLOCK_H

#include "tests/simt/sim.h"

typedef enum SimState { SIM_NEW, SIM_READY, SIM_AT_BARRIER, SIM_IN_WARP, SIM_ENDED } SimState;

struct SimThread {
    SimState state;
    int fibre;        /* that it stands on, once it has started */
    int operand;      /* of the warp function that it waits in, and its value */
    uint64_t value;
    uint64_t result;  /* of the call or barrier, once it is ready */
    const char *what; /* the call that it waits in, and where */
    SimSite site;
};

/* Lanes of a warp that wait in one call with one mask. */
struct SimGroup {
    SimWarpCall call; /* of the first one: value and operand are each lane's own */
    unsigned arrived;
};

struct SimWarp {
    uint32_t epoch; /* __syncwarp with all lanes passed */
    int n_groups;
    SimGroup group[SIM_WARP];
};

struct SimBlockRun {
    int threads, ended, waiting; /* waiting: at the barrier */
    int first_waiting, barrier_votes;
    uint32_t block_epoch;
    SimThread thread[SIM_THREADS];
    SimWarp warp[SIM_THREADS / SIM_WARP];
    uint16_t order[SIM_THREADS]; /* in which threads start and are released */
    int started;                 /* threads of `order` that have */
    bool down;                   /* the order is descending */
};
extern SimBlockRun sim_block;

/* The thread that runs. */
static inline int sim_current() { return (int)sim_thread.thread; }

static inline bool sim_same_place(const SimSite *a, const SimSite *b)
{
    return a->line == b->line && (a->file == b->file || !strcmp(a->file, b->file));
}

/* A waiting thread may go on. */
void sim_ready(int thread);
/* The running thread waits (its state says what for) until it is ready again. */
void sim_wait();
/* A thread has ended: faults if a lane of its warp waits for it. */
void sim_warp_ended(int thread);

/* All lanes of a warp are in mma_bf16, or in a matrix load; their values are addresses of SimMma,
 * SimMatrixLoad. */
void sim_mma(const SimThread *lanes);
void sim_matrix(const SimThread *lanes, bool transposed);
/* A thread has ended: faults if a copy that it started has not been waited for. */
void sim_copies_ended(int thread);

/* Shared memory: at a launch, and at each of its blocks. */
void sim_shared_launch(const SimLaunch &launch);
void sim_shared_block();

/* 64 random bits that follow from the order's seed. */
uint64_t sim_random();

#endif
