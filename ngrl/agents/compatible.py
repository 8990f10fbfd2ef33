"""The critics of the natural actor-critic: from a batch of trajectories to the natural gradient w."""

import abc
from typing import Literal

import tensorflow as tf

from ngrl import losses
from ngrl.agents.trajectories import Steps, rows_of, time_major
from ngrl.checks import check_choice, check_number
from ngrl.configurable import configurable
from ngrl.curvature import EmpiricalFisher
from ngrl.solvers import MinresQLP, RowCombination, Solution, Solver

# Dense systems of more unknowns than this take seconds an update; arrays of more numbers than this, half a gigabyte.
_MOST_UNKNOWNS = 1024
_MOST_NUMBERS = 2**26

# Relative singular values of float64 systems below this count as zero.
_MAX_CONDITION = 1e10


class CompatibleCritic(abc.ABC):
    """Estimates w, the weights of the compatible features ψ = ∇_θ log π(a|s), which are the natural gradient."""

    def check(self, num_parameters: int, has_values: bool, has_vectors: bool) -> None:
        """Raise a ValueError if this critic can't serve such a policy.

        Args:
          num_parameters: The policy's.
          has_values: Whether there is a critic network.
          has_vectors: Whether the policy sees its observations as vectors, without a trunk.
        """
        del num_parameters, has_values, has_vectors

    @abc.abstractmethod
    def __call__(self, steps: Steps, scores: EmpiricalFisher) -> Solution:
        """The natural gradient w [P], float32, with how it was solved.

        Args:
          steps: The trajectories.
          scores: The operator whose row i is `√(w_i/Σw) ψ_i`; rows are those of each trajectory one after another.
        """


@configurable
class LstdQ(CompatibleCritic):
    """LSTD-Q(λ) (Peters & Schaal 2008), for policies of up to about a thousand parameters.

    `Q(s, a) = φ(s)ᵀv + ψ(s, a)ᵀw` is solved for v and w together, in float64, by MINRES-QLP. Where the system is
    singular (fewer steps than unknowns, features that repeat each other, such as a softmax's, which no constant added
    to all its logits changes) it gives the shortest least-squares solution; relative singular values below about
    1e-10 count as zero.

    Args:
      gamma: Discount factor γ.
      trace_decay: λ of the eligibility traces.
      basis: φ(s): "linear", the encoded observation and a constant; "quadratic", also the products of its entries,
        enough for the values of linear systems with quadratic costs; "critic", the critic network's value and a
        constant.
      damping: Added to the diagonal of the block of w, which is F in expectation.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        gamma: float = 0.99,
        trace_decay: float = 0.9,
        basis: Literal["linear", "quadratic", "critic"] = "linear",
        damping: float = 0.0,
    ):
        check_number("LstdQ: gamma", gamma, "[0, 1]")
        check_number("LstdQ: trace_decay", trace_decay, "[0, 1]")
        check_number("LstdQ: damping", damping, "[0, inf)")
        check_choice("LstdQ: basis", basis, ("linear", "quadratic", "critic"))
        self._gamma = float(gamma)
        self._trace_decay = float(trace_decay)
        self._basis = basis
        self._damping = float(damping)

    def check(self, num_parameters: int, has_values: bool, has_vectors: bool) -> None:
        """Refuse policies that are too large, and a basis of values or of vectors where there are none.

        Raises:
          ValueError: The policy has more than 1,024 parameters, there is no critic network for `basis="critic"`, or the
            policy has a trunk for another basis.
        """
        if num_parameters > _MOST_UNKNOWNS:
            raise ValueError(
                f"LstdQ solves a dense system: a policy of {num_parameters} parameters is too large for it "
                f"(at most {_MOST_UNKNOWNS}); take a smaller network, hidden_layers=(), or CompatibleRegression"
            )
        if self._basis == "critic" and not has_values:
            raise ValueError("LstdQ: basis='critic' needs a critic network")
        if self._basis != "critic" and not has_vectors:
            raise ValueError(f"LstdQ: basis={self._basis!r} is for policies without a trunk: take 'critic'")

    def __call__(self, steps: Steps, scores: EmpiricalFisher) -> Solution:
        phi = _double(self._features(steps))
        psi = _score_rows(steps, scores)
        unknowns = phi.shape[-1] + psi.shape[-1]
        if unknowns > 2 * _MOST_UNKNOWNS:
            raise ValueError(f"LstdQ: {phi.shape[-1]} features of the state are too many: take basis='linear'")
        # A terminated step's last observation may be anything but counts for nothing; see `lstd_q_system`.
        system = losses.lstd_q_system(
            r_t=_double(steps.r_t),
            discount_t=_double(steps.discount_t),
            continues_t=_double(steps.continues_t),
            weights=_double(steps.weights),
            phi_tm1=phi[:-1],
            phi_t=phi[1:],
            psi=psi,
            gamma=tf.constant(self._gamma, tf.float64),
            trace_decay=tf.constant(self._trace_decay, tf.float64),
        )
        solution = solve_square(losses.damp_scores(system, psi.shape[-1], tf.constant(self._damping, tf.float64)))
        return _single(solution._replace(value=solution.value[phi.shape[-1] :]))

    def _features(self, steps: Steps) -> tf.Tensor:
        """φ of every state, the last one reached included [T + 1, B, M]."""
        if self._basis == "critic":
            assert steps.values is not None
            values = steps.values[..., tf.newaxis]
            return tf.concat([values, tf.ones_like(values)], axis=-1)
        encoded = steps.encoded
        assert encoded is not None
        constant = tf.ones_like(encoded[..., :1])
        if self._basis == "linear":
            return tf.concat([encoded, constant], axis=-1)
        size = encoded.shape[-1]
        first = [i for i in range(size) for _ in range(i, size)]
        second = [j for i in range(size) for j in range(i, size)]
        products = tf.gather(encoded, first, axis=-1) * tf.gather(encoded, second, axis=-1)
        return tf.concat([products, encoded, constant], axis=-1)


@configurable
class EpisodicCritic(CompatibleCritic):
    """Episodic NAC: returns of whole episodes regressed on `Σ_t γ^t ψ_t` (Peters & Schaal 2008).

    Needs no state values, and episodes that begin and end within a batch: make it several times longer than they are.
    Without one, w = 0. With fewer episodes than parameters the regression has many solutions; it gives the shortest.

    Args:
      gamma: Discount factor γ.
      baseline: "optimal", the regression's own constant, or "average", the mean return.
      damping: λ in `(Cov(Ψ) + λI) w = Cov(Ψ, R)`, with Ψ an episode's sum: its F is as many times that of a step as
        an episode has steps.

    Raises:
      ValueError: An argument is out of its range.
    """

    def __init__(self, gamma: float = 1.0, baseline: Literal["optimal", "average"] = "optimal", damping: float = 0.0):
        check_number("EpisodicCritic: gamma", gamma, "[0, 1]")
        check_number("EpisodicCritic: damping", damping, "[0, inf)")
        check_choice("EpisodicCritic: baseline", baseline, ("optimal", "average"))
        self._gamma = float(gamma)
        self._optimal = baseline == "optimal"
        self._damping = float(damping)

    def __call__(self, steps: Steps, scores: EmpiricalFisher) -> Solution:
        sums = losses.episode_sums(
            r_t=_double(steps.r_t),
            discount_t=_double(steps.discount_t),
            continues_t=_double(steps.continues_t),
            weights=_double(steps.weights),
            is_first_tm1=steps.is_first_tm1,
            psi=_score_rows(steps, scores),
            gamma=tf.constant(self._gamma, tf.float64),
        )
        rows, targets = losses.episodic_regression(
            tf.reshape(sums.scores, [-1, sums.scores.shape[-1]]),
            tf.reshape(sums.returns, [-1]),
            tf.reshape(sums.weights, [-1]),
            self._optimal,
        )
        return _single(solve_rows(rows, targets, self._damping))


@configurable
class CompatibleRegression(CompatibleCritic):
    """Advantages regressed on ψ: `(Σ w ψψᵀ / Σw + λI) w = Σ w ψ Â / Σw`, for policies of any size.

    LSTD-Q(1) with the values of `GeneralisedAdvantage` in the place of φᵀv (Kakade 2002, theorem 1). The rows ψ stay
    implicit: the matrix is the empirical Fisher of the batch, and w is the solution of that system for the batch's
    policy gradient.

    Args:
      solver: Solves the system; `MinresQLP(rtol=1e-5)` by default, which gives the shortest solution.
      damping: λ.

    Raises:
      ValueError: An argument is out of its range, or the solver remembers something from one solve to the next.
    """

    def __init__(self, solver: Solver | None = None, damping: float = 0.0):
        check_number("CompatibleRegression: damping", damping, "[0, inf)")
        solver = MinresQLP(rtol=1e-5) if solver is None else solver
        if not isinstance(solver, Solver):
            raise ValueError(f"CompatibleRegression: solver must be an ngrl solver, got {solver!r}")
        if solver.slots([tf.Variable([0.0], trainable=False)]):
            raise ValueError(f"CompatibleRegression solves each batch afresh, and {solver!r} remembers the one before")
        self._solver = solver
        self._damping = float(damping)

    def __call__(self, steps: Steps, scores: EmpiricalFisher) -> Solution:
        # Row i is √(w_i/Σw) ψ_i: times c it is the sum of w_i/Σw ψ_i Â_i.
        coefficients = tf.sqrt(scores.example_weights) * rows_of(steps.advantage)
        return self._solver.answer(scores, RowCombination(coefficients), self._damping).solution


def solve_square(system: losses.LinearSystem) -> Solution:
    """The shortest least-squares solution of `A x = b`, A [D, D] not symmetric.

    MINRES-QLP on `[[0, A], [Aᵀ, 0]] (y, x) = (b, 0)`, whose condition number is that of A; of AᵀA it would be the
    square.
    """
    matrix, target = system
    zeros = tf.zeros_like(matrix)
    upper, lower = tf.concat([zeros, matrix], axis=1), tf.concat([tf.transpose(matrix), zeros], axis=1)
    operator = _full_matrix(tf.concat([upper, lower], axis=0))
    size = matrix.shape[0]
    solution = _shortest(2 * size)(operator, tf.concat([target, tf.zeros_like(target)], axis=0))
    return solution._replace(value=solution.value[size:])


def solve_rows(rows: tf.Tensor, targets: tf.Tensor, damping: float = 0.0) -> Solution:
    """The x [P] of least `‖X x − y‖² + λ‖x‖²`, and of those the shortest; X [n, P], y [n].

    Solved in the smaller of the two spaces: `(XᵀX + λI) x = Xᵀy`, or `x = Xᵀz` with `(XXᵀ + λI) z = y`.
    """
    size = min(rows.shape)
    if rows.shape[1] <= rows.shape[0]:
        matrix = tf.matmul(rows, rows, transpose_a=True)
        return _shortest(size)(_full_matrix(matrix), tf.linalg.matvec(rows, targets, transpose_a=True), damping)
    matrix = tf.matmul(rows, rows, transpose_b=True)
    solution = _shortest(size)(_full_matrix(matrix), targets, damping)
    return solution._replace(value=tf.linalg.matvec(rows, solution.value, transpose_a=True))


def _shortest(size: int) -> MinresQLP:
    """As many iterations as rounding may ask for, where exact arithmetic needs `size`."""
    return MinresQLP(rtol=1e-10, max_iterations=4 * size + 20, max_condition=_MAX_CONDITION)


def _full_matrix(matrix: tf.Tensor) -> tf.linalg.LinearOperator:
    return tf.linalg.LinearOperatorFullMatrix(matrix, is_self_adjoint=True, is_square=True)


def _score_rows(steps: Steps, scores: EmpiricalFisher) -> tf.Tensor:
    """ψ [T, B, P], float64, 0 at masked steps."""
    num_steps, num_trajectories = steps.r_t.shape
    size = scores.shape[-1]
    if num_steps * num_trajectories * size > _MOST_NUMBERS:
        raise ValueError(
            f"the scores of {num_steps * num_trajectories} steps for {size} parameters are too many numbers "
            f"(at most {_MOST_NUMBERS}): take a smaller batch or network, or CompatibleRegression"
        )
    rows = tf.math.divide_no_nan(scores.row_matrix(), tf.sqrt(scores.example_weights)[:, tf.newaxis])
    rows = tf.reshape(rows, [num_trajectories, num_steps, size])
    return _double(time_major(rows))


def _double(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float64)


def _single(solution: Solution) -> Solution:
    return solution._replace(value=tf.cast(solution.value, tf.float32))
