"""The Jacobian of a `DenseStack` without a tape, and the rows of it that dual solvers use.

For a chain of Dense layers the Gram matrix of the Jacobian's rows follows from the inputs of the layers and the
back-propagated output derivatives alone (the structure behind Ren & Goldfarb 2019, arXiv:1906.02353):

    a_l [B, d_l]   the input of layer l;  z_l = a_l W_l + b_l;  a_{l+1} = φ_l(z_l)
    G_l [n, m_l]   the derivative of each row (n = B·R of them) with respect to z_l
    G_f [n, D]     the derivative of each row with respect to the free outputs, the same for every example

    (A Aᵀ)_(i,r),(j,s) = Σ_l (a_l,i · a_l,j + 1) (G_l,ir · G_l,js) + G_f,ir · G_f,js
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from ngrl.curvature.flatten import flatten, unflatten
from ngrl.curvature.kronecker import ExactBlock, KroneckerLayer, KroneckerLayers, homogeneous
from ngrl.curvature.layer_jacobian import FactoredBlock
from ngrl.curvature.row_blocks import ExplicitBlock, RowBlock
from ngrl.curvature.uses import Vectors


@dataclasses.dataclass(frozen=True)
class LinearLayer:
    """A layer at θ: kernel W [d, m], inputs a [B, d], slope φ'(z) [B, m] (None: 1), places in the vector."""

    kernel: tf.Tensor
    inputs: tf.Tensor
    slope: tf.Tensor | None
    kernel_slot: int
    bias_slot: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class StackJacobian:
    """The Jacobian J of a dense stack's outputs, kept as its layers' inputs and slopes.

    With free outputs [D] the outputs are the chain's [B, K] and these: [B, K + D]. Their block of J is the
    identity for every example. Without, D = 0.

    Attributes:
      layers: the chain at θ.
      variables: the variables of the flat parameter vector, in its order.
      outputs: [B, K + D].
      free_slot: the place of the free outputs in `variables`, None without.
    """

    layers: tuple[LinearLayer, ...]
    variables: tuple[tf.Variable, ...]
    outputs: tf.Tensor
    free_slot: int | None = None

    def jvp(self, vector: tf.Tensor) -> tf.Tensor:
        """J v for v [P]: [B, K + D]."""
        parts = unflatten(vector, self.variables)
        tangent = self._push(parts)
        return tangent if self.free_slot is None else append_free(tangent, parts[self.free_slot])

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
        """Jᵀ u for u [B, K + D]: [P]."""
        chain, free = self._split(cotangent)
        return self._collect(self.backpropagate(chain, 1), None if free is None else tf.reduce_sum(free, axis=0))

    def product(self, vector: tf.Tensor, metric: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Jᵀ M(y, J v) for v [P]: [P]."""
        return self.vjp(metric(self.outputs, self.jvp(vector)))

    def backpropagate(self, rows: tf.Tensor, rows_per_example: int) -> list[tf.Tensor]:
        """Rows [B·R, K] of derivatives by the chain's outputs, carried back to every layer's z: G_l [B·R, m_l]."""
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
        """The rows A_i = factor_i J_i for a factor [B, R, K + D]."""
        rows_per_example = factor.shape[1]
        chain, free = self._split(tf.reshape(factor, [-1, factor.shape[2]]))
        return StackRows(self, tuple(self.backpropagate(chain, rows_per_example)), rows_per_example, free)

    def _split(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Rows [n, K + D] as [n, K] for the chain's outputs and [n, D] for the free ones."""
        if self.free_slot is None:
            return rows, None
        sizes = [self.layers[-1].kernel.shape[1], self.variables[self.free_slot].shape[0]]
        chain, free = tf.split(rows, sizes, axis=1)
        return chain, free

    def _collect(self, gradients: Sequence[tf.Tensor], free: tf.Tensor | None) -> tf.Tensor:
        """Σ_l,i (∂z_l,i/∂θ)ᵀ g_l,i for g_l [B, m_l]: dW_l = a_lᵀ g_l and db_l = Σ_i g_l,i, as one [P].

        `free` [D] is the part of the free outputs, summed over the batch already.
        """
        parts: list[tf.Tensor | None] = [None] * len(self.variables)
        for layer, g in zip(self.layers, gradients, strict=True):
            parts[layer.kernel_slot] = tf.matmul(layer.inputs, g, transpose_a=True)
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = tf.reduce_sum(g, axis=0)
        if self.free_slot is not None:
            parts[self.free_slot] = free
        return flatten(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class StackRows:
    """The rows A [n, P] of a dense stack's scaled Jacobian, kept as G_l [n, m_l] and G_f [n, D] with n = B·R."""

    jacobian: StackJacobian
    gradients: tuple[tf.Tensor, ...]
    rows_per_example: int
    free: tf.Tensor | None = None

    def _layers(self) -> Iterator[tuple[LinearLayer, tf.Tensor]]:
        return zip(self.jacobian.layers, self.gradients, strict=True)

    def gram(self) -> tf.Tensor:
        """A Aᵀ [n, n] = Σ_l (a_l a_lᵀ + 1) ∘ (G_l G_lᵀ) + G_f G_fᵀ."""
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
        if self.free is not None:
            total += tf.matmul(self.free, self.free, transpose_b=True)
        return total

    def matvec(self, vector: tf.Tensor) -> tf.Tensor:
        """A v for v [P]: [n], where (A v)_ir = Σ_l G_l,ir · (a_l,i Ẇ_l + ḃ_l) + G_f,ir · ḟ."""
        parts = unflatten(vector, self.jacobian.variables)
        terms = [
            tf.reduce_sum(_scale_examples(g, _affine(layer, parts), self.rows_per_example), axis=-1)
            for layer, g in self._layers()
        ]
        if self.jacobian.free_slot is not None:
            terms.append(tf.linalg.matvec(self.free, parts[self.jacobian.free_slot]))
        return tf.add_n(terms)

    def rmatvec(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Aᵀ c for c [n]: [P], where dW_l = Σ_i a_l,i (Σ_r c_ir G_l,ir)ᵀ and df = G_fᵀ c."""
        r = self.rows_per_example
        weighted = [coefficients[:, tf.newaxis] * g for g in self.gradients]
        if r > 1:
            weighted = [tf.reduce_sum(tf.reshape(g, [-1, r, g.shape[-1]]), axis=1) for g in weighted]
        free = None if self.free is None else tf.linalg.matvec(self.free, coefficients, transpose_a=True)
        return self.jacobian._collect(weighted, free)

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
        if self.jacobian.free_slot is not None:
            parts[self.jacobian.free_slot] = self.free
        return tf.concat(parts, axis=1)

    def blocks(self) -> list[RowBlock]:
        """A layer's kernel and bias a block, the free outputs one."""
        blocks: list[RowBlock] = []
        for layer, g in self._layers():
            gradients = tf.reshape(g, [-1, self.rows_per_example, 1, g.shape[1]])
            inputs = Vectors(layer.inputs[:, tf.newaxis])
            blocks.append(FactoredBlock(inputs, gradients, layer.kernel_slot, layer.bias_slot, transposed=False))
        slot = self.jacobian.free_slot
        if self.free is not None and slot is not None:
            blocks.append(ExplicitBlock(self.free, (slot,), (self.free.shape[1],)))
        return blocks

    def kronecker_layers(self, weights: tf.Tensor) -> KroneckerLayers:
        """Inputs and derivatives of every layer, for example weights w_i/Σw ([B] or a scalar)."""
        layers = []
        for layer, g in self._layers():
            inputs = layer.inputs if layer.bias_slot is None else homogeneous(layer.inputs)
            g = tf.reshape(g, [-1, self.rows_per_example, 1, g.shape[-1]])
            layers.append(KroneckerLayer(layer.kernel_slot, layer.bias_slot, inputs[:, tf.newaxis], g, weights))
        slot = self.jacobian.free_slot
        exact = () if slot is None or self.free is None else (ExactBlock(slot, self.free),)
        return KroneckerLayers(tuple(layers), exact, self.jacobian.variables)

    def diagonal(self) -> tf.Tensor:
        """The diagonal of AᵀA, [P]: Σ_ir a_l,i² (G_l,ir²)ᵀ and Σ_ir G_f,ir²."""
        r = self.rows_per_example
        parts: list[tf.Tensor | None] = [None] * len(self.jacobian.variables)
        for layer, g in self._layers():
            squares = tf.square(g)
            if r > 1:
                squares = tf.reduce_sum(tf.reshape(squares, [-1, r, g.shape[-1]]), axis=1)
            parts[layer.kernel_slot] = tf.matmul(tf.square(layer.inputs), squares, transpose_a=True)
            if layer.bias_slot is not None:
                parts[layer.bias_slot] = tf.reduce_sum(squares, axis=0)
        if self.jacobian.free_slot is not None:
            parts[self.jacobian.free_slot] = tf.reduce_sum(tf.square(self.free), axis=0)
        return flatten(parts)


def append_free(chain: tf.Tensor, free: tf.Tensor) -> tf.Tensor:
    """[B, K] and, behind it, `free` [D] for every example: [B, K + D]."""
    batch = chain.shape[0] or tf.shape(chain)[0]
    return tf.concat([chain, tf.broadcast_to(free, [batch, free.shape[0]])], axis=1)


def _affine(layer: LinearLayer, parts: Sequence[tf.Tensor]) -> tf.Tensor:
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
