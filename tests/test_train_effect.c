/* tests/test_train_effect.c - a run's configuration: keys that would do nothing, combinations of
 * the routing that cannot be. */
#include "tests/train_good.h"

#include "data/reweight.h"
#include "train/idle.h"

/* Keys of the routing do nothing in a dense model, those of the rate's end nothing where it never
 * falls; a default is no mistake, wherever it comes from. */
static void test_refuses_without_effect(void **state)
{
    static const char *const routing[] = {
        "model.routing=drop", "model.routing_group_tokens=64", "model.capacity_factor=2",
        "model.capacity_multiple=1", "model.aux_coef=0", "model.z_coef=0",
        "model.router_weight=raw", "model.router_score=sigmoid", "model.routed_scale=2",
        "model.top_p=0.5",
        "model.expert_blocks=2", "model.top_expert_blocks=2", "model.balance=global",
        "model.bias_rate=0.1", "model.entropy_coef=0.1", "model.gate_noise=true",
        "model.cv_coef=0.1", "model.drop_policy=score"};
    static const struct {
        const char *key[3];
        bool good;
        const char *message;
    } rate[] = {
        {{"optim.schedule=constant", "optim.decay_steps=5"}, false, "optim.decay_steps: has an "},
        {{"optim.schedule=cosine", "optim.decay_steps=5"}, false,
         "optim.decay_steps: has an effect only with optim.schedule wsd, wsd_sqrt or three_phase"},
        {{"optim.schedule=constant", "optim.final_lr_ratio=0.2"}, false,
         "optim.final_lr_ratio: has an effect only with a rate that falls: optim.schedule cosine"},
        {{"optim.schedule=wsd", "optim.decay_steps=0", "optim.final_lr_ratio=0.2"}, false,
         "optim.final_lr_ratio: has an effect only with"},
        {{"optim.schedule=wsd", "optim.decay_steps=5", "optim.final_lr_ratio=0.2"}, true, NULL},
        {{"optim.schedule=cosine", "optim.final_lr_ratio=0.2"}, true, NULL},
        {{"optim.schedule=three_phase", "optim.final_lr_ratio=0.2"}, true, NULL},
        {{"optim.schedule=constant", "optim.final_lr_ratio=0.1", "optim.decay_steps=0"}, true,
         NULL},
    };
    RunConfig c;
    (void)state;
    for (size_t i = 0; i < sizeof routing / sizeof *routing; i++) {
        const char *words[] = {"model.n_experts=0", "model.top_k=0", "model.expert_width=0",
                               "model.n_shared=1", "model.shared_width=32",
                               "model.routing_group_tokens=1024", routing[i]};
        char want[128];
        Err e = {0};
        snprintf(want, sizeof want, "c.yaml: %.*s: there are no experts (model.n_experts is 0)",
                 (int)strcspn(routing[i], "="), routing[i]);
        write_file(at("c.yaml"), GOOD);
        if (run_config_read(&c, at("c.yaml"), words, 6, &e)) fail_msg("%s", e.message);
        assert_int_equal(run_config_read(&c, at("c.yaml"), words, 7, &e), -1);
        assert_has(e.message, strchr(want, ' ') + 1);
    }
    for (size_t i = 0; i < sizeof rate / sizeof *rate; i++) {
        const char *words[] = {"optim.warmup_steps=2", rate[i].key[0], rate[i].key[1],
                               rate[i].key[2]};
        Err e = {0};
        int rc = run_config_read(&c, at("c.yaml"), words, rate[i].key[2] ? 4 : 3, &e);
        assert_int_equal(rc, rate[i].good ? 0 : -1);
        if (rc) assert_has(e.message, rate[i].message);
    }
}

/* As many widths as experts can have, all of the longest, in a file and back; not one byte and not
 * one expert more. */
static void test_widest_list(void **state)
{
    enum { WIDTH = 1 << 20, EACH = 8 };
    static char list[EXPERTS_EACH_MAX * EACH + 64], text[8192], more[8192];
    RunConfig c, back;
    Err e = {0};
    (void)state;
    for (int i = 0; i < EXPERTS_EACH_MAX; i++) snprintf(list + i * EACH, 9, "%d ", WIDTH);
    list[EXPERTS_EACH_MAX * EACH - 1] = 0;
    static const char form[] = "model: {vocab_size: 512, d_model: 32, n_layers: 1, n_heads: 4,\n"
                               "  n_kv_heads: 2, n_experts: %d, top_k: 2, expert_widths: %s}\n" DATA
                               "train: {out: run, steps: 200, batch: 16}\n";
    snprintf(text, sizeof text, form, EXPERTS_EACH_MAX, list);
    if (run_config_read_text(&c, text, "wide.yaml", &e)) fail_msg("%s", e.message);
    assert_int_equal(c.model.expert_width, WIDTH);
    assert_int_equal(c.model.own_widths[EXPERTS_EACH_MAX - 1], WIDTH);
    char *written = conf_write(run_config_table(), &c);
    if (run_config_read_text(&back, written, "written", &e)) fail_msg("%s", e.message);
    assert_string_equal(back.model.expert_widths, list);
    assert_memory_equal(back.model.own_widths, c.model.own_widths, sizeof c.model.own_widths);
    free(written);
    list[EXPERTS_EACH_MAX * EACH - 1] = ' ';
    memcpy(list + EXPERTS_EACH_MAX * EACH, "9", 2);
    snprintf(more, sizeof more, form, EXPERTS_EACH_MAX + 1, list);
    assert_int_equal(run_config_read_text(&c, more, "wide.yaml", &e), -1);
    assert_has(e.message, "wide.yaml:2: model.expert_widths: '");
    assert_has(e.message, "is too long; expected at most 2047 bytes");
    snprintf(more, sizeof more, form, EXPERTS_EACH_MAX + 1, "arithmetic, expert_width: 64");
    assert_int_equal(run_config_read_text(&c, more, "wide.yaml", &e), -1);
    assert_has(e.message, "at most 256 experts can have widths of their own, there are 257");
}

/* Switches of the router that exclude or need each other; the base has 4 experts, top-2. */
static void test_refuses_routing(void **state)
{
    static const struct {
        const char *overrides[5], *message;
    } cases[] = {
        {{"model.routing=replay"}, "replay: train.routing_record, train.routing_replay)"},
        {{"model.drop_policy=probability"}, "those of the best score (of the highest probability)"},
        {{"optim.expert_lr=0.31"}, "(a fixed factor, such as 0.31: optim.lr_ratio.expert)"},
        {{"model.drop_policy=score"}, "model.drop_policy: only model.routing drop leaves"},
        {{"model.top_p=0.5", "model.router_score=sigmoid"}, "model.top_p: sums probabilities"},
        {{"model.top_p=0.5", "model.routing=expert_choice"}, "model.top_p: experts choose"},
        {{"model.top_p=0.5", "model.top_k=1"}, "model.top_p: takes at most model.top_k experts"},
        {{"model.expert_blocks=2", "model.top_expert_blocks=2", "model.routing=drop"},
         "model.top_expert_blocks: is model.expert_blocks: a token may use all blocks"},
        {{"model.top_p=1"}, "model.top_p: 1 would be all top_k experts"},
        {{"model.expert_blocks=2"}, "model.top_expert_blocks (default): expert_blocks and"},
        {{"model.top_expert_blocks=1"}, "model.expert_blocks (default): expert_blocks and"},
        {{"model.expert_blocks=3", "model.top_expert_blocks=1"},
         "model.expert_blocks: must divide model.n_experts"},
        {{"model.expert_blocks=2", "model.top_expert_blocks=3"},
         "model.top_expert_blocks: is larger than model.expert_blocks"},
        {{"model.expert_blocks=2", "model.top_expert_blocks=1"},
         "model.expert_blocks: recycling places tokens outside their blocks"},
        {{"model.expert_blocks=4", "model.top_expert_blocks=1", "model.routing=drop"},
         "model.top_expert_blocks: the chosen blocks hold fewer experts than model.top_k"},
        {{"model.expert_blocks=2", "model.top_expert_blocks=1", "model.routing=expert_choice"},
         "model.expert_blocks: experts choose"},
        {{"model.bias_rate=0.1", "model.routing=expert_choice"}, "model.bias_rate: experts choose"},
        {{"model.bias_rate=0.1", "model.top_k=4"}, "model.bias_rate: every token takes all"},
        {{"model.balance=global", "model.aux_coef=0"}, "model.balance: changes the balance loss"},
        {{"model.balance=global", "model.routing=expert_choice"},
         "model.balance: with model.routing expert_choice every expert"},
        {{"model.gate_noise=true", "model.routing=expert_choice"}, "model.gate_noise: experts"},
        {{"model.cv_coef=0.1"}, "model.cv_coef: needs model.gate_noise"},
        {{"model.cv_coef=0.1", "model.gate_noise=true", "model.top_k=4"},
         "model.cv_coef: needs model.top_k below n_experts"},
        {{"model.cv_coef=0.1", "model.gate_noise=true", "model.bias_rate=0.1"},
         "model.cv_coef: its load is that of the k largest noisy logits"},
        {{"model.cv_coef=0.1", "model.gate_noise=true", "model.top_p=0.1"}, "model.cv_coef: its"},
        {{"model.routed_scale=0"}, "model.routed_scale"},
        {{"model.shared_gate=true", "model.n_shared=0", "model.shared_width=0"},
         "model.shared_gate: there are no shared experts"},
        {{"model.shared_scale=2"}, "model.shared_scale: needs model.shared_gate"},
        {{"model.router_network=mlp", "model.router_init_std=0"},
         "model.router_init_std: 0 would leave both layers"},
        {{"model.routing=dropless", "model.capacity_factor=1.5"},
         "model.capacity_factor: model.routing dropless knows no capacity\nhint: leave it out, or "
         "at its default, 1"},
        {{"model.routing=dropless", "model.capacity_multiple=1"}, "model.capacity_multiple: model"},
    };
    (void)state;
    write_file(at("c.yaml"), GOOD);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        RunConfig c;
        Err e = {0};
        int n = 0;
        while (cases[i].overrides[n]) n++;
        assert_int_equal(run_config_read(&c, at("c.yaml"), cases[i].overrides, n, &e), -1);
        assert_has(e.message, cases[i].message);
    }
    RunConfig c;
    static const char *const together[] = {
        "model.routing=dropless", "model.router_score=sigmoid", "model.bias_rate=0.001",
        "model.expert_blocks=2", "model.top_expert_blocks=1", "model.routed_scale=2.5",
        "model.balance=global", "model.gate_noise=true", "model.entropy_coef=0.1"};
    read_good(&c, together, sizeof together / sizeof *together);
    assert_int_equal(c.model.router_score, SCORE_SIGMOID);
    assert_int_equal(c.model.balance, BALANCE_GLOBAL);
}

static void take(const char *message, void *user)
{
    char *all = user;
    snprintf(all + strlen(all), 600 - strlen(all), "%s\n", message);
}

/* What does nothing in a run of this length or routing is named, and nothing else. */
static void test_idle_keys(void **state)
{
    static const struct {
        const char *overrides[7], *found; /* NULL: nothing */
    } cases[] = {
        {{"train.steps=200"}, NULL},
        {{"optim.skip_zscore=3", "optim.skip_window=199"}, NULL},
        {{"optim.skip_zscore=3", "optim.skip_window=200"}, "optim.skip_zscore: "},
        {{"optim.expert_lr=auto", "optim.noise=measured", "optim.noise_unit=8", "train.steps=11",
          "optim.warmup_steps=1", "optim.decay_steps=1"}, NULL},
        {{"optim.expert_lr=auto", "optim.noise=measured", "optim.noise_unit=8", "train.steps=10",
          "optim.warmup_steps=1", "optim.decay_steps=1"}, "optim.noise measured: "},
        {{"optim.expert_lr=load", "model.top_k=1"}, "optim.expert_lr load: "},
        {{"optim.expert_lr=load", "model.top_k=1", "model.capacity_factor=1.25"}, NULL},
        {{"optim.expert_lr=load", "model.top_k=1", "model.routing=drop"}, NULL},
        {{"optim.expert_lr=load", "model.top_k=2"}, NULL},
        {{"optim.expert_lr=load", "model.top_k=2", "model.capacity_factor=0.5"}, NULL},
        {{"optim.expert_lr=auto", "model.top_k=1"}, NULL},
        {{"optim.expert_lr=load", "model.routing=expert_choice"}, "optim.expert_lr load: "},
        {{"optim.expert_lr=load", "model.routing=dropless"}, NULL},
        {{"optim.expert_lr=load", "model.routing=dropless", "model.top_k=4"},
         "optim.expert_lr load: "},
        {{"optim.expert_lr=load", "model.routing=dropless", "model.top_k=4", "model.top_p=0.5"},
         NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char all[600] = "";
        RunConfig c;
        int n = 0;
        while (cases[i].overrides[n]) n++;
        read_good(&c, cases[i].overrides, n);
        idle_keys(&c, take, all);
        bool right = cases[i].found ? !strncmp(all, cases[i].found, strlen(cases[i].found)) &&
                                          strchr(all, '\n')[1] == 0
                                    : !all[0];
        if (!right) fail_msg("case %zu: %s", i, all);
    }
    RunConfig c;
    read_good(&c, NULL, 0);
    for (int every = 199; every <= 200; every++) {
        char all[600] = "";
        c.data.dynamic = REWEIGHT_OFF + 1;
        c.data.dynamic_every = every;
        idle_keys(&c, take, all);
        assert_int_equal(!strncmp(all, "data.dynamic: ", 14), every == 200);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_without_effect),
        cmocka_unit_test(test_widest_list),
        cmocka_unit_test(test_refuses_routing), cmocka_unit_test(test_idle_keys),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
