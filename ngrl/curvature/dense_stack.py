"""Networks that are a chain of Dense layers, and their Jacobians without a tape.

For such a chain the Gram matrix of the Jacobian's rows follows from the inputs of the layers and the
back-propagated output derivatives alone (the structure behind Ren & Goldfarb 2019, arXiv:1906.02353):

    a_l [B, d_l]   the input of layer l;  z_l = a_l W_l + b_l;  a_{l+1} = φ_l(z_l)
    G_l [n, m_l]   the derivative of each row (n = B·R of them) with respect to z_l

    (A Aᵀ)_(i,r),(j,s) = Σ_l (a_l,i · a_l,j + 1) (G_l,ir · G_l,js)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from ngrl.curvature.flatten import flatten, unflatten

Activation = Callable[[tf.Tensor], tf.Tensor]

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

    Calling it with inputs [B, D] (or [B, ...] if the chain starts with Flatten) gives outputs [B, K].
    `GaussNewton` recognises it and works layer by layer, without tapes.
    """

    def __init__(self, layers: Sequence[tf.keras.layers.Layer]) -> None:
        """Take a chain of built layers: Dense, Flatten, InputLayer and elementwise activation layers.

        Raises:
          ValueError: a layer is of another kind, isn't built, occurs twice, or has another dtype.
        """
        self._flattens = False
        self._input_activations: tuple[Activation, ...] = ()
        self._blocks: tuple[_Block, ...] = ()
        self._compute_dtypes: set[str] = set()
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

    def _append(self, layer: tf.keras.layers.Layer) -> None:
        keras = tf.keras.layers
        if isinstance(layer, keras.InputLayer):
            return
        self._compute_dtypes.add(layer.compute_dtype)
        if isinstance(layer, keras.Flatten):
            # Behind a Dense layer with inputs [B, D] flattening changes nothing.
            self._flattens = self._flattens or not self._blocks
            return
        if isinstance(layer, keras.Dense) and type(layer).call is keras.Dense.call:
            if not layer.built:
                raise ValueError(f"layer {layer.name!r} isn't built")
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
    def from_layers(cls, layers: Sequence[tf.keras.layers.Layer]) -> DenseStack | None:
        """The stack made of `layers`, or None if they don't form one."""
        try:
            return cls(layers)
        except ValueError:
            return None

    @property
    def variables(self) -> list[tf.Variable]:
        """Kernels and biases, layer by layer."""
        found = []
        for block in self._blocks:
            found.append(block.layer.kernel)
            if block.layer.use_bias:
                found.append(block.layer.bias)
        return found

    def accepts(self, inputs: tf.Tensor) -> bool:
        """Whether `inputs` reach the first Dense layer as a matrix [B, D]."""
        return inputs.shape.rank is not None and (self._flattens or inputs.shape.rank == 2)

    def _prepare(self, inputs: tf.Tensor) -> tf.Tensor:
        """The first layer's input a_0 [B, d_0]."""
        inputs = tf.convert_to_tensor(inputs)
        if not self.accepts(inputs):
            raise ValueError(f"a dense stack needs inputs of shape [B, D], got {inputs.shape}")
        kernel = self._blocks[0].layer.kernel
        if self._flattens and inputs.shape.rank != 2:
            inputs = tf.reshape(inputs, [-1, kernel.shape[0]])
        inputs = tf.cast(inputs, kernel.dtype)
        for phi in self._input_activations:
            inputs = phi(inputs)
        return inputs

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Outputs [B, K] of the network for `inputs` [B, D]."""
        return self.linearize(inputs, self.variables).outputs

    def linearize(self, inputs: tf.Tensor, variables: Sequence[tf.Variable]) -> StackJacobian:
        """The outputs and the Jacobian at the variables' present values.

        Args:
          inputs: [B, D].
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
            layers.append(_LinearLayer(kernel, a, slope, slots[layer.kernel.ref()], bias_slot))
            a = value
        return StackJacobian(tuple(layers), tuple(variables), a)


@dataclasses.dataclass(frozen=True)
class _LinearLayer:
    """A layer at θ: kernel W [d, m], inputs a [B, d], slope φ'(z) [B, m] (None: 1), places in the vector."""

    kernel: tf.Tensor
    inputs: tf.Tensor
    slope: tf.Tensor | None
    kernel_slot: int
    bias_slot: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class StackJacobian:
    """The Jacobian J of a dense stack's outputs [B, K], kept as its layers' inputs and slopes."""

    layers: tuple[_LinearLayer, ...]
    variables: tuple[tf.Variable, ...]
    outputs: tf.Tensor

    def jvp(self, vector: tf.Tensor) -> tf.Tensor:
        """J v for v [P]: [B, K]."""
        return self._push(unflatten(vector, self.variables))

    def _push(self, parts: list[tf.Tensor]) -> tf.Tensor:
        tangent = None
        for layer in self.layers:
            # ȧ_{l+1} = φ'(z_l) (a_l Ẇ_l + ḃ_l + ȧ_l W_l)
            dz = _affine(layer, parts)
            if tangent is not None:
                dz += tf.matmul(tangent, layer.kernel)
            tangent = dz if layer.slope is None else layer.slope * dz
        return tangent

    def vjp(self, cotangent: tf.Tensor) -> tf.Tensor:
        """Jᵀ u for u [B, K]: [P]."""
        return self._collect(self.backpropagate(cotangent, 1))

    def product(self, vector: tf.Tensor, metric: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Jᵀ M(y, J v) for v [P]: [P]."""
        return self.vjp(metric(self.outputs, self.jvp(vector)))

    def backpropagate(self, rows: tf.Tensor, rows_per_example: int) -> list[tf.Tensor]:
        """Rows [B·R, K] of output derivatives, carried back to every layer's z: G_l [B·R, m_l]."""
        found = []
        g = rows
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            if layer.slope is not None:
                g = _scale_examples(g, layer.slope, rows_per_example)
            found.append(g)
            if index:
                g = tf.matmul(g, layer.kernel, transpose_b=True)
        return found[::-1]

    def rows(self, factor: tf.Tensor) -> StackRows:
        """The rows A_i = factor_i J_i for a factor [B, R, K]."""
        rows_per_example = factor.shape[1]
        gradients = self.backpropagate(tf.reshape(factor, [-1, factor.shape[2]]), rows_per_example)
        return StackRows(self, tuple(gradients), rows_per_example)

    def _collect(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Σ_l,i (∂z_l,i/∂θ)ᵀ g_l,i for g_l [B, m_l]: dW_l = a_lᵀ g_l and db_l = Σ_i g_l,i, as one [P]."""
        parts: list[tf.Tensor | None] = [None] * len(self.variables)
        for layer, g in zip(self.layers, gradients, strict=True):
            parts[layer.kernel_slot] = tf.matmul(layer.inputs, g, transpose_a=True)
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = tf.reduce_sum(g, axis=0)
        return flatten(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class StackRows:
    """The rows A [n, P] of a dense stack's scaled Jacobian, kept as G_l [n, m_l] with n = B·R."""

    jacobian: StackJacobian
    gradients: tuple[tf.Tensor, ...]
    rows_per_example: int

    def _layers(self) -> Iterator[tuple[_LinearLayer, tf.Tensor]]:
        return zip(self.jacobian.layers, self.gradients, strict=True)

    def gram(self) -> tf.Tensor:
        """A Aᵀ [n, n] = Σ_l (a_l a_lᵀ + 1) ∘ (G_l G_lᵀ)."""
        r = self.rows_per_example
        total = None
        for layer, g in self._layers():
            inputs = tf.matmul(layer.inputs, layer.inputs, transpose_b=True)
            if layer.bias_slot is not None:
                inputs += 1
            rows = tf.matmul(g, g, transpose_b=True)
            if r > 1:
                batch = inputs.shape[0] or tf.shape(inputs)[0]
                rows = tf.reshape(rows, [batch, r, batch, r]) * inputs[:, tf.newaxis, :, tf.newaxis]
                term = tf.reshape(rows, [batch * r, batch * r])
            else:
                term = inputs * rows
            total = term if total is None else total + term
        return total

    def matvec(self, vector: tf.Tensor) -> tf.Tensor:
        """A v for v [P]: [n], where (A v)_ir = Σ_l G_l,ir · (a_l,i Ẇ_l + ḃ_l)."""
        parts = unflatten(vector, self.jacobian.variables)
        terms = [
            tf.reduce_sum(_scale_examples(g, _affine(layer, parts), self.rows_per_example), axis=-1)
            for layer, g in self._layers()
        ]
        return tf.add_n(terms)

    def rmatvec(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Aᵀ c for c [n]: [P], where dW_l = Σ_i a_l,i (Σ_r c_ir G_l,ir)ᵀ."""
        r = self.rows_per_example
        weighted = [coefficients[:, tf.newaxis] * g for g in self.gradients]
        if r > 1:
            weighted = [tf.reduce_sum(tf.reshape(g, [-1, r, g.shape[-1]]), axis=1) for g in weighted]
        return self.jacobian._collect(weighted)

    def matrix(self) -> tf.Tensor:
        """A itself, [n, P]."""
        r = self.rows_per_example
        parts: list[tf.Tensor | None] = [None] * len(self.jacobian.variables)
        for layer, g in self._layers():
            inputs = tf.repeat(layer.inputs, r, axis=0) if r > 1 else layer.inputs
            outer = inputs[:, :, tf.newaxis] * g[:, tf.newaxis, :]
            parts[layer.kernel_slot] = tf.reshape(outer, [-1, layer.kernel.shape.num_elements()])
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = g
        return tf.concat(parts, axis=1)

    def diagonal(self) -> tf.Tensor:
        """The diagonal of AᵀA, [P]: Σ_ir a_l,i² (G_l,ir²)ᵀ."""
        r = self.rows_per_example
        parts: list[tf.Tensor | None] = [None] * len(self.jacobian.variables)
        for layer, g in self._layers():
            squares = tf.square(g)
            if r > 1:
                squares = tf.reduce_sum(tf.reshape(squares, [-1, r, g.shape[-1]]), axis=1)
            parts[layer.kernel_slot] = tf.matmul(tf.square(layer.inputs), squares, transpose_a=True)
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = tf.reduce_sum(squares, axis=0)
        return flatten(parts)


def _affine(layer: _LinearLayer, parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """a_l Ẇ_l + ḃ_l, [B, m_l]."""
    product = tf.matmul(layer.inputs, parts[layer.kernel_slot])
    return product if layer.bias_slot is None else product + parts[layer.bias_slot]


def _scale_examples(rows: tf.Tensor, scale: tf.Tensor, rows_per_example: int) -> tf.Tensor:
    """Rows [B·R, m] times scale [B, m], the same for an example's R rows."""
    if rows_per_example == 1:
        return rows * scale
    size = rows.shape[-1]
    product = tf.reshape(rows, [-1, rows_per_example, size]) * scale[:, tf.newaxis, :]
    return tf.reshape(product, [-1, size])
