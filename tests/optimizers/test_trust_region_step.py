import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from softmax_bandit import SoftmaxBandit
from trust_region import MODES, trpo

from ngrl import solvers
from ngrl.optimizers import BacktrackingLineSearch, LevenbergMarquardt


@pytest.mark.parametrize("other_states", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_step_equals_a_loop_in_numpy(seed, other_states):
    bandit = SoftmaxBandit(seed)
    search = BacktrackingLineSearch(shrink=0.8, max_backtracks=6, min_reduction_ratio=0.6)
    expected, backtracks = bandit.backtracked(bandit.start, 0.1, 0.3, search, other_states)
    stats = bandit.update(trpo(0.3, 0.1, search), other_states)
    assert stats.backtracks == backtracks
    np.testing.assert_allclose(bandit.w.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_loop_in_numpy_meets_full_shortened_and_failed_steps():
    """So that the test above compares all three."""
    search = BacktrackingLineSearch(shrink=0.8, max_backtracks=6, min_reduction_ratio=0.6)
    found = set()
    for seed in range(8):
        for other_states in (False, True):
            bandit = SoftmaxBandit(seed)
            found.add(bandit.backtracked(bandit.start, 0.1, 0.3, search, other_states)[1])
    assert 0 in found
    assert 7 in found
    assert found & {1, 2, 3, 4, 5, 6}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    damping=st.sampled_from([0.0, 1e-4, 0.1, 3.0]),
    max_kl=st.sampled_from([1e-4, 1e-2, 1.0, 5.0]),
    learning_rate=st.sampled_from([None, 0.5, 50.0]),
    other_states=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_accepted_steps_improve_within_the_trust_region_and_others_change_nothing(
    seed, damping, max_kl, learning_rate, other_states, dtype
):
    if damping == 0.0:
        dtype = np.float64
    bandit = SoftmaxBandit(seed, dtype=dtype)
    optimizer = trpo(max_kl, damping, BacktrackingLineSearch(max_backtracks=4), learning_rate=learning_rate)
    stats = bandit.update(optimizer, other_states)
    rounding = 16 * np.finfo(dtype).eps
    after = bandit.w.numpy()
    if stats.backtracks == 5:
        assert after.tobytes() == bandit.start.tobytes()
        assert (stats.step_norm, stats.line_search_kl, int(optimizer.iterations)) == (0, 0, 0)
        return
    measured = bandit.kl(after, bandit.start)
    assert measured <= max_kl + rounding
    np.testing.assert_allclose(stats.line_search_kl, measured, rtol=1e-5, atol=rounding)
    assert bandit.loss(after, bandit.start) < bandit.loss(bandit.start, bandit.start) + rounding
    np.testing.assert_allclose(
        stats.predicted_change,
        bandit.gradient(bandit.start) @ (after - bandit.start).reshape(-1),
        rtol=1e-3 if dtype == np.float32 else 1e-5,
        atol=rounding,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eager_graph_and_xla_agree(dtype):
    results = {}
    for mode, wrap in MODES.items():
        bandit = SoftmaxBandit(1, dtype=dtype)
        optimizer = trpo(0.3, 0.1, BacktrackingLineSearch(shrink=0.8, min_reduction_ratio=0.6), momentum=0.5)
        run = wrap(lambda bandit=bandit, optimizer=optimizer: bandit.update(optimizer))
        stats = [[float(value) for value in run()] for _ in range(3)]
        results[mode] = np.array([*np.ravel(stats), *bandit.w.numpy().ravel(), *optimizer._velocity.numpy()])
    tolerance = 1e-3 if dtype == np.float32 else 1e-6  # the stats are float32
    np.testing.assert_allclose(results["graph"], results["eager"], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(results["xla"], results["eager"], rtol=tolerance, atol=tolerance)


def test_many_searches_in_one_compiled_loop_equal_as_many_calls():
    """As training runs it: an outer tf.while_loop under XLA, with assignments in both loops."""
    looped, called = SoftmaxBandit(4), SoftmaxBandit(4)

    def optimizer():
        search = BacktrackingLineSearch(shrink=0.8, max_backtracks=3, min_reduction_ratio=0.5)
        return trpo(0.1, LevenbergMarquardt(0.5), search, momentum=0.3)

    inside, outside = optimizer(), optimizer()

    def body(index, total, rejected):
        stats = looped.update(inside)
        return index + 1, total + stats.step_norm, rejected + stats.backtracks

    with tf.init_scope():
        inside.build([looped.w])
    loop = tf.function(
        lambda: tf.while_loop(lambda index, *_: index < 8, body, (tf.constant(0), tf.constant(0.0), tf.constant(0.0))),
        jit_compile=True,
        autograph=False,
    )
    _, total, rejected = loop()
    stats = [called.update(outside) for _ in range(8)]
    backtracks = [int(one.backtracks) for one in stats]
    assert 0 in backtracks  # accepted at once, shortened, and failed
    assert 4 in backtracks
    assert set(backtracks) & {1, 2, 3}
    assert rejected == sum(backtracks)
    np.testing.assert_allclose(total, sum(float(one.step_norm) for one in stats), rtol=1e-5)
    np.testing.assert_allclose(looped.w.numpy(), called.w.numpy(), rtol=1e-9)
    for ours, theirs in zip(inside.variables, outside.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-9)


@pytest.mark.parametrize("compiled", [False, True])
def test_output_gradients_are_searched_along_too(compiled):
    bandit = SoftmaxBandit(2)
    search = BacktrackingLineSearch(shrink=0.8, min_reduction_ratio=0.6)
    expected, backtracks = bandit.backtracked(bandit.start, 0.1, 0.3, search)
    chosen = np.eye(4)[bandit.actions]
    output_gradient = -bandit.advantages[:, None] * (chosen - np.exp(bandit.log_probs(bandit.start))) / len(bandit.x)
    old_log_probs = bandit.log_probs(bandit.start)

    def log_probs():
        return tf.nn.log_softmax(bandit.forward(bandit.x))

    def loss_fn():
        ratio = tf.reduce_sum(chosen * tf.exp(log_probs() - old_log_probs), axis=1)
        return -tf.reduce_mean(ratio * bandit.advantages)

    def divergence_fn():
        return tf.reduce_mean(tf.reduce_sum(np.exp(old_log_probs) * (old_log_probs - log_probs()), axis=1))

    optimizer = trpo(0.3, 0.1, search, solver=solvers.Dual(solver=solvers.Cholesky()))

    def run():
        return optimizer.apply_output_gradient(
            tf.constant(output_gradient), bandit.operator(), loss_fn=loss_fn, divergence_fn=divergence_fn
        )

    stats = tf.function(run, jit_compile=True)() if compiled else run()
    assert stats.backtracks == backtracks > 0
    np.testing.assert_allclose(bandit.w.numpy(), expected, rtol=1e-8)
