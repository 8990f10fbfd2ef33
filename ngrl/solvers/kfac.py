"""K-FAC and EKFAC: an approximation of the curvature, layer by layer, whose inverse is cheap for any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

from ngrl import seeding
from ngrl.checks import check_count, check_number
from ngrl.configurable import configurable
from ngrl.solvers import blocked_cholesky
from ngrl.solvers.solution import Answer, Problem, Result, Solution, Solver, SolverStats, damped
from ngrl.solvers.system import CombinedRows, RightHandSide, RowProducts, System

State = dict[str, tf.Tensor]
Parts = tuple[list[Any], list[tf.Tensor]]  # of a vector [P]: the layers' and the exact blocks'
Inverse = Literal["factored", "exact", "ekfac", "prong"]
Sharing = Literal["expand", "reduce"]
Kind = Literal["expectation", "sampled", "empirical"]
_SHARING = ("expand", "reduce")
_KINDS = ("expectation", "sampled", "empirical")
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

    A batch whose numbers aren't finite leaves the state as it was, and so does one of which no inverse can be made.
    What was learned of another is kept even where a line search accepts no length.
    """

    guards_state = True

    def __init__(
        self,
        *,
        decay: float = 0.95,
        period: int = 10,
        factor_period: int = 1,
        kind: Kind = "expectation",
        inverse: Inverse = "factored",
        sharing: Sharing = "expand",
        eigenvalue_period: int = 1,
        seed: int = 0,
    ) -> None:
        """Configures the solver.

        Args:
          decay: Of the running averages; their batch k weighs the past with min(1 - 1/k, decay), so that the first
            counts in full.
          period: Steps between new inverses or eigenbases, the first at once.
          factor_period: Steps between new batches in the running averages, the first at once.
          kind: Of G: the "expectation" over the model's distribution, exact; "sampled", one target an example drawn
            from it (Martens & Grosse 2015, section 5); or "empirical", the loss's own derivatives.
          inverse: "factored", "exact", "ekfac" or "prong". Under XLA on the CPU, which has no LAPACK, an eigenbasis of
            256 units costs 27 times as much as otherwise and has seven digits, in float64 too: prefer "factored" there.
          sharing: For weights that are used at several positions, as in convolutions and over time: "expand" takes
            derivatives at different positions for uncorrelated (Grosse & Martens 2016), "reduce" averages the inputs
            first (Eschenhagen et al. 2023).
          eigenvalue_period: Of "ekfac", steps between new batches in its eigenvalues, the first with each new basis.
          seed: Of "sampled": solvers of equal seeds draw equal numbers.

        Raises:
          ValueError: `decay` isn't in [0, 1), a period no positive integer, `inverse` none of the four, `kind` none
            of the three, or `sharing` none of the two.
        """
        self.decay = check_number("decay", decay, "[0, 1)")
        self.period = check_count("period", period)
        self.factor_period = check_count("factor_period", factor_period)
        self.eigenvalue_period = check_count("eigenvalue_period", eigenvalue_period)
        if kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
        self.kind = kind
        if inverse not in _INVERSES:
            raise ValueError(f"inverse must be one of {', '.join(map(repr, _INVERSES))}, got {inverse!r}")
        self.inverse = inverse
        if sharing not in _SHARING:
            raise ValueError(f"sharing must be one of {', '.join(map(repr, _SHARING))}, got {sharing!r}")
        self.sharing = sharing
        self.seed = seeding.check_seed(seed)
        self._targets = seeding.key(seed, seeding.Stream.FACTOR_TARGETS)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "decay": self.decay,
            "period": self.period,
            "factor_period": self.factor_period,
            "kind": self.kind,
            "inverse": self.inverse,
            "sharing": self.sharing,
            "eigenvalue_period": self.eigenvalue_period,
            "seed": self.seed,
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
        layers = _layers_of(operator)
        coefficients = gradient.coefficients(operator) if layers.rows_per_example == 1 else None
        system: System
        if coefficients is None:
            rhs = gradient.gradient(operator)
            parts, system = layers.parts(rhs), RowProducts(operator, rhs, layers.row_matvec)
        else:
            # b = Rᵀc: another pass through the network is saved, and where rows are few b is never formed.
            parts = layers.combine(coefficients)
            system = CombinedRows(layers, coefficients, parts)
        learned = self._learned(layers, operator, gradient, state)
        finite_gradient = tf.math.is_finite(system.gradient_norm)
        inverse, works, state = self._step(layers, learned, damping, state, finite_gradient)
        parts = inverse(parts)
        value, image = layers.joined(parts), layers.row_product(parts)
        is_finite = works & tf.reduce_all(tf.math.is_finite(value))
        value = tf.where(is_finite, value, tf.zeros_like(value))
        image = tf.where(is_finite, image, tf.zeros_like(image))
        result = tf.where(is_finite, int(Result.CONVERGED), int(Result.BREAKDOWN))
        stats = SolverStats(tf.constant(1), tf.constant(float("nan"), value.dtype))
        return Answer(Solution(value, result, stats), image, system, state)

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, SolverStats]:
        """With the operator's own factors; the tolerance that is claimed is none."""
        layers = _layers_of(problem.operator)
        learned = self._learned(layers, problem.operator, None, None)
        inverse, works, _ = self._step(layers, learned, problem.damping, None, tf.constant(True))
        infinite = tf.constant(float("inf"), problem.rhs.dtype)
        result = tf.where(works, int(Result.CONVERGED), int(Result.BREAKDOWN))
        return layers.joined(inverse(layers.parts(problem.rhs))), result, SolverStats(tf.constant(1), infinite)

    def inverse_product(
        self,
        operator: tf.linalg.LinearOperator,
        damping: tf.Tensor,
        state: Mapping[str, tf.Tensor] | None,
        is_finite: tf.Tensor,
    ) -> tuple[Callable[[tf.Tensor], tf.Tensor], State]:
        """The product v → (F̂ + λI)⁻¹ v of [P], for a preconditioner, and the state after a step with this operator.

        Arguments and errors are those of `answer`; where `is_finite` is false, nothing is learned of the operator.
        """
        layers = _layers_of(operator)
        learned = self._learned(layers, operator, None, state)
        inverse, works, state = self._step(layers, learned, damping, state, is_finite)
        broken = tf.where(works, tf.zeros_like(damping), tf.constant(float("nan"), damping.dtype))
        return lambda vector: layers.joined(inverse(layers.parts(vector))) + broken, state

    def _learned(
        self, layers: Any, operator: Any, gradient: RightHandSide | None, state: Mapping[str, tf.Tensor] | None
    ) -> Any:
        """The layers of which the averages take a batch: those of the expectation, or of another kind.

        Raises:
          ValueError: "empirical" needs a loss's derivatives by the outputs, and there are none.
        """
        if self.kind == "expectation":
            return layers
        if self.kind == "sampled":
            number = tf.cast(state["count"], tf.int32) if state else 0
            drawn = operator.output_metric.sample(operator.outputs, seeding.at(self._targets, number))
            return operator.kronecker_layers(drawn)
        coefficients = None if gradient is None else gradient.coefficients(operator)
        if coefficients is None:
            raise ValueError('kind="empirical" needs a gradient given by the outputs: take another kind here')
        return operator.kronecker_layers(operator.scores(coefficients))

    def _step(
        self,
        layers: Any,
        learned: Any,
        damping: float | tf.Tensor,
        state: Mapping[str, tf.Tensor] | None,
        is_finite: tf.Tensor,
    ) -> tuple[Callable[[Parts], Parts], tf.Tensor, State]:
        """The product with `(F̂ + λI)⁻¹`, whether its inverses are finite, and the new state.

        The state stays as it is unless the gradient (`is_finite`), λ, the batch and the new inverses are finite.
        """
        state = dict(state or self.slots(layers.variables))
        damping = tf.convert_to_tensor(damping, layers.variables[0].dtype)
        _check(layers, state)
        is_finite &= tf.math.is_finite(damping) & tf.math.is_finite(tf.reduce_sum(learned.sample()))
        state, works = self._renewed(learned, damping, state, is_finite)
        exact = [_inverse(damped(state[f"{block.slot}/exact"], damping)) for block in layers.exact]

        def inverse(parts: Parts) -> Parts:
            found = [
                self._block(layer, part, damping, state) for layer, part in zip(layers.layers, parts[0], strict=True)
            ]
            return found, [tf.linalg.matvec(block, part) for block, part in zip(exact, parts[1], strict=True)]

        return inverse, works, state

    def _renewed(self, layers: Any, damping: tf.Tensor, state: State, is_finite: tf.Tensor) -> tuple[State, tf.Tensor]:
        """The state after a batch, and whether what was made anew of the averages is finite.

        Where it isn't, or the batch isn't, the state stays as it is.
        """
        count = state.pop("count")
        number, age = count // self.factor_period + 1, count % self.period
        takes = is_finite & tf.equal(count % self.factor_period, 0)
        inverts = is_finite & tf.equal(age, 0)

        def average(kept: State) -> State:
            return kept | self._averages(layers, kept, number)

        def renew(kept: tuple[State, tf.Tensor]) -> tuple[State, tf.Tensor]:
            new = _when(takes, average, kept[0])
            new |= self._inverted(layers, new, damping)
            works = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in new.values()])
            return {name: tf.where(works, new[name], old) for name, old in kept[0].items()}, works

        def diagonalise(kept: State) -> State:
            # Steps since the basis was made: the average of what it diagonalises begins with them.
            return kept | self._eigenvalues(layers, kept, age // self.eigenvalue_period + 1)

        state = _when(takes & ~inverts, average, state)
        state, works = _when(inverts, renew, (state, tf.constant(True)))
        if self.inverse == "ekfac":
            state = _when(is_finite & works & tf.equal(age % self.eigenvalue_period, 0), diagonalise, state)
        return {"count": count + tf.cast(is_finite & works, count.dtype), **state}, works

    def _averages(self, layers: Any, state: State, number: tf.Tensor) -> State:
        """The running averages after their `number`th batch."""
        found = {}
        for layer in layers.layers:
            found[f"{layer.kernel_slot}/inputs"] = layer.input_factor(self.sharing)
            if self.inverse != "prong":
                found[f"{layer.kernel_slot}/derivatives"] = layer.derivative_factor(self.sharing)
        found |= {f"{block.slot}/exact": block.factor() for block in layers.exact}
        return {name: self._averaged(state[name], new, number) for name, new in found.items()}

    def _inverted(self, layers: Any, state: State, damping: tf.Tensor) -> State:
        """What is made of the running averages every `period` steps: inverses, or bases and eigenvalues."""
        found: State = {}
        for layer in layers.layers:
            place = f"{layer.kernel_slot}/"
            inputs = state[f"{place}inputs"]
            if self.inverse == "prong":
                # The bias is not damped: by blocks, this inverse is that of Σ + λI and a shift by the mean.
                shift = damping * tf.ones(inputs.shape[:1], inputs.dtype)
                if layer.bias_slot is not None:
                    shift *= 1 - tf.one_hot(inputs.shape[0] - 1, inputs.shape[0], dtype=inputs.dtype)
                found[f"{place}inputs_inverse"] = _inverse(inputs + tf.linalg.diag(shift))
                continue
            derivatives = state[f"{place}derivatives"]
            if self.inverse == "factored":
                left, right = _factored_inverses(inputs, derivatives, damping)
            else:
                left, right, found[f"{place}eigenvalues"] = _eigenbasis(inputs, derivatives)
            found |= {f"{place}inputs_inverse": left, f"{place}derivatives_inverse": right}
        return found

    def _eigenvalues(self, layers: Any, state: State, number: tf.Tensor) -> State:
        """Those of EKFAC after the `number`th batch in the present bases."""
        found = {}
        for layer in layers.layers:
            bases = (state[f"{layer.kernel_slot}/{name}_inverse"] for name in ("inputs", "derivatives"))
            name = f"{layer.kernel_slot}/eigenvalues"
            found[name] = self._averaged(state[name], layer.second_moments(*bases), number)
        return found

    def _block(self, layer: Any, part: Any, damping: tf.Tensor, state: State) -> Any:
        """One layer's part of the solution."""
        place = f"{layer.kernel_slot}/"
        left = state[f"{place}inputs_inverse"]
        if self.inverse == "prong":
            return part.times(left)
        right = state[f"{place}derivatives_inverse"]
        if self.inverse == "factored":
            return part.times(left, right)
        # U_A ((U_Aᵀ V U_G) / (S + λ)) U_Gᵀ
        rotated = tf.matmul(left, tf.matmul(part.matrix(), right), transpose_a=True)
        rotated /= state[f"{place}eigenvalues"] + damping
        return part.replaced(tf.matmul(left, tf.matmul(rotated, right, transpose_b=True)))

    def _averaged(self, old: tf.Tensor, new: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        keep = tf.minimum(1 - 1 / tf.cast(number, new.dtype), tf.constant(self.decay, new.dtype))
        return new + keep * (old - new)


def _when(condition: tf.Tensor, change: Callable[[Any], Any], values: Any) -> Any:
    """`change(values)` where the condition holds, else `values`.

    A loop of one turn at most: XLA changes in place what a loop carries, and copies what either branch of a condition
    gives, which for the factors costs as much as a third of a step.
    """
    once = (tf.constant(False),)
    return tf.while_loop(lambda goes_on, _: goes_on, lambda _, kept: (*once, change(kept)), (condition, values))[1]


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
