/* model/cost.c - see cost.h. */
#include "model/cost.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "model/count.h"

/* ---- What is known ----------------------------------------------------------------------------*/

/* Data sheets: dense bf16 and f32 (CUDA cores), memory, NVLink or PCIe in one direction, and the
 * network share of a GPU in the usual node (A100: 200 Gb/s, later 400 Gb/s). */
static const GpuSpec gpus[] = {
    {"A100", 312e12, 19.5e12, 2.039e12, 80e9, 300e9, 25e9, 80},
    {"A100-40", 312e12, 19.5e12, 1.555e12, 40e9, 300e9, 25e9, 80},
    {"H100", 989e12, 67e12, 3.35e12, 80e9, 450e9, 50e9, 90},
    {"H200", 989e12, 67e12, 4.8e12, 141e9, 450e9, 50e9, 90},
    {"B200", 2250e12, 80e12, 8.0e12, 180e9, 900e9, 50e9, 100},
    {"L40S", 362e12, 91.6e12, 0.864e12, 48e9, 32e9, 25e9, 89},
};
enum { GPUS = sizeof gpus / sizeof gpus[0] };

const GpuSpec *cost_gpu(const char *name)
{
    for (int i = 0; i < GPUS; i++)
        if (!strcasecmp(name, gpus[i].name)) return &gpus[i];
    return NULL;
}

const char *cost_gpu_names(void) { return "A100, A100-40, H100, H200, B200, L40S"; }

static const char *const class_names[COST_CLASSES] = {
    "matrix products", "experts", "attention", "memory passes", "routing", "optimizer", "exchange",
};

const char *cost_class_name(CostClass c) { return class_names[c]; }

/* Shares of the peaks that large operations reach, the time before a matrix product is at full
 * speed, and the time of a launch inside a graph. These numbers, and no others, turn counts into
 * seconds: chosen once, by hand, for all rows of tests/test_cost.c. */
static const double matrix_share = 0.66;    /* large products of cuBLASLt under a power limit */
static const double expert_share = 0.62;    /* batched over experts: shorter products */
static const double attention_share = 0.42; /* forward and backward together */
static const double memory_share = 0.80;    /* streaming kernels */
static const double route_share = 0.35;     /* gathers and scans */
static const double ramp_seconds = 6e-6;    /* of a product: first loads, last tiles */
static const double launch_seconds = 2.5e-6;
static const double link_share = 0.75;      /* of a link, large messages */
static const double hidden_share = 0.75;    /* of a gradient exchange that backward work can hide */

/* Kernel launches of one call on the CUDA device. An operation without a row costs nothing: none
 * may be missing (tests). */
static const struct {
    const char *name;
    CostClass class;
    double launches;
} rows[] = {
    {"linear_fwd", COST_MATRIX, 1}, {"linear_bwd", COST_MATRIX, 2},
    {"expert_linear_fwd", COST_EXPERT, 1}, {"expert_linear_bwd", COST_EXPERT, 2},
    {"expert_each_fwd", COST_EXPERT, 1}, {"expert_each_bwd", COST_EXPERT, 2},
    {"expert_swiglu_fwd", COST_MEMORY, 1}, {"expert_swiglu_bwd", COST_MEMORY, 1},
    {"embed_fwd", COST_MEMORY, 1}, {"embed_bwd", COST_MEMORY, 1},
    {"rmsnorm_fwd", COST_MEMORY, 1}, {"rmsnorm_bwd", COST_MEMORY, 2},
    {"swiglu_fwd", COST_MEMORY, 1}, {"swiglu_bwd", COST_MEMORY, 1},
    {"qk_fwd", COST_MEMORY, 1}, {"qk_bwd", COST_MEMORY, 2},
    {"attention_fwd", COST_ATTENTION, 1}, {"attention_bwd", COST_ATTENTION, 3},
    {"router_fwd", COST_ROUTE, 1}, {"router_bwd", COST_ROUTE, 3},
    {"route_fwd", COST_ROUTE, 4}, {"route_bwd", COST_ROUTE, 1},
    {"gate_noise_fwd", COST_ROUTE, 1}, {"gate_noise_bwd", COST_ROUTE, 1},
    {"gate_cv_fwd", COST_ROUTE, 2}, {"gate_cv_bwd", COST_ROUTE, 2},
    {"tanh_fwd", COST_ROUTE, 1}, {"tanh_bwd", COST_ROUTE, 1},
    {"count_sum", COST_ROUTE, 1}, {"balance_update", COST_ROUTE, 1},
    {"dispatch_fwd", COST_ROUTE, 1}, {"dispatch_bwd", COST_ROUTE, 1},
    {"combine_fwd", COST_ROUTE, 1}, {"combine_bwd", COST_ROUTE, 1},
    {"ce_fwd", COST_MATRIX, 2}, {"ce_bwd", COST_MATRIX, 4}, {"ce_train", COST_MATRIX, 4},
    {"nll_sum", COST_MEMORY, 2}, {"adamw", COST_OPTIM, 1}, {"muon", COST_OPTIM, 24},
    {"adamw_rows", COST_OPTIM, 2},
    {"sqsum", COST_OPTIM, 2}, {"sqdiff", COST_OPTIM, 2}, {"clip", COST_OPTIM, 1},
    {"step_begin", COST_MEMORY, 1}, {"cast", COST_MEMORY, 1}, {"fill", COST_MEMORY, 1},
    {"add", COST_MEMORY, 1}, {"copy", COST_MEMORY, 1}, {"upload", COST_MEMORY, 1},
    {"download", COST_MEMORY, 0},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* ---- One step ---------------------------------------------------------------------------------*/

static double share_of(CostClass class)
{
    switch (class) {
    case COST_EXPERT: return expert_share;
    case COST_ATTENTION: return attention_share;
    default: return matrix_share;
    }
}

/* All calls of one operation that moves and computes this much. */
static double seconds_of(int row, double calls, double flops, double bytes, DType type,
                         const GpuSpec *gpu)
{
    CostClass class = rows[row].class;
    double launches = rows[row].launches * calls;
    double peak = type == DT_BF16 && class != COST_OPTIM && class != COST_ROUTE ? gpu->bf16
                                                                               : gpu->f32;
    double memory = gpu->bandwidth * (class == COST_ROUTE ? route_share : memory_share);
    double compute = flops / (peak * share_of(class)) + (flops > 0 ? launches * ramp_seconds : 0);
    return fmax(compute, bytes / memory) + launches * launch_seconds;
}

bool cost_knows(const char *operation)
{
    for (int i = 0; i < ROWS; i++)
        if (!strcmp(operation, rows[i].name)) return true;
    return false;
}

static double at_least_one(int64_t n) { return n > 1 ? (double)n : 1; }

void cost_of_step(Cost *out, const Device *accounted, DType type, const CostLayout *layout,
                  const GpuSpec *gpu)
{
    const DeviceAccount *a;
    int n = device_accounts(accounted, &a);
    double data = at_least_one(layout->data), expert = at_least_one(layout->expert);
    *out = (Cost){0};
    for (int i = 0; i < n; i++) {
        for (int row = 0; row < ROWS; row++) {
            if (strcmp(a[i].name, rows[row].name)) continue;
            CostClass class = rows[row].class;
            double calls = (double)a[i].calls, parts = class == COST_OPTIM ? data : expert;
            double flops = (double)a[i].flops / parts, bytes = (double)a[i].bytes / parts;
            out->seconds[class] += seconds_of(row, calls, flops, bytes, type, gpu);
            out->flops[class] += flops;
            out->bytes[class] += bytes;
            out->launches[class] += rows[row].launches * calls;
        }
    }
    for (int i = 0; i < COST_CLASSES; i++) out->total += out->seconds[i];
}

/* ---- Exchange ---------------------------------------------------------------------------------*/

/* bytes/s of a group of `gpus`, consecutive ones: within a node, or through its network. */
static double speed(const GpuSpec *gpu, double gpus_of_group, double node)
{
    return (gpus_of_group <= node ? gpu->link : gpu->network) * link_share;
}

/* Gradients: a ring all-reduce in bf16 over the replicas of a parameter, hidden behind half of the
 * step as far as hidden_share goes. Experts: four all-to-alls a layer of k rows a token. */
void cost_add_exchange(Cost *cost, const ModelConfig *c, double tokens, const CostLayout *layout,
                       const GpuSpec *gpu)
{
    double data = at_least_one(layout->data), expert = at_least_one(layout->expert);
    double node = at_least_one(layout->node), copies = data / expert;
    ParamCount n;
    if (count_params(c, &n, NULL)) return;
    double experts = (double)n.experts, dense = (double)n.total - experts;
    double ring = 2 * (data - 1) / data * 2 * dense;
    ring += 2 * (copies - 1) / copies * 2 * experts / expert;
    double reduce = ring / speed(gpu, data, node);
    double hidden = fmin(reduce, hidden_share * cost->total / 2);
    double row = (double)(c->n_experts ? c->top_k : 0) * (double)c->d_model * 2; /* bf16 */
    double all_to_all = 4 * (double)c->n_layers * tokens * row * (expert - 1) / expert;
    cost->bytes[COST_EXCHANGE] += ring + all_to_all;
    cost->seconds[COST_EXCHANGE] += reduce - hidden + all_to_all / speed(gpu, expert, node);
    cost->hidden += hidden;
    cost->total = 0;
    for (int i = 0; i < COST_CLASSES; i++) cost->total += cost->seconds[i];
}
