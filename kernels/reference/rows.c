/* Row operations by their textbook formulas. */
#include "kernels/reference/rows.h"

#include <math.h>

void trm_reference_softmax(double *y, const double *x, size_t n, size_t step, trm_op op)
{
    double max = -INFINITY, sum = 0;
    size_t best = 0;

    for (size_t i = 0; i < n; i++) {
        if (x[i * step] > x[best * step])
            best = i;
        if (x[i * step] > max || isnan(x[i * step]))
            max = x[i * step];
    }
    for (size_t i = 0; i < n; i++)
        sum += exp(x[i * step] - max);
    for (size_t i = 0; i < n; i++) {
        double v = x[i * step] - max;

        if (op == TRM_OP_Hardmax)
            y[i * step] = i == best ? 1 : 0;
        else
            y[i * step] = op == TRM_OP_LogSoftmax ? v - log(sum) : exp(v) / sum;
    }
}

void trm_reference_normalise(double *y, const double *x, size_t n, bool centre, double epsilon,
                             double *mean_out, double *inverse_out)
{
    double mean = 0, variance = 0, inverse;

    for (size_t i = 0; i < n && centre; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    inverse = 1 / sqrt(variance + epsilon);
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * inverse;
    *mean_out = mean;
    *inverse_out = inverse;
}
