"""Targets that look several steps ahead, from the loop's replay to the agent's loss."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import agents, environments, loops, networks, optimizers
from ngrl.loops.off_policy import as_experience
from ngrl.replay import Sequences, Transition

GAMMA, STEPS = 0.9, 3


def make(multi_step, env_id="CartPole-v1", **options):
    kwargs = {"max_episode_steps": 12} if env_id == "CartPole-v1" else {}
    environment = environments.load(env_id, num_envs=3, seed=0, env_kwargs=kwargs)
    specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
    network = networks.QNetwork(specs[0].observation, 2, (6,), seed=0)
    given = {name: options.pop(name) for name in ("target_update", "double_q") if name in options}
    agent = agents.DqnAgent(
        *specs, network, optimizers.NaturalGradient(0.5, damping=0.1), gamma=GAMMA, multi_step=multi_step, **given
    )
    loop = loops.OffPolicyLoop(
        agent, environment, batch_size=16, warmup_steps=60, replay_capacity=500, updates_per_call=4, **options
    )
    return agent, loop


@pytest.mark.parametrize("watkins", [False, True], ids=["Peng", "Watkins"])
@pytest.mark.parametrize("trace_lambda", [0.7, 1.0])
def test_loss_on_replayed_sequences_equals_a_slow_loop_over_the_steps_that_followed(watkins, trace_lambda):
    multi_step = agents.QLambda(num_steps=STEPS, trace_lambda=trace_lambda, watkins=watkins)
    agent, loop = make(multi_step, jit_compile=False)
    for _ in range(15):  # below the warm-up: terminations, truncations, and steps that nothing has followed yet
        loop.step()
    sequences = loop.replay.sample(64)
    steps, valid = sequences
    assert 0 < valid[:, -1].mean() < 1

    def values(observation):
        return agent.q_network(observation)[0].numpy()

    errors = []
    for row in range(64):
        length = int(valid[row].sum())
        q_next = values(steps.next_observation[row])
        target = 0.0
        for step in reversed(range(length)):
            beyond = q_next[step].max()
            if step < length - 1 and not (watkins and np.argmax(q_next[step]) != steps.action[row, step + 1]):
                beyond = (1 - trace_lambda) * beyond + trace_lambda * target
            target = steps.reward[row, step] + GAMMA * steps.discount[row, step] * beyond
        errors.append(target - values(steps.observation[row, :1])[0, steps.action[row, 0]])
    batch = as_experience(tf.nest.map_structure(tf.constant, sequences))
    np.testing.assert_allclose(agent.loss(batch).loss, 0.5 * np.mean(np.square(errors)), rtol=1e-5)


def test_one_step_ahead_is_what_an_agent_without_multi_step_does():
    options = {"target_update": agents.HardUpdate(7), "double_q": True, "jit_compile": False}
    weights = []
    for multi_step in (None, agents.QLambda(num_steps=2, trace_lambda=0.0)):
        agent, loop = make(multi_step, **options)
        for _ in range(40):
            loop.step()
        assert loop.train_steps > 8
        weights.append(np.concatenate([v.numpy().ravel() for v in agent.q_network.variables]))
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-6)


def test_rows_that_begin_after_the_end_of_an_episode_do_not_count():
    agent, _ = make(agents.QLambda(num_steps=1))
    observation = tf.random.stateless_normal([4, 1, 4], [1, 2])
    steps = Transition(observation, tf.zeros([4, 1], tf.int64), tf.ones([4, 1]), tf.ones([4, 1]), observation)
    batch = as_experience(Sequences(steps, tf.ones([4, 1], tf.bool)))
    reset = batch._replace(step_type=tf.constant([[1, 1], [1, 1], [2, 0], [2, 0]]))
    half = tf.nest.map_structure(lambda leaf: leaf[:2], batch)
    np.testing.assert_allclose(agent.loss(reset).loss, agent.loss(half).loss, rtol=1e-6)
    with pytest.raises(ValueError, match="looks 1 steps ahead: trajectories need 2 rows, got 3"):
        agent.loss(tf.nest.map_structure(lambda leaf: tf.concat([leaf, leaf[:, :1]], 1), batch))


@pytest.mark.parametrize(("argument", "value"), [("num_steps", 0), ("trace_lambda", 1.5)])
def test_arguments_out_of_their_range_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"QLambda: {argument} must"):
        agents.QLambda(**{argument: value})
