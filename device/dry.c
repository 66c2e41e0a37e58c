/* device/dry.c - the device "dry": takes every operation, checks it as ever, books its FLOPs and
 * bytes, and computes nothing. Its memory is addresses that nobody may read. A whole step of any
 * model runs on it in milliseconds: what cost.h estimates from, and what plans of launches count.
 */
#include <stdint.h>
#include <string.h>

#include "base/size.h"
#include "device/device_ops.h"

/* Where its addresses begin: far from those of a process on the systems that this runs on. */
static const uintptr_t first_address = (uintptr_t)1 << 52;

static void destroy(Device *d) { (void)d; }

/* d->impl counts the bytes given so far. */
static void *alloc(Device *d, int64_t bytes)
{
    enum { ALIGN = 256 };
    uintptr_t used = (uintptr_t)d->impl;
    int64_t size;
    if (!size_add(bytes, ALIGN - 1, &size) || (uintptr_t)size > first_address - used) return NULL;
    d->impl = (void *)(used + (uintptr_t)(size / ALIGN * ALIGN));
    return (void *)(first_address + used);
}

static void release(Device *d, void *memory)
{
    (void)d;
    (void)memory;
}

static int download(Device *d, void *host, Tensor src)
{
    (void)d;
    if (tensor_bytes(src)) memset(host, 0, (size_t)tensor_bytes(src));
    return 0;
}

static int sync(Device *d)
{
    (void)d;
    return 0;
}

static const char *error(Device *d, int code)
{
    (void)d;
    (void)code;
    return "no details";
}

static int64_t scratch_bytes(const Device *d)
{
    (void)d;
    return 0;
}

static double no_peak(Device *d, DType type, double seconds)
{
    (void)d;
    (void)type;
    (void)seconds;
    return 0;
}

static double no_bandwidth(Device *d, double seconds)
{
    (void)d;
    (void)seconds;
    return 0;
}

/* Never called: its presence says that loss and gradient are one pass, as on the real devices. */
static int ce_train(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt)
{
    (void)d, (void)out, (void)x, (void)w, (void)targets, (void)opt;
    return -1;
}

/* Ditto: one call for all rows, as on a GPU. */
static int adamw_rows(Device *d, const AdamwRow *rows, int n, const StepVars *vars)
{
    (void)d, (void)rows, (void)n, (void)vars;
    return -1;
}

static const DeviceOps dry_ops = {
    .name = "dry", .destroy = destroy, .alloc = alloc, .free = release, .download = download,
    .sync = sync, .error = error, .scratch_bytes = scratch_bytes, .matrix_peak = no_peak,
    .memory_peak = no_bandwidth, .ce_train = ce_train, .adamw_rows = adamw_rows,
};

void dry_device_init(Device *d)
{
    d->ops = &dry_ops;
    d->variant = "dry";
    d->threads = 1;
    d->graph.mode = GRAPH_DRY;
}
