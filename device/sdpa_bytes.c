/* device/sdpa_bytes.c - see sdpa_bytes.h; the closed forms are held to the library's own numbers by
 * tests/cudnn. */
#include "device/sdpa_bytes.h"

#include "base/size.h"

enum { WIDEST = 128, MEMORY_SHARE = 8, DOCUMENTS_BYTES = 20 << 10, DOCUMENT_BYTES = 1 << 10 };

bool sdpa_takes(const SdpaShape *s)
{
    return s->B >= 1 && s->T >= 2 && s->G >= 1 && s->H % s->G == 0 && s->K >= 8 && s->K % 8 == 0 &&
           s->K <= WIDEST;
}

bool sdpa_takes_on(const SdpaShape *s, int sm)
{
    return sdpa_takes(s) && !(s->documents && s->backward && s->deterministic && sm < 90);
}

int64_t sdpa_most(int64_t memory) { return memory / MEMORY_SHARE; }

int64_t sdpa_bytes(const SdpaShape *s, int sm)
{
    /* counters of the library; with documents, tables of them */
    const int64_t extra = 512 + (s->documents ? DOCUMENTS_BYTES + s->B * DOCUMENT_BYTES : 0);
    if (!s->backward) return extra;
    bool native = sm >= 90 && sm < 120, grouped = s->H != s->G;
    int64_t pairs = s->B * s->H, heads = pairs * s->T * s->K * 2;
    int64_t dots = size_round_up(pairs * s->T * 4, 256); /* rowsum(do o) */
    if (sm >= 100 && native && s->deterministic)
        return extra + 2 * dots + (grouped ? 4 * heads : 0);
    int64_t bytes = extra + dots + (grouped ? 2 * heads : 0); /* dk, dv of every query head */
    if (s->deterministic)
        return bytes + pairs * size_round_up(s->T, native ? 128 : 64) * size_round_up(s->T, 64) * 2;
    if (!s->documents) bytes += 2 * heads; /* dq in f32, which adds up atomically */
    if (sm == 90) return bytes;
    /* the engine of sm 80, which 100 also may choose, has one more, of whole tiles of 8 tokens */
    return bytes + pairs * size_round_up(s->T, 8) * s->K * 4;
}
