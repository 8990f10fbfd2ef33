"""What a gin file imports to have environments that misbehave."""

import pathlib
import time

import gymnasium
import numpy as np
import scripted_environments
from gymnasium import spaces

scripted_environments.register()


class Hanging(gymnasium.Env):
    """Episodes of five steps; after `patience` steps it leaves a file `hanging` in the current folder and hangs."""

    def __init__(self, patience):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._left = patience
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._left -= 1
        if self._left < 0:
            pathlib.Path("hanging").touch()
            time.sleep(600)
        self._steps += 1
        return np.zeros(2, np.float32), 1.0, self._steps == 5, False, {}


gymnasium.register("test/Hanging-v0", entry_point=Hanging)
