/* train/tensor_slots.h - the list of tensors that a checkpoint holds: where each is in device
 * memory, and under which name it is stored.
 *
 * Groups: master (f32 parameters), model (what else the model carries from step to step), m and v
 * (the optimizer's moments, as many as there are), optim (what else the optimizer carries). Who
 * only evaluates has no optimizer and leaves the last three groups unread.
 */
#ifndef ISOMOE_TRAIN_TENSOR_SLOTS_H
#define ISOMOE_TRAIN_TENSOR_SLOTS_H

#include "optim/optim.h"

enum { TENSOR_PATH = PARAM_NAME + 16 };

typedef struct TensorSlot {
    const char *group; /* of the list above */
    const char *name;  /* of the parameter or state tensor; borrowed from model or optimizer */
    Tensor tensor;     /* device memory; its shape and type are the stored ones */
    int64_t at;        /* first byte in the file */
    uint64_t hash;
} TensorSlot;

typedef struct TensorSlots {
    TensorSlot *slot; /* (count) owned; groups one behind the other */
    int count;
    bool whole;       /* everything that the checkpoint holds; else (no optimizer) all of master,
                         what is wanted of model, and nothing of m, v, optim */
} TensorSlots;

/* o may be NULL. Borrows from both. */
int tensor_slots_make(TensorSlots *slots, Model *m, Optimizer *o, Err *e);
void tensor_slots_free(TensorSlots *slots);

/* "master/<name>"; returns out. */
const char *tensor_slot_name(const TensorSlot *slot, char out[TENSOR_PATH]);

/* How many slots from `first` on are of its group. */
int tensor_slots_group(const TensorSlots *slots, int first);

#endif
