"""The systems of the natural actor-critic's critics against plain loops, with a boundary at every possible position."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ngrl import losses

NUM_STEPS, NUM_VALUES, NUM_SCORES = 5, 2, 3
PLAIN, TERMINATED, TRUNCATED, RESET = range(4)


def sequences():
    """Every sequence of kinds of steps [T, B] in which, as in a trajectory, resets follow ends and nothing else."""
    columns = []
    for column in itertools.product((PLAIN, TERMINATED, TRUNCATED, RESET), repeat=NUM_STEPS):
        follows = itertools.pairwise(column)
        if all((before in (TERMINATED, TRUNCATED)) == (after == RESET) for before, after in follows):
            columns.append(column)
    return np.array(columns).T


KINDS = sequences()


class Trajectories:
    """Random steps [T, B]; what masked rows and terminated steps' last states hold is NaN."""

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        shape = KINDS.shape
        self.reward = random.normal(size=shape)
        self.discount = np.where(KINDS == TERMINATED, 0.0, 1.0)
        self.continues = (KINDS == PLAIN).astype(float)
        self.weights = np.where(KINDS == RESET, 0.0, random.choice([1.0, 0.5, 2.0], size=shape[1]))
        self.phi_tm1, self.phi_t = random.normal(size=(2, *shape, NUM_VALUES))
        self.psi = random.normal(size=(*shape, NUM_SCORES))
        # An episode's first state follows a reset, or is where the environment of the column started.
        self.is_first = np.zeros(shape, bool)
        self.is_first[1:] = KINDS[:-1] == RESET
        self.is_first[0] = (KINDS[0] != RESET) & (np.arange(shape[1]) % 2 == 0)
        self.phi_t[KINDS == TERMINATED] = np.nan
        for values in (self.reward, self.phi_tm1, self.phi_t, self.psi):
            values[KINDS == RESET] = np.nan

    def steps(self):
        arrays = (self.reward, self.discount, self.continues, self.weights)
        return [tf.constant(array) for array in arrays]

    def lstd(self, gamma, trace_decay):
        features = [tf.constant(array) for array in (self.phi_tm1, self.phi_t, self.psi)]
        return losses.lstd_q_system(*self.steps(), *features, gamma, trace_decay)

    def episodes(self, gamma):
        return losses.episode_sums(*self.steps(), tf.constant(self.is_first), tf.constant(self.psi), gamma)


def slow_lstd(data, gamma, trace_decay):
    """Algorithm 1, one step after another."""
    size = NUM_VALUES + NUM_SCORES
    matrix, target = np.zeros((size, size)), np.zeros(size)
    for b in range(KINDS.shape[1]):
        trace = np.zeros(size)
        for t in range(NUM_STEPS):
            if KINDS[t, b] == RESET:
                trace = np.zeros(size)
                continue
            features = np.concatenate([data.phi_tm1[t, b], data.psi[t, b]])
            trace = trace + features
            reached = np.zeros(size)
            if KINDS[t, b] != TERMINATED:
                reached[:NUM_VALUES] = data.phi_t[t, b]
            matrix += data.weights[t, b] * np.outer(trace, features - gamma * reached)
            target += data.weights[t, b] * trace * data.reward[t, b]
            trace = gamma * trace_decay * trace
    return matrix / data.weights.sum(), target / data.weights.sum()


def slow_episodes(data, gamma):
    """Sums over each episode that begins and ends in the batch, by the step that ends it."""
    episodes = {}
    for b in range(KINDS.shape[1]):
        for start in np.flatnonzero(data.is_first[:, b]):
            ends = [t for t in range(start, NUM_STEPS) if KINDS[t, b] in (TERMINATED, TRUNCATED)]
            if ends:
                rows = range(start, ends[0] + 1)
                scores = sum(gamma ** (t - start) * data.psi[t, b] for t in rows)
                returns = sum(gamma ** (t - start) * data.reward[t, b] for t in rows)
                episodes[ends[0], b] = (scores, returns, data.weights[ends[0], b])
    return episodes


@pytest.mark.parametrize(("gamma", "trace_decay"), [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0), (0.0, 0.5)])
def test_lstd_q_equals_the_algorithm_step_by_step(gamma, trace_decay):
    data = Trajectories()
    system = data.lstd(gamma, trace_decay)
    matrix, target = slow_lstd(data, gamma, trace_decay)
    np.testing.assert_allclose(system.matrix, matrix, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(system.target, target, rtol=1e-10, atol=1e-12)


def test_lstd_q_of_nothing_is_a_system_of_zeros():
    data = Trajectories()
    data.weights[:] = 0
    system = data.lstd(0.9, 0.5)
    assert not np.any(system.matrix)
    assert not np.any(system.target)


def test_damping_reaches_the_scores_alone():
    data = Trajectories()
    system = data.lstd(0.9, 0.5)
    damped = losses.damp_scores(system, NUM_SCORES, 0.25)
    expected = np.diag([0.0] * NUM_VALUES + [0.25] * NUM_SCORES)
    np.testing.assert_allclose(damped.matrix - system.matrix, expected, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
def test_episode_sums_equal_plain_sums_over_whole_episodes(gamma):
    data = Trajectories()
    sums = data.episodes(gamma)
    episodes = slow_episodes(data, gamma)
    assert 0 < len(episodes) < (KINDS == TERMINATED).sum() + (KINDS == TRUNCATED).sum()
    for t, b in np.ndindex(*KINDS.shape):
        scores, returns, weight = episodes.get((t, b), (np.zeros(NUM_SCORES), 0.0, 0.0))
        np.testing.assert_allclose(sums.scores[t, b], scores, atol=1e-12)
        np.testing.assert_allclose(sums.returns[t, b], returns, atol=1e-12)
        np.testing.assert_allclose(sums.weights[t, b], weight)


def random_episodes(episodes=12, seed=0):
    random = np.random.default_rng(seed)
    scores, returns = random.normal(size=(episodes, NUM_SCORES)) + 0.5, random.normal(size=episodes) + 4
    weights = random.choice([0.0, 1.0, 2.0], size=episodes, p=[0.2, 0.5, 0.3])
    scores[weights == 0] = np.nan
    returns[weights == 0] = np.nan
    return scores, returns, weights


def solved(scores, returns, weights, optimal):
    rows, targets = losses.episodic_regression(*map(tf.constant, (scores, returns, weights)), optimal)
    assert np.isfinite(rows).all()
    return np.linalg.lstsq(rows.numpy(), targets.numpy(), rcond=None)[0]


def test_optimal_baseline_is_the_constant_of_the_regression_and_the_published_closed_form():
    scores, returns, weights = random_episodes()
    natural = solved(scores, returns, weights, True)
    kept = weights > 0
    x, r, p = scores[kept], returns[kept], weights[kept] / weights.sum()
    with_constant = np.sqrt(p)[:, None] * np.column_stack([x, np.ones(len(x))])
    *expected, constant = np.linalg.lstsq(with_constant, np.sqrt(p) * r, rcond=None)[0]
    np.testing.assert_allclose(natural, expected, rtol=1e-9)
    fisher, gradient, mean = (x.T * p) @ x, x.T @ (p * r), p @ x
    factor = 1 + mean @ np.linalg.solve(fisher - np.outer(mean, mean), mean)
    baseline = factor * (p @ r - mean @ np.linalg.solve(fisher, gradient))
    np.testing.assert_allclose(constant, baseline, rtol=1e-9)
    np.testing.assert_allclose(natural, np.linalg.solve(fisher, gradient - mean * baseline), rtol=1e-8)


def test_average_baseline_takes_the_mean_return_off():
    scores, returns, weights = random_episodes()
    kept = weights > 0
    x, r, p = scores[kept], returns[kept], weights[kept] / weights.sum()
    expected = np.linalg.solve((x.T * p) @ x, x.T @ (p * (r - p @ r)))
    np.testing.assert_allclose(solved(scores, returns, weights, False), expected, rtol=1e-9)


@pytest.mark.parametrize("optimal", [True, False])
def test_natural_gradient_does_not_depend_on_a_constant_added_to_the_returns(optimal):
    scores, returns, weights = random_episodes()
    np.testing.assert_allclose(
        solved(scores, returns + 100, weights, optimal), solved(scores, returns, weights, optimal), atol=1e-9
    )


def test_xla_agrees():
    data = Trajectories()

    def both():
        return data.lstd(0.9, 0.8), data.episodes(0.9)

    for ours, theirs in zip(
        tf.nest.flatten(tf.function(both, jit_compile=True)()), tf.nest.flatten(both()), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_arrays_that_would_broadcast_are_refused():
    data = Trajectories()
    data.discount = data.discount[:, :1]
    with pytest.raises(ValueError, match=r"^Shapes .* are incompatible$"):
        data.lstd(0.9, 0.8)
    data = Trajectories()
    data.psi = data.psi[:-1]
    with pytest.raises(ValueError, match=r"^Shapes .* are incompatible$"):
        data.episodes(0.9)
