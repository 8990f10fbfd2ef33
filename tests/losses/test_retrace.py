"""Retrace targets against the definition, and against values of a five-state chain known in closed form."""

import chain
import numpy as np
import pytest
import tensorflow as tf
from test_returns import KINDS, episode_end, loop, trajectories

from ngrl import losses

POLICY = np.array([[0.3, 0.7], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4]])
BEHAVIOUR = np.array([[0.6, 0.4], [0.5, 0.5], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8]])


def retrace(*arrays_and_gamma):
    *arrays, gamma = arrays_and_gamma
    return losses.retrace_targets(*[tf.convert_to_tensor(array) for array in arrays], gamma)


def on_chain(q, policy, gamma, c, num_steps=8):
    """Q^ret [T, W] on every walk of the chain, for a critic q [5, 2] and coefficients c [5, 2]; states and actions."""
    states, actions, reward, discount, continues, reached = chain.walks(num_steps)
    value = (policy * q).sum(axis=1)
    targets = retrace(reward, discount, continues, q[states, actions], value[reached], c[states, actions], gamma)
    return targets.numpy(), states, actions


@pytest.mark.parametrize("traces", [0.0, 0.5, 1.0])
def test_values_of_the_fair_walk_are_a_fixed_point_whatever_the_traces(traces):
    _, q = chain.fair_walk_values()
    targets, states, actions = on_chain(q, np.full((5, 2), 0.5), 1.0, np.full((5, 2), traces))
    np.testing.assert_allclose(targets, q[states, actions], atol=1e-12)


def test_values_of_an_uneven_policy_are_a_fixed_point_under_another_behaviour():
    q = chain.action_values(POLICY, 0.9)
    c = np.minimum(1, POLICY / BEHAVIOUR)
    targets, states, actions = on_chain(q, POLICY, 0.9, c)
    np.testing.assert_allclose(targets, q[states, actions], atol=1e-12)


@pytest.mark.parametrize("retrace_lambda", [0.0, 0.6, 1.0])
def test_expected_target_is_the_retrace_operator(retrace_lambda):
    """Munos et al. 2016, eq. 3: q + Σ_t (γ P^{cμ})^t (T^π q − q), here with all sums carried out."""
    gamma, num_steps = 0.9, 9
    q = np.random.default_rng(0).normal(size=(5, 2))
    log_ratio = np.log(POLICY) - np.log(BEHAVIOUR)
    c = losses.retrace_coefficient(tf.constant(log_ratio), retrace_lambda).numpy()
    targets, states, actions = on_chain(q, POLICY, gamma, c, num_steps)
    expected = np.zeros((5, 2))
    for column in range(states.shape[1]):
        # Probability of the walk after its first action; a walk that ends early counts once for each continuation.
        probability = np.prod(BEHAVIOUR[states[1:, column], actions[1:, column]])
        expected[states[0, column], actions[0, column]] += probability * targets[0, column]
    error = (chain.bellman(q, POLICY, gamma) - q).reshape(-1)
    step = gamma * chain.transition(BEHAVIOUR * c)
    summed = sum(np.linalg.matrix_power(step, t) @ error for t in range(num_steps))
    np.testing.assert_allclose(expected, q + summed.reshape(5, 2), atol=1e-10)


def test_repeated_retrace_updates_reach_the_policys_values_from_another_behaviours_walks():
    gamma, q = 0.9, np.zeros((5, 2))
    c = np.minimum(1, POLICY / BEHAVIOUR)
    step = np.eye(10) - gamma * chain.transition(BEHAVIOUR * c)
    for _ in range(120):
        q = q + np.linalg.solve(step, (chain.bellman(q, POLICY, gamma) - q).reshape(-1)).reshape(5, 2)
    np.testing.assert_allclose(q, chain.action_values(POLICY, gamma), atol=1e-10)
    targets, states, actions = on_chain(q, POLICY, gamma, c)
    np.testing.assert_allclose(targets, q[states, actions], atol=1e-9)


@pytest.mark.parametrize("gamma", [0.9, 1.0, 0.0])
def test_targets_are_the_sum_of_traced_errors_with_any_boundary_anywhere(gamma):
    r_t, discount_t, continues_t, q_tm1, v_t = trajectories(seed=3)
    c = np.random.default_rng(4).uniform(0, 1, KINDS.shape)

    def summed(t, end, column):
        total, factor = q_tm1[t, column], 1.0
        for k in range(t, end + 1):
            factor *= c[k, column] if k > t else 1.0
            total += factor * (r_t[k, column] + gamma * discount_t[k, column] * v_t[k, column] - q_tm1[k, column])
            factor *= gamma * discount_t[k, column]
        return total

    targets = retrace(r_t, discount_t, continues_t, q_tm1, v_t, c, gamma)
    np.testing.assert_allclose(targets, loop(summed), atol=1e-12)


def test_full_traces_give_the_return_and_no_traces_the_one_step_target():
    r_t, discount_t, continues_t, q_tm1, v_t = trajectories(seed=5)
    ones = np.ones_like(r_t)
    # A plain step's v_t is the q of the row after it: q then cancels but for the boundaries' v_t.
    full = retrace(r_t, discount_t, continues_t, q_tm1, v_t, ones, 0.9)
    returns = losses.discounted_returns(*map(tf.constant, (r_t, discount_t, continues_t, v_t)), 0.9)
    np.testing.assert_allclose(full, returns, atol=1e-12)
    none = retrace(r_t, discount_t, continues_t, q_tm1, v_t, 0 * ones, 0.9)
    np.testing.assert_allclose(none, r_t + 0.9 * discount_t * v_t, atol=1e-12)


def test_nothing_not_even_nan_crosses_the_end_of_an_episode():
    r_t, discount_t, continues_t, q_tm1, v_t = trajectories(seed=6)
    c = np.ones_like(r_t)
    clean = retrace(r_t, discount_t, continues_t, q_tm1, v_t, c, 0.9).numpy()
    later = [array.copy() for array in (r_t, q_tm1, v_t, c)]
    for array in later:
        array[3:] = np.nan
    targets = retrace(later[0], discount_t, continues_t, later[1], later[2], later[3], 0.9).numpy()
    for column in range(KINDS.shape[1]):
        for t in range(3):
            if episode_end(column, t) < 3 and KINDS[episode_end(column, t), column] != 0:
                assert targets[t, column] == clean[t, column]
            else:
                assert np.isnan(targets[t, column])


def test_coefficient_comes_from_logits_and_never_exceeds_lambda():
    log_ratio = tf.constant([-np.inf, -2.0, 0.0, 3.0, 200.0, np.inf], tf.float32)
    np.testing.assert_allclose(losses.retrace_coefficient(log_ratio, 0.5), [0, 0.5 * np.exp(-2), 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(losses.retrace_coefficient(log_ratio, 1.0, 4)[1], np.exp(-0.5), rtol=1e-6)


def test_targets_and_coefficients_are_constants():
    x = tf.Variable(tf.ones([3, 2]))
    with tf.GradientTape(persistent=True) as tape:
        target = retrace(x, x, x, x, x, x, 0.9)
        coefficient = losses.retrace_coefficient(x)
    assert tape.gradient(target, x) is None
    assert tape.gradient(coefficient, x) is None


def test_shapes_that_would_broadcast_are_refused():
    full, column = tf.zeros([3, 2]), tf.zeros([3, 1])
    with pytest.raises(ValueError, match="incompatible"):
        retrace(full, full, full, column, full, full, 0.9)
