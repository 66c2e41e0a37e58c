/* device/device_ops.h - the table that a device fills; only device/ includes this.
 *
 * Entries have the arguments and contracts of the dev_* wrappers in device.h. They return 0, or a
 * nonzero code for which ops->error gives the text. Three tiers:
 *   required;
 *   optional with a default that device.c composes from required ones (NULL: the default);
 *   optional (NULL: nothing happens).
 */
#ifndef ISOMOE_DEVICE_DEVICE_OPS_H
#define ISOMOE_DEVICE_DEVICE_OPS_H

#include "device/device.h"

typedef struct DeviceOps {
    const char *name;

    /* required: life and memory */
    void (*destroy)(Device *d);
    void *(*alloc)(Device *d, int64_t bytes);
    void (*free)(Device *d, void *memory);
    int (*upload)(Device *d, Tensor dst, const void *host);
    int (*download)(Device *d, void *host, Tensor src);
    int (*copy)(Device *d, Tensor dst, Tensor src);
    int (*sync)(Device *d);
    const char *(*error)(Device *d, int code);
    int64_t (*scratch_bytes)(const Device *d);
    int64_t (*memory_room)(const Device *d); /* optional; see device_memory_room */
    double (*matrix_peak)(Device *d, DType type, double seconds);
    double (*memory_peak)(Device *d, double seconds);

    /* required: operations, forward and backward */
    int (*linear_fwd)(Device *d, Tensor y, Tensor x, Tensor w, Tensor bias);
    int (*linear_bwd)(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w);
    int (*expert_linear_fwd)(Device *d, Tensor y, Tensor x, Tensor w, Tensor row_begin);
    int (*expert_linear_bwd)(Device *d, LinearGrad g, Tensor dy, Tensor x, Tensor w,
                             Tensor row_begin);
    int (*embed_fwd)(Device *d, Tensor x, Tensor tokens, Tensor w);
    int (*embed_bwd)(Device *d, Tensor dw, Tensor dx, Tensor tokens);
    int (*rmsnorm_fwd)(Device *d, NormFwd a, double eps);
    int (*rmsnorm_bwd)(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd);
    int (*swiglu_fwd)(Device *d, Tensor h, Tensor gu);
    int (*swiglu_bwd)(Device *d, Tensor dgu, Tensor dh, Tensor gu);
    int (*expert_each_fwd)(Device *d, Tensor y, Tensor x, const Tensor *w, Tensor row_begin);
    int (*expert_each_bwd)(Device *d, EachGrad g, Tensor dy, Tensor x, const Tensor *w,
                           Tensor row_begin);
    int (*expert_swiglu_fwd)(Device *d, Tensor h, Tensor gu, const int32_t *widths,
                             Tensor row_begin);
    int (*expert_swiglu_bwd)(Device *d, Tensor dgu, Tensor dh, Tensor gu, const int32_t *widths,
                             Tensor row_begin);
    int (*qk_fwd)(Device *d, Tensor y, Tensor rstd, Tensor x, Tensor w, const QkOpt *opt);
    int (*qk_bwd)(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd,
                  const QkOpt *opt);
    int (*attention_fwd)(Device *d, AttnTensors a, const AttnOpt *opt);
    int (*attention_bwd)(Device *d, AttnGrad g, Tensor d_o, AttnTensors a, const AttnOpt *opt);
    int (*router_fwd)(Device *d, Tensor logits, Tensor x, Tensor w);
    int (*router_bwd)(Device *d, Tensor dx, Tensor dw, Tensor dlogits, Tensor x, Tensor w);
    int (*route_fwd)(Device *d, Routing *r, Tensor logits, const RouteOpt *opt);
    int (*route_bwd)(Device *d, Tensor dlogits, const Routing *r, Tensor dweight, Tensor logits,
                     const RouteOpt *opt);
    int (*gate_noise_fwd)(Device *d, Tensor noisy, Tensor clean, Tensor raw, const RouteOpt *opt);
    int (*gate_noise_bwd)(Device *d, Tensor draw, Tensor dnoisy, Tensor raw, const RouteOpt *opt);
    int (*gate_cv_fwd)(Device *d, const GateCv *a, const RouteOpt *opt);
    int (*gate_cv_bwd)(Device *d, const GateCv *a, double scale, const RouteOpt *opt);
    int (*tanh_fwd)(Device *d, Tensor y, Tensor x);
    int (*tanh_bwd)(Device *d, Tensor dx, Tensor dy, Tensor y);
    int (*count_sum)(Device *d, Tensor total, Tensor counts);
    int (*balance_update)(Device *d, Tensor f, Tensor bias, Tensor total, double tokens,
                          double rate);
    int (*dispatch_fwd)(Device *d, Tensor xe, Tensor x, const Routing *r);
    int (*dispatch_bwd)(Device *d, Tensor dx, Tensor dxe, const Routing *r);
    int (*combine_fwd)(Device *d, Tensor y, Tensor base, Tensor ye, const Routing *r);
    int (*combine_bwd)(Device *d, Tensor dye, Tensor dweight, Tensor dy, Tensor ye,
                       const Routing *r);
    int (*ce_fwd)(Device *d, Tensor lse, Tensor target_logit, Tensor x, Tensor w, Tensor targets,
                  const CeOpt *opt);
    int (*ce_bwd)(Device *d, LinearGrad g, Tensor x, Tensor w, Tensor targets, Tensor lse,
                  const CeOpt *opt);
    int (*nll_sum)(Device *d, Tensor sum, Tensor lse, Tensor target_logit, Tensor targets);
    int (*adamw)(Device *d, AdamwTensors t, const AdamwOpt *opt, const StepVars *vars);
    int (*sqsum)(Device *d, Tensor sum, Tensor x);
    int (*sqdiff)(Device *d, Tensor sum, Tensor a, Tensor b);
    int (*muon)(Device *d, MuonTensors t, const MuonOpt *opt, const StepVars *vars);
    int (*clip)(Device *d, StepVars *vars, Tensor sum, const ClipOpt *opt);
    int (*step_begin)(Device *d, StepVars *vars, const StepVars *host);
    int (*cast)(Device *d, Tensor dst, Tensor src);
    int (*fill)(Device *d, Tensor t, double value);
    int (*add)(Device *d, Tensor y, Tensor a, Tensor b);

    /* optional with a default */
    int (*ce_train)(Device *d, CeTrain out, Tensor x, Tensor w, Tensor targets, const CeOpt *opt);

    /* optional */
    int (*weight_hint)(Device *d, Tensor w);
    int (*weights_changed)(Device *d);
    const char *(*attention_about)(Device *d);

    /* optional, all or none: graphs. record: operations up to `finish` are recorded, not run, with
     * room for upload_bytes of uploads (each a multiple of 64). finish makes the graph. stage:
     * upload number i of a replay (i-th recorded one). launch runs it. usable: false when it must
     * be recorded again (memory that it reads has moved). */
    int (*graph_record)(Device *d, int64_t upload_bytes);
    int (*graph_finish)(Device *d);
    int (*graph_stage)(Device *d, Tensor dst, const void *host, int64_t at);
    int (*graph_launch)(Device *d);
    bool (*graph_usable)(const Device *d);

    /* optional: of GPUs; see device.h */
    DeviceGpu (*gpu)(Device *d);
    void (*limit_attention)(Device *d, int64_t bytes);
    int (*reserve_scratch)(Device *d, int64_t bytes);
    int (*adamw_rows)(Device *d, const AdamwRow *rows, int n, const StepVars *vars);
} DeviceOps;

enum { DEVICE_MAX_ACCOUNTS = 64, DEVICE_WHY = 256 };

/* The unit of operations in force (graph.c). GRAPH_DRY: no operation is ever run (dry.c). */
typedef enum GraphMode {
    GRAPH_NONE, GRAPH_FIRST, GRAPH_RECORD, GRAPH_REPLAY, GRAPH_DRY
} GraphMode;

typedef struct GraphUnit {
    GraphMode mode;
    bool seen, recorded;    /* units of this key: one has run; one is recorded */
    uint64_t key;
    uint64_t hash, wanted;  /* of the operations so far; of those of the unit before */
    int64_t upload_bytes;   /* of the uploads so far */
    int64_t upload_room;    /* of all uploads of the unit before */
} GraphUnit;

struct Device {
    const DeviceOps *ops;
    void *impl; /* the device's own state */
    int threads;
    const char *variant;
    GraphUnit graph;
    char why_cpu[DEVICE_WHY]; /* why "auto" took no GPU */
    DeviceAccount account[DEVICE_MAX_ACCOUNTS];
};

/* Makers, one a device; 0 or -1 with Err. cuda_device_init is in device/cuda, or in no_cuda.c. */
int cpu_device_init(Device *d, const DeviceOptions *options, Err *e);
int cuda_device_init(Device *d, const DeviceOptions *options, Err *e);
extern const bool cuda_device_built; /* false: no_cuda.c */
void dry_device_init(Device *d);

#endif
