// Tiles of c are summed in registers. Panels of b are copied first, so that a tile reads its part of b in one row.
#include "product.h"

#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, TILE = 12 };
#elif defined(__AVX2__)
enum { LANES = 8, TILE = 6 };
#else
enum { LANES = 4, TILE = 6 };
#endif
enum { WIDTH = 2 * LANES, DEPTH = 256 };

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));

// c[rows x columns] = or += a[rows x k] panel[k x WIDTH]. `rows` is a constant wherever it is called, so that the sums get
// registers.
static inline __attribute__((always_inline)) void tile(const int rows, int64_t k, Matrix a, const float* panel, float* c,
                                                       int64_t stride, int columns, int add) {
    Vector sums[TILE][2] = {{{0}}};
    for (int64_t p = 0; p < k; p++) {
        const Vector left = *(const Vector*)(panel + p * WIDTH), right = *(const Vector*)(panel + p * WIDTH + LANES);
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            const float x = a.data[i * a.row + p * a.column];
            sums[i][0] += x * left;
            sums[i][1] += x * right;
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
        float* out = c + i * stride;
        if (columns == WIDTH && !add) {
            *(Vector*)out = sums[i][0];
            *(Vector*)(out + LANES) = sums[i][1];
        } else {
            float sum[WIDTH];
            memcpy(sum, sums[i], sizeof(sum));
            for (int j = 0; j < columns; j++) out[j] = add ? out[j] + sum[j] : sum[j];
        }
    }
}

// The transpose of a block of four rows.
static inline void transpose_four(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
    const Four a = *(const Four*)in, b = *(const Four*)(in + in_stride), c = *(const Four*)(in + 2 * in_stride),
               d = *(const Four*)(in + 3 * in_stride);
    const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(Four*)out = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
    *(Four*)(out + out_stride) = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
    *(Four*)(out + 2 * out_stride) = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
    *(Four*)(out + 3 * out_stride) = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// panel[k x WIDTH] = b[k x columns], with zeros to the right of it.
static void copy_panel(int64_t k, Matrix b, int columns, float* panel) {
    if (columns < WIDTH) memset(panel, 0, sizeof(float) * (size_t)(k * WIDTH));
    int64_t p = 0;
    if (b.column == 1) {
        for (; p < k; p++) memcpy(panel + p * WIDTH, b.data + p * b.row, sizeof(float) * (size_t)columns);
    } else if (columns == WIDTH) {
        for (; p + 4 <= k; p += 4)
            for (int j = 0; j < WIDTH; j += 4) transpose_four(from(b, p, j).data, b.column, panel + p * WIDTH + j, WIDTH);
    }
    for (; p < k; p++)
        for (int j = 0; j < columns; j++) panel[p * WIDTH + j] = *from(b, p, j).data;
}

// c[m] = or += a[m x k] b[k]: what a tile would do for a whole panel of columns.
static void product_with_vector(int64_t m, int64_t k, Matrix a, const float* b, int64_t step, float* c, int64_t stride,
                                int add) {
    for (int64_t i = 0; i < m && !add; i++) c[i * stride] = 0.0f;
    if (a.column == 1 && step == 1) {
        for (int64_t i = 0; i < m; i++) {
            const float* row = a.data + i * a.row;
            float sums[WIDTH] = {0}, sum = 0.0f;
            int64_t p = 0;
            for (; p + WIDTH <= k; p += WIDTH)
                for (int j = 0; j < WIDTH; j++) sums[j] += row[p + j] * b[p + j];
            for (int j = 0; j < WIDTH; j++) sum += sums[j];
            for (; p < k; p++) sum += row[p] * b[p];
            c[i * stride] += sum;
        }
    } else {
        for (int64_t p = 0; p < k; p++)
            for (int64_t i = 0; i < m; i++) c[i * stride] += *from(a, i, p).data * b[p * step];
    }
}

void product(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b, float* c, int64_t stride, int add) {
    if (n == 1) {
        product_with_vector(m, k, a, b.data, b.row, c, stride, add);
        return;
    }
    if (m == 1) {
        product_with_vector(n, k, transposed(b), a.data, a.column, c, 1, add);
        return;
    }
    float panel[DEPTH * WIDTH] __attribute__((aligned(64)));
    for (int64_t p = 0; p < k; p += DEPTH, add = 1) {
        const int64_t depth = k - p < DEPTH ? k - p : DEPTH;
        for (int64_t j = 0; j < n; j += WIDTH) {
            const int columns = (int)(n - j < WIDTH ? n - j : WIDTH);
            copy_panel(depth, from(b, p, j), columns, panel);
            int64_t i = 0;
            for (; i + TILE <= m; i += TILE) tile(TILE, depth, from(a, i, p), panel, c + i * stride + j, stride, columns, add);
            for (; i + 2 <= m; i += 2) tile(2, depth, from(a, i, p), panel, c + i * stride + j, stride, columns, add);
            for (; i < m; i++) tile(1, depth, from(a, i, p), panel, c + i * stride + j, stride, columns, add);
        }
    }
}
