"""A batch of steps of policy and environment in one call: the numbers of a loop that steps, and exact resume."""

import numpy as np
import pytest
import tensorflow as tf
from run_contents import assert_identical, everything, rows, variables
from small_acer import make as make_acer
from small_on_policy import build_agent, make
from small_runs import train

from ngrl import loops
from ngrl.environments import CompiledEnvironments, EnvironmentFault
from ngrl.environments.compiled.bridge import CompiledEnvironment

COMPILED = {"backend": "compiled"}


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_collects_what_a_loop_that_steps_collects(monkeypatch, env_id):
    """Rows, counts and episodes of six batches; both loops draw the same numbers, and round alike to 1e-5."""
    kept = {True: [], False: []}
    options = {
        "env_options": {**COMPILED, "max_episode_steps": 25},
        "agent_options": {"hidden": (8,), "normalise": True},
    }
    made = {}
    for at_once in (False, True):
        monkeypatch.setattr(CompiledEnvironment, "is_compiled", at_once)
        _, loop = made[at_once] = make("trpo", env_id, **options)
        train_on = loop._update

        def update(rows, train_on=train_on, at_once=at_once):
            kept[at_once].append(tf.nest.map_structure(np.array, rows))
            train_on(rows)

        monkeypatch.setattr(loop, "_update", update)
    finished, train_steps = ({at_once: [] for at_once in made} for _ in range(2))
    for at_once, count in ((False, 6 * 16), (True, 6)):
        loop = made[at_once][1]
        for _ in range(count):
            ended = loop.step()
            finished[at_once] += ended
            train_steps[at_once] += [loop.train_steps_at(episode.env_steps) for episode in ended]
    assert train_steps[True] == train_steps[False]
    for one, other in zip(*kept.values(), strict=True):
        for name in ("step_type", "observation"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)
        one, other = (tf.nest.map_structure(lambda leaf: leaf[:, :-1], batch) for batch in (one, other))
        tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)
    assert len(finished[True]) > 3
    np.testing.assert_allclose(finished[True], finished[False], rtol=1e-5)
    one, other = (loop.statistics.state() for _, loop in made.values())
    assert one.keys() == other.keys()
    assert one["lengths"] == other["lengths"]
    assert one["env_steps"] == other["env_steps"]


def test_restored_loop_goes_on_bit_for_bit(tmp_path):
    def loop(seed=0):
        return make("ppo", "CartPole-v1", seed=seed, env_options=COMPILED, agent_options={"normalise": True})

    (agent, first), (other_agent, second) = loop(), loop(seed=0)
    for _ in range(3):
        first.step()
    for mine, theirs in zip(other_agent.variables, agent.variables, strict=True):
        mine.assign(theirs)
    path = str(tmp_path / "checkpoint")
    tf.train.Checkpoint(agent=agent).write(path)
    tf.train.Checkpoint(agent=other_agent).read(path).expect_partial()
    second.restore(first.state())
    for _ in range(3):
        assert first.step() == second.step()
    assert_identical(everything(agent, first, tmp_path / "a"), everything(other_agent, second, tmp_path / "b"))


@pytest.mark.usefixtures("_live_policies")
def test_interrupted_run_leaves_what_an_uninterrupted_one_does(tmp_path):
    def run(name, num_env_steps):
        def agent(*specs, seed):
            return build_agent(*specs, seed=seed, kind="npg", normalise=True, scale_rewards=True)

        def loop(agent, environment, seed):
            return loops.OnPolicyLoop(agent, environment, seed, batch_size=64, jit_compile=False)

        options = {"num_envs": 4, "backend": CompiledEnvironments(), "log_every": 100, "episodes": 2}
        return train(tmp_path / name, "CartPole-v1", agent, loop, num_env_steps=num_env_steps, **options)

    whole = run("whole", 700)
    run("parts", 340)
    parts = run("parts", 700)
    assert_identical(variables(tmp_path / "whole"), variables(tmp_path / "parts"))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert whole["evaluation"]["returns"] == parts["evaluation"]["returns"]
    steps = [int(row["env_steps"]) for row in rows(tmp_path / "whole")]
    assert len(set(steps)) > 15  # each episode's own, not its batch's


def test_acer_takes_its_rows_at_once_too(tmp_path):
    _, loop = make_acer(env_id="CartPole-v1", env_options=COMPILED)
    for _ in range(4):
        loop.step()
    assert loop.statistics.env_steps > 2 * loop.train_steps
    assert loop.train_steps >= 4


def test_number_that_is_not_finite_is_named_and_nothing_is_trained():
    _, loop = make("npg", "ngrl/HoaglandToy-v0", env_options=COMPILED)
    state = loop._environment.state
    loop._environment._vector.state = state._replace(physics=state.physics + [[0], [0], [1e30], [0]])
    with pytest.raises(EnvironmentFault, match=r"HoaglandToy-v0, member 2: reward is not finite: -inf"):
        loop.step()
    assert loop.train_steps == 0
