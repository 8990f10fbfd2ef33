"""The uses of a network's weights, put together by the weights, and what K-FAC makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ngrl.curvature.kronecker import ExactBlock, KroneckerLayer, KroneckerLayers, homogeneous
from ngrl.curvature.uses import ExplicitRows, Linear, ScaleShift, Use


@dataclasses.dataclass(frozen=True, eq=False)
class UseGroup:
    """Uses of the same weights in the same way.

    Attributes:
      use: The first of them.
      outputs: G [B, R, *shape of z] of each of its outputs.
      owns: Of linear uses, whether all their weights are wanted and no other use has them.
      inputs: Of linear uses, a [B, p, d] of all of them.
      gradients: Of linear uses, G [B, R, p, m] of all of them.
    """

    use: Use
    outputs: list[tf.Tensor]
    owns: bool = False
    inputs: Any = None
    gradients: Any = None


def kronecker_layers(
    groups: Sequence[UseGroup], leftover: ExplicitRows, variables: tuple[tf.Variable, ...], weights: tf.Tensor
) -> KroneckerLayers:
    """Every layer's inputs and derivatives.

    Args:
      groups: All uses of the variables.
      leftover: Rows [n, size] of variables that no layer uses.
      variables: Those of the flat parameter vector, in its order.
      weights: w_i/Σw, [B] or a scalar, or those of positions [B, L].

    Raises:
      TypeError: A variable has no Kronecker rule.
    """
    slots = {variable.ref(): slot for slot, variable in enumerate(variables)}
    layers: list[KroneckerLayer] = []
    exact = [(variable, rows) for variable, rows in leftover if variable.shape.rank < 2]
    _refuse([variable for variable, _ in leftover if variable.shape.rank > 1])
    for group in groups:
        use = group.use
        if isinstance(use, ScaleShift):
            rows = [(variable, rows) for variable, rows in use.rows(group.outputs) if variable.ref() in slots]
            exact += [(variable, tf.reshape(row, [-1, row.shape[-1]])) for variable, row in rows]
        elif isinstance(use, Linear) and not use.transposed and group.owns:
            bias_slot = None if use.bias is None else slots[use.bias.ref()]
            inputs = group.inputs.dense(group.gradients.dtype)
            inputs = inputs if bias_slot is None else homogeneous(inputs)
            layers.append(KroneckerLayer(slots[use.kernel.ref()], bias_slot, inputs, group.gradients, weights))
        else:
            _refuse(use.weights)
    blocks = tuple(ExactBlock(slot, rows) for slot, rows in by_slot(exact, variables).items())
    return KroneckerLayers(tuple(layers), blocks, variables)


def by_slot(explicit: ExplicitRows, variables: Sequence[tf.Variable]) -> dict[int, tf.Tensor]:
    """Rows by their variables' places, in order, those of one variable added up."""
    places = {variable.ref(): slot for slot, variable in enumerate(variables)}
    found: dict[int, list[tf.Tensor]] = {}
    for variable, rows in explicit:
        found.setdefault(places[variable.ref()], []).append(rows)
    return {slot: tf.add_n(found[slot]) for slot in sorted(found)}


def _refuse(variables: Sequence[tf.Variable]) -> None:
    """Raise a TypeError for variables without a Kronecker rule, if there are any."""
    if variables:
        raise TypeError(
            f"K-FAC has no rule for the use of {', '.join(variable.name for variable in variables)} (as in grouped, "
            "depthwise and transposed convolutions, layers without a layer rule, weights of several layers): take "
            "a solver such as Dual() or ConjugateGradient()"
        )
