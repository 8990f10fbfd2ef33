"""Checking an environment before anything is trained with it: gymnasium's own checks, and steps as a run takes."""

import contextlib
import copy
import dataclasses
import hashlib
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces as gym_spaces
from gymnasium.utils import env_checker

from ngrl import seeding
from ngrl._tf_agents import time_step as ts
from ngrl.checks import check_count
from ngrl.environments import spaces
from ngrl.environments.backends import AsyncEnvironments, RayEnvironments, SyncEnvironments
from ngrl.environments.bridge import GymnasiumEnvironment, StepArrays
from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.environments.loading import Environment
from ngrl.environments.making import find_spec, make
from ngrl.messages import RAISED, counted
from ngrl.seeding import Stream
from ngrl.signals import heed

RIGHT, NOTE, PROBLEM = "right", "note", "problem"
# Seconds after which no more steps are played.
_LONGEST_S = 30.0
_LOST = "an interrupted run can't go on bit for bit"
# What gymnasium says of observations without bounds, of which ngrl needs none.
_UNBOUNDED = re.compile(r"A Box observation space (minimum|maximum) value is -?infinity")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Finding(NamedTuple):
    """One line of a report: `kind` is "right", "note" or "problem"."""

    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class EnvironmentReport:
    """What `check_environment` found; as text a line each.

    Attributes:
      env_id: The environment's name.
      findings: What is right, what is worth a note, and what is a problem.
    """

    env_id: str
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems alone; empty where the environment is one to train with."""
        return tuple(text for kind, text in self.findings if kind == PROBLEM)

    def __str__(self) -> str:
        count = len(self.problems)
        first = f"{self.env_id}: {counted(count, 'problem') if count else 'no problem found'}"
        return "\n".join([first, *(f"  {kind:8} {text}" for kind, text in self.findings)])


def check_environment(environment: Environment | str, seed: int = 0, steps: int = 1_000) -> EnvironmentReport:
    """Check an environment as a run will use it, in less than a minute where steps take no longer than milliseconds.

    Gymnasium's `check_env` looks at it, then one of it is played with random actions: whether spaces are of kinds that
    ngrl takes, what it answers is as they say and finite, episodes end, the same seed and actions give the same
    episodes bit for bit, and whether it can be made and go on in a worker process.

    A program that calls this must start its work under `if __name__ == "__main__":`, for the worker process.

    Args:
      environment: Its settings, or a name registered with gymnasium.
      seed: Of episodes and actions, in [0, 2^31).
      steps: How many are played; fewer where they take more than half a minute.

    Returns:
      What was found. What the environment does wrong is in it, and not raised.

    Raises:
      ValueError: `seed` or `steps` is out of its range, or `environment` is neither a name nor settings.
    """
    if isinstance(environment, str):
        environment = Environment(environment)
    if not isinstance(environment, Environment):
        kind = type(environment).__name__
        raise ValueError(f"environment must be a name that is registered with gymnasium, or an Environment, got {kind}")
    check = _Check(environment, seeding.check_seed(seed), check_count("steps", steps))
    check.run()
    return EnvironmentReport(environment.env_id, tuple(check.findings))


class _Check:
    """Looks at one environment, and keeps what it finds."""

    def __init__(self, environment: Environment, seed: int, steps: int):
        self.findings: list[Finding] = []
        self._seed = seed
        self._steps = steps
        given = environment.backend
        alone, self._apart, self._needs_worker = given, AsyncEnvironments(), False
        if isinstance(given, AsyncEnvironments | RayEnvironments):
            alone, self._needs_worker = AsyncEnvironments(given.timeout), True
            self._apart = alone
        elif isinstance(given, SyncEnvironments):
            alone, self._needs_worker = SyncEnvironments(), given.cores > 1
        self._in_worker = alone is self._apart
        # Other backends may know names that gymnasium doesn't.
        self._is_gymnasium = self._in_worker or isinstance(given, SyncEnvironments)
        self._alone = dataclasses.replace(environment, num_envs=1, backend=alone)

    def run(self) -> None:
        """Make every check that those before allow, with one environment at a time: some tools bear no second one."""
        played = state = None
        with self._problems(), contextlib.closing(self._alone.load(self._seed)) as env:
            self._tell_spaces(env)
            with self._problems():
                played = self._play(env)
                state = env.get_state() if env.can_restore else None
        if played is None:
            return
        if self._is_gymnasium:
            self._ask_gymnasium()
        with self._problems():
            if self._repeats(*played) and self._is_gymnasium:
                self._go_on_in_a_worker(state)

    def _add(self, kind: str, text: str) -> None:
        self.findings.append(Finding(kind, text))

    @contextlib.contextmanager
    def _problems(self, consequence: str = "", kind: str = PROBLEM) -> Iterator[None]:
        """Note what is raised, as a problem unless it is of another kind."""
        try:
            yield
        except (EnvironmentFault, ValueError, ImportError) as error:  # whose messages are ngrl's own
            self._add(kind, f"{error}{consequence}")
        except RAISED as error:
            heed(error)
            self._add(kind, f"{self._alone.env_id}: {one_line(error)}{consequence}")

    def _tell_spaces(self, played: GymnasiumEnvironment) -> None:
        shapes = [
            f"{name} {spec.shape} {np.dtype(spec.dtype)}" for name, spec in spaces.leaves(played.observation_spec())
        ]
        self._add(RIGHT, f"spaces that ngrl takes: {', '.join(shapes)}; {_agents_for(played.action_space)}")

    def _ask_gymnasium(self) -> None:
        """What gymnasium's own checker says of the environment without wrappers; it raises, or warns.

        Either is a note: it asks for more than ngrl does, whose own checks tell what a run would stumble over.
        """
        before = len(self.findings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                env = make(find_spec(self._alone.env_id), self._alone.kwargs or {})
                with contextlib.closing(env):
                    env_checker.check_env(env.unwrapped, skip_render_check=True)
            except RAISED as error:
                heed(error)
                self._add(NOTE, f"gymnasium's checker: {one_line(error)}")
        lines = [" ".join(_COLOURS.sub("", str(one.message)).removeprefix("WARN: ").split()) for one in caught]
        for line in dict.fromkeys(lines):
            if not _UNBOUNDED.match(line):
                self._add(NOTE, f"gymnasium's checker: {line}")
        if len(self.findings) == before:
            self._add(RIGHT, "gymnasium's checker finds nothing")

    def _play(self, played: GymnasiumEnvironment) -> tuple[list[np.ndarray], list[dict[str, bytes]]]:
        """Play with random actions; them, and a fingerprint of each answer."""
        choose = _chooser(played, self._seed)
        step, spent, ends, outside = played.reset_arrays(), 0.0, 0, None
        actions: list[np.ndarray] = []
        seen = [_fingerprint(step)]
        while len(actions) < self._steps and spent < _LONGEST_S:
            actions.append(choose())
            started = time.perf_counter()
            step = played.step_arrays(actions[-1])
            spent += time.perf_counter() - started
            seen.append(_fingerprint(step))
            ends += int(step.step_type[0] == ts.StepType.LAST)
            outside = outside or _outside(played.observation_space, step.observation)
        checked = ", finite" if self._alone.check_finite else ""
        self._add(
            RIGHT, f"{counted(len(actions), 'step')} with random actions: all answers of the spaces' kinds{checked}"
        )
        if outside is not None:
            self.findings.append(outside)
        self._tell_ends(ends, len(actions), played.time_limit)
        where = "a worker process" if self._in_worker else "one process"
        self._add(RIGHT, f"{len(actions) / max(spent, 1e-9):,.0f} steps a second in {where}")
        return actions, seen

    def _tell_ends(self, ends: int, steps: int, limit: int | None) -> None:
        told = "no time limit was seen" if limit is None else f"the time limit is {counted(limit, 'step')}"
        if ends:
            self._add(RIGHT, f"{counted(ends, 'episode came to its end', 'episodes came to their ends')}, {told}")
        elif limit is not None:
            self._add(RIGHT, f"no episode ended within {counted(steps, 'step')}, but {told}")
        else:
            self._add(
                NOTE,
                f"no episode ended within {counted(steps, 'step')}, and {told}: give it max_episode_steps where it is "
                "registered, or evaluations are broken off",
            )

    def _repeats(self, actions: Sequence[np.ndarray], seen: Sequence[dict[str, bytes]]) -> bool:
        """Whether another of the same seed answers the same actions alike, bit for bit."""
        episode, at = -1, 0
        with contextlib.closing(self._alone.load(self._seed)) as again:
            for number, before in enumerate(seen):
                step = again.step_arrays(actions[number - 1]) if number else again.reset_arrays()
                episode, at = (episode + 1, 0) if step.step_type[0] == ts.StepType.FIRST else (episode, at + 1)
                now = _fingerprint(step)
                differing = [name for name, value in now.items() if value != before[name]]
                if differing:
                    place = f"episode {episode}, {f'step {at}' if at else 'reset'}"
                    problem = f"equal seeds and actions gave another {differing[0]}: {_LOST}"
                    self._add(PROBLEM, f"{self._alone.env_id}, {place}: {problem}")
                    return False
        self._add(RIGHT, "equal seeds and actions give equal episodes, bit for bit")
        return True

    def _go_on_in_a_worker(self, state: dict[str, np.ndarray] | None) -> None:
        """Make one in a worker process, and bring the episode in progress back there, as a resumed run does."""
        apart = dataclasses.replace(self._alone, backend=self._apart)
        where, kind = "; this is in a worker process", PROBLEM if self._needs_worker else NOTE
        with self._problems(where, kind), contextlib.closing(apart.load(self._seed)) as other:
            if state is None:
                other.reset_arrays()
                self._add(RIGHT, "it can be made in a worker process")
                return
            with self._problems(f"; {_LOST}"):
                other.set_state(state)
                self._add(
                    RIGHT, "it can be made in a worker process, where an episode in progress goes on, bit for bit"
                )


def _agents_for(space: gym_spaces.Space) -> str:
    """Which agents take actions of a space that `spaces.action_spec` takes."""
    if isinstance(space, gym_spaces.Discrete):
        return "one discrete action, for every agent"
    if isinstance(space, gym_spaces.MultiDiscrete | gym_spaces.MultiBinary):
        return "several discrete actions at once, for the on-policy agents: REINFORCE, NPG, TRPO, PPO, ACKTR and NAC"
    if np.issubdtype(space.dtype, np.floating):
        return "continuous actions, for ACER and the on-policy agents: REINFORCE, NPG, TRPO, PPO, ACKTR and NAC"
    return "actions of integers, for agents of your own alone"


def _chooser(played: GymnasiumEnvironment, seed: int) -> Callable[[], np.ndarray]:
    """A function that draws actions [1, ...] of the space, as the spec has them."""
    space, spec = copy.deepcopy(played.action_space), played.action_spec()
    space.seed(seeding.integer(seed, Stream.CHECK_ACTIONS))
    start = spaces.describe_converter(space).get("start", 0)
    return lambda: (np.asarray(space.sample()) - start).reshape(1, *spec.shape).astype(spec.dtype)


def _fingerprint(step: StepArrays) -> dict[str, bytes]:
    """What tells each part of an answer from others, by name."""
    ending = np.stack([step.discount, step.step_type])
    parts = [*spaces.leaves(step.observation), ("reward", step.reward), ("end of the episode", ending)]
    return {name: hashlib.blake2b(array.tobytes(), digest_size=16).digest() for name, array in parts}


def _outside(space: gym_spaces.Space, observation: Any) -> Finding | None:
    """Where an observation leaves the bounds of its space: a problem with integers, which are scaled by them."""
    for name, box, array in _boxes(space, observation):
        with np.errstate(over="ignore"):
            low, high = (bound.astype(array.dtype) for bound in (box.low, box.high))
        beyond = (array < low) | (array > high)
        if beyond.any():
            index = tuple(np.argwhere(beyond)[0])
            is_scaled = array.dtype.kind in "iu"
            told = f"{array[index]} where they are {low[index[1:]]} to {high[index[1:]]}"
            wanted = "" if is_scaled else ", which ngrl doesn't need"
            return Finding(PROBLEM if is_scaled else NOTE, f"{name} leaves the bounds of its space{wanted}: {told}")
    return None


def _boxes(space: Any, observation: Any, name: str = "observation") -> Iterator[tuple[str, gym_spaces.Box, np.ndarray]]:
    """The parts of an observation that have bounds which nothing else checks."""
    if isinstance(space, gym_spaces.Dict):
        for key, part in space.spaces.items():
            yield from _boxes(part, observation[key], f"{name}[{key!r}]")
    elif isinstance(space, gym_spaces.Box):
        yield name, space, observation
