"""Collecting, storing, sampling and updating in one call: the numbers of an obvious loop, and exact resume."""

import numpy as np
import pytest
import tensorflow as tf
from run_contents import assert_identical, everything, rows, variables
from small_runs import train
from tf_agents.specs import tensor_spec

from ngrl import agents, environments, loops, networks, optimizers, replay, seeding
from ngrl.environments import CompiledEnvironments, EnvironmentFault
from ngrl.loops.loop import NonFiniteError
from ngrl.loops.off_policy import as_experience
from ngrl.seeding import Stream

N, BATCH, CAPACITY, WARMUP = 3, 4, 50, 20


def make_agent(*specs, seed=0, natural=False, num_steps=None, **options):
    network = networks.QNetwork(specs[0].observation, 2, (5,), seed=seed)
    optimizer = optimizers.NaturalGradient(0.5, damping=1.0) if natural else tf.keras.optimizers.SGD(0.1)
    multi_step = num_steps and agents.QLambda(num_steps, 0.8)
    return agents.DqnAgent(*specs, network, optimizer, multi_step=multi_step, **options)


def make(agent_options=None, seed=0, **options):
    environment = environments.load("CartPole-v1", N, seed=seed, backend="compiled", max_episode_steps=12)
    specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
    agent = make_agent(*specs, **(agent_options or {}))
    options = {"steps_per_call": 8, "epsilon": loops.ExponentialEpsilon(0.9, 0.1, 0.9), **options}
    settings = {"updates_per_step": 0.7, "updates_per_call": 2, "jit_compile": False, **options}
    return agent, loops.OffPolicyLoop(agent, environment, seed, BATCH, CAPACITY, WARMUP, **settings)


def obvious_loop(num_rounds, num_steps, jit_compile):
    """The same steps one at a time, with a list for a replay; weights, episodes with their train steps, transitions.

    XLA draws other numbers from a seed than TensorFlow where their count is no multiple of four.
    """
    agent, loop = make({"num_steps": num_steps})
    act = tf.function(agent.act, jit_compile=jit_compile, autograph=False)
    environment, actions_key, replay_key = (
        loop._environment,
        *(seeding.key(0, stream) for stream in (Stream.ACTIONS, Stream.REPLAY)),
    )
    observation, step_type = loop._observation, loop._step_type
    stored, episodes, returns, env_steps, train_steps, draws = [], [], np.zeros(N), 0, 0, 0
    for _ in range(num_rounds):
        epsilon = 1.0 if env_steps < WARMUP else max(0.1, 0.9 * 0.9 ** len(episodes))
        action = act(observation, seeding.at(actions_key, draws + 1), tf.constant(epsilon, tf.float32)).action.numpy()
        before, was = observation, step_type
        observation, reward, discount, step_type = environment.step_arrays(action)
        ended = []
        for member in np.flatnonzero(was != 2):
            env_steps += 1
            returns[member] += reward[member]
            items = (before[member], action[member], reward[member], discount[member], observation[member])
            stored.append((member, step_type[member] == 2, replay.Transition(*items)))
            if step_type[member] == 2:
                ended.append(returns[member])
                returns[member] = 0
        calls = 0
        while env_steps >= WARMUP and 0.7 * (env_steps - WARMUP) - train_steps >= 2:
            seed = seeding.at(replay_key, train_steps)
            options = {"maxval": min(len(stored), CAPACITY), "dtype": tf.int32, "alg": seeding.GENERATOR}
            for numbers in tf.random.stateless_uniform((2, BATCH), seed, **options).numpy():
                agent.train(as_experience(minibatch(stored, numbers, num_steps)))
            calls, train_steps = calls + 1, train_steps + 2
        draws += max(calls, 1)
        episodes += [(episode_return, env_steps, train_steps) for episode_return in ended]
    return agent, episodes, stored, draws


def minibatch(stored, numbers, num_steps):
    """The transitions in these slots of a ring; with `num_steps`, each with those that followed it."""
    first = [max(p for p in range(len(stored)) if p % CAPACITY == number) for number in numbers]
    if not num_steps:
        return tf.nest.map_structure(tf.constant, stack([stored[place][2] for place in first]))
    sequences, valid = [], np.zeros((BATCH, num_steps), bool)
    for row, place in enumerate(first):
        member, ended, transition = stored[place]
        later = [(over, item) for who, over, item in stored[place + 1 :] if who == member]
        sequence = [transition]
        while len(sequence) < num_steps and not ended and len(later) >= len(sequence):
            ended, item = later[len(sequence) - 1]
            sequence.append(item)
        valid[row, : len(sequence)] = True
        sequences.append(stack([*sequence, *[sequence[-1]] * (num_steps - len(sequence))]))
    return tf.nest.map_structure(tf.constant, replay.Sequences(stack(sequences), valid))


def stack(items):
    return tf.nest.map_structure(lambda *leaves: np.stack(leaves), *items)


@pytest.mark.parametrize(("num_steps", "jit_compile"), [(None, True), (3, False)])
def test_one_call_does_what_an_obvious_loop_does(num_steps, jit_compile):
    agent, loop = make({"num_steps": num_steps}, jit_compile=jit_compile)
    finished = []
    for _ in range(5):
        finished += [(*episode, loop.train_steps_at(episode.env_steps)) for episode in loop.step()]
    reference, episodes, stored, draws = obvious_loop(5 * 8, num_steps, jit_compile)
    assert loop.statistics.env_steps == len(stored) > CAPACITY
    assert [(episode_return, *counts) for episode_return, _, *counts in finished] == episodes
    assert len(episodes) > 5
    assert len({train_steps for *_, train_steps in episodes}) > 3
    assert loop.train_steps == 2 * (int(0.7 * (len(stored) - WARMUP)) // 2) > 40
    assert loop.state().values["calls"] == draws
    for one, other in zip(agent.q_network.variables, reference.q_network.variables, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    arrays, values = loop.replay.state()
    kept = [max(p for p in range(len(stored)) if p % CAPACITY == slot) for slot in range(CAPACITY)]
    assert values == {"cursor": len(stored) % CAPACITY, "size": CAPACITY}
    for index, leaf in enumerate(stack([stored[place][2] for place in kept])):
        np.testing.assert_allclose(arrays[f"leaf_{index}"], leaf, rtol=1e-5, atol=1e-6)


def test_replay_keeps_the_slots_and_links_of_the_buffers_in_numpy():
    """Members rest at random, and the ring is overwritten twice."""
    example = replay.Transition(np.float32(0), np.int64(0), np.float32(0), np.float32(0), np.float32(0))
    compiled = replay.CompiledReplayBuffer(example, 7, N, 0, 3)
    slow = replay.SequenceReplayBuffer(example, 7, N, 3)
    random = seeding.generator(0, Stream.POINTS)
    for number in range(12):
        moved, is_first = random.random(N) < 0.7, random.random(N) < 0.3
        values = np.float32(10 * number + np.arange(N))
        items = replay.Transition(values, np.int64(values), values, values, values)
        compiled.add_steps(items, tf.constant(moved), tf.constant(is_first))
        slow.add_steps(tf.nest.map_structure(lambda leaf: leaf[moved], items), np.flatnonzero(moved), is_first[moved])  # noqa: B023
        (arrays, values), (slow_arrays, slow_values) = compiled.state(), slow.state()
        assert values == {name: slow_values[name] for name in values}
        for name in slow_arrays:
            np.testing.assert_array_equal(arrays[name], slow_arrays[name], err_msg=name)
    drawn = compiled.draw(5, 500)
    _, counts = np.unique(drawn.transitions.reward[:, 0], return_counts=True)
    assert len(counts) == 7
    assert counts.min() > 40  # of 71


def test_restored_loop_goes_on_bit_for_bit_however_many_steps_a_call_takes(tmp_path):
    options = {"natural": True, "num_steps": 3}
    (agent, first), (other_agent, second) = make(options), make(options, steps_per_call=4)
    for _ in range(3):
        first.step()
    tf.train.Checkpoint(agent=agent).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(agent=other_agent).read(str(tmp_path / "checkpoint"))
    second.restore(first.state())
    finished = first.step()
    assert finished == second.step() + second.step()
    assert_identical(everything(agent, first, tmp_path / "a"), everything(other_agent, second, tmp_path / "b"))


@pytest.mark.usefixtures("_live_policies")
def test_interrupted_run_leaves_what_an_uninterrupted_one_does(tmp_path):
    def run(name, num_env_steps):
        def loop(agent, environment, seed):
            settings = {"updates_per_call": 2, "steps_per_call": 16, "jit_compile": False}
            return loops.OffPolicyLoop(agent, environment, seed, BATCH, 200, 50, **settings)

        options = {"num_envs": N, "backend": CompiledEnvironments(), "log_every": 100, "episodes": 0}
        return train(tmp_path / name, "CartPole-v1", make_agent, loop, num_env_steps=num_env_steps, **options)

    whole = run("whole", 500)
    run("parts", 240)
    parts = run("parts", 500)
    assert_identical(variables(tmp_path / "whole"), variables(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert whole["train_steps"] == parts["train_steps"] > 400
    assert 500 <= whole["env_steps"] < 500 + 16 * N


def test_number_that_is_not_finite_is_named_and_nothing_is_trained():
    agent, loop = make()
    while loop.train_steps < 10:
        loop.step()
    before, train_steps = [variable.numpy() for variable in agent.q_network.variables], loop.train_steps
    state = loop._environment.state
    loop._environment._vector.state = state._replace(physics=state.physics + [[0.0] * 4, [np.nan] * 4, [0.0] * 4])
    with pytest.raises(EnvironmentFault, match=r"CartPole-v1, member 1: observation is not finite: \[nan"):
        loop.step()
    assert loop.train_steps == train_steps
    for old, new in zip(before, agent.q_network.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_it_stops_at_the_update_that_is_one_too_many():
    agent, loop = make({"reward_scale": 1e38}, max_skipped_updates=6, steps_per_call=100)
    loop.step()
    with pytest.raises(NonFiniteError, match=r"^6 updates in a row were skipped; .* \(train step 1\)$"):
        loop.check_streak()
    assert loop.train_steps == loop.skipped_updates == 6
    assert loop.statistics.env_steps < WARMUP + 6 / 0.7 + 2 * N
    assert agent.train_step_counter == 6


def test_schedules_of_epsilon_are_the_same_in_graphs():
    per_step = loops.ExponentialEpsilon(0.9, 0.1, 0.99, per="step")
    for schedule in (loops.LinearEpsilon(1.0, 0.1, 70), loops.ExponentialEpsilon(0.9, 0.1, 0.9), per_step):
        for env_steps, episodes in ((0, 0), (35, 3), (200, 100)):
            inside = schedule.in_graph(tf.constant(env_steps, tf.int64), tf.constant(episodes, tf.int64))
            assert float(inside) == pytest.approx(schedule(env_steps, episodes), rel=1e-14)


def test_schedule_that_compiled_environments_cannot_take_is_refused_in_a_line():
    with pytest.raises(ValueError, match=r"^function has no in_graph\(.*@SyncEnvironments\(\) needs none$"):
        make(epsilon=lambda env_steps, episodes: 0.1)
