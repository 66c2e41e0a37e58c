/* train/sweep_answer.h - what a study says when it has ended: the model to train, why a least loss
 * is not bracketed, and the report. */
#ifndef ISOMOE_TRAIN_SWEEP_ANSWER_H
#define ISOMOE_TRAIN_SWEEP_ANSWER_H

#include "train/sweep_run.h"

#define SWEEP_ANSWER_KEY "answer"  /* of the ledger's note, JSON: docs/FORMATS.md */
#define SWEEP_ANSWER_BEYOND 10.0   /* over the largest budget, where sweep.held_out is 0 */

/* Where r->ended: fits the done points, chooses the family's best model for the budget, keeps it
 * and the brackets in the ledger, writes the report into the sweep's folder and prints the answer.
 * What is refused is said in one line and is no error of the study: the exit code stays `code`,
 * but where stdout fails. */
int sweep_answer(const SweepRun *r, int code, Err *e);

#endif
