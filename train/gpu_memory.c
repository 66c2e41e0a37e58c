/* train/gpu_memory.c - see gpu_memory.h. */
#include "train/gpu_memory.h"

#include <jansson.h>
#include <string.h>

#include "base/arena.h"
#include "base/size.h"
#include "device/scratch_bytes.h"
#include "device/sdpa_bytes.h"
#include "train/stages.h"

_Static_assert(sizeof((GpuMemory *)0)->why_own == GPU_WHY, "one length of reasons");

/* ---- Attention --------------------------------------------------------------------------------*/

static SdpaShape call_of(const ModelConfig *c, const ModelShape *shape, bool backward)
{
    return (SdpaShape){.B = shape->B, .T = shape->T, .H = c->n_heads, .G = c->n_kv_heads,
                       .K = c->head_dim, .backward = backward,
                       .deterministic = !backward || !shape->any_order};
}

void gpu_attention_fault(char out[GPU_WHY], const ModelConfig *c, const ModelShape *shape,
                         bool documents)
{
    SdpaShape call = call_of(c, shape, true);
    out[0] = 0;
    if (shape->type != DT_BF16)
        snprintf(out, GPU_WHY, "the library has no f32");
    else if (documents)
        snprintf(out, GPU_WHY, "documents in a sequence do not see each other "
                 "(data.mask_documents)");
    else if (!sdpa_takes(&call))
        snprintf(out, GPU_WHY, "the library has no kernels for %lld tokens and heads of %lld "
                 "numbers", (long long)call.T, (long long)call.K);
}

/* Why this shape goes to the own kernels ("": it does not); else *bytes: its workspace, with dv of
 * a call that adds to it. */
static void library_bytes(char why[GPU_WHY], const GpuMemory *g, const ModelConfig *c,
                          const ModelShape *shape, bool documents, const GpuRoom *room,
                          int64_t *bytes)
{
    char needs[ARENA_HUMAN], most[ARENA_HUMAN];
    SdpaShape fwd = call_of(c, shape, false), bwd = call_of(c, shape, true);
    gpu_attention_fault(why, c, shape, documents);
    if (!why[0] && !room->gpu.library) snprintf(why, GPU_WHY, "the library is not there");
    if (why[0]) return;
    int64_t work = sdpa_bytes(&fwd, room->gpu.sm);
    if (shape->train) work = size_max(work, sdpa_bytes(&bwd, room->gpu.sm));
    if (work > g->most) {
        snprintf(why, GPU_WHY, "the library's workspace would be %s, %s are left for it",
                 arena_human(needs, work), arena_human(most, size_max(g->most, 0)));
        return;
    }
    *bytes = work + (c->cla_share > 1 ? shape->B * shape->T * c->n_kv_heads * c->head_dim * 2 : 0);
}

/* ---- The other operations ---------------------------------------------------------------------*/

/* Upper bound of the scratch memory of routing: tables of choices, scores and places. */
static int64_t route_bytes(const ModelConfig *c, int64_t N)
{
    if (!c->n_experts) return 0;
    int64_t E = c->n_experts, choices = N * model_slots(c), rows = model_expert_rows(c, N);
    int64_t groups = size_ceil_div(N, c->routing_group_tokens), chunks = N / 16 + groups;
    return 12 * choices + 4 * N * E + 16 * rows + (16 * E + 16) * chunks + (4 << 10);
}

/* Upper bound of what the operations other than attention's library need at once. */
static int64_t other_bytes(const ModelConfig *c, const ModelShape *shape)
{
    int64_t N = shape->B * shape->T, D = c->d_model, heads = c->n_heads * c->head_dim;
    int64_t widest = size_max(size_max(D, heads), c->n_heads * 2 * c->head_dim);
    int64_t sums = 4 * SCRATCH_CHUNKS * widest * (int64_t)sizeof(float); /* norms, biases */
    int64_t router = SCRATCH_CHUNKS * D * size_max(c->n_experts, 1) * (int64_t)sizeof(float);
    int64_t dots = shape->B * c->n_heads * shape->T * (int64_t)sizeof(float);
    int64_t bytes = size_max(size_max(sums, router), size_max(dots, route_bytes(c, N)));
    if (c->attn_bias)
        bytes = size_max(bytes, scratch_bias_rows(N, heads, SCRATCH_CHUNK_BYTES) * heads * 4);
    return bytes + (1 << 20); /* small tables, and the block's own granularity */
}

void gpu_memory_begin(GpuMemory *g, const GpuRoom *room)
{
    *g = (GpuMemory){.library = true, .ordered = true, .products = room->products,
                     .graph = (int64_t)(room->launches * GPU_GRAPH_NODE)};
    g->most = size_min(sdpa_most(room->gpu.memory), room->room - room->tensors - room->products);
}

void gpu_memory_add(GpuMemory *g, const ModelConfig *c, const ModelShape *shape, bool documents,
                    const GpuRoom *room)
{
    char why[GPU_WHY];
    int64_t ld, bytes = 0, N = shape->B * shape->T;
    library_bytes(why, g, c, shape, documents, room, &bytes);
    if (why[0] && g->library) memcpy(g->why_own, why, sizeof why);
    g->library = g->library && !why[0];
    g->ordered = g->ordered && (why[0] || !shape->any_order);
    g->attention = size_max(g->attention, bytes);
    int64_t rows = scratch_loss_rows(N, c->vocab_size, SCRATCH_CHUNK_BYTES, &ld);
    g->logits = size_max(g->logits, rows * ld * (int64_t)sizeof(float));
    int64_t most = size_max(size_max(g->attention, g->logits), other_bytes(c, shape));
    g->scratch = size_max(g->scratch, size_round_up(most + 1, 1 << 20));
}

void gpu_memory_run(GpuMemory *g, const RunConfig *c, const GpuRoom *room)
{
    gpu_memory_begin(g, room);
    for (int i = 0; i < stages_count(c); i++) {
        Stage s = stages_get(c, i);
        ModelShape shape = stages_shape(c, &s);
        gpu_memory_add(g, &c->model, &shape, c->data.mask_documents, room);
    }
}

int64_t gpu_memory_known(const GpuMemory *g) { return g->scratch + g->products; }
int64_t gpu_memory_total(const GpuMemory *g) { return gpu_memory_known(g) + g->graph; }

double gpu_memory_launches(const Cost *step)
{
    double sum = 0;
    for (int i = 0; i < COST_CLASSES; i++) sum += step->launches[i];
    return sum;
}

/* ---- What it looks like -----------------------------------------------------------------------*/

void gpu_memory_print(const GpuMemory *g, const char *gpu, FILE *out)
{
    char a[ARENA_HUMAN], b[ARENA_HUMAN], c[ARENA_HUMAN], d[ARENA_HUMAN];
    fprintf(out, "\nbeside the tensors, on one %s\n  attention: ", gpu);
    if (g->library)
        fprintf(out, "cuDNN where it is installed, %s; workspace %s\n",
                g->ordered ? "the same bits every time" : "adding up in any order",
                arena_human(a, g->attention));
    else
        fprintf(out, "the own kernels: %s\n", g->why_own);
    fprintf(out, "  scratch, one block for all operations: at most %s (logits of a chunk %s)\n"
            "  cuBLASLt's workspace: %s\n"
            "  the recorded step: about %s at %d KiB a launch (an estimate, not measured)\n",
            arena_human(b, g->scratch), arena_human(a, g->logits), arena_human(c, g->products),
            arena_human(d, g->graph), GPU_GRAPH_NODE >> 10);
}

json_t *gpu_memory_json(const GpuMemory *g)
{
    return json_pack("{s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:I}", "attention",
                     g->library ? "cudnn" : "own", "deterministic", (int)g->ordered, "why_own",
                     g->why_own, "attention_workspace", (json_int_t)g->attention, "logits",
                     (json_int_t)g->logits, "scratch", (json_int_t)g->scratch, "products",
                     (json_int_t)g->products, "graph_estimate", (json_int_t)g->graph);
}
