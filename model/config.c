/* model/config.c - the rows of the `model:` section and the checks of their combinations. */
#include "model/config.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "model/widths.h"

static const char *const qk_norm_names[] = {"none", "head_after_rope", "head_before_rope",
                                            "full_before_rope", NULL};
static const char *const weight_names[] = {"raw", "renorm", NULL};
static const char *const routing_names[] = {"recycle", "dropless", NULL};

#define FIELD(name) offsetof(ModelConfig, name)

static const ConfRow rows[] = {
    {"model.vocab_size", CONF_INT, FIELD(vocab_size), NULL, 2, 1 << 24, NULL,
     "rows of the embedding"},
    {"model.d_model", CONF_INT, FIELD(d_model), NULL, 1, 1 << 17, NULL, "width of the residual"},
    {"model.n_layers", CONF_INT, FIELD(n_layers), NULL, 1, 4096, NULL, "blocks"},
    {"model.n_heads", CONF_INT, FIELD(n_heads), NULL, 1, 4096, NULL, "query heads"},
    {"model.n_kv_heads", CONF_INT, FIELD(n_kv_heads), NULL, 1, 4096, NULL,
     "key and value heads; divides n_heads"},
    {"model.head_dim", CONF_INT, FIELD(head_dim), "0", 0, 4096, NULL,
     "width of a head, even; 0: d_model / n_heads"},
    {"model.rope_theta", CONF_FLOAT, FIELD(rope_theta), "10000", 1, 1e15, NULL,
     "base of the rotary frequencies"},
    {"model.rope_alpha", CONF_FLOAT, FIELD(rope_alpha), "1", 1, 1e9, NULL,
     "dynamic scaling: base = theta alpha^(K/(K-2))"},
    {"model.qk_norm", CONF_ENUM, FIELD(qk_norm), "none", 1, 0, qk_norm_names,
     "RMSNorm of queries and keys"},
    {"model.attn_bias", CONF_BOOL, FIELD(attn_bias), "false", 1, 0, NULL, "biases of q, k, v"},
    {"model.cla_share", CONF_INT, FIELD(cla_share), "1", 1, 4096, NULL,
     "cross-layer attention: layers that share one K and V"},
    {"model.n_experts", CONF_INT, FIELD(n_experts), "0", 0, 65536, NULL,
     "specialized experts; 0: dense"},
    {"model.top_k", CONF_INT, FIELD(top_k), "0", 0, 256, NULL, "experts a token"},
    {"model.expert_width", CONF_INT, FIELD(expert_width), "0", 0, 1 << 20, NULL,
     "inner width of a specialized expert"},
    {"model.expert_widths", CONF_TEXT, FIELD(expert_widths), "", 1, 0, NULL,
     "own widths: arithmetic | geometric | hybrid (total width kept), or a list; empty: all equal"},
    {"model.width_penalty", CONF_BOOL, FIELD(width_penalty), "false", 1, 0, NULL,
     "balance loss weighs an expert's share by its width / the mean width"},
    {"model.n_shared", CONF_INT, FIELD(n_shared), "0", 0, 256, NULL, "shared experts"},
    {"model.shared_width", CONF_INT, FIELD(shared_width), "0", 0, 1 << 20, NULL,
     "inner width of one shared expert"},
    {"model.router_weight", CONF_ENUM, FIELD(router_weight), "renorm", 1, 0, weight_names,
     "combine weights: softmax probabilities as they are, or divided by their sum"},
    {"model.tie_embeddings", CONF_BOOL, FIELD(tie_embeddings), "true", 1, 0, NULL,
     "the head is the embedding"},
    {"model.norm_eps", CONF_FLOAT, FIELD(norm_eps), "1e-5", 0, 1, NULL, "RMSNorm's epsilon"},
    {"model.init_std", CONF_FLOAT, FIELD(init_std), "0.02", 0, 10, NULL,
     "normal initialisation; outputs into the residual: / sqrt(2 n_layers)"},
    {"model.routing", CONF_ENUM, FIELD(routing), "recycle", 1, 0, routing_names,
     "in training; evaluation is always dropless"},
    {"model.routing_group_tokens", CONF_INT, FIELD(routing_group_tokens), "1024", 1, 1 << 30, NULL,
     "tokens that compete for capacity"},
    {"model.capacity_factor", CONF_FLOAT, FIELD(capacity_factor), "1", 0.01, 65536, NULL,
     "room at an expert / its fair share"},
    {"model.capacity_multiple", CONF_INT, FIELD(capacity_multiple), "8", 1, 4096, NULL,
     "capacity is rounded up to a multiple of this"},
    {"model.aux_coef", CONF_FLOAT, FIELD(aux_coef), "0.01", 0, 1000, NULL,
     "load-balance loss, per routing group"},
    {"model.z_coef", CONF_FLOAT, FIELD(z_coef), "0.001", 0, 1000, NULL, "router z-loss"},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

const ConfTable *model_config_table(void)
{
    static const ConfTable table = {rows, N_ROWS};
    return &table;
}

int model_config_rows(ConfRow *out, int max, size_t base)
{
    CHECK(max >= N_ROWS, "%d rows do not fit in %d", N_ROWS, max);
    memcpy(out, rows, sizeof rows);
    for (int i = 0; i < N_ROWS; i++) out[i].offset += base;
    return N_ROWS;
}

/* A combination that cannot be: which key is to blame, and why. */
typedef struct Refusal {
    bool impossible;
    const char *key, *reason;
} Refusal;

static int check_attention(ModelConfig *c, const Refusal **found, Refusal *room)
{
    if (!c->head_dim && c->d_model % c->n_heads == 0) c->head_dim = c->d_model / c->n_heads;
    const Refusal list[] = {
        {!c->head_dim, "model.head_dim", "d_model is no multiple of n_heads: give head_dim"},
        {c->head_dim % 2 != 0, "model.head_dim", "the rotation needs an even head width"},
        {c->n_heads % c->n_kv_heads != 0, "model.n_kv_heads", "must divide model.n_heads"},
        {c->rope_alpha != 1 && c->head_dim <= 2, "model.rope_alpha", "needs a head width above 2"},
        {c->cla_share > c->n_layers, "model.cla_share", "is larger than model.n_layers"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (!list[i].impossible) continue;
        *room = list[i];
        *found = room;
        return -1;
    }
    return 0;
}

static int check_ffn(const ModelConfig *c, const Refusal **found, Refusal *room)
{
    bool moe = c->n_experts > 0;
    const Refusal list[] = {
        {!moe && c->top_k > 0, "model.top_k", "there are no experts (model.n_experts is 0)"},
        {!moe && c->expert_width > 0, "model.expert_width", "there are no experts"},
        {!moe && c->n_shared == 0, "model.n_shared",
         "a dense model's feed-forward is one shared expert: n_shared 1 and shared_width"},
        {moe && (c->top_k < 1 || c->top_k > c->n_experts), "model.top_k",
         "must be 1 .. model.n_experts"},
        {moe && c->expert_width < 1, "model.expert_width", "is needed with experts"},
        {c->n_shared > 0 && c->shared_width < 1, "model.shared_width",
         "is needed with shared experts"},
        {c->n_shared == 0 && c->shared_width > 0, "model.shared_width",
         "there are no shared experts (model.n_shared is 0)"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (!list[i].impossible) continue;
        *room = list[i];
        *found = room;
        return -1;
    }
    return 0;
}

int model_resolve_widths(ModelConfig *c, Err *e)
{
    if (!model_has_own_widths(c)) return 0;
    return widths_resolve(c->expert_widths, c->n_experts, &c->expert_width, c->own_widths, e);
}

/* Before check_ffn, which wants expert_width. */
static int check_widths(ModelConfig *c, Refusal *found, Err *why)
{
    bool own = model_has_own_widths(c), failed = model_resolve_widths(c, why);
    const Refusal list[] = {
        {failed, "model.expert_widths", why->message},
        {c->width_penalty && !own, "model.width_penalty",
         "all experts are equally wide (model.expert_widths is empty)"},
        {c->width_penalty && c->aux_coef == 0, "model.width_penalty",
         "changes the balance loss, which is off (model.aux_coef is 0)"},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (!list[i].impossible) continue;
        *found = list[i];
        return -1;
    }
    return 0;
}

int model_config_check(ModelConfig *c, const ConfTable *table, const int *lines, const char *path,
                       Err *e)
{
    const Refusal *found = NULL;
    Refusal room;
    Err why = {0};
    if (check_widths(c, &room, &why))
        return conf_fail(table, lines, path, room.key, e, "%s", room.reason);
    if (check_attention(c, &found, &room) || check_ffn(c, &found, &room))
        return conf_fail(table, lines, path, found->key, e, "%s", found->reason);
    return 0;
}

int64_t model_capacity(const ModelConfig *c)
{
    if (!c->n_experts) return 0;
    int64_t m = c->capacity_multiple, R = c->routing_group_tokens;
    double share = c->capacity_factor * (double)R * (double)c->top_k / (double)c->n_experts;
    int64_t most = size_round_up(R, m);
    if (share >= (double)most) return most;
    return size_min(most, size_round_up((int64_t)ceil(share), m));
}

int64_t model_widest_expert(const ModelConfig *c)
{
    int64_t most = 0;
    for (int64_t i = 0; i < c->n_experts && i < EXPERTS_EACH_MAX; i++)
        most = size_max(most, model_expert_width(c, i));
    return most;
}

double model_rope_base(const ModelConfig *c)
{
    double K = (double)c->head_dim;
    return c->rope_alpha == 1 ? c->rope_theta : c->rope_theta * pow(c->rope_alpha, K / (K - 2));
}
