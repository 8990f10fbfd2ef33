"""Distributions over actions against TensorFlow Probability in float64, and samples against their probabilities."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats
from tf_agents.specs import tensor_spec

from ngrl import networks
from ngrl.agents import heads

CATEGORICAL, GAUSSIAN = heads.CategoricalHead(), heads.GaussianHead()
HEADS = {"categorical": CATEGORICAL, "several": heads.MultiCategoricalHead((2, 2)), "gaussian": GAUSSIAN}
SEED = tf.constant([3, 5])
DISCRETE = tensor_spec.BoundedTensorSpec([], tf.int64, 0, 3)
SEVERAL = tensor_spec.BoundedTensorSpec([3], tf.int64, 0, [2, 0, 1])
BOX = tensor_spec.BoundedTensorSpec([2], tf.float32, -1, 1)


def parameters(seed=0, rows=7, dtype=np.float64):
    """Logits [N, 4], or μ and log σ [N, 4]."""
    return tf.constant(np.random.default_rng(seed).normal(size=(rows, 4)), dtype)


def distribution(kind, values):
    if kind == "categorical":
        return tfp.distributions.Categorical(logits=values)
    if kind == "several":
        return tfp.distributions.Independent(tfp.distributions.Categorical(logits=tf.reshape(values, [-1, 2, 2])), 1)
    mean, log_std = tf.split(values, 2, axis=-1)
    return tfp.distributions.MultivariateNormalDiag(mean, tf.exp(log_std))


def actions(kind):
    random = np.random.default_rng(9)
    if kind == "categorical":
        return tf.constant(random.integers(4, size=7))
    return tf.constant(random.integers(2, size=(7, 2)) if kind == "several" else random.normal(size=(7, 2)) * 2)


@pytest.mark.parametrize("kind", HEADS)
def test_closed_forms_agree_with_tensorflow_probability(kind):
    head, old, new, taken = HEADS[kind], parameters(), parameters(seed=1), actions(kind)
    p, q = distribution(kind, old), distribution(kind, new)
    np.testing.assert_allclose(head.log_prob(old, taken), p.log_prob(taken), rtol=1e-12)
    np.testing.assert_allclose(head.entropy(old), p.entropy(), rtol=1e-12)
    np.testing.assert_allclose(head.kl(old, new), p.kl_divergence(q), rtol=1e-12)
    np.testing.assert_allclose(head.kl(old, old), np.zeros(7), atol=1e-15)


@pytest.mark.parametrize("kind", HEADS)
def test_metric_is_the_curvature_of_the_divergence(kind):
    """M v against the Hessian of KL(old ‖ ·) at old."""
    head, old = HEADS[kind], parameters(rows=3)
    with tf.GradientTape() as outer:
        outer.watch(old)
        with tf.GradientTape() as inner:
            inner.watch(old)
            divergence = tf.reduce_sum(head.kl(tf.constant(old.numpy()), old))
        gradient = inner.gradient(divergence, old)
    hessian = outer.batch_jacobian(gradient, old).numpy()
    for column in range(4):
        unit = tf.constant(np.tile(np.eye(4)[column], (3, 1)))
        np.testing.assert_allclose(head.metric.matvec(old, unit), hessian[:, :, column], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.uint8])
def test_actions_of_any_integer_type_have_a_probability(dtype):
    logits, taken = parameters(), actions("categorical")
    expected = distribution("categorical", logits).log_prob(taken)
    np.testing.assert_allclose(CATEGORICAL.log_prob(logits, tf.cast(taken, dtype)), expected)


def test_extreme_parameters_stay_finite():
    logits = tf.constant([[0.0, 3e4, -3e4], [1e30, 0.0, -1e30]])
    taken = tf.constant([1, 0])
    for result in (CATEGORICAL.log_prob(logits, taken), CATEGORICAL.entropy(logits)):
        np.testing.assert_allclose(result, [0, 0], atol=1e-6)
    np.testing.assert_allclose(CATEGORICAL.kl(logits, logits), [0, 0], atol=1e-6)
    bounded = tf.constant([[0.0, -5.0]])
    assert np.isfinite(GAUSSIAN.log_prob(bounded, tf.constant([[1e3]])))
    assert np.isfinite(GAUSSIAN.kl(tf.constant([[1e3, 2.0]]), bounded))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_discrete_actions_come_as_often_as_they_should(jit_compile, seed):
    """Pearson's statistic below the 0.9999 quantile, over probabilities from 1e-4 to 0.6."""
    probabilities = np.array([0.6, 0.3, 0.09, 0.009, 0.0009, 0.0001])
    count = 400_000
    logits = tf.tile(tf.constant(np.log(probabilities)[np.newaxis] + 3, tf.float32), [count, 1])
    sample = tf.function(CATEGORICAL.sample, jit_compile=jit_compile, autograph=False)
    drawn = sample(logits, tf.constant([seed, 7]))
    assert drawn.dtype == tf.int32
    seen = np.bincount(drawn, minlength=6)
    statistic = np.sum((seen - count * probabilities) ** 2 / (count * probabilities))
    assert statistic < stats.chi2.ppf(0.9999, df=5)


def test_neighbouring_rows_and_seeds_draw_independently():
    """Pairs of a row and the next, and of a seed and the next, over the four pairs of two equal actions."""
    count = 100_000
    draws = [CATEGORICAL.sample(tf.zeros([count, 2]), tf.constant([0, seed])).numpy() for seed in (4, 5)]
    for first, second in ((draws[0][:-1:2], draws[0][1::2]), (draws[0], draws[1])):
        seen = np.bincount(2 * first + second, minlength=4)
        expected = len(first) / 4
        assert np.sum((seen - expected) ** 2 / expected) < stats.chi2.ppf(0.9999, df=3)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_an_impossible_action_is_never_drawn(jit_compile):
    logits = tf.tile(tf.constant([[-np.inf, 0.0, -1e9, 0.0]], tf.float32), [100_000, 1])
    drawn = tf.function(CATEGORICAL.sample, jit_compile=jit_compile, autograph=False)(logits, SEED)
    assert set(np.unique(drawn)) == {1, 3}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_ends_of_the_uniform_distribution_give_finite_noise(monkeypatch, jit_compile):
    """The smallest and the largest number that a draw can be, in every combination for two actions.

    Infinite noise would draw action 1 in spite of a logit 30 below, or −∞ + ∞ a NaN.
    """
    smallest, largest = 0.0, 1 - 2.0**-23

    def ends(shape, seed, minval, dtype, alg):
        del shape, seed, alg
        unit = tf.constant([[a, b] for a in (smallest, largest) for b in (smallest, largest)], dtype)
        return unit * (1 - minval) + minval

    monkeypatch.setattr(tf.random, "stateless_uniform", ends)
    sample = tf.function(CATEGORICAL.sample, jit_compile=jit_compile, autograph=False)
    np.testing.assert_array_equal(sample(tf.tile([[0.0, -30.0]], [4, 1]), SEED), [0, 0, 0, 0])
    np.testing.assert_array_equal(sample(tf.tile([[-30.0, 0.0]], [4, 1]), SEED), [1, 1, 1, 1])
    np.testing.assert_array_equal(sample(tf.tile([[0.0, 0.0]], [4, 1]), SEED)[1:3], [1, 0])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_continuous_actions_follow_their_gaussian(jit_compile):
    count = 100_000
    values = tf.tile(tf.constant([[3.0, -2.0, -1.0, 0.5]]), [count, 1])
    sample = tf.function(GAUSSIAN.sample, jit_compile=jit_compile, autograph=False)
    drawn = sample(values, SEED).numpy().astype(np.float64)
    assert drawn.shape == (count, 2)
    for column, (mean, log_std) in enumerate([(3.0, -1.0), (-2.0, 0.5)]):
        assert stats.kstest(drawn[:, column], stats.norm(mean, np.exp(log_std)).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / np.sqrt(count)
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 4 / np.sqrt(count)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("run", ["eager", "graph", "xla"])
def test_samples_depend_on_parameters_and_seed_alone(kind, run):
    values = tf.zeros([64, 4])
    sample = HEADS[kind].sample
    if run != "eager":
        sample = tf.function(sample, jit_compile=run == "xla", autograph=False)
    tf.random.set_seed(1)
    first = sample(values, SEED).numpy()
    tf.random.uniform([3])
    tf.random.set_seed(2)
    np.testing.assert_array_equal(sample(values, SEED), first)
    assert (sample(values, SEED + 1).numpy() != first).any()
    assert (sample(values, SEED[::-1]).numpy() != first).any()
    assert len(np.unique(first)) > 1
    if run == "graph":
        np.testing.assert_array_equal(HEADS[kind].sample(values, SEED), first)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_either_precision_can_be_sampled(kind, dtype):
    drawn = HEADS[kind].sample(parameters(dtype=dtype), SEED)
    assert drawn.dtype == (dtype if kind == "gaussian" else tf.int32)


def test_the_environments_actions_choose_the_head():
    assert isinstance(heads.head_for(DISCRETE), heads.CategoricalHead)
    assert isinstance(heads.head_for(BOX), heads.GaussianHead)
    assert isinstance(heads.head_for(SEVERAL), heads.MultiCategoricalHead)
    for spec in (
        tensor_spec.BoundedTensorSpec([2], tf.int64, 1, 3),
        tensor_spec.BoundedTensorSpec([2, 2], tf.int64, 0, 3),
    ):
        with pytest.raises(ValueError, match="needs discrete actions counted from 0 or one vector of real numbers"):
            heads.head_for(spec)


def test_several_actions_of_different_numbers_are_those_of_the_policys_distribution():
    network = networks.ActorNetwork(tensor_spec.TensorSpec([3], tf.float32), SEVERAL, (), output_scale=1.0)
    head, states = heads.head_for(SEVERAL), tf.constant(np.random.default_rng(0).normal(size=(2000, 3)), tf.float32)
    logits, (policy, _) = network.distribution_parameters(states), network(states)
    assert logits.shape == (2000, 6)
    drawn = head.sample(logits, SEED)
    assert [set(column) for column in drawn.numpy().T.tolist()] == [{0, 1, 2}, {0}, {0, 1}]
    np.testing.assert_allclose(head.log_prob(logits, drawn), policy.log_prob(tf.cast(drawn, tf.int64)), atol=1e-6)
    np.testing.assert_allclose(head.entropy(logits), policy.entropy(), atol=1e-6)
    expected = [np.argmax(part, axis=1) for part in np.split(logits.numpy(), [3, 4], axis=1)]
    np.testing.assert_array_equal(policy.mode(), np.stack(expected, axis=1))
    assert policy.mode().dtype == tf.int64
