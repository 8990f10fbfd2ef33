"""ACER's loop: what it trains on and how often, that it learns, what it says, and what stops it."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from run_contents import assert_identical, everything
from small_acer import TAGS, make, snapshot
from small_on_policy import load
from test_on_policy import Poisoned
from tf_agents.agents import tf_agent
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from ngrl import agents, loops, optimizers, training
from ngrl.loops import trajectory_replay
from ngrl.loops.compiled import Compiled
from ngrl.replay import BEHAVIOUR, Experience


class Recorder:
    """An agent that acts at random and keeps what it is given to train on."""

    experience = Experience.REPLAYED_TRAJECTORIES

    def __init__(self, time_step_spec, action_spec):
        self.batches = []
        told = {BEHAVIOUR: tensor_spec.TensorSpec([1], tf.float32)}
        self.collect_data_spec = trajectory.from_transition(
            time_step_spec, policy_step.PolicyStep(action_spec, (), told), time_step_spec
        )

    def zero_extra(self):
        return agents.AcerExtra(*[tf.zeros([])] * 11, optimizers.GradientStats(*[tf.zeros([])] * 3))

    def act(self, observation, seed):
        """Tells a number that no other call tells."""
        count = tf.shape(observation)[0]
        action = tf.random.stateless_uniform([count], seed, maxval=2, dtype=tf.int32)
        name = tf.random.stateless_uniform([count, 1], seed)
        return policy_step.PolicyStep(tf.cast(action, tf.int64), (), {BEHAVIOUR: name})

    def train(self, experience):
        def keep(names):
            self.batches.append(names.numpy()[:, :-1, 0])
            return np.float32(0)

        zero = tf.py_function(keep, [experience.policy_info[BEHAVIOUR]], tf.float32)
        zero.set_shape([])
        extra = tf.nest.map_structure(lambda leaf: leaf + zero, self.zero_extra())
        return tf_agent.LossInfo(zero, extra)


def recorded(num_rounds, **options):
    """For each round of collecting, the batches [3, 5] of names that were trained on."""
    environment, specs = load("ngrl/Identity-v0", num_envs=3)
    recorder = Recorder(*specs)
    defaults = {"num_steps": 5, "replay_capacity": 10_000, "warmup_steps": 0, "jit_compile": False}
    loop = loops.TrajectoryReplayLoop(recorder, environment, **{**defaults, **options})
    rounds = []
    for _ in range(num_rounds):
        recorder.batches = []
        for _ in range(5):
            loop.step()
        rounds.append(recorder.batches)
    return rounds, loop


# --- what is trained on, and how often


@pytest.mark.parametrize("replay_ratio", [0.4, 3.0])
def test_each_round_trains_on_the_fresh_rows_and_then_on_whole_trajectories_collected_before(replay_ratio):
    rounds, loop = recorded(40, replay_ratio=replay_ratio)
    seen, replayed = set(), set()
    for batches in rounds:
        fresh = {tuple(row) for row in batches[0]}
        assert len(fresh) == 3
        assert not fresh & seen
        seen |= fresh
        for batch in batches[1:]:
            assert {tuple(row) for row in batch} <= seen
            replayed |= {tuple(row) for row in batch}
    assert loop.train_steps == sum(len(batches) for batches in rounds)
    # More than one compiled call can hold, in some of the rounds.
    assert max(len(batches) - 1 for batches in rounds) > np.ceil(2 * replay_ratio) or replay_ratio == 3.0
    if replay_ratio == 3.0:
        assert len(replayed) > 60


def test_the_oldest_trajectories_make_room():
    rounds, _ = recorded(30, replay_ratio=5.0, replay_capacity=30)
    names = [[tuple(row) for row in batches[0]] for batches in rounds]
    for number, batches in enumerate(rounds):
        kept = {name for fresh in names[max(0, number - 1) : number + 1] for name in fresh}
        assert {tuple(row) for batch in batches[1:] for row in batch} <= kept


def test_number_of_replayed_updates_is_poisson():
    rounds, _ = recorded(400, replay_ratio=2.0)
    counts = np.array([len(batches) - 1 for batches in rounds])
    # Mean and variance are both 2; five standard errors of each.
    assert abs(counts.mean() - 2) < 5 * np.sqrt(2 / 400)
    assert abs(counts.var() - 2) < 5 * np.sqrt((2 + 2 * 2**2) / 400)


def test_a_round_is_one_compiled_call_unless_more_than_twice_the_ratio_are_drawn(monkeypatch):
    calls = []

    class Counting(Compiled):
        def __call__(self, *arguments):
            if len(arguments) == 3:  # batches, count, streak: not an action
                calls.append(int(arguments[1]))
            return super().__call__(*arguments)

    monkeypatch.setattr(trajectory_replay, "Compiled", Counting)
    rounds, _ = recorded(40, replay_ratio=1.0)
    expected = []
    for updates in map(len, rounds):
        expected += [3] * (updates // 3) + [updates % 3] * bool(updates % 3)
    assert calls == expected
    assert max(map(len, rounds)) > 3 > min(map(len, rounds))


def test_nothing_is_replayed_during_the_warm_up_nor_with_a_ratio_of_zero():
    rounds, _ = recorded(20, replay_ratio=5.0, warmup_steps=150)
    counts = [len(batches) for batches in rounds]
    assert counts[:9] == [1] * 9
    assert max(counts[10:]) > 3
    rounds, _ = recorded(5, replay_ratio=0.0)
    assert [len(batches) for batches in rounds] == [1] * 5


def test_draws_depend_on_the_seed():
    def flat(seed):
        return [batch.tolist() for batches in recorded(6, seed=seed)[0] for batch in batches]

    assert flat(1) == flat(1) != flat(2)


# --- learning


@pytest.mark.parametrize("jit_compile", [False, True])
def test_agent_learns_to_name_the_digit(jit_compile):
    agent, loop = make(num_envs=8, jit_compile=jit_compile)
    while loop.statistics.env_steps < 8_000:
        loop.step()
    right = np.diag(tf.nn.softmax(agent.actor_network.distribution_parameters(tf.eye(3))))
    assert right.min() > 0.85
    assert loop.statistics.average_return > 16  # of 20
    np.testing.assert_array_equal(agent.policy.action(ts.restart(tf.eye(3), 3)).action, [0, 1, 2])


def test_agent_learns_to_name_the_number():
    agent, loop = make("ngrl/IdentityBox-v0", num_envs=8)
    while loop.statistics.env_steps < 16_000:
        loop.step()
    numbers = tf.constant(np.linspace(-0.9, 0.9, 7)[:, None], tf.float32)
    named = agent.policy.action(ts.restart(numbers, 7)).action
    np.testing.assert_allclose(named, numbers, atol=0.2)
    assert loop.statistics.average_return > -2.0  # at the start about -20


# --- restoring


@pytest.mark.parametrize(
    ("env_id", "jit_compile"), [("CartPole-v1", True), ("CartPole-v1", False), ("Pendulum-v1", False)]
)
def test_training_restored_amid_a_trajectory_goes_on_bit_for_bit(tmp_path, env_id, jit_compile):
    def build():
        return make(env_id, agent_options={"hidden": (8,)}, jit_compile=jit_compile)

    agent, loop = build()
    for _ in range(68):
        loop.step()
    state = loop.state()
    assert state.values["row"] == 4
    assert loop.train_steps > 8
    training.CheckpointStore(tmp_path / "checkpoints", agent).save(1, state)
    again_agent, again = build()
    again.restore(training.CheckpointStore(tmp_path / "checkpoints", again_agent).restore_latest())
    for _ in range(60):
        assert loop.step() == again.step()
    whole, parts = everything(agent, loop, tmp_path / "whole"), everything(again_agent, again, tmp_path / "parts")
    for part in ("_average", "_critic", "_optimizer", "_critic_optimizer", "train_step", "replay/"):
        assert any(part in name for name in whole[0]), part
    assert_identical(whole, parts)


# --- what is said


@pytest.mark.parametrize("env_id", ["ngrl/Identity-v0", "ngrl/IdentityBox-v0"])
def test_every_promised_number_is_there_and_finite(env_id):
    _, loop = make(env_id)
    assert loop.scalars() == {"ngrl/skipped_updates": 0, "ngrl/replayed_trajectories": 0}
    while loop.train_steps < 20:
        loop.step()
    scalars = loop.scalars()
    assert scalars.keys() == TAGS
    assert np.isfinite(list(scalars.values())).all()
    assert 0 < scalars["ngrl/kl_to_average"] < 1
    assert 0.5 < scalars["ngrl/importance_ratio_mean"] < 2 < 20 * scalars["ngrl/importance_ratio_max"]
    assert scalars["ngrl/replayed_trajectories"] > 12


# --- faults


@pytest.fixture
def poisoned():
    """Makes agent and loop over environments that pay NaN at the steps asked for, in trajectories of 8 steps."""
    gymnasium.register("test/ReplayPoisoned-v0", entry_point=Poisoned)

    def build(bad_steps, **options):
        env_options = {"check_finite": False, "env_kwargs": {"bad_steps": bad_steps}}
        return make("test/ReplayPoisoned-v0", env_options=env_options, **options)

    yield build
    del gymnasium.registry["test/ReplayPoisoned-v0"]


def test_update_with_a_reward_that_is_not_finite_is_skipped_and_counted(poisoned):
    agent, loop = poisoned(bad_steps=[3], warmup_steps=10_000)
    before = snapshot(agent)
    for _ in range(8):
        loop.step()
    assert loop.skipped_updates == loop.scalars()["ngrl/skipped_updates"] == 1
    assert snapshot(agent) == before
    for _ in range(8):
        loop.step()
    assert loop.skipped_updates == 1
    assert snapshot(agent) != before


def test_updates_that_are_skipped_in_a_row_end_the_run_with_the_first_cause(poisoned):
    agent, loop = poisoned(bad_steps=range(8, 1000), warmup_steps=10_000, max_skipped_updates=3)
    for _ in range(8):
        loop.step()
    before = snapshot(agent)
    for _ in range(3 * 8):
        loop.check_streak()
        loop.step()
    with pytest.raises(loops.NonFiniteError, match=r"^3 updates .* its loss was not finite \(train step 2\)$"):
        loop.check_streak()
    assert snapshot(agent) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be a positive integer, got 0"),
        ({"replay_capacity": 31}, r"replay_capacity \(31\) is below num_steps · num_envs \(32\)"),
        ({"replay_capacity": 1_001}, r"replay_capacity \(1001\) must be a multiple of num_steps \(8\)"),
        ({"replay_ratio": -1.0}, "replay_ratio must be finite and not negative, got -1.0"),
        ({"replay_ratio": float("inf")}, "replay_ratio must be finite and not negative, got inf"),
        ({"warmup_steps": -1}, "warmup_steps must be an integer of at least 0, got -1"),
        ({"max_skipped_updates": 0}, "max_skipped_updates"),
    ],
)
def test_wrong_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
