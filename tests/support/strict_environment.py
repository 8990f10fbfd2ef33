"""An environment that is strict about its spaces, in a module that workers import quickly."""

import gymnasium
import numpy as np
from gymnasium import spaces

ENV_ID = "test/Strict-v0"


class Strict(gymnasium.Env):
    """Asserts that its space contains the action; float64 bounds that float32 can't hold; rewards of shape (1,)."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as gymnasium has it)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {
                "camera": spaces.Box(0, 255, (3, 3, 1), np.uint8),
                "contacts": spaces.Box(0, 1, (2,), bool),
                "gears": spaces.MultiDiscrete([2, 4], start=[0, -1]),
                "floor": spaces.Discrete(3),
            }
        )
        self.action_space = spaces.Box(-0.1, 0.1, (2, 2), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), np.array([action.sum()]), False, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=Strict, max_episode_steps=20)
