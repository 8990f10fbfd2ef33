"""Tiny environments that do exactly what a test tells them to.

Imports no TensorFlow: worker processes import it.
"""

import copy
import os
import sys
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Scripted(gymnasium.Env):
    """Observes (number of resets, steps since the last, last action); each episode follows its script.

    A script is a list of (reward, terminated, truncated), one a step; `scripts` are taken in turn by
    episodes. With `count_resets=False` the count stays 1, so that an episode follows from its seed and
    actions.
    """

    def __init__(self, scripts, count_resets=True):
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = spaces.Discrete(4)
        self._scripts = scripts
        self._count_resets = count_resets
        self._resets = 0
        self._steps = 0

    def _observe(self, action=-1.0):
        return np.array([self._resets, self._steps, action], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._resets = self._resets + 1 if self._count_resets else 1
        self._steps = 0
        return self._observe(), {"reset": 1.0}

    def step(self, action):
        script = self._scripts[(self._resets - 1) % len(self._scripts)]
        reward, terminated, truncated = script[self._steps]
        self._steps += 1
        return self._observe(float(action)), reward, terminated, truncated, {"step": 1.0}


class SlowlyMade(gymnasium.Env):
    """Takes ten minutes to be made, the `number`-th time in a process."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)
    made = 0

    def __init__(self, number):
        SlowlyMade.made += 1
        if SlowlyMade.made == number:
            time.sleep(600)


class Misbehaving(gymnasium.Env):
    """Counts steps (float32 [2]) and does `fault` at step `at` (0 is the reset) of every episode.

    Action 1 keeps a member out of it, as are the episodes before `first_episode`.
    """

    def __init__(self, fault, at=3, first_episode=0):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._fault = fault
        self._at = at
        self._episodes_left = first_episode + 1
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        self._episodes_left -= 1
        observation, *_ = self._answer()
        return observation, {}

    def step(self, action):
        self._steps += 1
        return self._answer(well_behaved=action == 1)

    def _answer(self, well_behaved=False):
        observation = np.full(2, self._steps, np.float32)
        answer = [observation, 1.0, False, False, {}]
        if self._steps != self._at or well_behaved or self._episodes_left > 0:
            return tuple(answer)
        if self._fault == "raise":
            raise KeyError("the engine\nis broken")
        if self._fault == "quit":
            sys.exit()
        if self._fault == "exit":
            os._exit(7)
        if self._fault == "hang":
            time.sleep(600)
        if self._fault == "four values":
            return tuple(answer[:4])
        position, value = {
            "shape": (0, np.zeros(3, np.float32)),
            "broadcastable shape": (0, np.zeros(1, np.float32)),
            "dtype": (0, np.array(["a", "b"])),
            "nan observation": (0, np.array([0.0, np.nan], np.float32)),
            "nan reward": (1, float("nan")),
            "infinite reward": (1, np.float64(1e300)),
            "huge reward": (1, -(10**400)),
            "reward shape": (1, np.ones(2)),
            "reward array": (1, np.full((1, 1), 1.5)),
            "terminated array": (2, np.array([True])),
            "truncated array": (3, np.array([True])),
            "text reward": (1, "much"),
            "terminated": (2, None),
            "truncated": (3, "no"),
        }[self._fault]
        answer[position] = value
        return tuple(answer)


class Obedient(gymnasium.Env):
    """Observes (number drawn by the reset, steps since) and does what it is told: 0 step, 1 raise, 2 exit, 3 hang."""

    observation_space = spaces.Box(0.0, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._drawn, self._steps = self.np_random.random(), 0
        return np.array([self._drawn, 0], np.float32), {}

    def step(self, action):
        if action == 1:
            raise KeyError("told to")
        if action == 2:
            os._exit(7)
        if action == 3:
            time.sleep(600)
        self._steps += 1
        return np.array([self._drawn, self._steps], np.float32), 1.0, False, False, {}


class Unclosable(Obedient):
    """Can't be closed once it has been reset."""

    def close(self):
        if hasattr(self, "_drawn"):
            raise RuntimeError("the port is held")


class OfSpaces(gymnasium.Env):
    """Samples its observation space from its seed; keeps the last action in `last_action`."""

    def __init__(self, observation_space=None, action_space=None):
        # A copy: its random generator is this member's own.
        self.observation_space = copy.deepcopy(observation_space or spaces.Box(-1.0, 1.0, (2,), np.float32))
        self.action_space = action_space or spaces.Discrete(2)
        self.last_action = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.last_action = action
        return self.observation_space.sample(), 0.5, False, False, {}


class Scaling(gymnasium.Env):
    """Sums its actions, after doubling each in the array that it is given."""

    def __init__(self):
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._sum = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._sum = np.zeros(1, np.float32)
        return self._sum, {}

    def step(self, action):
        action *= 2.0
        self._sum = self._sum + action
        return self._sum, 0.0, False, False, {}


class Forgetful(gymnasium.Env):
    """Doesn't follow from its seed: shows how many Forgetfuls' resets this process has seen."""

    count = 0

    def __init__(self):
        self.observation_space = spaces.Box(0.0, np.inf, (1,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Forgetful.count += 1
        return np.array([Forgetful.count], np.float32), {}

    def step(self, action):
        return np.array([Forgetful.count], np.float32), 0.0, False, False, {}


def needs_a_package(**kwargs):
    """An environment's maker whose dependency is missing."""
    raise gymnasium.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')


def register():
    """Register them all under `test/`."""
    for env_id, maker in {
        "test/Scripted-v0": Scripted,
        "test/Misbehaving-v0": Misbehaving,
        "test/SlowlyMade-v0": SlowlyMade,
        "test/Obedient-v0": Obedient,
        "test/Unclosable-v0": Unclosable,
        "test/OfSpaces-v0": OfSpaces,
        "test/Scaling-v0": Scaling,
        "test/Forgetful-v0": Forgetful,
        "test/NeedsAPackage-v0": needs_a_package,
    }.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=maker)
