"""An episode that is lost with the process that played it is cut where it was left; nothing else is learned of it."""

import dataclasses

import numpy as np
import pytest
import small_on_policy
import tensorflow as tf
from tf_agents.specs import tensor_spec

from ngrl import agents, loops, networks, training
from ngrl.environments import Backend, Environment, Transition
from ngrl.environments.making import MemberMaker
from ngrl.environments.vector import SyncVector

FIRST, MID, LAST = range(3)
AT, LOST = 6, 1  # in which step a member's episode is lost


class Losing(SyncVector):
    """Loses an episode of a member in step AT, and begins the next one."""

    steps = 0

    def step(self, actions):
        self.steps += 1
        observation, reward, terminated, truncated, _ = super().step(actions)
        if self.steps != AT:
            return Transition(observation, reward, terminated, truncated)
        self.warn("lost one")
        lost = np.arange(self.num_envs) == LOST
        observation = observation.copy()
        observation[LOST], _ = self._vector.envs[LOST].reset()
        return Transition(observation, np.where(lost, 0.0, reward), terminated & ~lost, truncated & ~lost, lost)


@dataclasses.dataclass(frozen=True)
class LosingEnvironments(Backend):
    def make(self, env_id, num_envs, seed, kwargs, stream):
        return Losing(MemberMaker(env_id, seed, kwargs, stream), range(num_envs))


SETTINGS = Environment("CartPole-v1", 3, backend=LosingEnvironments())


def with_specs():
    environment = SETTINGS.load(seed=0)
    return environment, [tensor_spec.from_spec(s()) for s in (environment.time_step_spec, environment.action_spec)]


def test_bridge_shows_the_first_step_of_the_next_episode(capsys):
    environment, _ = with_specs()
    steps = [environment.reset_arrays(), *(environment.step_arrays(np.zeros(3, np.int64)) for _ in range(AT + 1))]
    types = np.array([step.step_type for step in steps])
    assert types[:, LOST].tolist() == [FIRST, *[MID] * (AT - 1), FIRST, MID]
    # 0.05 at most, where a pole that is pushed for so long has fallen far.
    assert np.abs(steps[AT].observation[LOST]).max() < 0.05 < np.abs(steps[AT - 1].observation[LOST]).max()
    assert (steps[AT].reward[LOST], steps[AT].discount[LOST]) == (0.0, 1.0)
    assert environment.get_state()["length"][LOST] == 1
    assert environment.get_state()["episode"][LOST] == 1
    assert capsys.readouterr().err == "warning: lost one\n"


@pytest.mark.parametrize("batch_size", [3 * (AT + 4), 3 * (AT - 1)])
def test_lost_episode_is_truncated_in_an_on_policy_batch(monkeypatch, batch_size):
    """In the middle of a batch, or between two."""
    environment, specs = with_specs()
    agent = small_on_policy.build_agent(*specs, seed=0, kind="reinforce")
    loop = loops.OnPolicyLoop(agent, environment, batch_size=batch_size, jit_compile=False)
    batches = []
    monkeypatch.setattr(loop, "_update", lambda rows: batches.append(tf.nest.map_structure(np.copy, rows)))
    finished = []
    while len(batches) < 2:
        finished += loop.step()
    steps = batch_size // 3
    lost_in, row = divmod(AT - 1, steps)
    batch = batches[lost_in]
    assert batch.step_type[LOST, row] == LAST
    assert batch.step_type[LOST, row + 1] == FIRST
    if row:
        assert batch.next_step_type[LOST, row - 1] == LAST
        assert batch.discount[LOST, row - 1] == 1
        assert batch.reward[LOST, row - 1] == 1
    for rows in batches:
        np.testing.assert_array_equal(rows.step_type[:, 1:], rows.next_step_type[:, :-1])
        # Within an episode the position moves with the velocity of before, in steps of 20 ms.
        inside = rows.step_type[:, :-1] != LAST
        x, velocity = (rows.observation[..., i] for i in (0, 1))
        np.testing.assert_allclose((x[:, 1:] - x[:, :-1] - 0.02 * velocity[:, :-1])[inside], 0, atol=1e-6)
    # In CartPole a step is worth 1. The lost episode counts for nothing, nor does the step in which it was lost.
    assert all(episode.episode_return == episode.length for episode in finished)
    counted = sum(episode.length for episode in finished) + sum(loop.statistics.state()["lengths"])
    assert counted == loop.statistics.env_steps - (AT - 1)
    resets = sum(int((rows.step_type[:, :-1] == LAST).sum()) for rows in batches)
    assert loop.statistics.env_steps == 2 * batch_size - resets
    assert loop.statistics.episodes == resets - 1 + int((batches[1].step_type[:, -1] == LAST).sum())


@pytest.mark.parametrize("multi_step", [None, agents.QLambda(num_steps=3)])
def test_replay_holds_no_step_out_of_a_lost_episode_into_another(multi_step):
    environment, specs = with_specs()
    network = networks.QNetwork(specs[0].observation, 2, (), seed=0)
    agent = agents.DqnAgent(*specs, network, tf.keras.optimizers.Adam(), multi_step=multi_step)
    loop = loops.OffPolicyLoop(agent, environment, warmup_steps=10_000, jit_compile=False)
    for _ in range(AT + 10):
        loop.step()
    drawn = loop.replay.sample(2000)
    stored = drawn if multi_step is None else drawn.transitions
    x, velocity = (stored.observation[..., i] for i in (0, 1))
    np.testing.assert_allclose(stored.next_observation[..., 0] - x - 0.02 * velocity, 0, atol=1e-6)
    if multi_step is not None:
        follows = drawn.valid[:, 1:]
        reached, left = stored.next_observation[:, :-1], stored.observation[:, 1:]
        np.testing.assert_array_equal(reached[follows], left[follows])
    assert loop.statistics.env_steps == 3 * (AT + 10) - 1 - loop.statistics.episodes


def test_evaluation_plays_another_episode_for_one_that_was_lost():
    said = []
    result = training.evaluate(lambda step: np.ones(3, np.int64), SETTINGS, 6, num_envs=3, warn=said.append)
    assert said == ["lost one"]
    assert result.returns == result.lengths
    assert len(result.lengths) == 6
