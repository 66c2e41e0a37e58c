/* tests/simt/sim_sched.cc - launches, and the scheduler of a block's threads.
 *
 * Every thread that must wait stands on a fibre of its own; a fibre whose thread has ended goes on
 * with the next thread that has not started, on the same stack: kernels without barriers run as
 * plain loops. Orders: which thread goes on whenever there is a choice (see simt_set_order).
 * Barriers are strict: a thread that ends while others wait, and threads that wait at two places,
 * are faults. Nothing here is instrumented by a sanitizer. */
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "tests/simt/sim_block.h"
#include "tests/simt/sim_ops.h"

SimNow sim_now;
SimThreadInfo sim_thread;
SimLaunch sim_launched;
SimBlockRun sim_block;
SimRange sim_stacks, sim_stack;

/* ---- Faults -----------------------------------------------------------------------------------*/

void sim_describe(uint32_t block, uint32_t thread, char text[160])
{
    const dim3 g = sim_launched.grid, b = sim_launched.block;
    snprintf(text, 160, "kernel %.60s, block (%u,%u,%u), thread (%u,%u,%u)", sim_launched.name,
             block % g.x, block / g.x % g.y, block / g.x / g.y, thread % b.x, thread / b.x % b.y,
             thread / b.x / b.y);
}

void sim_fault(const SimSite *at, const char *format, ...)
{
    char text[900], where[160];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fflush(stdout);
    fprintf(stderr, "simt: %s\n", text);
    if (at) fprintf(stderr, "    at %s:%d\n", at->file, at->line);
    if (sim_launched.name) {
        sim_describe(sim_thread.block, sim_thread.thread, where);
        fprintf(stderr, "    in %s, launched at %s:%d\n", where, sim_launched.site.file,
                sim_launched.site.line);
    }
    fflush(stderr);
    _exit(SIM_FAULT_EXIT);
}

void sim_trap(SimSite site) { sim_fault(&site, "__trap"); }

void sim_atomic(void *p, size_t n)
{
    if ((uintptr_t)p % n) sim_fault(nullptr, "misaligned atomic access to %p", p);
    sim_check_atomic(p, n);
}

/* ---- Orders -----------------------------------------------------------------------------------*/

enum { ASCENDING, DESCENDING, RUN_AHEAD, RANDOM };
static int order_chosen = -1;
static uint64_t random_state;

extern "C" void simt_set_order(int order) { order_chosen = order; }

extern "C" int simt_orders()
{
#ifdef SIMT_KIND_plain
    return 6;
#else
    return 1;
#endif
}

static int order_number()
{
    if (order_chosen < 0) {
        const char *text = getenv("SIMT_ORDER");
        order_chosen = text ? (int)strtol(text, nullptr, 10) : 0;
        if (order_chosen < 0) order_chosen = 0;
    }
    return order_chosen;
}

static int order_kind() { return order_chosen < RANDOM ? order_chosen : (int)RANDOM; }

/* SplitMix64. */
uint64_t sim_random()
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 0..n-1 as the order has it. */
template <typename T> static void fill_order(T *order, size_t n)
{
    int kind = order_kind();
    for (size_t i = 0; i < n; i++) order[i] = (T)(kind == DESCENDING ? n - 1 - i : i);
    if (kind != RANDOM) return;
    for (size_t i = n; i > 1; i--) std::swap(order[i - 1], order[sim_random() % i]);
}

/* ---- Ready threads: a ring; run-ahead takes the latest, random any ----------------------------*/

enum { RING = 2048 };
static uint16_t ring[RING];
static unsigned ring_head, ring_tail;

void sim_ready(int thread)
{
    sim_block.thread[thread].state = SIM_READY;
    ring[ring_tail++ % RING] = (uint16_t)thread;
}

static int take_ready()
{
    if (order_kind() == RUN_AHEAD) return ring[--ring_tail % RING];
    if (order_kind() == RANDOM) {
        unsigned at = ring_head + (unsigned)((sim_random() >> 32) * (ring_tail - ring_head) >> 32);
        std::swap(ring[at % RING], ring[ring_head % RING]);
    }
    return ring[ring_head++ % RING];
}

/* The next thread: a new one or one that is ready; -1: none. */
static int take_next()
{
    SimBlockRun *b = &sim_block;
    bool fresh = b->started < b->threads, ready = ring_head != ring_tail;
    if (fresh && ready) {
        if (order_kind() == RUN_AHEAD) fresh = false;
        if (order_kind() == RANDOM) fresh = sim_random() & 1;
    }
    if (fresh) return b->order[b->started++];
    return ready ? take_ready() : -1;
}

/* ---- Fibres -----------------------------------------------------------------------------------*/

#ifdef SIMT_KIND_asan
extern "C" void __sanitizer_start_switch_fiber(void **fake, const void *bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void *fake, const void **bottom, size_t *size);
static constexpr size_t STACK = 256 << 10;
#else
static constexpr size_t STACK = 64 << 10;
#endif
static constexpr size_t GUARD = 16 << 10; /* below each stack; a multiple of any page */

struct Fibre {
    void *context;
    SimRange stack;
    void *fake; /* of the address sanitizer */
};
static Fibre fibres[SIM_THREADS], host;
static int n_fibres;              /* that have a context */
static std::vector<int> idle;     /* fibres whose thread has ended */
static int starting;              /* the thread that the fibre which goes on starts, or -1 */
static void (*thread_body)(const void *call);
static const void *thread_call;

static void make_stacks()
{
    size_t each = STACK + GUARD, all = each * SIM_THREADS;
    void *memory = mmap(nullptr, all, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) sim_fault(nullptr, "no address space for stacks");
    sim_stacks = {(char *)memory, (char *)memory + all};
    for (int i = 0; i < SIM_THREADS; i++) {
        char *low = sim_stacks.begin + (size_t)i * each;
        mprotect(low, GUARD, PROT_NONE);
        /* shifted tops: stacks that start alike in their pages share the same few cache sets */
        fibres[i].stack = {low + GUARD, low + each - (size_t)(i % 64) * 128};
    }
}

#ifdef SIMT_KIND_asan
static Fibre *leaving; /* the fibre that switched last */

/* Tells the address sanitizer that the switch is over; learns where the host's stack lies. */
static void arrived(void *fake)
{
    const void *bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(fake, &bottom, &size);
    if (leaving == &host) host.stack = {(char *)bottom, (char *)bottom + size};
}
#endif

/* From the running fibre to another; returns when something switches back. */
static void switch_to(Fibre *from, Fibre *to)
{
    sim_stack = to->stack;
#ifdef SIMT_KIND_asan
    leaving = from;
    __sanitizer_start_switch_fiber(&from->fake, to->stack.begin,
                                   (size_t)(to->stack.end - to->stack.begin));
#endif
    sim_switch(&from->context, to->context);
#ifdef SIMT_KIND_asan
    arrived(from->fake);
#endif
}

static void set_current(int t)
{
    const dim3 b = sim_launched.block;
    unsigned u = (unsigned)t;
    if (b.y == 1 && b.z == 1) sim_now.thread = {u, 0, 0};
    else sim_now.thread = {u % b.x, u / b.x % b.y, u / b.x / b.y};
    sim_thread.thread = u;
    sim_thread.block_epoch = sim_block.block_epoch;
    sim_thread.warp_epoch = sim_block.warp[t / SIM_WARP].epoch;
}

static void end_thread(int t);
[[noreturn]] static void deadlock();

/* A fibre's life: threads that have not started, one after the other, then idle until needed. */
static void fibre_main()
{
#ifdef SIMT_KIND_asan
    arrived(nullptr);
#endif
    for (;;) {
        int t = starting;
        starting = -1;
        set_current(t);
        thread_body(thread_call);
        end_thread(t);
        int fibre = sim_block.thread[t].fibre, next = take_next();
        if (next >= 0 && sim_block.thread[next].state == SIM_NEW) {
            sim_block.thread[next].fibre = fibre;
            starting = next;
            continue;
        }
        idle.push_back(fibre);
        if (next < 0 && sim_block.ended < sim_block.threads) deadlock();
        switch_to(&fibres[fibre], next < 0 ? &host : &fibres[sim_block.thread[next].fibre]);
    }
}

/* The fibre that carries a thread on: its own, or one that starts it. */
static Fibre *fibre_for(int t)
{
    SimThread *thread = &sim_block.thread[t];
    if (thread->state != SIM_NEW) return &fibres[thread->fibre];
    int f;
    if (!idle.empty()) {
        f = idle.back();
        idle.pop_back();
    } else {
        f = n_fibres++;
        fibres[f].context = sim_context(fibres[f].stack.begin, fibres[f].stack.end, fibre_main);
    }
    thread->fibre = f;
    starting = t;
    return &fibres[f];
}

/* ---- Waiting ----------------------------------------------------------------------------------*/

/* Nobody can go on: names one waiting thread of each kind. */
[[noreturn]] static void deadlock()
{
    const SimThread *first = nullptr, *other = nullptr;
    int first_at = 0, other_at = 0;
    for (int t = 0; t < sim_block.threads; t++) {
        const SimThread *w = &sim_block.thread[t];
        if (w->state != SIM_AT_BARRIER && w->state != SIM_IN_WARP) continue;
        if (!first) {
            first = w;
            first_at = t;
        } else if (!other && (w->site.line != first->site.line || w->what != first->what)) {
            other = w;
            other_at = t;
        }
    }
    if (!first) sim_fault(nullptr, "the scheduler lost its threads");
    sim_thread.thread = (uint32_t)first_at;
    if (other)
        sim_fault(&first->site,
                  "deadlock: thread %d waits in %s, thread %d in %s at %s:%d, and nobody can go on",
                  first_at, first->what, other_at, other->what, other->site.file,
                  other->site.line);
    sim_fault(&first->site, "deadlock: thread %d waits in %s for threads that never come", first_at,
              first->what);
}

void sim_wait()
{
    int t = sim_current();
    int next = take_next();
    if (next < 0) deadlock();
    if (next != t) switch_to(&fibres[sim_block.thread[t].fibre], fibre_for(next));
    set_current(t);
}

static void end_thread(int t)
{
    const SimThread *w = &sim_block.thread[sim_block.first_waiting];
    sim_block.thread[t].state = SIM_ENDED;
    sim_block.ended++;
    if (sim_block.waiting)
        sim_fault(&w->site, "divergent barrier: thread %d waits in %s, thread %d has ended",
                  sim_block.first_waiting, w->what, t);
    sim_warp_ended(t);
    sim_copies_ended(t);
}

/* All threads have come to the barrier. */
static void release_barrier()
{
    SimBlockRun *b = &sim_block;
    b->block_epoch++;
    for (int i = 0; i < b->threads; i++) {
        b->thread[b->order[i]].result = (uint64_t)b->barrier_votes;
        sim_ready(b->order[i]);
    }
    b->waiting = b->barrier_votes = 0;
}

int sim_barrier(const char *what, int value, SimSite site)
{
    SimBlockRun *b = &sim_block;
    int t = sim_current();
    if (!sim_launched.name) sim_fault(&site, "%s outside of a kernel", what);
    SimThread *thread = &b->thread[t];
    const SimThread *w = &b->thread[b->first_waiting];
    if (b->ended)
        sim_fault(&site, "divergent barrier: %d threads have ended before this %s", b->ended, what);
    if (b->waiting && !sim_same_place(&w->site, &site))
        sim_fault(&site, "divergent barrier: thread %d is here, thread %d waits in %s at %s:%d", t,
                  b->first_waiting, w->what, w->site.file, w->site.line);
    thread->site = site;
    thread->what = what;
    thread->state = SIM_AT_BARRIER;
    if (!b->waiting++) b->first_waiting = t;
    b->barrier_votes += value != 0;
    if (b->waiting == b->threads) release_barrier();
    sim_wait();
    return (int)thread->result;
}

/* ---- Blocks and launches ----------------------------------------------------------------------*/

static void run_block(uint32_t index)
{
    const dim3 g = sim_launched.grid;
    SimBlockRun *b = &sim_block;
    sim_now.block = {index % g.x, index / g.x % g.y, index / g.x / g.y};
    sim_thread.block = index;
    b->ended = b->waiting = b->barrier_votes = b->started = 0;
    b->block_epoch = 0;
    for (int t = 0; t < b->threads; t++) b->thread[t].state = SIM_NEW;
    for (int w = 0; w < b->threads / SIM_WARP; w++)
        b->warp[w].epoch = 0, b->warp[w].n_groups = 0;
    fill_order(b->order, (size_t)b->threads);
    ring_head = ring_tail = 0;
    b->down = order_kind() == DESCENDING;
    sim_shared_block();
    sim_check_block();
    switch_to(&host, fibre_for(take_next()));
}

void sim_run(const SimLaunch &launch, void (*body)(const void *), const void *call)
{
    static uint32_t launches;
    if (sim_launched.name) sim_fault(&launch.site, "launch of %s inside of a kernel", launch.name);
    if (!sim_stacks.begin) make_stacks();
    sim_catch_crashes();
    uint32_t blocks = launch.grid.x * launch.grid.y * launch.grid.z;
    sim_launched = launch;
    sim_thread = {++launches, 0, 0, 0, 0};
    sim_count_launch(launch.name);
    random_state = (uint64_t)order_number() << 32 ^ launches;
    sim_now.block_dim = launch.block;
    sim_now.grid_dim = launch.grid;
    sim_block.threads = (int)(launch.block.x * launch.block.y * launch.block.z);
    thread_body = body;
    thread_call = call;
    sim_memory_open();
    sim_shared_launch(launch);
    if (order_kind() == RANDOM) {
        std::vector<uint32_t> order(blocks);
        fill_order(order.data(), blocks);
        for (uint32_t i : order) run_block(i);
    } else {
        bool down = order_kind() == DESCENDING;
        for (uint32_t i = 0; i < blocks; i++) run_block(down ? blocks - 1 - i : i);
    }
    sim_memory_close();
    sim_launched.name = nullptr;
    sim_thread = {};
    sim_stack = {};
}
