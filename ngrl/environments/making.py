"""Making one environment by name, with errors that fit a line.

Imports neither TensorFlow nor TF-Agents: worker processes import it.
"""

import difflib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.environments.member import Member
from ngrl.messages import RAISED
from ngrl.seeding import Stream

# Packages whose environments gymnasium knows only after their import.
_PLUGINS = {"ALE/": "ale_py"}
# The extras of ngrl that bring others' packages, by the beginning of their environments' names.
_EXTRAS = {"ALE/": "atari", "MinAtar/": "minatar"}


class MemberMaker:
    """Makes the members of one vector environment, here or in a worker process."""

    def __init__(self, env_id: str, seed: int, kwargs: Mapping[str, Any], stream: Stream = Stream.TRAINING_EPISODES):
        """Find the environment.

        Args:
          env_id: A name registered with gymnasium.
          seed: The run's seed.
          kwargs: Given to `gymnasium.make`, but for `preprocessing`, which makes the environment instead.
          stream: Whether the episodes are training's or evaluation's.

        Raises:
          ValueError: The name is not registered.
          ImportError: A package it needs is not installed.
        """
        self.env_id = env_id
        self.seed = seed
        self._stream = stream
        self._kwargs = dict(kwargs)
        # The spec, not the name: a worker process has registered only what its imports register.
        self._spec = find_spec(env_id)

    def check(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """Make and close one environment; returns its observation and action space.

        Raises:
          ValueError: The environment can't be made with these settings.
          ImportError: A package it needs is not installed.
        """
        try:
            env = make(self._spec, self._kwargs)
            env.close()
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise ImportError(_missing(self.env_id, error)) from error
        except RAISED as error:
            settings = f" with {self._kwargs}" if self._kwargs else ""
            raise ValueError(f"{self.env_id} can't be made{settings}: {one_line(error)}") from error
        return env.observation_space, env.action_space

    def member(self, index: int) -> Callable[[], Member]:
        """A function that makes member `index`; it may be sent to another process."""
        place = (self.env_id, self.seed, index, self._stream)
        return functools.partial(make_member, self._spec, self._kwargs, *place)


def make(spec: EnvSpec, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """Make an environment with its time limit, without gymnasium's checker and notices of newer versions."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*is out of date", module=r"gymnasium\.")
        warnings.filterwarnings("ignore", message=r"pkg_resources is deprecated", module="pygame")
        settings = {"disable_env_checker": True, **kwargs}
        preprocessing = settings.pop("preprocessing", None)
        return gymnasium.make(spec, **settings) if preprocessing is None else preprocessing.make(spec, settings)


def make_member(spec: EnvSpec, kwargs: Mapping[str, Any], env_id: str, seed: int, index: int, stream: Stream) -> Member:
    """Make one member.

    Raises:
      EnvironmentFault: It can't be made, though another could.
    """
    try:
        env = make(spec, kwargs)
    except RAISED as error:
        raise EnvironmentFault(env_id, index, None, f"it can't be made: {one_line(error)}") from error
    return Member(env, env_id, seed, index, stream)


def find_spec(env_id: str) -> EnvSpec:
    """The registration of an environment.

    Raises:
      ValueError: The name is not registered; the message says which ones are near.
    """
    if ":" in env_id:
        module, _, name = env_id.partition(":")
        raise ValueError(
            f"env_id {env_id!r} names a module: import it first (commands take --allow_gin_import={module}, and a gin "
            f"file says import {module}), and name {name!r}"
        )
    for prefix, package in _PLUGINS.items():
        if env_id.startswith(prefix):
            _import_plugin(env_id, package)
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:
        raise ValueError(unknown_env_id(env_id, gymnasium.registry, one_line(error))) from error


def unknown_env_id(env_id: str, known: Iterable[str], reason: str) -> str:
    """One line that names an unknown environment and the registered names nearest to it."""
    names = sorted(known)
    near = difflib.get_close_matches(env_id, names, n=3, cutoff=0.6)
    lowered = {name.lower(): name for name in names}
    near += [
        lowered[name]
        for name in difflib.get_close_matches(env_id.lower(), list(lowered), n=3, cutoff=0.6)
        if lowered[name] not in near
    ]
    hint = (
        f"; did you mean {' or '.join(near[:3])}?"
        if near
        else "; a module of your own that registers it must be imported first (--allow_gin_import=MODULE)"
    )
    return f"unknown environment {env_id!r} ({reason}){hint}"


def _import_plugin(env_id: str, package: str) -> None:
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ImportError(_missing(env_id, error)) from error
    gymnasium.register_envs(module)


def _missing(env_id: str, error: BaseException) -> str:
    extra = next((extra for prefix, extra in _EXTRAS.items() if env_id.startswith(prefix)), None)
    way = f"'ngrl[{extra}]'" if extra else "'ngrl[envs]' or the extra of gymnasium that it names"
    return f"{env_id} needs a package that is not installed ({one_line(error)}): install it with pip install {way}"
