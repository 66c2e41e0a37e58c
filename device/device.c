/* device/device.c - making devices, their memory, the account of operations. See device.h. */
#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/check.h"

static const char *const op_names[OP_COUNT] = {
#define OP_NAME(name) #name,
    DEVICE_OPS_LIST(OP_NAME)
#undef OP_NAME
};

_Static_assert((int)OP_COUNT <= (int)DEVICE_MAX_ACCOUNTS, "too few account rows");

static void shape_failed(OpId op, const char *name, Tensor t, DType type, Shape shape)
{
    char got[96], wanted[96];
    Tensor want = {.n_dim = shape.n, .type = type};
    memcpy(want.dim, shape.dim, sizeof want.dim);
    check_failed(__FILE__, __LINE__, op_names[op], "%s is %s, must be %s", name,
                 tensor_text(t, got), tensor_text(want, wanted));
}

void need(OpId op, const char *name, Tensor t, DType type, Shape shape)
{
    bool ok = (tensor_given(t) || tensor_elements(t) == 0) && t.type == type && t.n_dim == shape.n;
    for (int i = 0; ok && i < shape.n; i++) ok = t.dim[i] == shape.dim[i];
    if (!ok) shape_failed(op, name, t, type, shape);
}

void need_or_none(OpId op, const char *name, Tensor t, DType type, Shape shape)
{
    if (tensor_given(t)) need(op, name, t, type, shape);
}

void need_float(OpId op, const char *name, Tensor t, int n_dim)
{
    char got[96];
    bool ok = (t.type == DT_F32 || t.type == DT_BF16) && t.n_dim == n_dim;
    if (!ok)
        check_failed(__FILE__, __LINE__, op_names[op], "%s is %s, must be f32 or bf16 of %d dims",
                     name, tensor_text(t, got), n_dim);
}

int64_t need_begin(OpId op, Tensor row_begin, int64_t R)
{
    int64_t E = tensor_elements(row_begin) - 1;
    if (E < 1 || row_begin.type != DT_I32 || row_begin.n_dim != 1)
        shape_failed(op, "row_begin", row_begin, DT_I32, SHAPE(E < 1 ? 2 : E + 1));
    if (!tensor_given(row_begin) && R % E)
        op_refuse(op, "the rows are not a multiple of the experts");
    return E;
}

void op_refuse(OpId op, const char *what)
{
    check_failed(__FILE__, __LINE__, op_names[op], "%s", what);
}

double op_begin(void) { return log_seconds(); }

void op_end(Device *d, OpId op, double start, int rc, int64_t flops, int64_t bytes)
{
    CHECK(rc == 0, "device %s: operation %s failed: %s", d->ops->name, op_names[op],
          d->ops->error ? d->ops->error(d, rc) : "no details");
    DeviceAccount *a = &d->account[op];
    a->calls++;
    a->flops += flops;
    a->bytes += bytes;
    a->seconds += log_seconds() - start;
}

/* ---- Life -------------------------------------------------------------------------------------*/

/* A GPU where there is one that can be used, else the CPU. */
static int auto_device_init(Device *d, const DeviceOptions *options, Err *e)
{
    Err why = {0};
    static const char prefix[] = "device 'cuda': ";
    if (!cuda_device_init(d, options, &why)) return 0;
    size_t skip = strncmp(why.message, prefix, sizeof prefix - 1) ? 0 : sizeof prefix - 1;
    if (cuda_device_built)
        snprintf(d->why_cpu, sizeof d->why_cpu, "%.*s",
                 (int)strcspn(why.message + skip, "\n"), why.message + skip);
    return cpu_device_init(d, options, e);
}

Device *device_create(const char *name, const DeviceOptions *options, Err *e)
{
    static const DeviceOptions plain = {0};
    Device *d = calloc(1, sizeof *d);
    if (!d) {
        err_set(e, "out of memory for a device");
        return NULL;
    }
    for (int i = 0; i < (int)OP_COUNT; i++) d->account[i].name = op_names[i];
    if (!options) options = &plain;
    int rc;
    if (!strcmp(name, "cpu")) {
        rc = cpu_device_init(d, options, e);
    } else if (!strcmp(name, "cuda")) {
        rc = cuda_device_init(d, options, e);
    } else if (!strcmp(name, "auto")) {
        rc = auto_device_init(d, options, e);
    } else if (!strcmp(name, "dry")) {
        dry_device_init(d);
        rc = 0;
    } else {
        err_set(e, "unknown device '%s'", name);
        rc = err_hint(e, "devices are auto, cpu, cuda");
    }
    if (rc) {
        free(d);
        return NULL;
    }
    return d;
}

void device_destroy(Device **d)
{
    if (!*d) return;
    (*d)->ops->destroy(*d);
    free(*d);
    *d = NULL;
}

const char *device_name(const Device *d) { return d->ops->name; }
const char *device_variant(const Device *d) { return d->variant; }
int device_threads(const Device *d) { return d->threads; }

const char *device_attention(Device *d)
{
    return d->ops->attention_about ? d->ops->attention_about(d) : "own kernels";
}

DeviceGpu device_gpu(Device *d)
{
    return d->ops->gpu ? d->ops->gpu(d) : (DeviceGpu){0};
}

void device_limit_attention(Device *d, int64_t bytes)
{
    if (d->ops->limit_attention) d->ops->limit_attention(d, bytes);
}

int device_reserve_scratch(Device *d, int64_t bytes, Err *e)
{
    if (!d->ops->reserve_scratch || !d->ops->reserve_scratch(d, bytes)) return 0;
    err_set(e, "device %s: not enough memory for scratch: %.1f MiB", d->ops->name,
            (double)bytes / 1048576.0);
    return err_hint(e, "other programs may hold memory of the GPU; a smaller micro-batch needs "
                       "less");
}

const char *device_why_cpu(const Device *d) { return d->why_cpu; }
bool device_cuda_built(void) { return cuda_device_built; }
int64_t device_scratch_bytes(const Device *d) { return d->ops->scratch_bytes(d); }

double device_matrix_peak(Device *d, DType type, double seconds)
{
    return d->ops->matrix_peak(d, type, seconds);
}

int64_t device_memory_room(const Device *d)
{
    return d->ops->memory_room ? d->ops->memory_room(d) : -1;
}

double device_memory_peak(Device *d, double seconds) { return d->ops->memory_peak(d, seconds); }

int device_accounts(const Device *d, const DeviceAccount **accounts)
{
    *accounts = d->account;
    return OP_COUNT;
}

void device_reset_accounts(Device *d)
{
    for (int i = 0; i < (int)OP_COUNT; i++) d->account[i] = (DeviceAccount){.name = op_names[i]};
}

/* ---- Memory -----------------------------------------------------------------------------------*/

void *dev_alloc(Device *d, int64_t bytes, const char *what, Err *e)
{
    CHECK(bytes >= 0, "%s: %lld bytes", what, (long long)bytes);
    void *memory = d->ops->alloc(d, bytes ? bytes : 64);
    if (!memory) {
        err_set(e, "device %s: not enough memory for %s: %.1f MiB", d->ops->name, what,
                (double)bytes / 1048576.0);
        err_hint(e, "`isomoe plan` shows what a config needs; a smaller micro-batch needs less");
    }
    return memory;
}

void dev_free(Device *d, void *memory)
{
    if (memory) d->ops->free(d, memory);
}

void dev_upload(Device *d, Tensor dst, const void *host)
{
    if (graph_upload(d, dst, host)) return;
    OP_RUN(d, upload, 0, tensor_bytes(dst), dst, host);
}

void dev_download(Device *d, void *host, Tensor src)
{
    double start = op_begin();
    graph_forbids(d, OP_download);
    op_end(d, OP_download, start, d->ops->download(d, host, src), 0, tensor_bytes(src));
}

void dev_copy(Device *d, Tensor dst, Tensor src)
{
    if (dst.type != src.type || tensor_elements(dst) != tensor_elements(src))
        op_refuse(OP_copy, "dst and src must have one type and size");
    OP_RUN(d, copy, 0, 2 * tensor_bytes(src), dst, src);
}

void dev_sync(Device *d)
{
    graph_forbids_wait(d);
    int rc = d->ops->sync(d);
    CHECK(rc == 0, "device %s: sync failed: %s", d->ops->name, d->ops->error(d, rc));
}

void dev_weight_hint(Device *d, Tensor w)
{
    if (d->ops->weight_hint) d->ops->weight_hint(d, w);
}

void dev_weights_changed(Device *d)
{
    if (d->ops->weights_changed) d->ops->weights_changed(d);
}
