/* train/run_data.h - what a run's configuration says about its data: sources and their shares, and
 * how they are opened. */
#ifndef ISOMOE_TRAIN_RUN_DATA_H
#define ISOMOE_TRAIN_RUN_DATA_H

#include "data/loader.h"
#include "train/run_config.h"

/* Checks data.train, data.sources and data.dynamic together. */
int run_data_check(const RunConfig *c, RunCheck k);

/* How to open the data of a split, "train" or "val"; paths are borrowed from c. Held-out text of
 * several sources is a mixture with the weights of data.sources, whatever the weights in force, so
 * that its losses can be compared; sources of weight 0 have no part in it. */
LoaderOptions run_data_options(const RunConfig *c, const char *split);

/* Number of sources, at least 1, and the name of one ("train" for data.train alone). */
int run_data_sources(const RunConfig *c);
const char *run_data_name(const RunConfig *c, int s);

/* The path of the split's data, or of its first source: for messages and for the tokenizer. */
const char *run_data_path(const RunConfig *c, const char *split);

/* Shares by source from a text "web=0.5 code=0.5"; a source that it does not name gets 0. key: in
 * messages. */
int run_data_weights(const RunConfig *c, const char *text, const char *key, RunCheck k,
                     double weight[LOADER_MAX_SOURCES]);

#endif
