"""PRONG as a solver against PRONG as published: gradient descent on whitened weights, projected anew now and then."""

import numpy as np
import pytest
import tensorflow as tf

from ngrl.curvature import DenseStack, GaussNewton
from ngrl.optimizers import NaturalGradient
from ngrl.solvers import Kfac

RATE, EPSILON, PERIOD = 2**-4, 2**-3, 2  # exact in float32, as Keras keeps a rate
RNG = np.random.default_rng


class WhitenedNetwork:
    """Algorithm 1 of Desjardins et al. (2015) in NumPy: z = (a - c) U V + d, V and d follow plain gradients."""

    def __init__(self, weights):
        self.layers = [
            {"V": kernel, "d": bias, "U": np.eye(len(kernel)), "c": np.zeros(len(kernel))} for kernel, bias in weights
        ]
        self.means, self.moments = [0.0] * len(self.layers), [0.0] * len(self.layers)

    def forward(self, x):
        inputs = []
        for number, layer in enumerate(self.layers):
            inputs.append(x)
            x = (x - layer["c"]) @ layer["U"] @ layer["V"] + layer["d"]
            x = np.tanh(x) if number < len(self.layers) - 1 else x
        return x, inputs

    def average(self, inputs, count, decay):
        keep = min(1 - 1 / count, decay)
        for number, a in enumerate(inputs):
            self.means[number] = keep * self.means[number] + (1 - keep) * a.mean(axis=0)
            self.moments[number] = keep * self.moments[number] + (1 - keep) * a.T @ a / len(a)

    def project(self):
        """New c and U; V and d become what leaves the function as it was."""
        for layer, mean, moment in zip(self.layers, self.means, self.moments, strict=True):
            kernel = layer["U"] @ layer["V"]
            bias = layer["d"] - layer["c"] @ kernel
            values, vectors = np.linalg.eigh(moment - np.outer(mean, mean) + EPSILON * np.eye(len(mean)))
            layer["U"] = vectors / np.sqrt(values)
            layer["c"] = mean
            layer["V"] = np.linalg.solve(layer["U"], kernel)
            layer["d"] = bias + mean @ kernel

    def descend(self, pull, inputs):
        """A plain gradient step, `pull` [B, K] the loss's derivatives by the outputs."""
        g = pull
        for number in reversed(range(len(self.layers))):
            layer, a = self.layers[number], inputs[number]
            below = g @ (layer["U"] @ layer["V"]).T * (1 - a**2)
            layer["V"] = layer["V"] - RATE * ((a - layer["c"]) @ layer["U"]).T @ g
            layer["d"] = layer["d"] - RATE * g.sum(axis=0)
            g = below

    def canonical(self):
        kernels = [layer["U"] @ layer["V"] for layer in self.layers]
        biases = [layer["d"] - layer["c"] @ kernel for layer, kernel in zip(self.layers, kernels, strict=True)]
        return np.concatenate([w.ravel() for pair in zip(kernels, biases, strict=True) for w in pair])


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_steps_are_those_of_the_whitened_network_and_projection_changes_no_function(jit_compile):
    rng, layers = RNG(0), []
    for height, width, activation in ((3, 4, "tanh"), (4, 2, None)):
        layers.append(tf.keras.layers.Dense(width, activation, dtype="float64"))
        layers[-1].build([None, height])
        layers[-1].set_weights([rng.normal(size=w.shape) for w in layers[-1].get_weights()])
    whitened = WhitenedNetwork([[w.copy() for w in layer.get_weights()] for layer in layers])
    stack = DenseStack(layers)
    solver = Kfac(inverse="prong", decay=0.8, period=PERIOD)
    optimizer = NaturalGradient(RATE, solver=solver, damping=EPSILON)
    optimizer.build(list(stack.variables))

    @tf.function(jit_compile=jit_compile)
    def step(x, target):
        operator = GaussNewton(stack, stack.variables, x)
        optimizer.apply_output_gradient((operator.outputs - target) / 6, operator)

    for number in range(5):
        x, target = rng.normal(size=(6, 3)) + 2, rng.normal(size=(6, 2))
        outputs, inputs = whitened.forward(x)
        whitened.average(inputs, number + 1, 0.8)
        if number % PERIOD == 0:
            whitened.project()
            np.testing.assert_allclose(whitened.forward(x)[0], outputs, atol=1e-6)
            # What the layers see is centred and white, on the running averages.
            u, c = whitened.layers[0]["U"], whitened.means[0]
            covariance = whitened.moments[0] - np.outer(c, c) + EPSILON * np.eye(3)
            np.testing.assert_allclose(u.T @ covariance @ u, np.eye(3), atol=1e-9)
        whitened.descend((outputs - target) / 6, inputs)
        step(tf.constant(x), tf.constant(target))
        ours = np.concatenate([v.numpy().ravel() for v in stack.variables])
        np.testing.assert_allclose(ours, whitened.canonical(), rtol=1e-8, atol=1e-10)


def test_layers_without_a_bias_are_whitened_but_not_centred():
    layer = tf.keras.layers.Dense(2, use_bias=False, dtype="float64")
    layer.build([None, 3])
    stack, inputs = DenseStack([layer]), RNG(1).normal(size=(5, 3))
    gradient = RNG(2).normal(size=6)
    found = Kfac(inverse="prong")(GaussNewton(stack, stack.variables, inputs), gradient, 0.3).value
    expected = np.linalg.solve(inputs.T @ inputs / 5 + 0.3 * np.eye(3), gradient.reshape(3, 2))
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-10)


def test_derivatives_are_not_remembered():
    layer = tf.keras.layers.Dense(2)
    layer.build([None, 3])
    assert set(Kfac(inverse="prong").slots(layer.trainable_variables)) == {"count", "0/inputs", "0/inputs_inverse"}
