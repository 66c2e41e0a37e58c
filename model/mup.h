/* model/mup.h - initialisation and rates by parameter row: what a parameter starts from, and how
 * both follow the width (muP: Yang et al. 2022, "Tensor Programs V", table 8, for Adam). The
 * reasons, for the router and for Muon too: docs/MATH.md, "Initialisation and width".
 *
 * With m = d_model / mup_base_width (all widths, of heads and experts too, grow with d_model):
 *   attention, shared and specialized experts   init std / sqrt(m), rate / m
 *   router                                      init std / m, rate / m
 *   embedding, head, norms, biases              as they are
 *   logits of the vocabulary                    / m
 *   attention scores                            sqrt(K0) / K for base heads of width K0
 */
#ifndef ISOMOE_MODEL_MUP_H
#define ISOMOE_MODEL_MUP_H

#include "model/params.h"

/* m; 1 when the transfer is off. */
double model_width_ratio(const ModelConfig *c);

double model_logit_scale(const ModelConfig *c);     /* 1 / m */
double model_attention_scale(const ModelConfig *c); /* 1 / sqrt(K), or as above */

/* Multiplies logits in host memory by model_logit_scale; the loss does it on the device. */
void model_scale_logits(const ModelConfig *c, float *logits, int64_t count);

/* Standard deviation of the matrices that write into the residual, before the width's factor. */
double model_residual_std(const ModelConfig *c);

/* Sets init_std, init_cut and lr_scale of all rows, whose init_std is the base's. */
void params_set_init(ParamTable *table, const ModelConfig *c);

/* Factor on Muon's rate where AdamW's is lr_scale: its root. */
double params_muon_scale(const ParamRow *row);

#endif
