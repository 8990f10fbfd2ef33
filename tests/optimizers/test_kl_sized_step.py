import copy

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from softmax_bandit import SoftmaxBandit

from ngrl import solvers
from ngrl.curvature import Categorical, GaussNewton
from ngrl.optimizers import NaturalGradient

SOLVERS = {
    "cholesky": lambda: solvers.Cholesky(),
    "cg": lambda: solvers.ConjugateGradient(max_iterations=5),  # inexact, as TRPO takes it
    "dual_cholesky": lambda: solvers.Dual(solver=solvers.Cholesky()),
}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(sorted(SOLVERS)),
    damping=st.sampled_from([1e-3, 0.1, 10.0]),
    max_kl=st.floats(1e-6, 10.0),
    other_states=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_predicted_divergence_is_the_radius(seed, name, damping, max_kl, other_states, dtype):
    bandit = SoftmaxBandit(seed, dtype=dtype)
    optimizer = NaturalGradient(None, SOLVERS[name](), damping, max_kl=max_kl)
    stats = bandit.update(optimizer, other_states)
    np.testing.assert_allclose(stats.predicted_kl, max_kl, rtol=1e-6)
    change = (bandit.w.numpy().astype(np.float64) - bandit.start).reshape(-1)
    dense = 0.5 * change @ bandit.fisher(bandit.start, other_states) @ change
    np.testing.assert_allclose(dense, max_kl, rtol=5e-2 if dtype == np.float32 and max_kl < 1e-3 else 1e-3)
    if dtype == np.float64:
        np.testing.assert_allclose(dense, max_kl, rtol=1e-7)
    assert np.isnan(stats.line_search_kl)
    assert stats.backtracks == 0


def test_step_is_that_of_the_natural_policy_gradient():
    """θ ← θ - sqrt(2δ / gᵀF⁻¹g) F⁻¹g (van Heeswijk 2022, Algorithm 1), whose divergence is δ for small δ."""
    bandit = SoftmaxBandit(0)
    gradient, fisher = bandit.gradient(bandit.start), bandit.fisher(bandit.start)
    natural = np.linalg.solve(fisher, gradient)
    change = -np.sqrt(2 * 1e-7 / (gradient @ natural)) * natural
    stats = bandit.update(NaturalGradient(None, solvers.Cholesky(), 0.0, max_kl=1e-7))
    np.testing.assert_allclose(bandit.w.numpy().reshape(-1), bandit.start.reshape(-1) + change, rtol=1e-10)
    np.testing.assert_allclose(stats.predicted_change, gradient @ change, rtol=1e-5)
    np.testing.assert_allclose(bandit.kl(bandit.w.numpy(), bandit.start), 1e-7, rtol=1e-2)


def test_small_gradients_reach_the_border_as_well():
    large, small = SoftmaxBandit(4), SoftmaxBandit(4)
    small.advantages = 1e-12 * small.advantages
    large.update(NaturalGradient(None, solvers.Cholesky(), 0.1, max_kl=0.01))
    small.update(NaturalGradient(None, solvers.Cholesky(), 0.1, max_kl=0.01))
    np.testing.assert_allclose(small.w.numpy(), large.w.numpy(), rtol=1e-9)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("gradient", "curvature", "damping", "max_kl"),
    [
        pytest.param(0.0, 1.0, 2.0, 0.01, id="no gradient"),
        pytest.param(1.0, 0.0, 2.0, 0.01, id="no curvature"),
        pytest.param(1.0, -1.0, 2.0, 0.01, id="negative curvature"),
        pytest.param(1e-30, 1.0, 2.0, 0.01, id="curvature underflows"),
        pytest.param(1e-13, 5e11, 0.0, 100.0, id="length overflows"),
    ],
)
def test_directions_that_no_length_suits_give_a_step_of_zero(compiled, gradient, curvature, damping, max_kl):
    w = tf.Variable([0.3, -0.0, 5.0])
    before = w.numpy().tobytes()
    optimizer = NaturalGradient(None, solvers.Cholesky(), damping, max_kl=max_kl)
    operator = tf.linalg.LinearOperatorDiag(tf.fill([3], tf.constant(curvature)), is_self_adjoint=True)
    pairs = [(tf.constant([gradient, 0.0, 0.0]), w)]

    def run():
        return optimizer.apply_natural_gradient(pairs, operator)

    stats = tf.function(run, jit_compile=True)() if compiled else run()
    assert w.numpy().tobytes() == before
    assert (stats.step_norm, stats.predicted_kl, stats.predicted_change, stats.skipped) == (0, 0, 0, 0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_curvature_that_is_not_finite_skips_the_step(poison):
    w = tf.Variable([0.3, 0.4])
    optimizer = NaturalGradient(None, solvers.Cholesky(), 1.0, max_kl=0.01)
    operator = tf.linalg.LinearOperatorDiag(tf.constant([1.0, poison]), is_self_adjoint=True)
    stats = optimizer.apply_natural_gradient([(tf.constant([1.0, 1.0]), w)], operator)
    assert stats.skipped == 1
    np.testing.assert_array_equal(w.numpy(), np.float32([0.3, 0.4]))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), max_kl=st.sampled_from([1e-3, 0.1]))
def test_undamped_kl_sized_steps_are_invariant_to_linear_reparameterisation(seed, max_kl):
    """With W = B V the policies after two steps are the same whether W or V is learnt."""
    generator = np.random.default_rng(seed)
    basis = generator.normal(size=(3, 3)) + 3 * np.eye(3)
    bandit = SoftmaxBandit(seed)
    w, v = tf.Variable(bandit.start), tf.Variable(np.linalg.solve(basis, bandit.start))
    chosen = np.eye(4)[bandit.actions]
    policies = []
    for variable, features in ((w, bandit.x), (v, bandit.x @ basis)):

        def forward(x, variable=variable):
            logits = tf.linalg.matmul(x, variable)
            return tf.concat([logits, tf.zeros_like(logits[:, :1])], axis=1)

        optimizer = NaturalGradient(None, solvers.Cholesky(), 0.0, max_kl=max_kl)
        for _ in range(2):
            operator = GaussNewton(forward, [variable], tf.constant(features), Categorical())
            score = chosen - tf.nn.softmax(operator.outputs)
            optimizer.apply_output_gradient(-bandit.advantages[:, None] * score / len(features), operator)
        policies.append(tf.nn.softmax(forward(features)).numpy())
    np.testing.assert_allclose(policies[0], policies[1], rtol=1e-5, atol=1e-8)
    assert not np.allclose(policies[0], np.exp(bandit.log_probs(bandit.start)), atol=1e-3)


def test_learning_rate_without_a_number_needs_a_radius():
    for max_kl in (None, float("inf")):
        with pytest.raises(ValueError, match="learning_rate=None needs a finite max_kl"):
            NaturalGradient(learning_rate=None, max_kl=max_kl)


@pytest.mark.parametrize("rate", ["big", True, [0.1], -1.0])
def test_learning_rate_that_is_none_is_named(rate):
    with pytest.raises(ValueError, match="learning_rate must"):
        NaturalGradient(rate)


@pytest.mark.parametrize("rate", [0.5, np.float32(0.5), tf.constant(0.5)])
def test_learning_rates_of_many_kinds(rate):
    assert float(NaturalGradient(rate).learning_rate) == 0.5


def test_config_keeps_the_missing_learning_rate():
    optimizer = NaturalGradient(None, max_kl=0.02)
    config = tf.keras.optimizers.serialize(optimizer)
    assert config["config"]["learning_rate"] is None
    restored = tf.keras.optimizers.deserialize(copy.deepcopy(config))
    assert tf.keras.optimizers.serialize(restored) == config
    assert np.isinf(float(restored.learning_rate))


def test_state_is_checkpointed(tmp_path):
    first, second = SoftmaxBandit(0), SoftmaxBandit(0)
    optimizer = NaturalGradient(None, damping=0.1, max_kl=0.01, momentum=0.5)
    restored = NaturalGradient(None, damping=0.1, max_kl=0.01, momentum=0.5)
    first.update(optimizer)
    path = tf.train.Checkpoint(w=first.w, optimizer=optimizer).write(str(tmp_path / "state"))
    first.update(optimizer)
    restored.build([second.w])
    tf.train.Checkpoint(w=second.w, optimizer=restored).read(path).assert_consumed()
    second.update(restored)
    assert second.w.numpy().tobytes() == first.w.numpy().tobytes()
    assert int(restored.iterations) == 2


def test_curvature_that_the_radius_cannot_be_divided_by_counts_as_none():
    """2δ / xᵀFx overflows: no length that can be written down reaches the border."""
    w = tf.Variable([1.0])
    optimizer = NaturalGradient(None, solvers.Cholesky(), damping=1.0, max_kl=1e30)
    operator = tf.linalg.LinearOperatorDiag(tf.constant([1e-20]))
    stats = optimizer.apply_natural_gradient([(tf.constant([1.0]), w)], operator)
    assert (stats.step_norm, stats.skipped) == (0, 0)
    np.testing.assert_array_equal(w, [1.0])
