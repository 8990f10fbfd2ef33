"""Networks and references for the tests of `ngrl.curvature`; the references use no ngrl and no tape."""

import ngrl  # noqa: F401, I001  (selects Keras 2 before TensorFlow is imported)
import numpy as np
import pytest
import tensorflow as tf

MODES = {
    "eager": lambda function: function,
    "graph": tf.function,
    "xla": lambda function: tf.function(function, jit_compile=True),
}


@pytest.fixture(params=list(MODES))
def run(request):
    """A function that compiles its argument: not at all, as a graph, with XLA."""
    return MODES[request.param]


@pytest.fixture(scope="session")
def modes():
    """What compiles a function, by name."""
    return MODES


@pytest.fixture(scope="session")
def rng():
    return np.random.default_rng(7)


def build_mlp(sizes, activation="tanh", use_bias=True, dtype="float64", seed=0):
    """A `tf.keras.Sequential` of Dense layers, the last one linear, with random weights and biases."""
    layers = [
        tf.keras.layers.Dense(size, activation if index < len(sizes) - 2 else None, use_bias=use_bias, dtype=dtype)
        for index, size in enumerate(sizes[1:])
    ]
    model = tf.keras.Sequential([tf.keras.layers.InputLayer([sizes[0]], dtype=dtype), *layers])
    draw = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(draw.normal(0.0, 0.7, variable.shape))
    return model


@pytest.fixture(scope="session")
def mlp():
    return build_mlp


def complex_step_jacobian(weights, inputs):
    """J [B, K, P] of a tanh MLP, column by column: imag(y(θ + ih e_p)) / h is exact to rounding for a tiny h.

    Args:
      weights: kernel, bias, kernel, bias, ... as numpy arrays.
      inputs: [B, D].
    """
    theta = np.concatenate([w.ravel() for w in weights])
    step = 1e-30
    columns = []
    for p in range(theta.size):
        shifted = theta.astype(complex)
        shifted[p] += 1j * step
        a, start = inputs.astype(complex), 0
        for index in range(0, len(weights), 2):
            rows, cols = weights[index].shape
            kernel = shifted[start : start + rows * cols].reshape(rows, cols)
            bias = shifted[start + rows * cols : start + rows * cols + cols]
            start += (rows + 1) * cols
            a = a @ kernel + bias
            if index < len(weights) - 2:
                a = np.tanh(a)
        columns.append(a.imag / step)
    return np.stack(columns, axis=-1)


@pytest.fixture(scope="session")
def reference_jacobian():
    return complex_step_jacobian


@pytest.fixture(scope="session")
def batch_jacobian():
    """J [B, K, P] of any network by reverse mode, one output of the whole batch after another."""

    def jacobian(forward, variables, inputs):
        with tf.GradientTape(persistent=True) as tape:
            outputs = forward(inputs)
        parts = tape.jacobian(
            outputs,
            variables,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
            experimental_use_pfor=False,
        )
        shape = [*outputs.shape, -1]
        return np.concatenate([tf.reshape(tf.convert_to_tensor(part), shape).numpy() for part in parts], axis=-1)

    return jacobian


@pytest.fixture(scope="session")
def dense_gauss_newton():
    """F = (1/Σw) Σ_i w_i J_iᵀ M_i J_i in numpy, from J [B, K, P], M [B, K, K] and w [B]."""

    def gauss_newton(jacobian, metric, weights=None):
        weights = np.ones(len(jacobian)) if weights is None else np.asarray(weights)
        total = np.einsum("b,bkp,bkl,blq->pq", weights, jacobian, metric, jacobian)
        return total / weights.sum()

    return gauss_newton
