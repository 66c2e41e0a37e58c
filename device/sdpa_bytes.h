/* device/sdpa_bytes.h - memory that the attention library takes beside its tensors, known without a
 * GPU and without the library. */
#ifndef ISOMOE_DEVICE_SDPA_BYTES_H
#define ISOMOE_DEVICE_SDPA_BYTES_H

#include <stdbool.h>
#include <stdint.h>

/* One call: q, o (B, T, H, K), k, v (B, T, G, K), all dense bf16, lse (B, H, T). */
typedef struct SdpaShape {
    int64_t B, T, H, G, K;
    double scale;
    bool backward;
    bool deterministic; /* backward: the same bits every time; costs memory, see below */
    bool documents;     /* B documents of at most T tokens, one behind the other: q (rows, H, K),
                           k (rows, G, K), lse (rows, H); where each begins, and how long it is, is
                           told in device memory. None is empty */
} SdpaShape;

/* Device memory in bytes that a call on a GPU of compute capability `sm` (80, 90, 100, ..) needs
 * beside its tensors, at most a few KiB too much (with documents, a KiB each more); as measured
 * with cuDNN 9.19. On sm 80 and 90 the deterministic backward pass keeps T x T bf16 numbers a head
 * and sequence or document. With documents, dq's sums in any order are not counted: f32 of q's
 * size. */
int64_t sdpa_bytes(const SdpaShape *s, int sm);

/* Whether the library has kernels for such a call on every supported GPU. */
bool sdpa_takes(const SdpaShape *s);

/* Whether it has one on a GPU of this capability: with documents, a deterministic backward pass is
 * not on 8.x. */
bool sdpa_takes_on(const SdpaShape *s, int sm);

/* Most workspace that a call may take, by default, of a GPU with `memory` bytes: an eighth. */
int64_t sdpa_most(int64_t memory);

#endif
