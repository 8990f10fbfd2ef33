"""K-FAC and EKFAC: an approximation of the curvature, layer by layer, whose inverse is cheap for any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf

from ngrl import seeding
from ngrl.checks import check_choice, check_count, check_number, check_optional_count
from ngrl.configurable import configurable
from ngrl.solvers import factor_inverses
from ngrl.solvers.kronecker_factors import Factors, Inverse, Judged, Sharing, State, misnamed, when
from ngrl.solvers.solution import Answer, Problem, Result, Solution, Solver, SolverStats, damped
from ngrl.solvers.system import CombinedRows, FactoredModel, RightHandSide, RowProducts, System

Parts = tuple[list[Any], list[tf.Tensor]]  # of a vector [P]: the layers' and the exact blocks'
Kind = Literal["expectation", "sampled", "empirical"]
QuadraticModel = Literal["exact", "factored"]
_SHARING = ("expand", "reduce")
_KINDS = ("expectation", "sampled", "empirical")
_QUADRATIC_MODELS = ("exact", "factored")
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

    A batch whose numbers or their squares aren't finite leaves the state as it was, and so does one of which no inverse
    can be made.
    What was learned of another is kept even where a line search accepts no length.
    """

    solves_matrices = False

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
        rank: int | None = None,
        quadratic_model: QuadraticModel = "exact",
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
          rank: Of "factored": r for factors of more than 2r units, which are kept as QQᵀ, Q [n, r], by a step of
            subspace iteration a batch (Puiu 2022): both the steps and the inverses become cheaper. None for none.
          quadratic_model: What a trust region takes for the curvature along x: "exact", xᵀFx; or "factored", the
            solver's own xᵀ(F̂ + λI)x = bᵀx (ACKTR takes F̂ too, Wu et al. 2017), for which no row is needed.
          seed: Of "sampled" and of `rank`: solvers of equal seeds draw equal numbers.

        Raises:
          ValueError: `decay` isn't in [0, 1), a period no positive integer, `inverse` none of the four, `kind` none
            of the three, `sharing` or `quadratic_model` none of the two, or `rank`, `eigenvalue_period` or `kind` isn't
            for this `inverse`.
        """
        self.decay = check_number("decay", decay, "[0, 1)")
        self.period = check_count("period", period)
        self.factor_period = check_count("factor_period", factor_period)
        self.eigenvalue_period = check_count("eigenvalue_period", eigenvalue_period)
        self.kind = check_choice("kind", kind, _KINDS)
        self.inverse = check_choice("inverse", inverse, _INVERSES)
        self.sharing = check_choice("sharing", sharing, _SHARING)
        self.rank = check_optional_count("rank", rank)
        _check_used(inverse, rank, self.eigenvalue_period, kind)
        self.quadratic_model = check_choice("quadratic_model", quadratic_model, _QUADRATIC_MODELS)
        self.seed = seeding.check_seed(seed)
        self._factors = Factors(self.decay, self.inverse, self.sharing, self.rank, self.seed)
        self._targets = seeding.key(seed, seeding.Stream.FACTOR_TARGETS)

    @property
    def needs_output_gradient(self) -> bool:  # type: ignore[override]
        """As of the kind."""
        return self.kind == "empirical"

    @property
    def models_other_steps(self) -> bool:  # type: ignore[override]
        """As of the quadratic model."""
        return self.quadratic_model == "exact"

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
            "rank": self.rank,
            "quadratic_model": self.quadratic_model,
            "seed": self.seed,
        }

    def slots(self, variables: Sequence[tf.Variable]) -> State:
        """The factors, what is made of them, and the number of steps; see `Solver.slots`."""
        return {"count": tf.zeros([], tf.int64), **self._factors.slots(variables)}

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
        found = inverse(parts)
        value = layers.joined(found)
        if self.quadratic_model == "exact":
            image = layers.row_product(found)
        else:
            system = FactoredModel(layers, parts, found)
            image = system.of_solution
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

        The state stays as it is unless the gradient (`is_finite`), λ, the batch and the new inverses are finite, and
        some example counts.
        """
        state = dict(state or self.slots(layers.variables))
        damping = tf.convert_to_tensor(damping, layers.variables[0].dtype)
        _check(layers, state)
        is_finite &= tf.math.is_finite(damping) & tf.math.is_finite(tf.reduce_sum(learned.sample()))
        if learned.layers:  # a batch whose examples are all masked tells nothing of the curvature
            is_finite &= tf.reduce_any(learned.layers[0].weights > 0)
        state, works = self._renewed(learned, damping, state, is_finite)
        exact = [factor_inverses.dense(damped(state[f"{block.slot}/exact"], damping)) for block in layers.exact]

        def inverse(parts: Parts) -> Parts:
            found = [
                self._factors.solve(layer, part, damping, state)
                for layer, part in zip(layers.layers, parts[0], strict=True)
            ]
            return found, [tf.linalg.matvec(block, part) for block, part in zip(exact, parts[1], strict=True)]

        return inverse, works, state

    def _renewed(self, layers: Any, damping: tf.Tensor, state: State, is_finite: tf.Tensor) -> tuple[State, tf.Tensor]:
        """The state after a batch, and whether what was made anew of the averages is finite.

        Where it isn't, or the batch or what is squared of it isn't, the state stays as it is.
        """
        count = state.pop("count")
        number, age = count // self.factor_period + 1, count % self.period
        takes = is_finite & tf.equal(count % self.factor_period, 0)
        inverts = is_finite & tf.equal(age, 0)

        def average(kept: Judged) -> Judged:
            return self._factors.averages(layers, kept[0], number)

        def renew(kept: Judged) -> Judged:
            new, works = when(takes, average, kept)
            new = new | self._factors.inverted(layers, new, damping)
            works &= tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in new.values()])
            return {name: tf.where(works, new[name], old) for name, old in kept[0].items()}, works

        def diagonalise(kept: Judged) -> Judged:
            # Steps since the basis was made: the average of what it diagonalises begins with them.
            return self._factors.eigenvalues(layers, kept[0], age // self.eigenvalue_period + 1)

        state, learns = when(takes & ~inverts, average, (state, tf.constant(True)))
        state, works = when(inverts, renew, (state, tf.constant(True)))
        learns &= is_finite & works
        if self.inverse == "ekfac":
            diagonalises = learns & tf.equal(age % self.eigenvalue_period, 0)
            state, _ = when(diagonalises, diagonalise, (state, tf.constant(True)))
        return {"count": count + tf.cast(learns, count.dtype), **state}, works


def _check_used(inverse: Inverse, rank: int | None, eigenvalue_period: int, kind: Kind) -> None:
    """Raises a ValueError if a setting is given that the inverse has no use for."""
    if rank is not None and inverse != "factored":
        raise ValueError(f'rank needs inverse="factored", got {inverse!r}')
    if eigenvalue_period != 1 and inverse != "ekfac":
        raise ValueError(f'eigenvalue_period needs inverse="ekfac", got {inverse!r}: leave it at 1')
    if kind != "expectation" and inverse == "prong":
        raise ValueError('kind is of G, which inverse="prong" takes for I: leave it at "expectation"')


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
                f"K-FAC has no factor of size {size} for {variable.name}: "
                + (misnamed(layers) or "it was built for other variables")
            )
