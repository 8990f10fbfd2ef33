"""Networks that are a chain of Dense layers, whose Jacobians `stack_jacobian` has without a tape."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature.stack_jacobian import LinearLayer, StackJacobian, append_free
from ngrl.curvature.unchanged import is_unchanged

Activation = Callable[[tf.Tensor], tf.Tensor]

# What a layer is called by. A stack calls none.
_CALLS = ("__call__", "call")

# A derivative as a function of the activation's value, which is at hand: φ' = f(φ(z)).
_CLOSED_FORMS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "tanh": lambda a: 1 - tf.square(a),
    "sigmoid": lambda a: a * (1 - a),
    "relu": lambda a: tf.cast(a > 0, a.dtype),  # the derivative at 0 is 0, as TensorFlow's
}


@functools.cache
def _known_activations() -> dict[int, str]:
    """Identities of the functions that are known to act element by element, with a name for each."""
    shared = ("elu", "gelu", "leaky_relu", "relu", "selu", "sigmoid", "softplus", "softsign", "swish", "tanh")
    elementwise = {
        tf.keras.activations: (*shared, "exponential", "hard_sigmoid", "linear", "mish"),
        tf.nn: (*shared, "relu6", "silu"),
        tf.math: ("cos", "exp", "sigmoid", "sin", "softplus", "softsign", "tanh"),
    }
    known = {id(tf.identity): "linear"}
    for module, names in elementwise.items():
        known |= {id(getattr(module, name)): name for name in names if hasattr(module, name)}
    return known


def is_dense(layer: Any) -> bool:
    """Whether a layer is φ(x W + b) for variables W and b.

    Raises:
      ValueError: It may become so, but isn't built.
    """
    if not is_unchanged(layer, tf.keras.layers.Dense, *_CALLS):
        return False
    if not layer.built:
        raise ValueError(f"layer {layer.name!r} isn't built")
    return isinstance(layer.kernel, tf.Variable) and (not layer.use_bias or isinstance(layer.bias, tf.Variable))


def _activate(activations: Sequence[Activation], z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """φ(z) and φ'(z) for the composition φ of elementwise functions; None stands for φ' = 1."""
    known = _known_activations()
    moving = [phi for phi in activations if known.get(id(phi)) != "linear"]
    if not moving:
        return z, None
    if len(moving) == 1 and known.get(id(moving[0])) in _CLOSED_FORMS:
        value = moving[0](z)
        return value, _CLOSED_FORMS[known[id(moving[0])]](value)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(z)
        value = z
        for phi in moving:
            value = phi(value)
    return value, tape.gradient(value, z)


@dataclasses.dataclass(frozen=True)
class _Block:
    """One Dense layer with every elementwise activation up to the next one."""

    layer: tf.keras.layers.Dense
    activations: tuple[Activation, ...]


class DenseStack:
    """A network y = forward(x) that is a chain of Dense layers with elementwise activations.

    Calling it with inputs [B, d] (or [B, ...] if the chain starts with a channels-last Flatten) gives outputs [B, K].
    `GaussNewton` recognises it and works layer by layer, without tapes.

    With free outputs f [D], parameters that no input acts on (as the log standard deviations of a diagonal
    Gaussian policy often are), the outputs are [B, K + D]: the chain's, then f, the same for every example.
    """

    def __init__(self, layers: Sequence[tf.keras.layers.Layer], free_outputs: tf.Variable | None = None) -> None:
        """Take a chain of built layers: Dense, Flatten, InputLayer and elementwise activation layers.

        Args:
          layers: the chain, in the order in which it is applied.
          free_outputs: None, or a variable f [D] of the layers' dtype.

        Raises:
          ValueError: a layer is of another kind, isn't built, occurs twice, or has another dtype; or
            `free_outputs` isn't a variable of shape [D] and that dtype, or belongs to a layer.
        """
        self._flatten: tf.keras.layers.Flatten | None = None  # the first before any Dense layer
        self._input_activations: tuple[Activation, ...] = ()
        self._blocks: tuple[_Block, ...] = ()
        self._compute_dtypes: set[str] = set()
        self._free_outputs: tf.Variable | None = None
        for layer in layers:
            self._append(layer)
        if not self._blocks:
            raise ValueError("a dense stack needs at least one Dense layer")
        if len({variable.ref() for variable in self.variables}) != len(self.variables):
            raise ValueError("a dense stack can't share weights between layers")
        if self._compute_dtypes | {variable.dtype.name for variable in self.variables} != self._compute_dtypes:
            raise ValueError("a dense stack computes in the dtype of its weights")
        if len(self._compute_dtypes) > 1:
            raise ValueError(f"a dense stack has one dtype, got {', '.join(sorted(self._compute_dtypes))}")
        if free_outputs is not None:
            _check_free_outputs(free_outputs, self.variables)
            self._free_outputs = free_outputs

    def _append(self, layer: tf.keras.layers.Layer) -> None:
        keras = tf.keras.layers
        if isinstance(layer, keras.InputLayer):
            return
        self._compute_dtypes.add(layer.compute_dtype)
        if is_unchanged(layer, keras.Flatten, *_CALLS):
            # Behind another, or a Dense layer with inputs [B, d], flattening changes nothing.
            if not self._blocks and self._flatten is None:
                self._flatten = layer
            return
        if is_dense(layer):
            self._blocks += (_Block(layer, ()),)
            self._append_activation(layer.activation, layer.name)
        elif type(layer) is keras.Activation:
            self._append_activation(layer.activation, layer.name)
        elif type(layer) in (keras.ReLU, keras.LeakyReLU, keras.ELU):
            self._add(layer)
        else:
            raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) isn't part of a dense stack")

    def _append_activation(self, activation: Activation, name: str) -> None:
        # A function that mixes the elements (softmax) has no elementwise derivative, and of an unknown one
        # nobody can tell.
        if id(activation) not in _known_activations():
            raise ValueError(f"the activation of layer {name!r} isn't a known elementwise function")
        self._add(activation)

    def _add(self, activation: Activation) -> None:
        if not self._blocks:
            self._input_activations += (activation,)
        else:
            last = self._blocks[-1]
            self._blocks = (*self._blocks[:-1], _Block(last.layer, (*last.activations, activation)))

    @classmethod
    def from_layers(
        cls, layers: Sequence[tf.keras.layers.Layer], free_outputs: tf.Variable | None = None
    ) -> DenseStack | None:
        """The stack made of `layers` and `free_outputs`, or None if the layers don't form one.

        Raises:
          ValueError: the layers form a stack, but `free_outputs` doesn't fit it.
        """
        try:
            stack = cls(layers)
        except ValueError:
            return None
        return stack if free_outputs is None else cls(layers, free_outputs)

    @property
    def variables(self) -> list[tf.Variable]:
        """Kernels and biases, layer by layer, then the free outputs if there are any."""
        found = []
        for block in self._blocks:
            found.append(block.layer.kernel)
            if block.layer.use_bias:
                found.append(block.layer.bias)
        if self._free_outputs is not None:
            found.append(self._free_outputs)
        return found

    def accepts(self, inputs: tf.Tensor | tf.TensorSpec) -> bool:
        """Whether `inputs` reach the first Dense layer as a matrix [B, d], their numbers in order."""
        return inputs.shape.rank is not None and (self._reshapes or inputs.shape.rank == 2)

    @property
    def _reshapes(self) -> bool:
        """Whether inputs of any rank are flattened in order. Channels first, that is so for matrices alone."""
        return self._flatten is not None and self._flatten.data_format == "channels_last"

    def _prepare(self, inputs: tf.Tensor) -> tf.Tensor:
        """The first layer's input a_0 [B, d_0]."""
        inputs = tf.convert_to_tensor(inputs)
        if not self.accepts(inputs):
            raise ValueError(f"a dense stack needs inputs of shape [B, d], got {inputs.shape}")
        kernel = self._blocks[0].layer.kernel
        if inputs.shape.rank != 2:
            inputs = tf.reshape(inputs, [-1, kernel.shape[0]])
        inputs = tf.cast(inputs, kernel.dtype)
        for phi in self._input_activations:
            inputs = phi(inputs)
        return inputs

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Outputs [B, K], or [B, K + D] with free outputs, of the network for `inputs` [B, d]."""
        return self.linearize(inputs, self.variables).outputs

    def linearize(self, inputs: tf.Tensor, variables: Sequence[tf.Variable]) -> StackJacobian:
        """The outputs and the Jacobian at the variables' present values.

        Args:
          inputs: [B, d].
          variables: the stack's variables in the order of the flat parameter vector.
        """
        slots = {variable.ref(): slot for slot, variable in enumerate(variables)}
        a = self._prepare(inputs)
        layers = []
        for block in self._blocks:
            layer = block.layer
            kernel = tf.convert_to_tensor(layer.kernel)
            z = tf.matmul(a, kernel)
            if layer.use_bias:
                z = z + layer.bias
            value, slope = _activate(block.activations, z)
            bias_slot = slots[layer.bias.ref()] if layer.use_bias else None
            layers.append(LinearLayer(kernel, a, slope, slots[layer.kernel.ref()], bias_slot))
            a = value
        if self._free_outputs is None:
            return StackJacobian(tuple(layers), tuple(variables), a)
        outputs = append_free(a, tf.convert_to_tensor(self._free_outputs))
        return StackJacobian(tuple(layers), tuple(variables), outputs, slots[self._free_outputs.ref()])


def _check_free_outputs(free_outputs: tf.Variable, others: Sequence[tf.Variable]) -> None:
    """Raise a ValueError unless `free_outputs` is a [D] variable beside `others`, the layers' own ones."""
    dtype = others[0].dtype
    if not isinstance(free_outputs, tf.Variable):
        raise ValueError(f"free_outputs must be a tf.Variable, got {type(free_outputs).__name__}")
    if free_outputs.shape.rank != 1 or free_outputs.shape[0] is None or free_outputs.dtype != dtype:
        raise ValueError(
            f"free_outputs must be of shape [D] and dtype {dtype.name}, got {free_outputs.shape} and "
            f"{free_outputs.dtype.name}"
        )
    if any(free_outputs is variable for variable in others):
        raise ValueError(f"free_outputs can't be {free_outputs.name!r}, a variable of the stack's layers")
