"""Adam's direction in the place of a solution: a first-order step that the trust region bounds like any other."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ngrl.checks import check_number
from ngrl.configurable import configurable
from ngrl.solvers.solution import Answer, Problem, Result, Solution, Solver, SolverStats, flat_zeros
from ngrl.solvers.system import ParameterSystem, RightHandSide, RowProducts


@configurable
@tf.keras.utils.register_keras_serializable(package="ngrl")
class AdamDirection(Solver):
    """Solves nothing: x = m̂ / (√v̂ + ε) of the gradients that it was given (Kingma & Ba 2015, algorithm 1).

    A `NaturalGradient` with it takes Adam's steps, and with `max_kl` bounds them by what F predicts of them, as it
    does with a solution: what a comparison needs that is to tell the direction from the bound. Damping has no effect.
    `stats.residual` is NaN.
    """

    solves_matrices = False

    def __init__(self, *, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7) -> None:
        """Configures the solver.

        Args:
          beta_1: Decay of the mean of gradients.
          beta_2: Decay of the mean of their squares.
          epsilon: ε.

        Raises:
          ValueError: An argument is out of its range.
        """
        self.beta_1 = check_number("beta_1", beta_1, "[0, 1)")
        self.beta_2 = check_number("beta_2", beta_2, "[0, 1)")
        self.epsilon = check_number("epsilon", epsilon, "(0, inf)")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

    def slots(self, variables: Sequence[tf.Variable]) -> dict[str, tf.Tensor]:
        """Means of gradients and of their squares [P], and the number of steps; see `Solver.slots`."""
        return {"mean": flat_zeros(variables), "square": flat_zeros(variables), "count": tf.zeros([], tf.int64)}

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """One step of the means, and the direction; see `Solver.answer`."""
        del damping
        rhs = gradient.gradient(operator)
        count = (state["count"] if state else tf.zeros([], tf.int64)) + 1
        mean, square = (state["mean"], state["square"]) if state else (tf.zeros_like(rhs), tf.zeros_like(rhs))
        mean, square = mean + (1 - self.beta_1) * (rhs - mean), square + (1 - self.beta_2) * (tf.square(rhs) - square)
        unbiased = [
            value / (1 - tf.pow(tf.convert_to_tensor(beta, rhs.dtype), tf.cast(count, rhs.dtype)))
            for value, beta in ((mean, self.beta_1), (square, self.beta_2))
        ]
        value = unbiased[0] / (tf.sqrt(unbiased[1]) + self.epsilon)
        is_finite = tf.reduce_all(tf.math.is_finite(value))
        value = tf.where(is_finite, value, tf.zeros_like(value))
        result = tf.where(is_finite, int(Result.CONVERGED), int(Result.BREAKDOWN))
        stats = SolverStats(tf.constant(0), tf.constant(float("nan"), value.dtype))
        has_rows = getattr(operator, "has_rows", hasattr(operator, "row_matvec"))
        system = RowProducts(operator, rhs) if has_rows else ParameterSystem(operator, rhs)
        kept = {"mean": mean, "square": square, "count": count}
        return Answer(Solution(value, result, stats), system.image(value), system, kept)

    def _solve(self, problem: Problem) -> tuple[tf.Tensor, tf.Tensor, Any]:
        """The direction of a first step, its signs; the tolerance that is claimed is none."""
        stats = SolverStats(tf.constant(0), tf.constant(float("inf"), problem.rhs.dtype))
        return tf.sign(problem.rhs), tf.constant(int(Result.CONVERGED)), stats
