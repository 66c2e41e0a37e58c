/* tests/sweep_program.h - what the tests of `isomoe sweep` share: a study of seconds, and what the
 * program printed of it. */
#ifndef ISOMOE_TESTS_SWEEP_PROGRAM_H
#define ISOMOE_TESTS_SWEEP_PROGRAM_H

#include "tests/train_runs.h"

__attribute__((unused)) static json_t *printed(void)
{
    json_error_t why;
    json_t *o = json_loads(program_out, 0, &why);
    if (!o) fail_msg("%s\n%s", why.text, program_out);
    return o;
}

/* The base has a last rate of its own, which a run without decay (a trunk) may not name. */
__attribute__((unused)) static void write_base(void)
{
    char text[4096], *from = read_file(at("c.yaml"), NULL);
    char *end = strstr(from, "decay_steps: 2}");
    assert_non_null(end);
    snprintf(text, sizeof text, "%.*sdecay_steps: 2, final_lr_ratio: 0.01}%s", (int)(end - from),
             from, end + strlen("decay_steps: 2}"));
    free(from);
    write_file(at("base.yaml"), text);
}

__attribute__((unused)) static const char *write_study(void)
{
    char text[4096];
    write_base();
    snprintf(text, sizeof text,
             "sweep: {name: small, out: %s, base: %s, budgets: '6e8, 1e9', sizes: 1,\n"
             "  spacing: 1.5, cooldown: 0.25, warmup: 0.1, adaptive: 1, held_out: 2}\n"
             "family: {width_step: 4, width_min: 8, width_max: 32, aspect: 8, head_dim: 4,\n"
             "  query_group: 2, expert_ratio: 0.5, shared_ratio: 0.5, ffn_step: 4}\n"
             "centre: {prior: power, factor: 9000, exponent: 0}\n"
             "rate: {law: constant, value: 0.01}\nbatch: {law: constant, value: 128}\n",
             at("sweep"), at("base.yaml"));
    write_file(at("study.yaml"), text);
    static char path[PATH * 2];
    snprintf(path, sizeof path, "%s", at("study.yaml"));
    return path;
}

__attribute__((unused)) static int count_state(const json_t *list, const char *name,
                                              const char *state)
{
    size_t i;
    int n = 0;
    const json_t *c;
    json_array_foreach(list, i, c) {
        bool is = !strncmp(json_string_value(json_object_get(c, "name")), name, strlen(name));
        n += is && !strcmp(json_string_value(json_object_get(c, "state")), state);
    }
    return n;
}

#endif
