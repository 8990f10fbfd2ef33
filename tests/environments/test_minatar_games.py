"""MinAtar's games: loaded by name alone, quietly, with episodes that can be repeated and drawn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("minatar")

GAMES = {"Asterix": 5, "Breakout": 3, "Freeway": 3, "Seaquest": 6, "SpaceInvaders": 4}


@pytest.mark.parametrize("game", GAMES)
def test_a_game_is_loaded_by_its_name_with_the_actions_that_it_uses(game, load):
    env = load(f"MinAtar/{game}-v1", 2)
    spec = env.observation_spec()
    assert (spec.dtype, int(np.max(spec.maximum))) == (np.uint8, 1)
    assert spec.shape[:2] == (10, 10)
    assert env.action_spec().maximum == GAMES[game] - 1
    assert load(f"MinAtar/{game}-v0").action_spec().maximum == 5
    env.reset()
    assert env.step(np.array([1, 0])).observation.max() == 1
    assert env.time_limit is None


def test_a_game_is_loaded_without_a_word():
    """As where seaborn isn't installed, which minatar tells of."""
    code = (
        "import sys; sys.modules['seaborn'] = None\n"
        "from ngrl import environments; environments.load('MinAtar/Breakout-v1').reset()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert "seaborn" not in done.stdout + done.stderr


def test_an_episode_repeats_whatever_the_action_before_it(load):
    """Minatar keeps the last action over a reset, and a sticky first action of the next episode would be it.

    Only an action that ends an episode is kept: of the members some end theirs by moving to a side.
    """
    env = load("MinAtar/Breakout-v1", 30, sticky_action_prob=0.5)
    env.reset()
    for _ in range(40):
        env.step(np.full(30, 2))
    state = env.get_state()
    assert state["episode"].min() > 0
    other = load("MinAtar/Breakout-v1", 30, sticky_action_prob=0.5)
    other.set_state(state)  # which refuses other observations than those saved
    for action in (0, 1, 2, 1):
        one, two = (played.step(np.full(30, action)).observation for played in (env, other))
        np.testing.assert_array_equal(one, two)


def test_a_picture_shows_each_kind_of_object_in_a_colour_of_its_own(load):
    env = load("MinAtar/Breakout-v1", render_mode="rgb_array")
    env.reset()
    state = env.step(np.array([0])).observation[0]
    (picture,) = env.render()
    assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
    shown = picture[::16, ::16]
    np.testing.assert_array_equal(shown.any(axis=-1), state.any(axis=-1))
    assert len(np.unique(shown[state.any(axis=-1)], axis=0)) == 3  # ball, paddle, bricks (over its trail)
