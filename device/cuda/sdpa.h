/* device/cuda/sdpa.h - attention by a library (cuDNN): scaled dot product attention of dense bf16
 * tensors, the whole causal square: query t sees the keys 0..t.
 *
 * A plan belongs to a shape. It is made on first use (the library compiles a kernel: seconds),
 * outside of the recording of a graph, and kept with the device until it ends. Where the library is
 * absent or refuses, sdpa_plan gives NULL and the caller has its own kernel. Built by sdpa.cu with
 * the library; under the emulator tests/simt/sim_sdpa.cc stands in for it.
 */
#ifndef ISOMOE_DEVICE_CUDA_SDPA_H
#define ISOMOE_DEVICE_CUDA_SDPA_H

#include "device/cuda/cuda.h"

extern "C" {
#include "device/sdpa_bytes.h"

typedef struct SdpaPlan SdpaPlan;

typedef enum SdpaMask { SDPA_CAUSAL } SdpaMask;

/* The plan of a shape, owned by the device; NULL where there is none. */
const SdpaPlan *sdpa_plan(Device *d, const SdpaShape *shape, SdpaMask mask);

/* Bytes of 256-byte aligned device memory that sdpa_fwd or sdpa_bwd needs. */
int64_t sdpa_workspace(const SdpaPlan *plan);

/* Contracts of dev_attention_fwd and dev_attention_bwd (g.dv is written, never added to); every
 * tensor starts on 16 bytes. `workspace`: as above. 0, or a code for the failure. */
int sdpa_fwd(Device *d, const SdpaPlan *plan, AttnTensors a, void *workspace);
int sdpa_bwd(Device *d, const SdpaPlan *plan, AttnGrad g, Tensor d_o, AttnTensors a,
             void *workspace);

/* Ends the device's plans and the library's handle. */
void sdpa_free(Device *d);

/* Whether the library and a handle of it are there. */
bool sdpa_usable(Device *d);

/* One line on what runs attention: "cuDNN 9.19.0", or why the library does not. */
const char *sdpa_about(Device *d);
}

#endif
