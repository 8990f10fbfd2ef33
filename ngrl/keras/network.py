"""The part of a Keras model that is linearised: everything up to the outputs in which the loss's curvature is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature import (
    DenseStack,
    GaussNewton,
    LayeredNetwork,
    OutputMetric,
    check_network,
    describe_layer,
    is_unchanged,
)
from ngrl.curvature.dense_stack import is_dense
from ngrl.keras.losses import Objective

_FUNCTIONAL = tf.keras.Sequential.__bases__[0]  # Keras has no public name for it

_ACTIVATIONS = {
    "sigmoid": (tf.keras.activations.sigmoid, tf.sigmoid, tf.nn.sigmoid, tf.math.sigmoid),
    "softmax": (tf.keras.activations.softmax, tf.nn.softmax),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A model as a function y = f(x; θ), and what follows it.

    Where a crossentropy is given probabilities, y are the logits in front of the model's last activation. The Fisher
    information of θ doesn't depend on whether it is formed from logits or from probabilities, but the logits' metric
    stays finite where probabilities saturate, and a step's gradient is exact there.

    Attributes:
      forward: f, for the inputs that the model takes.
      activation: What makes the model's predictions of y.
      stack: f as a chain of Dense layers in all of `variables`, or None if it is none.
      variables: θ, the model's trainable variables.
      input: The one symbolic input of the stack.
    """

    forward: Callable[[Any], tf.Tensor]
    activation: Callable[[tf.Tensor], tf.Tensor]
    stack: DenseStack | None
    variables: tuple[tf.Variable, ...]
    input: Any

    def linearise(self, inputs: Any, metric: OutputMetric) -> GaussNewton:
        """The Gauss-Newton operator at `inputs`, layer by layer."""
        function, inputs = self._resolve(inputs)
        return GaussNewton(function, self.variables, inputs, metric)

    def outputs(self, inputs: Any) -> tf.Tensor:
        """The outputs y [B, K] at the variables' present values, by the way that `linearise` takes."""
        function, inputs = self._resolve(inputs)
        return function(inputs)

    def _resolve(self, inputs: Any) -> tuple[Callable[[Any], tf.Tensor], Any]:
        leaves = tf.nest.flatten(inputs)
        if self.stack is not None and len(leaves) == 1:
            x = _conform(tf.convert_to_tensor(leaves[0]), self.input)
            if self.stack.accepts(x):
                return self.stack, x
        return self.forward, inputs


def build(model: tf.keras.Model, objective: Objective) -> Network:
    """The network of a functional model for an objective.

    Raises:
      ValueError: The model has several outputs or inputs that are not dense tensors, draws random numbers or changes
        its state when it is called, computes in another dtype than its variables', has constrained variables, masks
        its output, does not end as the objective needs it, or has a call of its own where its last activation is left
        out.
    """
    _check(model)
    output = model.outputs[0]
    expected = objective.loss.activation
    ending = _ending(output)
    if expected is None or objective.from_logits:
        if expected is not None and ending.name is not None:
            raise ValueError(
                f"the loss takes logits (from_logits=True), but the model ends in a {ending.name} activation: remove "
                "one of them"
            )
        # What a subclass makes of the model's layers in a call of its own is asked of the model alone.
        layers = _chain(output, model.inputs) if is_unchanged(model, _FUNCTIONAL, "__call__", "call") else None
        activation, modules = tf.identity, [model]

        def forward(inputs: Any) -> tf.Tensor:
            return model(inputs, training=True)
    else:
        if ending.name != expected:
            raise ValueError(
                f"the loss takes probabilities, of a {expected} activation: the model must end in a Dense layer with "
                f"activation='{expected}' or in tf.keras.layers.Activation('{expected}'), or else give logits to a "
                f"loss of tf.keras.losses made with from_logits=True; it ends in {describe_layer(output.node.layer)}"
            )
        if not is_unchanged(model, _FUNCTIONAL, "__call__", "call"):
            raise ValueError(
                f"{type(model).__name__} has a call of its own, in which the last activation isn't known: put it into "
                "layers, or give logits to a loss of tf.keras.losses made with from_logits=True"
            )
        trunk, linear, activation = tf.keras.Model(model.inputs, ending.tensor), ending.linear, ending.activation
        layers = _chain(ending.tensor, model.inputs)
        modules = [trunk] if linear is None else [trunk, linear]
        if layers is not None and linear is not None:
            layers = [*layers, linear]

        def forward(inputs: Any) -> tf.Tensor:
            outputs = trunk(inputs, training=True)
            return outputs if linear is None else linear(outputs)

    variables = tuple(model.trainable_variables)
    stack = None if layers is None or len(model.inputs) != 1 else DenseStack.from_layers(layers)
    if stack is not None and {v.ref() for v in stack.variables} != {v.ref() for v in variables}:
        stack = None
    return Network(LayeredNetwork(forward, *modules), activation, stack, variables, model.inputs[0])


@dataclasses.dataclass(frozen=True, eq=False)
class _Ending:
    """How a model ends: the symbolic tensor `tensor`, then `linear` if there is one, then `activation`."""

    name: str | None  # "sigmoid", "softmax", or None for anything else
    tensor: Any
    linear: tf.keras.layers.Dense | None  # a Dense layer without its activation
    activation: Callable[[tf.Tensor], tf.Tensor]


def _ending(output: Any) -> _Ending:
    """Take a model's output apart at a last sigmoid or softmax, of a layer of its own or of a Dense layer."""
    layer = output.node.layer
    keras = tf.keras.layers
    linear = is_dense(layer)
    if linear or type(layer) is keras.Activation:
        activation = layer.activation
    elif type(layer) is keras.Softmax and layer.axis in (-1, 1):
        activation = tf.keras.activations.softmax
    else:
        activation = None
    name = next((name for name, functions in _ACTIVATIONS.items() if activation in functions), None)
    if name is None:
        return _Ending(None, output, None, tf.identity)
    (tensor,) = output.node.keras_inputs
    return _Ending(name, tensor, _without_activation(layer) if linear else None, activation)


def _without_activation(layer: tf.keras.layers.Dense) -> tf.keras.layers.Dense:
    """A Dense layer with another's weights, not copies of them, and no activation."""
    linear = tf.keras.layers.Dense(layer.units, use_bias=layer.use_bias, dtype=layer.dtype, name=layer.name)
    linear.kernel, linear.bias = layer.kernel, layer.bias
    linear.built = True
    return linear


def _chain(output: Any, inputs: Sequence[Any]) -> list[tf.keras.layers.Layer] | None:
    """The layers from the input to a symbolic tensor if each takes the one before it alone, else None."""
    layers: list[tf.keras.layers.Layer] = []
    while output is not inputs[0]:
        node = output.node
        if len(node.keras_inputs) != 1:
            return None
        layers.append(node.layer)
        output = node.keras_inputs[0]
    return layers[::-1]


def _conform(x: tf.Tensor, reference: Any) -> tf.Tensor:
    """`x` in the dtype and rank of a model's input, as the model itself would take it."""
    if x.shape.rank is not None and x.shape.rank == reference.shape.rank - 1 and reference.shape[-1] == 1:
        x = x[..., tf.newaxis]
    return tf.cast(x, reference.dtype)


def _check(model: tf.keras.Model) -> None:
    if tf.nest.is_nested(model.output):
        raise ValueError(
            "NaturalGradient trains models with one output tensor: concatenate the outputs, make a model for each of "
            "them, or compile with one of Keras' own optimizers"
        )
    output = model.outputs[0]
    if output.shape.rank != 2 or output.shape[-1] is None:
        raise ValueError(
            f"NaturalGradient needs outputs of shape [B, K], the model's are {output.shape}: end it with a Flatten or "
            "Reshape layer"
        )
    if getattr(output, "_keras_mask", None) is not None:
        raise ValueError(
            "the model's output has a mask, which NaturalGradient doesn't apply: remove it and give sample weights"
        )
    for symbolic in model.inputs:
        if not isinstance(symbolic.type_spec, tf.TensorSpec):
            raise ValueError(f"NaturalGradient needs dense inputs, input {symbolic.name!r} is sparse or ragged")
    if not model.trainable_variables:
        raise ValueError("the model has no trainable variables")
    check_network(model)
