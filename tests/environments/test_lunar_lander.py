"""`ngrl/LunarLander-v2`: version 2's bounds on gymnasium's own lander."""

import math

import gymnasium
import numpy as np
import pytest

import ngrl.environments  # noqa: F401  (registers it)


@pytest.mark.parametrize("kwargs", [{}, {"continuous": True}, {"enable_wind": True}])
def test_bounds_are_version_2s_and_episodes_are_version_3s(kwargs):
    old, new = (gymnasium.make(name, **kwargs) for name in ("ngrl/LunarLander-v2", "LunarLander-v3"))
    high = np.array([1.5, 1.5, 5, 5, math.pi, 5, 1, 1], np.float32)
    np.testing.assert_array_equal(old.observation_space.high, high)
    np.testing.assert_array_equal(old.observation_space.low, [*-high[:6], 0, 0])
    assert old.action_space == new.action_space
    assert (old.spec.max_episode_steps, old.spec.reward_threshold) == (1000, 200)
    for seed in range(5):
        np.testing.assert_array_equal(old.reset(seed=seed)[0], new.reset(seed=seed)[0])
        new.action_space.seed(seed)
        over = False
        while not over:
            action = new.action_space.sample()
            one, other = old.step(action), new.step(action)
            np.testing.assert_array_equal(one[0], other[0])
            assert one[1:4] == other[1:4]
            over = one[2] or one[3]
