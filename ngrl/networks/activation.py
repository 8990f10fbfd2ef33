"""Activations that gin files may name."""

from typing import Literal

#: Keras' activations by name: a wrong one in a gin file is answered before TensorFlow is loaded.
Activation = Literal[
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]
