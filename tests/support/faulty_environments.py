"""What a gin file imports to have environments that misbehave."""

import os
import pathlib
import time

import gymnasium
import numpy as np
import scripted_environments
from gymnasium import spaces

scripted_environments.register()


class Counting(gymnasium.Env):
    """Episodes of `length` steps, each of which pays 1; nothing is to be seen."""

    def __init__(self, length=5):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._length = length
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self._steps += 1
        return np.zeros(2, np.float32), 1.0, self._steps == self._length, False, {}


class Hanging(Counting):
    """After `patience` steps it leaves a file `hanging` in the current folder and hangs."""

    def __init__(self, patience):
        super().__init__()
        self._left = patience

    def step(self, action):
        self._left -= 1
        if self._left < 0:
            pathlib.Path("hanging").touch()
            time.sleep(600)
        return super().step(action)


gymnasium.register("test/Hanging-v0", entry_point=Hanging)


class Poisoned(gymnasium.Env):
    """Episodes of five steps that pay for action 1; what is listed in `poison` happens at that call of step or reset.

    Args:
      poison: Number of a call, from 0, to "nan reward", "infinite reward", "nan observation" or "infinite observation".
    """

    def __init__(self, poison):
        self.observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._poison = poison
        self._calls = 0
        self._steps = 0

    def _observe(self):
        what = self._poison.get(self._calls, "")
        self._calls += 1
        observation = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        if what.endswith("observation"):
            observation[0] = np.nan if what.startswith("nan") else np.inf
        return observation, {"nan reward": np.nan, "infinite reward": np.inf}.get(what)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observe()[0], {}

    def step(self, action):
        self._steps += 1
        observation, reward = self._observe()
        return observation, float(action) if reward is None else reward, self._steps == 5, False, {}


gymnasium.register("test/Poisoned-v0", entry_point=Poisoned)


class Endless(Counting):
    """Episodes of five steps, until a policy has been exported; from then on an episode never ends."""

    def __init__(self):
        super().__init__(10**9 if pathlib.Path("run/policy").exists() else 5)


gymnasium.register("test/Endless-v0", entry_point=Endless)


class Wandering(Counting):
    """Episodes of five steps, in the midst of which the process goes to another folder, `elsewhere`."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (gymnasium's)

    def __init__(self, elsewhere, render_mode=None):
        super().__init__()
        self.render_mode = render_mode
        self._elsewhere = elsewhere

    def step(self, action):
        os.chdir(self._elsewhere)
        return super().step(action)

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


gymnasium.register("test/Wandering-v0", entry_point=Wandering)
