/* tests/simt/sim.h - what the parts of the SIMT emulator share; kernels never see it.
 *
 *   sim_launch.cc   what a launch must be
 *   sim_sched.cc    running it: fibres, orders, barriers
 *   sim_warp.cc     warp operations
 *   sim_shared.cc   shared memory
 *   sim_switch.cc   the switch between fibres
 *   sim_mma.cc      products and loads of matrices by a warp; sim_async.cc: copies that run beside
 *   sim_memory.cc   device heap, pinned host memory, poison, crashes; the device itself
 *   sim_stream.cc   streams, copies, events, graphs
 *   sim_check.cc    the race checker: runtime of -fsanitize=thread (kind `check`)
 *   sim_cublaslt.cc stand-in for the matrix library
 *
 * A mistake of the program under test ends the process: sim_fault says what, which kernel, block,
 * thread and line, and exits with SIM_FAULT_EXIT. One host thread at a time uses the emulator.
 */
#ifndef ISOMOE_TESTS_SIMT_SIM_H
#define ISOMOE_TESTS_SIMT_SIM_H

#include <functional>

#include "tests/simt/cuda_runtime.h"

enum { SIM_FAULT_EXIT = 86, SIM_WARP = 32, SIM_THREADS = 1024 };
static constexpr size_t SIM_ZONE = 256;       /* bytes between blocks of the heap */
static constexpr size_t SIM_SHARED_ZONE = 64; /* bytes between parts of shared memory */

/* ---- Faults -----------------------------------------------------------------------------------*/

/* Prints "simt: TEXT" and, inside of a kernel, where; never returns. `at`: the line, or NULL. */
[[noreturn]] void sim_fault(const SimSite *at, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- Launches (sim_sched.cc) ------------------------------------------------------------------*/

/* The thread that runs, for the checker. launch 0: none (host code). */
struct SimThreadInfo {
    uint32_t launch;      /* executions of kernels so far: a replayed node gets a new number */
    uint32_t block;       /* linear index in the grid */
    uint32_t thread;      /* linear index in the block */
    uint32_t block_epoch; /* __syncthreads passed by the block */
    uint32_t warp_epoch;  /* __syncwarp with all 32 lanes passed by the warp */
};
extern SimThreadInfo sim_thread;

/* The launch that runs; name NULL: none. */
extern SimLaunch sim_launched;

/* "kernel k, block (1,2,3), thread (4,5,6)" of a thread of the launch that runs. */
void sim_describe(uint32_t block, uint32_t thread, char text[160]);

/* Runs a launch now, on fibres of its own; body(call) is one thread. */
void sim_run(const SimLaunch &launch, void (*body)(const void *call), const void *call);

/* A part of shared memory that is valid in this block: a SHARED array or a part of SHARED_DYN. */
struct SimShared {
    char *start;
    size_t bytes;
    const char *name;
};
/* The part that holds an address of the shared arena, or NULL: a zone, or nothing's. */
const SimShared *sim_shared_at(const void *p);

struct SimRange {
    char *begin, *end;
};
extern SimRange sim_arena;  /* all shared memory */
extern SimRange sim_stacks; /* stacks of all fibres */
extern SimRange sim_stack;  /* the stack of the thread that runs */

/* ---- The switch (sim_switch.cc) ---------------------------------------------------------------*/

extern "C" void sim_switch(void **save, void *to); /* saves the caller's context, resumes `to` */
/* A context that starts `entry` (which never returns) on the stack [bottom, top). */
void *sim_context(char *bottom, char *top, void (*entry)());

/* ---- Memory (sim_memory.cc) -------------------------------------------------------------------*/

struct SimBlock {
    char *start;
    size_t bytes;
    uint32_t number; /* of the cudaMalloc, from 1 */
    bool live;
};
extern SimRange sim_heap; /* all that was handed out, and zones */

/* The latest block that starts at or before p, which lies in sim_heap; NULL: none. */
const SimBlock *sim_block_at(const void *p);
inline bool sim_is_device(const void *p)
{
    return (const char *)p >= sim_heap.begin && (const char *)p < sim_heap.end;
}
/* True for the addresses that the heap has or may get. */
bool sim_is_near_device(const void *p);
/* "live block 7 of 4096 bytes, at byte 12", or what else of the heap is there. */
void sim_place(const void *p, char text[160]);
/* Faults unless [p, p + n) lies in one live block; `what`: "cudaMemcpyAsync: destination". */
void sim_need_device(const void *p, size_t n, const char *what);
/* Faults if host memory [p, p + n) touches the device heap. */
void sim_need_host(const void *p, size_t n, const char *what);
bool sim_is_pinned(const void *p);

/* The heap may be touched between these (they nest): kernels, copies, library calls. */
void sim_memory_open();
void sim_memory_close();

/* Crashes end with a message that says whose memory was touched. Called before kernels and when the
 * heap closes: test libraries put handlers of their own there. */
void sim_catch_crashes();

/* Address sanitizer's poison; nothing in other kinds. */
void sim_poison(const void *p, size_t n);
void sim_unpoison(const void *p, size_t n);

/* ---- Streams (sim_stream.cc) ------------------------------------------------------------------*/

/* Work that runs in the stream's order; during capture it becomes a node. */
void sim_enqueue(cudaStream_t stream, std::function<void()> work);
/* Faults if a stream is being captured: for calls that a capture forbids. */
void sim_not_in_capture(const char *call);
/* Waits for everything: before memory is freed, and cudaDeviceSynchronize. */
void sim_drain();

/* Keeps and returns a code, for cudaGetLastError. */
cudaError_t sim_error(cudaError_t code);

/* ---- The checker's hooks (sim_check.cc) -------------------------------------------------------*/

void sim_check_block();                               /* a block starts: its shared memory is new */
void sim_check_alloc(const void *p, size_t n);        /* fresh memory: uninitialised */
void sim_check_free(const void *p, size_t n);
void sim_check_host_write(const void *p, size_t n);   /* copies, fills, library stand-ins wrote */
void sim_check_host_read(const void *p, size_t n);    /* ... read: faults if uninitialised */
void sim_check_atomic(void *p, size_t n);             /* the running thread's atomic access */

#endif
