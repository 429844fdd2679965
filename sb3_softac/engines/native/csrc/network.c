// Forward and backward passes of a network, on rows of a batch.
#include <math.h>
#include <string.h>

#include "step.h"

static Matrix weight(const Layer* layer) {
    const Matrix in_first = matrix(layer->weight, layer->n_out);
    return layer->in_first ? in_first : transposed(matrix(layer->weight, layer->n_in));
}

static const Layer* heads(const Network* net) { return net->layers + net->n_hidden; }

int64_t n_outputs(const Network* net) {
    int64_t n = 0;
    for (int64_t i = 0; i < net->n_heads; i++) n += heads(net)[i].n_out;
    return n;
}

int64_t hidden_size(const Network* net) {
    int64_t n = 0;
    for (int64_t i = 0; i < net->n_hidden; i++) n += net->layers[i].n_out;
    return n;
}

// tanh to about 2e-7, in a form that compilers turn into vector instructions.
static inline float quick_tanh(float x) {
    const float size = fabsf(x) > 9.0f ? 9.0f : fabsf(x);  // NaN stays NaN
    // exp(2 |x|) = 2^n e^r
    const float magic = 12582912.0f;  // adding it rounds to an integer
    const float shifted = 2.885390082f * size + magic, n = shifted - magic;
    const float r = (2.0f * size - 0.693359375f * n) + 2.12194440e-4f * n;
    const float e_r_tail = 1.6666667e-1f + r * (4.1666668e-2f + r * (8.3333338e-3f + r * 1.3888889e-3f));
    const float e_r = 1.0f + r * (1.0f + r * (0.5f + r * e_r_tail));
    union {
        float value;
        uint32_t bits;
    } power = {.value = shifted};
    power.bits = (power.bits << 23) + 0x3f800000u;
    const float large = 1.0f - 2.0f / (e_r * power.value + 1.0f);
    const float square = size * size;
    const float series = -3.3333334e-1f + square * (1.3333334e-1f + square * (-5.3968254e-2f + square * 2.1869488e-2f));
    const float small = size * (1.0f + square * series);
    return copysignf(size < 0.25f ? small : large, x);
}

static void add_bias(float* values, const Layer* layer, int64_t rows, int64_t stride) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < layer->n_out; j++) values[r * stride + j] += layer->bias[j];
}

static void activate(float* values, const Layer* layer, int64_t rows, int64_t activation) {
    const int64_t n = layer->n_out;
    for (int64_t r = 0; r < rows; r++) {
        float* row = values + r * n;
        for (int64_t j = 0; j < n; j++) row[j] += layer->bias[j];
        if (activation == TANH)
            for (int64_t j = 0; j < n; j++) row[j] = quick_tanh(row[j]);
        else
            for (int64_t j = 0; j < n; j++) row[j] = row[j] < 0.0f ? 0.0f : row[j];  // NaN stays NaN
    }
}

void forward(const Network* net, const Rows* rows) {
    Matrix x = matrix(rows->x, rows->x_stride);
    float* hidden = rows->hidden;
    for (int64_t i = 0; i < net->n_hidden; i++) {
        const Layer* layer = net->layers + i;
        product(rows->rows, layer->n_out, layer->n_in, x, weight(layer), hidden, layer->n_out, 0);
        activate(hidden, layer, rows->rows, net->activation);
        x = matrix(hidden, layer->n_out);
        hidden += rows->capacity * layer->n_out;
    }
    const int64_t stride = n_outputs(net);
    float* out = rows->out;
    for (int64_t i = 0; i < net->n_heads; i++) {
        const Layer* head = heads(net) + i;
        product(rows->rows, head->n_out, head->n_in, x, weight(head), out, stride, 0);
        add_bias(out, head, rows->rows, stride);
        out += head->n_out;
    }
}

// Gradients of a layer's weight and bias, from those of its outputs `delta`.
static void layer_gradients(const Layer* layer, Matrix x, const float* delta, int64_t stride, int64_t rows, float* gradients) {
    const Matrix d = matrix(delta, stride);
    float *d_weight = gradients + layer->weight_gradient, *d_bias = gradients + layer->bias_gradient;
    if (layer->in_first)
        product(layer->n_in, layer->n_out, rows, transposed(x), d, d_weight, layer->n_out, 0);
    else
        product(layer->n_out, layer->n_in, rows, transposed(d), x, d_weight, layer->n_in, 0);
    memset(d_bias, 0, sizeof(float) * (size_t)layer->n_out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < layer->n_out; j++) d_bias[j] += delta[r * stride + j];
}

// Gradients before the activation, from those after it, in place.
static void deactivate(float* delta, const float* hidden, int64_t size, int64_t activation) {
    if (activation == TANH)
        for (int64_t i = 0; i < size; i++) delta[i] *= 1.0f - hidden[i] * hidden[i];
    else
        for (int64_t i = 0; i < size; i++) delta[i] = hidden[i] > 0.0f ? delta[i] : 0.0f;
}

void backward(const Network* net, const Rows* rows, const float* d_out, int64_t trained, float* gradients, float* scratch,
              int64_t first_input, float* d_input) {
    int64_t largest = 0;
    for (int64_t i = 0; i < net->n_hidden; i++) largest = net->layers[i].n_out > largest ? net->layers[i].n_out : largest;
    float *delta = scratch, *other = scratch + rows->rows * largest;
    const float* hidden = rows->hidden + rows->capacity * hidden_size(net);
    const int64_t d_stride = n_outputs(net), n_others = rows->rows - trained;

    for (int64_t i = net->n_hidden; i >= 0; i--) {
        // `x` is what this layer has read; its layers are all heads at once, or one hidden layer
        const int64_t n_layers = i == net->n_hidden ? net->n_heads : 1;
        const int64_t width = net->layers[i].n_in;
        if (i > 0) hidden -= rows->capacity * width;
        const Matrix x = i > 0 ? matrix(hidden, width) : matrix(rows->x, rows->x_stride);
        const float* d = i == net->n_hidden ? d_out : delta;
        const int64_t stride = i == net->n_hidden ? d_stride : net->layers[i].n_out;
        for (int64_t k = 0; k < n_layers; d += net->layers[i + k].n_out, k++) {
            const Layer* layer = net->layers + i + k;
            layer_gradients(layer, x, d, stride, trained, gradients);
            const Matrix w = transposed(weight(layer));
            if (i > 0)
                product(rows->rows, width, layer->n_out, matrix(d, stride), w, other, width, k > 0);
            else if (d_input)
                product(n_others, width - first_input, layer->n_out, from(matrix(d, stride), trained, 0),
                        from(w, 0, first_input), d_input, width - first_input, k > 0);
        }
        if (i > 0) {
            deactivate(other, hidden, rows->rows * width, net->activation);
            float* swap = delta;
            delta = other;
            other = swap;
        }
    }
}

// Whether no value is larger. As whole numbers, floats without their sign are in the same order, infinity and NaN at its end, and
// compilers put this into vectors; a sum of floats they do not.
static int within(const float* values, int64_t size, float bound) {
    int32_t outside = 0, limit;
    memcpy(&limit, &bound, sizeof limit);
    for (int64_t i = 0; i < size; i++) {
        int32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        outside |= (bits & 0x7fffffff) > limit;
    }
    return !outside;
}

int gradients_are_finite(const Network* net, const float* gradients, int64_t n_threads) {
    const float bound = 1e19f / (float)n_threads;  // the square of what is larger is infinite, as are the moments of Adam
    for (int64_t i = 0; i < net->n_hidden + net->n_heads; i++) {
        const Layer* layer = net->layers + i;
        if (!within(gradients + layer->weight_gradient, layer->n_in * layer->n_out, bound)) return 0;
        if (!within(gradients + layer->bias_gradient, layer->n_out, bound)) return 0;
    }
    return 1;
}
