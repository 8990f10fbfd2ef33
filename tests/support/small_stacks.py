"""Small chains of Dense layers in float64, linearised, for the tests of solvers that work layer by layer."""

import itertools

import numpy as np
import tensorflow as tf

from ngrl.curvature import DenseStack, GaussNewton

RNG = np.random.default_rng


def network(sizes=(3, 4, 2), free=0, seed=0, activation="tanh"):
    rng = RNG(seed)
    layers = []
    for number, (height, width) in enumerate(itertools.pairwise(sizes)):
        last = number == len(sizes) - 2
        layer = tf.keras.layers.Dense(width, None if last else activation, dtype="float64", use_bias=number != 1)
        layer.build([None, height])
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
        layers.append(layer)
    return DenseStack(layers, tf.Variable(rng.normal(size=free)) if free else None)


def linearised(stack, batch=5, metric=None, weights=None, seed=1, inputs=None):
    inputs = RNG(seed).normal(size=(batch, stack.variables[0].shape[0])) if inputs is None else inputs
    return GaussNewton(stack, stack.variables, inputs, metric, weights=weights)


def compiled(function, mode):
    return function if mode == "eager" else tf.function(function, jit_compile=mode == "xla")


def slices(variables):
    ends = np.cumsum([v.shape.num_elements() for v in variables])
    return [slice(end - v.shape.num_elements(), end) for end, v in zip(ends, variables, strict=True)]
