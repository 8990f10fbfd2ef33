"""Fitting a Gaussian by gradient and natural gradient descent, against closed forms and slow loops."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from ngrl import seeding
from ngrl.curvature import DiagonalGaussian, GaussNewton
from ngrl.examples.descent import (
    REACHED_KL,
    Descent,
    analytic_fisher,
    descend,
    draw_points,
    euclidean,
    fisher_agreement,
    fisher_of_samples,
    gradient_field,
    log_likelihoods,
    negative_log_likelihood,
    sampled_fisher,
)
from ngrl.examples.gaussian import Gaussian
from ngrl.loops import NonFiniteError

START, TARGET = Gaussian(0.0, 1.0), Gaussian(12.0, 4.0)
DATA = draw_points(TARGET, 1_000, seed=0)
GRADIENT = Descent("gradient", "gradient", euclidean, step_size=1e-4)
NATURAL = Descent("natural", "natural gradient", analytic_fisher, step_size=1e-4)


def variable(mu, sigma):
    return tf.Variable([mu, sigma], dtype=tf.float64)


def closed_gradient(theta, data=DATA):
    """∇f of the negative log-likelihood summed over the points, from the points' mean and variance."""
    (mu, sigma), mean, variance = theta, data.mean(), data.var()
    return len(data) * np.array([(mu - mean) / sigma**2, 1 / sigma - ((mean - mu) ** 2 + variance) / sigma**3])


def closed_fisher(theta):
    return np.diag([1.0, 2.0]) / theta[1] ** 2


def closed_kl(p, q):
    return math.log(q[1] / p[1]) + (p[1] ** 2 + (p[0] - q[0]) ** 2) / (2 * q[1] ** 2) - 0.5


def slow_descent(num_steps, natural, step_size=1e-4):
    path = [np.array([0.0, 1.0])]
    for _ in range(num_steps):
        gradient = closed_gradient(path[-1])
        direction = np.linalg.solve(closed_fisher(path[-1]), gradient) if natural else gradient
        path.append(path[-1] - step_size * direction)
    return np.array(path)


def test_log_likelihoods_are_those_of_scipy_for_any_shape_of_parameters():
    theta = np.array([[[0.0, 1.0], [12.0, 4.0]], [[-3.0, 0.2], [5.0, 30.0]]])
    expected = scipy.stats.norm.logpdf(DATA[:7], theta[..., :1], theta[..., 1:])
    np.testing.assert_allclose(log_likelihoods(tf.constant(theta), tf.constant(DATA[:7])), expected, rtol=1e-12)
    summed = negative_log_likelihood(tf.constant(theta), tf.constant(DATA[:7]))
    np.testing.assert_allclose(summed, -expected.sum(axis=-1), rtol=1e-12)


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 1.0), (12.0, 4.0), (-5.0, 0.1)])
def test_analytic_fisher_is_the_gauss_newton_matrix_of_mean_and_log_std_and_the_hessian_of_the_kl(mu, sigma):
    theta = variable(mu, sigma)
    fisher = analytic_fisher(theta, tf.constant(0)).to_dense().numpy()
    np.testing.assert_allclose(fisher, closed_fisher((mu, sigma)), rtol=1e-13)

    def outputs(inputs):
        del inputs
        return tf.stack([theta[0], tf.math.log(theta[1])])[tf.newaxis]

    operator = GaussNewton(outputs, [theta], tf.zeros([1, 1], tf.float64), DiagonalGaussian())
    np.testing.assert_allclose(operator.to_dense(), fisher, rtol=1e-12, atol=1e-15)

    h = 1e-4 * sigma
    for i in range(2):
        for j in range(2):
            difference = sum(
                a * b * closed_kl((mu, sigma), (mu, sigma) + h * (a * np.eye(2)[i] + b * np.eye(2)[j]))
                for a in (-1, 1)
                for b in (-1, 1)
            )
            assert difference / (4 * h**2) == pytest.approx(fisher[i, j], rel=1e-4, abs=1e-4 / sigma**2)


def test_sampled_fisher_has_the_analytic_one_as_its_mean():
    """Gauss-Hermite quadrature integrates the outer products, polynomials of degree 4, exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(10)
    theta = variable(12.0, 4.0)
    fisher = fisher_of_samples(theta, tf.constant(12 + 4 * nodes), tf.constant(weights)).to_dense()
    np.testing.assert_allclose(fisher, closed_fisher((12.0, 4.0)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("at", [START, TARGET])
def test_fisher_of_samples_agrees_with_the_analytic_one_within_its_standard_error(at):
    agreement = fisher_agreement(at, 100_000, seed=3)
    scaled = np.array(agreement["sampled"]) * at.std**2
    # With z = (x − μ)/σ the entries are the means of z², z³ − z and (z² − 1)², of variance 2, 10 and 56.
    standard_error = np.sqrt(np.array([[2, 10], [10, 56]]) / 100_000)
    assert (np.abs(scaled - np.diag([1.0, 2.0])) < 4 * standard_error).all()
    np.testing.assert_allclose(agreement["analytic"], closed_fisher((at.mean, at.std)))
    assert agreement["relative_error"] < 3 * agreement["expected_error"]


def test_expected_error_of_the_sampled_fisher_is_the_root_mean_square_over_samples():
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    whitened = np.stack([nodes, (nodes**2 - 1) / math.sqrt(2)])
    outer = whitened[:, None] * whitened[None, :] - np.eye(2)[..., None]
    mean_square = np.average((outer**2).sum(axis=(0, 1)), weights=weights)
    expected = fisher_agreement(START, 50, seed=0)["expected_error"]
    assert expected == pytest.approx(math.sqrt(mean_square / 50) / math.sqrt(2), rel=1e-10)


def test_points_depend_on_the_seed_alone():
    assert (draw_points(TARGET, 5, seed=1) == draw_points(TARGET, 5, seed=1)).all()
    assert (draw_points(TARGET, 5, seed=1) != draw_points(TARGET, 5, seed=2)).all()


def test_samples_of_a_step_depend_on_seed_and_step_alone():
    theta = variable(0.0, 1.0)

    def fisher(seed, step):
        return sampled_fisher(20, seed)(theta, tf.constant(step)).to_dense().numpy()

    assert (fisher(1, 5) == fisher(1, 5)).all()
    assert (fisher(1, 5) != fisher(1, 6)).any()
    assert (fisher(1, 5) != fisher(2, 5)).any()


@pytest.mark.parametrize(("descent", "natural"), [(GRADIENT, False), (NATURAL, True)])
def test_fixed_step_follows_the_formula_written_out(descent, natural):
    trajectory = descend(DATA, START, TARGET, descent, 60)
    expected = slow_descent(60, natural)
    np.testing.assert_allclose(trajectory.theta, expected, rtol=1e-5)  # the optimizer holds 1e-4 in float32
    loss = [-scipy.stats.norm.logpdf(DATA, *theta).sum() for theta in trajectory.theta]
    np.testing.assert_allclose(trajectory.negative_log_likelihood, loss, rtol=1e-10)
    norms = [np.linalg.norm(closed_gradient(theta)) for theta in trajectory.theta]
    np.testing.assert_allclose(trajectory.gradient_norm, norms, rtol=1e-6)
    to_target = [closed_kl((12.0, 4.0), theta) for theta in trajectory.theta]
    np.testing.assert_allclose(trajectory.kl_to_target, to_target, rtol=1e-8, atol=1e-12)
    between = [closed_kl(a, b) for a, b in itertools.pairwise(trajectory.theta)]
    assert math.isnan(trajectory.step_kl[0])
    np.testing.assert_allclose(trajectory.step_kl[1:], between, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_natural_gradient_reaches_the_target_where_gradient_descent_does_not(seed):
    """Fig. 2: a large first jump that throws gradient descent much further, and then tiny steps."""
    data = draw_points(TARGET, 1_000, seed)
    natural = descend(data, START, TARGET, NATURAL, 1_000)
    gradient = descend(data, START, TARGET, GRADIENT, 1_000)
    assert natural.reached_at is not None
    assert natural.reached_at <= 40
    np.testing.assert_allclose(natural.theta[-1], [data.mean(), data.std()], rtol=1e-6)
    np.testing.assert_allclose(natural.theta[-1], [12, 4], atol=0.5)
    assert gradient.reached_at is None
    assert gradient.kl_to_target[-1] > 50 * REACHED_KL
    assert gradient.theta[:, 1].max() > 15
    assert natural.theta[:, 1].max() < 10
    steps = np.linalg.norm(np.diff(gradient.theta, axis=0), axis=1)
    assert steps[0] > 1_000 * steps[1:].max()


def test_gradient_descent_needs_the_steps_that_the_docstring_says():
    path = slow_descent(2_600, natural=False)
    reached = [step for step, theta in enumerate(path) if closed_kl((12.0, 4.0), theta) <= REACHED_KL]
    assert 2_350 <= reached[0] <= 2_500
    np.testing.assert_allclose(path[1_000], [5, 13], atol=0.5)


@pytest.mark.parametrize(("metric", "matrix"), [(analytic_fisher, closed_fisher), (euclidean, lambda theta: np.eye(2))])
def test_metric_sized_steps_have_length_epsilon_in_the_metric_and_its_steepest_direction(metric, matrix):
    epsilon = 0.005
    theta = descend(DATA, START, TARGET, Descent("x", "x", metric, max_kl=epsilon), 80).theta
    for before, after in itertools.pairwise(theta):
        change = after - before
        assert 0.5 * change @ matrix(before) @ change == pytest.approx(epsilon, rel=1e-8)
        steepest = -np.linalg.solve(matrix(before), closed_gradient(before))
        np.testing.assert_allclose(change / np.linalg.norm(change), steepest / np.linalg.norm(steepest), atol=1e-7)


def test_algorithm_2_takes_the_step_of_the_matrix_of_its_samples():
    epsilon, metric = 0.005, sampled_fisher(300, seed=4)
    key = seeding.key(4, seeding.Stream.FISHER_SAMPLES)
    theta = descend(DATA, START, TARGET, Descent("x", "x", metric, max_kl=epsilon), 3).theta
    for step in range(3):
        noise = tf.random.stateless_normal([300], seeding.at(key, step), dtype=tf.float64, alg="philox").numpy()
        sigma = theta[step, 1]
        scores = np.stack([noise / sigma, (noise**2 - 1) / sigma])  # ∇ log p at x = μ + σ z
        fisher = scores @ scores.T / 300
        direction = np.linalg.solve(fisher, closed_gradient(theta[step]))
        beta = math.sqrt(2 * epsilon / (direction @ fisher @ direction))
        np.testing.assert_allclose(theta[step + 1], theta[step] - beta * direction, rtol=1e-8)


@pytest.mark.parametrize(("metric", "inexact"), [(analytic_fisher, 0.15), (sampled_fisher(1_000, seed=0), 0.6)])
def test_metric_sized_natural_gradient_arrives_and_then_stays_within_the_length_of_a_step(metric, inexact):
    epsilon = 0.005
    trajectory = descend(DATA, START, TARGET, Descent("x", "x", metric, max_kl=epsilon), 120)
    assert trajectory.reached_at is not None
    assert trajectory.reached_at <= 50
    optimum = (DATA.mean(), DATA.std())
    assert max(closed_kl(optimum, theta) for theta in trajectory.theta[80:]) < 1.3 * epsilon
    # The true divergence of a step is its length in the metric up to third order, and the noise of the samples.
    np.testing.assert_allclose(trajectory.step_kl[1:], epsilon, rtol=inexact)


def test_gradient_field_is_the_closed_form_and_the_natural_one_varies_far_less():
    mu, sigma = np.meshgrid(np.linspace(0, 24, 5), np.linspace(1, 12, 6))
    theta = np.stack([mu, sigma], axis=-1)
    gradient, natural = gradient_field(DATA, theta)
    for index in np.ndindex(mu.shape):
        expected = closed_gradient(theta[index])
        np.testing.assert_allclose(gradient[index], expected, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(natural[index], np.linalg.solve(closed_fisher(theta[index]), expected), rtol=1e-7)
    spread, natural_spread = (
        np.ptp(np.log10(np.linalg.norm(field, axis=-1)), axis=None) for field in (gradient, natural)
    )
    assert natural_spread < spread - 1


def test_steps_are_the_same_under_xla():
    theta = variable(0.0, 1.0)
    operators = [metric(theta, tf.constant(0)) for metric in (analytic_fisher, sampled_fisher(50, 0))]

    @tf.function(jit_compile=True)
    def compiled():
        return [metric(theta, tf.constant(0)).to_dense() for metric in (analytic_fisher, sampled_fisher(50, 0))]

    for eager, xla in zip(operators, compiled(), strict=True):
        np.testing.assert_allclose(xla, eager.to_dense(), rtol=1e-10)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1.0, math.nan, 2.0], "point 1 is nan"),
        ([1.0, 2.0, math.inf], "point 2 is inf"),
        ([], "at least two different points"),
        ([3.0, 3.0, 3.0], "at least two different points"),
        ([[1.0, 2.0]], r"must have shape \[N\], got \[1, 2\]"),
    ],
)
def test_data_without_a_most_likely_gaussian_are_refused(data, expected):
    with pytest.raises(ValueError, match=expected):
        descend(np.array(data), START, TARGET, NATURAL, 10)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="num_steps must be a positive integer, got 0"):
        descend(DATA, START, TARGET, NATURAL, 0)
    with pytest.raises(ValueError, match="step_size must be positive and finite or None, got -1"):
        Descent("x", "x", euclidean, step_size=-1)
    with pytest.raises(ValueError, match="max_kl must be positive and finite or None, got nan"):
        Descent("x", "x", euclidean, max_kl=math.nan)
    for both in ({}, {"step_size": 1.0, "max_kl": 1.0}):
        with pytest.raises(ValueError, match="either step_size or max_kl"):
            Descent("x", "x", euclidean, **both)
    with pytest.raises(ValueError, match="fisher_samples must be an integer of at least 2, got 1"):
        sampled_fisher(1, seed=0)
    with pytest.raises(ValueError, match="num_points must be an integer of at least 2, got 1"):
        draw_points(TARGET, 1, seed=0)
    with pytest.raises(ValueError, match="seed must lie between"):
        draw_points(TARGET, 10, seed=-1)
    with pytest.raises(ValueError, match="needs σ > 0"):
        gradient_field(DATA, np.array([0.0, 0.0]))


def test_descent_that_leaves_the_gaussians_says_where_and_what_to_change():
    steep = Descent("steep", "steep gradient", euclidean, step_size=0.1)
    with pytest.raises(NonFiniteError, match=r"steep gradient: step 1 came to .* σ = -\d.*make step_size smaller"):
        descend(DATA, Gaussian(12.0, 8.0), TARGET, steep, 5)


def test_singular_metric_is_reported_as_such():
    def singular(theta, step):
        del theta, step
        return tf.linalg.LinearOperatorDiag(tf.constant([1.0, 0.0], tf.float64), is_self_adjoint=True)

    with pytest.raises(NonFiniteError, match="step 1 was impossible, its metric is singular"):
        descend(DATA, START, TARGET, Descent("x", "x", singular, max_kl=0.1), 5)
