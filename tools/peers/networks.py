"""The networks whose steps are compared, and what they are trained on: imported under every Python, so NumPy alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Network(NamedTuple):
    """A network with one linear output for squared errors.

    Attributes:
      inputs: Shape of an example.
      hidden: Widths of the Dense layers before the last.
      activation: "tanh" or "relu", behind every layer but the last.
      convolutions: Filters, kernel and stride of the layers before them, without padding.
      batch: Examples in a step.
      steps: Steps in one call, where several are made in one.
    """

    inputs: tuple[int, ...]
    hidden: tuple[int, ...]
    activation: str
    convolutions: tuple[tuple[int, int, int], ...] = ()
    batch: int = 128
    steps: int = 32


NETWORKS = {
    "4-64-1": Network((4,), (64,), "tanh"),
    "8-256-128-1": Network((8,), (256, 128), "tanh"),
    "minatar": Network((10, 10, 4), (128,), "relu", ((16, 3, 1),), steps=8),
    "nature": Network((84, 84, 4), (512,), "relu", ((32, 8, 4), (64, 4, 2), (64, 3, 1)), batch=32, steps=2),
}
LEARNING_RATE, DAMPING = 0.1, 1.0


def batches(network: Network) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [S, B, ...] and targets [S, B, 1] of S different steps: numbers in [−1, 1] without a pattern."""
    shape = (network.steps, network.batch, *network.inputs)
    inputs = np.sin(1.7 * np.arange(np.prod(shape)) ** 1.1).astype(np.float32).reshape(shape)
    return inputs, np.sin(inputs.reshape(*shape[:2], -1)[..., :4].sum(axis=-1, keepdims=True))


def shapes(network: Network) -> list[tuple[int, ...]]:
    """The kernels' shapes, layer by layer."""
    kernels: list[tuple[int, ...]] = []
    *size, width = network.inputs
    for filters, kernel, stride in network.convolutions:
        kernels.append((kernel, kernel, width, filters))
        size, width = [(side - kernel) // stride + 1 for side in size], filters
    width *= int(np.prod(size))
    for units in (*network.hidden, 1):
        kernels.append((width, units))
        width = units
    return kernels


def in_jax(network: Network) -> tuple[list[Any], Callable[[Any, Any], Any]]:
    """Weights, kernels and biases in turn, and the function of weights and inputs [B, ...] to outputs [B, 1]."""
    import jax

    keys = jax.random.split(jax.random.PRNGKey(0), len(shapes(network)))
    weights: list[Any] = []
    for key, shape in zip(keys, shapes(network), strict=True):
        weights += [jax.random.normal(key, shape) / np.sqrt(np.prod(shape[:-1])), np.zeros(shape[-1:], np.float32)]
    activation = {"tanh": jax.numpy.tanh, "relu": jax.nn.relu}[network.activation]

    def predict(weights: Any, x: Any) -> Any:
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        for (kernel, bias), (_, _, stride) in zip(pairs, network.convolutions, strict=False):
            order = ("NHWC", "HWIO", "NHWC")
            z = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=order)
            x = activation(z + bias)
        x = x.reshape(x.shape[0], -1)
        for kernel, bias in pairs[len(network.convolutions) : -1]:
            x = activation(x @ kernel + bias)
        return x @ pairs[-1][0] + pairs[-1][1]

    return [jax.numpy.asarray(weight) for weight in weights], predict
