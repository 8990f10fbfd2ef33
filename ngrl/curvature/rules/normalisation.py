"""Normalisation within an example, then a scale and a shift."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ngrl.curvature.rules.registry import NoRuleError, Recorder, layer_rule
from ngrl.curvature.uses import ScaleShift

_KERAS = tf.keras.layers


@layer_rule(_KERAS.LayerNormalization)
def layer_normalization(layer: Any, record: Recorder, inputs: Any) -> tf.Tensor:
    """γ ∘ (x − mean) / √(variance + ε) + β."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    if not tf.is_tensor(inputs) or 0 in [axis % inputs.shape.rank for axis in axes]:
        raise NoRuleError
    gamma, beta = layer.gamma, layer.beta
    with _set_aside(layer, gamma=None, beta=None):
        normalised = type(layer).call(layer, inputs)
    return record(ScaleShift(gamma, beta, normalised, axes))


@layer_rule(_KERAS.GroupNormalization, unchanged=("_apply_normalization", "_get_reshaped_weights"))
def group_normalization(layer: Any, record: Recorder, inputs: Any, mask: Any = None) -> tf.Tensor:
    """The same within each group of channels."""
    if not tf.is_tensor(inputs) or not inputs.shape[1:].is_fully_defined():
        raise NoRuleError
    scale, center = layer.scale, layer.center
    with _set_aside(layer, scale=False, center=False):
        normalised = type(layer).call(layer, inputs, mask)
    normalised = tf.ensure_shape(normalised, inputs.shape)
    return record(ScaleShift(layer.gamma if scale else None, layer.beta if center else None, normalised, [layer.axis]))


@layer_rule(_KERAS.BatchNormalization)
def batch_normalization(layer: Any, record: Recorder, inputs: Any, training: Any = None, mask: Any = None) -> tf.Tensor:
    """With the moving averages, as at inference: (x − mean) / √(variance + ε) is the same function for all examples."""
    del mask
    training = tf.keras.backend.learning_phase() if training is None else training
    if tf.is_tensor(training) or (training and layer.trainable) or layer.dtype != inputs.dtype:
        raise NoRuleError
    axes = list(layer.axis)
    shape = [inputs.shape[axis] if axis in axes else 1 for axis in range(inputs.shape.rank)]
    mean, variance = (
        tf.reshape(tf.convert_to_tensor(moment), shape) for moment in (layer.moving_mean, layer.moving_variance)
    )
    normalised = tf.nn.batch_normalization(inputs, mean, variance, None, None, layer.epsilon)
    return record(
        ScaleShift(layer.gamma if layer.scale else None, layer.beta if layer.center else None, normalised, axes)
    )


@contextlib.contextmanager
def _set_aside(layer: Any, **values: Any) -> Iterator[None]:
    """Attributes of a layer with other values for a while; Keras, which tracks what is set, hears nothing of it."""
    before = {name: vars(layer)[name] for name in values}
    vars(layer).update(values)
    try:
        yield
    finally:
        vars(layer).update(before)
