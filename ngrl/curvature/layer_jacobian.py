"""The Jacobian of a network of Keras layers, layer by layer, and the rows of it that dual solvers use.

One forward pass records how each layer uses its weights (`recording`); one reverse pass a row of an example gives the
derivatives G by what the uses computed, for all examples at once, because examples don't depend on each other. The rows
of the weights follow from the two (`uses`), and none but these are ever formed:

    (A Aᵀ)_(i,r),(j,s) = Σ_uses Σ_p,q (a_ip · a_jq + 1) (G_irp · G_jsq)  or, of explicit rows,  Σ_w R_ir,w · R_js,w

What has no parameters needs no rule: the tape goes through it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature.flatten import flatten_parts, unflatten
from ngrl.curvature.jacobian import JacobianRows, NetworkJacobian
from ngrl.curvature.kronecker import KroneckerLayers
from ngrl.curvature.recording import Recording
from ngrl.curvature.row_blocks import (
    MATRIX_BYTES,
    ExplicitBlock,
    Parts,
    RowBlock,
    by_layer,
    by_size,
    gram_in_panels,
    in_chunks,
)
from ngrl.curvature.use_groups import UseGroup, by_slot, kronecker_layers
from ngrl.curvature.uses import ExplicitRows, Linear, OneHots, Use, Vectors, linear_rows

_LOG = logging.getLogger(__name__)
_ZERO = tf.UnconnectedGradients.ZERO

# Rows of an example for which reverse passes are written out one by one; more of them run in a loop.
_MOST_WRITTEN_OUT = 32

_told: set[tuple[str, ...]] = set()


class LayeredNetwork:
    """A function of a batch whose parameters belong to the layers of some modules.

    A Keras model or layer is one by itself; this tells `GaussNewton` of other functions where to look for layers.
    """

    def __init__(self, forward: Callable[[Any], tf.Tensor], *modules: tf.Module) -> None:
        """Take forward(inputs), which gives outputs [B, K], and the modules that it calls."""
        self.forward = forward
        self.modules = modules

    def __call__(self, inputs: Any) -> tf.Tensor:
        """The outputs [B, K] for a nest of tensors [B, ...]."""
        return self.forward(inputs)


class LayerJacobian(NetworkJacobian):
    """The Jacobian J of outputs [B, K] of a network of layers.

    Products with J itself are those of `NetworkJacobian`; its rows are made layer by layer.
    """

    def __init__(
        self,
        network: LayeredNetwork,
        variables: tuple[tf.Variable, ...],
        inputs: Any,
        chunk_size: int | None = None,
    ) -> None:
        """Run the network on `inputs`, a nest of tensors [B, ...]; see `NetworkJacobian`."""
        self._modules = network.modules
        self._recording = Recording(variables)
        super().__init__(network.forward, variables, inputs, chunk_size)
        if self.unruled:
            _tell_once(self.unruled)

    def _run(self) -> tf.Tensor:
        return self._recording.run(self._forward, self._modules, self._inputs)

    @property
    def unruled(self) -> tuple[str, ...]:
        """What goes the long way: layers without a rule, variables that no layer uses."""
        names = [variable.name for variable in self._leftover]
        return (*dict.fromkeys(self._recording.unruled), *names)

    @property
    def _leftover(self) -> tuple[tf.Variable, ...]:
        return tuple(variable for variable in self._variables if variable.ref() in self._recording.leftover)

    @property
    def has_rows(self) -> bool:
        """Whether an example's outputs depend on that example alone, as far as layers tell."""
        return self._recording.mixing is None

    def rows(self, factor: tf.Tensor) -> LayerRows | JacobianRows:
        """The rows A_i = factor_i J_i for a factor [B, R, K].

        Raises:
          ValueError: A layer mixes examples.
        """
        self._check_rows()
        if len(self._leftover) == len(self._variables):
            return super().rows(factor)
        factored, explicit = self._blocks(self._pull_rows(factor))
        explicit += self._leftover_rows(factor)
        if not (factored or explicit):  # nothing uses the variables
            n = tf.reduce_prod(tf.shape(factor)[:2])
            explicit = [(v, tf.zeros([n, v.shape.num_elements()], v.dtype)) for v in self._variables]
        rows = by_slot(explicit, self._variables)
        return LayerRows(self._variables, tuple(factored), rows, tuple(by_size(rows)))

    def kronecker_layers(self, factor: tf.Tensor, weights: tf.Tensor) -> KroneckerLayers:
        """Inputs and derivatives of every layer, for a factor [B, R, K] and weights as of `KroneckerLayer`.

        Scales, shifts, and vectors that no layer uses have exact blocks.

        Raises:
          TypeError: A layer has no Kronecker rule.
          ValueError: A layer mixes examples.
        """
        self._check_rows()
        groups = self._grouped(self._pull_rows(factor))
        return kronecker_layers(groups, self._leftover_rows(factor), self._variables, weights)

    def _check_rows(self) -> None:
        if not self.has_rows:
            raise ValueError(
                f"{self._recording.mixing} normalises over the batch, so that no example has rows of its own: use "
                "LayerNormalization, set its trainable to False, or a solver that needs products alone"
            )

    def _leftover_rows(self, factor: tf.Tensor) -> ExplicitRows:
        """Rows [n, size] of the variables that no layer uses, through the whole network."""
        leftover = self._leftover
        if not leftover:
            return []
        rows = NetworkJacobian(self._forward, leftover, self._inputs, self._chunk_size).rows(factor).matrix()
        sizes = [variable.shape.num_elements() for variable in leftover]
        return list(zip(leftover, tf.split(rows, sizes, axis=1), strict=True))

    def _pull_rows(self, factor: tf.Tensor) -> list[list[tf.Tensor]]:
        """G [B, R, *shape of z] of every output z of every use."""
        with tf.control_dependencies(self._recording.checks):
            factor = tf.identity(factor)  # else what the rows are put together by may fail first, in its own words
        uses = self._recording.uses
        flat = [z for use in uses for z in use.outputs]

        def pull(cotangent: tf.Tensor) -> list[tf.Tensor]:
            return self._recording.tape.gradient(self.outputs, flat, cotangent, _ZERO)

        if factor.shape[1] <= _MOST_WRITTEN_OUT:
            pulled = [pull(factor[:, row]) for row in range(factor.shape[1])]
            stacked = [g[0][:, tf.newaxis] if len(g) == 1 else tf.stack(g, axis=1) for g in zip(*pulled, strict=True)]
        else:
            specs = [tf.TensorSpec(z.shape, z.dtype) for z in flat]  # of a dtype alone a graph would forget the shape
            by_row = tf.map_fn(pull, tf.transpose(factor, [1, 0, 2]), fn_output_signature=specs)
            stacked = [tf.transpose(g, [1, 0, *range(2, z.shape.rank + 1)]) for g, z in zip(by_row, flat, strict=True)]
        remaining = iter(stacked)
        return [[next(remaining) for _ in use.outputs] for use in uses]

    def _grouped(self, gradients: list[list[tf.Tensor]]) -> list[UseGroup]:
        """The uses with their G, the positions of one layer's calls put together."""
        groups: dict[Any, list[tuple[Any, list[tf.Tensor]]]] = {}
        owners: dict[Any, set[Any]] = {}
        for use, g in zip(self._recording.uses, gradients, strict=True):
            key = _kind(use)
            groups.setdefault(key, []).append((use, g))
            for weight in use.weights:
                owners.setdefault(weight.ref(), set()).add(key)
        kept = {variable.ref() for variable in self._variables} - self._recording.leftover
        found = []
        for key, members in groups.items():
            use, g = members[0]
            if not isinstance(use, Linear):
                found.append(UseGroup(use, g))
                continue
            inputs = use.inputs.join([other.inputs for other, _ in members[1:]])
            positioned = [other.positioned(g) for other, g in members]
            joined = positioned[0] if len(positioned) == 1 else tf.concat(positioned, axis=2)
            own = all(owners[weight.ref()] == {key} and weight.ref() in kept for weight in use.weights)
            found.append(UseGroup(use, g, own, inputs, joined))
        return found

    def _chunk(self, inputs: Vectors | OneHots, gradients: tf.Tensor) -> int | None:
        """How many examples' rows of a layer are formed at a time where they are too many to keep; else None."""
        batch, rows, _, outputs = gradients.shape
        row_bytes = inputs.size * outputs * gradients.dtype.size
        if batch is None or batch * rows <= (self._chunk_size or MATRIX_BYTES // row_bytes):
            return None
        return max(1, self._rows_at_a_time(row_bytes) // rows)

    def _blocks(self, gradients: list[list[tf.Tensor]]) -> tuple[list[FactoredBlock], ExplicitRows]:
        """The uses' rows: as factors where that is cheaper, the calls of one layer together, else as they are."""
        slots = {variable.ref(): slot for slot, variable in enumerate(self._variables)}
        kept = set(slots) - self._recording.leftover
        factored, explicit = [], []
        for group in self._grouped(gradients):
            use, joined = group.use, group.gradients
            if not isinstance(use, Linear):
                explicit += use.rows(group.outputs)
                continue
            cheaper = _is_cheaper_factored(group.inputs, joined)
            chunk = None if cheaper else self._chunk(group.inputs, joined)
            if group.owns and (cheaper or chunk):
                bias_slot = None if use.bias is None else slots[use.bias.ref()]
                kernel_slot = slots[use.kernel.ref()]
                factored.append(FactoredBlock(group.inputs, joined, kernel_slot, bias_slot, use.transposed, chunk))
            else:
                explicit += linear_rows(use, group.inputs, joined)
        return factored, [
            (weight, tf.reshape(rows, [-1, rows.shape[-1]])) for weight, rows in explicit if weight.ref() in kept
        ]


def _kind(use: Use) -> tuple[Any, ...]:
    """Equal for uses whose positions can be put together."""
    if not isinstance(use, Linear):
        return (id(use),)
    return (*[weight.ref() for weight in use.weights], type(use.inputs), use.transposed)


def _is_cheaper_factored(inputs: Vectors | OneHots, gradients: tf.Tensor) -> bool:
    """Whether p² products of two inputs and two derivatives cost less than a product of two rows [d·m], and fit."""
    batch, rows, p, m = gradients.shape
    if p == 1:
        return True
    fit = batch is None or (batch * rows * p) ** 2 * gradients.dtype.size <= MATRIX_BYTES
    return fit and p * p * (inputs.product_cost + m) <= inputs.size * m


@dataclasses.dataclass(frozen=True, eq=False)
class FactoredBlock:
    """The rows of a kernel and its bias as a [B, p, d] and G [B, R, p, m], which no other use shares.

    With `chunk`, products of rows are taken of the rows themselves, those of so many examples at a time.
    """

    inputs: Vectors | OneHots
    gradients: tf.Tensor
    kernel_slot: int
    bias_slot: int | None
    transposed: bool
    chunk: int | None = None

    def gram(self) -> tf.Tensor:
        """Σ_p,q (a_ip · a_jq + 1) (G_irp · G_jsq), [n, n]."""
        g = self.gradients
        if self.chunk is not None:
            n = g.shape[0] * g.shape[1]
            return gram_in_panels(self._some, in_chunks(g.shape[0], self.chunk), g.dtype)[:n, :n]
        rows, positions = g.shape[1:3]
        inputs = tf.cast(self.inputs.gram(), g.dtype)
        if self.bias_slot is not None:
            inputs += 1
        flat = tf.reshape(g, [-1, g.shape[3]])
        products = tf.matmul(flat, flat, transpose_b=True)
        if rows == positions == 1:
            return products * inputs
        batch = g.shape[0] or tf.shape(g)[0]
        products = tf.reshape(products, [batch, rows, positions, batch, rows, positions])
        products *= tf.reshape(inputs, [batch, 1, positions, batch, 1, positions])
        return tf.reshape(tf.reduce_sum(products, axis=[2, 5]), [batch * rows, batch * rows])

    def matvec(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Σ_p G_irp · (a_ip Ẇ + ḃ), [n]."""
        g = self.gradients
        kernel = parts[self.kernel_slot]
        if self.transposed:
            kernel = tf.transpose(tf.reshape(kernel, [-1, self.inputs.size]))
        product = self.inputs.matmul(tf.reshape(kernel, [self.inputs.size, -1]))
        if self.bias_slot is not None:
            product += tf.reshape(parts[self.bias_slot], [-1])
        product = tf.reshape(product, [-1, 1, g.shape[2], g.shape[3]])
        return tf.reshape(tf.reduce_sum(g * product, axis=[2, 3]), [-1])

    def rmatvec(self, coefficients: tf.Tensor, parts: Parts) -> None:
        """Σ_i,p a_ip ⊗ Σ_r c_ir G_irp into its places of `parts`."""
        g = self.gradients
        weighted = tf.reduce_sum(g * tf.reshape(coefficients, [-1, g.shape[1], 1, 1]), axis=1)
        self._place(self.inputs.collect(weighted), tf.reduce_sum(weighted, axis=[0, 1]), parts)

    def matrix(self, parts: Parts) -> None:
        """The rows themselves, [n, size] into its places of `parts`."""
        for slot, rows in zip(self._slots, self._rows(self.inputs, self.gradients), strict=True):
            parts[slot] = rows

    def diagonal(self, parts: Parts) -> None:
        """Σ_ir of the rows' squares into its places of `parts`."""
        if self.gradients.shape[2] == 1 and isinstance(self.inputs, Vectors):
            squares = tf.reduce_sum(tf.square(self.gradients), axis=1)
            kernel = Vectors(tf.square(self.inputs.values)).collect(squares)
            self._place(kernel, tf.reduce_sum(squares, axis=[0, 1]), parts)
            return
        for slot, squares in zip(self._slots, self._sums_of_squares(), strict=True):
            parts[slot] = squares

    def _sums_of_squares(self) -> list[tf.Tensor]:
        def sums(inputs: Vectors | OneHots, gradients: tf.Tensor) -> list[tf.Tensor]:
            return [tf.reduce_sum(tf.square(rows), axis=0) for rows in self._rows(inputs, gradients)]

        if self.chunk is None:
            return sums(self.inputs, self.gradients)
        batch, examples = self.gradients.shape[0], in_chunks(self.gradients.shape[0], self.chunk)

        def some(number: tf.Tensor) -> list[tf.Tensor]:
            inputs, gradients = self._taken(examples[number])
            # What fills up the last chunk counts once.
            is_new = number * examples.shape[1] + tf.range(examples.shape[1]) < batch
            return sums(inputs, tf.where(tf.reshape(is_new, [-1, 1, 1, 1]), gradients, 0))

        dtypes = [self.gradients.dtype] * len(self._slots)
        by_chunk = tf.map_fn(some, tf.range(examples.shape[0]), fn_output_signature=dtypes)
        return [tf.reduce_sum(squares, axis=0) for squares in by_chunk]

    @property
    def _slots(self) -> list[int]:
        return [self.kernel_slot] if self.bias_slot is None else [self.kernel_slot, self.bias_slot]

    def _rows(self, inputs: Vectors | OneHots, gradients: tf.Tensor) -> list[tf.Tensor]:
        """Rows of the kernel [c·R, d·m] and, if there is one, of the bias [c·R, m], for c examples."""
        kernel = inputs.outer(gradients)
        kernel = tf.reshape(kernel, [-1, *kernel.shape[2:]])
        if self.transposed:
            kernel = tf.transpose(kernel, [0, 2, 1])
        rows = [tf.reshape(kernel, [-1, kernel.shape[1:].num_elements()])]
        if self.bias_slot is not None:
            bias = tf.reduce_sum(gradients, axis=2)
            rows.append(tf.reshape(bias, [-1, bias.shape[2]]))
        return rows

    def _taken(self, examples: tf.Tensor) -> tuple[Vectors | OneHots, tf.Tensor]:
        return self.inputs.take(examples), tf.gather(self.gradients, examples)

    def _some(self, examples: tf.Tensor) -> tf.Tensor:
        """The rows of some examples [c], side by side [c·R, size]."""
        return tf.concat(self._rows(*self._taken(examples)), axis=1)

    def _place(self, kernel: tf.Tensor, bias: tf.Tensor, parts: Parts) -> None:
        parts[self.kernel_slot] = tf.transpose(kernel) if self.transposed else kernel
        if self.bias_slot is not None:
            parts[self.bias_slot] = bias


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRows:
    """The rows A [n, P] of a scaled Jacobian, n = B·R: some as factors, some explicit, none for unused variables."""

    variables: tuple[tf.Variable, ...]
    factored: tuple[FactoredBlock, ...]
    explicit: dict[int, tf.Tensor]  # [n, size] by the variable's place
    joined: tuple[ExplicitBlock, ...]  # the same, as products are quick

    @property
    def _all(self) -> tuple[FactoredBlock | ExplicitBlock, ...]:
        return (*self.factored, *self.joined)

    def gram(self) -> tf.Tensor:
        """A Aᵀ: [n, n]."""
        return tf.add_n([block.gram() for block in self._all])

    def matvec(self, vector: tf.Tensor) -> tf.Tensor:
        """A v for v [P]: [n]."""
        parts = unflatten(vector, self.variables)
        return tf.add_n([block.matvec(parts) for block in self._all])

    def rmatvec(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Aᵀ c for c [n]: [P]."""
        parts: Parts = [None] * len(self.variables)
        for block in self._all:
            block.rmatvec(coefficients, parts)
        return flatten_parts(parts, self.variables)

    def matrix(self) -> tf.Tensor:
        """A itself: [n, P]."""
        parts: Parts = [None] * len(self.variables)
        for block in self._all:
            block.matrix(parts)
        n = next(tf.shape(part)[0] for part in parts if part is not None)
        zeros = [tf.zeros([n, variable.shape.num_elements()], variable.dtype) for variable in self.variables]
        return tf.concat([zero if part is None else part for part, zero in zip(parts, zeros, strict=True)], axis=1)

    def diagonal(self) -> tf.Tensor:
        """The diagonal of AᵀA: [P]."""
        parts: Parts = [None] * len(self.variables)
        for block in self._all:
            block.diagonal(parts)
        return flatten_parts(parts, self.variables)

    def blocks(self) -> list[RowBlock]:
        """A layer a block."""
        return [*self.factored, *by_layer(self.explicit, self.variables)]


def _tell_once(names: tuple[str, ...]) -> None:
    if names not in _told:
        _told.add(names)
        _LOG.warning("no layer rule for %s: rows by a vectorised Jacobian, which is slower", ", ".join(names))
