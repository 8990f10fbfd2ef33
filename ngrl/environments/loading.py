"""An environment by name: the settings of one, and `load`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from ngrl import seeding
from ngrl.checks import check_count, check_optional_count
from ngrl.configurable import configurable
from ngrl.environments.backends import Backend, SyncEnvironments
from ngrl.environments.bridge import GymnasiumEnvironment
from ngrl.environments.preprocessing import Preprocessing
from ngrl.seeding import Stream


@configurable
@dataclasses.dataclass(frozen=True)
class Environment:
    """Which environment is played, how many of it side by side, and how they are stepped.

    Args:
      env_id: A gymnasium id (or one that the backend knows).
      num_envs: Environments stepped together.
      kwargs: Arguments of the environment, e.g. `{"max_episode_steps": 200}`.
      backend: How they are stepped: `@SyncEnvironments()`, `@AsyncEnvironments()`, `@RayEnvironments()`,
        `@CompiledEnvironments()`, `@EnvpoolEnvironments()` or another.
      training_time_limit: Steps after which training truncates an episode, so that what it learns from holds more
        beginnings and ends; evaluation keeps the environment's own limit (Pardo et al. 2018, section 4). The
        episodes' returns and lengths are those of training, and so shorter. It takes the place of the environment's
        own limit, so that one above that lengthens training's episodes; with preprocessing (but envpool's) the lower of
        the two holds.
      truncation_is_terminal: Treat the time limit as the end of the return, as Knight & Lerner (2018) do.
      check_finite: Stop where an observation or a reward is not finite; otherwise such updates are skipped, and 0 is
        taken for an action that is not.
      frame_stack: How many of the latest observations, which must be arrays, make one: [S, ...] in the place of [...],
        the newest last. An episode begins with copies of its first.
      preprocessing: What stands between environment and agent: `@AtariPreprocessing()` for Atari's screens,
        `@ActionRepeat()` for actions that hold for several steps, or another; None for nothing.

    Raises:
      ValueError: A number is out of its range.
    """

    env_id: str
    num_envs: int = 8
    kwargs: Mapping[str, Any] | None = None
    backend: Backend = SyncEnvironments()  # noqa: RUF009  (frozen)
    training_time_limit: int | None = None
    truncation_is_terminal: bool = False
    check_finite: bool = True
    frame_stack: int | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        check_optional_count("frame_stack", self.frame_stack)
        check_count("num_envs", self.num_envs)
        check_optional_count("training_time_limit", self.training_time_limit)

    def load(self, seed: int = 0, stream: Stream = Stream.TRAINING_EPISODES) -> GymnasiumEnvironment:
        """The environments of training.

        Args:
          seed: The run's seed, in [0, 2^31). Each episode of each member has a seed of its own that follows from it.
          stream: `Stream.EVALUATION_EPISODES` for episodes that no training plays, whatever its seed.

        Raises:
          ValueError: The environment or an argument is wrong; the message is one line.
          ImportError: The environment needs a package that is not installed; the message says what to install.
        """
        seed = seeding.check_seed(seed)
        kwargs = dict(self.kwargs or {})
        if self.training_time_limit is not None:
            kwargs["max_episode_steps"] = int(self.training_time_limit)  # gymnasium takes no number of NumPy's
        if self.preprocessing is not None:
            kwargs["preprocessing"] = self.preprocessing
        vector = self.backend.make(self.env_id, int(self.num_envs), seed, kwargs, stream)
        try:
            return self.backend.wrap(vector, seed, self.truncation_is_terminal, self.check_finite, self.frame_stack)
        except BaseException:
            vector.close()
            raise

    def for_evaluation(self, num_envs: int = 1, **kwargs: Any) -> "Environment":
        """The same environment under its own time limit, with these arguments besides.

        Its `load` is to be given `Stream.EVALUATION_EPISODES`.
        """
        kwargs = {**(self.kwargs or {}), **kwargs}
        whole = self.preprocessing and self.preprocessing.for_evaluation()
        return Environment(
            self.env_id,
            num_envs,
            kwargs,
            self.backend,
            check_finite=self.check_finite,
            frame_stack=self.frame_stack,
            preprocessing=whole,
        )

    def identity(self) -> dict[str, Any]:
        """What makes two experiments in Python different ones, under the names that gin files have for it."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {f"Environment.{name}": value for name, value in {**values, "backend": self.backend.own_name}.items()}

    def describe(self) -> dict[str, Any]:
        """Which environment it is, as JSON values: what `described` takes.

        Raises:
          ValueError: An argument is no JSON value, or the backend or the preprocessing has no name of its own.
        """
        _require_json("Environment.kwargs", self.kwargs or {})
        described: dict[str, Any] = {
            "env_id": self.env_id,
            "env_kwargs": dict(self.kwargs or {}),
            "env_backend": self.backend.own_name,
        }
        if not self.check_finite:
            described["env_check_finite"] = False
        if self.frame_stack is not None:
            described["env_frame_stack"] = int(self.frame_stack)
        if self.preprocessing is not None:
            described["env_preprocessing"] = self.preprocessing.describe()
            _require_json("Environment.preprocessing", described["env_preprocessing"])
        return described

    @staticmethod
    def described(description: Mapping[str, Any]) -> "Environment":
        """The settings that `describe` described.

        Raises:
          ValueError: There is no such backend or preprocessing.
        """
        backend = Backend.named(description.get("env_backend", SyncEnvironments.name))
        preprocessing = description.get("env_preprocessing")
        return Environment(
            description["env_id"],
            kwargs=description.get("env_kwargs"),
            backend=backend,
            check_finite=description.get("env_check_finite", True),
            frame_stack=description.get("env_frame_stack"),
            preprocessing=None if preprocessing is None else Preprocessing.described(preprocessing),
        )

    def elsewhere(self, env_id: str) -> "Environment":
        """Another environment, with what observations and actions go through on their way, and all else its own."""
        return Environment(
            env_id,
            check_finite=self.check_finite,
            frame_stack=self.frame_stack,
            preprocessing=self.preprocessing,
        )


def _require_json(setting: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not _is_json(value):
            raise ValueError(
                f"{setting}: {name} can't be written down in ngrl_policy.json: give Python's finite numbers, texts, "
                f"None, lists, and dictionaries with texts as keys, got {value!r}"
            )


def _is_json(value: Any) -> bool:
    """Whether JSON gives a value back; a tuple as a list."""
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(part) for key, part in value.items())
    is_lost = isinstance(value, float) and not math.isfinite(value)  # written as null
    return value is None or (isinstance(value, str | int | float) and not is_lost)


def load(
    env_id: str,
    num_envs: int = 1,
    seed: int = 0,
    backend: str | Backend = "sync",
    *,
    truncation_is_terminal: bool = False,
    check_finite: bool = True,
    frame_stack: int | None = None,
    preprocessing: Preprocessing | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    stream: Stream = Stream.TRAINING_EPISODES,
    **kwargs: Any,
) -> GymnasiumEnvironment:
    """A batched TF-Agents environment of `num_envs` members.

    Args:
      env_id: A name registered with gymnasium (or known to the backend).
      num_envs: The number of members N, at least 1.
      seed: As in `Environment.load`.
      backend: "sync": members in this process, fastest for quick environments; "async":
        one process a member, for slow ones; "ray": actors of Ray, on this machine or a cluster; "compiled": TensorFlow
        functions, for a few classic tasks; "envpool": C++ members, if that package is installed. Or an object, such as
        `AsyncEnvironments(timeout=10)`.
      truncation_is_terminal: Whether a time limit ends the return too (discount 0 instead of 1).
      check_finite: Whether NaN or infinity in an observation or reward raises an EnvironmentFault.
      frame_stack: As in `Environment`.
      preprocessing: As in `Environment`.
      env_kwargs: Given to the environment, e.g. `{"render_mode": "rgb_array", "max_episode_steps": 200}`.
      stream: As in `Environment.load`.
      **kwargs: As `env_kwargs`, as keywords.

    Raises:
      ValueError: An argument is wrong, the environment unknown, or a space not supported; the message is one
        line.
      ImportError: The environment needs a package that is not installed; the message says what to install.
    """
    return Environment(
        env_id,
        num_envs,
        {**(env_kwargs or {}), **kwargs},
        Backend.named(backend) if isinstance(backend, str) else backend,
        truncation_is_terminal=truncation_is_terminal,
        check_finite=check_finite,
        frame_stack=frame_stack,
        preprocessing=preprocessing,
    ).load(seed, stream)
