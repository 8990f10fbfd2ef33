"""PPO: the clipped surrogate on shuffled minibatches, step by step as a loop written by hand takes them."""

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
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.trajectories import time_step as ts

from ngrl import agents, losses, optimizers, seeding
from ngrl.agents.minibatches import shuffled_minibatches


def ppo(policy="discrete", optimizer=None, **options):
    optimizer = optimizer or tf.keras.optimizers.Adam(0.1)
    return make(agents.PpoAgent, optimizer, policy, **{"epochs": 3, "batch_size": 10, **options})


def log_prob_and_entropy(actor, observation, actions):
    """By the functions of `ngrl.losses`."""
    parameters = actor.distribution_parameters(observation)
    if actor.is_discrete:
        return losses.categorical_log_prob(parameters, actions), losses.categorical_entropy(parameters)
    mean, log_std = tf.split(parameters, 2, axis=-1)
    return losses.diagonal_gaussian_log_prob(mean, log_std, actions), losses.diagonal_gaussian_entropy(log_std)


@pytest.mark.parametrize("with_critic", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_update_equals_a_keras_loop_over_the_same_minibatches(policy, with_critic):
    agent = ppo(
        policy,
        critic=make_critic() if with_critic else None,
        clip_ratio=0.1,
        entropy_weight=0.01,
        max_gradient_norm=0.3,
    )
    batch = experience(policy)
    advantages, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    observation, advantages, counts = (tf.constant(leaf, tf.float32) for leaf in (observation, advantages, counts))
    actions = tf.constant(actions)
    actor, optimizer = make_actor(policy), tf.keras.optimizers.Adam(0.1)
    actor.create_variables(agent.time_step_spec.observation)
    old, _ = log_prob_and_entropy(actor, observation, actions)
    # The first update's order is that of the agent's seed and of train step 0.
    order = shuffled_minibatches(len(counts), 10, 3, seeding.key(0, seeding.Stream.POLICY_MINIBATCHES)).numpy()
    assert order.shape == (9, 10)
    measured, clipped = [], 0
    for rows in order:
        part = [tf.gather(leaf, rows) for leaf in (observation, actions, old, advantages, counts)]
        states, chosen, behaviour, advantage, count = part
        with tf.GradientTape() as tape:
            log_prob, entropy = log_prob_and_entropy(actor, states, chosen)
            loss = losses.clipped_surrogate_loss(log_prob, behaviour, advantage, 0.1, count)
            loss -= 0.01 * losses.weighted_mean(entropy, count)
        clipped += int(np.sum(np.abs(np.exp(log_prob - behaviour) - 1) > 0.1))
        gradients = tape.gradient(loss, actor.trainable_weights)
        gradients, _ = tf.clip_by_global_norm(gradients, 0.3)
        optimizer.apply_gradients(zip(gradients, actor.trainable_weights, strict=True))
        measured.append(float(loss))
    info = agent.train(batch)
    assert clipped > 30
    np.testing.assert_allclose(info.loss, np.mean(measured), rtol=1e-4, atol=1e-6)
    expected = np.concatenate([variable.numpy().reshape(-1) for variable in actor.trainable_weights])
    np.testing.assert_allclose(weights(agent), expected, rtol=1e-3, atol=1e-5)


def test_first_step_is_that_of_the_policy_gradient():
    """Where nothing has been clipped yet, by the float64 reference."""
    agent = ppo(optimizer=tf.keras.optimizers.SGD(1.0), epochs=1, batch_size=1000, max_gradient_norm=None)
    batch = experience()
    advantages, _, counts = slow_batch(agent, batch)
    expected = SlowPolicy(agent, "discrete").gradient(*transitions(batch), advantages, counts)
    before = weights(agent)
    agent.train(batch)
    np.testing.assert_allclose(before - weights(agent), expected, rtol=1e-4, atol=1e-6)


def test_minibatches_change_from_one_update_to_the_next():
    def order(agent):
        return shuffled_minibatches(32, 8, 1, agent._trained.draw(seeding.Stream.POLICY_MINIBATCHES)).numpy()

    first, second = order(ppo()), order(ppo())
    np.testing.assert_array_equal(first, second)
    agent = ppo()
    agent.train(experience())
    assert (order(agent) != first).any()


def test_xla_and_eager_updates_agree():
    # One minibatch, whose order can't matter: random numbers under XLA are others.
    eager, compiled = (ppo("gaussian", batch_size=1000) for _ in range(2))
    train = tf.function(compiled.train, jit_compile=True)
    for seed in range(3):
        batch = experience("gaussian", seed=seed)
        np.testing.assert_allclose(train(batch).loss, eager.train(batch).loss, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights(compiled), weights(eager), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "option",
    [
        {"clip_ratio": 0.0},
        {"epochs": 0},
        {"batch_size": 0},
        {"max_gradient_norm": -1.0},
        {"max_gradient_norm": float("inf")},  # clipping to it would multiply infinity and zero
    ],
)
def test_options_out_of_range_are_named(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        ppo(**option)


def test_loss_and_norm_are_means_of_the_minibatches_that_were_not_skipped(monkeypatch):
    number = tf.Variable(0)

    def every_third_alone_works(optimizer, variables, loss_fn, max_norm):
        works = tf.equal(number.assign_add(1) % 3, 0)
        loss, norm = tf.where(works, 2.0, np.nan), tf.where(works, 1.0, np.nan)
        cause = tf.where(tf.equal(number % 3, 1), 4.0, 1.0)
        return loss, optimizers.GradientStats(norm, tf.where(works, 0.0, 1.0), tf.where(works, 0.0, cause))

    monkeypatch.setattr("ngrl.agents.updates.plain_step", every_third_alone_works)
    agent, average = ppo(epochs=3), make_actor("discrete")
    agent.average_into(average, agents.SoftUpdate(0.5))
    before, online = average.trainable_weights[0].numpy(), agent.actor_network.trainable_weights[0]
    online.assign_add(tf.ones_like(online))
    info = agent.train(experience("discrete"))
    stats = info.extra.optimizer
    # Minibatches that work have the average follow, though others were skipped.
    np.testing.assert_allclose(average.trainable_weights[0], before + 0.5, rtol=1e-5)
    assert number.numpy() % 3 == 0
    assert (info.loss.numpy(), stats.gradient_norm.numpy()) == (2, 1)
    assert stats.skipped.numpy() == number.numpy() * 2 / 3
    assert stats.skip_cause.numpy() == 4


def test_natural_gradient_is_refused_with_the_agent_that_takes_it():
    with pytest.raises(ValueError, match="its optimizer is NaturalGradient: NaturalUpdate takes it"):
        ppo(optimizer=optimizers.NaturalGradient())


@pytest.mark.parametrize("policy", POLICIES)
def test_loss_is_that_of_tf_agents_own_agent(policy):
    """`PPOClipAgent.policy_gradient_loss`, on ratios of which some are clipped."""
    spec, batch, generator = POLICIES[policy][0], experience(policy, ends=0.0), np.random.default_rng(3)
    agent = ppo(policy, clip_ratio=0.1)
    observation, actions = transitions(batch)
    observation, actions = tf.constant(observation, tf.float32), tf.constant(actions)
    advantages = tf.constant(generator.normal(size=len(observation)), tf.float32)
    distribution = agent.actor_network(observation)[0]
    log_prob, _ = log_prob_and_entropy(agent.actor_network, observation, actions)
    behaviour = log_prob + tf.constant(generator.normal(scale=0.2, size=len(observation)), tf.float32)
    assert 10 < np.sum(np.abs(np.exp(log_prob - behaviour) - 1) > 0.1) < len(observation)
    peer = ppo_clip_agent.PPOClipAgent(
        agent.time_step_spec,
        spec,
        tf.keras.optimizers.Adam(),
        actor_net=agent.actor_network,
        value_net=make_critic().network,
        importance_ratio_clipping=0.1,
        entropy_regularization=0.0,
    )
    expected = peer.policy_gradient_loss(
        ts.restart(observation, len(observation)),
        tf.cast(actions, spec.dtype),
        behaviour,
        advantages,
        distribution,
        tf.ones(len(observation)),
    )
    found = losses.clipped_surrogate_loss(log_prob, behaviour, advantages, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
