/* data/spm_model.h - reads and checks a SentencePiece model file before the library may see it.
 *
 * The file is a protobuf message (wire format, a dozen fields of which matter here). The library
 * aborts the process on some broken models and reads out of bounds on others, so everything that it
 * relies on is checked first, with our own reader.
 */
#ifndef ISOMOE_DATA_SPM_MODEL_H
#define ISOMOE_DATA_SPM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Kinds of pieces and models, with the numbers of the file format. */
enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
enum { SPM_UNIGRAM = 1, SPM_BPE = 2 };
enum { SPM_PIECE_MAX = 1024, SPM_COUNT_MAX = 1 << 20 }; /* bytes of a piece; pieces */

typedef struct SpmPiece {
    const char *text; /* in the file's bytes, not zero-terminated */
    int size;
    int type; /* PIECE_* */
    int byte; /* PIECE_BYTE: the byte it stands for */
    float score;
} SpmPiece;

typedef struct SpmModel {
    SpmPiece *pieces; /* (count) owned; the texts are not */
    int count;
    int model_type; /* SPM_* */
    int bos, eos;   /* ids of control pieces */
    bool byte_fallback, dummy_prefix, squeeze_spaces, escape_spaces;
    size_t charsmap_size; /* bytes of compiled normalisation rules; 0: identity */
    int byte_id[256];
} SpmModel;

/* Parses and checks; `path` stands in messages. What passes: BPE or unigram, identity
 * normalisation, no dummy prefix, no squeezing of spaces, spaces written as U+2581, all 256 byte
 * pieces, one unknown piece, BOS and EOS as control pieces, texts valid UTF-8 without zero bytes,
 * finite scores. */
int spm_model_read(SpmModel *model, const char *bytes, size_t size, const char *path, Err *e);

void spm_model_free(SpmModel *model);

#endif
