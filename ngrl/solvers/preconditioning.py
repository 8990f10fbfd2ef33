"""Krylov solvers with K-FAC as preconditioner.

With M = F̂ + λI, symmetric positive definite, a method works on M^(-½) (A + λI) M^(-½), whose eigenvalues lie the
closer together the better F̂ approximates A. Products with M⁻¹ are all that it needs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ngrl.solvers.kfac import Kfac
from ngrl.solvers.solution import Answer, Problem, Solution, Solver, checked_solution, normalised_problem
from ngrl.solvers.system import ParameterSystem, RightHandSide


class PreconditionedSolver(Solver):
    """A solver whose `_solve` heeds `Problem.inverse`.

    The preconditioner's factors are those of the operator alone, or, in steps of an optimizer, its running averages:
    they are this solver's state.
    """

    def __init__(self, preconditioner: Kfac | dict[str, Any] | None) -> None:
        """Take a `Kfac`, as itself or as `get_config` describes it, or None.

        Raises:
          ValueError: It is something else, needs a loss's derivatives, which a preconditioner isn't given, or models
            steps, which it doesn't.
        """
        if isinstance(preconditioner, dict):
            preconditioner = tf.keras.utils.deserialize_keras_object(preconditioner)
        if preconditioner is not None and not isinstance(preconditioner, Kfac):
            raise ValueError(f"preconditioner must be None or a Kfac, got {preconditioner!r}")
        if preconditioner is not None and preconditioner.needs_output_gradient:
            raise ValueError('a preconditioner is given no loss: take another kind of Kfac than "empirical"')
        if preconditioner is not None and preconditioner.quadratic_model != "exact":
            raise ValueError('quadratic_model is for Kfac as the solver, not as a preconditioner: leave it at "exact"')
        self.preconditioner: Kfac | None = preconditioner

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"preconditioner": tf.keras.utils.serialize_keras_object(self.preconditioner)}

    @property
    def guards_state(self) -> bool:  # type: ignore[override]
        """As of the preconditioner."""
        return self.preconditioner is not None

    def slots(self, variables: Sequence[tf.Variable]) -> dict[str, tf.Tensor]:
        """What the preconditioner remembers; see `Solver.slots`."""
        return {} if self.preconditioner is None else self.preconditioner.slots(variables)

    def answer(
        self,
        operator: tf.linalg.LinearOperator,
        gradient: RightHandSide,
        damping: float | tf.Tensor = 0.0,
        state: Mapping[str, tf.Tensor] | None = None,
    ) -> Answer:
        """A step of the preconditioner's running averages, then the solve; see `Solver.answer`.

        Raises:
          TypeError: As `Kfac.answer`.
          ValueError: As `Kfac.answer`.
        """
        rhs = gradient.gradient(operator)
        problem, after = self._problem(operator, rhs, damping, state)
        return Answer(*checked_solution(problem, *self._solve(problem)), ParameterSystem(operator, rhs), after)

    def solve_with_product(
        self, operator: tf.linalg.LinearOperator, rhs: tf.Tensor, damping: float | tf.Tensor = 0.0
    ) -> tuple[Solution, tf.Tensor]:
        """As of every solver, the preconditioner's factors being those of the operator alone."""
        problem, _ = self._problem(operator, rhs, damping, None)
        return checked_solution(problem, *self._solve(problem))

    def _problem(
        self,
        operator: tf.linalg.LinearOperator,
        rhs: tf.Tensor,
        damping: float | tf.Tensor,
        state: Mapping[str, tf.Tensor] | None,
    ) -> tuple[Problem, dict[str, tf.Tensor]]:
        """The system with the preconditioner's inverse, and the state after its step."""
        problem = normalised_problem(operator, rhs, damping)
        if self.preconditioner is None:
            return problem, dict(state or {})
        is_finite = tf.math.is_finite(problem.rhs_norm)
        inverse, after = self.preconditioner.inverse_product(operator, problem.damping, state, is_finite)
        return problem._replace(inverse=inverse), after
