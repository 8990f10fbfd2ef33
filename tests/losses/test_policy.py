"""Policy-gradient losses against hand-computed score functions, distributions against scipy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from ngrl import losses

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(scale=2.0, size=(4, 3, 5))
ACTIONS = RANDOM.integers(5, size=(4, 3))
MEAN, NOISE = RANDOM.normal(size=(2, 4, 3, 2))
LOG_STD = RANDOM.uniform(-1.5, 1.0, size=(4, 3, 2))
SAMPLES = MEAN + np.exp(LOG_STD) * NOISE
ADVANTAGES = RANDOM.normal(size=(4, 3))
WEIGHTS = np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)


def gradient(loss, *tensors):
    """The value of `loss(*tensors)` and its gradients."""
    tensors = [tf.constant(x) for x in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(*tensors)
    return value, tape.gradient(value, tensors)


def log_probs_and_old(change=0.1):
    log_probs = losses.categorical_log_prob(tf.constant(LOGITS), tf.constant(ACTIONS))
    return log_probs, log_probs - change * RANDOM.normal(size=log_probs.shape)


def test_categorical_log_prob_and_entropy_agree_with_scipy():
    log_probs = losses.categorical_log_prob(tf.constant(LOGITS), tf.constant(ACTIONS))
    entropy = losses.categorical_entropy(tf.constant(LOGITS))
    for t, b in np.ndindex(4, 3):
        np.testing.assert_allclose(log_probs[t, b], np.log(PROBABILITIES[t, b, ACTIONS[t, b]]), rtol=1e-12)
        np.testing.assert_allclose(entropy[t, b], stats.entropy(PROBABILITIES[t, b]), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_actions_may_be_integers_of_any_dtype(dtype):
    expected = losses.categorical_log_prob(tf.constant(LOGITS), tf.constant(ACTIONS))
    np.testing.assert_array_equal(
        losses.categorical_log_prob(tf.constant(LOGITS), tf.cast(tf.constant(ACTIONS), dtype)), expected
    )


@pytest.mark.parametrize("log_std", [LOG_STD, LOG_STD[0, 0]], ids=["state-dependent", "state-independent"])
def test_gaussian_log_prob_and_entropy_agree_with_scipy(log_std):
    log_probs = losses.diagonal_gaussian_log_prob(tf.constant(MEAN), tf.constant(log_std), tf.constant(SAMPLES))
    entropy = losses.diagonal_gaussian_entropy(tf.constant(log_std))
    normal = stats.norm(MEAN, np.exp(log_std))
    np.testing.assert_allclose(log_probs, normal.logpdf(SAMPLES).sum(axis=-1), rtol=1e-12)
    np.testing.assert_allclose(entropy, stats.norm(0, np.exp(log_std)).entropy().sum(axis=-1), rtol=1e-12)


def test_policy_gradient_is_the_score_times_the_advantage():
    """∇_z log π(a) = e_a − π, so that the loss's slope is −w Â (e_a − π) / Σw."""
    actions, advantages, weights = tf.constant(ACTIONS), tf.constant(ADVANTAGES), tf.constant(WEIGHTS)
    _, (slope,) = gradient(
        lambda z: losses.policy_gradient_loss(losses.categorical_log_prob(z, actions), advantages, weights), LOGITS
    )
    score = np.eye(5)[ACTIONS] - PROBABILITIES
    expected = -(WEIGHTS * ADVANTAGES)[..., np.newaxis] * score / WEIGHTS.sum()
    np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=1e-15)


def test_gaussian_policy_gradient_is_the_score_times_the_advantage():
    """∂ log π / ∂μ = (a − μ)/σ², ∂ log π / ∂ log σ = ((a − μ)/σ)² − 1."""

    def loss(mean, log_std):
        log_probs = losses.diagonal_gaussian_log_prob(mean, log_std, tf.constant(SAMPLES))
        return losses.policy_gradient_loss(log_probs, tf.constant(ADVANTAGES))

    _, (mean_slope, log_std_slope) = gradient(loss, MEAN, LOG_STD)
    factor = -ADVANTAGES[..., np.newaxis] / ADVANTAGES.size
    np.testing.assert_allclose(mean_slope, factor * NOISE / np.exp(LOG_STD), rtol=1e-10)
    np.testing.assert_allclose(log_std_slope, factor * (NOISE**2 - 1), rtol=1e-10, atol=1e-14)


def test_losses_agree_with_a_loop_over_steps():
    log_probs, old = log_probs_and_old(change=0.5)
    plain = surrogate = clipped = 0.0
    for i in np.ndindex(4, 3):
        weight, advantage = WEIGHTS[i] / WEIGHTS.sum(), ADVANTAGES[i]
        ratio = np.exp(float(log_probs[i]) - float(old[i]))
        plain -= weight * float(log_probs[i]) * advantage
        surrogate -= weight * ratio * advantage
        clipped -= weight * min(ratio * advantage, min(max(ratio, 0.7), 1.3) * advantage)
    advantages, weights = tf.constant(ADVANTAGES), tf.constant(WEIGHTS)
    np.testing.assert_allclose(losses.policy_gradient_loss(log_probs, advantages, weights), plain, rtol=1e-12)
    np.testing.assert_allclose(losses.surrogate_loss(log_probs, old, advantages, weights), surrogate, rtol=1e-12)
    np.testing.assert_allclose(
        losses.clipped_surrogate_loss(log_probs, old, advantages, 0.3, weights), clipped, rtol=1e-12
    )
    assert abs(clipped - surrogate) > 0.01  # the clip takes part


@pytest.mark.parametrize("surrogate", [losses.surrogate_loss, losses.clipped_surrogate_loss])
def test_surrogates_have_the_policy_gradient_at_ratio_one(surrogate):
    log_probs, _ = log_probs_and_old()
    _, (slope, _) = gradient(lambda new, old: surrogate(new, old, tf.constant(ADVANTAGES)), log_probs, log_probs)
    _, (expected,) = gradient(lambda new: losses.policy_gradient_loss(new, tf.constant(ADVANTAGES)), log_probs)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    assert np.abs(expected).min() > 0


def test_clipped_surrogate_is_flat_only_where_a_better_ratio_is_already_beyond_the_clip():
    """The six cases of Schulman et al. 2017, figure 1: slope −ρ Â / N, or 0."""
    ratios = np.array([0.5, 0.5, 1.1, 1.1, 1.5, 1.5])
    advantages = np.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
    flat = np.array([False, True, False, False, True, False])
    value, (slope,) = gradient(
        lambda new: losses.clipped_surrogate_loss(new, tf.zeros(6, tf.float64), tf.constant(advantages), 0.2),
        np.log(ratios),
    )
    np.testing.assert_allclose(slope, np.where(flat, 0.0, -ratios * advantages / 6))
    np.testing.assert_allclose(value, -np.mean([1.0, -1.6, 2.2, -2.2, 2.4, -3.0]))


def test_behaviour_and_advantages_are_constants_for_the_gradient():
    log_probs, old = log_probs_and_old()
    for loss in (losses.surrogate_loss, losses.clipped_surrogate_loss):
        _, slopes = gradient(loss, log_probs, old, ADVANTAGES)
        assert slopes[1:] == [None, None]
    assert gradient(losses.policy_gradient_loss, log_probs, ADVANTAGES)[1][1] is None
    assert gradient(losses.importance_ratio, log_probs, old)[1][1] is None
    assert gradient(losses.normalise_advantages, ADVANTAGES)[1] == [None]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_masked_steps_count_for_nothing_whatever_they_hold(position):
    """A NaN under a weight of 0 changes neither the loss nor any gradient."""
    log_probs, old = log_probs_and_old()
    clean = [log_probs.numpy(), old.numpy(), ADVANTAGES]
    poisoned = [x.copy() for x in clean]
    poisoned[position][WEIGHTS == 0] = np.nan
    weights = tf.constant(WEIGHTS)
    surrogates = [
        lambda new, old, adv: losses.surrogate_loss(new, old, adv, weights),
        lambda new, old, adv: losses.clipped_surrogate_loss(new, old, adv, 0.2, weights),
        lambda new, _, adv: losses.policy_gradient_loss(new, adv, weights),
        lambda _, values, returns: losses.explained_variance(returns, values, weights),
        lambda *x: losses.normalise_advantages(x[2], weights)[1, 1],
    ]
    for loss in surrogates:
        (value, slopes), (expected, expected_slopes) = gradient(loss, *poisoned), gradient(loss, *clean)
        assert np.isfinite(value)
        np.testing.assert_array_equal(value, expected)
        if slopes[0] is not None:
            np.testing.assert_array_equal(slopes[0], expected_slopes[0])
            assert not np.any(slopes[0].numpy()[WEIGHTS == 0])


def test_every_step_masked_gives_zero_losses():
    log_probs, old = log_probs_and_old()
    none = tf.zeros_like(log_probs)
    assert losses.policy_gradient_loss(log_probs, tf.constant(ADVANTAGES), none) == 0
    assert losses.surrogate_loss(log_probs, old, tf.constant(ADVANTAGES), none) == 0
    assert losses.explained_variance(old, log_probs, none) == 0
    assert not np.any(losses.normalise_advantages(tf.constant(ADVANTAGES), none))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_normalised_advantages_have_weighted_mean_zero_and_deviation_one(scale):
    advantages = tf.constant((3.0 + ADVANTAGES) * scale, tf.float32)
    normalised = losses.normalise_advantages(advantages, tf.constant(WEIGHTS)).numpy().astype(float)
    mean = np.average(ADVANTAGES, weights=WEIGHTS)
    std = np.sqrt(np.average((ADVANTAGES - mean) ** 2, weights=WEIGHTS))
    expected = np.where(WEIGHTS > 0, (ADVANTAGES - mean) / std, 0.0)
    np.testing.assert_allclose(normalised, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7e5, 1e-30, 3e38])
def test_constant_advantages_become_zeros_and_constant_returns_explain_nothing(constant, jit_compile):
    weights = tf.constant(RANDOM.uniform(0.1, 1.0, size=2048), tf.float32)
    advantages = tf.fill([2048], tf.constant(constant, tf.float32))

    @tf.function(jit_compile=jit_compile, autograph=False)
    def compute(advantages, weights):
        return (
            losses.normalise_advantages(advantages),
            losses.normalise_advantages(advantages, weights),
            losses.explained_variance(advantages, weights, weights),
            losses.explained_variance(advantages, advantages),
        )

    for result in compute(advantages, weights):
        np.testing.assert_array_equal(result, np.zeros_like(result))


def test_advantages_that_differ_only_by_rounding_count_as_constant():
    wobble = 0.1 * (1 + np.finfo(np.float32).eps * RANDOM.integers(-1, 2, size=100))
    advantages = tf.constant(wobble, tf.float32)
    assert len(set(wobble.astype(np.float32))) > 1
    np.testing.assert_array_equal(losses.normalise_advantages(advantages), np.zeros(100))
    assert losses.explained_variance(advantages, tf.constant(RANDOM.normal(size=100), tf.float32)) == 0
    assert np.any(losses.normalise_advantages(tf.constant(0.1 * (1 + 1e-4 * RANDOM.normal(size=100)), tf.float32)))


def test_a_single_advantage_becomes_zero_and_none_stays_none():
    np.testing.assert_array_equal(losses.normalise_advantages(tf.constant([4.0])), [0.0])
    assert losses.normalise_advantages(tf.zeros([0])).shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_advantages_are_not_hidden(bad):
    assert np.isnan(losses.normalise_advantages(tf.constant([1.0, bad, 2.0]))).any()
    assert np.isnan(losses.explained_variance(tf.constant([1.0, bad, 2.0]), tf.constant([1.0, 2.0, 3.0])))


def test_explained_variance_is_one_for_a_perfect_critic_and_zero_for_a_constant_one():
    returns = tf.constant(ADVANTAGES)
    weights = tf.constant(WEIGHTS)
    np.testing.assert_allclose(losses.explained_variance(returns, returns + 5.0), 1.0)
    np.testing.assert_allclose(losses.explained_variance(returns, tf.fill([4, 3], tf.constant(2.0, tf.float64))), 0.0)
    np.testing.assert_allclose(losses.explained_variance(returns, -returns), -3.0)
    values = MEAN[..., 0]
    variance = lambda x: np.average((x - np.average(x, weights=WEIGHTS)) ** 2, weights=WEIGHTS)  # noqa: E731
    expected = 1 - variance(ADVANTAGES - values) / variance(ADVANTAGES)
    np.testing.assert_allclose(losses.explained_variance(returns, tf.constant(values), weights), expected, rtol=1e-12)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_extremes_stay_finite_with_their_gradients(jit_compile):
    """Huge logits, collapsed and vast deviations, and a ratio whose exponential would overflow float32."""
    logits = tf.constant([[1e30, -1e30, 0.0], [3e38, -3e38, 0.0], [0.0, 1e4, -np.inf]])
    actions = tf.constant([0, 0, 1])
    log_std = tf.constant([[-20.0], [20.0], [-20.0]])
    mean = tf.constant([[0.0], [1e3], [1.0]])
    log_ratio = tf.constant([200.0, 200.0, -200.0])
    advantages = tf.constant([1.0, -1.0, 1.0])
    zeros = tf.zeros(3)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def compute():
        inputs = [logits, mean, log_std, log_ratio]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            values = [
                losses.categorical_log_prob(logits, actions),
                losses.categorical_entropy(logits),
                losses.diagonal_gaussian_log_prob(mean, log_std, tf.zeros_like(mean)),
                losses.diagonal_gaussian_entropy(log_std),
                losses.surrogate_loss(log_ratio, zeros, advantages),
                losses.clipped_surrogate_loss(log_ratio, zeros, advantages),
                losses.clipped_surrogate_loss(log_ratio, zeros, -advantages),
            ]
        return values, tape.gradient(values, inputs)

    for result in tf.nest.flatten(compute()):
        assert np.isfinite(result).all(), result


def test_impossible_actions_have_no_probability_and_add_no_entropy():
    logits = tf.constant([[0.0, 0.0, -np.inf]])
    value, (slope,) = gradient(losses.categorical_entropy, logits)
    np.testing.assert_allclose(value, [np.log(2)], rtol=1e-6)
    assert np.isfinite(slope).all()
    log_prob, (slope,) = gradient(lambda z: losses.categorical_log_prob(z, tf.constant([1])), logits)
    np.testing.assert_allclose(log_prob, [-np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(slope, [[-0.5, 0.5, 0.0]], rtol=1e-6)
    assert losses.categorical_log_prob(logits, tf.constant([2])) == -np.inf


def test_importance_ratio_shows_nan_and_is_zero_for_an_impossible_action():
    ratio = losses.importance_ratio(tf.constant([np.nan, -np.inf, 0.0]), tf.constant([0.0, 0.0, -1.0]))
    np.testing.assert_allclose(ratio, [np.nan, 0.0, np.e], rtol=1e-6)


def test_shapes_are_checked():
    """[N] against [N, 1] would broadcast to [N, N]."""
    vector, column = tf.zeros(3), tf.zeros([3, 1])
    for loss in (losses.surrogate_loss, losses.clipped_surrogate_loss):
        for arguments in ((column, vector, vector), (vector, column, vector), (vector, vector, column)):
            with pytest.raises(ValueError, match="are incompatible"):
                loss(*arguments)
        with pytest.raises(ValueError, match="are incompatible"):
            loss(vector, vector, vector, weights=column)
    calls = [
        lambda: losses.policy_gradient_loss(vector, column),
        lambda: losses.importance_ratio(vector, tf.zeros(2)),
        lambda: losses.normalise_advantages(vector, column),
        lambda: losses.explained_variance(vector, column),
        lambda: losses.categorical_log_prob(tf.zeros([3, 2]), tf.zeros([3, 1], tf.int32)),
        lambda: losses.diagonal_gaussian_log_prob(column, column, vector),
        lambda: losses.diagonal_gaussian_log_prob(column, tf.zeros(2), column),
        lambda: losses.diagonal_gaussian_log_prob(tf.zeros([3, 1, 2]), tf.zeros([3, 2]), tf.zeros([3, 1, 2])),
        lambda: losses.categorical_entropy(tf.zeros([])),
        lambda: losses.diagonal_gaussian_entropy(tf.zeros([])),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"rank|compatible|broadcast"):
            call()
