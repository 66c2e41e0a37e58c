/* data/repeat.h - how much a document repeats itself: lines, and runs of words.
 *
 * After Rae et al. 2021 (Gopher, arXiv 2112.11446, table A1). A repeat is the second or a later
 * occurrence, so a share is what would go if everything were said once. Shares of characters are of
 * the characters of all lines, or of all words (no white space); a character in several repeats
 * counts once. Things are compared by 64-bit hash. A share of nothing is 0.
 */
#ifndef ISOMOE_DATA_REPEAT_H
#define ISOMOE_DATA_REPEAT_H

#include "data/doctext.h"

enum { REPEAT_WORDS_MAX = 16 };

/* Share of the lines that repeat an earlier one, or of the characters in such lines. */
int repeat_lines(DocText *t, double *share, Err *e);
int repeat_line_chars(DocText *t, double *share, Err *e);

/* Share of the characters inside occurrences (all of them) of the most common run of n words; of
 * equally common ones that with the most characters, of those the one that comes first. 0 if no run
 * comes twice. */
int repeat_top(DocText *t, int n, double *share, Err *e);

/* Share of the characters inside repeats of runs of n words. */
int repeat_runs(DocText *t, int n, double *share, Err *e);

#endif
