"""The rows of a scaled Jacobian taken apart by layers: A = (A_1, A_2, ...), each with its own columns.

AAᵀ = Σ_l A_l A_lᵀ; without the products of two layers, F = AᵀA becomes blockdiag(A_lᵀ A_l).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import tensorflow as tf

from ngrl.curvature.flatten import flatten, flatten_parts, unflatten

Parts = list[tf.Tensor | None]

#: Bytes of Jacobian rows that are kept.
MATRIX_BYTES = 2**30

#: Columns up to which a block of its own costs more than to copy them beside others.
SMALL = 2**11


def in_chunks(count: int | tf.Tensor, chunk: int) -> tf.Tensor:
    """The numbers 0 … count − 1 in chunks [m, c], c ≤ chunk; the last one is filled up with the last number."""
    chunks = (count + chunk - 1) // chunk
    size = (count + chunks - 1) // chunks
    return tf.reshape(tf.minimum(tf.range(chunks * size), count - 1), [chunks, size])


def gram_in_panels(some: Callable[[tf.Tensor], tf.Tensor], indices: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """A Aᵀ of rows that are formed again for each panel, `some(indices[i])` [c, P] at a time: [m·c, m·c]."""

    def panel(chunk: tf.Tensor) -> tf.Tensor:
        # A_chunk Aᵀ: [c, m·c]
        rows = some(chunk)
        blocks = tf.map_fn(
            lambda others: tf.matmul(rows, some(others), transpose_b=True), indices, fn_output_signature=dtype
        )
        return tf.reshape(tf.transpose(blocks, [1, 0, 2]), [blocks.shape[1], -1])

    panels = tf.map_fn(panel, indices, fn_output_signature=dtype)
    return tf.reshape(panels, [-1, panels.shape[-1]])


class RowBlock(Protocol):
    """A_l [n, size]; of the parts of a vector [P], one a variable, it reads and writes its own alone."""

    def gram(self) -> tf.Tensor:
        """A_l A_lᵀ: [n, n]."""

    def matvec(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """A_l v_l: [n]."""

    def rmatvec(self, coefficients: tf.Tensor, parts: Parts) -> None:
        """A_lᵀ c for c [n], into its places of `parts`."""


@dataclasses.dataclass(frozen=True, eq=False)
class ExplicitBlock:
    """A_l as it is [n, size], of the variables at some places, side by side."""

    rows: tf.Tensor
    slots: tuple[int, ...]
    sizes: tuple[int, ...]

    def gram(self) -> tf.Tensor:
        """A_l A_lᵀ: [n, n]."""
        return tf.matmul(self.rows, self.rows, transpose_b=True)

    def matvec(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """A_l v_l: [n]."""
        return tf.linalg.matvec(self.rows, flatten([parts[slot] for slot in self.slots]))

    def rmatvec(self, coefficients: tf.Tensor, parts: Parts) -> None:
        """A_lᵀ c for c [n], into its places of `parts`."""
        # Twice the same: a product with one vector XLA joins to what forms the rows, and reads column by column, which
        # takes several times as long.
        self._cut(tf.matmul(tf.stack([coefficients, coefficients]), self.rows)[0], parts)

    def matrix(self, parts: Parts) -> None:
        """The rows themselves, [n, size] into its places of `parts`."""
        self._cut(self.rows, parts)

    def diagonal(self, parts: Parts) -> None:
        """The columns' sums of squares into its places of `parts`."""
        self._cut(tf.reduce_sum(tf.square(self.rows), axis=0), parts)

    def _cut(self, joined: tf.Tensor, parts: Parts) -> None:
        for slot, part in zip(self.slots, tf.split(joined, list(self.sizes), axis=-1), strict=True):
            parts[slot] = part


def side_by_side(rows: dict[int, tf.Tensor]) -> ExplicitBlock:
    """One block of the rows [n, size] of the variables at some places."""
    parts = list(rows.values())
    return ExplicitBlock(tf.concat(parts, axis=1), tuple(rows), tuple(part.shape[1] for part in parts))


def by_size(rows: dict[int, tf.Tensor]) -> list[ExplicitBlock]:
    """A block for each variable with many columns, which aren't copied so, and one for all others."""
    large = [{slot: part} for slot, part in rows.items() if part.shape[1] > SMALL]
    small = {slot: part for slot, part in rows.items() if part.shape[1] <= SMALL}
    return [side_by_side(group) for group in (*large, small) if group]


def by_layer(rows: dict[int, tf.Tensor], variables: Sequence[tf.Variable]) -> list[ExplicitBlock]:
    """One block for those variables whose names say the same layer."""
    groups: dict[str, dict[int, tf.Tensor]] = {}
    for slot, part in rows.items():
        scope, _, _ = variables[slot].name.rpartition("/")
        groups.setdefault(scope or variables[slot].name, {})[slot] = part
    return [side_by_side(group) for group in groups.values()]


class RowBlocks:
    """All blocks of an operator's rows, as solvers use them.

    Args:
      blocks: In any order; no variable is in two.
      variables: Those of the flat parameter vector [P], in its order; one in no block has zero columns.
    """

    def __init__(self, blocks: Sequence[RowBlock], variables: Sequence[tf.Variable]) -> None:
        self._blocks, self._variables = tuple(blocks), tuple(variables)

    def grams(self) -> list[tf.Tensor]:
        """A_l A_lᵀ [n, n] of each block; their sum is AAᵀ."""
        return [block.gram() for block in self._blocks]

    def matvecs(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """A_l v_l [n] of each block for v [P]; their sum is A v."""
        parts = unflatten(vector, self._variables)
        return [block.matvec(parts) for block in self._blocks]

    def rmatvec(self, coefficients: Sequence[tf.Tensor]) -> tf.Tensor:
        """(A_1ᵀ c_1, A_2ᵀ c_2, ...) in the order of the flat vector [P], for a c_l [n] a block."""
        parts: Parts = [None] * len(self._variables)
        for block, c in zip(self._blocks, coefficients, strict=True):
            block.rmatvec(c, parts)
        return flatten_parts(parts, self._variables)
