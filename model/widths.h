/* model/widths.h - experts of own widths (HMoE, arXiv 2408.10681): from `model.expert_widths` to
 * one width an expert. */
#ifndef ISOMOE_MODEL_WIDTHS_H
#define ISOMOE_MODEL_WIDTHS_H

#include <stdint.h>

#include "base/err.h"

/* Widths of E experts from text: a profile's name, which shares out E * mean exactly, or a list of
 * E integers with blanks between, whose mean must be an integer, and *mean if that is not 0 (else
 * it is set). Profiles, relative widths:
 *   arithmetic  linear from 9 to 23 (8 experts: 9 11 13 .. 23)
 *   geometric   1 2 4 8 ..
 *   hybrid      half of the experts 1, a quarter 2, a quarter 4
 * Shares are rounded by largest remainder to multiples of 8 if the total is one and nobody gets 0,
 * else to integers; ties: the lower expert. Fails with the reason alone, without key and place. */
int widths_resolve(const char *text, int64_t E, int64_t *mean, int32_t *widths, Err *e);

#endif
