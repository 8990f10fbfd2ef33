"""Members in Ray actors: on this machine or on all of a cluster's, each actor stepping its share of them in turn.

Where an actor is lost, with its process, its node or the way to it, another takes its place and begins the next episode
of each of its members. Nothing that is needed for that, or for a save, is known to the actors alone: the run's process
keeps the number and the actions of every episode in progress.

Imports neither TensorFlow nor TF-Agents: actors import it.
"""

import contextlib
import importlib.util
import math
import re
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import cloudpickle
import numpy as np

from ngrl import cluster
from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.environments.making import MemberMaker
from ngrl.environments.member import Episode
from ngrl.environments.vector import (
    SyncVector,
    Transition,
    VectorEnvironment,
    check_alike,
    concatenated,
    shares,
    waited,
)
from ngrl.environments.workers import close_and_tell
from ngrl.messages import counted

# Seconds that actors have to close their environments before they are ended.
_CLOSE_TIMEOUT = 5.0


class Members(SyncVector):
    """What runs in an actor: some members of a vector environment, one after another."""

    def __init__(self, path: Sequence[str], maker: bytes, members: Sequence[int]):
        """Make the members.

        Args:
          path: The `sys.path` of the run's process, where modules of a user's own may be.
          maker: Makes them; pickled, since it may need that path.
          members: Their indices.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run's process to decide on
        sys.path.extend(entry for entry in path if entry not in sys.path)
        super().__init__(cloudpickle.loads(maker), members)

    def describe(self) -> tuple[str, Any, Any, int | None]:
        """The actor's node, and what members have in common: the spaces and the time limit."""
        import ray

        node = f"{ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"
        return node, self.observation_space, self.action_space, self.time_limit

    def close_and_tell(self) -> list[str]:
        """Close the members; what is to be told of those that can't be."""
        return close_and_tell(self)

    def begin(self, numbers: np.ndarray, seed: int) -> Any:
        """Begin the episode of each member whose number is the member's of `numbers` [N], under a run's seed."""
        self._call("reseed", seed, numbers)
        return self.reset()

    def bring_back(self, episodes: list[Episode], seed: int) -> tuple[Any, np.ndarray]:
        """`restore`, and which members' episodes had ended."""
        return self.restore(seed, episodes), np.array(self._call("is_reset_due"))


class RayVector(VectorEnvironment):
    """Members in Ray actors, all actors stepped at the same time: for environments of 10 ms a step and more."""

    def __init__(
        self,
        maker: MemberMaker,
        num_envs: int,
        actors: int | None,
        address: str | None,
        cpus: float | None,
        timeout: float | None,
        max_replacements: int,
    ):
        """Start the actors.

        Args:
          maker: Makes the members.
          num_envs: The number of members N.
          actors: As in `RayEnvironments`, like the rest.
          address: See there.
          cpus: See there.
          timeout: See there.
          max_replacements: See there.

        Raises:
          ImportError: Ray is not installed.
          EnvironmentFault: There is no Ray at the address, or an actor can't be started.
        """
        if importlib.util.find_spec("ray") is None:
            raise ImportError("backend 'ray' needs the package ray: pip install 'ngrl[sweep]'")
        self.env_id, self.num_envs = maker.env_id, num_envs
        self._cpus, self._timeout, self._max_replacements = cpus, waited(timeout), max_replacements
        self._seed = maker.seed
        self._maker = cloudpickle.dumps(maker)
        self._shares = shares(num_envs, actors)
        self._replaced = np.zeros(len(self._shares), np.int64)  # how often since an episode of the actor's has ended
        self._numbers = np.full(num_envs, -1)
        self._actions: list[list[Any]] = [[] for _ in range(num_envs)]
        self._ended = np.zeros(num_envs, bool)  # whose next step is a reset
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, str] = {}
        self._resources = contextlib.ExitStack()
        reserved = max(1, math.ceil(len(self._shares) * (1 if cpus is None else cpus)))
        try:
            self._resources.enter_context(cluster.connected(address, reserved, 0, "Ray environments"))
        except cluster.RayUnavailableError as error:
            raise EnvironmentFault(self.env_id, None, None, str(error)) from error
        self._resources.callback(self._end)
        lost = self._start(range(len(self._shares)))
        for index, why in lost.items():
            self._fail(f"{self._called(index)} could not be started: {why}")

    @property
    def time_limit(self) -> int | None:
        return self._time_limit

    def reset(self) -> Any:
        self._numbers += 1
        self._actions = [[] for _ in range(self.num_envs)]
        self._ended = np.zeros(self.num_envs, bool)
        answers, gone = self._ask("begin", dict.fromkeys(self._actors, (self._numbers, self._seed)))
        return self._joined(answers | self._replace(gone, self._ended))

    def step(self, actions: np.ndarray) -> Transition:
        for member, begins in enumerate(self._ended):
            if begins:
                self._begin_record(member)
            else:
                self._actions[member].append(np.array(actions[member]))
        answers, gone = self._ask("step", {index: (actions[share],) for index, share in enumerate(self._shares)})
        lost = self._record_losses(gone)
        for index, observation in self._replace(gone, lost).items():
            nothing = np.zeros(len(self._shares[index]), bool)
            answers[index] = Transition(observation, nothing.astype(np.float64), nothing, nothing)
        reward, terminated, truncated = (
            np.concatenate([answers[index][part] for index in range(len(self._shares))]) for part in (1, 2, 3)
        )
        self._ended = terminated | truncated
        if self._replaced.any():
            self._replaced[[bool(self._ended[share].any()) for share in self._shares]] = 0
        observation = self._joined({index: answer.observation for index, answer in answers.items()})
        return Transition(observation, reward, terminated, truncated, lost if gone else None)

    def _begin_record(self, member: int) -> None:
        self._numbers[member] += 1
        self._actions[member] = []

    def _record_losses(self, gone: Mapping[int, str]) -> np.ndarray:
        """Count episodes that were in progress in actors as lost, and the next ones as begun; which these are [N]."""
        lost = np.zeros(self.num_envs, bool)
        for index in gone:
            lost[self._shares[index]] = ~self._ended[self._shares[index]]
        for member in map(int, np.flatnonzero(lost)):
            self._begin_record(member)
        return lost

    def seed(self, seed: int) -> None:
        self._seed = seed
        self._numbers[:] = -1

    def save(self) -> list[Episode]:
        space: Any = self.action_space
        actions = (np.array(part, space.dtype).reshape(-1, *space.shape) for part in self._actions)
        return [Episode(int(number), part) for number, part in zip(self._numbers, actions, strict=True)]

    def restore(self, seed: int, episodes: list[Episode]) -> Any:
        """Replay the actions of each; no time limit holds, since that takes as long as the episodes took."""
        import ray

        self._seed = seed
        self._numbers = np.array([episode.number for episode in episodes])
        self._actions = [list(episode.actions) for episode in episodes]
        arguments = (ray.put(episodes), seed)
        answers, gone = self._ask("bring_back", dict.fromkeys(self._actors, arguments), patient=True)
        answers |= self._replace(gone, np.zeros(self.num_envs, bool), "bring_back", arguments)
        self._ended = np.concatenate([answers[index][1] for index in range(len(self._shares))])
        return self._joined({index: observation for index, (observation, _) in answers.items()})

    def render(self) -> Sequence[Any]:
        answers, gone = self._ask("render", dict.fromkeys(self._actors, ()))
        for index, why in gone.items():
            self._fail(f"{self._called(index)} was lost while it drew: {why}")
        return [frame for index in range(len(self._shares)) for frame in answers[index]]

    def close(self) -> None:
        """Ask the actors to close, and end those that don't within five seconds; a Ray that was started ends too."""
        import ray

        closing = [actor.close_and_tell.remote() for actor in self._actors.values()]
        closed = ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_TIMEOUT)[0] if closing else []
        for told in closed:
            with contextlib.suppress(ray.exceptions.RayError):  # its actor is gone
                for line in ray.get(told):
                    self.warn(line)
        self._resources.close()

    def _start(self, indices: Iterable[int]) -> dict[int, str]:
        """Start actors, in the place of those that are gone; what became of those that didn't start."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor, slots = ray.remote(Members), _slots(ray.nodes())
        for index in indices:
            if index in self._actors:
                ray.kill(self._actors[index])  # it may be alive, and out of reach
            share = [int(member) for member in self._shares[index]]
            if self._cpus is None and slots:
                near = NodeAffinitySchedulingStrategy(slots[index % len(slots)], soft=True)
                placed = actor.options(scheduling_strategy=near)
            else:
                placed = actor.options(scheduling_strategy="SPREAD", num_cpus=self._cpus)
            self._actors[index] = placed.remote(sys.path, self._maker, share)
        described, lost = self._ask("describe", dict.fromkeys(indices, ()), starting=True)
        check_alike(self.env_id, {int(self._shares[index][0]): said[1:3] for index, said in described.items()})
        for index, (node, *common) in described.items():
            self._nodes[index] = node
            self.observation_space, self.action_space, self._time_limit = common
        return lost

    def _replace(
        self, gone: Mapping[int, str], lost: np.ndarray, method: str = "begin", arguments: tuple[Any, ...] | None = None
    ) -> dict[int, Any]:
        """Start others in the place of actors that are gone; what they answer to the method.

        Args:
          gone: Why each is.
          lost: Whose episodes were lost with them [N].
          method: What the new ones are to do: to begin the episodes that are next, by default.
          arguments: Of the method.
        """
        answers: dict[int, Any] = {}
        pending = dict(gone)
        while pending:
            for index, why in pending.items():
                self._replaced[index] += 1
                if self._replaced[index] > self._max_replacements:
                    times = f"{counted(self._replaced[index], 'time')} without an end of an episode of its between"
                    self._fail(f"{self._called(index)} was lost {times}: {why}")
            before = dict(self._nodes)
            failed = self._start(pending)
            sent = arguments if arguments is not None else (self._numbers, self._seed)
            started = dict.fromkeys((index for index in pending if index not in failed), sent)
            begun, failed_later = self._ask(method, started, patient=method != "begin")
            for index in begun:
                told = "episode was lost and is begun anew", "episodes were lost and are begun anew"
                count = counted(int(lost[self._shares[index]].sum()), *told)
                self.warn(
                    f"{self.env_id}: {self._called(index)} on {before[index]} is gone, since {gone[index]}; another on "
                    f"{self._nodes[index]} has taken its place, and {count}"
                )
            answers |= begun
            pending = failed | failed_later
        return answers

    def _ask(
        self, method: str, arguments: Mapping[int, tuple[Any, ...]], *, starting: bool = False, patient: bool = False
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Call a method of actors, all before any is waited for.

        Args:
          method: Its name.
          arguments: Those for each actor.
          starting: Whether the actors have only just been asked for.
          patient: Whether to wait for ever.

        Returns:
          What they answered, and why some are gone.

        Raises:
          EnvironmentFault: A member failed, or an actor doesn't answer.
        """
        import ray
        from ray import exceptions

        if len(self._actors) < len(self._shares):
            raise EnvironmentFault(self.env_id, None, None, "its Ray actors have ended: load it anew")
        calls = {index: getattr(self._actors[index], method).remote(*sent) for index, sent in arguments.items()}
        timeout = None if patient else self._timeout
        answers, gone = {}, {}
        try:
            try:
                return dict(zip(calls, ray.get(list(calls.values()), timeout=timeout), strict=True)), {}
            except exceptions.RayError as error:
                if isinstance(error, exceptions.RayTaskError | exceptions.GetTimeoutError):
                    raise
            for index, call in calls.items():
                try:
                    answers[index] = ray.get(call, timeout=timeout)
                except exceptions.RayError as error:
                    if isinstance(error, exceptions.RayTaskError | exceptions.GetTimeoutError):
                        raise
                    gone[index] = _why(error)
            return answers, gone
        except exceptions.GetTimeoutError:
            silent = next((index for index, call in calls.items() if not ray.wait([call], timeout=0)[0]), 0)
            missing = "has not started" if starting else "did not answer"
            hint = ": is there room for it in the cluster?" if starting else "; it was ended"
            self._fail(f"{self._called(silent)} {missing} within {timeout:g} s{hint}")
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, EnvironmentFault):
                raise error.cause from None
            raise EnvironmentFault(self.env_id, None, None, one_line(error.cause)) from error

    def _joined(self, observations: Mapping[int, Any]) -> Any:
        return concatenated([observations[index] for index in range(len(self._shares))])

    def _called(self, index: int) -> str:
        share = self._shares[index]
        members = f"member {share[0]}" if len(share) == 1 else f"members {share[0]} to {share[-1]}"
        return f"Ray actor {index} ({members})"

    def _fail(self, problem: str) -> NoReturn:
        self._resources.close()
        raise EnvironmentFault(self.env_id, None, None, problem)

    def _end(self) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()


def _slots(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The ids of the nodes that run programs, each as often as it has processors, and in turn."""
    cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]}
    places = sorted(((turn + 0.5) / count, node) for node, count in cpus.items() for turn in range(count))
    return [node for _, node in places]


def _why(error: BaseException) -> str:
    """What Ray says of the end of an actor, in a few words."""
    from ray.exceptions import ActorUnavailableError

    if isinstance(error, ActorUnavailableError):  # the process is gone or the node, or the way to it
        return "it can't be reached"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if getattr(error, "actor_init_failed", False):
        return lines[-1].strip()  # of a traceback
    found = re.search(r"because (.*?)\.", str(error))
    return found[1] if found else lines[0]
