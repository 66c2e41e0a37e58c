/* train/tensor_slots.c - see tensor_slots.h. */
#include "train/tensor_slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One slot a parameter, viewed in the flat array. */
static void add_params(TensorSlots *slots, const char *group, const ParamTable *table, Tensor flat)
{
    for (int i = 0; i < table->count; i++) {
        const ParamRow *row = &table->row[i];
        slots->slot[slots->count++] = (TensorSlot){
            .group = group, .name = row->name, .tensor = params_view(row, flat.data, flat.type)};
    }
}

/* One slot for each moment that exists. */
static void add_moments(TensorSlots *slots, const char *group, const ParamTable *table,
                        Optimizer *o, Tensor (*moment)(Optimizer *o, int row))
{
    for (int i = 0; i < table->count; i++) {
        Tensor t = moment(o, i);
        if (tensor_given(t))
            slots->slot[slots->count++] =
                (TensorSlot){.group = group, .name = table->row[i].name, .tensor = t};
    }
}

static void add_state(TensorSlots *slots, const char *group, const StateTensor *state, int n)
{
    for (int i = 0; i < n; i++)
        slots->slot[slots->count++] =
            (TensorSlot){.group = group, .name = state[i].name, .tensor = state[i].tensor};
}

int tensor_slots_make(TensorSlots *slots, Model *m, Optimizer *o, Err *e)
{
    StateTensor state[STATE_MAX];
    const ParamTable *table = model_params(m);
    *slots = (TensorSlots){.whole = o != NULL};
    slots->slot = calloc((size_t)table->count * 3 + 2 * STATE_MAX, sizeof *slots->slot);
    if (!slots->slot) return err_set(e, "out of memory for a list of tensors");
    add_params(slots, "master", table, model_master(m));
    add_state(slots, "model", state, model_state(m, state));
    if (!o) return 0;
    add_moments(slots, "m", table, o, optimizer_m);
    add_moments(slots, "v", table, o, optimizer_v);
    add_state(slots, "optim", state, optimizer_state(o, state));
    return 0;
}

void tensor_slots_free(TensorSlots *slots)
{
    free(slots->slot);
    *slots = (TensorSlots){0};
}

const char *tensor_slot_name(const TensorSlot *slot, char out[TENSOR_PATH])
{
    snprintf(out, TENSOR_PATH, "%s/%s", slot->group, slot->name);
    return out;
}

int tensor_slots_group(const TensorSlots *slots, int first)
{
    int n = 0;
    while (first + n < slots->count &&
           !strcmp(slots->slot[first + n].group, slots->slot[first].group))
        n++;
    return n;
}
