"""Whole on-policy runs, in miniature: resumed, repeated, exported, refused."""

import functools
import json
import math

import gin
import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from run_contents import assert_identical, everything
from small_on_policy import NATURAL_TAGS, build_agent, make
from small_runs import train
from tensorboard.backend.event_processing import event_accumulator
from tf_agents.trajectories import time_step as ts

from ngrl import configuration, loops, training
from ngrl.training import RunContext, configurables

small_loop = functools.partial(loops.OnPolicyLoop, batch_size=96, jit_compile=False)
#: An agent with everything that has a state.
STATEFUL = {"hidden": (8,), "normalise": True, "scale_rewards": True, "tau": 0.3}


def test_batch_that_is_shorter_than_what_is_done_of_it_is_refused():
    _, loop = make("reinforce", "CartPole-v1", batch_size=96, agent_options=STATEFUL)
    for _ in range(16):
        loop.step()
    _, shorter = make("reinforce", "CartPole-v1", batch_size=64, agent_options=STATEFUL)
    with pytest.raises(ValueError, match="16 steps of a batch are done, and a batch of 16 is asked for"):
        shorter.restore(loop.state())


@pytest.mark.parametrize(
    ("kind", "env_id", "jit_compile"),
    [
        ("reinforce", "CartPole-v1", False),
        ("npg", "Pendulum-v1", False),
        ("trpo", "CartPole-v1", True),
        ("ppo", "Pendulum-v1", False),
    ],
)
def test_training_restored_amid_a_batch_goes_on_bit_for_bit(tmp_path, kind, env_id, jit_compile):
    def build():
        return make(kind, env_id, batch_size=96, agent_options=STATEFUL, jit_compile=jit_compile)

    agent, loop = build()
    for _ in range(60):
        loop.step()
    assert loop.train_steps == 2
    state = loop.state()
    assert state.values["row"] == 12
    training.CheckpointStore(tmp_path / "checkpoints", agent).save(1, state)
    again_agent, again = build()
    again.restore(training.CheckpointStore(tmp_path / "checkpoints", again_agent).restore_latest())
    for _ in range(60):
        assert loop.step() == again.step()
    whole, parts = everything(agent, loop, tmp_path / "whole"), everything(again_agent, again, tmp_path / "parts")
    for part in ("normaliser", "_reward_normaliser", "_critic", "_update", "_average", "train_step"):
        assert any(part in name for name in whole[0]), part
    assert_identical(whole, parts)


def test_same_seed_repeats_the_training_and_another_seed_does_not(tmp_path):
    """Every agent's, in two processes: `test_kills.py`."""

    def trained(name, seed):
        agent, loop = make("trpo", "CartPole-v1", seed=seed, agent_options=STATEFUL)
        finished = [loop.step() for _ in range(50)]
        return finished, everything(agent, loop, tmp_path / name)

    (first, one), (second, other), (third, _) = (trained(name, seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert first == second != third
    assert_identical(one, other)


def test_numbers_reach_tensorboard_and_the_policy_leaves_with_its_normaliser(tmp_path):
    built = []

    def build(*specs, seed):
        built.append(build_agent(*specs, seed=seed, kind="trpo", hidden=(8,), normalise=True))
        return built[-1]

    options = {"num_envs": 4, "log_every": 100, "episodes": 1}
    final = train(tmp_path, "Pendulum-v1", build, small_loop, num_env_steps=300, **options)
    assert final["train_steps"] == 3
    assert final["skipped_updates"] == 0
    events = event_accumulator.EventAccumulator(str(tmp_path / "train"), {"tensors": 0})
    events.Reload()
    assert not NATURAL_TAGS - set(events.Tags()["tensors"])
    mean = built[0].actor_network.normaliser.moments.mean
    assert np.abs(mean).max() > 0.01
    actor, _ = training.load_policy(tmp_path / "policy")
    observation = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    step = ts.TimeStep(np.ones(20, np.int32), np.zeros(20, np.float32), np.ones(20, np.float32), observation)
    live = built[0].policy.action(tf.nest.map_structure(tf.constant, step)).action
    np.testing.assert_allclose(actor(step), live, rtol=1e-5, atol=1e-6)
    mean.assign(mean + 1.0)  # else the comparison would not see the moments
    assert not np.allclose(built[0].policy.action(tf.nest.map_structure(tf.constant, step)).action, live, atol=1e-4)


@pytest.mark.parametrize(
    ("gin_file", "binding", "message"),
    [
        ("dqn_cartpole_v1", "Environment.env_id = 'Pendulum-v1'", "DqnAgent needs one discrete action"),
        ("trpo_cartpole_v1", "ActorNetwork.std = 'state_dependent'", "the environment's are discrete"),
        ("trpo_cartpole_v1", "ActorNetwork.initial_log_std = -1.0", "the environment's are discrete"),
        ("npg_pendulum", "policy_agent.update = @LineSearchedUpdate", "line_search=BacktrackingLineSearch()"),
        ("npg_pendulum", "policy_agent.update = @ClippedUpdate", "its optimizer is NaturalGradient"),
        ("ppo_pendulum", "policy_agent.update = @NaturalUpdate", "NaturalUpdate needs NaturalGradient"),
        ("trpo_pendulum", "Environment.num_envs = 7", "multiple of num_envs (7)"),
        ("trpo_cartpole_v1", "run.loop = @OffPolicyLoop", "run.loop = @OnPolicyLoop is for it"),
        ("dqn_cartpole_v1", "run.loop = @OnPolicyLoop", "run.loop = @OffPolicyLoop is for it"),
        ("trpo_cartpole_v1", "run.loop = @TrajectoryReplayLoop", "run.loop = @OnPolicyLoop is for it"),
        ("acer_cartpole_v1", "run.loop = @OnPolicyLoop", "run.loop = @TrajectoryReplayLoop is for it"),
        ("acer_cartpole_v1", "run.loop = @OffPolicyLoop", "run.loop = @TrajectoryReplayLoop is for it"),
        ("acer_cartpole_v1", "acer_agent.q_network = @StochasticDuelingNetwork", "is for continuous actions"),
        ("acer_pendulum", "acer_agent.dueling_network = @QNetwork", "QNetwork is for discrete actions"),
        (
            "acer_pendulum",
            "acer_agent.optimizer = @NaturalGradient()",
            "follows a plain gradient, its optimizer is NaturalGradient",
        ),
        ("acer_cartpole_v1", "TrajectoryReplayLoop.replay_capacity = 100", "replay_capacity (100) is below"),
    ],
)
def test_settings_that_do_not_fit_are_one_line_and_write_nothing(tmp_path, gin_file, binding, message):
    try:
        configuration.parse([f"gin/{gin_file}.gin"], [binding])
        with pytest.raises(ValueError) as refused:
            configurables.run(RunContext(tmp_path / "run"))
    finally:
        gin.clear_config()
    assert message in str(refused.value).splitlines()[0]
    assert not list(tmp_path.iterdir())


class Priceless(gymnasium.Env):
    """Its rewards are no numbers."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), math.nan, False, False, {}


@pytest.mark.parametrize("overlaps", [False, True])
def test_run_that_diverges_with_its_last_batch_has_diverged(tmp_path, overlaps):
    gymnasium.register("Priceless-v0", Priceless, max_episode_steps=1000)
    agent = functools.partial(build_agent, kind="reinforce")
    options = {"batch_size": 16, "max_skipped_updates": 3, "jit_compile": False, "overlap_critic": overlaps}
    loop = functools.partial(loops.OnPolicyLoop, **options)
    settings = {"num_envs": 2, "check_finite": False, "episodes": 0}
    try:
        with pytest.raises(loops.NonFiniteError, match=r"^3 updates in a row were skipped; .*\(train step 1\)$"):
            train(tmp_path / "run", "Priceless-v0", agent, loop, num_env_steps=48, **settings)
    finally:
        del gymnasium.registry["Priceless-v0"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "diverged"
