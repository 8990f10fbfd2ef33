"""ACER's policy gradient, trust region and dueling values against direct calculations."""

import chain
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from ngrl import losses

GENERATOR = np.random.default_rng(0)


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def gradient(objective, *watched):
    with tf.GradientTape() as tape:
        tape.watch(watched)
        value = objective(*watched)
    return tape.gradient(value, watched[0])


# --- importance weights


def test_ratio_is_truncated_and_the_rest_is_the_corrections():
    """min(c, ρ) + ρ [1 − c/ρ]₊ = ρ: nothing is counted twice or lost."""
    log_ratio = tf.constant(GENERATOR.normal(scale=3, size=50))
    ratio = np.exp(log_ratio)
    truncated, correction = losses.truncated_ratio(log_ratio, 2.0), losses.correction_weight(log_ratio, 2.0)
    np.testing.assert_allclose(truncated, np.minimum(2.0, ratio), rtol=1e-12)
    np.testing.assert_allclose(correction, np.maximum(0.0, 1 - 2.0 / ratio), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(truncated + ratio * correction, ratio, rtol=1e-12)


def test_extreme_ratios_have_finite_weights():
    log_ratio = tf.constant([-np.inf, -300.0, 300.0, np.inf], tf.float32)
    np.testing.assert_allclose(losses.truncated_ratio(log_ratio, 10.0), [0, 0, 10, 10], rtol=1e-6)
    np.testing.assert_allclose(losses.correction_weight(log_ratio, 10.0), [0, 0, 1, 1])
    np.testing.assert_array_equal(losses.correction_weight(log_ratio[:3], np.inf), [0, 0, 0])


# --- the gradient


@pytest.mark.parametrize("truncation", [0.5, 1.0, 10.0, np.inf])
def test_expected_gradient_is_the_policy_gradient_whatever_the_truncation(truncation):
    """Wang et al. 2017, section 3.2: with exact Q the two terms together are Σ_a π(a) (Q(a) − V) ∇log π(a)."""
    logits, behaviour, q = GENERATOR.normal(scale=1.5, size=(3, 6))
    policy = softmax(logits)
    value = policy @ q
    truth = policy * (q - value)  # Σ_a π(a) A(a) (1[a = j] − π_j), and Σ_a π(a) A(a) = 0
    log_mu = tf.nn.log_softmax(behaviour)

    def objective(z):
        log_pi = tf.nn.log_softmax(z)
        taken = losses.truncated_policy_objective(log_pi, log_mu, q - value, truncation)
        correction = losses.bias_correction_objective(log_pi, log_mu, q - value, policy, truncation)
        return tf.reduce_sum(softmax(behaviour) * taken) + correction

    np.testing.assert_allclose(gradient(objective, tf.constant(logits)), truth, atol=1e-12)


def test_gradient_on_the_chain_is_the_direct_sum_with_truncation_active():
    """Every state of the chain, exact values of the fair walk as critic, ĝ written out action by action."""
    value, q = chain.fair_walk_values()
    logits = np.log(np.array([[0.5, 0.5], [0.1, 0.9], [0.3, 0.7], [0.8, 0.2], [0.99, 0.01]]))
    behaviour = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.05, 0.95], [0.01, 0.99]])
    taken, truncation = np.array([0, 1, 1, 0, 0]), 2.0
    policy, states = softmax(logits), np.arange(5)
    direct = np.zeros((5, 2))
    for s in states:
        a = taken[s]
        ratio = policy[s] / behaviour[s]
        direct[s] += min(truncation, ratio[a]) * (q[s, a] - value[s]) * (np.eye(2)[a] - policy[s])
        for b in range(2):
            weight = max(0.0, 1 - truncation / ratio[b]) * policy[s, b] * (q[s, b] - value[s])
            direct[s] += weight * (np.eye(2)[b] - policy[s])

    def objective(z):
        log_pi, log_mu = tf.nn.log_softmax(z), np.log(behaviour)
        advantage = q - value[:, None]
        chosen = losses.truncated_policy_objective(
            tf.gather(log_pi, taken, axis=1, batch_dims=1), log_mu[states, taken], advantage[states, taken], truncation
        )
        return chosen + losses.bias_correction_objective(log_pi, log_mu, advantage, policy, truncation)

    assert (policy / behaviour > truncation).sum() >= 3
    np.testing.assert_allclose(gradient(objective, tf.constant(logits)), direct, atol=1e-12)


def test_action_that_the_policy_never_takes_adds_nothing():
    logits = tf.constant([1.0, -np.inf, 0.0])
    log_mu = tf.nn.log_softmax(tf.constant([0.0, 1.0, 0.0]))
    policy = tf.nn.softmax(logits)

    def taken(z):
        return losses.truncated_policy_objective(tf.nn.log_softmax(z)[1], log_mu[1], tf.constant(3.0), 10.0)

    def correction(z):
        return losses.bias_correction_objective(tf.nn.log_softmax(z), log_mu, tf.ones([3]), policy, 0.1)

    assert taken(logits) == 0
    np.testing.assert_array_equal(gradient(taken, logits), [0, 0, 0])
    found = gradient(correction, logits).numpy()
    assert np.isfinite(correction(logits))
    assert found[1] == 0
    assert np.abs(found[[0, 2]]).min() > 1e-3


def test_action_that_the_behaviour_never_took_is_corrected_in_full():
    logits = tf.constant([0.3, 0.0])
    policy = tf.nn.softmax(logits)
    log_mu = tf.nn.log_softmax(tf.constant([-np.inf, 0.0]))
    advantage = tf.constant([2.0, 0.0])
    found = gradient(
        lambda z: losses.bias_correction_objective(tf.nn.log_softmax(z), log_mu, advantage, policy, 10.0), logits
    )
    np.testing.assert_allclose(found, policy[0] * 2.0 * (np.array([1, 0]) - policy), rtol=1e-6)


def test_impossible_under_both_policies_adds_nothing():
    logits = tf.constant([-np.inf, 0.0])
    log_mu = tf.nn.log_softmax(tf.constant([-np.inf, 0.0]))
    value = losses.bias_correction_objective(
        tf.nn.log_softmax(logits), log_mu, tf.constant([5.0, 0.0]), tf.nn.softmax(logits), 0.5
    )
    assert value == 0


# --- the trust region


def test_projection_on_the_chain_is_the_nearest_gradient_within_the_trust_region():
    """For each state of the chain scipy solves min ½‖z − g‖² with kᵀz ≤ δ."""
    value, q = chain.fair_walk_values()
    average, policy = np.full((5, 2), 0.5), softmax(GENERATOR.normal(size=(5, 2)))
    g = 5 * policy * (q - value[:, None])
    k = policy - average  # ∇_logits KL(average ‖ policy)
    delta = 0.01
    projected = losses.trust_region_projection(tf.constant(g), tf.constant(k), delta).numpy()
    active = (k * g).sum(axis=1) > delta
    assert 0 < active.sum() < 5
    for s in range(5):
        solved = optimize.minimize(
            lambda z, s=s: 0.5 * np.sum((z - g[s]) ** 2),
            g[s] * 0,
            jac=lambda z, s=s: z - g[s],
            constraints={"type": "ineq", "fun": lambda z, s=s: delta - k[s] @ z, "jac": lambda z, s=s: -k[s]},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(projected[s], solved.x, atol=1e-6)
    np.testing.assert_array_equal(projected[~active], g[~active])
    np.testing.assert_allclose((k * projected).sum(axis=1)[active], delta, atol=1e-12)


def test_kl_gradient_with_respect_to_the_statistics_points_away_from_the_average_policy():
    """The k of section 3.3, for both families, from the divergences that the agent uses."""
    average, logits = GENERATOR.normal(size=(2, 4, 3))
    k = gradient(lambda z: losses.kl_categorical(tf.constant(average), z), tf.constant(logits))
    np.testing.assert_allclose(k, softmax(logits) - softmax(average), atol=1e-12)
    mean_a, log_a, mean, log_std = (tf.constant(row) for row in GENERATOR.normal(size=(4, 5, 2)))
    k = gradient(lambda m: losses.kl_diagonal_gaussian(mean_a, log_a, m, log_std), mean)
    np.testing.assert_allclose(k, (mean - mean_a) / np.exp(2 * log_std), rtol=1e-10)
    k = gradient(lambda s: losses.kl_diagonal_gaussian(mean_a, log_a, mean, s), log_std)
    moment = np.exp(2 * log_a) + (mean - mean_a) ** 2
    np.testing.assert_allclose(k, 1 - moment / np.exp(2 * log_std), rtol=1e-10)


def test_gradient_at_the_average_policy_itself_is_left_alone():
    g = tf.constant([[1.0, -2.0]])
    np.testing.assert_array_equal(losses.trust_region_projection(g, tf.zeros([1, 2]), 0.0), g)


def test_huge_gradients_are_projected_without_overflow():
    g, k = tf.constant([[3e18, 1.0]]), tf.constant([[1e-3, 0.0]])
    ((along, across),) = losses.trust_region_projection(g, k, 1.0).numpy()
    assert abs(along - 1e3) < 1e12  # to which float32 rounds 3e18
    assert across == 1.0


# --- the trust region of the probability vector


def nearest_in_probabilities(c, p, q, delta):
    """(diag(p) − ppᵀ) z* [A] with z* by quadratic programming in float64, and whether the constraint was active."""
    g, k = c / p, -q / p
    solved = optimize.minimize(
        lambda z: 0.5 * np.sum((z - g) ** 2),
        np.zeros_like(g),
        jac=lambda z: z - g,
        constraints={"type": "ineq", "fun": lambda z: delta - k @ z, "jac": lambda z: -k},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return (np.diag(p) - np.outer(p, p)) @ solved.x, k @ g > delta


@pytest.mark.parametrize("num_actions", [2, 4, 7])
def test_projection_of_probabilities_solves_the_quadratic_programme(num_actions):
    active = []
    for _ in range(50):
        p, q = softmax(GENERATOR.normal(size=(2, num_actions)))
        c, delta = GENERATOR.normal(size=num_actions), GENERATOR.choice([0.0, 0.3, 1.0])
        expected, is_active = nearest_in_probabilities(c, p, q, delta)
        found = losses.probability_trust_region_projection(tf.constant(c), tf.math.log(p), tf.math.log(q), delta)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        active.append(is_active)
    assert 0.1 < np.mean(active) < 0.9


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_projection_of_probabilities_is_exact_for_actions_that_are_hardly_ever_taken(dtype):
    """Down to 1e-30, whose squares float32 doesn't hold; the reference is the formula itself, in float64."""
    bent = 0
    for _ in range(300):
        z, z_average = GENERATOR.normal(scale=20, size=(2, 4))
        p, q = softmax(z), softmax(z_average)
        if min(p.min(), q.min()) < 1e-30:
            continue
        c = p * GENERATOR.normal(size=4) * 10 ** GENERATOR.uniform(-1, 3)
        g, k = c / p, -q / p
        scale = max(0.0, (k @ g - 1.0) / (k @ k))
        expected = c - p * c.sum() - scale * (p - q)
        logs = [losses.bounded_log_softmax(tf.constant(logits, dtype)) for logits in (z, z_average)]
        found = losses.probability_trust_region_projection(tf.constant(c, dtype), *logs, 1.0)
        rounding = (1e-5 if dtype == tf.float32 else 1e-13) * (np.abs(c).max() + scale)
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)
        bent += scale > 0
    assert bent > 30


@pytest.mark.parametrize("logits", [[0.0, -200.0], [-200.0, 0.0], [-np.inf, 0.0], [0.0, -np.inf], [0.0, 0.0]])
@pytest.mark.parametrize("average", [[0.0, -200.0], [-np.inf, 0.0], [0.0, 0.0]])
def test_projection_of_probabilities_is_finite_where_an_action_is_impossible(logits, average):
    logs = [losses.bounded_log_softmax(tf.constant([row])) for row in (logits, average)]
    for slopes in ([[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 100.0]], [[0.0, -100.0]]):
        for delta in (0.0, 1.0):
            found = losses.probability_trust_region_projection(tf.constant(slopes), *logs, delta)
            assert np.isfinite(found).all()


def test_gradient_by_the_probabilities_reaches_the_logits_as_autodiff_says():
    logits, c = tf.constant(GENERATOR.normal(size=(5, 3))), tf.constant(GENERATOR.normal(size=(5, 3)))
    p = softmax(logits.numpy())
    expected = gradient(lambda z: tf.reduce_sum(tf.stop_gradient(c / p) * tf.nn.softmax(z), axis=-1), logits)
    np.testing.assert_allclose(losses.through_softmax(c, tf.math.log(p)), expected, atol=1e-12)


def test_trust_region_of_the_probabilities_is_the_narrower_one():
    """δ = 1 over random states of four actions: hardly a state is bent by the logits, one in five by the paper's Φ."""
    z, z_average = GENERATOR.normal(size=(2, 2000, 4))
    p, q = softmax(z), softmax(z_average)
    taken = np.array([GENERATOR.choice(4, p=row) for row in p])
    c = np.eye(4)[taken] * GENERATOR.normal(size=(2000, 1))
    logs = (tf.math.log(p), tf.math.log(q))
    free = losses.through_softmax(tf.constant(c), logs[0])
    by_logits = losses.trust_region_projection(free, tf.constant(p - q), 1.0)
    by_probabilities = losses.probability_trust_region_projection(tf.constant(c), *logs, 1.0)
    bent = [np.any(found != free, axis=1).mean() for found in (by_logits, by_probabilities)]
    assert bent[0] < 0.02
    assert 0.15 < bent[1] < 0.3


# --- dueling values


def test_dueling_values_on_the_chain_are_the_action_values_though_advantages_are_shifted():
    """V of the fair walk and advantages off by a constant of each state; both actions once among the draws."""
    value, q = chain.fair_walk_values()
    shifted = q - value[:, None] + np.array([3.0, -1.0, 0.5, 0.0, 7.0])[:, None]
    for action in range(2):
        found = losses.stochastic_dueling(value, shifted[:, action], shifted)
        np.testing.assert_allclose(found, q[:, action], atol=1e-12)


def test_dueling_values_average_to_the_state_value_over_the_policy():
    """E_{a ~ π} Q̃(x, a) = V(x) for draws from π, whatever A: all pairs of draws of n = 2 on the chain."""
    value, _ = chain.fair_walk_values()
    advantage, policy = GENERATOR.normal(size=(5, 2)), softmax(GENERATOR.normal(size=(5, 2)))
    total = np.zeros(5)
    for a in range(2):
        for first in range(2):
            for second in range(2):
                probability = policy[:, a] * policy[:, first] * policy[:, second]
                samples = advantage[:, [first, second]]
                total += probability * losses.stochastic_dueling(value, advantage[:, a], samples).numpy()
    np.testing.assert_allclose(total, value, atol=1e-12)
