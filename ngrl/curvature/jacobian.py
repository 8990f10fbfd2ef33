"""The Jacobian of any network, by forward and reverse automatic differentiation."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from ngrl.checks import check_optional_count
from ngrl.curvature.flatten import flatten, num_parameters, unflatten
from ngrl.curvature.row_blocks import MATRIX_BYTES, ExplicitBlock, by_layer, gram_in_panels, in_chunks

_ZERO = tf.UnconnectedGradients.ZERO

# Bytes of Jacobian rows that are formed at a time.
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
        """Run `forward` on `inputs`, a nest of tensors [B, ...]; `chunk_size` rows are formed at a time.

        Raises:
          ValueError: `forward` doesn't return a tensor, or `chunk_size` isn't positive.
        """
        self._forward = forward
        self._variables = variables
        self._inputs = inputs
        self._chunk_size = check_optional_count("chunk_size", chunk_size)
        self.outputs = self._run()
        if not tf.is_tensor(self.outputs):
            raise ValueError(f"forward must return a tensor [B, K], got a {type(self.outputs).__name__}")

    def _run(self) -> tf.Tensor:
        """The outputs."""
        return self._forward(self._inputs)

    def jvp(self, vector: tf.Tensor) -> tf.Tensor:
        """J v for v [P]: [B, K]."""
        return self._push(vector)[1]

    def vjp(self, cotangent: tf.Tensor) -> tf.Tensor:
        """Jᵀ u for u [B, K]: [P]."""
        with self._tape() as tape:
            outputs = self._forward(self._inputs)
        return self._pull(tape, outputs, cotangent)

    def product(self, vector: tf.Tensor, metric: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """Jᵀ M(y, J v) for v [P]: [P], with one forward pass for J and Jᵀ."""
        with self._tape() as tape:
            # v → J v
            outputs, tangent = self._push(vector)
        # J v → M J v
        cotangent = metric(outputs, tangent)
        # M J v → Jᵀ M J v
        try:
            return self._pull(tape, outputs, cotangent)
        except tf.errors.InternalError:
            # A function that Keras compiles, as of convolutions in groups, and that the forward mode has gone through
            # tells an eager tape nothing: one pass for each.
            return self.vjp(cotangent)

    @contextlib.contextmanager
    def _tape(self) -> Iterator[tf.GradientTape]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            yield tape

    def _pull(self, tape: tf.GradientTape, outputs: tf.Tensor, cotangent: tf.Tensor) -> tf.Tensor:
        return flatten(tape.gradient(outputs, self._variables, cotangent, _ZERO))

    def _push(self, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The outputs and J v, by forward-mode differentiation."""
        tangents = unflatten(vector, self._variables)
        try:
            with tf.autodiff.ForwardAccumulator(list(self._variables), tangents) as accumulator:
                outputs = self._forward(self._inputs)
            return outputs, accumulator.jvp(outputs, _ZERO)
        except (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
            # `forward` has run before, so it is the forward mode that fails: with embedding look-ups and
            # conditions it does, in graphs. Jᵀu is linear in u, and the gradient of vᵀ(Jᵀu) with respect to u is J v.
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                with self._tape() as inner:
                    outputs = self._forward(self._inputs)
                u = tf.zeros_like(outputs)
                outer.watch(u)
                pulled = self._pull(inner, outputs, u)
            return outputs, outer.gradient(pulled, u, vector, _ZERO)

    def rows(self, factor: tf.Tensor) -> Any:
        """The rows A_i = factor_i J_i for a factor [B, R, K]."""
        row_bytes = num_parameters(self._variables) * factor.dtype.size
        chunk = self._rows_at_a_time(row_bytes)
        return JacobianRows(self, factor, chunk, max_kept=max(chunk, MATRIX_BYTES // row_bytes))

    def _rows_at_a_time(self, row_bytes: int) -> int:
        return self._chunk_size or max(1, _CHUNK_BYTES // row_bytes)

    def some_rows(self, factor: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
        """The rows A [n, P] with numbers `indices` [c], formed all at once: [c, P].

        Row (i, r) is the gradient of factor_ir · forward(example i), which takes for granted that i's outputs
        depend on example i alone.
        """
        rows_per_example = factor.shape[1]
        cotangents = tf.gather(tf.reshape(factor, [-1, factor.shape[2]]), indices)
        examples = tf.nest.map_structure(lambda x: tf.gather(x, indices // rows_per_example), self._inputs)

        def one_row(arguments: tuple[Any, tf.Tensor]) -> tf.Tensor:
            example, cotangent = arguments
            with self._tape() as tape:
                outputs = self._forward(tf.nest.map_structure(lambda x: x[tf.newaxis], example))
            return self._pull(tape, outputs, cotangent[tf.newaxis])

        return vectorised(one_row, (examples, cotangents), factor.dtype)


@dataclasses.dataclass(frozen=True, eq=False)
class JacobianRows:
    """The rows A [n, P] of a scaled Jacobian, n = B·R, formed `chunk` at a time when they are needed.

    `gram` keeps up to `max_kept` rows; with more it forms them again, panel by panel.
    """

    jacobian: NetworkJacobian
    factor: tf.Tensor
    chunk: int
    max_kept: int

    def _num_rows(self) -> int | tf.Tensor:
        batch, rows_per_example = self.factor.shape[0], self.factor.shape[1]
        return (tf.shape(self.factor)[0] if batch is None else batch) * rows_per_example

    def matvec(self, vector: tf.Tensor) -> tf.Tensor:
        """A v for v [P]: [n], where (A v)_i = factor_i (J v)_i."""
        return tf.reshape(tf.linalg.matvec(self.factor, self.jacobian.jvp(vector)), [-1])

    def rmatvec(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Aᵀ c for c [n]: [P], which is Jᵀ u with u_i = factor_iᵀ c_i."""
        coefficients = tf.reshape(coefficients, tf.shape(self.factor)[:2])
        return self.jacobian.vjp(tf.linalg.matvec(self.factor, coefficients, transpose_a=True))

    def _some(self, indices: tf.Tensor) -> tf.Tensor:
        return self.jacobian.some_rows(self.factor, indices)

    def matrix(self) -> tf.Tensor:
        """A itself: [n, P]."""
        indices = in_chunks(self._num_rows(), self.chunk)
        if indices.shape[0] == 1:
            return self._some(indices[0])
        rows = tf.map_fn(self._some, indices, fn_output_signature=self.factor.dtype)
        return tf.reshape(rows, [-1, tf.shape(rows)[-1]])[: self._num_rows()]

    def gram(self) -> tf.Tensor:
        """A Aᵀ: [n, n]."""
        n = self._num_rows()
        if not isinstance(n, int) or n <= self.max_kept:
            rows = self.matrix()
            return tf.matmul(rows, rows, transpose_b=True)
        return gram_in_panels(self._some, in_chunks(n, self.chunk), self.factor.dtype)[:n, :n]

    def blocks(self) -> list[ExplicitBlock]:
        """The variables of a layer, as far as their names tell, a block; of a plain function no more is known."""
        variables = self.jacobian._variables
        sizes = [variable.shape.num_elements() for variable in variables]
        return by_layer(dict(enumerate(tf.split(self.matrix(), sizes, axis=1))), variables)

    def diagonal(self) -> tf.Tensor:
        """The diagonal of AᵀA: [P]."""
        return tf.reduce_sum(tf.square(self.matrix()), axis=0)


def vectorised(function: Callable[[Any], tf.Tensor], elements: Any, dtype: tf.DType) -> tf.Tensor:
    """`function` of each element along the first axis, all at once where TensorFlow can."""
    with _without_vectorisation_notices():
        try:
            return tf.vectorized_map(function, elements, warn=False)
        except (NotImplementedError, TypeError, ValueError):
            # TensorFlow can't vectorise every layer: it stumbles over the gradient of Keras' LSTM loop.
            # An error of the network itself comes up again here.
            return tf.map_fn(function, elements, fn_output_signature=dtype)


@contextlib.contextmanager
def _without_vectorisation_notices() -> Iterator[None]:
    """Keep to itself what TensorFlow remarks on its own vectorisation; nobody outside can act on it."""

    def is_of_interest(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        # The last two belong to the error after which the rows are taken one at a time.
        own = ("uses a while_loop. Fix that!", "<function pfor.<locals>", "pfor was converting", "\ncreated at:\n")
        return not any(notice in message for notice in own)

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_of_interest)
    try:
        yield
    finally:
        logger.removeFilter(is_of_interest)
