"""Keras counterparts of `numpy_network` in float64, and a small classifier in float32."""

import numpy as np
import tensorflow as tf
from numpy_network import SIZES, one_hot, split, start

from ngrl import optimizers, solvers
from ngrl.keras import NaturalGradientModel

ACTIVATION = {
    "binary_crossentropy": "sigmoid",
    "categorical_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
}


def build(num_outputs, activation=None, *, own_layer=False, is_chain=True, theta=None, **options):
    """The model of `numpy_network`, with an activation in its last layer or in a layer of its own."""
    layers = tf.keras.layers
    inputs = tf.keras.Input([SIZES[0]], dtype="float64")
    hidden = layers.Dense(SIZES[1], "tanh", dtype="float64", **options)(inputs)
    if not is_chain:
        hidden = layers.Add(dtype="float64")([hidden, layers.Multiply(dtype="float64")([hidden, hidden])])
    outputs = layers.Dense(num_outputs, None if own_layer else activation, dtype="float64")(hidden)
    if own_layer:
        outputs = layers.Activation(activation, dtype="float64")(outputs)
    model = NaturalGradientModel(inputs, outputs)
    model.set_weights(split(start(num_outputs) if theta is None else theta, num_outputs))
    return model


def exact(learning_rate=0.5, damping=0.1, solver=None, **settings):
    """The optimizer, solving to rounding error."""
    solver = solvers.Dual(solver=solvers.Cholesky()) if solver is None else solver
    return optimizers.NaturalGradient(learning_rate, solver, damping, **settings)


def data(loss, num_outputs, batch=(4, 4, 3), seed=1):
    """Batches of x, Keras' targets y, targets t [B, K], and weights with a 0 among them."""
    draw = np.random.default_rng(seed)
    batches = []
    for size in batch:
        x, w = draw.normal(size=(size, SIZES[0])), draw.uniform(0.2, 2.0, size)
        w[1] = 0.0
        if loss == "mse":
            y = t = draw.normal(size=(size, num_outputs))
        elif loss == "binary_crossentropy":
            y = t = draw.integers(0, 2, (size, num_outputs)).astype(float)
        else:
            labels = draw.integers(0, num_outputs, size)
            t = one_hot(labels, num_outputs)
            y = labels if loss.startswith("sparse") else t
        batches.append((x, y, t, w))
    return batches


def dataset(batches, weighted=True):
    """(x, y, w) of these batches in their order, of unknown batch size as in `fit` on arrays."""
    parts = [(x, y, w) if weighted else (x, y) for x, y, _, w in batches]
    specs = tuple(tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in parts[0])
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=specs)


def flat(model):
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def points(size=20, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(size, 3)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.float32)


def classifier(seed=0):
    tf.keras.utils.set_random_seed(seed)
    inputs = tf.keras.Input([3])
    hidden = tf.keras.layers.Dense(6, "tanh")(inputs)
    return NaturalGradientModel(inputs, tf.keras.layers.Dense(1, "sigmoid")(hidden))
