"""Code of ngrl's is traced as it is written, whatever `tf.function` makes of its caller's."""

import traceback

import numpy as np
import tensorflow as tf

from ngrl.solvers import ConjugateGradient


class Watched(tf.linalg.LinearOperatorFullMatrix):
    """Tells from where it is called."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.files = set()

    def _matvec(self, x, adjoint=False):
        self.files |= {frame.filename.rpartition("/ngrl/")[2] for frame in traceback.extract_stack()}
        return super()._matvec(x, adjoint)


def test_solver_is_not_rewritten_and_what_calls_it_is():
    operator = Watched(tf.eye(2))

    @tf.function
    def solve(rhs):
        if tf.reduce_sum(rhs) > 0.0:  # in a graph, only when converted
            rhs = 2.0 * rhs
        return ConjugateGradient()(operator, rhs).value

    np.testing.assert_allclose(solve(tf.constant([1.0, 2.0])), [2.0, 4.0], rtol=1e-6)
    assert "solvers/conjugate_gradient.py" in operator.files
