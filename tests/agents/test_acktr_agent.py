"""ACKTR: policy and critic go along K-FAC's direction, no further than rate and trust region allow."""

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

DAMPING, RADIUS = 0.1, 1e-3


def kfac(learning_rate, **options):
    solver = solvers.Kfac(inverse="exact")
    return optimizers.NaturalGradient(learning_rate, solver=solver, damping=DAMPING, max_kl=RADIUS, **options)


def blockwise(variables, curvature, gradient, inputs, counts):
    """`blockdiag(A ⊗ G + λI)⁻¹ g`, with A of the layers' inputs; G is the biases' own block of the curvature."""
    ends = np.cumsum([variable.shape.num_elements() for variable in variables])
    places = [range(end - v.shape.num_elements(), end) for end, v in zip(ends, variables, strict=True)]
    found, remaining = np.zeros_like(gradient), list(inputs)
    for place, variable in enumerate(variables):
        if variable.shape.rank == 2:
            own = [*places[place], *places[place + 1]]
            bias = np.ix_(places[place + 1], places[place + 1])
            homogeneous = np.hstack([remaining[0], np.ones((len(counts), 1))])
            del remaining[0]
            block = np.kron(homogeneous.T @ (counts[:, np.newaxis] * homogeneous) / counts.sum(), curvature[bias])
        elif "log_std" in variable.name:
            own = [*places[place]]
            block = curvature[np.ix_(own, own)]
        else:
            continue
        found[own] = np.linalg.solve(block + DAMPING * np.eye(len(own)), gradient[own])
    return found


def layer_inputs(layer, observation):
    return [observation, np.tanh(observation @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy())]


@pytest.mark.parametrize("bound", ["rate", "radius"])
@pytest.mark.parametrize("policy", POLICIES)
def test_step_is_kfac_s_direction_within_rate_and_trust_region(policy, bound):
    rate = 1e-3 if bound == "rate" else 1e3
    actor = make_actor(policy, output_scale=0.1, initial_scale=1e-2)  # so that rounding leaves digits of their change
    agent = make(agents.AcktrAgent, kfac(rate), policy, actor, make_critic())
    batch = experience(policy)
    advantages, _, counts = slow_batch(agent, batch)
    observation, actions = transitions(batch)
    slow = SlowPolicy(agent, policy)
    gradient = slow.gradient(observation, actions, advantages, counts)
    fisher = slow.fisher(observation, counts)
    inputs = layer_inputs(actor.layers_in_order[0], observation)
    direction = blockwise(actor.trainable_weights, fisher, gradient, inputs, counts)
    longest = np.sqrt(2 * RADIUS / (direction @ fisher @ direction))
    assert (rate < longest) == (bound == "rate")
    before = weights(agent)
    agent.train(batch)
    expected = min(rate, longest) * direction
    assert np.linalg.norm(before - weights(agent) - expected) < 1e-3 * np.linalg.norm(expected)


def test_critic_takes_kfac_s_gauss_newton_step_on_its_own_scale():
    critic = make_critic(kfac(0.01), epochs=1, batch_size=1000)
    agent = make(agents.AcktrAgent, kfac(0.01), critic=critic)
    batch = experience()
    _, returns, counts = slow_batch(agent, batch)
    observation, _ = transitions(batch)
    variables = critic.network.trainable_weights
    with tf.GradientTape() as tape:
        values = critic.values(tf.constant(observation, tf.float32))
    jacobian = np.hstack([part.numpy().reshape(len(returns), -1) for part in tape.jacobian(values, variables)])
    jacobian = jacobian.astype(np.float64)
    gradient = jacobian.T @ (counts * (values.numpy() - returns)) / counts.sum()
    curvature = jacobian.T @ (counts[:, np.newaxis] * jacobian) / counts.sum()
    inputs = layer_inputs(critic.network.layers_in_order[0], observation)
    direction = blockwise(variables, curvature, gradient, inputs, counts)
    rate = min(0.01, np.sqrt(2 * RADIUS / (direction @ curvature @ direction)))
    before = np.concatenate([v.numpy().ravel() for v in variables])
    agent.train(batch)
    change = before - np.concatenate([v.numpy().ravel() for v in variables])
    assert np.linalg.norm(change - rate * direction) < 1e-3 * np.linalg.norm(rate * direction)
