"""K-FAC and EKFAC: an approximation of the curvature, layer by layer, whose inverse is cheap for any number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.solvers import blocked_cholesky
from ngrl.solvers.solution import Answer, Problem, Result, Solution, Solver, SolverStats, damped
from ngrl.solvers.system import RightHandSide, RowProducts

State = dict[str, tf.Tensor]
Inverse = Literal["factored", "exact", "ekfac", "prong"]
Sharing = Literal["expand", "reduce"]
_SHARING = ("expand", "reduce")
_NO_KERNELS = ("bias", "gamma", "beta")
_INVERSES = ("factored", "exact", "ekfac", "prong")


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class Kfac(Solver):
    """Solves `(F̂ + λI) x = b` with F̂ = blockdiag(A_l ⊗ G_l), A_l and G_l running averages (Martens & Grosse 2015).

    Per layer, with V [d̄, m] the layer's part of b:

    - `inverse="factored"`: x = (A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹, π = √((tr A / d̄) / (tr G / m)) (section 6.3). The
      inverses are made every `period` steps, with the λ of then.
    - `inverse="exact"`: x = U_A ((U_Aᵀ V U_G) / (s_A s_Gᵀ + λ)) U_Gᵀ in the eigenbases of A and G, which is
      (A ⊗ G + λI)⁻¹ exactly. The bases are made every `period` steps; λ is that of the step.
    - `inverse="ekfac"`: the same with S in place of s_A s_Gᵀ, a running average of the block's exact diagonal in that
      basis (George et al. 2018, section 3.1), which begins anew with each basis.
    - `inverse="prong"`: G = I, and inputs centred and whitened: x = (A + λ diag(1, …, 1, 0))⁻¹ V, the 0 at the bias. It
      is the step of PRONG (Desjardins et al. 2015, Algorithm 1): gradient descent on the weights that see
      (Σ + λI)^(-½) (a - c) in place of the inputs a, with mean c and covariance Σ, given back as weights of a.

    Free outputs (a state-independent log σ), scales and shifts of normalisations have their exact block. The operator
    must offer `kronecker_layers()`, as `ngrl.curvature.GaussNewton` does on networks of Dense, convolutional, embedding
    and recurrent layers. `stats.residual` is NaN: the residual of the true system would cost as much as the solve.
    """

    def __init__(
        self,
        *,
        decay: float = 0.95,
        period: int = 10,
        inverse: Inverse = "factored",
        sharing: Sharing = "expand",
        eigenvalue_period: int = 1,
    ) -> None:
        """Configures the solver.

        Args:
          decay: Of the running averages; step k weighs the past with min(1 - 1/k, decay), so that the first batch
            counts in full.
          period: Steps between new inverses or eigenbases, the first at once.
          inverse: "factored", "exact", "ekfac" or "prong". Under XLA on the CPU, which has no LAPACK, an eigenbasis of
            256 units costs 27 times as much as otherwise and has seven digits, in float64 too: prefer "factored" there.
          sharing: For weights that are used at several positions, as in convolutions and over time: "expand" takes
            derivatives at different positions for uncorrelated (Grosse & Martens 2016), "reduce" averages the inputs
            first (Eschenhagen et al. 2023).
          eigenvalue_period: Of "ekfac", steps between new batches in its eigenvalues, the first with each new basis.

        Raises:
          ValueError: `decay` isn't in [0, 1), a period no positive integer, `inverse` none of the four, or
            `sharing` none of the two.
        """
        self.decay = check_number("decay", decay, "[0, 1)")
        self.period = check_count("period", period)
        self.eigenvalue_period = check_count("eigenvalue_period", eigenvalue_period)
        if inverse not in _INVERSES:
            raise ValueError(f"inverse must be one of {', '.join(map(repr, _INVERSES))}, got {inverse!r}")
        self.inverse = inverse
        if sharing not in _SHARING:
            raise ValueError(f"sharing must be one of {', '.join(map(repr, _SHARING))}, got {sharing!r}")
        self.sharing = sharing

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "decay": self.decay,
            "period": self.period,
            "inverse": self.inverse,
            "sharing": self.sharing,
            "eigenvalue_period": self.eigenvalue_period,
        }

    def slots(self, variables: Sequence[tf.Variable]) -> State:
        """The factors, what is made of them, and the number of steps; see `Solver.slots`."""
        dtype = variables[0].dtype
        state: State = {"count": tf.zeros([], tf.int64)}
        biases = _biases(variables)
        for slot, variable in enumerate(variables):
            size = variable.shape.num_elements()
            if _last_name(variable).startswith(_NO_KERNELS) or variable.shape.rank < 2:
                if slot not in biases.values():
                    state[f"{slot}/exact"] = tf.zeros([size, size], dtype)
                continue
            width = variable.shape[-1]
            height = size // width + (slot in biases)
            sizes = {"inputs": height, "derivatives": width}
            for name in ("inputs",) if self.inverse == "prong" else sizes:
                size = sizes[name]
                state[f"{slot}/{name}"] = tf.zeros([size, size], dtype)
                state[f"{slot}/{name}_inverse"] = tf.zeros([size, size], dtype)
            if self.inverse in ("exact", "ekfac"):
                state[f"{slot}/eigenvalues"] = tf.zeros([height, width], dtype)
        return state

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """One step of the running averages, then the solve; see `Solver.answer`.

        Raises:
          TypeError: The operator's network has layers without a Kronecker rule.
          ValueError: The state was made for other variables.
        """
        rhs = gradient.gradient(operator)
        layers = _layers_of(operator)
        value, state = self._step(layers, rhs, damping, state)
        is_finite = tf.reduce_all(tf.math.is_finite(value))
        value = tf.where(is_finite, value, tf.zeros_like(value))
        result = tf.where(is_finite, int(Result.CONVERGED), int(Result.BREAKDOWN))
        stats = SolverStats(tf.constant(1), tf.constant(float("nan"), value.dtype))
        system = RowProducts(operator, rhs, layers.row_matvec)
        return Answer(Solution(value, result, stats), layers.row_matvec(value), system, state)

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, SolverStats]:
        """With the operator's own factors; the tolerance that is claimed is none."""
        value, _ = self._step(_layers_of(problem.operator), problem.rhs, problem.damping, None)
        infinite = tf.constant(float("inf"), value.dtype)
        return value, tf.constant(int(Result.CONVERGED)), SolverStats(tf.constant(1), infinite)

    def _step(
        self,
        layers: Any,
        rhs: tf.Tensor,
        damping: float | tf.Tensor,
        state: Mapping[str, tf.Tensor] | None,
    ) -> tuple[tf.Tensor, State]:
        """`(F̂ + λI)⁻¹ b` [P] and the new state."""
        state = dict(state or self.slots(layers.variables))
        damping = tf.convert_to_tensor(damping, rhs.dtype)
        _check(layers, state)
        is_due = tf.equal(state["count"] % self.period, 0)
        state["count"] += 1
        matrices, vectors = layers.split(rhs)
        found = [
            self._block(layer, matrix, damping, is_due, state)
            for layer, matrix in zip(layers.layers, matrices, strict=True)
        ]
        exact = []
        for block, vector in zip(layers.exact, vectors, strict=True):
            name = f"{block.slot}/exact"
            state[name] = self._averaged(state[name], block.factor(), state["count"])
            exact.append(tf.linalg.matvec(_inverse(damped(state[name], damping)), vector))
        return layers.join(found, exact), state

    def _block(self, layer: Any, matrix: tf.Tensor, damping: tf.Tensor, is_due: tf.Tensor, state: State) -> tf.Tensor:
        """One layer's part [d̄, m] of the solution; `state` is brought up to date."""
        place = f"{layer.kernel_slot}/"
        if self.inverse == "prong":
            return self._whitened(layer, matrix, damping, is_due, state)
        names = [f"{place}inputs", f"{place}derivatives"]
        factors = layer.input_factor(self.sharing), layer.derivative_factor(self.sharing)
        for name, factor in zip(names, factors, strict=True):
            state[name] = self._averaged(state[name], factor, state["count"])
        inputs, derivatives = (state[name] for name in names)
        kept = tuple(state[f"{name}_inverse"] for name in names)
        if self.inverse == "factored":
            left, right = tf.cond(is_due, lambda: _factored_inverses(inputs, derivatives, damping), lambda: kept)
            found = tf.matmul(left, tf.matmul(matrix, right))
        else:
            left, right, eigenvalues = tf.cond(
                is_due, lambda: _eigenbasis(inputs, derivatives), lambda: (*kept, state[f"{place}eigenvalues"])
            )
            if self.inverse == "ekfac":
                # Steps since the basis was made: the average of what it diagonalises begins with them.
                age = (state["count"] - 1) % self.period
                before, number = eigenvalues, age // self.eigenvalue_period + 1
                eigenvalues = tf.cond(
                    tf.equal(age % self.eigenvalue_period, 0),
                    lambda: self._averaged(before, layer.second_moments(left, right), number),
                    lambda: before,
                )
            state[f"{place}eigenvalues"] = eigenvalues
            rotated = tf.matmul(left, tf.matmul(matrix, right), transpose_a=True)
            found = tf.matmul(left, tf.matmul(rotated / (eigenvalues + damping), right, transpose_b=True))
        state.update(zip((f"{name}_inverse" for name in names), (left, right), strict=True))
        return found

    def _whitened(
        self, layer: Any, matrix: tf.Tensor, damping: tf.Tensor, is_due: tf.Tensor, state: State
    ) -> tf.Tensor:
        """`_block` of PRONG."""
        name = f"{layer.kernel_slot}/inputs"
        inputs = self._averaged(state[name], layer.input_factor(self.sharing), state["count"])
        # The bias is not damped: by blocks, this inverse is that of Σ + λI and a shift by the mean.
        shift = damping * tf.ones(inputs.shape[:1], inputs.dtype)
        if layer.bias_slot is not None:
            shift *= 1 - tf.one_hot(inputs.shape[0] - 1, inputs.shape[0], dtype=inputs.dtype)
        kept = state[f"{name}_inverse"]
        left = tf.cond(is_due, lambda: _inverse(inputs + tf.linalg.diag(shift)), lambda: kept)
        state.update({name: inputs, f"{name}_inverse": left})
        return tf.matmul(left, matrix)

    def _averaged(self, old: tf.Tensor, new: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        keep = tf.minimum(1 - 1 / tf.cast(count, new.dtype), tf.constant(self.decay, new.dtype))
        return new + keep * (old - new)


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


def _layers_of(operator: tf.linalg.LinearOperator) -> Any:
    if not hasattr(operator, "kronecker_layers"):
        raise TypeError(f"K-FAC needs an operator with kronecker_layers(); {type(operator).__name__} has none")
    return operator.kronecker_layers()


def _check(layers: Any, state: Mapping[str, tf.Tensor]) -> None:
    """Raises a ValueError unless the state's factors are those of these layers."""
    expected = {f"{layer.kernel_slot}/inputs": layer.inputs.shape[-1] for layer in layers.layers}
    expected |= {f"{block.slot}/exact": block.rows.shape[-1] for block in layers.exact}
    for name, size in expected.items():
        if name not in state or state[name].shape[0] != size:
            variable = layers.variables[int(name.split("/")[0])]
            raise ValueError(
                f"K-FAC has no factor of size {size} for {variable.name}: it was built for other variables"
            )


def _factored_inverses(inputs: tf.Tensor, derivatives: tf.Tensor, damping: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`(A + π√λ I)⁻¹` and `(G + √λ/π I)⁻¹`; π = 1 where a trace is 0."""
    means = [tf.reduce_mean(tf.linalg.diag_part(factor)) for factor in (inputs, derivatives)]
    ratio = tf.math.divide_no_nan(means[0], means[1])
    pi = tf.sqrt(tf.where(ratio > 0, ratio, tf.ones_like(ratio)))
    root = tf.sqrt(damping)
    return _inverse(damped(inputs, pi * root)), _inverse(damped(derivatives, root / pi))


def _eigenbasis(inputs: tf.Tensor, derivatives: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """U_A, U_G, and the eigenvalues s_A s_Gᵀ [d̄, m] of A ⊗ G."""
    (s_a, u_a), (s_g, u_g) = tf.linalg.eigh(inputs), tf.linalg.eigh(derivatives)
    # Rounding leaves small negative ones where A is singular.
    return u_a, u_g, tf.maximum(s_a, 0)[:, tf.newaxis] * tf.maximum(s_g, 0)


def _inverse(matrix: tf.Tensor) -> tf.Tensor:
    """The inverse of a positive definite matrix [n, n]; not finite where it isn't."""
    if blocked_cholesky.is_traced_for_xla():
        return blocked_cholesky.inverse(matrix)
    factor = tf.linalg.cholesky(matrix)
    return tf.linalg.cholesky_solve(factor, tf.eye(matrix.shape[0], dtype=matrix.dtype))
