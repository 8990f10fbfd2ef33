import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import agents, environments, loops, networks, optimizers
from ngrl.environments.toy import chain_q_values
from ngrl.loops import off_policy
from ngrl.replay import FrameReplayBuffer


def make(env_id="ngrl/Chain-v0", optimizer=None, num_envs=4, gamma=0.9, **options):
    environment = environments.load(env_id, num_envs=num_envs, seed=0)
    specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
    network = networks.QNetwork(specs[0].observation, int(specs[1].maximum) + 1, (), seed=0)
    optimizer = optimizer or optimizers.NaturalGradient(0.5, damping=1e-3)
    agent = agents.DqnAgent(*specs, network, optimizer, gamma=gamma)
    defaults = {"batch_size": 32, "replay_capacity": 2000, "warmup_steps": 200, "updates_per_call": 4}
    return agent, loops.OffPolicyLoop(agent, environment, **{**defaults, **options})


def test_natural_gradient_q_learning_finds_the_known_values_of_a_chain():
    agent, loop = make(epsilon=loops.LinearEpsilon(1.0, 1.0), jit_compile=False)
    while loop.statistics.env_steps < 1500:
        loop.step()
    values = agent.q_network(tf.eye(5))[0].numpy()
    np.testing.assert_allclose(values, chain_q_values(5, 0.9), atol=0.02)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.0])
def test_updates_keep_the_ratio_to_environment_steps(ratio):
    _, loop = make(updates_per_step=ratio, jit_compile=False)
    while loop.statistics.env_steps < 600:
        loop.step()
    assert loop.train_steps == pytest.approx(ratio * (loop.statistics.env_steps - 200), abs=8)


def test_no_update_happens_during_the_warm_up_and_all_actions_are_random():
    agent, loop = make(warmup_steps=400, jit_compile=False)
    before = [v.numpy() for v in agent.q_network.variables]
    while loop.statistics.env_steps < 396:
        assert loop.epsilon == 1.0
        loop.step()
    assert loop.train_steps == 0
    for old, new in zip(before, agent.q_network.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_reset_steps_are_no_transitions():
    """In the one-state chain every episode is one step long, so every second step is a reset."""
    environment = environments.load("ngrl/Chain-v0", num_envs=2, seed=0, env_kwargs={"num_states": 1})
    specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
    network = networks.QNetwork(specs[0].observation, 2, (), seed=0)
    agent = agents.DqnAgent(*specs, network, tf.keras.optimizers.Adam())
    loop = loops.OffPolicyLoop(agent, environment, warmup_steps=10_000, jit_compile=False)
    for _ in range(10):
        loop.step()
    assert loop.statistics.env_steps == loop.statistics.episodes == 10
    stored = loop._replay.sample(200)
    assert set(np.round(stored.reward, 3).tolist()) <= {0.5, 1.0}
    assert (stored.discount == 0).all()


def test_a_loop_on_stacked_frames_trains_as_on_whole_observations_and_resumes_bit_for_bit(monkeypatch):
    """Against the buffer that stores every stack whole; in between the loop is replaced by a restored one."""

    def loop(stores_frames):
        environment = environments.load("CartPole-v1", num_envs=3, seed=0, frame_stack=3)
        specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
        network = networks.QNetwork(specs[0].observation, 2, (8,), seed=0)
        agent = agents.DqnAgent(*specs, network, tf.keras.optimizers.SGD(0.1))
        with monkeypatch.context() as patched:
            if not stores_frames:
                patched.setattr(off_policy, "FrameReplayBuffer", lambda make, example, *_: make(example))
            made = loops.OffPolicyLoop(agent, environment, 0, 16, 100, 30, jit_compile=False)
        assert isinstance(made.replay, FrameReplayBuffer) == stores_frames
        return agent, made

    def weights(agent):
        return np.concatenate([weight.numpy().ravel() for weight in agent.q_network.trainable_weights])

    (agent, frames), (slow, whole) = loop(True), loop(False)
    for _ in range(80):
        frames.step(), whole.step()
    np.testing.assert_array_equal(weights(agent), weights(slow))
    assert frames.train_steps > 100
    other, resumed = loop(True)
    resumed.restore(frames.state())
    for mine, weight in zip(other.q_network.weights, agent.q_network.weights, strict=True):
        mine.assign(weight)
    for _ in range(20):
        resumed.step(), whole.step()
    np.testing.assert_array_equal(weights(other), weights(slow))


def test_episodes_that_an_environment_cannot_restore_do_not_count():
    """Envpool can't replay: after a restore its members play new episodes, whose returns must start at 0."""
    pytest.importorskip("envpool")

    def loop():
        environment = environments.load("CartPole-v1", num_envs=4, seed=0, backend="envpool")
        specs = [tensor_spec.from_spec(spec()) for spec in (environment.time_step_spec, environment.action_spec)]
        network = networks.QNetwork(specs[0].observation, 2, (), seed=0)
        agent = agents.DqnAgent(*specs, network, tf.keras.optimizers.Adam())
        settings = {"batch_size": 4, "warmup_steps": 4, "updates_per_call": 1, "jit_compile": False}
        return loops.OffPolicyLoop(agent, environment, **settings)

    first, second = loop(), loop()
    for _ in range(6):
        first.step()
    state = first.state()
    assert "actions" in state.arrays  # for observations of episodes that are over
    second.restore(state)
    assert "actions" not in second.state().arrays
    finished, steps = [], 0
    while not finished:
        finished, steps = second.step(), steps + 1
    assert max(length for _, length, _ in finished) <= steps
    assert all(episode_return == length for episode_return, length, _ in finished)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="batch_size"):
        make(batch_size=0)
    with pytest.raises(ValueError, match=r"^epsilon is called as epsilon\(env_steps, episodes\), and .* can't be: "):
        make(epsilon=lambda env_steps: 0.1)
    with pytest.raises(ValueError, match="max_skipped_updates"):
        make(max_skipped_updates=0)
    with pytest.raises(ValueError, match="replay_capacity"):
        make(batch_size=32, replay_capacity=16)
    with pytest.raises(ValueError, match=r"^replay_capacity \(3\) is below num_envs \(4\)$"):
        make(batch_size=2, replay_capacity=3)
