"""An environment whose actions are several choices at once, in a module that workers import quickly."""

import copy

import gymnasium
import numpy as np
from gymnasium import spaces

ENV_ID = "test/Matching-v0"
ACTIONS = {
    "several": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "bytes": spaces.MultiDiscrete([[2], [3]], dtype=np.int8),
    "bits": spaces.MultiBinary(3),
}


class Matching(gymnasium.Env):
    """Shows an action; each element of the one taken that is the same pays 1. Episodes have 10 steps."""

    def __init__(self, actions="several", as_floats=False):
        self.action_space = copy.deepcopy(ACTIONS[actions])
        self._shows = copy.deepcopy(ACTIONS[actions])
        self.observation_space = spaces.Box(-1, 3, self._shows.shape) if as_floats else self._shows

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self._shows.seed(seed)
        return self._show(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        reward = float((action == self._shown).sum())
        return self._show(), reward, False, False, {}

    def _show(self):
        self._shown = self._shows.sample()
        return self._shown.astype(self.observation_space.dtype)


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=Matching, max_episode_steps=10)
