"""The generalised Gauss-Newton matrix of a network as a linear operator.

F = (1/Σw) Σ_i w_i J_iᵀ M_i J_i, with J_i [K, P] the Jacobian of the i-th example's outputs and M_i [K, K] an
output metric (Knight & Lerner 2018, eq. 7; Pascanu & Bengio 2013; Schraudolph 2002 for the product).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ngrl.curvature.dense_stack import DenseStack
from ngrl.curvature.flatten import num_parameters
from ngrl.curvature.jacobian import JacobianRows, NetworkJacobian
from ngrl.curvature.kronecker import KroneckerLayers
from ngrl.curvature.layer_jacobian import LayeredNetwork, LayerJacobian, LayerRows
from ngrl.curvature.metrics import OutputMetric, SquaredError
from ngrl.curvature.row_blocks import RowBlocks
from ngrl.curvature.stack_jacobian import StackJacobian, StackRows
from ngrl.curvature.unchanged import is_unchanged

Forward = Callable[[Any], tf.Tensor]


class GaussNewton(tf.linalg.LinearOperator):
    """F [P, P], self-adjoint and positive semi-definite, at the parameters' values when it was made.

    Make a new operator after the parameters have changed; that costs one forward pass. Inside a `tf.function`
    make it in that function.

    `matvec` and the methods below never form a [P, P] matrix; `to_dense` does. With row factors L_i
    (M_i = L_i L_iᵀ, L_i [K, R]) the operator is F = AᵀA where A [n, P], n = B·R, has the rows
    A_i = sqrt(w_i/Σw) L_iᵀ J_i, the examples' rows one after another.

    A network that is a chain of Dense layers (see `DenseStack`; recognised in a `tf.keras.Sequential`) whose
    kernels, biases and free outputs are exactly `variables` is handled layer by layer, without tapes. In any other
    Keras layer or model, and in a `LayeredNetwork`, the rows of A are formed layer by layer (`ngrl.curvature.rules`)
    from one forward pass and a reverse pass a row of an example; J itself goes through `tf.autodiff.ForwardAccumulator`
    and `tf.GradientTape`. So does all of a plain function, of which no layers are known. What can't be had there:

    - `gram`, `row_matrix`, `diag_part` and `to_dense` run a plain function on one example at a time, vectorised.
    - Whichever way they are formed, rows take for granted that an example's outputs depend on that example alone: not
      so for batch normalisation in training mode, which every other method takes. The batch is each layer's first
      axis, but for Keras' `time_major` ones: where another sees time first, and as many steps as examples, that can't
      be told from it, and rows are wrong.
    - Under XLA `matvec`, `jvp` and the row products need TensorFlow's XLA kernels for second derivatives; max
      pooling has them in float32 alone.

    Attributes:
      outputs: the network's outputs [B, K].
    """

    def __init__(
        self,
        forward: Forward,
        variables: Sequence[tf.Variable],
        inputs: Any,
        output_metric: OutputMetric | None = None,
        weights: tf.Tensor | None = None,
        chunk_size: int | None = None,
        name: str = "GaussNewton",
    ) -> None:
        """Linearise `forward` at `inputs`.

        Args:
          forward: forward(inputs) gives outputs [B, K].
          variables: the variables of the flat parameter vector [P], in its order. One that `forward` doesn't
            use has a zero Jacobian.
          inputs: any nest of tensors [B, ...].
          output_metric: M; by default `SquaredError()`, the identity.
          weights: None, or w [B] >= 0. If they are all zero, F = 0.
          chunk_size: how many rows of A are formed at a time: of a network without known layers, or of a layer
            whose weights are shared over positions, such as a convolution's. By default as many as fit in 256 MiB
            where they don't fit in 1 GiB together.
          name: the operator's name.

        Raises:
          ValueError: `variables` is empty, holds one twice, or mixes dtypes; `inputs` hold no tensor; the
            outputs aren't [B, K], have another batch size than the inputs, or another dtype than the
            variables; `weights` or the metric don't fit, or `weights` are known to be negative.
        """
        metric = SquaredError() if output_metric is None else output_metric
        variables = tuple(variables)
        dtype = _check_variables(variables)
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        self._jacobian = self._no_dependency(_linearize(forward, variables, inputs, chunk_size))
        outputs = self._jacobian.outputs
        _check_outputs(outputs, inputs, dtype)
        metric.check(outputs)
        self._metric = self._no_dependency(metric)
        self._scale = self._no_dependency(_normalise(weights, outputs))
        self._size = num_parameters(variables)
        self._rows_by_graph = self._no_dependency({})
        super().__init__(
            dtype=dtype,
            is_self_adjoint=True,
            is_square=True,
            name=name,
            parameters={
                "forward": forward,
                "variables": variables,
                "inputs": inputs,
                "output_metric": output_metric,
                "weights": weights,
                "chunk_size": chunk_size,
                "name": name,
            },
        )
        self._has_cheap_rows = self.has_rows and isinstance(self._jacobian, (StackJacobian, LayerJacobian))
        if self._has_cheap_rows and self.rows_per_example == 1:
            # The product goes through these rows. Made here, loops around the product share them.
            self._rows()

    @property
    def outputs(self) -> tf.Tensor:
        """The network's outputs [B, K]."""
        return self._jacobian.outputs

    @property
    def output_metric(self) -> OutputMetric:
        """The output metric M."""
        return self._metric

    @property
    def example_weights(self) -> tf.Tensor:
        """w_i/Σw: [B], or a scalar without weights."""
        return self._scale

    @property
    def has_rows(self) -> bool:
        """Whether an example's outputs depend on that example alone, as far as layers tell: else there are no rows."""
        return not isinstance(self._jacobian, LayerJacobian) or self._jacobian.has_rows

    @property
    def unruled(self) -> tuple[str, ...]:
        """The layers and variables whose rows go the long way, by a vectorised Jacobian, in a network of layers."""
        return self._jacobian.unruled if isinstance(self._jacobian, LayerJacobian) else ()

    @property
    def rows_per_example(self) -> int:
        """R, so that A has n = B·R rows."""
        return self._metric.num_rows(self.outputs.shape[1])

    def jvp(self, vector: tf.Tensor) -> tf.Tensor:
        """J v for v [P]: [B, K]."""
        return self._jacobian.jvp(tf.convert_to_tensor(vector, self.dtype))

    def vjp(self, cotangent: tf.Tensor) -> tf.Tensor:
        """Jᵀ u for u [B, K]: [P]."""
        return self._jacobian.vjp(self._checked(cotangent, self.outputs.shape, "cotangent"))

    def row_matvec(self, vector: tf.Tensor) -> tf.Tensor:
        """A v for v [P]: [n]."""
        return self._rows().matvec(tf.convert_to_tensor(vector, self.dtype))

    def row_rmatvec(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Aᵀ c for c [n]: [P]."""
        return self._rows().rmatvec(self._checked(coefficients, [self._num_rows], "coefficients"))

    def row_coefficients(self, output_gradient: tf.Tensor) -> tf.Tensor:
        """The shortest c [n] with Aᵀ c = Jᵀ u, for output gradients u [B, K] in the range of the metric.

        u is the gradient of the weighted mean loss: it holds the factors w_i/Σw already. Rows with w_i = 0
        have c_i = 0.
        """
        output_gradient = self._checked(output_gradient, self.outputs.shape, "output_gradient")
        # sqrt(w_i/Σw) L_i c_i = u_i
        c = self._metric.factor_solve(self.outputs, output_gradient)
        return tf.reshape(tf.math.divide_no_nan(c, _per_example(tf.sqrt(self._scale)) * tf.ones_like(c)), [-1])

    def gram(self) -> tf.Tensor:
        """A Aᵀ: [n, n]."""
        return self._rows().gram()

    def row_matrix(self) -> tf.Tensor:
        """A itself: [n, P]. For tests and tiny networks."""
        return self._rows().matrix()

    def row_blocks(self) -> RowBlocks:
        """The rows A taken apart by layers, for solvers that leave out what two layers have to do with each other."""
        return RowBlocks(self._rows().blocks(), self.parameters["variables"])

    def kronecker_layers(self, scores: tf.Tensor | None = None) -> KroneckerLayers:
        """What each layer's block of F is made of, for K-FAC.

        Args:
          scores: None for the expectation over the model's distribution, or s [B, K] for one row an example,
            `sqrt(w_i/Σw) s_iᵀ J_i`, with sampled targets' scores or the loss's derivatives.

        Raises:
          TypeError: of the network no layers are known, or it has one without a Kronecker rule.
        """
        factor = None
        if scores is not None:
            scores = self._checked(scores, self.outputs.shape, "scores")
            factor = (_per_example(tf.sqrt(self._scale)) * scores)[:, tf.newaxis]
        if isinstance(self._jacobian, StackJacobian):
            rows = self._rows() if factor is None else self._jacobian.rows(factor)
            assert isinstance(rows, StackRows)
            return rows.kronecker_layers(self._scale)
        if isinstance(self._jacobian, LayerJacobian):
            weights, positions = self._scale, self._metric.position_weights(self.outputs)
            if positions is not None:  # of sum 1, as the scale is of B examples that count alike
                weights = _per_example(weights * positions.shape[0]) * positions
            return self._jacobian.kronecker_layers(self._scaled_factor() if factor is None else factor, weights)
        raise TypeError(
            "K-FAC needs to know the network's layers, and this is a plain function: give a Keras model or a "
            "LayeredNetwork, or use a solver such as Dual()"
        )

    def scores(self, coefficients: tf.Tensor) -> tf.Tensor:
        """The s [B, K] of a loss with gradient Aᵀc, c [n], for `kronecker_layers`: s_i = L_i c_i / sqrt(w_i/Σw)."""
        c = tf.reshape(self._checked(coefficients, [self._num_rows], "coefficients"), [-1, self.rows_per_example])
        return tf.math.divide_no_nan(self._metric.factor_matvec(self.outputs, c), _per_example(tf.sqrt(self._scale)))

    def _scaled_factor(self) -> tf.Tensor:
        """sqrt(w_i/Σw) L_iᵀ, [B, R, K]."""
        return self._metric.factor(self.outputs) * _per_example(tf.sqrt(self._scale))[..., tf.newaxis]

    def _rows(self) -> StackRows | LayerRows | JacobianRows:
        """The rows A, made once in a graph and the graphs inside it.

        A tensor made while a loop's body is traced must not be used outside of it.
        """
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        here = graph
        while graph is not None and graph not in self._rows_by_graph:
            graph = getattr(graph, "outer_graph", None)
        if graph not in self._rows_by_graph:
            self._rows_by_graph[here] = self._jacobian.rows(self._scaled_factor())
            graph = here
        return self._rows_by_graph[graph]

    @property
    def _num_rows(self) -> int | None:
        """The number of rows n = B·R if B is known."""
        batch = self.outputs.shape[0]
        return None if batch is None else batch * self.rows_per_example

    def _checked(self, value: tf.Tensor, shape: Sequence[int | None], name: str) -> tf.Tensor:
        """`value` as a tensor of this operator's dtype and the given shape."""
        value = tf.convert_to_tensor(value, self.dtype)
        if not value.shape.is_compatible_with(shape):
            raise ValueError(f"{name} must have shape {tf.TensorShape(shape)}, got {value.shape}")
        return value

    def _weigh(self, outputs: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        """(w_i/Σw) M_i v_i for v [B, K]."""
        return _per_example(self._scale) * self._metric.matvec(outputs, vector)

    def _shape(self) -> tf.TensorShape:
        return tf.TensorShape([self._size, self._size])

    def _shape_tensor(self) -> tf.Tensor:
        return tf.constant([self._size, self._size])

    def _matvec(self, x: tf.Tensor, adjoint: bool = False) -> tf.Tensor:
        # F is symmetric, so that `adjoint` changes nothing.
        if x.shape.rank != 1:
            return self._map(x)
        if self._has_cheap_rows and self.rows_per_example == 1:
            # F v = Aᵀ (A v): two products a layer, where J and Jᵀ take four.
            return self.row_rmatvec(self.row_matvec(x))
        return self._jacobian.product(x, self._weigh)

    def _matmul(self, x: tf.Tensor, adjoint: bool = False, adjoint_arg: bool = False) -> tf.Tensor:
        columns = x if adjoint_arg else tf.linalg.matrix_transpose(x)
        return tf.linalg.matrix_transpose(self._map(columns))

    def _map(self, vectors: tf.Tensor) -> tf.Tensor:
        """F v for each v of [..., P], one after another."""
        product = tf.map_fn(self._matvec, tf.reshape(vectors, [-1, self._size]))
        return tf.ensure_shape(tf.reshape(product, tf.shape(vectors)), vectors.shape)

    def _to_dense(self) -> tf.Tensor:
        rows = self._rows().matrix()
        return tf.matmul(rows, rows, transpose_a=True)

    def _diag_part(self) -> tf.Tensor:
        return self._rows().diagonal()

    def _trace(self) -> tf.Tensor:
        return tf.reduce_sum(self._diag_part())


def _linearize(
    forward: Forward, variables: tuple[tf.Variable, ...], inputs: Any, chunk_size: int | None
) -> StackJacobian | NetworkJacobian:
    """The Jacobian of `forward`: layer by layer if it is a dense stack in exactly `variables`, or has layers."""
    stack = forward if isinstance(forward, DenseStack) else None
    if is_unchanged(forward, tf.keras.Sequential, "__call__", "call"):
        stack = DenseStack.from_layers(forward.layers)
        if stack is not None and tf.is_tensor(inputs) and forward.inputs:
            # A model casts what it is given to the dtype of its input layer, a DenseStack knows none.
            inputs = tf.cast(inputs, forward.inputs[0].dtype)
    if (
        stack is not None
        and {v.ref() for v in stack.variables} == {v.ref() for v in variables}
        and tf.is_tensor(inputs)
        and stack.accepts(inputs)
    ):
        return stack.linearize(inputs, variables)
    if isinstance(forward, tf.keras.layers.Layer):
        forward = LayeredNetwork(forward, forward)
    if isinstance(forward, LayeredNetwork):
        return LayerJacobian(forward, variables, inputs, chunk_size)
    return NetworkJacobian(forward, variables, inputs, chunk_size)


def _check_variables(variables: tuple[tf.Variable, ...]) -> tf.DType:
    if not variables:
        raise ValueError("variables is empty")
    if len({variable.ref() for variable in variables}) != len(variables):
        raise ValueError("variables holds a variable twice")
    dtypes = sorted({variable.dtype.name for variable in variables})
    if len(dtypes) > 1:
        raise ValueError(f"variables must share one dtype, got {', '.join(dtypes)}")
    if not variables[0].dtype.is_floating:
        raise ValueError(f"variables must be of a float dtype, got {dtypes[0]}")
    return variables[0].dtype


def _check_outputs(outputs: tf.Tensor, inputs: Any, dtype: tf.DType) -> None:
    if outputs.shape.rank != 2 or outputs.shape[1] is None:
        raise ValueError(f"forward must return outputs of shape [B, K], got {outputs.shape}")
    if outputs.dtype != dtype:
        raise ValueError(f"forward returned {outputs.dtype.name}, the variables are {dtype.name}")
    leaves = tf.nest.flatten(inputs)
    if not leaves:
        raise ValueError("inputs hold no tensor")
    for leaf in leaves:
        if leaf.shape.rank == 0 or not leaf.shape[:1].is_compatible_with(outputs.shape[:1]):
            raise ValueError(f"forward returned outputs {outputs.shape} for inputs {leaf.shape}: batch sizes differ")


def _normalise(weights: tf.Tensor | None, outputs: tf.Tensor) -> tf.Tensor:
    """w_i/Σw: [B], or the scalar 1/B without weights. All zero if the weights are."""
    dtype, batch = outputs.dtype, outputs.shape[0]
    if weights is None:
        size = tf.shape(outputs)[0] if batch is None else tf.constant(batch)
        return tf.math.divide_no_nan(tf.ones([], dtype), tf.cast(size, dtype))
    weights = tf.cast(tf.convert_to_tensor(weights), dtype)
    if weights.shape.rank != 1 or not weights.shape.is_compatible_with([batch]):
        raise ValueError(f"weights must have shape [{batch}], got {weights.shape}")
    values = tf.get_static_value(weights)
    if values is not None and np.any(values < 0):
        raise ValueError(f"weights must not be negative, got {values.min()}")
    return tf.math.divide_no_nan(weights, tf.reduce_sum(weights))


def _per_example(scale: tf.Tensor) -> tf.Tensor:
    """A scalar or [B] as something that multiplies [B, K]."""
    return tf.reshape(scale, [-1, 1])
