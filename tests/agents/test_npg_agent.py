"""NPG: the direction, the length and what is reported of a natural step."""

import numpy as np
import pytest
import tensorflow as tf
from on_policy_reference import (
    POLICIES,
    SlowPolicy,
    experience,
    make,
    make_actor,
    make_critic,
    slow_batch,
    transitions,
    weights,
)

from ngrl import agents, optimizers, solvers

# The condition number of F + λI is at most about 100 with this λ, so that float32 leaves 1e-5 of relative accuracy.
DAMPING = 0.1
SOLVERS = {
    "dual": lambda: solvers.Dual(solver=solvers.Cholesky()),
    "cg": lambda: solvers.ConjugateGradient(rtol=1e-8, max_iterations=200),
    "minres_qlp": lambda: solvers.MinresQLP(rtol=1e-8, max_iterations=200),
    "cholesky": solvers.Cholesky,
}


def natural(**options):
    return optimizers.NaturalGradient(**{"learning_rate": 1.0, "damping": DAMPING, **options})


def dense_step(agent, policy, batch, every=1, damping=DAMPING, entropy_weight=0.0):
    """g, F and x = (F + λI)⁻¹ g of this batch, all in float64."""
    advantages, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    slow = SlowPolicy(agent, policy)
    gradient = slow.gradient(observation, actions, advantages, counts, entropy_weight)
    fisher = slow.fisher(observation[::every], counts[::every])
    return gradient, fisher, np.linalg.solve(fisher + damping * np.eye(len(gradient)), gradient)


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("solver", "every"), [*((solver, 1) for solver in SOLVERS), ("dual", 3), ("cg", 3)])
@pytest.mark.parametrize("policy", POLICIES)
def test_direction_equals_a_dense_float64_solve(policy, solver, every):
    """F over all states or every third, boundary rows left out of both gradient and Fisher."""
    agent = make(
        agents.NpgAgent,
        natural(solver=SOLVERS[solver]()),
        policy,
        critic=make_critic(),
        fisher_every=every,
        entropy_weight=0.1,
    )
    batch = experience(policy)
    assert (batch.step_type[:, :-1].numpy() == 2).sum() >= 4
    _, _, expected = dense_step(agent, policy, batch, every, entropy_weight=0.1)
    before = weights(agent)
    agent.train(batch)
    assert relative_error(before - weights(agent), expected) < 1e-5


def test_fisher_of_some_states_differs_from_that_of_all():
    """Else the test above would say nothing of `fisher_every`."""
    agent, batch = make(agents.NpgAgent, natural()), experience()
    every_state, every_third = (dense_step(agent, "discrete", batch, every)[2] for every in (1, 3))
    assert relative_error(every_third, every_state) > 0.01


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_kl_sized_step_has_the_predicted_kl_it_was_asked_for(policy, every):
    max_kl = 1e-3
    agent = make(agents.NpgAgent, natural(learning_rate=None, max_kl=max_kl), policy, fisher_every=every)
    batch = experience(policy)
    _, fisher, direction = dense_step(agent, policy, batch, every)
    before = weights(agent)
    info = agent.train(batch)
    np.testing.assert_allclose(info.extra.optimizer.predicted_kl, max_kl, rtol=1e-6)
    # The weights, about 1 in size, are rounded to 6e-8, their changes of about 0.01 thereby to 1e-5.
    step = before - weights(agent)
    np.testing.assert_allclose(0.5 * step @ fisher @ step, max_kl, rtol=1e-4)
    assert relative_error(step, np.sqrt(2 * max_kl / (direction @ fisher @ direction)) * direction) < 1e-4


@pytest.mark.parametrize("policy", POLICIES)
def test_measured_kl_surrogate_and_reduction_ratio_equal_a_recomputation(policy):
    agent = make(agents.NpgAgent, natural(learning_rate=None, max_kl=0.02), policy)
    batch = experience(policy)
    advantages, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    slow = SlowPolicy(agent, policy)
    gradient = slow.gradient(observation, actions, advantages, counts)
    extra = agent.train(batch).extra
    after = weights(agent)
    surrogate = float(slow.surrogate_loss(after, observation, actions, advantages, counts))
    np.testing.assert_allclose(extra.kl, slow.mean_kl(after, observation, counts), rtol=1e-4)
    np.testing.assert_allclose(extra.surrogate_before, 0, atol=1e-6)  # advantages of mean 0
    np.testing.assert_allclose(extra.surrogate_after, -surrogate, rtol=1e-4)
    predicted = gradient @ (after - slow.theta.numpy())
    np.testing.assert_allclose(extra.optimizer.predicted_change, predicted, rtol=1e-4)
    np.testing.assert_allclose(extra.optimizer.reduction_ratio, surrogate / predicted, rtol=1e-3)


def test_levenberg_marquardt_keeps_its_own_reduction_ratio():
    """That of the quadratic model, which the rule adapts the damping by."""
    agent = make(agents.NpgAgent, natural(learning_rate=0.3, damping=optimizers.LevenbergMarquardt(initial=0.5)))
    batch = experience()
    advantages, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    gradient, fisher, _ = dense_step(agent, "discrete", batch)
    slow = SlowPolicy(agent, "discrete")
    stats = agent.train(batch).extra.optimizer
    step = weights(agent) - slow.theta.numpy()
    change = float(slow.surrogate_loss(weights(agent), observation, actions, advantages, counts))
    np.testing.assert_allclose(
        stats.reduction_ratio, change / (gradient @ step + 0.5 * step @ fisher @ step), rtol=1e-3
    )


def test_step_that_moves_nothing_has_no_reduction_ratio():
    agent = make(agents.NpgAgent, natural(learning_rate=None, max_kl=0.02), gamma=0.0)
    before = weights(agent)
    stats = agent.train(experience(reward=3.0)).extra.optimizer
    np.testing.assert_array_equal(weights(agent), before)
    assert np.isnan(stats.reduction_ratio)
    assert stats.predicted_change == stats.step_norm == stats.skipped == 0


# An invertible change of the inputs, x' = Ax, with a condition number of about 5.
MIXING = np.array([[1.0, 0.8, 0.0], [-0.5, 1.2, 0.4], [0.3, 0.0, 0.6]])


def reparameterised_pair(kind, make_optimizer, policy):
    """Two agents with linear policies, alike as functions: one sees x, the other Ax through kernels A⁻ᵀW."""
    ours, theirs = (make(kind, make_optimizer(), policy, make_actor(policy, hidden=())) for _ in range(2))
    kernel = theirs.actor_network.layers_in_order[0].kernel
    kernel.assign(np.linalg.solve(MIXING.T, kernel.numpy().astype(np.float64)))
    return ours, theirs


def distance_after_a_step(kind, make_optimizer, policy):
    """How far the two policies' parameters are apart after one step, as a part of what the step changed."""
    ours, theirs = reparameterised_pair(kind, make_optimizer, policy)
    # Many states, so that the Fisher is far from singular but for what no state can tell apart.
    batch = experience(policy, trajectories=12)
    mixed = batch._replace(observation=tf.constant(batch.observation.numpy() @ MIXING.T, tf.float32))
    observation, mixed_observation = (tf.reshape(b.observation, [-1, 3]) for b in (batch, mixed))

    def parameters():
        return (
            ours.actor_network.distribution_parameters(observation).numpy(),
            theirs.actor_network.distribution_parameters(mixed_observation).numpy(),
        )

    start, same_start = parameters()
    np.testing.assert_allclose(same_start, start, atol=1e-5)
    ours.train(batch)
    theirs.train(mixed)
    end, same_end = parameters()
    assert np.abs(end - start).max() > 0.05
    return np.abs(end - same_end).max() / np.abs(end - start).max()


@pytest.mark.parametrize("policy", POLICIES)
def test_natural_step_is_unchanged_by_a_linear_reparameterisation_and_a_plain_one_is_not(policy):
    """To 1e-3 of the step: the arithmetic is in float32, and the undamped Fisher of logits is singular."""

    def undamped():
        solver = solvers.ConjugateGradient(rtol=1e-7, max_iterations=100)
        return natural(learning_rate=None, max_kl=0.05, damping=0.0, solver=solver)

    assert distance_after_a_step(agents.NpgAgent, undamped, policy) < 1e-3
    assert distance_after_a_step(agents.ReinforceAgent, lambda: tf.keras.optimizers.SGD(0.5), policy) > 0.1


def test_xla_and_eager_updates_agree():
    def build():
        # Without a critic, whose minibatches come in another order under XLA.
        optimizer = natural(learning_rate=None, max_kl=0.02, solver=SOLVERS["cg"]())
        return make(agents.NpgAgent, optimizer, "gaussian", fisher_every=4)

    eager, compiled = build(), build()
    train = tf.function(compiled.train, jit_compile=True)
    for seed in range(3):
        batch = experience("gaussian", seed=seed)
        expected, info = eager.train(batch), train(batch)
        np.testing.assert_allclose(info.extra.kl, expected.extra.kl, rtol=1e-3)
    np.testing.assert_allclose(weights(compiled), weights(eager), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("every", [0, -1, 1.5, 2.0, True, "2", float("nan")])
def test_fisher_every_that_is_no_positive_integer_is_refused(every):
    with pytest.raises(ValueError, match=f"NaturalUpdate: fisher_every must be a positive integer, got {every!r}"):
        make(agents.NpgAgent, natural(), fisher_every=every)


@pytest.mark.parametrize("solver", [solvers.Dual(), solvers.BlockDual()])
def test_fisher_over_a_part_of_the_states_needs_damping_with_a_solver_of_rows(solver):
    optimizer = optimizers.NaturalGradient(solver=solver, damping=0.0)
    with pytest.raises(
        ValueError, match=rf"^NaturalUpdate: with fisher_every, .* {type(solver).__name__} needs damping"
    ):
        make(agents.NpgAgent, optimizer, fisher_every=2)


def test_optimizer_that_solves_nothing_is_refused():
    with pytest.raises(ValueError, match="NaturalUpdate needs NaturalGradient as its optimizer, got Adam"):
        make(agents.NpgAgent, tf.keras.optimizers.Adam())
