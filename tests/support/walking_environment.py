"""An environment for which it can be said what is wrong with it. Imports no TensorFlow: worker processes import it."""

import multiprocessing
import os
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """Episodes of ten steps, of which `does` says what is wrong."""

    action_space = spaces.Discrete(2, start=3)

    def __init__(self, does="right", length=10):
        self.observation_space = spaces.Box(0.0, 100.0, (2,), np.float32)
        if does == "integers":
            self.observation_space = spaces.Box(0, 8, (2,), np.int32)
        if does == "text":
            self.observation_space = spaces.Text(5)
        if does == "stays" and multiprocessing.parent_process() is not None:
            raise RuntimeError("no display")
        self.does, self.length, self.episodes = does, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start, self.at = self.np_random.random(), 0
        self.episodes += 1
        return self.observe(), {}

    def step(self, action):
        assert action in (3, 4)
        self.at += 1
        if self.does == "hangs" and self.at == 5:
            time.sleep(600)
        reward = float(np.nan if self.does == "nan" and self.at == 7 else action)
        return self.observe(), reward, self.at == self.length, False, {}

    def observe(self):
        if self.does == "integers":
            return np.array([self.at, 0], np.int32)
        number = {"process": os.getpid() % 97, "remembers": float(self.episodes > 2), "beyond": 300.0}
        return np.array([self.start, number.get(self.does, 1.0)], np.float32)


gymnasium.register("test/Walk-v0", entry_point=Walk)
gymnasium.register("test/LimitedWalk-v0", entry_point=Walk, max_episode_steps=400)


class Unseeded(Walk):
    """Takes no seed."""

    def reset(self, *, options=None):
        return super().reset(options=options)


gymnasium.register("test/Unseeded-v0", entry_point=Unseeded)
