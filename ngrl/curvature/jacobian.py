"""The Jacobian of any network, by forward and reverse automatic differentiation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ngrl.curvature.flatten import flatten, num_parameters, unflatten

_ZERO = tf.UnconnectedGradients.ZERO
_CHUNK_BYTES = 2**28


class NetworkJacobian:
    """The Jacobian J of outputs [B, K] = forward(inputs) with respect to `variables`."""

    def __init__(
        self,
        forward: Callable[[Any], tf.Tensor],
        variables: tuple[tf.Variable, ...],
        inputs: Any,
        chunk_size: int | None = None,
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
        self._forward = forward
        self._variables = variables
        self._inputs = inputs
        self._chunk_size = chunk_size
        self.outputs = tf.convert_to_tensor(forward(inputs))

    def jvp(self, vector: tf.Tensor) -> tf.Tensor:
        """J v for v [P]: [B, K]."""
        tangents = unflatten(vector, self._variables)
        with tf.autodiff.ForwardAccumulator(list(self._variables), tangents) as accumulator:
            outputs = self._forward(self._inputs)
        return accumulator.jvp(outputs, _ZERO)

    def vjp(self, cotangent: tf.Tensor) -> tf.Tensor:
        """Jᵀ u for u [B, K]: [P]."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            outputs = self._forward(self._inputs)
        return flatten(tape.gradient(outputs, self._variables, cotangent, _ZERO))

    def product(self, vector: tf.Tensor, metric: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Jᵀ M(y, J v) for v [P]: [P], with one forward pass."""
        tangents = unflatten(vector, self._variables)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            with tf.autodiff.ForwardAccumulator(list(self._variables), tangents) as accumulator:
                outputs = self._forward(self._inputs)
        # v → J v
        tangent = accumulator.jvp(outputs, _ZERO)
        # J v → M J v
        cotangent = metric(outputs, tangent)
        # M J v → Jᵀ M J v
        return flatten(tape.gradient(outputs, self._variables, cotangent, _ZERO))

    def rows(self, factor: tf.Tensor) -> JacobianRows:
        """The rows A_i = factor_i J_i for a factor [B, R, K], formed for a chunk of examples at a time."""
        batch, per_example = factor.shape[0], factor.shape[1]
        size = num_parameters(self._variables)

        def one_example(arguments: tuple[Any, tf.Tensor]) -> tf.Tensor:
            example, mixing = arguments
            example = tf.nest.map_structure(lambda x: x[tf.newaxis], example)
            with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
                tape.watch(self._variables)
                outputs = self._forward(example)[0]
                mixed = [tf.reduce_sum(mixing[r] * outputs) for r in range(per_example)]
            return tf.stack([flatten(tape.gradient(m, self._variables, None, _ZERO)) for m in mixed])

        chunk = self._chunk_size or max(1, _CHUNK_BYTES // (size * per_example * factor.dtype.size))
        if batch is not None and chunk >= batch:
            rows = tf.vectorized_map(one_example, (self._inputs, factor))
        else:
            raise NotImplementedError(math.ceil(1))
        return JacobianRows(tf.reshape(rows, [-1, size]))


@dataclasses.dataclass(frozen=True, eq=False)
class JacobianRows:
    """The rows A [n, P] of a scaled Jacobian."""

    _matrix: tf.Tensor

    def gram(self) -> tf.Tensor:
        """A Aᵀ: [n, n]."""
        return tf.matmul(self._matrix, self._matrix, transpose_b=True)

    def matrix(self) -> tf.Tensor:
        """A itself: [n, P]."""
        return self._matrix

    def diagonal(self) -> tf.Tensor:
        """The diagonal of AᵀA: [P]."""
        return tf.reduce_sum(tf.square(self._matrix), axis=0)
