/* tests/ref/ops_list.c - which test program has the cases of which entry of DeviceOps.
 *
 * The one list: test_ops_table.c holds it against the struct, so that a new entry without a line
 * fails, and each program named here fails if it ran no case of an entry that it is named for.
 */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "device/device_ops.h"
#include "tests/ref/harness.h"

#define ENTRY(name, program)                                                                       \
    {#name, offsetof(DeviceOps, name), sizeof(((DeviceOps *)0)->name), program, 0}

static struct {
    const char *name;
    size_t offset, size;
    const char *program;
    int runs;
} entries[] = {
    ENTRY(name, "test_ops_memory"),
    ENTRY(destroy, "test_ops_memory"),
    ENTRY(alloc, "test_ops_memory"),
    ENTRY(free, "test_ops_memory"),
    ENTRY(upload, "test_ops_memory"),
    ENTRY(download, "test_ops_memory"),
    ENTRY(copy, "test_ops_memory"),
    ENTRY(sync, "test_ops_memory"),
    ENTRY(error, "test_ops_memory"),
    ENTRY(scratch_bytes, "test_ops_memory"),
    ENTRY(memory_room, "test_ops_memory"),
    ENTRY(matrix_peak, "test_ops_memory"),
    ENTRY(memory_peak, "test_ops_memory"),
    ENTRY(cast, "test_ops_memory"),
    ENTRY(fill, "test_ops_memory"),
    ENTRY(add, "test_ops_memory"),
    ENTRY(linear_fwd, "test_ops_linear"),
    ENTRY(linear_bwd, "test_ops_linear"),
    ENTRY(weight_hint, "test_ops_linear"),
    ENTRY(weights_changed, "test_ops_linear"),
    ENTRY(expert_linear_fwd, "test_ops_expert"),
    ENTRY(expert_linear_bwd, "test_ops_expert"),
    ENTRY(expert_each_fwd, "test_ops_expert_each"),
    ENTRY(expert_each_bwd, "test_ops_expert_each"),
    ENTRY(expert_swiglu_fwd, "test_ops_expert_each"),
    ENTRY(expert_swiglu_bwd, "test_ops_expert_each"),
    ENTRY(embed_fwd, "test_ops_norm"),
    ENTRY(embed_bwd, "test_ops_norm"),
    ENTRY(rmsnorm_fwd, "test_ops_norm"),
    ENTRY(rmsnorm_bwd, "test_ops_norm"),
    ENTRY(swiglu_fwd, "test_ops_norm"),
    ENTRY(swiglu_bwd, "test_ops_norm"),
    ENTRY(qk_fwd, "test_ops_qk"),
    ENTRY(qk_bwd, "test_ops_qk"),
    ENTRY(attention_fwd, "test_ops_attention"),
    ENTRY(attention_bwd, "test_ops_attention"),
    ENTRY(router_fwd, "test_ops_route"),
    ENTRY(router_bwd, "test_ops_route"),
    ENTRY(route_fwd, "test_ops_route"),
    ENTRY(route_bwd, "test_ops_route"),
    ENTRY(gate_noise_fwd, "test_ops_gate"),
    ENTRY(gate_noise_bwd, "test_ops_gate"),
    ENTRY(gate_cv_fwd, "test_ops_gate"),
    ENTRY(gate_cv_bwd, "test_ops_gate"),
    ENTRY(tanh_fwd, "test_ops_gate"),
    ENTRY(tanh_bwd, "test_ops_gate"),
    ENTRY(count_sum, "test_ops_gate"),
    ENTRY(balance_update, "test_ops_gate"),
    ENTRY(dispatch_fwd, "test_ops_combine"),
    ENTRY(dispatch_bwd, "test_ops_combine"),
    ENTRY(combine_fwd, "test_ops_combine"),
    ENTRY(combine_bwd, "test_ops_combine"),
    ENTRY(ce_fwd, "test_ops_loss"),
    ENTRY(ce_bwd, "test_ops_loss"),
    ENTRY(ce_train, "test_ops_loss"),
    ENTRY(nll_sum, "test_ops_loss"),
    ENTRY(adamw, "test_ops_optim"),
    ENTRY(muon, "test_ops_muon"),
    ENTRY(sqsum, "test_ops_optim"),
    ENTRY(sqdiff, "test_ops_optim"),
    ENTRY(clip, "test_ops_optim"),
    ENTRY(step_begin, "test_ops_optim"),
    ENTRY(attention_about, "test_commands"),
    ENTRY(gpu, "test_ops_memory"),
    ENTRY(limit_attention, "test_ops_memory"),
    ENTRY(reserve_scratch, "test_ops_memory"),
    ENTRY(adamw_rows, "test_ops_optim"),
    ENTRY(graph_record, "test_graph"),
    ENTRY(graph_finish, "test_graph"),
    ENTRY(graph_stage, "test_graph"),
    ENTRY(graph_launch, "test_graph"),
    ENTRY(graph_usable, "test_graph"),
};

enum { ENTRIES = sizeof entries / sizeof *entries };

void ops_note(const char *op)
{
    for (int i = 0; i < ENTRIES; i++)
        if (!strcmp(entries[i].name, op)) {
            entries[i].runs++;
            return;
        }
    CHECK(0, "no entry %s", op);
}

int ops_missing(const char *program)
{
    int missing = 0;
    for (int i = 0; i < ENTRIES; i++)
        if (!strcmp(entries[i].program, program) && !entries[i].runs) {
            printf("FAIL %s ran no case of %s\n", program, entries[i].name);
            missing++;
        }
    return missing;
}

int ops_list_faults(void)
{
    int faults = 0;
    for (size_t at = 0; at < sizeof(DeviceOps); at += sizeof(void *)) {
        int covered = 0;
        for (int i = 0; i < ENTRIES; i++) covered += entries[i].offset == at;
        if (covered == 1) continue;
        printf("FAIL entry number %zu of DeviceOps has %d lines in tests/ref/ops_list.c\n",
               at / sizeof(void *), covered);
        faults++;
    }
    for (int i = 0; i < ENTRIES; i++)
        if (entries[i].size != sizeof(void *)) {
            printf("FAIL entry %s is not one pointer\n", entries[i].name);
            faults++;
        }
    return faults;
}
