"""Kronecker-factored curvature: what a layer's block of the Gauss-Newton matrix is made of.

For a layer z = W̄ᵀ ā, with homogeneous inputs ā (a 1 stands for the bias) and rows g = L_iᵀ ∂y_i/∂z, the block of F is
Σ_i w_i ā_i ā_iᵀ ⊗ Σ_r g_ir g_irᵀ. K-FAC (Martens & Grosse 2015, section 3) takes A ⊗ G for it, the product of the
expectations for the expectation of the product:

    A = Σ_i w_i ā_i ā_iᵀ  [d̄, d̄],      G = Σ_i w_i Σ_r g_ir g_irᵀ  [m, m]

The metric's factors L make G the exact expectation over the model's distribution: no targets are sampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from ngrl.curvature.flatten import flatten, num_parameters, unflatten


@dataclasses.dataclass(frozen=True)
class KroneckerLayer:
    """A layer as K-FAC sees it.

    Attributes:
      kernel_slot: The place of its kernel in the flat parameter vector's variables.
      bias_slot: That of its bias, None without.
      inputs: ā [B, d̄], the last column 1 with a bias.
      derivatives: g [B·R, m], scaled by sqrt(w_i/Σw).
      weights: w_i/Σw, [B] or a scalar.
    """

    kernel_slot: int
    bias_slot: int | None
    inputs: tf.Tensor
    derivatives: tf.Tensor
    weights: tf.Tensor

    def input_factor(self) -> tf.Tensor:
        """A [d̄, d̄]."""
        return tf.matmul(tf.reshape(self.weights, [-1, 1]) * self.inputs, self.inputs, transpose_a=True)

    def derivative_factor(self) -> tf.Tensor:
        """G [m, m]."""
        return tf.matmul(self.derivatives, self.derivatives, transpose_a=True)

    def second_moments(self, input_basis: tf.Tensor, derivative_basis: tf.Tensor) -> tf.Tensor:
        """The diagonal of the layer's exact block in the basis U_A ⊗ U_G: [d̄, m] (George et al. 2018, eq. 6)."""
        inputs = tf.square(tf.matmul(self.inputs, input_basis))
        derivatives = tf.square(tf.matmul(self.derivatives, derivative_basis))
        batch = tf.shape(inputs)[0]
        per_example = tf.reduce_sum(tf.reshape(derivatives, [batch, -1, derivatives.shape[-1]]), axis=1)
        return tf.matmul(inputs, per_example, transpose_a=True)


@dataclasses.dataclass(frozen=True)
class FreeBlock:
    """The block of F that belongs to free outputs: their variable's slot, and rows [B·R, D]; F = rowsᵀ rows."""

    slot: int
    rows: tf.Tensor

    def factor(self) -> tf.Tensor:
        """[D, D]."""
        return tf.matmul(self.rows, self.rows, transpose_a=True)


@dataclasses.dataclass(frozen=True)
class KroneckerLayers:
    """All that K-FAC needs of an operator: its blocks, and the way between them and the flat parameter vector.

    Attributes:
      layers: Those with a kernel.
      free: The free outputs, None without.
      variables: Those of the flat parameter vector [P], in its order.
    """

    layers: tuple[KroneckerLayer, ...]
    free: FreeBlock | None
    variables: tuple[tf.Variable, ...]

    def split(self, vector: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor | None]:
        """A vector [P] as the matrices W̄ [d̄, m] of the layers, the bias their last row, and the free outputs' [D]."""
        parts = unflatten(vector, self.variables)
        matrices = []
        for layer in self.layers:
            kernel = parts[layer.kernel_slot]
            matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
            if layer.bias_slot is not None:
                matrix = tf.concat([matrix, parts[layer.bias_slot][tf.newaxis]], axis=0)
            matrices.append(matrix)
        return matrices, None if self.free is None else parts[self.free.slot]

    def join(self, matrices: Sequence[tf.Tensor], free: tf.Tensor | None) -> tf.Tensor:
        """The inverse of `split`: [P]."""
        parts: list[tf.Tensor | None] = [None] * len(self.variables)
        for layer, matrix in zip(self.layers, matrices, strict=True):
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = matrix[-1]
                matrix = matrix[:-1]
            parts[layer.kernel_slot] = matrix
        if self.free is not None:
            parts[self.free.slot] = free
        return flatten(parts)


class KroneckerFactored(tf.linalg.LinearOperator):
    """F̂ = blockdiag(A_l ⊗ G_l) [P, P], in the order of the operator's variables."""

    def __init__(self, layers: KroneckerLayers, name: str = "KroneckerFactored"):
        """Form the factors.

        Args:
          layers: As `GaussNewton.kronecker_layers` gives them.
          name: The operator's name.
        """
        self._layers = self._no_dependency(layers)
        self._factors = self._no_dependency([(x.input_factor(), x.derivative_factor()) for x in layers.layers])
        self._free = None if layers.free is None else layers.free.factor()
        super().__init__(
            dtype=layers.variables[0].dtype,
            is_self_adjoint=True,
            is_square=True,
            name=name,
            parameters={"layers": layers, "variables": layers.variables, "name": name},
        )

    def _shape(self) -> tf.TensorShape:
        size = num_parameters(self._layers.variables)
        return tf.TensorShape([size, size])

    def _shape_tensor(self) -> tf.Tensor:
        return tf.constant(self._shape().as_list())

    def _matvec(self, x: tf.Tensor, adjoint: bool = False) -> tf.Tensor:
        matrices, free = self._layers.split(x)
        products = [tf.matmul(a, tf.matmul(w, g)) for (a, g), w in zip(self._factors, matrices, strict=True)]
        return self._layers.join(products, None if free is None else tf.linalg.matvec(self._free, free))

    def _matmul(self, x: tf.Tensor, adjoint: bool = False, adjoint_arg: bool = False) -> tf.Tensor:
        columns = x if adjoint_arg else tf.linalg.matrix_transpose(x)
        return tf.linalg.matrix_transpose(tf.map_fn(self._matvec, columns))
