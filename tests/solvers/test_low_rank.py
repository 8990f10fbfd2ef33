"""K-FAC's factors of low rank and its own quadratic model, against the dense solver and NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from small_stacks import compiled, linearised, network

from ngrl.curvature import GaussNewton, KroneckerFactored, SquaredError
from ngrl.optimizers import NaturalGradient
from ngrl.solvers import Kfac, OutputGradient, Result, blocked_cholesky, factor_inverses

RNG = np.random.default_rng


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_steps_are_those_of_whole_factors_where_the_rank_suffices(mode):
    stack = network(
        (12, 11, 2)
    )  # 12 inputs and a bias: of low rank, as the 11 derivatives; the last layer's two aren't
    batches, pulls = RNG(1).normal(size=(2, 2, 12)), RNG(2).normal(size=(2, 2))
    chosen = tf.constant([0, 1])

    def solve(solver):
        state, found = solver.slots(stack.variables), []
        for inputs, pull in zip(batches, pulls, strict=True):
            operator = GaussNewton(stack, stack.variables, tf.constant(inputs), SquaredError(chosen=chosen))
            gradient = OutputGradient(tf.one_hot(chosen, 2, dtype=tf.float64) * pull[:, np.newaxis])
            answer = solver.answer(operator, gradient, 0.1, state)
            state = answer.state
            found.append((answer.solution.value, answer.image))
        return found, state

    few, state = compiled(lambda: solve(Kfac(period=1, rank=5)), mode)()  # two batches of two examples: rank 4
    assert [state[f"0/{name}"].shape for name in ("inputs", "derivatives")] == [(13, 5), (11, 5)]
    assert state["2/derivatives"].shape == (2, 2)
    whole, dense = solve(Kfac(period=1))
    for ours, expected in zip(few, whole, strict=True):
        np.testing.assert_allclose(ours[0], expected[0], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(ours[1], expected[1], rtol=1e-6, atol=1e-8)
    for name in ("0/inputs", "0/derivatives", "2/inputs"):
        np.testing.assert_allclose(state[name] @ tf.transpose(state[name]), dense[name], rtol=1e-6, atol=1e-8)


def test_averages_come_near_the_best_of_their_rank_wherever_the_rows_move():
    rank, size, damping = 3, 20, 0.1
    basis = np.linalg.qr(RNG(3).normal(size=(size, size)))[0]
    fresh = tf.constant(RNG(4).normal(size=(size, rank)) / np.sqrt(size))
    root = tf.zeros([size, rank], tf.float64)
    inverse = factor_inverses.LowRank(root, tf.constant(0.0, tf.float64))
    spectrum = 0.5 ** np.arange(size)
    # Two sets of rows whose largest directions are orthogonal, the first with the rest of the other.
    for turned in (basis, basis[:, ::-1]):
        rows = np.diag(np.sqrt(spectrum)) @ turned.T
        for _ in range(12):
            sketch = inverse.sketch(fresh)
            (root,) = factor_inverses.averaged([root], [tf.constant(rows)], [sketch], tf.constant(0.1, tf.float64))
            (inverse,) = factor_inverses.low_rank([root], [tf.constant(damping, tf.float64)])
        error = np.linalg.norm(rows.T @ rows - root @ tf.transpose(root), 2)
        assert error < 1.02 * spectrum[rank]
    expected = np.linalg.inv(root @ tf.transpose(root) + damping * np.eye(size))
    vectors = RNG(5).normal(size=(size, 2))
    np.testing.assert_allclose(inverse.before(tf.constant(vectors)), expected @ vectors, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(inverse.after(tf.constant(vectors.T)), vectors.T @ expected, rtol=1e-10, atol=1e-12)


def test_a_batch_of_zeros_and_no_damping_leave_low_ranks_sound():
    stack = network((12, 2))
    solver = Kfac(period=1, rank=4)
    zero = linearised(stack, inputs=np.zeros((3, 12)))
    pull = OutputGradient(tf.ones([3, 2], tf.float64))
    answer = solver.answer(zero, pull, 0.0, solver.slots(stack.variables))
    assert answer.solution.result == Result.BREAKDOWN
    assert not any(np.any(value) for value in answer.state.values())
    answer = solver.answer(zero, pull, 0.1, answer.state)
    answer = solver.answer(linearised(stack, batch=3), pull, 0.1, answer.state)
    assert answer.solution.result == Result.CONVERGED
    learned = np.array(answer.state["0/inputs"] @ tf.transpose(answer.state["0/inputs"]))
    layers = linearised(stack, batch=3).kronecker_layers().layers
    expected = (zero.kronecker_layers().layers[0].input_factor() + layers[0].input_factor()) / 2
    np.testing.assert_allclose(learned, expected, rtol=1e-6, atol=1e-8)


def test_factored_model_is_the_damped_matrix_s_own_curvature():
    stack = network((6, 5, 1))
    inputs, damping = tf.constant(RNG(6).normal(size=(3, 6))), 0.1
    pull = tf.constant(RNG(7).normal(size=(3, 1)))
    optimizer = NaturalGradient(None, Kfac(inverse="exact", quadratic_model="factored"), damping, max_kl=0.01)
    operator = GaussNewton(stack, stack.variables, inputs)
    matrix = KroneckerFactored(operator.kronecker_layers()).to_dense().numpy()
    matrix += damping * np.eye(len(matrix))
    gradient = operator.vjp(pull).numpy()
    before = np.concatenate([v.numpy().ravel() for v in stack.variables])
    stats = optimizer.apply_output_gradient(pull, GaussNewton(stack, stack.variables, inputs))
    change = np.concatenate([v.numpy().ravel() for v in stack.variables]) - before
    direction = np.linalg.solve(matrix, -gradient)
    direction *= np.sqrt(0.02 / (direction @ matrix @ direction))
    np.testing.assert_allclose(change, direction, rtol=1e-8, atol=1e-10)
    assert float(stats.predicted_kl) == pytest.approx(0.01, rel=1e-6)
    assert float(stats.predicted_change) == pytest.approx(gradient @ direction, rel=1e-6)
    assert float(stats.gradient_norm) == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


def test_factors_of_a_stack_of_matrices_are_inverted_at_once():
    factors = RNG(8).normal(size=(3, 40, 80))
    matrices = factors @ factors.swapaxes(1, 2) / 40
    found = tf.function(blocked_cholesky.inverse_factor, jit_compile=True)(tf.constant(matrices))
    np.testing.assert_allclose(found, np.linalg.inv(np.linalg.cholesky(matrices)), rtol=1e-8, atol=1e-9)


def test_bad_input_of_rank_and_model_is_answered_in_one_line():
    for arguments, word in (
        ({"rank": 0}, "rank"),
        ({"rank": 4, "inverse": "exact"}, 'rank needs inverse="factored"'),
        ({"quadratic_model": "kl"}, "quadratic_model"),
    ):
        with pytest.raises(ValueError, match=word):
            Kfac(**arguments)
    with pytest.raises(ValueError, match="momentum=0"):
        NaturalGradient(0.1, Kfac(quadratic_model="factored"), 1.0, max_kl=0.1, momentum=0.9)
    config = Kfac(rank=4, quadratic_model="factored").get_config()
    assert Kfac.from_config(config).get_config() == config
