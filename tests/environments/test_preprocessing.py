"""Actions that hold for several steps, and what policies' descriptions say of preprocessing. Atari's has a file."""

import contextlib

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import MaxAndSkipObservation

from ngrl import environments
from ngrl.environments import ActionRepeat, AtariPreprocessing


class Counting(gymnasium.Env):
    """Observes and rewards the number of its steps; ends after ten."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), float(self.count), self.count == 10, False, {}


@pytest.fixture
def counting():
    gymnasium.register("Counting-v0", Counting, max_episode_steps=50)
    yield "Counting-v0"
    del gymnasium.registry["Counting-v0"]


def test_an_action_holds_until_the_episode_ends_and_its_rewards_are_added_up(load, counting):
    env = load(counting, preprocessing=ActionRepeat(4))
    env.reset()
    steps = [env.step(np.zeros(1, int)) for _ in range(3)]
    assert [float(step.reward[0]) for step in steps] == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8, 9 + 10]
    assert [float(step.observation[0, 0]) for step in steps] == [4, 8, 10]
    assert [int(step.step_type[0]) for step in steps] == [1, 1, 2]
    assert float(steps[-1].discount[0]) == 0


def test_limits_are_in_the_agents_steps_outside_and_in_the_environments_within(load, counting):
    assert load(counting, preprocessing=ActionRepeat(4)).time_limit == 13  # 50 / 4, begun ones included
    env = load(counting, preprocessing=ActionRepeat(4), max_episode_steps=2)
    assert env.time_limit == 2
    env.reset()
    assert [int(env.step(np.zeros(1, int)).step_type[0]) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize(("preprocessing", "limit"), [(None, 60), (ActionRepeat(1), 50)])
def test_time_limit_of_training_above_the_environments_own_takes_its_place_but_for_preprocessing(
    counting, preprocessing, limit
):
    settings = environments.Environment(counting, 1, training_time_limit=60, preprocessing=preprocessing)
    with contextlib.closing(settings.load()) as env:
        assert env.time_limit == limit


def test_limit_within_a_wrapper_that_skips_frames_is_in_the_agents_steps(load, counting, monkeypatch):
    spec = EnvSpec("Skipping-v0", entry_point=lambda: MaxAndSkipObservation(gymnasium.make(counting), 3))
    monkeypatch.setitem(gymnasium.registry, "Skipping-v0", spec)
    assert load("Skipping-v0").time_limit == 17  # 50 / 3, begun ones included


def test_repeated_actions_are_restored_bit_for_bit(assert_restored):
    assert_restored("LunarLander-v3", preprocessing=ActionRepeat(3))


def test_a_policys_description_keeps_how_long_actions_hold():
    environment = environments.Environment("LunarLander-v3", preprocessing=ActionRepeat(3))
    assert environments.Environment.described(environment.describe()).preprocessing == ActionRepeat(3)
    assert environment.for_evaluation().preprocessing == ActionRepeat(3)


def test_a_description_of_before_preprocessing_had_names_is_of_ataris():
    description = {"env_id": "ALE/Pong-v5", "env_preprocessing": {"frame_skip": 2}}
    assert environments.Environment.described(description).preprocessing == AtariPreprocessing(frame_skip=2)


class Unnamed(ActionRepeat):
    """Has its parent's name alone."""


def test_what_a_policys_description_could_not_bring_back_is_refused(counting, monkeypatch):
    for settings, problem in (
        ({"kwargs": {"reward": abs}}, "Environment.kwargs: reward can't be written down in ngrl_policy.json"),
        ({"kwargs": {"names": {1: "a"}}}, "Environment.kwargs: names can't be written down"),
        ({"kwargs": {"limit": np.inf}}, "Environment.kwargs: limit can't be written down"),
        ({"preprocessing": Unnamed(2)}, "Unnamed needs a `name` of its own"),
    ):
        with pytest.raises(ValueError, match=problem):
            environments.Environment(counting, **settings).describe()
    monkeypatch.setattr(ActionRepeat, "describe", lambda self: {"name": self.name, "scale": abs})
    with pytest.raises(ValueError, match=r"Environment\.preprocessing: scale can't be written down"):
        environments.Environment(counting, preprocessing=ActionRepeat()).describe()
    kwargs = {"shape": (3, 4), "names": {"a": [1.5, None, True]}}
    assert environments.Environment(counting, kwargs=kwargs).describe()["env_kwargs"] == kwargs


def test_unknown_preprocessing_is_named():
    description = {"env_id": "CartPole-v1", "env_preprocessing": {"name": "blur"}}
    with pytest.raises(ValueError, match="preprocessing must be one of atari, action_repeat, got 'blur'"):
        environments.Environment.described(description)


def test_backends_without_repeated_actions_say_so(load):
    with pytest.raises(ValueError, match="preprocessing"):
        load("CartPole-v1", backend="compiled", preprocessing=ActionRepeat())
    pytest.importorskip("envpool")
    with pytest.raises(ValueError, match="envpool has no ActionRepeat"):
        load("CartPole-v1", backend="envpool", preprocessing=ActionRepeat())


def test_a_number_that_is_none_is_named():
    with pytest.raises(ValueError, match="ActionRepeat: times must be a positive integer, got 0"):
        ActionRepeat(0)
