"""Advantages and reward scaling against slow loops through random terminations, truncations and reset rows."""

import numpy as np
import pytest
import tensorflow as tf

from ngrl import agents, losses

FIRST, MID, LAST = range(3)
RUNS = ["eager", "graph", "xla"]


def rollout(seed=0, steps=60, columns=4):
    """Step types of the states left and reached, rewards and discounts [T, B], values [T + 1, B].

    An episode goes on with probability 0.8, terminates or is truncated; then a row leads from its last observation to
    the first of the next. That row's reward and discount are rubbish.
    """
    random = np.random.default_rng(seed)
    left, reached = np.zeros((2, steps, columns), int)
    r_t, discount_t = np.zeros((2, steps, columns))
    for column in range(columns):
        state = random.choice([FIRST, MID, LAST])
        for t in range(steps):
            left[t, column] = state
            if state == LAST:
                state, r_t[t, column], discount_t[t, column] = FIRST, 1e6, 0.3
            else:
                state = MID if random.uniform() < 0.8 else LAST
                r_t[t, column] = random.normal()
                discount_t[t, column] = random.integers(2) if state == LAST else 1
            reached[t, column] = state
    return left, reached, r_t, discount_t, random.normal(size=(steps + 1, columns))


def masks_of(left, reached):
    return losses.boundary_masks(tf.constant(left == LAST), tf.constant(reached == LAST))


def slow_advantage(data, gamma, gae_lambda):
    """Row by row: Σ (γλ)^l δ to the end of the row's episode; NaN in reset rows."""
    left, reached, r_t, discount_t, values = data
    result = np.full(r_t.shape, np.nan)
    for start, column in np.ndindex(*r_t.shape):
        if left[start, column] == LAST:
            continue
        total, factor = 0.0, 1.0
        for t in range(start, len(r_t)):
            bootstrap = gamma * discount_t[t, column] * values[t + 1, column]
            total += factor * (r_t[t, column] + bootstrap - values[t, column])
            factor *= gamma * gae_lambda
            if reached[t, column] == LAST:
                break
        result[start, column] = total
    return result


def slow_returns(data, gamma):
    """Row by row: the discounted rewards to the end of the row's episode or the batch; NaN in reset rows."""
    left, reached, r_t, _, _ = data
    result = np.full(r_t.shape, np.nan)
    for start, column in np.ndindex(*r_t.shape):
        if left[start, column] == LAST:
            continue
        total, factor = 0.0, 1.0
        for t in range(start, len(r_t)):
            total += factor * r_t[t, column]
            factor *= gamma
            if reached[t, column] == LAST:
                break
        result[start, column] = total
    return result


def estimate(estimator, data, with_critic=True, run="eager"):
    left, reached, r_t, discount_t, values = data
    arrays = [tf.constant(array, tf.float32) for array in (r_t, discount_t)]

    def call(r_t, discount_t, values):
        return estimator(r_t, discount_t, masks_of(left, reached), values if with_critic else None)

    if run != "eager":
        call = tf.function(call, jit_compile=run == "xla", autograph=False)
    return call(*arrays, tf.constant(values, tf.float32))


def assert_equal_where_counted(got, expected):
    counted = ~np.isnan(expected)
    assert 0 < counted.sum() < counted.size
    np.testing.assert_allclose(got.numpy()[counted], expected[counted], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(0.99, 0.95), (0.9, 0.0), (0.97, 1.0), (0.0, 0.5), (1.0, 1.0)])
def test_advantages_and_returns_are_those_of_the_slow_loop(run, gamma, gae_lambda):
    data = rollout()
    result = estimate(agents.GeneralisedAdvantage(gamma, gae_lambda), data, run=run)
    expected = slow_advantage(data, gamma, gae_lambda)
    assert_equal_where_counted(result.advantage, expected)
    assert_equal_where_counted(result.returns, expected + data[-1][:-1])


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("gae_lambda", [1.0, 0.5, 0.0])
def test_without_a_critic_advantages_are_returns_whatever_lambda_says(run, gae_lambda):
    data = rollout(seed=1)
    result = estimate(agents.GeneralisedAdvantage(0.9, gae_lambda), data, with_critic=False, run=run)
    assert_equal_where_counted(result.advantage, slow_returns(data, 0.9))
    np.testing.assert_array_equal(result.returns, result.advantage)


def test_lambda_1_is_the_return_less_the_value():
    """Where nothing is bootstrapped: all episodes terminate, and the batch ends with one."""
    left, reached, r_t, discount_t, values = rollout(seed=2)
    discount_t[reached == LAST] = 0
    reached[-1], discount_t[-1] = LAST, 0
    data = left, reached, r_t, discount_t, values
    result = estimate(agents.GeneralisedAdvantage(0.9, 1.0), data)
    assert_equal_where_counted(result.advantage, slow_returns(data, 0.9) - values[:-1])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_rubbish_in_reset_rows_and_terminal_states_reaches_no_other_row(poison):
    data = rollout(seed=3)
    left, reached, r_t, discount_t, values = data
    expected = slow_advantage(data, 0.99, 0.95)
    r_t[left == LAST] = poison
    terminal = (reached == LAST) & (discount_t == 0) & (left != LAST)
    values[1:][terminal] = poison
    assert terminal.any()
    assert_equal_where_counted(estimate(agents.GeneralisedAdvantage(0.99, 0.95), data).advantage, expected)


def test_normalised_advantages_have_mean_0_and_deviation_1_over_the_steps_that_count():
    random = np.random.default_rng(4)
    advantage = (100 + 5 * random.normal(size=50)).astype(np.float32)
    weights = (random.uniform(size=50) < 0.7).astype(np.float32)
    advantage[weights == 0] = np.nan
    got = agents.GeneralisedAdvantage().normalised(tf.constant(advantage), tf.constant(weights)).numpy()
    kept = advantage[weights > 0].astype(np.float64)
    np.testing.assert_allclose(got[weights > 0], (kept - kept.mean()) / kept.std(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(got[weights == 0], 0)


def test_equal_advantages_become_zeros():
    for value in (0.0, 1234.567, -1e-6):
        got = agents.GeneralisedAdvantage().normalised(tf.fill([100], value), tf.ones(100))
        np.testing.assert_array_equal(got, np.zeros(100))


def test_normalisation_can_be_left_out():
    advantage = tf.constant([3.0, -1.0, 100.0])
    np.testing.assert_array_equal(
        agents.GeneralisedAdvantage(normalise=False).normalised(advantage, tf.ones(3)), advantage
    )


@pytest.mark.parametrize("run", RUNS)
def test_rewards_are_scaled_by_the_deviation_of_all_returns_seen(run):
    normaliser = agents.RewardNormaliser(clip=1.0, epsilon=1e-4)
    update, seen = normaliser.update, []
    if run != "eager":
        update = tf.function(update, jit_compile=run == "xla", autograph=False)
    for seed in range(4):
        data = rollout(seed)
        data[2][:] = np.where(data[0] == LAST, np.nan, 10 * data[2] + 3 * seed)  # the scale drifts
        returns = slow_returns(data, 0.9)
        seen.append(returns[~np.isnan(returns)])
        rewards = tf.constant(data[2], tf.float32)
        update(rewards, masks_of(*data[:2]), 0.9)
        expected = np.clip(data[2] / np.sqrt(np.concatenate(seen).var() + 1e-4), -1, 1)
        assert_equal_where_counted(normaliser(rewards), np.where(np.isnan(returns), np.nan, expected))
    assert (np.abs(expected) == 1).any()
    np.testing.assert_allclose(normaliser.moments.count, sum(len(returns) for returns in seen))


def test_rewards_before_any_batch_stay_as_they_are():
    rewards = tf.constant([[0.5, -2.0]])
    np.testing.assert_allclose(agents.RewardNormaliser()(rewards), rewards, rtol=1e-6)


def test_a_batch_that_never_rewarded_scales_nothing_to_infinity():
    normaliser = agents.RewardNormaliser()
    zeros = tf.zeros([5, 2])
    normaliser.update(zeros, losses.BoundaryMasks(tf.ones([5, 2]), tf.ones([5, 2])), 0.9)
    np.testing.assert_array_equal(normaliser(zeros), zeros)
    np.testing.assert_array_equal(normaliser(zeros + 1), np.full((5, 2), 10.0))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_leaves_the_scale_as_it_is(poison):
    estimator = agents.GeneralisedAdvantage(0.9, reward_normaliser=agents.RewardNormaliser())
    left, reached, r_t, *_ = rollout()
    masks = masks_of(left, reached)
    estimator.observe(tf.constant(r_t, tf.float32), masks)
    before = [variable.numpy().tobytes() for variable in estimator.variables]
    assert len(before) == 3
    r_t[np.argwhere(left != LAST)[0][0], np.argwhere(left != LAST)[0][1]] = poison
    estimator.observe(tf.constant(r_t, tf.float32), masks)
    assert [variable.numpy().tobytes() for variable in estimator.variables] == before


def test_advantages_are_those_of_scaled_rewards():
    estimator = agents.GeneralisedAdvantage(0.9, 0.8, reward_normaliser=agents.RewardNormaliser(clip=100.0))
    data = rollout(seed=5)
    left, reached, r_t, discount_t, values = data
    plain = estimate(estimator, data).advantage
    assert_equal_where_counted(plain, slow_advantage((left, reached, np.clip(r_t, -100, 100), *data[3:]), 0.9, 0.8))
    estimator.observe(tf.constant(r_t, tf.float32), masks_of(left, reached))
    returns = slow_returns(data, 0.9)
    scaled = r_t / returns[~np.isnan(returns)].std()
    expected = slow_advantage((left, reached, scaled, discount_t, values), 0.9, 0.8)
    assert_equal_where_counted(estimate(estimator, data).advantage, expected)


def test_a_checkpoint_carries_the_rewards_scale(tmp_path):
    made = [agents.GeneralisedAdvantage(0.9, reward_normaliser=agents.RewardNormaliser()) for _ in range(2)]
    left, reached, r_t, *_ = data = rollout()
    made[0].observe(tf.constant(r_t, tf.float32), masks_of(left, reached))
    path = tf.train.Checkpoint(advantage=made[0]).write(str(tmp_path / "advantage"))
    assert np.nanmax(np.abs(estimate(made[0], data).advantage - estimate(made[1], data).advantage)) > 0.1
    tf.train.Checkpoint(advantage=made[1]).read(path).assert_consumed()
    np.testing.assert_array_equal(estimate(made[0], data).advantage, estimate(made[1], data).advantage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1.1}, "gamma must lie in \\[0, 1\\], got 1.1"),
        ({"gae_lambda": -0.1}, "gae_lambda must lie in \\[0, 1\\], got -0.1"),
        ({"gamma": float("nan")}, "gamma must lie in"),
    ],
)
def test_wrong_coefficients_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        agents.GeneralisedAdvantage(**options)


@pytest.mark.parametrize("options", [{"clip": 0.0}, {"epsilon": 0.0}, {"clip": float("nan")}])
def test_wrong_scales_are_named(options):
    with pytest.raises(ValueError, match=r"(clip|epsilon) must be positive"):
        agents.RewardNormaliser(**options)
