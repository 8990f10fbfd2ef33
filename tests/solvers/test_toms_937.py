"""The synthetic cases of Algorithm 937's test driver, re-created from their description.

Choi & Saunders 2014, ACM TOMS 40(2). The systems are `(A - shift I) x = b` with A = diag(1/n, 2/n, ..., 1)
and the solution x = (n, n-1, ..., 1). In the singular ones the last two entries of A and x are 0; an inconsistent
right-hand side has 1 there. The preconditioner is M = |A - shift I|, with `perturbation` added to every tenth
entry; here the system is scaled by M^(-1/2) from both sides instead. Each case is run with the driver's
settings and with the default ones.
"""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from linear_systems import DTYPES

from ngrl import solvers
from ngrl.solvers import Result
from ngrl.solvers.lanczos import sym_ortho


class Case(NamedTuple):
    n: int
    shift: float = 0.0
    preconditioned: bool = False
    perturbation: float = 0.0
    singular: bool = False
    consistent: bool = True


CASES = [
    Case(1),
    Case(1, shift=0.01),
    Case(2),
    Case(2, shift=0.01),
    Case(3),
    Case(3, shift=0.01),
    Case(4),
    Case(4, shift=0.01),
    Case(50),
    Case(50, shift=0.01),
    Case(2, preconditioned=True),
    Case(2, shift=0.01, preconditioned=True),
    Case(50, preconditioned=True),
    Case(50, shift=0.01, preconditioned=True),
    Case(50, preconditioned=True, perturbation=0.1),
    Case(50, shift=0.01, preconditioned=True, perturbation=0.1),
    Case(4, singular=True),
    Case(4, shift=0.3, singular=True),
    Case(50, singular=True),
    Case(4, singular=True, consistent=False),
    Case(50, singular=True, consistent=False),
]
SETTINGS = {
    (np.float64, "driver"): solvers.MinresQLP(
        rtol=1e-12, max_iterations=150, max_norm=1e8, max_condition=1e15, transition_condition=1e7
    ),
    (np.float32, "driver"): solvers.MinresQLP(
        rtol=1e-5, max_iterations=150, max_norm=1e4, max_condition=1e7, transition_condition=1e3
    ),
    (np.float64, "default"): solvers.MinresQLP(),
    (np.float32, "default"): solvers.MinresQLP(),
}
_FUNCTIONS = {}


def system(case):
    """The diagonal of A, b, the diagonal of M^(-1/2), and the solution."""
    index = np.arange(1, case.n + 1)
    diagonal, solution = index / case.n, case.n + 1.0 - index
    if case.singular:
        diagonal[-2:] = solution[-2:] = 0.0
    rhs = (diagonal - case.shift) * solution
    if not case.consistent:
        rhs[-2:] = 1.0
    scale = np.ones(case.n)
    if case.preconditioned:
        perturbation = np.where(index % 10 == 0, case.perturbation, 0.0)
        scale = (np.abs(diagonal - case.shift) + perturbation) ** -0.5
    return diagonal, rhs, scale, solution


def run(dtype, setting, case):
    """The solution of the scaled system, in terms of the original one, and the whole answer."""
    diagonal, rhs, scale, _ = system(case)
    key = (dtype, setting)
    if key not in _FUNCTIONS:

        def function(scaled, rhs, damping, solver=SETTINGS[key]):
            return solver(tf.linalg.LinearOperatorDiag(scaled), rhs, damping)

        shapes = [tf.TensorSpec([None] * rank, dtype) for rank in (1, 1, 0)]
        _FUNCTIONS[key] = tf.function(function, input_signature=shapes)
    if case.preconditioned:  # the shift is scaled too
        arguments = ((diagonal - case.shift) * scale**2, rhs * scale, 0.0)
    else:
        arguments = (diagonal, rhs, -case.shift)
    answer = _FUNCTIONS[key](*[tf.constant(argument, dtype) for argument in arguments])
    return scale * answer.value.numpy(), answer


@pytest.mark.parametrize("setting", ["driver", "default"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=[f"{number:02d}" for number in range(1, 22)])
def test_algorithm_937_synthetic_case(case, dtype, setting):
    value, answer = run(dtype, setting, case)
    solution = system(case)[-1]
    error = np.linalg.norm(value - solution) / np.linalg.norm(solution)
    # The driver's own tolerances on the error.
    if dtype == np.float32:
        tolerance = 1e-3
    elif setting == "default":
        tolerance = 1e-6 * 50  # our default rtol is 1e-6, its is the dtype's accuracy
    else:
        tolerance = 10 * np.finfo(dtype).eps * case.n * float(answer.stats.condition)
    assert error <= max(tolerance, 10 * np.finfo(dtype).eps)
    expected = Result.CONVERGED if case.consistent else Result.LEAST_SQUARES
    assert Result(int(answer.result)) == expected


@pytest.mark.parametrize(
    ("case", "at_most"),
    [
        (Case(4), 4),  # n iterations
        (Case(50, preconditioned=True), 1),  # the exact preconditioner makes it the identity
        (Case(50, shift=0.3, preconditioned=True), 2),  # ... or one with the eigenvalues 1 and -1
        (Case(50, preconditioned=True, perturbation=0.1), 6),  # ... or about n / 10 others
    ],
)
def test_a_case_takes_as_many_iterations_as_it_has_different_eigenvalues(case, at_most):
    if case.shift == 0.3:
        case = case._replace(shift=0.305)  # 0.3 is an eigenvalue
    _, answer = run(np.float64, "driver", case)
    assert Result(int(answer.result)) == Result.CONVERGED
    assert int(answer.stats.iterations) <= at_most


def test_both_phases_take_part_in_the_large_inconsistent_case():
    _, answer = run(np.float64, "driver", CASES[-1])
    assert 0 < int(answer.stats.qlp_iterations) < int(answer.stats.iterations)


BIG, SMALL = np.finfo(np.float64).max / 10, np.finfo(np.float64).tiny


@pytest.mark.parametrize(
    ("a", "b", "r"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 2.0, 2.0),
        (6.0, -8.0, 10.0),
        (8.0, 6.0, 10.0),
        (-3 * BIG, -4 * BIG, 5 * BIG),
        (-3 * SMALL, -4 * SMALL, 5 * SMALL),
        (-3 * BIG, -4.0, 3 * BIG),
        (-4.0, -3 * BIG, 3 * BIG),
        (-3.0, -4 * SMALL, 3.0),
        (-3 * SMALL, -4.0, 4.0),
    ],
)
def test_a_reflection_is_accurate_for_large_and_small_numbers(a, b, r):
    cosine, sine, length = (float(x) for x in sym_ortho(tf.constant(a, tf.float64), tf.constant(b, tf.float64)))
    assert length == pytest.approx(r, rel=1e-14)
    assert cosine == pytest.approx(a / r if r else 1.0, rel=1e-14, abs=1e-300)
    assert sine == pytest.approx(b / r if r else 0.0, rel=1e-14, abs=1e-300)
