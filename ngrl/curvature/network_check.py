"""What a network may hold for its outputs to be a function of its inputs and its variables, the same in every call."""

from typing import Any

import tensorflow as tf


def check_network(network: Any, natural: bool = True) -> None:
    """Refuse layers whose outputs in training aren't a function of inputs and weights alone.

    A natural step calls a network several times, and a solve takes for granted that it is the same each time. An agent
    compares what it says with what it said when it acted.

    Args:
      network: A Keras model or layer, a TF-Agents network, or a module of these.
      natural: Whether it is to be trained with the natural gradient, which takes one dtype and no constraints.

    Raises:
      ValueError: A layer draws random numbers, normalises over the batch or is stateful; or else a layer computes in
        another dtype than its variables', or a variable has a constraint.
    """
    for layer in layers_of(network):
        _check_layer(layer, natural)
    for variable in network.trainable_variables if natural else ():
        if getattr(variable, "constraint", None) is not None:
            raise ValueError(
                f"variable {variable.name!r} has a constraint, which a step for all variables together can't keep: "
                "remove it"
            )


def layers_of(network: Any) -> list[tf.keras.layers.Layer]:
    """The Keras layers in a network, itself included if it is one.

    Metrics are layers to Keras, and stateful: they say nothing to the outputs.
    """
    parts = (network, *network.submodules)
    layers = [part for part in parts if isinstance(part, tf.keras.layers.Layer)]
    return [layer for layer in layers if not isinstance(layer, tf.keras.metrics.Metric)]


def describe_layer(layer: tf.keras.layers.Layer) -> str:
    """A layer's name and kind, for messages."""
    return f"layer {layer.name!r} ({type(layer).__name__})"


def check_dtypes(layer: tf.keras.layers.Layer) -> None:
    """Refuse a layer that computes in another dtype than its variables'.

    Raises:
      ValueError: It does.
    """
    if layer.trainable_weights and layer.compute_dtype != layer.variable_dtype:
        raise ValueError(
            f"{describe_layer(layer)} computes in {layer.compute_dtype} with {layer.variable_dtype} variables: "
            "NaturalGradient needs one dtype, float32 or float64"
        )


def _check_layer(layer: tf.keras.layers.Layer, natural: bool) -> None:
    if _is_random(layer):
        raise ValueError(
            f"{describe_layer(layer)} draws new random numbers in every call, and an update calls the network several "
            "times: remove it (regularise with sample weights, damping or a kernel_regularizer)"
        )
    batch_norm = (tf.keras.layers.BatchNormalization, tf.keras.layers.experimental.SyncBatchNormalization)
    if isinstance(layer, batch_norm) and layer.trainable:
        raise ValueError(
            f"{describe_layer(layer)} makes outputs depend on the whole batch and changes its averages in every call: "
            "use LayerNormalization, or set its trainable to False before training is set up"
        )
    if isinstance(layer, tf.keras.layers.SpectralNormalization):
        raise ValueError(
            f"{describe_layer(layer)} changes its kernel in calls for training, and agents make none: remove it, "
            "or use LayerNormalization"
        )
    # A network is stateful where a layer of its is; that one is named.
    if getattr(layer, "stateful", False) and not any(getattr(part, "stateful", False) for part in layers_of(layer)[1:]):
        raise ValueError(
            f"{describe_layer(layer)} is stateful: an update calls it several times, and carries nothing from one to "
            "the next: set its stateful to False (a policy that remembers is ActorNetwork.recurrent)"
        )
    if natural:
        check_dtypes(layer)


def _is_random(layer: tf.keras.layers.Layer) -> bool:
    if not isinstance(layer, tf.keras.__internal__.layers.BaseRandomLayer):
        return False
    levels = [
        getattr(layer, name) for name in ("rate", "stddev", "dropout", "recurrent_dropout") if hasattr(layer, name)
    ]
    return not levels or any(level > 0 for level in levels)
