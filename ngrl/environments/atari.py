"""What Atari's screens go through before an agent sees them.

Imports neither TensorFlow nor TF-Agents: worker processes import it.
"""

import dataclasses
from typing import Any

import gymnasium
from gymnasium.wrappers import AtariPreprocessing as Wrapper
from gymnasium.wrappers import TimeLimit

from ngrl.checks import check_count
from ngrl.configurable import configurable


@configurable
@dataclasses.dataclass(frozen=True)
class AtariPreprocessing:
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

    def __post_init__(self) -> None:
        check_count("noop_max", self.noop_max, 0)
        check_count("frame_skip", self.frame_skip)
        check_count("screen_size", self.screen_size)

    def make(self, spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env:
        """Gymnasium's environment of a spec; `max_episode_steps` among its arguments counts an agent's steps.

        Raises:
          ValueError: It is none of Atari's.
        """
        if not spec.id.startswith("ALE/"):
            raise ValueError("preprocessing=@AtariPreprocessing() is for Atari's games, ALE/...")
        limit = kwargs.pop("max_episode_steps", None)
        game = gymnasium.make(spec, frameskip=1, **kwargs)
        env: gymnasium.Env = Wrapper(
            game,
            self.noop_max,
            self.frame_skip,
            self.screen_size,
            self.terminal_on_life_loss,
            self.grayscale,
        )
        return env if limit is None else TimeLimit(env, limit)

    def for_envpool(self) -> dict[str, Any]:
        """The same as arguments of envpool's Atari games; frames are stacked elsewhere."""
        return {
            "noop_max": self.noop_max,
            "frame_skip": self.frame_skip,
            "img_height": self.screen_size,
            "img_width": self.screen_size,
            "episodic_life": self.terminal_on_life_loss,
            "gray_scale": self.grayscale,
            "stack_num": 1,
        }
