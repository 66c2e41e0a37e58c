/* train/domains.h - held-out text of one or more domains: how well a model predicts each, with
 * intervals, and how it routes their tokens. */
#ifndef ISOMOE_TRAIN_DOMAINS_H
#define ISOMOE_TRAIN_DOMAINS_H

#include "train/heldout.h"
#include "train/interval.h"
#include "train/open_run.h"
#include "train/routing_stats.h"

enum { DOMAINS_MAX = 64 };

typedef struct Domain {
    char name[ROUTING_NAME];
    const char *path; /* prepared folder, borrowed */
    Loader *loader;   /* of its val shards, in file order */
    int64_t sequences; /* to be measured */
    HeldOut result;
    Interval loss, bits_per_byte; /* 95 %, by resampling whole sequences with a fixed seed */
} Domain;

typedef struct Domains {
    Domain domain[DOMAINS_MAX];
    int count;
    Tokenizer *tokenizer;
    FILE *text;           /* receives all text in order; or NULL */
    RoutingSums *routing; /* (count), or NULL: not asked for */
    HeldOut all;          /* sums over the domains: bits per byte weighted by bytes */
    double mean_bits;     /* bits per byte, mean over the domains */
} Domains;

/* Adds a domain from "NAME=PATH" or "PATH" (then the name is the path's last part); a name is
 * letters, digits and . _ - */
int domains_add(Domains *d, const char *text, Err *e);

/* The same of a name and a path, both given; the path is borrowed. */
int domains_add_named(Domains *d, const char *name, const char *path, Err *e);

/* Opens loaders and the tokenizer, which must be one and that of the run; chooses the sequences:
 * `asked` of each, 0: all there are, and never more. */
int domains_open(Domains *d, const OpenRun *run, int64_t asked, Err *e);

/* Measures all; the run's model is open. routing: with routing statistics. */
int domains_measure(Domains *d, OpenRun *run, bool routing, Err *e);

int64_t domains_longest(const Domains *d); /* most sequences of a domain */
void domains_close(Domains *d);

/* A list of what was measured, one object a domain; new reference, or NULL. */
json_t *domains_json(const Domains *d);
void domains_print(const Domains *d, FILE *out);

#endif
