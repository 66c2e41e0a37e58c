/* train/prepare_filters.h - the filters of `isomoe prepare` on its command line, and the table of
 * what they took out. */
#ifndef ISOMOE_TRAIN_PREPARE_FILTERS_H
#define ISOMOE_TRAIN_PREPARE_FILTERS_H

#include "data/sieve.h"
#include "train/bits.h"
#include "train/command.h"

/* The options of the filters: they stand together in the command's row, PREPARE_FILTER_OPTIONS. */
enum {
    FILTER_OPT_MIN_BYTES, FILTER_OPT_MAX_BYTES, FILTER_OPT_MIN_CHARS, FILTER_OPT_MAX_CHARS,
    FILTER_OPT_MIN_WORDS, FILTER_OPT_MAX_WORDS, FILTER_OPT_SYMBOLS, FILTER_OPT_BULLETS,
    FILTER_OPT_ELLIPSES, FILTER_OPT_SCRIPTS, FILTER_OPT_SCRIPT_SHARE, FILTER_OPT_LINES,
    FILTER_OPT_LINE_CHARS, FILTER_OPT_TOP, FILTER_OPT_RUNS, FILTER_OPT_GOPHER,
    FILTER_OPT_BITS_MODEL, FILTER_OPT_BITS_DATA, FILTER_OPT_MIN_BITS, FILTER_OPT_MAX_BITS,
    FILTER_OPT_EXACT, FILTER_OPT_NEAR, FILTER_OPT_LIKENESS, FILTER_OPT_BANDS, FILTER_OPT_ROWS,
    FILTER_OPT_MEMORY, FILTER_OPT_REPORT, FILTER_OPT_DRY_RUN
};

#define PREPARE_FILTER_OPTIONS                                                                     \
    {"--min-bytes", OPTION_INT, NULL, "filter: keep documents of at least so many bytes"},         \
    {"--max-bytes", OPTION_INT, NULL, "... at most"},                                              \
    {"--min-chars", OPTION_INT, NULL, "filter: characters"},                                       \
    {"--max-chars", OPTION_INT, NULL, "... at most"},                                              \
    {"--min-words", OPTION_INT, NULL, "filter: words (a Han, kana or Thai letter is one)"},        \
    {"--max-words", OPTION_INT, NULL, "... at most"},                                              \
    {"--max-symbols", OPTION_FLOAT, NULL, "filter: share of no letters, digits, spaces"},          \
    {"--max-bullet-lines", OPTION_FLOAT, NULL, "filter: share of lines that begin with - * ..."},  \
    {"--max-ellipsis-lines", OPTION_FLOAT, NULL, "filter: share of lines that end with ..."},      \
    {"--scripts", OPTION_TEXT, NULL, "filter: letters in these, e.g. latin,greek,other"},          \
    {"--min-script-share", OPTION_FLOAT, NULL, "their share of all letters (default: 0.5)"},       \
    {"--max-dup-lines", OPTION_FLOAT, NULL, "filter: share of lines that were there before"},      \
    {"--max-dup-line-chars", OPTION_FLOAT, NULL, "filter: share of characters in such lines"},     \
    {"--max-top-words", OPTION_TEXT, NULL, "filter: in the commonest 2,3,4 words; X,X,X"},         \
    {"--max-dup-words", OPTION_TEXT, NULL, "filter: in repeated 5..10 words; six shares"},         \
    {"--gopher-repetition", OPTION_FLAG, NULL, "the last four at Gopher's limits where not given"},\
    {"--bpb-model", OPTION_TEXT, NULL, "filter: bits a byte under this run or checkpoint"},        \
    {"--bpb-data", OPTION_TEXT, NULL, "data folder with its tokenizer (default: the run's)"},      \
    {"--min-bpb", OPTION_FLOAT, NULL, "bits a byte, at least"},                                    \
    {"--max-bpb", OPTION_FLOAT, NULL, "bits a byte, at most"},                                     \
    {"--exact-duplicates", OPTION_FLAG, NULL, "filter: equal but for white space"},                \
    {"--near-duplicates", OPTION_FLAG, NULL, "filter: alike by MinHash of 5 words"},               \
    {"--near-likeness", OPTION_FLOAT, NULL, "estimated Jaccard index (default: 0.8)"},             \
    {"--near-bands", OPTION_INT, NULL, "bands of hashes (default: 16)"},                           \
    {"--near-rows", OPTION_INT, NULL, "hashes of a band (default: 8)"},                            \
    {"--dedup-memory", OPTION_INT, NULL, "MiB for finding duplicates (default: 4096)"},            \
    {"--filter-report", OPTION_TEXT, NULL, "a JSON line for each document taken out"},             \
    {"--dry-run-filters", OPTION_FLAG, NULL, "filter and count only; makes nothing"}

/* Reads the options, which begin at a's option `first`. *bits receives the model to close after
 * use, or NULL. Returns EXIT_DONE, or EXIT_MISUSE or EXIT_FAILED with e filled. */
int prepare_filters_read(const Arguments *a, int first, FilterOptions *out, Bits **bits, Err *e);

/* The table on stdout: filter, documents, bytes, share of the documents. */
void prepare_filters_print(const FilterOptions *o, const SieveResult *r);

#endif
