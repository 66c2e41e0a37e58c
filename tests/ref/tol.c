/* tests/ref/tol.c - see tol.h. */
#include "tests/ref/tol.h"

#include <math.h>

#define U_F32 0x1p-24
#define U_BF16 0x1p-8
#define U_F64 0x1p-53
#define FLOOR 0x1p-100

static double unit(DType type)
{
    return type == DT_F64 ? U_F64 : type == DT_BF16 ? U_BF16 : type == DT_F32 ? U_F32 : 0;
}

static double accumulation(DType out) { return out == DT_F64 ? U_F64 : U_F32; }

double tol_element(DType out, double terms, double want, double mag, double half)
{
    if (out == DT_I32 || terms < 0) return 0;
    double acc = terms * accumulation(out) * mag + 3.2 * U_BF16 * half + FLOOR;
    return acc + unit(out) * (fabs(want) + acc);
}

double tol_rms(DType out, double terms, const double rms[3], int64_t rows)
{
    if (out == DT_I32 || terms < 0) return 0;
    double slack = 1 + 3 / sqrt(rows > 0 ? (double)rows : 1);
    return slack * (unit(out) * rms[0] + 2 * sqrt(terms) * accumulation(out) * rms[1] +
                    U_BF16 * rms[2] + FLOOR);
}
