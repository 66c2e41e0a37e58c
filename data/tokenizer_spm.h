/* data/tokenizer_spm.h - the SentencePiece library behind a C interface (tokenizer_spm.cc).
 *
 * Nothing here is safe against a hostile model: spm_model.h checks the bytes before spm_load sees
 * them. No C++ exception leaves these functions. Reasons are written as zero-terminated text.
 */
#ifndef ISOMOE_DATA_TOKENIZER_SPM_H
#define ISOMOE_DATA_TOKENIZER_SPM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SPM_WHY = 512 }; /* bytes of a reason */

typedef struct Spm Spm;

/* Loads a serialized model; NULL with a reason on failure. */
Spm *spm_load(const char *bytes, size_t size, char why[SPM_WHY]);
void spm_free(Spm *spm);

int spm_count(const Spm *spm); /* pieces */
const char *spm_piece(const Spm *spm, int id, size_t *size);

/* Encodes text; returns the number of ids and writes them if they fit in `capacity`, else only
 * returns the number. -1 on failure. Any number of threads may call it at once. */
int64_t spm_encode(const Spm *spm, const char *text, size_t size, int32_t *ids, int64_t capacity);

/* One sentence a call, valid until the next call; 0 when there are no more. */
typedef int (*SpmNextSentence)(void *context, const char **text, size_t *size);

/* Trains a BPE model of at most vocab_size pieces; *bytes is fresh (the caller frees it).
 * Sentences must be shorter than 32768 characters. -1 with a reason on failure. */
int spm_train(int vocab_size, SpmNextSentence next, void *context, char **bytes, size_t *size,
              char why[SPM_WHY]);

#ifdef __cplusplus
}
#endif

#endif
