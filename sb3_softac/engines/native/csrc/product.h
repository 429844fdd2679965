// Matrix products of small float32 matrices, on one thread.
#ifndef SB3_SOFTAC_PRODUCT_H
#define SB3_SOFTAC_PRODUCT_H

#include <stdint.h>

// A matrix whose element (i, j) is data[i * row + j * column]; one of the two strides is 1.
typedef struct {
    const float* data;
    int64_t row, column;
} Matrix;

static inline Matrix matrix(const float* data, int64_t row) { return (Matrix){data, row, 1}; }
static inline Matrix transposed(Matrix m) { return (Matrix){m.data, m.column, m.row}; }
static inline Matrix from(Matrix m, int64_t i, int64_t j) {
    return (Matrix){m.data + i * m.row + j * m.column, m.row, m.column};
}

// c[m x n] = a[m x k] b[k x n], or c += a b if `add`. Rows of c lie `stride` elements apart.
void product(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride, int add);

#endif
