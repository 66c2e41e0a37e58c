/* model/config.c - the rows of the `model:` section and the checks of their combinations. */
#include "model/config.h"

#include <math.h>
#include <string.h>

#include "base/size.h"
#include "model/widths.h"

static const char *const qk_norm_names[] = {"none", "head_after_rope", "head_before_rope",
                                            "full_before_rope", NULL};
static const char *const weight_names[] = {"raw", "renorm", NULL};
static const char *const network_names[] = {"linear", "mlp", NULL};
static const char *const init_names[] = {"normal", "trunc_normal", NULL};
static const char *const routing_names[] = {
    [ROUTE_RECYCLE] = "recycle", [ROUTE_DROPLESS] = "dropless", [ROUTE_DROP] = "drop",
    [ROUTE_EXPERT_CHOICE] = "expert_choice", [ROUTE_EXPERT_CHOICE + 1] = NULL};
static const char *const drop_names[] = {"position", "score", NULL};
static const char *const score_names[] = {"softmax", "sigmoid", NULL};
static const char *const balance_names[] = {"group", "global", NULL};

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
    {"model.expert_widths", CONF_LONG, FIELD(expert_widths), "", 1, 0, NULL,
     "own widths: arithmetic | geometric | hybrid (total width kept), or a list; empty: all equal"},
    {"model.width_penalty", CONF_BOOL, FIELD(width_penalty), "false", 1, 0, NULL,
     "balance loss weighs an expert's share by its width / the mean width"},
    {"model.n_shared", CONF_INT, FIELD(n_shared), "0", 0, 256, NULL, "shared experts"},
    {"model.shared_width", CONF_INT, FIELD(shared_width), "0", 0, 1 << 20, NULL,
     "inner width of one shared expert"},
    {"model.shared_gate", CONF_BOOL, FIELD(shared_gate), "false", 1, 0, NULL,
     "a learned gate weighs the routed and the shared output of each token (softmax of two)"},
    {"model.shared_scale", CONF_FLOAT, FIELD(shared_scale), "1", MODEL_SCALE_MIN, MODEL_SCALE_MAX,
     NULL, "shared_gate: factor on the shared output"},
    {"model.router_network", CONF_ENUM, FIELD(router_network), "linear", 1, 0, network_names,
     "logits of the router: W x, or W2 tanh(W x), both with n_experts rows"},
    {"model.router_weight", CONF_ENUM, FIELD(router_weight), "renorm", 1, 0, weight_names,
     "combine weights: softmax probabilities as they are, or divided by their sum"},
    {"model.tie_embeddings", CONF_BOOL, FIELD(tie_embeddings), "true", 1, 0, NULL,
     "the head is the embedding"},
    {"model.norm_eps", CONF_FLOAT, FIELD(norm_eps), "1e-5", 0, 1, NULL, "RMSNorm's epsilon"},
    {"model.init_std", CONF_FLOAT, FIELD(init_std), "0.02", 0, 10, NULL,
     "standard deviation of the initial weights"},
    {"model.init", CONF_ENUM, FIELD(init), "normal", 1, 0, init_names,
     "trunc_normal: none beyond 3 init_std; the deviation is not corrected for it"},
    {"model.router_init_std", CONF_FLOAT, FIELD(router_init_std), "-1", -1, 10, NULL,
     "the router's own init_std; -1: as init_std"},
    {"model.residual_init", CONF_BOOL, FIELD(residual_init), "true", 1, 0, NULL,
     "matrices that write into the residual start with init_std / sqrt(2 n_layers)"},
    {"model.mup_base_width", CONF_INT, FIELD(mup_base_width), "0", 0, 1 << 17, NULL,
     "width transfer (muP): d_model that the rate and init_std were found for; 0: off"},
    {"model.mup_base_head_dim", CONF_INT, FIELD(mup_base_head_dim), "0", 0, 4096, NULL,
     "its head_dim, where heads grow with the width; 0: they do not"},
    {"model.routing", CONF_ENUM, FIELD(routing), "recycle", 1, 0, routing_names,
     "in training; evaluation is always dropless top-k (records of the choices, and their replay: "
     "train.routing_record, train.routing_replay)"},
    {"model.routing_group_tokens", CONF_INT, FIELD(routing_group_tokens), "1024", 1, 1 << 30, NULL,
     "tokens that compete for capacity"},
    {"model.capacity_factor", CONF_FLOAT, FIELD(capacity_factor), "1", 0.01, 65536, NULL,
     "room at an expert / its fair share"},
    {"model.capacity_multiple", CONF_INT, FIELD(capacity_multiple), "8", 1, 4096, NULL,
     "capacity is rounded up to a multiple of this"},
    {"model.aux_coef", CONF_FLOAT, FIELD(aux_coef), "0.01", 0, 1000, NULL,
     "load-balance loss, per routing group"},
    {"model.z_coef", CONF_FLOAT, FIELD(z_coef), "0.001", 0, 1000, NULL, "router z-loss"},
    {"model.drop_policy", CONF_ENUM, FIELD(drop_policy), "position", 1, 0, drop_names,
     "routing drop: which choices a full expert keeps: the first, or those of the best score (of "
     "the highest probability)"},
    {"model.router_score", CONF_ENUM, FIELD(router_score), "softmax", 1, 0, score_names,
     "scores of the experts: softmax over all, or a sigmoid of each logit"},
    {"model.routed_scale", CONF_FLOAT, FIELD(routed_scale), "1", MODEL_SCALE_MIN,
     MODEL_SCALE_MAX, NULL, "factor on the combine weights"},
    {"model.top_p", CONF_FLOAT, FIELD(top_p), "0", 0, 1, NULL,
     "experts until their scores sum to this, at most top_k; 0: always top_k"},
    {"model.expert_blocks", CONF_INT, FIELD(expert_blocks), "0", 0, 65536, NULL,
     "limited choice: equal runs of experts; 0: off"},
    {"model.top_expert_blocks", CONF_INT, FIELD(top_expert_blocks), "0", 0, 65536, NULL,
     "limited choice: blocks that a token may use"},
    {"model.balance", CONF_ENUM, FIELD(balance), "group", 1, 0, balance_names,
     "shares in the balance loss: of the routing group, or of the whole previous step"},
    {"model.bias_rate", CONF_FLOAT, FIELD(bias_rate), "0", 0, 1, NULL,
     "loss-free balance: step of the selection bias after each step; 0: off"},
    {"model.entropy_coef", CONF_FLOAT, FIELD(entropy_coef), "0", 0, 1000, NULL,
     "entropy of a token's scores, added to the loss: sharpens the router (HMoE's beta n_experts)"},
    {"model.gate_noise", CONF_BOOL, FIELD(gate_noise), "false", 1, 0, NULL,
     "noisy top-k gate: learned noise on the router's logits in training"},
    {"model.cv_coef", CONF_FLOAT, FIELD(cv_coef), "0", 0, 1000, NULL,
     "noisy gate: squared variation of importance and load over the experts"},
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

/* The first impossible one of `count`, or NULL. */
static int refuse(const Refusal *list, size_t count, Refusal *found)
{
    for (size_t i = 0; i < count; i++) {
        if (!list[i].impossible) continue;
        *found = list[i];
        return -1;
    }
    return 0;
}

#define REFUSE(list, found) refuse(list, sizeof(list) / sizeof *(list), found)

static int check_attention(ModelConfig *c, Refusal *found)
{
    if (!c->head_dim && c->d_model % c->n_heads == 0) c->head_dim = c->d_model / c->n_heads;
    const Refusal list[] = {
        {!c->head_dim, "model.head_dim", "d_model is no multiple of n_heads: give head_dim"},
        {c->head_dim % 2 != 0, "model.head_dim", "the rotation needs an even head width"},
        {c->n_heads % c->n_kv_heads != 0, "model.n_kv_heads", "must divide model.n_heads"},
        {c->rope_alpha != 1 && c->head_dim <= 2, "model.rope_alpha", "needs a head width above 2"},
        {c->cla_share > c->n_layers, "model.cla_share", "is larger than model.n_layers"},
    };
    return REFUSE(list, found);
}

static int check_ffn(const ModelConfig *c, Refusal *found)
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
        {c->shared_gate && c->n_shared == 0, "model.shared_gate",
         "there are no shared experts (model.n_shared is 0)"},
        {c->shared_scale != 1 && !c->shared_gate, "model.shared_scale", "needs model.shared_gate"},
    };
    return REFUSE(list, found);
}

/* The first of the keys (NULL-terminated) that somebody set is refused. */
static int refuse_set(const ModelConfig *c, const char *const *keys, const char *reason,
                      Refusal *found)
{
    for (; *keys; keys++)
        if (!conf_is_default(model_config_table(), c, *keys)) {
            *found = (Refusal){true, *keys, reason};
            return -1;
        }
    return 0;
}

static const char *default_text(const char *key)
{
    int i = 0;
    while (i < N_ROWS && strcmp(rows[i].key, key)) i++;
    CHECK(i < N_ROWS, "no key %s", key);
    return rows[i].initial;
}

/* Keys that would do nothing: all of the routing in a dense model, capacity without a limit. */
static int check_effect(const ModelConfig *c, Refusal *found)
{
    static const char *const routing[] = {
        "model.routing", "model.routing_group_tokens", "model.capacity_factor",
        "model.capacity_multiple", "model.aux_coef", "model.z_coef", "model.drop_policy",
        "model.router_weight", "model.router_score", "model.router_network", "model.shared_gate",
        "model.routed_scale", "model.top_p",
        "model.expert_blocks", "model.top_expert_blocks", "model.balance", "model.bias_rate",
        "model.entropy_coef", "model.gate_noise", "model.cv_coef", NULL};
    static const char *const capacity[] = {"model.capacity_factor", "model.capacity_multiple",
                                           NULL};
    if (!c->n_experts)
        return refuse_set(c, routing, "there are no experts (model.n_experts is 0)", found);
    if (model_has_capacity(c)) return 0;
    return refuse_set(c, capacity, "model.routing dropless knows no capacity", found);
}

/* How a token's experts are chosen. */
static int check_choice(const ModelConfig *c, Refusal *found)
{
    static const char by_expert[] = "experts choose their tokens (model.routing expert_choice)";
    int64_t blocks = c->expert_blocks, top = c->top_expert_blocks, E = c->n_experts;
    bool expert_choice = c->routing == ROUTE_EXPERT_CHOICE, all = c->top_k == E;
    const Refusal list[] = {
        {c->drop_policy == DROP_SCORE && c->routing != ROUTE_DROP, "model.drop_policy",
         "only model.routing drop leaves choices out by score"},
        {c->top_p > 0 && c->router_score != SCORE_SOFTMAX, "model.top_p",
         "sums probabilities: needs model.router_score softmax"},
        {c->top_p > 0 && expert_choice, "model.top_p", by_expert},
        {c->top_p > 0 && c->top_k == 1, "model.top_p",
         "takes at most model.top_k experts, which is 1: it would do nothing"},
        {c->top_p >= 1, "model.top_p", "1 would be all top_k experts: leave it at 0"},
        {(blocks > 0) != (top > 0), blocks ? "model.top_expert_blocks" : "model.expert_blocks",
         "expert_blocks and top_expert_blocks are needed together"},
        {blocks > 0 && E % blocks != 0, "model.expert_blocks", "must divide model.n_experts"},
        {top > blocks, "model.top_expert_blocks", "is larger than model.expert_blocks"},
        {top > 0 && top == blocks, "model.top_expert_blocks",
         "is model.expert_blocks: a token may use all blocks, which limits nothing"},
        {blocks > 0 && c->routing == ROUTE_RECYCLE, "model.expert_blocks",
         "recycling places tokens outside their blocks: use model.routing drop or dropless"},
        {blocks > 0 && c->top_k > top * (E / size_max(blocks, 1)), "model.top_expert_blocks",
         "the chosen blocks hold fewer experts than model.top_k"},
        {blocks > 0 && expert_choice, "model.expert_blocks", by_expert},
        {c->bias_rate > 0 && expert_choice, "model.bias_rate", by_expert},
        {c->bias_rate > 0 && all, "model.bias_rate",
         "every token takes all experts: there is nothing to balance"},
        {c->gate_noise && expert_choice, "model.gate_noise", by_expert},
    };
    return REFUSE(list, found);
}

/* Losses that have nothing to act on, or not what they need. */
static int check_losses(const ModelConfig *c, Refusal *found)
{
    bool global = c->balance == BALANCE_GLOBAL, cv = c->cv_coef > 0;
    const Refusal list[] = {
        {global && c->aux_coef == 0, "model.balance",
         "changes the balance loss, which is off (model.aux_coef is 0)"},
        {global && c->routing == ROUTE_EXPERT_CHOICE, "model.balance",
         "with model.routing expert_choice every expert has the same share"},
        {cv && !c->gate_noise, "model.cv_coef", "needs model.gate_noise"},
        {cv && c->top_k == c->n_experts, "model.cv_coef", "needs model.top_k below n_experts"},
        {cv && (c->top_p > 0 || c->expert_blocks > 0 || c->bias_rate > 0), "model.cv_coef",
         "its load is that of the k largest noisy logits: not with top_p, expert_blocks or "
         "bias_rate"},
    };
    return REFUSE(list, found);
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
    return REFUSE(list, found);
}

static int check_init(const ModelConfig *c, Refusal *found)
{
    bool own = c->router_init_std != -1;
    const Refusal list[] = {
        {own && c->router_init_std < 0, "model.router_init_std", "must be -1 or at least 0"},
        {own && !c->n_experts, "model.router_init_std", "there are no experts"},
        {c->router_init_std == 0 && c->router_network == ROUTER_MLP, "model.router_init_std",
         "0 would leave both layers of model.router_network mlp at zero for ever"},
        {c->mup_base_head_dim > 0 && !c->mup_base_width, "model.mup_base_head_dim",
         "is of a width transfer, which is off (model.mup_base_width is 0)"},
    };
    return REFUSE(list, found);
}

int model_config_check(ModelConfig *c, const ConfTable *table, const int *lines, const char *path,
                       Err *e)
{
    Refusal found;
    Err why = {0};
    bool idle = false;
    if (check_widths(c, &found, &why) || check_attention(c, &found) || check_ffn(c, &found) ||
        (idle = check_effect(c, &found)) || check_choice(c, &found) || check_losses(c, &found) ||
        check_init(c, &found)) {
        conf_fail(table, lines, path, found.key, e, "%s", found.reason);
        if (idle) err_hint(e, "leave it out, or at its default, %s", default_text(found.key));
        return -1;
    }
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

int64_t model_expert_rows(const ModelConfig *c, int64_t N)
{
    int64_t rows = 0;
    if (!model_has_capacity(c))
        return size_mul(N, c->top_k, &rows) ? rows : INT64_MAX;
    int64_t groups = N / c->routing_group_tokens;
    bool fits = size_mul(c->n_experts, groups, &rows) && size_mul(rows, model_capacity(c), &rows);
    return fits ? rows : INT64_MAX;
}

const char *model_routing_name(int mode)
{
    CHECK(mode >= ROUTE_RECYCLE && mode <= ROUTE_EXPERT_CHOICE, "routing mode %d", mode);
    return routing_names[mode];
}

int model_check_causal(const ModelConfig *c, Err *e)
{
    if (!c->n_experts || c->routing != ROUTE_EXPERT_CHOICE) return 0;
    err_set(e, "this model was trained with model.routing expert_choice: whether an expert took a "
            "token depended on the tokens behind it, which do not exist yet while a text is made");
    return err_hint(e, "its held-out loss (isomoe eval) is measured with dropless top-k routing");
}
