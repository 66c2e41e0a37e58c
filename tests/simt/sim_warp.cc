/* tests/simt/sim_warp.cc - functions of a warp: a lane deposits its call; the last lane of the mask
 * computes the results of all, and all are ready again. Strict, as the vendor's rules are: the
 * caller is in its mask, all lanes of the mask make the same call with the same mask at the same
 * line, none of them has ended, and the lane that is read from belongs to the mask. */
#include "tests/simt/sim_block.h"

static const char *const names[SIM_WARP_OPS] = {
    "__syncwarp",      "__ballot_sync",     "__any_sync",        "__all_sync",
    "__shfl_sync",     "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
    "__match_any_sync", "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
    "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
    "__reduce_xor_sync", "mma_bf16", "matrix_load", "matrix_load_trans",
};

static bool same_call(const SimWarpCall *a, const SimWarpCall *b)
{
    return a->op == b->op && a->mask == b->mask && a->width == b->width &&
           sim_same_place(&a->site, &b->site);
}

/* The first lane of its mask comes to a call: faults if another lane cannot come, or waits in a
 * call that is not this one. */
static void check_lane(const SimWarp *warp, const SimThread *other, int i, const SimWarpCall *c)
{
    const char *name = names[c->op];
    if (other->state == SIM_ENDED)
        sim_fault(&c->site, "%s: mask %08x names lane %d, which has ended", name, c->mask, i);
    if (other->state == SIM_AT_BARRIER)
        sim_fault(&c->site, "%s: mask %08x names lane %d, which waits in %s at %s:%d", name,
                  c->mask, i, other->what, other->site.file, other->site.line);
    for (int g = 0; g < warp->n_groups; g++) {
        const SimWarpCall *o = &warp->group[g].call;
        if (!(warp->group[g].arrived >> i & 1)) continue;
        if (o->op != c->op || !sim_same_place(&o->site, &c->site))
            sim_fault(&c->site, "%s: mask %08x names lane %d, which waits in %s at %s:%d", name,
                      c->mask, i, names[o->op], o->site.file, o->site.line);
        sim_fault(&c->site, "%s: mask %08x and width %d here, lane %d waits with %08x and %d", name,
                  c->mask, c->width, i, o->mask, o->width);
    }
}

/* The lane whose value a shuffle gives to `lane`. */
static int source_of(const SimWarpCall *c, int lane, int operand)
{
    int base = lane & ~(c->width - 1), end = base + c->width, from = lane;
    switch (c->op) {
    case SIM_SHFL: from = base + (operand & (c->width - 1)); break;
    case SIM_UP: from = lane - operand >= base ? lane - operand : lane; break;
    case SIM_DOWN: from = lane + operand < end ? lane + operand : lane; break;
    case SIM_XOR: from = (lane ^ operand) < end ? lane ^ operand : lane; break;
    default: break;
    }
    if (from < 0 || from >= SIM_WARP || !(c->mask >> from & 1))
        sim_fault(&c->site, "%s: lane %d reads lane %d, which mask %08x does not name",
                  names[c->op], lane, from, c->mask);
    return from;
}

static uint64_t reduce(SimWarpOp op, uint64_t a, uint64_t b)
{
    unsigned x = (unsigned)a, y = (unsigned)b;
    switch (op) {
    case SIM_ADD: return x + y;
    case SIM_MIN: return x < y ? x : y;
    case SIM_MAX: return x > y ? x : y;
    case SIM_IMIN: return (int)x < (int)y ? x : y;
    case SIM_IMAX: return (int)x > (int)y ? x : y;
    case SIM_AND: return x & y;
    case SIM_OR: return x | y;
    default: return x ^ y;
    }
}

/* The result that all lanes share. */
static uint64_t common_result(const SimThread *lanes, const SimWarpCall *c)
{
    uint64_t result = 0;
    bool first = true;
    for (int i = 0; i < SIM_WARP; i++) {
        if (!(c->mask >> i & 1)) continue;
        uint64_t value = lanes[i].value;
        if (c->op <= SIM_ALL) result |= (uint64_t)(value != 0) << i;
        else result = first ? value : reduce(c->op, result, value);
        first = false;
    }
    return result;
}

static uint64_t lane_result(const SimThread *lanes, int lane, const SimWarpCall *c)
{
    if (c->op != SIM_MATCH) return lanes[source_of(c, lane, lanes[lane].operand)].value;
    uint64_t same = 0;
    for (int i = 0; i < SIM_WARP; i++)
        if (c->mask >> i & 1 && lanes[i].value == lanes[lane].value) same |= 1ull << i;
    return same;
}

/* All lanes of a group are there: gives them their results and lets them go on. */
static void complete(SimWarp *warp, int group, int first_thread)
{
    const SimWarpCall c = warp->group[group].call;
    SimThread *lanes = &sim_block.thread[first_thread];
    bool own = c.op >= SIM_SHFL && c.op <= SIM_MATCH;
    bool matrices = c.op >= SIM_MMA; /* their results are in the lanes' own memory */
    uint64_t result = own || matrices || c.op == SIM_SYNC ? 0 : common_result(lanes, &c);
    if (c.op == SIM_MMA) sim_mma(lanes);
    else if (matrices) sim_matrix(lanes, c.op == SIM_MATRIX_TRANS);
    warp->group[group] = warp->group[--warp->n_groups];
    if (c.op == SIM_SYNC && c.mask == 0xffffffffu) warp->epoch++;
    for (int i = 0; i < SIM_WARP; i++) {
        int lane = sim_block.down ? SIM_WARP - 1 - i : i;
        if (!(c.mask >> lane & 1)) continue;
        lanes[lane].result = own ? lane_result(lanes, lane, &c) : result;
        sim_ready(first_thread + lane);
    }
}

/* The group that a call belongs to; a new one if it is the first of its mask. */
static int group_of(SimWarp *warp, int first_thread, int lane, const SimWarpCall *c)
{
    for (int g = 0; g < warp->n_groups; g++)
        if (same_call(&warp->group[g].call, c)) return g;
    if (c->width < 1 || c->width > SIM_WARP || (c->width & (c->width - 1)))
        sim_fault(&c->site, "%s: width %d", names[c->op], c->width);
    for (int i = 0; i < SIM_WARP; i++)
        if (i != lane && c->mask >> i & 1)
            check_lane(warp, &sim_block.thread[first_thread + i], i, c);
    warp->group[warp->n_groups] = {*c, 0};
    return warp->n_groups++;
}

uint64_t sim_warp(const SimWarpCall &call)
{
    if (!sim_launched.name) sim_fault(&call.site, "%s outside of a kernel", names[call.op]);
    int t = sim_current(), lane = t % SIM_WARP;
    SimThread *self = &sim_block.thread[t];
    SimWarp *warp = &sim_block.warp[t / SIM_WARP];
    if (!(call.mask >> lane & 1))
        sim_fault(&call.site, "%s: lane %d is not in its own mask %08x", names[call.op], lane,
                  call.mask);
    int g = group_of(warp, t - lane, lane, &call);
    self->site = call.site;
    self->what = names[call.op];
    self->value = call.value;
    self->operand = call.operand;
    self->state = SIM_IN_WARP;
    warp->group[g].arrived |= 1u << lane;
    if (warp->group[g].arrived == call.mask) complete(warp, g, t - lane);
    sim_wait();
    return self->result;
}

void sim_warp_ended(int t)
{
    int lane = t % SIM_WARP;
    const SimWarp *warp = &sim_block.warp[t / SIM_WARP];
    for (int g = 0; g < warp->n_groups; g++) {
        const SimWarpCall *c = &warp->group[g].call;
        if (c->mask >> lane & 1)
            sim_fault(&c->site, "%s: its mask %08x names lane %d, which has ended", names[c->op],
                      c->mask, lane);
    }
}
