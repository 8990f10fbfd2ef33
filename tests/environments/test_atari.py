"""Atari's screens as gymnasium's wrapper and envpool give them, and that episodes are restored."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing as Wrapper
from gymnasium.wrappers import FrameStackObservation

from ngrl import environments
from ngrl.environments import AtariPreprocessing
from ngrl.environments.member import episode_seed

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("cv2")

GAME = "ALE/Breakout-v5"
SMALL = AtariPreprocessing(noop_max=5, screen_size=20)


def test_envpool_is_told_what_gymnasiums_games_do_and_never_to_begin_without_a_step():
    asked = AtariPreprocessing(noop_max=1).for_envpool()
    assert (asked["repeat_action_probability"], asked["use_fire_reset"]) == (0.25, False)
    spec = gymnasium.spec("ALE/Breakout-v5")
    assert spec.kwargs["repeat_action_probability"] == asked["repeat_action_probability"]
    with pytest.raises(ValueError, match="set noop_max to 1, or take another backend"):
        AtariPreprocessing(noop_max=0).for_envpool()


def test_observations_are_those_of_gymnasiums_wrappers(load):
    env = load(GAME, seed=3, preprocessing=SMALL, frame_stack=2)
    assert (env.observation_spec().shape, env.observation_spec().dtype) == ((2, 20, 20), np.uint8)
    gymnasium.register_envs(ale_py)
    plain = FrameStackObservation(Wrapper(gymnasium.make(GAME, frameskip=1), 5, screen_size=20), 2)
    expected, _ = plain.reset(seed=episode_seed(3, 0, 0))
    np.testing.assert_array_equal(env.reset().observation[0], expected)
    for action in [1, 2, 3, 0] * 3:
        expected, reward, *_ = plain.step(action)
        step = env.step(np.array([action]))
        np.testing.assert_array_equal(step.observation[0], expected)
        assert step.reward[0] == reward
    plain.close()


def test_an_episode_is_restored_bit_for_bit(assert_restored):
    assert_restored(GAME, preprocessing=SMALL, frame_stack=2)


@pytest.mark.parametrize("backend", ["sync", "envpool"])
@pytest.mark.parametrize(("grayscale", "shape"), [(True, (20, 20)), (False, (20, 20, 3))])
def test_backends_give_images_of_one_shape(load, backend, grayscale, shape):
    if backend == "envpool":
        pytest.importorskip("envpool")
    env = load("ALE/Pong-v5", 2, backend=backend, preprocessing=dataclasses.replace(SMALL, grayscale=grayscale))
    assert env.observation_spec().shape == shape
    step = env.reset()
    assert step.observation.shape == (2, *shape)
    assert len(np.unique(step.observation)) > 2
    assert env.step(np.zeros(2, int)).observation.dtype == np.uint8


@pytest.mark.parametrize("backend", ["sync", "envpool"])
def test_a_lost_life_ends_an_episode_of_training_alone(load, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    lives = dataclasses.replace(SMALL, terminal_on_life_loss=True)
    environment = environments.Environment(GAME, 1, backend=environments.Backend.named(backend), preprocessing=lives)
    lengths = {}
    for name, settings in (("training", environment), ("evaluation", environment.for_evaluation())):
        env = settings.load(0)
        env.reset()
        lengths[name] = 1
        while env.step(np.array([1])).step_type[0] != 2:  # the ball is served and missed, five times a game
            lengths[name] += 1
        env.close()
    assert lengths["training"] < lengths["evaluation"] / 2


def test_a_time_limit_counts_the_agents_steps(load):
    env = load(GAME, preprocessing=SMALL, max_episode_steps=7)
    assert env.time_limit == 7
    env.reset()
    kinds = [int(env.step(np.array([0])).step_type[0]) for _ in range(7)]
    assert kinds == [1] * 6 + [2]


def test_a_policys_description_keeps_the_preprocessing_of_whole_games():
    environment = environments.Environment(GAME, preprocessing=SMALL)
    assert environments.Environment.described(environment.describe()).preprocessing == SMALL


@pytest.mark.parametrize("backend", ["sync", "envpool"])
def test_what_is_no_atari_game_is_refused_in_a_line(load, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    with pytest.raises(ValueError, match=r"CartPole-v1 can't be made") as caught:
        load("CartPole-v1", backend=backend, preprocessing=SMALL)
    assert "\n" not in str(caught.value)


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match="frame_skip must be a positive integer, got 0"):
        AtariPreprocessing(frame_skip=0)
