/* train/published_answer.h - what `isomoe fit --published` answers: a published law's best N and D
 * for a budget, without any run. */
#ifndef ISOMOE_TRAIN_PUBLISHED_ANSWER_H
#define ISOMOE_TRAIN_PUBLISHED_ANSWER_H

#include <jansson.h>
#include <stdio.h>

#include "scaling/published.h"

/* budget: FLOPs, above 0. New reference. */
json_t *published_answer_json(const PublishedLaw *p, double budget);

void published_answer_print(const PublishedLaw *p, double budget, FILE *out);

#endif
