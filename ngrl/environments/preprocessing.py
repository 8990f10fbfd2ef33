"""What stands between an environment and the agent.

Imports neither TensorFlow nor TF-Agents: worker processes import it.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing as AtariWrapper
from gymnasium.wrappers import TimeLimit

from ngrl.checks import check_count
from ngrl.configurable import configurable
from ngrl.environments.named import Named


@dataclasses.dataclass(frozen=True)
class Preprocessing(Named, abc.ABC):
    """Makes an environment as agents are to see it; another way is a subclass, a frozen dataclass of JSON values.

    Attributes:
      name: What `ngrl_policy.json` beside an exported policy calls it.
    """

    def make(self, spec: Any, kwargs: Mapping[str, Any]) -> gymnasium.Env:
        """Gymnasium's environment of a spec; `max_episode_steps` among its arguments counts the agent's steps.

        Raises:
          ValueError: It is none that this is for.
        """
        kwargs = dict(kwargs)
        limit = kwargs.pop("max_episode_steps", None)
        env = self.wrap(spec, kwargs)
        return env if limit is None else TimeLimit(env, limit)

    @abc.abstractmethod
    def wrap(self, spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
        """As `make`, without a time limit of the agent's."""

    def for_evaluation(self) -> "Preprocessing":
        """The same for whole episodes."""
        return self

    def for_envpool(self) -> dict[str, Any]:
        """The same as arguments of envpool's environment.

        Raises:
          ValueError: envpool has nothing like it.
        """
        raise ValueError(f"envpool has no {type(self).__name__}: take another backend, such as @SyncEnvironments()")

    def describe(self) -> dict[str, Any]:
        """What `described` takes, JSON values; NumPy's numbers as Python's."""
        settings = dataclasses.asdict(self).items()
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in settings}
        return {"name": self.own_name, **plain}

    @staticmethod
    def described(description: Mapping[str, Any]) -> "Preprocessing":
        """What `describe` described.

        Raises:
          ValueError: There is none of this name.
        """
        settings = dict(description)
        name = settings.pop("name", "atari")  # the only one there was, when policies didn't name it
        return Preprocessing.of_name(name)(**settings)


@configurable
@dataclasses.dataclass(frozen=True)
class AtariPreprocessing(Preprocessing):
    """Machado et al. (2018): frames are skipped, the last two of them maximised, made grey and shrunk.

    By gymnasium's wrapper of this name or, with `@EnvpoolEnvironments()`, by envpool's own.

    Args:
      noop_max: An episode begins with 1 to this many steps of doing nothing; 0 for none.
      frame_skip: Frames that an action is taken for.
      screen_size: Height and width of an image.
      terminal_on_life_loss: End an episode with each life, in training alone. gymnasium's begins a new game then,
        envpool's goes on with the same.
      grayscale: One channel, [H, W]; else [H, W, 3].

    Raises:
      ValueError: A number is out of its range.
    """

    noop_max: int = 30
    frame_skip: int = 4
    screen_size: int = 84
    terminal_on_life_loss: bool = False
    grayscale: bool = True
    name = "atari"

    def __post_init__(self) -> None:
        check_count("noop_max", self.noop_max, 0)
        check_count("frame_skip", self.frame_skip)
        check_count("screen_size", self.screen_size)

    def wrap(self, spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
        """One of Atari's games.

        Raises:
          ValueError: It is none.
        """
        if not spec.id.startswith("ALE/"):
            raise ValueError("preprocessing=@AtariPreprocessing() is for Atari's games, ALE/...")
        return AtariWrapper(
            gymnasium.make(spec, frameskip=1, **kwargs),
            self.noop_max,
            self.frame_skip,
            self.screen_size,
            self.terminal_on_life_loss,
            self.grayscale,
        )

    def for_evaluation(self) -> "AtariPreprocessing":
        """The same for whole games."""
        return dataclasses.replace(self, terminal_on_life_loss=False)

    def for_envpool(self) -> dict[str, Any]:
        """The same as arguments of envpool's Atari games; frames are stacked elsewhere.

        What envpool would do otherwise than gymnasium's games of version 5 is set as there: an action sticks with a
        probability of 0.25, and no button begins a game.

        Raises:
          ValueError: `noop_max` is 0, with which envpool ends the process.
        """
        if not self.noop_max:
            raise ValueError(
                "envpool begins with a step of doing nothing or more: set noop_max to 1, or take another backend"
            )
        return {
            "repeat_action_probability": 0.25,
            "use_fire_reset": False,
            "noop_max": self.noop_max,
            "frame_skip": self.frame_skip,
            "img_height": self.screen_size,
            "img_width": self.screen_size,
            "episodic_life": self.terminal_on_life_loss,
            "gray_scale": self.grayscale,
            "stack_num": 1,
        }


class _Repeated(gymnasium.Wrapper):
    """Takes each action several times, until the episode ends, and adds the rewards up."""

    def __init__(self, env: gymnasium.Env, times: int):
        super().__init__(env)
        self.frame_skip = times  # as gymnasium's AtariPreprocessing calls it

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """The last of the steps, with the sum of their rewards."""
        observation, first, terminated, truncated, info = self.env.step(action)
        total: Any = first
        for _ in range(self.frame_skip - 1):
            if terminated or truncated:
                break
            observation, reward, terminated, truncated, info = self.env.step(action)
            total = total + reward
        return observation, total, terminated, truncated, info


@configurable
@dataclasses.dataclass(frozen=True)
class ActionRepeat(Preprocessing):
    """Each action holds for several of the environment's steps, whose rewards are added up: one step of the agent's.

    Steps and time limits that a run counts are then the agent's, the environment's own limit is in its own steps, and
    γ and λ are for steps that are as many times longer (Braylan et al. 2015).

    Args:
      times: For how many.

    Raises:
      ValueError: It is not a positive integer.
    """

    times: int = 4
    name = "action_repeat"

    def __post_init__(self) -> None:
        check_count("ActionRepeat: times", self.times)

    def wrap(self, spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
        """Any of gymnasium's environments."""
        return _Repeated(gymnasium.make(spec, **kwargs), self.times)
