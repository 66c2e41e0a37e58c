/* optim/expert_rate.h - expert-specific learning rates (Hunyuan-Large, arXiv 2411.02265, 2.2.4).
 *
 * AdamW's best rate at batch B is e(B) = 2 e_max / (sqrt(B_noise/B) + sqrt(B/B_noise)) (Li et al.
 * 2024). A specialized expert sees a batch of B/n, n = E/k, so its best rate is e(B/n). */
#ifndef ISOMOE_OPTIM_EXPERT_RATE_H
#define ISOMOE_OPTIM_EXPERT_RATE_H

/* e(B/n) / e(B) = sqrt(n) (1 + x) / (n + x), x = B / B_noise > 0. */
double expert_rate_ratio(double n, double x);

#endif
