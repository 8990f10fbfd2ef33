"""How the members of an environment are stepped. Another way is a subclass of `Backend`, here or in a user's module."""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from gymnasium import Space

from ngrl.checks import check_count, check_optional_count, check_optional_number
from ngrl.configurable import configurable
from ngrl.environments import spaces
from ngrl.environments.bridge import GymnasiumEnvironment
from ngrl.environments.making import MemberMaker
from ngrl.environments.named import Named
from ngrl.environments.vector import SyncVector, VectorEnvironment
from ngrl.seeding import Stream


class Backend(Named, abc.ABC):
    """Makes vector environments.

    Attributes:
      name: What `load` calls it, and `ngrl_policy.json` beside an exported policy.
    """

    @abc.abstractmethod
    def make(
        self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream
    ) -> VectorEnvironment:
        """Make an environment of `num_envs` members.

        Args:
          env_id: Which environment.
          num_envs: The number of members N, at least 1.
          seed: The run's seed.
          kwargs: Arguments of the environment. `max_episode_steps` among them is a time limit.
          stream: Whether the episodes are training's or evaluation's; `episode_seed` makes a member's seed of it.

        Raises:
          ValueError: The environment is unknown, can't be made with these arguments, or has a space that is not
            supported; the message is one line.
          ImportError: The environment needs a package that is not installed; the message says what to install.
        """

    def wrap(self, vector: Any, *settings: Any) -> GymnasiumEnvironment:
        """What `make` made as a TF-Agents environment; the settings are `GymnasiumEnvironment`'s, in its order."""
        return GymnasiumEnvironment(vector, *settings)

    def for_video(self) -> "Backend":
        """What draws one member: itself, unless it can't or needn't."""
        return self

    @classmethod
    def named(cls, name: str) -> "Backend":
        """The backend of a name, with its default settings.

        Raises:
          ValueError: There is none.
        """
        return cls.of_name(name)()


@configurable
@dataclasses.dataclass(frozen=True)
class SyncEnvironments(Backend):
    """Members in this process, one after another: the fastest for quick environments.

    Args:
      cores: On how many cores the members are stepped. With more than one, other processes step their share of them
        while this one does, and wait busily between two steps: for free cores, and environments that compute for half a
        tenth of a millisecond a step and more, as MuJoCo's do. No number changes.
    """

    cores: int = 1
    name = "sync"

    def __post_init__(self) -> None:
        check_count("cores", self.cores)

    def make(
        self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream
    ) -> VectorEnvironment:
        """As `Backend.make`; an EnvironmentFault is raised where another process ends while starting."""
        maker = _checked(env_id, seed, kwargs, stream)
        if min(self.cores, num_envs) == 1:
            return SyncVector(maker, range(num_envs))
        from ngrl.environments.workers import WorkerVector

        return WorkerVector(maker, num_envs, None, self.cores, takes_part=True)


@configurable
@dataclasses.dataclass(frozen=True)
class AsyncEnvironments(Backend):
    """Members in worker processes, for environments slower than a millisecond.

    Args:
      timeout: Seconds that a step, a reset or the making of a member may take before the workers are ended and an
        EnvironmentFault is raised; None waits for ever.
      workers: Among how many processes the members are shared out; a process steps its members in turn. None is one for
        each member, for environments that wait; as many as there are cores suit those that compute. For those quicker
        than a millisecond `SyncEnvironments.cores` is.
    """

    timeout: float | None = 120.0
    workers: int | None = None
    name = "async"

    def __post_init__(self) -> None:
        check_optional_number("timeout", self.timeout, "(0, inf]")
        check_optional_count("workers", self.workers)

    def for_video(self) -> Backend:
        """The same environment in this process."""
        return SyncEnvironments()

    def make(
        self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream
    ) -> VectorEnvironment:
        """As `Backend.make`; an EnvironmentFault is raised where a worker ends or hangs while starting."""
        from ngrl.environments.workers import WorkerVector

        # Not made here first, where nothing could end one that hangs.
        maker = MemberMaker(env_id, seed, kwargs, stream)
        check = functools.partial(_check_spaces, env_id)
        return WorkerVector(maker, num_envs, self.timeout, self.workers, check=check)


@configurable
@dataclasses.dataclass(frozen=True)
class RayEnvironments(Backend):
    """Members in Ray actors on all machines of a cluster, for environments of ten milliseconds a step and more.

    Where an actor is lost, another begins the next episodes of its members, and a line says so.

    Args:
      actors: Among how many actors the members, `Environment.num_envs` of them, are shared out; an actor steps its
        members in turn. None is one for each member.
      address: `HOST:PORT` of the cluster's head, or "auto" for the cluster that this machine is part of; None starts
        Ray on this machine alone.
      cpus: Processors that each actor of training reserves. None reserves none, and shares actors out in proportion to
        the nodes' processors.
      timeout: Seconds that a step, a reset or an actor's start may take before the actors are ended and an
        EnvironmentFault is raised; None waits for ever.
      max_replacements: How often an actor may be lost without an episode of its members coming to its end in between,
        before an EnvironmentFault is raised.
    """

    actors: int | None = None
    address: str | None = None
    cpus: float | None = None
    timeout: float | None = 120.0
    max_replacements: int = 3
    name = "ray"

    def __post_init__(self) -> None:
        check_optional_count("actors", self.actors)
        check_optional_number("cpus", self.cpus, "[0, inf)")
        check_optional_number("timeout", self.timeout, "(0, inf]")
        check_count("max_replacements", self.max_replacements, 0)

    def for_video(self) -> Backend:
        """The same environment in this process."""
        return SyncEnvironments()

    def make(
        self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream
    ) -> VectorEnvironment:
        """As `Backend.make`; an EnvironmentFault is raised where there is no Ray or an actor doesn't start."""
        from ngrl.environments.ray_actors import RayVector

        # The evaluation at a run's end plays beside the actors of training, and must not wait for what they hold.
        cpus = self.cpus if stream is Stream.TRAINING_EPISODES else None
        maker = _checked(env_id, seed, kwargs, stream)
        return RayVector(maker, num_envs, self.actors, self.address, cpus, self.timeout, self.max_replacements)


@configurable
@dataclasses.dataclass(frozen=True)
class EnvpoolEnvironments(Backend):
    """envpool's C++ members, if that package is installed. A resumed run begins new episodes."""

    name = "envpool"

    def for_video(self) -> Backend:
        """Gymnasium's environment of that name: envpool draws nothing."""
        return SyncEnvironments()

    def make(
        self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream
    ) -> VectorEnvironment:
        """As `Backend.make`."""
        from ngrl.environments.pool import EnvpoolVector

        return EnvpoolVector(env_id, num_envs, seed, kwargs, stream)


@configurable
@dataclasses.dataclass(frozen=True)
class CompiledEnvironments(Backend):
    """Members as TensorFlow functions: a loop takes a whole batch of steps in one call. For a few classic tasks."""

    name = "compiled"

    def for_video(self) -> Backend:
        """Gymnasium's environment of that name: compiled ones draw nothing."""
        return SyncEnvironments()

    def wrap(self, vector: Any, *settings: Any) -> GymnasiumEnvironment:
        """As `Backend.wrap`.

        Raises:
          ValueError: Frames are to be stacked.
        """
        from ngrl.environments.compiled.bridge import CompiledEnvironment

        return CompiledEnvironment(vector, *settings)

    def make(
        self, env_id: str, num_envs: int, seed: int, kwargs: Mapping[str, Any], stream: Stream
    ) -> VectorEnvironment:
        """As `Backend.make`."""
        from ngrl.environments.compiled.vector import CompiledVector

        return CompiledVector(env_id, num_envs, seed, kwargs, stream)


def _checked(env_id: str, seed: int, kwargs: Mapping[str, Any], stream: Stream) -> MemberMaker:
    """What makes gymnasium's members, once one could be made and its spaces are of kinds that are supported."""
    maker = MemberMaker(env_id, seed, kwargs, stream)
    _check_spaces(env_id, *maker.check())
    return maker


def _check_spaces(env_id: str, observation_space: Space, action_space: Space) -> None:
    spaces.observation_spec(observation_space, env_id)
    spaces.action_spec(action_space, env_id)
