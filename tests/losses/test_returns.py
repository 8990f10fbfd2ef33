"""Returns and advantages against plain loops, with a boundary at every possible position."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ngrl import losses

NUM_STEPS = 5
PLAIN, TERMINATED, TRUNCATED = range(3)
# Every sequence of kinds of steps: one a column, 3^5 environments.
KINDS = np.array(list(itertools.product((PLAIN, TERMINATED, TRUNCATED), repeat=NUM_STEPS))).T
COEFFICIENTS = [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0), (0.7, 1.0), (0.0, 0.5)]


def trajectories(seed=0, dtype=np.float64):
    """Rewards, discounts, continues, v_tm1, v_t [T, B]; a plain step leads to the state that the next one leaves."""
    random = np.random.default_rng(seed)
    r_t, v_tm1, v_t = random.normal(size=(3, *KINDS.shape))
    # A plain step's discount may be any number: the environment may weigh steps.
    discount_t = np.where(KINDS == PLAIN, random.choice([1.0, 0.5, 1.5], size=KINDS.shape), 1.0)
    discount_t[KINDS == TERMINATED] = 0.0
    v_t[:-1] = np.where(KINDS[:-1] == PLAIN, v_tm1[1:], v_t[:-1])
    return [x.astype(dtype) for x in (r_t, discount_t, (KINDS == PLAIN).astype(float), v_tm1, v_t)]


def episode_end(column, start):
    """The last row of the episode that row `start` belongs to, or the last row of the batch."""
    end = start
    while end < NUM_STEPS - 1 and KINDS[end, column] == PLAIN:
        end += 1
    return end


def loop(value_of_row):
    result = np.zeros(KINDS.shape)
    for t, column in np.ndindex(*KINDS.shape):
        result[t, column] = value_of_row(t, episode_end(column, t), column)
    return result


def slow_return(arrays, gamma, start, stop, column):
    """Rewards of rows start … stop, then the value of the state that row `stop` reached."""
    r_t, discount_t, _, _, v_t = arrays
    total, factor = 0.0, 1.0
    for t in range(start, stop + 1):
        total += factor * r_t[t, column]
        factor *= gamma * discount_t[t, column]
    return total + factor * v_t[stop, column]


def slow_discounted_returns(arrays, gamma):
    return loop(lambda t, end, column: slow_return(arrays, gamma, t, end, column))


def slow_lambda_returns(arrays, gamma, gae_lambda):
    """The forward view: (1 − λ) Σ_n λ^{n−1} G^(n), with what is left of the weight on the whole return."""

    def mixture(t, end, column):
        n_step = [slow_return(arrays, gamma, t, stop, column) for stop in range(t, end + 1)]
        weights = [(1 - gae_lambda) * gae_lambda**n for n in range(len(n_step) - 1)]
        return sum(w * g for w, g in zip(weights, n_step, strict=False)) + gae_lambda ** (end - t) * n_step[-1]

    return loop(mixture)


def slow_advantage(arrays, gamma, gae_lambda):
    """The sum of TD errors over the rest of the episode."""
    r_t, discount_t, _, v_tm1, v_t = arrays

    def summed(t, end, column):
        total, factor = 0.0, 1.0
        for k in range(t, end + 1):
            total += factor * (r_t[k, column] + gamma * discount_t[k, column] * v_t[k, column] - v_tm1[k, column])
            factor *= gamma * gae_lambda * discount_t[k, column]
        return total

    return loop(summed)


def all_three(arrays, gamma, gae_lambda):
    r_t, discount_t, continues_t, v_tm1, v_t = arrays
    return (
        losses.discounted_returns(r_t, discount_t, continues_t, v_t, gamma),
        losses.td_lambda_returns(r_t, discount_t, continues_t, v_t, gamma, gae_lambda),
        losses.generalised_advantage(r_t, discount_t, continues_t, v_tm1, v_t, gamma, gae_lambda),
    )


def constants(arrays):
    return [tf.constant(x) for x in arrays]


@pytest.mark.parametrize(("gamma", "gae_lambda"), COEFFICIENTS)
def test_every_pattern_of_boundaries_agrees_with_the_slow_sums(gamma, gae_lambda):
    arrays = trajectories()
    returns, lambda_returns, advantages = all_three(constants(arrays), gamma, gae_lambda)
    np.testing.assert_allclose(returns, slow_discounted_returns(arrays, gamma), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(lambda_returns, slow_lambda_returns(arrays, gamma, gae_lambda), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(advantages, slow_advantage(arrays, gamma, gae_lambda), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_lambda_return_is_advantage_plus_value(gae_lambda):
    arrays = trajectories()
    _, lambda_returns, advantages = all_three(constants(arrays), 0.9, gae_lambda)
    np.testing.assert_allclose(lambda_returns, advantages + arrays[3], rtol=1e-12, atol=1e-12)


def test_truncation_bootstraps_from_the_last_observation_and_termination_from_nothing():
    column = lambda *numbers: tf.constant(numbers)[:, tf.newaxis]  # noqa: E731
    rewards, values = column(1.0, 1.0, 1.0), column(10.0, 20.0, 30.0)
    plain = column(1.0, 1.0, 1.0)
    ends = column(1.0, 0.0, 1.0)
    truncated = losses.discounted_returns(rewards, plain, ends, values, 0.5)
    terminated = losses.discounted_returns(rewards, ends, ends, values, 0.5)
    np.testing.assert_allclose(truncated[:, 0], [1 + 0.5 * (1 + 0.5 * 20), 1 + 0.5 * 20, 1 + 0.5 * 30])
    np.testing.assert_allclose(terminated[:, 0], [1 + 0.5 * 1, 1, 1 + 0.5 * 30])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_nothing_crosses_a_boundary_not_even_a_non_finite_number(poison):
    """All of the rows after the first episode are poisoned, and the value of every terminal state."""
    arrays = trajectories()
    clean = all_three(constants(arrays), 0.9, 0.8)
    first_end = np.array([episode_end(column, 0) for column in range(KINDS.shape[1])])
    later = np.arange(NUM_STEPS)[:, np.newaxis] > first_end
    for x in (arrays[0], arrays[3], arrays[4]):
        x[later] = poison
    arrays[4][KINDS == TERMINATED] = poison
    for got, expected in zip(all_three(constants(arrays), 0.9, 0.8), clean, strict=True):
        np.testing.assert_array_equal(got.numpy()[~later], expected.numpy()[~later])


def test_a_non_finite_reward_shows_in_its_own_episode():
    arrays = trajectories()
    arrays[0][-1] = np.nan
    whole = np.all(KINDS[:-1] == PLAIN, axis=0)
    for result in all_three(constants(arrays), 0.9, 0.8):
        assert np.isnan(result.numpy()[:, whole]).all()


@pytest.mark.parametrize("num_steps", [0, 1, 2, 7, 64, 100])
def test_any_number_of_steps_agrees_with_the_recursion(num_steps):
    random = np.random.default_rng(num_steps)
    r_t, v_t = random.normal(size=(2, num_steps, 3))
    continues_t = (random.uniform(size=r_t.shape) < 0.9).astype(float)
    discount_t = np.where(continues_t == 1, 1.0, random.choice([0.0, 1.0], size=r_t.shape))
    expected, following = np.zeros_like(r_t), np.zeros(3)
    for t in reversed(range(num_steps)):
        following = np.where((continues_t[t] == 1) & (t < num_steps - 1), following, v_t[t])
        following = expected[t] = r_t[t] + 0.97 * discount_t[t] * (0.1 * v_t[t] + 0.9 * following)
    got = losses.td_lambda_returns(*constants([r_t, discount_t, continues_t, v_t]), 0.97, 0.9)
    assert got.shape == (num_steps, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_agrees_with_eager(jit_compile):
    """Traced with unknown sizes, so that one trace serves every batch."""
    arrays = constants(trajectories(dtype=np.float32))
    signature = [tf.TensorSpec([None, None], tf.float32)] * len(arrays)
    compiled = tf.function(
        lambda *arrays: all_three(arrays, 0.9, 0.8),
        input_signature=signature,
        jit_compile=jit_compile,
        autograph=False,
    )
    for got, expected in zip(compiled(*arrays), all_three(arrays, 0.9, 0.8), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_results_are_constants_for_the_gradient():
    arrays = constants(trajectories())
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        results = all_three(arrays, 0.9, 0.8)
    assert tape.gradient(results, arrays) == [None] * len(arrays)


def test_boundary_masks_leave_out_the_rows_of_automatic_resets():
    first, mid, last = range(3)
    step_types = np.array([[first], [mid], [last], [first], [last], [first]])
    masks = losses.boundary_masks(tf.constant(step_types[:-1] == last), tf.constant(step_types[1:] == last))
    np.testing.assert_array_equal(masks.weights[:, 0], [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(masks.continues_t[:, 0], [1, 0, 0, 0, 0])


def test_rows_of_automatic_resets_change_nothing_in_the_others():
    """Two episodes with a reset row between them, whatever it holds, against the same two without."""
    random = np.random.default_rng(0)
    r_t, v_tm1, v_t = random.normal(size=(3, 4, 1))
    ends = np.array([[0], [1], [0], [1]], bool)
    without = losses.generalised_advantage(*constants([r_t, np.ones((4, 1)), ~ends * 1.0, v_tm1, v_t]), 0.9, 0.8)

    def insert(x, filler):
        return tf.constant(np.insert(x, 2, filler, axis=0))

    reset = insert(np.zeros((4, 1), bool), True)
    masks = losses.boundary_masks(reset, insert(ends, False), tf.float64)
    arrays = [insert(r_t, np.nan), insert(np.ones((4, 1)), 1.0), masks.continues_t, insert(v_tm1, 7), insert(v_t, 9)]
    advantages = losses.generalised_advantage(*arrays, 0.9, 0.8)
    np.testing.assert_array_equal(advantages[masks.weights == 1], tf.reshape(without, [-1]))


def test_shapes_are_checked():
    arrays = constants(trajectories())
    for wrong in (arrays[0][:, 0], arrays[0][:, :1], arrays[0][1:]):
        for position in range(len(arrays)):
            with pytest.raises(ValueError, match=r"rank|compatible"):
                losses.generalised_advantage(*arrays[:position], wrong, *arrays[position + 1 :], 0.9, 0.8)
    with pytest.raises(ValueError, match="compatible"):
        losses.discounted_returns(arrays[0], arrays[1], arrays[2], arrays[4][1:], 0.9)
    with pytest.raises(ValueError, match="rank"):
        losses.boundary_masks(tf.constant([True]), tf.constant([True]))


@pytest.mark.parametrize("watkins", [False, True], ids=["Peng", "Watkins"])
@pytest.mark.parametrize(("gamma", "trace_lambda"), COEFFICIENTS)
def test_q_lambda_returns_equal_a_plain_loop(gamma, trace_lambda, watkins):
    r_t, discount_t, continues_t, _, _ = trajectories()
    random = np.random.default_rng(1)
    q_t, a_t = random.normal(size=(*KINDS.shape, 3)), random.integers(3, size=KINDS.shape)
    q_t[random.random(KINDS.shape) < 0.2] = 1.0  # ties: whichever was taken was greedy
    v_t = q_t.max(axis=2)
    expected = np.zeros(KINDS.shape)
    for column in range(KINDS.shape[1]):
        for t in reversed(range(NUM_STEPS)):
            beyond = v_t[t, column]
            ends = KINDS[t, column] != PLAIN or t == NUM_STEPS - 1
            if not ends and not (watkins and q_t[t, column, a_t[t, column]] < v_t[t, column]):
                beyond = (1 - trace_lambda) * beyond + trace_lambda * expected[t + 1, column]
            expected[t, column] = r_t[t, column] + gamma * discount_t[t, column] * beyond
    arguments = [tf.constant(x) for x in (r_t, discount_t, continues_t, v_t, q_t, a_t)]
    result = losses.q_lambda_returns(*arguments, gamma, trace_lambda, watkins)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
