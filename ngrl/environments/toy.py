"""Tiny environments whose optimum is known, for tests of learning that take seconds.

In the spirit of stable-baselines3's `test_identity`.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ngrl.checks import check_count

Step = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


class Chain(gymnasium.Env):
    """`ngrl/Chain-v0`: walk left (0) or right (1) along a chain; both ends pay and terminate.

    States 0 .. n-1, observed one-hot (float32 [n]); an episode starts in a state drawn uniformly. Stepping
    left out of state 0 pays `left_reward`, stepping right out of state n-1 pays `right_reward`; both
    terminate. Every other step pays nothing. `chain_q_values` gives the optimal values.
    """

    def __init__(self, num_states: int = 5, left_reward: float = 0.5, right_reward: float = 1.0):
        """Take the length of the chain and what its ends pay."""
        check_count("num_states", num_states)
        self.observation_space = spaces.Box(0.0, 1.0, (num_states,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._one_hot = np.eye(num_states, dtype=np.float32)
        self._left_reward = float(left_reward)
        self._right_reward = float(right_reward)
        self._state = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start in a state drawn uniformly."""
        super().reset(seed=seed)
        self._state = int(self.np_random.integers(len(self._one_hot)))
        return self._one_hot[self._state].copy(), {}

    def step(self, action: int) -> Step:
        """Walk one state; walking out of the chain terminates and shows the state left."""
        target = self._state + (1 if action == 1 else -1)
        if target < 0:
            return self._one_hot[self._state].copy(), self._left_reward, True, False, {}
        if target == len(self._one_hot):
            return self._one_hot[self._state].copy(), self._right_reward, True, False, {}
        self._state = target
        return self._one_hot[target].copy(), 0.0, False, False, {}


def chain_q_values(
    num_states: int = 5, gamma: float = 0.99, left_reward: float = 0.5, right_reward: float = 1.0
) -> np.ndarray:
    """Optimal action values of `Chain`, float64 [num_states, 2], for 0 <= gamma <= 1 and rewards >= 0.

    From state s the left end is s + 1 steps away and the right end n - s, so with L and R the rewards
      V(s) = max(gamma^s L, gamma^(n-1-s) R)
      Q(s, left) = L if s = 0 else gamma V(s-1);  Q(s, right) = R if s = n-1 else gamma V(s+1).
    """
    states = np.arange(num_states)
    value = np.maximum(gamma**states * left_reward, gamma ** (num_states - 1 - states) * right_reward)
    left = np.concatenate([[left_reward], gamma * value[:-1]])
    right = np.concatenate([gamma * value[1:], [right_reward]])
    return np.stack([left, right], axis=1)


class Identity(gymnasium.Env):
    """`ngrl/Identity-v0`: a digit is shown one-hot (float32 [n]); naming it pays 1, anything else 0.

    The next digit is drawn uniformly whatever the action. Nothing terminates: the time limit truncates, so
    the best undiscounted return is the time limit (20). `identity_q_values` gives the optimal values.
    """

    def __init__(self, num_actions: int = 3):
        """Take the number of digits."""
        self.observation_space = spaces.Box(0.0, 1.0, (num_actions,), np.float32)
        self.action_space = spaces.Discrete(num_actions)
        self._one_hot = np.eye(num_actions, dtype=np.float32)
        self._digit = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the first digit."""
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: int) -> Step:
        """Pay for the digit named and show the next."""
        reward = 1.0 if action == self._digit else 0.0
        return self._draw(), reward, False, False, {}

    def _draw(self) -> np.ndarray:
        self._digit = int(self.np_random.integers(len(self._one_hot)))
        return self._one_hot[self._digit].copy()


def identity_q_values(num_actions: int = 3, gamma: float = 0.9) -> np.ndarray:
    """Optimal action values of `Identity`, float64 [shown digit, action], for 0 <= gamma < 1.

    A truncated episode is bootstrapped, so the values are those of the endless task:
      Q(digit, action) = 1[action = digit] + gamma / (1 - gamma).
    """
    return np.eye(num_actions) + gamma / (1.0 - gamma)


class IdentityBox(gymnasium.Env):
    """`ngrl/IdentityBox-v0`: a number in [-1, 1] is shown; an action pays minus its squared distance from it.

    Observation and action are float32 [1]. The next number is drawn uniformly whatever the action; nothing
    terminates. The optimal action is the observation and the best return is 0.
    """

    def __init__(self) -> None:
        """Take no settings."""
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._number = np.zeros(1, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the first number."""
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: np.ndarray) -> Step:
        """Pay for the number named and show the next."""
        reward = -float(np.sum(np.square(np.asarray(action) - self._number)))
        return self._draw(), reward, False, False, {}

    def _draw(self) -> np.ndarray:
        self._number = self.np_random.uniform(-1.0, 1.0, size=1).astype(np.float32)
        return self._number.copy()


class HoaglandToy(gymnasium.Env):
    """`ngrl/HoaglandToy-v0`: walk on the line, where staying at the origin is best (Hoagland, Fig. 4).

    State and action are real numbers (float32 [1]); an episode starts at the origin. In state s the action a pays
    −s² − a² and leads to s + a. Nothing terminates: the time limit truncates. The paper leaves the horizon unsaid; the
    limit of 5 steps is ngrl's choice. `hoagland_return` gives the expected return of a policy a ~ N(μ, σ²).
    """

    def __init__(self) -> None:
        """Take no settings."""
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self._state = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at the origin."""
        super().reset(seed=seed)
        self._state = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> Step:
        """Pay for where the walk is and how far it moves, and move."""
        distance = float(np.asarray(action).reshape(()))
        reward = -(self._state**2) - distance**2
        self._state += distance
        return np.array([self._state], np.float32), reward, False, False, {}


def hoagland_return(mean: float, std: float, num_steps: int = 5) -> float:
    """Expected undiscounted return of `HoaglandToy` for actions a ~ N(mean, std²), whatever the state.

    s_t is N(tμ, tσ²), hence −Σ_t (t²μ² + tσ² + μ² + σ²) over t = 0 .. num_steps − 1.
    """
    t = np.arange(num_steps)
    return -float(np.sum((t**2 + 1) * mean**2 + (t + 1) * std**2))
