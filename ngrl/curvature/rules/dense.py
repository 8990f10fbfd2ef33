"""Dense layers, whatever the rank of their inputs, and embeddings."""

from typing import Any

import tensorflow as tf

from ngrl.curvature.rules.registry import NoRuleError, Recorder, layer_rule
from ngrl.curvature.uses import Linear, OneHots

_KERAS = tf.keras.layers


@layer_rule(_KERAS.Dense)
def dense(layer: tf.keras.layers.Dense, record: Recorder, inputs: Any) -> tf.Tensor:
    """φ(a W + b) for a [B, ..., d]."""
    if not tf.is_tensor(inputs) or not inputs.shape[1:].is_fully_defined():
        raise NoRuleError
    bias = layer.bias if layer.use_bias else None
    z = record(Linear(layer.kernel, bias, tf.cast(inputs, layer.kernel.dtype)))
    return z if layer.activation is None else layer.activation(z)


@layer_rule(_KERAS.Embedding)
def embedding(layer: tf.keras.layers.Embedding, record: Recorder, inputs: Any) -> tf.Tensor:
    """The rows of the embeddings that integers [B, ...] name."""
    if not tf.is_tensor(inputs) or not inputs.shape[1:].is_fully_defined():
        raise NoRuleError
    if inputs.dtype not in (tf.int32, tf.int64):
        inputs = tf.cast(inputs, tf.int32)
    flat = tf.reshape(inputs, [-1, inputs.shape[1:].num_elements()])
    z = record(Linear(layer.embeddings, None, OneHots(flat, layer.input_dim)))
    return tf.reshape(z, [-1, *inputs.shape[1:], layer.output_dim])
