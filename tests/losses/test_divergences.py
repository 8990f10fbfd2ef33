"""Divergences against numerical integration, scipy and the Fisher information."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, special, stats

from ngrl import losses

RANDOM = np.random.default_rng(0)
LOGITS_P, LOGITS_Q = RANDOM.normal(scale=2.0, size=(2, 4, 3, 5))
MEAN_P, MEAN_Q = RANDOM.normal(size=(2, 3, 2))
LOG_STD_P, LOG_STD_Q = RANDOM.uniform(-1.0, 1.0, size=(2, 3, 2))
GAUSSIANS = [tf.constant(x) for x in (MEAN_P, LOG_STD_P, MEAN_Q, LOG_STD_Q)]
SWAPPED = GAUSSIANS[2:] + GAUSSIANS[:2]


def integrated_kl(mean_p, std_p, mean_q, std_q):
    p, q = stats.norm(mean_p, std_p), stats.norm(mean_q, std_q)
    value, _ = integrate.quad(
        lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean_p - 12 * std_p, mean_p + 12 * std_p, epsabs=1e-12
    )
    return value


def test_categorical_kl_agrees_with_scipy():
    p, q = special.softmax(LOGITS_P, axis=-1), special.softmax(LOGITS_Q, axis=-1)
    kl = losses.kl_categorical(tf.constant(LOGITS_P), tf.constant(LOGITS_Q))
    np.testing.assert_allclose(kl, stats.entropy(p, q, axis=-1), rtol=1e-11)
    reverse = stats.entropy(q, p, axis=-1)
    symmetric = losses.symmetric_kl_categorical(tf.constant(LOGITS_P), tf.constant(LOGITS_Q))
    np.testing.assert_allclose(symmetric, (stats.entropy(p, q, axis=-1) + reverse) / 2, rtol=1e-11)


def test_gaussian_kl_agrees_with_numerical_integration():
    expected, reverse = np.zeros(3), np.zeros(3)
    for b, d in np.ndindex(3, 2):
        p, q = (MEAN_P[b, d], np.exp(LOG_STD_P[b, d])), (MEAN_Q[b, d], np.exp(LOG_STD_Q[b, d]))
        expected[b] += integrated_kl(*p, *q)
        reverse[b] += integrated_kl(*q, *p)
    np.testing.assert_allclose(losses.kl_diagonal_gaussian(*GAUSSIANS), expected, rtol=1e-8)
    np.testing.assert_allclose(losses.symmetric_kl_diagonal_gaussian(*GAUSSIANS), (expected + reverse) / 2, rtol=1e-8)


@pytest.mark.parametrize(("std", "expected"), [(0.3, 5.5556), (3.0, 0.055556)])
def test_the_gaussian_pairs_of_van_heeswijk(std, expected):
    """Means 0 and 1; the article prints 0.81661 and 0.023481, which the closed form does not give."""
    log_std = tf.constant([np.log(std)])
    kl = losses.kl_diagonal_gaussian(tf.constant([0.0], tf.float64), log_std, tf.constant([1.0], tf.float64), log_std)
    np.testing.assert_allclose(kl, expected, rtol=1e-4)


def test_kl_of_a_policy_with_itself_is_zero():
    logits = tf.constant(LOGITS_P)
    for kl in (losses.kl_categorical, losses.symmetric_kl_categorical):
        np.testing.assert_array_equal(kl(logits, logits + 0.0), np.zeros((4, 3)))
        np.testing.assert_allclose(kl(logits, logits + 3.0), np.zeros((4, 3)), atol=1e-14)
    for kl in (losses.kl_diagonal_gaussian, losses.symmetric_kl_diagonal_gaussian):
        np.testing.assert_array_equal(kl(*GAUSSIANS[:2], *GAUSSIANS[:2]), np.zeros(3))


def test_symmetric_divergences_are_symmetric_and_plain_ones_are_not():
    p, q = tf.constant(LOGITS_P), tf.constant(LOGITS_Q)
    np.testing.assert_allclose(losses.symmetric_kl_categorical(p, q), losses.symmetric_kl_categorical(q, p), rtol=1e-12)
    assert not np.allclose(losses.kl_categorical(p, q), losses.kl_categorical(q, p), rtol=1e-2)
    symmetric = losses.symmetric_kl_diagonal_gaussian
    np.testing.assert_allclose(symmetric(*GAUSSIANS), symmetric(*SWAPPED), rtol=1e-12)
    assert not np.allclose(losses.kl_diagonal_gaussian(*GAUSSIANS), losses.kl_diagonal_gaussian(*SWAPPED), rtol=1e-2)


def hessian_at(kl, point):
    """The slope and the second derivatives of `kl(variable)` at `point` [K]."""
    variable = tf.Variable(point)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            value = kl(variable)
        slope = inner.gradient(value, variable)
    return slope, outer.jacobian(slope, variable)


def test_the_hessian_of_categorical_kl_is_the_fisher_information():
    """diag(p) − p pᵀ, and a slope of 0, for the divergence TRPO constrains and the symmetric one."""
    logits = LOGITS_P[0, 0]
    p = special.softmax(logits)
    for kl in (losses.kl_categorical, losses.symmetric_kl_categorical):
        slope, hessian = hessian_at(lambda z, kl=kl: kl(tf.constant(logits), z), logits)
        np.testing.assert_allclose(slope, np.zeros(5), atol=1e-14)
        np.testing.assert_allclose(hessian, np.diag(p) - np.outer(p, p), atol=1e-12)


def test_the_hessian_of_gaussian_kl_is_the_fisher_information():
    """diag(1/σ², 2) in (μ, log σ)."""
    mean, log_std = MEAN_P[0], LOG_STD_P[0]
    expected = np.diag(np.concatenate([np.exp(-2 * log_std), [2.0, 2.0]]))
    for kl in (losses.kl_diagonal_gaussian, losses.symmetric_kl_diagonal_gaussian):
        slope, hessian = hessian_at(
            lambda y, kl=kl: kl(tf.constant(mean), tf.constant(log_std), y[:2], y[2:]),
            np.concatenate([mean, log_std]),
        )
        np.testing.assert_allclose(slope, np.zeros(4), atol=1e-14)
        np.testing.assert_allclose(hessian, expected, atol=1e-12)


def test_a_state_independent_deviation_serves_every_state():
    whole = tf.constant(np.broadcast_to(LOG_STD_P[0], (3, 2)))
    expected = losses.kl_diagonal_gaussian(GAUSSIANS[0], whole, GAUSSIANS[2], GAUSSIANS[3])
    got = losses.kl_diagonal_gaussian(GAUSSIANS[0], tf.constant(LOG_STD_P[0]), GAUSSIANS[2], GAUSSIANS[3])
    assert got.shape == (3,)
    np.testing.assert_array_equal(got, expected)


def test_small_gaussian_divergences_keep_their_digits_in_float32():
    """With log σ changed by 1e-3, KL ≈ 1e-6 is near the rounding of σ_p²/(2σ_q²) and ½, whose difference it is."""
    change = np.array([1e-3, 7.3e-4, -9.1e-4, 1.37e-3])
    zeros = tf.zeros([4, 1])
    kl = losses.kl_diagonal_gaussian(zeros, tf.constant(change[:, np.newaxis], tf.float32), zeros, zeros)
    np.testing.assert_allclose(kl, 0.5 * (np.expm1(2 * change) - 2 * change), rtol=1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_extremes_stay_finite_with_their_gradients(jit_compile):
    logits_p = tf.constant([[1e30, -1e30, 0.0], [200.0, 0.0, 0.0], [0.0, 1.0, -np.inf]])
    logits_q = tf.constant([[-1e30, 1e30, 0.0], [0.0, 200.0, 0.0], [1.0, 0.0, -np.inf]])
    mean_p, mean_q = tf.constant([[1.0], [0.0], [5.0]]), tf.constant([[0.0], [0.0], [-5.0]])
    log_std_p, log_std_q = tf.constant([[-20.0], [0.0], [-20.0]]), tf.constant([[-20.0], [-20.0], [2.0]])

    @tf.function(jit_compile=jit_compile, autograph=False)
    def compute():
        inputs = [logits_p, logits_q, mean_p, mean_q, log_std_p, log_std_q]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = [
                losses.kl_categorical(logits_p, logits_q),
                losses.symmetric_kl_categorical(logits_p, logits_q),
                losses.kl_diagonal_gaussian(mean_p, log_std_p, mean_q, log_std_q),
                losses.symmetric_kl_diagonal_gaussian(mean_p, log_std_p, mean_q, log_std_q),
            ]
        return values, tape.gradient(values, inputs)

    values, slopes = compute()
    for result in values + slopes:
        assert np.isfinite(result).all(), result
    np.testing.assert_allclose(values[0][1:], [200.0, np.tanh(0.5)], rtol=1e-6)


def test_an_action_that_only_q_rules_out_makes_the_divergence_infinite():
    p, q = tf.constant([[0.0, 0.0]]), tf.constant([[0.0, -np.inf]])
    assert losses.kl_categorical(p, q) == np.inf
    np.testing.assert_allclose(losses.kl_categorical(q, p), [np.log(2)], rtol=1e-6)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="rank"):
        losses.kl_categorical(tf.zeros([3, 2]), tf.zeros([2]))
    with pytest.raises(ValueError, match="rank"):
        losses.kl_categorical(tf.zeros([]), tf.zeros([]))
    with pytest.raises(ValueError, match="compatible"):
        losses.symmetric_kl_categorical(tf.zeros([3, 2]), tf.zeros([3, 1]))
    for shapes in (([3, 2], [2], [2], [2]), ([3, 2], [2], [3, 1], [2]), ([3, 1, 2], [3, 2], [3, 1, 2], [2])):
        with pytest.raises(ValueError, match=r"rank|compatible"):
            losses.kl_diagonal_gaussian(*(tf.zeros(shape) for shape in shapes))
