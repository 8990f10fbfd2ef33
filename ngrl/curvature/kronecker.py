"""Kronecker-factored curvature: what a layer's block of the Gauss-Newton matrix is made of.

For a layer z_p = W̄ᵀ ā_p at positions p (pixels, steps of time, calls; one for a plain Dense layer), with homogeneous
inputs ā (a 1 stands for the bias) and rows g_p = L_iᵀ ∂y_i/∂z_p, the block of F is Σ_i w_i Σ_r v_ir v_irᵀ with
v_ir = Σ_p ā_ip ⊗ g_irp. K-FAC takes A ⊗ G for it, with

    expand   A = Σ_i w_i mean_p ā_ip ā_ipᵀ  [d̄, d̄],        G = Σ_i w_i Σ_r Σ_p g_irp g_irpᵀ  [m, m]
    reduce   A = Σ_i w_i (mean_p ā_ip)(mean_p ā_ip)ᵀ,      G = Σ_i w_i Σ_r (Σ_p g_irp)(Σ_p g_irp)ᵀ

which are the same for one position (Martens & Grosse 2015, section 3). "Expand" takes derivatives at different
positions for uncorrelated (Grosse & Martens 2016, section 3), and is exact for linear layers where each position has
outputs of its own; "reduce" where the positions' mean or sum goes on (Eschenhagen et al. 2023, section 3).

The metric's factors L make G the exact expectation over the model's distribution: no targets are sampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import tensorflow as tf

from ngrl.curvature.flatten import flatten_parts, num_parameters, unflatten

Sharing = Literal["expand", "reduce"]
Parts: TypeAlias = "tuple[list[Matrix | Outer], list[tf.Tensor]]"


class Symmetric(Protocol):
    """A symmetric matrix S [n, n] that knows quicker products than those of its elements."""

    def before(self, value: tf.Tensor) -> tf.Tensor:
        """S V for V [n, m]."""

    def after(self, value: tf.Tensor) -> tf.Tensor:
        """V S for V [m, n]."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A layer's part V [d̄, m] of a vector of parameters."""

    value: tf.Tensor

    def matrix(self) -> tf.Tensor:
        """V."""
        return self.value

    def replaced(self, value: tf.Tensor) -> Matrix:
        """Another such part."""
        return Matrix(value)

    def times(self, left: tf.Tensor | Symmetric, right: tf.Tensor | Symmetric | None = None) -> Matrix:
        """L V R for symmetric L [d̄, d̄], R [m, m]."""
        value = _after(self.value, right)
        return Matrix(tf.matmul(left, value) if tf.is_tensor(left) else left.before(value))

    def product(self, inputs: tf.Tensor) -> tf.Tensor:
        """`a V` for a [N, d̄]: [N, m]."""
        return tf.matmul(inputs, self.value)

    def dot(self, other: Matrix | Outer) -> tf.Tensor:
        """Σ V ∘ W for a W [d̄, m]."""
        return tf.reduce_sum(self.value * other.matrix())

    def squared_norm(self) -> tf.Tensor:
        """‖V‖²."""
        return tf.reduce_sum(tf.square(self.value))


@dataclasses.dataclass(frozen=True)
class Outer:
    """A layer's part V = XᵀY of a vector of parameters, as X [N, d̄] and Y [N, m]: `Matrix`, for few N."""

    inputs: tf.Tensor
    derivatives: tf.Tensor

    @property
    def is_cheaper(self) -> bool:
        """Whether V times inverses, its norm and its rows' products cost less than those of a `Matrix`."""
        n, height, width = self.inputs.shape[0], self.inputs.shape[1], self.derivatives.shape[1]
        if n is None:
            return False
        both, size = height + width, height * width
        return n * (height**2 + width**2) + n * size + 2 * n * n * both < size * both + 2 * n * size

    def matrix(self) -> tf.Tensor:
        """V."""
        return tf.matmul(self.inputs, self.derivatives, transpose_a=True)

    def replaced(self, value: tf.Tensor) -> Matrix:
        """As of `Matrix`."""
        return Matrix(value)

    def times(self, left: tf.Tensor | Symmetric, right: tf.Tensor | Symmetric | None = None) -> Outer:
        """As of `Matrix`."""
        return Outer(_after(self.inputs, left), _after(self.derivatives, right))

    def product(self, inputs: tf.Tensor) -> tf.Tensor:
        """As of `Matrix`."""
        return tf.matmul(tf.matmul(inputs, self.inputs, transpose_b=True), self.derivatives)

    def dot(self, other: Matrix | Outer) -> tf.Tensor:
        """As of `Matrix`: Σ (X W) ∘ Y."""
        return tf.reduce_sum(other.product(self.inputs) * self.derivatives)

    def squared_norm(self) -> tf.Tensor:
        """‖XᵀY‖² = Σ (XXᵀ) ∘ (YYᵀ)."""
        x, y = (tf.matmul(part, part, transpose_b=True) for part in (self.inputs, self.derivatives))
        return tf.reduce_sum(x * y)


@dataclasses.dataclass(frozen=True)
class KroneckerLayer:
    """A layer as K-FAC sees it.

    Attributes:
      kernel_slot: The place of its kernel in the flat parameter vector's variables.
      bias_slot: That of its bias, None without.
      inputs: ā [B, p, d̄], the last of d̄ being 1 with a bias.
      derivatives: g [B, R, p, m], scaled by sqrt(w_i/Σw).
      weights: w_i/Σw, [B] or a scalar, where positions count alike; or w_ip/Σw of L positions [B, L].
    """

    kernel_slot: int
    bias_slot: int | None
    inputs: tf.Tensor
    derivatives: tf.Tensor
    weights: tf.Tensor

    def input_factor(self, sharing: Sharing = "expand") -> tf.Tensor:
        """A [d̄, d̄]."""
        inputs, weights = self._weighted_inputs(sharing)
        return tf.matmul(_flat(weights * inputs), _flat(inputs), transpose_a=True)

    def derivative_factor(self, sharing: Sharing = "expand") -> tf.Tensor:
        """G [m, m]."""
        rows = self.derivative_rows(sharing)
        return tf.matmul(rows, rows, transpose_a=True)

    def input_rows(self, sharing: Sharing = "expand") -> tf.Tensor:
        """X [N, d̄] with A = XᵀX."""
        inputs, weights = self._weighted_inputs(sharing)
        return _flat(tf.sqrt(weights) * inputs)

    def _weighted_inputs(self, sharing: Sharing) -> tuple[tf.Tensor, tf.Tensor]:
        """The inputs of positions, or with "reduce" their means, [B, p, d̄], and what each counts for (of rank 3)."""
        inputs, weights = self.inputs, self.weights
        if weights.shape.rank == 2 and weights.shape[1] == inputs.shape[1]:
            positions = weights[..., tf.newaxis]
            if sharing == "expand":
                return inputs, positions
            weights = tf.reduce_sum(positions, axis=1, keepdims=True)
            return tf.reduce_sum(tf.math.divide_no_nan(positions, weights) * inputs, axis=1, keepdims=True), weights
        if weights.shape.rank == 2:  # of other positions than this layer's, which count alike
            weights = tf.reduce_sum(weights, axis=1)
        if sharing == "reduce":
            inputs = tf.reduce_mean(inputs, axis=1, keepdims=True)
        return inputs, tf.reshape(weights / inputs.shape[1], [-1, 1, 1])

    def derivative_rows(self, sharing: Sharing = "expand") -> tf.Tensor:
        """X [N, m] with G = XᵀX."""
        return _flat(tf.reduce_sum(self.derivatives, axis=2) if sharing == "reduce" else self.derivatives)

    def second_moments(self, input_basis: tf.Tensor, derivative_basis: tf.Tensor) -> tf.Tensor:
        """The diagonal of the layer's exact block in the basis U_A ⊗ U_G: [d̄, m] (George et al. 2018, eq. 6)."""
        inputs = tf.einsum("bpd,de->bpe", self.inputs, input_basis)
        derivatives = tf.einsum("brpm,mn->brpn", self.derivatives, derivative_basis)
        if inputs.shape[1] == 1:
            per_example = tf.reduce_sum(tf.square(derivatives), axis=[1, 2])
            return tf.matmul(tf.square(inputs[:, 0]), per_example, transpose_a=True)

        def of_one(total: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            # One example's rows at a time: all of them would be B·R·d̄·m numbers.
            return total + tf.reduce_sum(tf.square(tf.matmul(example[0], example[1], transpose_a=True)), axis=0)

        zero = tf.zeros([inputs.shape[-1], derivatives.shape[-1]], inputs.dtype)
        return tf.foldl(of_one, (inputs, derivatives), zero)

    def row_matvec(self, part: Matrix | Outer) -> tf.Tensor:
        """v_ir · vec(V) = Σ_p g_irp · (ā_ip V) for V [d̄, m]: [B·R]."""
        product = tf.reshape(part.product(_flat(self.inputs)), [-1, *self.derivatives.shape[2:]])
        return tf.reshape(tf.reduce_sum(self.derivatives * product[:, tf.newaxis], axis=[2, 3]), [-1])

    def combine(self, coefficients: tf.Tensor) -> Matrix | Outer:
        """V = Σ_ir c_ir v_ir for c [B·R], as a product where that makes a step cheaper."""
        c = tf.reshape(coefficients, [-1, self.derivatives.shape[1], 1, 1])
        outer = Outer(_flat(self.inputs), _flat(tf.reduce_sum(c * self.derivatives, axis=1)))
        return outer if outer.is_cheaper else outer.replaced(outer.matrix())


@dataclasses.dataclass(frozen=True)
class ExactBlock:
    """A variable whose block of F is taken as it is: free outputs, scales and shifts. F = rowsᵀ rows, rows [B·R, n]."""

    slot: int
    rows: tf.Tensor

    def factor(self) -> tf.Tensor:
        """[n, n]."""
        return tf.matmul(self.rows, self.rows, transpose_a=True)


@dataclasses.dataclass(frozen=True)
class KroneckerLayers:
    """All that K-FAC needs of an operator: its blocks, and the way between them and the flat parameter vector.

    Attributes:
      layers: Those with a kernel.
      exact: The other variables.
      variables: Those of the flat parameter vector [P], in its order.
    """

    layers: tuple[KroneckerLayer, ...]
    exact: tuple[ExactBlock, ...]
    variables: tuple[tf.Variable, ...]

    def split(self, vector: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """A vector [P] as the matrices W̄ [d̄, m] of the layers, the bias their last row, and the exact blocks' [n]."""
        parts = unflatten(vector, self.variables)
        matrices = []
        for layer in self.layers:
            kernel = parts[layer.kernel_slot]
            matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
            if layer.bias_slot is not None:
                matrix = tf.concat([matrix, parts[layer.bias_slot][tf.newaxis]], axis=0)
            matrices.append(matrix)
        return matrices, [tf.reshape(parts[block.slot], [-1]) for block in self.exact]

    def join(self, matrices: Sequence[tf.Tensor], exact: Sequence[tf.Tensor]) -> tf.Tensor:
        """The inverse of `split`: [P]."""
        parts: list[tf.Tensor | None] = [None] * len(self.variables)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = matrix[-1]
                matrix = matrix[:-1]
            parts[layer.kernel_slot] = matrix
        for block, part in zip(self.exact, exact, strict=True):
            parts[block.slot] = part
        return flatten_parts(parts, self.variables)

    @property
    def rows_per_example(self) -> int:
        """R; 0 without layers."""
        return self.layers[0].derivatives.shape[1] if self.layers else 0

    def parts(self, vector: tf.Tensor) -> Parts:
        """A vector [P] as the layers' parts and the exact blocks'."""
        matrices, exact = self.split(vector)
        return [Matrix(matrix) for matrix in matrices], exact

    def joined(self, parts: Parts) -> tf.Tensor:
        """The inverse of `parts`: [P]."""
        return self.join([part.matrix() for part in parts[0]], parts[1])

    def combine(self, coefficients: tf.Tensor) -> Parts:
        """Aᵀc for c [B·R], in parts."""
        exact = [tf.linalg.matvec(block.rows, coefficients, transpose_a=True) for block in self.exact]
        return [layer.combine(coefficients) for layer in self.layers], exact

    def row_product(self, parts: Parts) -> tf.Tensor:
        """A v for v in parts, A the rows of F = AᵀA: [B·R]."""
        terms = [layer.row_matvec(part) for layer, part in zip(self.layers, parts[0], strict=True)]
        terms += [tf.linalg.matvec(block.rows, part) for block, part in zip(self.exact, parts[1], strict=True)]
        return tf.add_n(terms)

    def row_matvec(self, vector: tf.Tensor) -> tf.Tensor:
        """A v for v [P]: [B·R]."""
        return self.row_product(self.parts(vector))

    def sample(self) -> tf.Tensor:
        """Numbers among which one is not finite if A holds one."""
        tensors = [tensor for layer in self.layers for tensor in (layer.inputs, layer.derivatives)]
        return tf.stack([tf.reduce_sum(tensor) for tensor in (*tensors, *(block.rows for block in self.exact))])


def homogeneous(inputs: tf.Tensor) -> tf.Tensor:
    """Inputs [..., d] and a 1 behind them: [..., d + 1]."""
    return tf.concat([inputs, tf.ones_like(inputs[..., :1])], axis=-1)


def _flat(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(values, [-1, values.shape[-1]])


def _after(value: tf.Tensor, matrix: tf.Tensor | Symmetric | None) -> tf.Tensor:
    """V S [N, n] for symmetric S, V itself for None."""
    if matrix is None:
        return value
    return tf.matmul(value, matrix) if tf.is_tensor(matrix) else matrix.after(value)


class KroneckerFactored(tf.linalg.LinearOperator):
    """F̂ = blockdiag(A_l ⊗ G_l) [P, P], in the order of the operator's variables."""

    def __init__(self, layers: KroneckerLayers, sharing: Sharing = "expand", name: str = "KroneckerFactored"):
        """Form the factors.

        Args:
          layers: As `GaussNewton.kronecker_layers` gives them.
          sharing: "expand" or "reduce", for weights that are used at several positions.
          name: The operator's name.
        """
        self._layers = self._no_dependency(layers)
        self._factors = self._no_dependency(
            [(x.input_factor(sharing), x.derivative_factor(sharing)) for x in layers.layers]
        )
        self._exact = self._no_dependency([block.factor() for block in layers.exact])
        super().__init__(
            dtype=layers.variables[0].dtype,
            is_self_adjoint=True,
            is_square=True,
            name=name,
            parameters={"layers": layers, "sharing": sharing, "variables": layers.variables, "name": name},
        )

    def _shape(self) -> tf.TensorShape:
        size = num_parameters(self._layers.variables)
        return tf.TensorShape([size, size])

    def _shape_tensor(self) -> tf.Tensor:
        return tf.constant(self._shape().as_list())

    def _matvec(self, x: tf.Tensor, adjoint: bool = False) -> tf.Tensor:
        matrices, exact = self._layers.split(x)
        products = [tf.matmul(a, tf.matmul(w, g)) for (a, g), w in zip(self._factors, matrices, strict=True)]
        return self._layers.join(products, [tf.linalg.matvec(f, v) for f, v in zip(self._exact, exact, strict=True)])

    def _matmul(self, x: tf.Tensor, adjoint: bool = False, adjoint_arg: bool = False) -> tf.Tensor:
        columns = x if adjoint_arg else tf.linalg.matrix_transpose(x)
        return tf.linalg.matrix_transpose(tf.map_fn(self._matvec, columns))
