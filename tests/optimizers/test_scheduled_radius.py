import numpy as np
import pytest
import tensorflow as tf
from softmax_bandit import SoftmaxBandit
from trust_region import MODES, trpo

from ngrl import solvers
from ngrl.optimizers import BacktrackingLineSearch, NaturalGradient, SkipCause

schedules = tf.keras.optimizers.schedules


@pytest.mark.parametrize("mode", MODES)
def test_radius_follows_the_schedule_over_the_steps_taken(mode):
    bandit = SoftmaxBandit(0)
    radius = schedules.PolynomialDecay(0.05, decay_steps=4, end_learning_rate=0.01)
    optimizer = NaturalGradient(None, solvers.Cholesky(), 0.1, max_kl=radius)
    step = MODES[mode](lambda: bandit.update(optimizer))
    np.testing.assert_allclose([step().predicted_kl for _ in range(6)], [0.05, 0.04, 0.03, 0.02, 0.01, 0.01], rtol=1e-6)


def test_line_search_holds_the_measured_divergence_within_the_scheduled_radius():
    bandit = SoftmaxBandit(1)
    radii = [0.5, 0.05, 0.005]
    optimizer = trpo(
        schedules.PiecewiseConstantDecay([0, 1], radii), 0.1, BacktrackingLineSearch(shrink=0.8, max_backtracks=20)
    )
    for radius in radii:
        before = bandit.w.numpy()
        expected, backtracks = bandit.backtracked(before, 0.1, radius, optimizer.line_search)
        stats = bandit.update(optimizer)
        assert stats.backtracks == backtracks
        np.testing.assert_allclose(bandit.w.numpy(), expected, rtol=1e-7, atol=1e-10)
        assert 0 < bandit.kl(bandit.w.numpy(), before) <= radius


@pytest.mark.parametrize("last", [0.0, -0.01])
def test_radius_that_has_gone_to_zero_takes_steps_of_no_length(last):
    bandit = SoftmaxBandit(2)
    optimizer = trpo(schedules.PiecewiseConstantDecay([0], [0.1, last]), 0.1, BacktrackingLineSearch())
    bandit.update(optimizer)
    before = bandit.w.numpy()
    stats = bandit.update(optimizer)
    assert bandit.w.numpy().tobytes() == before.tobytes()
    assert (stats.skipped, stats.step_norm, stats.predicted_kl) == (0, 0, 0)
    assert optimizer.iterations == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("search", [None, BacktrackingLineSearch()], ids=["taken whole", "searched"])
@pytest.mark.parametrize("rate", [None, 1.0])
def test_a_radius_that_is_no_number_skips_the_step(mode, search, rate):
    bandit = SoftmaxBandit(2)
    radius = schedules.PiecewiseConstantDecay([0], [np.nan, np.nan])
    optimizer = NaturalGradient(rate, solvers.Cholesky(), 0.1, max_kl=radius, line_search=search)
    before = bandit.w.numpy()
    stats = MODES[mode](lambda: bandit.update(optimizer))()
    assert (stats.skipped, stats.skip_cause, stats.step_norm) == (1, SkipCause.SOLUTION, 0)
    assert bandit.w.numpy().tobytes() == before.tobytes()
    assert optimizer.iterations == 0


def test_scheduled_radius_round_trips_through_the_config():
    optimizer = NaturalGradient(None, max_kl=schedules.PolynomialDecay(0.05, 100, 0.002))
    restored = NaturalGradient.from_config(optimizer.get_config())
    assert restored.get_config() == optimizer.get_config()
    assert float(restored.max_kl(50)) == pytest.approx(0.026)


def test_infinite_rate_takes_a_scheduled_radius_as_its_length():
    with pytest.raises(ValueError, match="max_kl"):
        NaturalGradient(None, max_kl=None)
    NaturalGradient(None, max_kl=schedules.ExponentialDecay(0.05, 10, 0.9))
