"""Convolutions: as patches and a product of matrices, which their rows need besides."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ngrl.curvature.rules.registry import NoRuleError, Recorder, layer_rule
from ngrl.curvature.uses import Grouped, Linear, ScaleShift
from ngrl.patches import PatchConv2D, extract_columns, extract_patches, overlap_patches

_KERAS = tf.keras.layers


@layer_rule(_KERAS.Conv1D, _KERAS.Conv2D, _KERAS.Conv3D, PatchConv2D, unchanged=("convolution_op",))
def convolution(layer: Any, record: Recorder, inputs: Any) -> tf.Tensor:
    """φ(z + b) with z_p = patch_p W."""
    patches = _patches(layer, inputs)
    if layer.groups > 1:
        return _activate(layer, _shifted(layer, record, record(Grouped(layer.kernel, patches, layer.groups))))
    bias = layer.bias if layer.use_bias else None
    z = record(Linear(layer.kernel, bias, _flat(patches), columns=lambda: extract_columns(inputs, *_window(layer))))
    return _activate(layer, z)


@layer_rule(_KERAS.DepthwiseConv1D, _KERAS.DepthwiseConv2D)
def depthwise_convolution(layer: Any, record: Recorder, inputs: Any) -> tf.Tensor:
    """φ(z + b), every channel with filters of its own."""
    z = record(Grouped(layer.depthwise_kernel, _patches(layer, inputs), inputs.shape[-1]))
    return _activate(layer, _shifted(layer, record, z))


@layer_rule(_KERAS.SeparableConv1D, _KERAS.SeparableConv2D)
def separable_convolution(layer: Any, record: Recorder, inputs: Any) -> tf.Tensor:
    """A depthwise convolution and a Dense layer at each position."""
    channels = record(Grouped(layer.depthwise_kernel, _patches(layer, inputs), inputs.shape[-1]))
    z = record(Linear(layer.pointwise_kernel, layer.bias if layer.use_bias else None, channels))
    return _activate(layer, z)


@layer_rule(_KERAS.Conv1DTranspose, _KERAS.Conv2DTranspose)
def transposed_convolution(layer: Any, record: Recorder, inputs: Any) -> tf.Tensor:
    """Patches u_p = x_p Wᵀ, added up where they overlap."""
    _check(layer, inputs)
    sizes = layer.compute_output_shape(inputs.shape)[1:-1]
    u = record(Linear(layer.kernel, None, inputs, transposed=True))
    places = tf.TensorShape(layer.kernel_size).num_elements()
    u = tf.reshape(u, [-1, *inputs.shape[1:-1], places, layer.filters])
    z = overlap_patches(u, sizes, *_window(layer))
    return _activate(layer, _shifted(layer, record, z))


def _check(layer: Any, inputs: Any) -> None:
    known = tf.is_tensor(inputs) and inputs.shape.rank == layer.rank + 2 and inputs.shape[1:].is_fully_defined()
    if not known or layer.data_format != "channels_last":
        raise NoRuleError


def _flat(patches: tf.Tensor) -> tf.Tensor:
    """[B, *positions, k, C] as [B, *positions, k·C]."""
    return tf.reshape(patches, [-1, *patches.shape[1:-2], patches.shape[-2] * patches.shape[-1]])


def _patches(layer: Any, inputs: Any) -> tf.Tensor:
    """[B, *positions, k, C]."""
    _check(layer, inputs)
    return extract_patches(inputs, *_window(layer))


def _window(layer: Any) -> tuple[Any, Any, str, Any]:
    """How the kernel moves over an image, as `ngrl.patches` takes it."""
    return layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate


def _shifted(layer: Any, record: Recorder, z: tf.Tensor) -> tf.Tensor:
    return record(ScaleShift(None, layer.bias, z)) if layer.use_bias else z


def _activate(layer: Any, z: tf.Tensor) -> tf.Tensor:
    return z if layer.activation is None else layer.activation(z)
