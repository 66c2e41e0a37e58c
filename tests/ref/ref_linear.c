/* tests/ref/ref_linear.c - linear maps, experts, embedding; see ref.h. */
#include "tests/ref/ref.h"

void ref_linear_fwd(const RefLinear *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t o = 0; o < a->O; o++) {
            double sum = a->bias ? a->bias[o] : 0;
            for (int64_t i = 0; i < a->I; i++) sum += a->x[n * a->I + i] * a->w[o * a->I + i];
            a->y[n * a->O + o] = sum;
        }
}

/* dx = dy w; dw = dy^T x; dbias = column sums of dy. */
void ref_linear_bwd(const RefLinear *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t o = 0; o < a->O; o++) {
            double dy = a->dy[n * a->O + o];
            if (a->dbias) a->dbias[o] += dy;
            for (int64_t i = 0; a->dx && i < a->I; i++)
                a->dx[n * a->I + i] += dy * a->w[o * a->I + i];
            for (int64_t i = 0; a->dw && i < a->I; i++)
                a->dw[o * a->I + i] += dy * a->x[n * a->I + i];
        }
}

/* The rows and the matrix of one expert as a linear map. */
static RefLinear one_expert(const RefExpert *a, int64_t e)
{
    int64_t begin = a->row_begin[e], I = a->I, O = a->O;
    return (RefLinear){.N = a->row_begin[e + 1] - begin,
                       .O = O,
                       .I = I,
                       .x = a->x ? a->x + begin * I : NULL,
                       .w = a->w ? a->w + e * O * I : NULL,
                       .y = a->y ? a->y + begin * O : NULL,
                       .dy = a->dy ? a->dy + begin * O : NULL,
                       .dx = a->dx ? a->dx + begin * I : NULL,
                       .dw = a->dw ? a->dw + e * O * I : NULL};
}

void ref_expert_fwd(const RefExpert *a)
{
    for (int64_t e = 0; e < a->E; e++) {
        RefLinear one = one_expert(a, e);
        ref_linear_fwd(&one);
    }
}

void ref_expert_bwd(const RefExpert *a)
{
    for (int64_t e = 0; e < a->E; e++) {
        RefLinear one = one_expert(a, e);
        ref_linear_bwd(&one);
    }
}

void ref_embed_fwd(const RefEmbed *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t i = 0; i < a->D; i++) a->x[n * a->D + i] = a->w[a->tokens[n] * a->D + i];
}

/* dw[token n] = sum of dx[n] over the places of the token. */
void ref_embed_bwd(const RefEmbed *a)
{
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t i = 0; i < a->D; i++) a->dw[a->tokens[n] * a->D + i] += a->dx[n * a->D + i];
}
