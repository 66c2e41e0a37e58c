/* tests/ref/tol.h - THE tolerances: how far a result may be from the oracle, from type and size.
 *
 * The oracle computes in double from the exact values that the device sees, so the difference is
 * rounding by the implementation and nothing else. u = 2^-24 (f32), 2^-8 (bf16), 2^-53 (f64): the
 * largest relative error of one rounding to nearest.
 *
 * Per element, with mag = sum of the magnitudes of the terms, `terms` = roundings that a term goes
 * through, half = root of the sum of squares of the terms that are rounded to bf16 in between:
 *
 *   bound = acc + u_out (|want| + acc),   acc = terms u_acc mag + 3.2 u_bf16 half + floor
 *
 *  - terms u mag: a sum of n products in ANY order, f32, has error <= n u sum |a b| (Higham,
 *    Accuracy and Stability, section 3.1; its factor 1 + O(n u) is below 1.001 here). A worst case,
 *    no statistics.
 *  - u_out: the result is rounded once to its type, however it was accumulated.
 *  - half: n independent roundings to bf16, each within u t_i. For n <= 10 the worst case
 *    u sum |t_i| <= 3.2 u half; for more terms the error has deviation <= u half / sqrt 3, and 3.2
 *    is 5.5 deviations.
 *  - floor 2^-100: instructions that flush subnormals, exp's cut-off at e^-87.
 *
 * Per tensor, what the worst case of long sums lets through: rounding errors are independent and as
 * often up as down, so they grow with the root of their number:
 *
 *   rms(error) <= slack (u_out rms(want) + 2 sqrt(terms) u_acc rms(mag) + u_bf16 rms(half) + floor)
 *
 *  with slack = 1 + 3 / sqrt(rows): the root mean square of n draws exceeds its expectation by the
 *  factor 1 + 3 / sqrt(2 n) once in a thousand; elements of a row may share an error, so n is the
 *  number of rows. A missing or doubled term of n equal ones has the error rms(mag) / n, which is
 *  above 2 sqrt(n) u_acc rms(mag) for all n < 40000.
 *
 * The table of `terms`, one function a kind of operation, is below; TOL_C covers the few roundings
 * that every element has (products, scale, exp: 3.4 u by its polynomial, sigmoid, rsqrt, division).
 */
#ifndef ISOMOE_TESTS_REF_TOL_H
#define ISOMOE_TESTS_REF_TOL_H

#include <math.h>

#include "device/tensor.h"

enum { TOL_C = 16 };

/* In place of `terms`: the result is the expected number exactly (copies, sums rounded once). */
#define TOL_EXACT (-1.0)

/* Sum of n products (linear maps, column sums, combine, dispatch), one bias or start value. */
static inline double tol_dot(int64_t n) { return (double)n + 2; }

/* RMSNorm over `width` elements, forward and backward: one sum of squares, one of products. */
static inline double tol_norm(int64_t width) { return 2 * (double)width + TOL_C; }

/* Elementwise: SwiGLU, RoPE, AdamW. */
static inline double tol_pointwise(void) { return TOL_C; }

/* Softmax over n terms of scores that are dot products over k, then a sum over n: attention and
 * cross-entropy. mag has the factor 1 + A + |lse|, A = sum |q k| scale: exp turns an absolute error
 * of the score, (k + 2) u A + u |lse|, into a relative one. */
static inline double tol_softmax(int64_t n, int64_t k)
{
    return (double)n + (double)k + TOL_C;
}

/* Muon of an (A, B) matrix: fifteen products, each element a sum of at most k = max(A, B) terms,
 * whose errors later steps mix and stretch (the polynomial's slope stays below 4) or shrink. A
 * statistical bound: roundings grow with sqrt(k); mag counts an element with at least its matrix's
 * root mean square. Seen: up to a fifth of it, for 16 x 16 as for 150 x 70; a coefficient that is
 * wrong in its fourth decimal is far outside. */
static inline double tol_muon(int64_t A, int64_t B)
{
    return 15 * (4 + 2 * sqrt((double)(A > B ? A : B)));
}

/* Largest allowed |got - want| of one element. `out` is the type of the result; f64 results are
 * accumulated in f64, others in f32. */
double tol_element(DType out, double terms, double want, double mag, double half);

/* Largest allowed root mean square error from the root mean squares of want, mag and half. */
double tol_rms(DType out, double terms, const double rms[3], int64_t rows);

#endif
