"""The Kronecker factors that K-FAC keeps of a network's layers, what is made of them, and products with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf

from ngrl import seeding
from ngrl.solvers import factor_inverses
from ngrl.solvers.solution import damped

State = dict[str, tf.Tensor]
Judged = tuple[State, tf.Tensor]  # and whether a batch could be taken into it
Inverse = Literal["factored", "exact", "ekfac", "prong"]
Sharing = Literal["expand", "reduce"]
_NO_KERNELS = ("bias", "gamma", "beta")


@dataclasses.dataclass(frozen=True)
class Factors:
    """How factors are kept and inverted; the arguments are those of `Kfac`. Settings alone: the state is handed on."""

    decay: float
    inverse: Inverse
    sharing: Sharing
    rank: int | None
    seed: int

    def slots(self, variables: Sequence[tf.Variable]) -> State:
        """The factors and what is made of them, before the first batch; see `Solver.slots`."""
        dtype = variables[0].dtype
        state: State = {}
        biases = _biases(variables)
        for slot, variable in enumerate(variables):
            size = variable.shape.num_elements()
            if not _is_kernel(variable):
                if slot not in biases.values():
                    state[f"{slot}/exact"] = tf.zeros([size, size], dtype)
                continue
            width = variable.shape[-1]
            height = size // width + (slot in biases)
            sizes = {"inputs": height, "derivatives": width}
            for name in ("inputs",) if self.inverse == "prong" else sizes:
                columns = self.rank if self._is_low_rank(sizes[name]) else sizes[name]
                state[f"{slot}/{name}"] = tf.zeros([sizes[name], columns], dtype)
                state[f"{slot}/{name}_inverse"] = tf.zeros([sizes[name], columns], dtype)
                if self._is_low_rank(sizes[name]):
                    state[f"{slot}/{name}_scale"] = tf.zeros([], dtype)
            if self.inverse in ("exact", "ekfac"):
                state[f"{slot}/eigenvalues"] = tf.zeros([height, width], dtype)
        return state

    def _is_low_rank(self, size: int) -> bool:
        return self.rank is not None and size > 2 * self.rank

    def averages(self, layers: Any, state: State, number: tf.Tensor) -> Judged:
        """The state after the `number`th batch in its running averages; as it was where a factor overflows."""
        found, rows = {}, {}
        for layer in layers.layers:
            place = f"{layer.kernel_slot}/"
            if self._is_low_rank(layer.inputs.shape[-1]):
                rows[f"{place}inputs"] = layer.input_rows(self.sharing)
            else:
                found[f"{place}inputs"] = layer.input_factor(self.sharing)
            if self._is_low_rank(layer.derivatives.shape[-1]):
                rows[f"{place}derivatives"] = layer.derivative_rows(self.sharing)
            elif self.inverse != "prong":
                found[f"{place}derivatives"] = layer.derivative_factor(self.sharing)
        found |= {f"{block.slot}/exact": block.factor() for block in layers.exact}
        low_rank: State = {}
        if rows:
            roots = [state[name] for name in rows]
            sketches = [self._sketch(name, state) for name in rows]
            keep = self._kept(number, roots[0].dtype)
            averaged = factor_inverses.averaged(roots, list(rows.values()), sketches, keep)
            low_rank = dict(zip(rows, averaged, strict=True))
        # No entry of a positive semi-definite matrix is larger than its trace, no difference of two than their sum.
        traces = [2 * tf.linalg.trace(new) for new in found.values()]
        traces += [tf.reduce_sum(tf.square(root)) for root in low_rank.values()]

        def average(kept: State) -> State:
            return kept | {name: self._averaged(kept[name], new, number) for name, new in found.items()} | low_rank

        return _if_finite(traces, average, state)

    def _sketch(self, name: str, state: State) -> tf.Tensor:
        """What the average of low rank by this name is multiplied by, [n, r]."""
        slot, part = name.split("/")
        shape = state[name].shape
        place = 2 * int(slot) + int(part == "derivatives")
        fresh = seeding.generator(self.seed, seeding.Stream.FACTOR_SKETCHES, place).normal(size=shape)
        return self._inverse_of(name, state).sketch(tf.constant(fresh / math.sqrt(shape[0]), state[name].dtype))

    def inverted(self, layers: Any, state: State, damping: tf.Tensor) -> State:
        """What is made of the running averages every `period` steps: inverses, or bases and eigenvalues."""
        if self.inverse == "factored":
            return self._factored_inverses(layers, state, damping)
        found: State = {}
        for layer in layers.layers:
            place = f"{layer.kernel_slot}/"
            inputs = state[f"{place}inputs"]
            if self.inverse == "prong":
                # The bias is not damped: by blocks, this inverse is that of Σ + λI and a shift by the mean.
                shift = damping * tf.ones(inputs.shape[:1], inputs.dtype)
                if layer.bias_slot is not None:
                    shift *= 1 - tf.one_hot(inputs.shape[0] - 1, inputs.shape[0], dtype=inputs.dtype)
                found[f"{place}inputs_inverse"] = factor_inverses.dense(inputs + tf.linalg.diag(shift))
                continue
            left, right, found[f"{place}eigenvalues"] = factor_inverses.eigenbasis(inputs, state[f"{place}derivatives"])
            found |= {f"{place}inputs_inverse": left, f"{place}derivatives_inverse": right}
        return found

    def _factored_inverses(self, layers: Any, state: State, damping: tf.Tensor) -> State:
        """`(A + π√λ I)⁻¹` and `(G + √λ/π I)⁻¹` of every layer."""
        found: State = {}
        low_rank = {}
        for layer in layers.layers:
            names = [f"{layer.kernel_slot}/{name}" for name in ("inputs", "derivatives")]
            a_mean, g_mean = (self._mean_eigenvalue(state[name]) for name in names)
            for name, shift in zip(names, factor_inverses.dampings(a_mean, g_mean, damping), strict=True):
                if self._is_low_rank(state[name].shape[0]):
                    low_rank[name] = shift
                else:
                    found[f"{name}_inverse"] = factor_inverses.dense(damped(state[name], shift))
        if low_rank:
            inverses = factor_inverses.low_rank([state[name] for name in low_rank], list(low_rank.values()))
            for name, inverse in zip(low_rank, inverses, strict=True):
                found |= {f"{name}_inverse": inverse.root, f"{name}_scale": inverse.scale}
        return found

    def _mean_eigenvalue(self, factor: tf.Tensor) -> tf.Tensor:
        if self._is_low_rank(factor.shape[0]):
            return tf.reduce_sum(tf.square(factor)) / factor.shape[0]
        return tf.reduce_mean(tf.linalg.diag_part(factor))

    def _inverse_of(self, name: str, state: State) -> Any:
        """The inverse of the factor by this name, as a matrix or `LowRank`."""
        matrix = state[f"{name}_inverse"]
        return factor_inverses.LowRank(matrix, state[f"{name}_scale"]) if f"{name}_scale" in state else matrix

    def eigenvalues(self, layers: Any, state: State, number: tf.Tensor) -> Judged:
        """The state after the `number`th batch in EKFAC's eigenvalues in the present bases; as it was on overflow."""
        found = {}
        for layer in layers.layers:
            bases = (state[f"{layer.kernel_slot}/{name}_inverse"] for name in ("inputs", "derivatives"))
            found[f"{layer.kernel_slot}/eigenvalues"] = layer.second_moments(*bases)

        def average(kept: State) -> State:
            return kept | {name: self._averaged(kept[name], new, number) for name, new in found.items()}

        return _if_finite([tf.reduce_sum(new) for new in found.values()], average, state)

    def solve(self, layer: Any, part: Any, damping: tf.Tensor, state: State) -> Any:
        """One layer's part of the solution."""
        place = f"{layer.kernel_slot}/"
        left = self._inverse_of(f"{place}inputs", state)
        if self.inverse == "prong":
            return part.times(left)
        right = self._inverse_of(f"{place}derivatives", state)
        if self.inverse == "factored":
            return part.times(left, right)
        # U_A ((U_Aᵀ V U_G) / (S + λ)) U_Gᵀ
        rotated = tf.matmul(left, tf.matmul(part.matrix(), right), transpose_a=True)
        rotated /= state[f"{place}eigenvalues"] + damping
        return part.replaced(tf.matmul(left, tf.matmul(rotated, right, transpose_b=True)))

    def _averaged(self, old: tf.Tensor, new: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return new + self._kept(number, new.dtype) * (old - new)

    def _kept(self, number: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        return tf.minimum(1 - 1 / tf.cast(number, dtype), tf.constant(self.decay, dtype))


def when(condition: tf.Tensor, change: Callable[[Any], Any], values: Any) -> Any:
    """`change(values)` where the condition holds, else `values`.

    A loop of one turn at most: XLA changes in place what a loop carries, and copies what either branch of a condition
    gives, which for the factors costs as much as a third of a step.
    """
    once = (tf.constant(False),)
    return tf.while_loop(lambda goes_on, _: goes_on, lambda _, kept: (*once, change(kept)), (condition, values))[1]


def _if_finite(numbers: Sequence[tf.Tensor], change: Callable[[State], State], state: State) -> Judged:
    """`change(state)` if some scalars are finite, else `state`; and whether they are."""
    finite = tf.reduce_all(tf.math.is_finite(tf.stack(numbers)))
    return when(finite, change, state), finite


def misnamed(layers: Any) -> str | None:
    """Which variable is taken for another than its layer says, for a message; None if none is.

    Before the first batch nothing but variables is known: kernels and biases are told by their names and places.
    """
    biases = _biases(layers.variables)
    for layer in layers.layers:
        kernel = layers.variables[layer.kernel_slot]
        if not _is_kernel(kernel):
            return f"the name of a kernel must not begin with {', '.join(_NO_KERNELS)}"
        if layer.bias_slot is not None and biases.get(layer.kernel_slot) != layer.bias_slot:
            bias = layers.variables[layer.bias_slot].name
            return f"its bias, {bias}, must have a name that begins with bias and come next in the order of variables"
        if layer.bias_slot is None and layer.kernel_slot in biases:
            other = layers.variables[biases[layer.kernel_slot]].name
            return f"{other}, which is no bias of that, must have a name that doesn't begin with bias"
    return None


def _is_kernel(variable: tf.Variable) -> bool:
    return variable.shape.rank > 1 and not _last_name(variable).startswith(_NO_KERNELS)


def _last_name(variable: tf.Variable) -> str:
    return variable.name.rsplit("/", 1)[-1]


def _biases(variables: Sequence[tf.Variable]) -> dict[int, int]:
    """The places of biases by those of their kernels: before them, but for a recurrent kernel between the two."""
    found = {}
    for slot, variable in enumerate(variables):
        kernel = slot - 2 if slot and _last_name(variables[slot - 1]).startswith("recurrent") else slot - 1
        if kernel < 0 or variable.shape.rank != 1 or not _last_name(variable).startswith("bias"):
            continue
        # Free outputs may have the shape of a bias, but not its name.
        if variables[kernel].shape.rank > 1 and variable.shape == variables[kernel].shape[-1:]:
            found[kernel] = slot
    return found
