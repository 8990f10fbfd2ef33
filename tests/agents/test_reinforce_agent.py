"""REINFORCE: its step is the policy gradient of the returns, and of nothing beyond an episode."""

import numpy as np
import pytest
import tensorflow as tf
from on_policy_reference import (
    GAMMA,
    LAST,
    MID,
    POLICIES,
    SlowPolicy,
    experience,
    make,
    make_critic,
    slow_batch,
    transitions,
    weights,
)

from ngrl import agents, optimizers


def reinforce(policy="discrete", **options):
    """With a plain step of length 1, so that the gradient is what the weights lose."""
    return make(agents.ReinforceAgent, tf.keras.optimizers.SGD(1.0), policy, **options)


def taken(agent, batch):
    """The gradient that the agent followed."""
    before = weights(agent)
    agent.train(batch)
    return before - weights(agent)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("with_critic", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_gradient_equals_a_slow_loop_over_episodes(policy, with_critic, normalise):
    agent = reinforce(policy, critic=make_critic() if with_critic else None, normalise=normalise, entropy_weight=0.05)
    batch = experience(policy)
    advantages, _, counts = slow_batch(agent, batch, normalise=normalise)
    slow = SlowPolicy(agent, policy)
    expected = slow.gradient(*transitions(batch), advantages, counts, entropy_weight=0.05)
    np.testing.assert_allclose(taken(agent, batch), expected, rtol=1e-4, atol=1e-6)


def one_step(reached, discount):
    """One transition with reward 1.5 and the row that holds the observation reached."""
    batch = tf.nest.map_structure(lambda leaf: leaf[:1, :2], experience())
    return batch._replace(
        step_type=tf.constant([[MID, reached]]),
        next_step_type=tf.constant([[reached, MID]]),
        reward=tf.constant([[1.5, 100.0]]),
        discount=tf.constant([[discount, 1.0]]),
    )


@pytest.mark.parametrize(
    ("ending", "reached", "discount"), [("truncated", LAST, 1.0), ("terminated", LAST, 0.0), ("cut", MID, 1.0)]
)
def test_truncation_and_the_batchs_end_bootstrap_from_the_last_observation(ending, reached, discount):
    agent = reinforce(critic=make_critic(), normalise=False)
    batch = one_step(reached, discount)
    value, following = agent.critic.network(batch.observation[0])[0].numpy()
    expected = 1.5 + (0 if ending == "terminated" else GAMMA * following) - value
    score = SlowPolicy(agent, "discrete").gradient(*transitions(batch), np.ones(1), np.ones(1))
    assert abs(GAMMA * following) > 0.05
    np.testing.assert_allclose(taken(agent, batch), expected * score, rtol=1e-4, atol=1e-6)


def test_without_a_critic_the_return_ends_with_the_batch():
    agent = reinforce(normalise=False)
    batch = one_step(MID, 1.0)
    score = SlowPolicy(agent, "discrete").gradient(*transitions(batch), np.ones(1), np.ones(1))
    np.testing.assert_allclose(taken(agent, batch), 1.5 * score, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_together():
    free, clipped = reinforce(), reinforce(max_gradient_norm=0.01)
    batch = experience()
    gradient = taken(free, batch)
    assert np.linalg.norm(gradient) > 0.02
    np.testing.assert_allclose(taken(clipped, batch), 0.01 * gradient / np.linalg.norm(gradient), rtol=1e-3, atol=1e-7)


def test_xla_and_eager_updates_agree():
    eager, compiled = (reinforce("gaussian") for _ in range(2))
    train = tf.function(compiled.train, jit_compile=True)
    for seed in range(3):
        batch = experience("gaussian", seed=seed)
        np.testing.assert_allclose(train(batch).loss, eager.train(batch).loss, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weights(compiled), weights(eager), rtol=1e-4, atol=1e-5)


def test_natural_gradient_is_refused_with_the_agent_that_takes_it():
    with pytest.raises(ValueError, match="its optimizer is NaturalGradient: NaturalUpdate takes it"):
        make(agents.ReinforceAgent, optimizers.NaturalGradient())


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan")])
def test_clipping_to_no_positive_norm_is_refused(norm):
    with pytest.raises(ValueError, match="max_gradient_norm"):
        reinforce(max_gradient_norm=norm)
