/* tests/simt/sim_async.cc - copies from global to shared memory that run beside their thread: kept
 * here until it waits for them. */
#include <deque>

#include "tests/simt/sim_block.h"
#include "tests/simt/simt_mma.h"

struct Kept {
    SimCopy copy;
    SimSite site;
    uint32_t group; /* of the thread, by number; the latest one may be open */
};
static std::deque<Kept> kept[SIM_THREADS];
static uint32_t groups[SIM_THREADS]; /* closed ones */

void sim_copy_start(const SimCopy &copy, SimSite site)
{
    if (!sim_launched.name) sim_fault(&site, "copy_start outside of a kernel");
    sim_need_shared("copy_start", copy.to, site);
    if ((uintptr_t)copy.from % 16) sim_fault(&site, "copy_start: %p is not on 16 bytes", copy.from);
    if (copy.bytes != 0 && !sim_is_device(copy.from))
        sim_fault(&site, "copy_start: %p is no global memory", copy.from);
    if (copy.bytes < 0 || copy.bytes > 16) sim_fault(&site, "copy_start: %d bytes", copy.bytes);
    int t = sim_current();
    kept[t].push_back({copy, site, groups[t]});
}

void sim_copy_group() { groups[sim_current()]++; }

bool sim_copy_due(int left, SimCopy *copy)
{
    int t = sim_current();
    if (kept[t].empty() || kept[t].front().group + (uint32_t)left >= groups[t]) return false;
    *copy = kept[t].front().copy;
    kept[t].pop_front();
    return true;
}

void sim_copies_ended(int t)
{
    groups[t] = 0;
    if (!kept[t].empty())
        sim_fault(&kept[t].front().site, "copy_start: thread %d ended without waiting for it", t);
}
