"""TRPO: every step taken has proved itself, and one that could not leaves no trace."""

import numpy as np
import pytest
import tensorflow as tf
from on_policy_reference import (
    POLICIES,
    SlowPolicy,
    drawn_by,
    everything,
    experience,
    make,
    make_actor,
    make_critic,
    slow_batch,
    snapshot,
    transitions,
    trust_region,
    weights,
)

from ngrl import agents, optimizers, solvers


def impossible(**options):
    """A trust region so wide that the full step can't keep what its first-order model promises, and no second try."""
    search = optimizers.BacktrackingLineSearch(max_backtracks=0, min_reduction_ratio=0.99)
    return trust_region(max_kl=5.0, line_search=search, **options)


@pytest.mark.parametrize(("solver", "every"), [("dual", 1), ("cg", 3)])
@pytest.mark.parametrize("policy", POLICIES)
def test_step_equals_a_dense_float64_solve_scaled_to_the_trust_region(policy, solver, every):
    made = {
        "dual": solvers.Dual(solver=solvers.Cholesky()),
        "cg": solvers.ConjugateGradient(rtol=1e-8, max_iterations=200),
    }
    # Weights of about 0.01, so that rounding them leaves six digits of their change.
    actor = make_actor(policy, output_scale=0.01, initial_scale=1e-4)
    agent = make(
        agents.TrpoAgent,
        trust_region(solver=made[solver], max_kl=0.05),
        policy,
        actor,
        make_critic(),
        fisher_every=every,
    )
    batch = experience(policy)
    advantages, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    slow = SlowPolicy(agent, policy)
    gradient = slow.gradient(observation, actions, advantages, counts)
    fisher = slow.fisher(observation[::every], counts[::every])
    x = np.linalg.solve(fisher + 0.1 * np.eye(len(gradient)), gradient)
    before = weights(agent)
    stats = agent.train(batch).extra.optimizer
    scale = 0.5 ** float(stats.backtracks)
    expected = scale * np.sqrt(2 * 0.05 / (x @ fisher @ x)) * x
    error = np.linalg.norm(before - weights(agent) - expected) / np.linalg.norm(expected)
    assert stats.step_norm > 0
    assert error < 1e-5


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_accepted_steps_keep_within_max_kl_and_improve_the_surrogate(policy, every):
    """Over random weights and batches; with the Fisher of a few states the KL is still that of all of them."""
    max_kl, accepted, shortened = 0.2, 0, 0
    agent = make(agents.TrpoAgent, trust_region(max_kl=max_kl, damping=1e-3), policy, fisher_every=every)
    train = tf.function(agent.train)
    variables = agent.actor_network.trainable_weights
    for seed in range(25):
        generator = np.random.default_rng(seed)
        for variable in variables:
            variable.assign(tf.constant(generator.normal(scale=0.7, size=variable.shape), tf.float32))
        batch = drawn_by(agent, experience(policy, seed=seed), seed)
        slow, before = SlowPolicy(agent, policy), snapshot(agent.actor_network)
        advantages, _, counts = slow_batch(agent, batch)
        observation, actions = transitions(batch)
        extra = train(batch).extra
        after = weights(agent)
        kl = slow.mean_kl(after, observation, counts)
        gain = -float(slow.surrogate_loss(after, observation, actions, advantages, counts))
        np.testing.assert_allclose(extra.kl, kl, rtol=1e-3, atol=1e-6)
        if extra.optimizer.step_norm == 0:
            assert snapshot(agent.actor_network) == before
            continue
        accepted += 1
        shortened += int(extra.optimizer.backtracks > 0)
        assert kl <= max_kl * (1 + 1e-5)
        assert gain > 0
        np.testing.assert_allclose(extra.optimizer.line_search_kl, kl, rtol=1e-3)
        np.testing.assert_allclose(extra.surrogate_after, gain, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(-extra.optimizer.predicted_change * extra.optimizer.reduction_ratio, gain, rtol=1e-2)
    assert accepted > 20
    assert shortened > 3


@pytest.mark.parametrize(("policy", "compiled"), [("discrete", False), ("gaussian", False), ("gaussian", True)])
def test_failed_line_search_leaves_policy_and_slots_byte_identical(policy, compiled):
    agent = make(agents.TrpoAgent, impossible(momentum=0.5), policy, fisher_every=2)
    train = tf.function(agent.train, jit_compile=True) if compiled else agent.train
    before = everything(agent)
    for seed in range(3):
        extra = train(experience(policy, seed=seed)).extra
        stats = extra.optimizer
        assert everything(agent) == before
        assert stats.backtracks == 1
        assert (
            stats.skipped
            == stats.step_norm
            == stats.predicted_kl
            == stats.line_search_kl
            == stats.predicted_change
            == 0
        )
        assert np.isnan(stats.reduction_ratio)
        np.testing.assert_allclose([extra.kl, extra.surrogate_after], 0, atol=1e-6)
        assert np.isfinite(stats.gradient_norm)
        assert stats.gradient_norm > 0


def test_critic_learns_though_the_line_search_failed():
    agent = make(agents.TrpoAgent, impossible(), critic=make_critic())
    policy, critic = snapshot(agent.actor_network), snapshot(agent.critic.network)
    assert agent.train(experience()).extra.optimizer.step_norm == 0
    assert snapshot(agent.actor_network) == policy
    assert snapshot(agent.critic.network) != critic
    assert agent.train_step_counter == 1


@pytest.mark.parametrize("dual", [True, False])
def test_equal_advantages_leave_the_policy_byte_identical_and_are_no_failure(dual):
    solver = solvers.Dual() if dual else solvers.ConjugateGradient()
    agent = make(agents.TrpoAgent, trust_region(solver=solver), gamma=0.0)
    agent.train(experience())
    before = snapshot(agent.actor_network)
    stats = agent.train(experience(reward=-2.0)).extra.optimizer
    assert snapshot(agent.actor_network) == before
    assert stats.skipped == stats.backtracks == stats.step_norm == 0
    assert agent.train(experience(seed=1)).extra.optimizer.step_norm > 0


def test_optimizer_without_a_line_search_or_a_solve_is_refused():
    with pytest.raises(ValueError, match=r"line_search=BacktrackingLineSearch\(\)"):
        make(agents.TrpoAgent, optimizers.NaturalGradient(max_kl=0.01))
    with pytest.raises(ValueError, match="LineSearchedUpdate needs NaturalGradient as its optimizer, got SGD"):
        make(agents.TrpoAgent, tf.keras.optimizers.SGD())
