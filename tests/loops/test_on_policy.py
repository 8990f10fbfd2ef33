"""The on-policy loop: what it collects, that it learns, what it says, and what stops it."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from small_on_policy import AGENTS, NATURAL_TAGS, PLAIN_TAGS, load, make, snapshot
from tf_agents.agents import tf_agent
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from ngrl import agents, loops, optimizers
from ngrl.optimizers import SkipCause
from ngrl.replay import Experience

FIRST, MID, LAST = 0, 1, 2


# --- what is collected


class Scripted(gymnasium.Env):
    """Observes (a number drawn at the reset, steps since, last action); ends after 3 steps, or is cut off after 5.

    Which of the two is drawn at the reset; the reward of a step is its number and its action's hundredth.
    """

    def __init__(self):
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Discrete(7)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._name, self._steps = int(self.np_random.integers(1_000_000)), 0
        return np.array([self._name, 0, -1], np.float32), {}

    def step(self, action):
        self._steps += 1
        terminated = self._name % 2 == 0 and self._steps == 3
        truncated = self._name % 2 == 1 and self._steps == 5
        observation = np.array([self._name, self._steps, action], np.float32)
        return observation, self._steps + 0.01 * action, terminated, truncated, {}


class Recorder:
    """An agent that acts at random and keeps what it is given to train on."""

    experience = Experience.TRAJECTORIES

    def __init__(self, time_step_spec, action_spec):
        self.batches = []
        self.collect_data_spec = trajectory.from_transition(
            time_step_spec, policy_step.PolicyStep(action_spec, (), ()), time_step_spec
        )

    def act(self, observation, seed):
        count = tf.shape(observation)[0]
        action = tf.random.stateless_uniform([count], seed, maxval=7, dtype=tf.int32)
        return policy_step.PolicyStep(tf.cast(action, tf.int64), (), ())

    def train(self, experience):
        leaves = tf.nest.flatten(experience)

        def keep(*arrays):
            self.batches.append(tf.nest.pack_sequence_as(experience, [array.numpy() for array in arrays]))
            return np.float32(0)

        zero = tf.py_function(keep, leaves, tf.float32)
        stats = optimizers.GradientStats(zero, zero, zero)
        return tf_agent.LossInfo(zero, agents.PolicyExtra(*[zero] * 9, optimizer=stats))


@pytest.fixture
def recorded():
    """Batches [3, 8 + 1] that a loop over the scripted environment gathered, one after another."""
    gymnasium.register("test/OnPolicyScripted-v0", entry_point=Scripted)
    try:
        environment, specs = load("test/OnPolicyScripted-v0", num_envs=3)
        recorder = Recorder(*specs)
        loop = loops.OnPolicyLoop(recorder, environment, batch_size=24, jit_compile=False)
        for _ in range(8 * 6):
            loop.step()
    finally:
        del gymnasium.registry["test/OnPolicyScripted-v0"]
    return recorder.batches, loop


def test_rows_of_an_environment_follow_one_another(recorded):
    batches, _ = recorded
    assert len(batches) == 6
    names = set()
    for batch in batches:
        assert batch.observation.shape == (3, 9, 3)
        for member in range(3):
            for t in range(8):
                name, step, _ = batch.observation[member, t]
                names.add(name)
                if batch.step_type[member, t] == LAST:
                    # The reset: the next row is another episode's beginning, and nothing was paid for it.
                    assert batch.observation[member, t + 1, 0] != name
                    np.testing.assert_array_equal(batch.observation[member, t + 1, 1:], [0, -1])
                    assert batch.next_step_type[member, t] == FIRST
                    assert batch.reward[member, t] == 0
                    continue
                action = batch.action[member, t]
                np.testing.assert_array_equal(batch.observation[member, t + 1], [name, step + 1, action])
                assert batch.reward[member, t] == pytest.approx(step + 1 + 0.01 * action)
                ends = step + 1 == (3 if name % 2 == 0 else 5)
                assert batch.next_step_type[member, t] == (LAST if ends else MID)
                assert batch.discount[member, t] == (0 if ends and name % 2 == 0 else 1)
                assert batch.step_type[member, t] == (FIRST if step == 0 else MID)
        np.testing.assert_array_equal(batch.step_type[:, 1:], batch.next_step_type[:, :-1])
    assert len(names) > 10


def test_each_batch_begins_where_the_one_before_ended(recorded):
    batches, _ = recorded
    for before, after in itertools.pairwise(batches):
        np.testing.assert_array_equal(before.observation[:, -1], after.observation[:, 0])
        np.testing.assert_array_equal(before.step_type[:, -1], after.step_type[:, 0])


def test_steps_and_episodes_are_counted_without_resets(recorded):
    batches, loop = recorded
    step_types = np.concatenate([batch.step_type[:, :-1] for batch in batches], axis=1)
    reached = np.concatenate([batch.next_step_type[:, :-1] for batch in batches], axis=1)
    assert loop.statistics.env_steps == (step_types != LAST).sum() < 3 * 48
    assert loop.statistics.episodes == (reached == LAST).sum() > 20
    assert loop.train_steps == 6


def test_finished_episodes_are_reported_with_return_and_length():
    _, loop = make()
    finished = [loop.step() for _ in range(42)]
    # 20 steps and a reset, twice.
    assert [len(episodes) for episodes in finished] == [4 * (number in (19, 40)) for number in range(42)]
    assert all(length == 20 and 0 <= value <= 20 for episodes in finished for value, length, _ in episodes)
    assert loop.statistics.env_steps == 160
    assert loop.train_steps == 2


# --- learning


@pytest.mark.parametrize(("kind", "jit_compile"), [*((kind, False) for kind in AGENTS), ("trpo", True)])
def test_agent_learns_to_name_the_digit(kind, jit_compile):
    agent, loop = make(kind, num_envs=8, batch_size=256, jit_compile=jit_compile)
    while loop.statistics.env_steps < 8_000:
        loop.step()
    right = np.diag(tf.nn.softmax(agent.actor_network.distribution_parameters(tf.eye(3))))
    assert right.min() > 0.85
    assert loop.statistics.average_return > 16  # of 20
    first = ts.restart(tf.eye(3), 3)
    np.testing.assert_array_equal(agent.policy.action(first).action, [0, 1, 2])


@pytest.mark.parametrize("kind", AGENTS)
def test_agent_learns_to_name_the_number(kind):
    agent, loop = make(kind, "ngrl/IdentityBox-v0", num_envs=8, batch_size=256)
    while loop.statistics.env_steps < 12_000:
        loop.step()
    numbers = tf.constant(np.linspace(-0.9, 0.9, 7)[:, None], tf.float32)
    named = agent.policy.action(ts.restart(numbers, 7)).action
    np.testing.assert_allclose(named, numbers, atol=0.15)
    assert loop.statistics.average_return > -1.0  # at the start about -20


# --- restoring


def test_state_is_a_snapshot_that_later_steps_leave_alone():
    _, loop = make()
    for _ in range(10):
        loop.step()
    state = loop.state()
    assert state.values["row"] == 10
    before = {name: array.copy() for name, array in state.arrays.items()}
    for _ in range(20):
        loop.step()
    for name, array in before.items():
        np.testing.assert_array_equal(state.arrays[name], array, err_msg=name)


def test_batch_begins_anew_where_the_environment_cannot_restore():
    pytest.importorskip("envpool")
    options = {"env_options": {"backend": "envpool"}, "env_id": "CartPole-v1"}
    (_, first), (_, second) = make(**options), make(**options)
    for _ in range(10):
        first.step()
    second.restore(first.state())
    assert second.state().values["row"] == 0
    for _ in range(16):
        second.step()
    assert second.train_steps == 1


# --- what is said


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("env_id", ["ngrl/Identity-v0", "ngrl/IdentityBox-v0"])
def test_every_promised_number_is_there_and_finite(kind, env_id):
    _, loop = make(kind, env_id)
    assert loop.scalars() == {"ngrl/skipped_updates": 0}
    while loop.train_steps < 2:
        loop.step()
    scalars = loop.scalars()
    promised = NATURAL_TAGS if kind in ("npg", "trpo") else PLAIN_TAGS
    assert promised | {"Losses/policy_loss", "Losses/critic_loss"} <= scalars.keys()
    unmeasured = {"ngrl/line_search_kl"} if kind == "npg" else set()  # there is no line search
    assert {tag for tag, value in scalars.items() if not math.isfinite(value)} <= unmeasured
    assert scalars["ngrl/surrogate_after"] > scalars["ngrl/surrogate_before"] == pytest.approx(0, abs=1e-5)
    assert 0 < scalars["ngrl/kl"] < 1
    assert {tag.split("/")[0] for tag in scalars} == {"ngrl", "Losses"}
    if kind == "trpo":
        assert scalars["ngrl/line_search_kl"] == pytest.approx(scalars["ngrl/kl"], rel=1e-3)
    if kind in ("npg", "trpo"):
        assert 0 < scalars["ngrl/reduction_ratio"] < 2


def test_normaliser_changes_at_updates_alone():
    agent, loop = make(env_id="CartPole-v1", agent_options={"normalise": True})
    moments = agent.actor_network.normaliser.moments
    for update in range(3):
        before = moments.mean.numpy()
        for _ in range(15):
            loop.step()
            np.testing.assert_array_equal(moments.mean, before)
        loop.step()
        assert loop.train_steps == update + 1
        assert (moments.mean.numpy() != before).any()


# --- faults


class Poisoned(gymnasium.Env):
    """Pays 1 a step, but NaN where the number of the step is among `bad_steps`; an episode never ends."""

    def __init__(self, bad_steps):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._bad_steps, self._steps = bad_steps, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action):
        self._steps += 1
        return self._draw(), math.nan if self._steps - 1 in self._bad_steps else 1.0, False, False, {}

    def _draw(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


@pytest.fixture
def poisoned():
    """Makes agent and loop over such environments, in batches of 8 steps each."""
    gymnasium.register("test/OnPolicyPoisoned-v0", entry_point=Poisoned)

    def build(kind, bad_steps, **options):
        env_options = {"check_finite": False, "env_kwargs": {"bad_steps": bad_steps}}
        return make(kind, "test/OnPolicyPoisoned-v0", batch_size=32, env_options=env_options, **options)

    yield build
    del gymnasium.registry["test/OnPolicyPoisoned-v0"]


@pytest.mark.parametrize("kind", AGENTS)
def test_updates_that_are_skipped_in_a_row_end_the_run_with_the_first_cause(kind, poisoned):
    agent, loop = poisoned(kind, bad_steps=range(8, 1000), max_skipped_updates=3)
    for _ in range(8):
        loop.step()
    assert loop.skipped_updates == 0
    before = snapshot(agent)
    for _ in range(3 * 8):
        loop.check_streak()
        loop.step()
    with pytest.raises(loops.NonFiniteError, match=r"^3 updates .* its loss was not finite \(train step 2\)$"):
        loop.check_streak()
    assert loop.train_steps == 4
    assert loop.skipped_updates >= 3
    assert snapshot(agent) == before
    assert loop.scalars()["ngrl/skipped_updates"] == loop.skipped_updates


def test_cause_of_a_streak_is_that_of_its_first_update_be_it_the_policys_or_the_critics():
    def info(policy=SkipCause.NONE, critic=SkipCause.NONE):
        stats = optimizers.GradientStats(0.0, float(policy > 0), float(policy))
        of_critic = {"critic_skipped": float(critic > 0), "critic_skip_cause": float(critic)}
        return tf_agent.LossInfo(0.0, agents.PolicyExtra(*[0.0] * 7, **of_critic, optimizer=stats))

    _, loop = make(max_skipped_updates=2)
    loop.train_steps = 2
    loop._count(info(critic=SkipCause.GRADIENT))
    loop._count(info(policy=SkipCause.LOSS))
    with pytest.raises(loops.NonFiniteError, match=r"its gradient was not finite \(train step 1\)$"):
        loop.check_streak()
    loop._count(info())
    loop.check_streak()
    assert loop.skipped_updates == 2


@pytest.mark.parametrize("kind", AGENTS)
def test_skipped_updates_with_others_in_between_are_counted_and_forgiven(kind, poisoned):
    agent, loop = poisoned(kind, bad_steps=[3, 20], max_skipped_updates=2)
    counts, changed = [], []
    for _ in range(4):
        before = snapshot(agent)
        for _ in range(8):
            loop.step()
        counts.append(loop.skipped_updates)
        changed.append(snapshot(agent) != before)
    assert changed == [False, True, False, True]
    assert 0 < counts[0] == counts[1] < counts[2] == counts[3]
    assert loop.train_steps == 4


@pytest.mark.parametrize(("batch_size", "num_envs"), [(64, 5), (3, 4)])
def test_number_of_environments_must_divide_the_batch(batch_size, num_envs):
    with pytest.raises(ValueError, match=rf"batch_size \({batch_size}\) .* multiple of num_envs \({num_envs}\)"):
        make(batch_size=batch_size, num_envs=num_envs)


def test_batch_size_must_be_positive():
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        make(batch_size=0)


def test_wrong_number_of_skipped_updates_is_named():
    with pytest.raises(ValueError, match="max_skipped_updates"):
        make(max_skipped_updates=0)
