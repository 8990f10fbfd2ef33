"""A vector environment whose members are shared out among worker processes.

Workers come from a fork server, not from a fork of this process: TensorFlow's threads hold locks that a
forked child would never see released, and a fork would inherit the run's open files. A program that uses this
must therefore be importable, i.e. start its work under `if __name__ == "__main__":`.

gymnasium's own has a process for each member: on two cores eight of MuJoCo's robots then take longer than in one
process, since each step of each is a message and an answer.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import numpy as np
from gymnasium import spaces

from ngrl.environments.faults import EnvironmentFault, one_line
from ngrl.environments.making import MemberMaker
from ngrl.environments.member import Episode
from ngrl.environments.vector import (
    SyncVector,
    Transition,
    VectorEnvironment,
    check_alike,
    concatenated,
    no_picture,
    shares,
    waited,
)
from ngrl.messages import RAISED
from ngrl.signals import handled

# Seconds that workers have to close their environments before they are killed.
_CLOSE_TIMEOUT = 5.0
# Seconds that one waits busily where each process has a core: to be woken takes as long as MuJoCo takes for a step.
_BUSY_S = 0.002


class WorkerVector(VectorEnvironment):
    """Members in worker processes, which step theirs at the same time: for environments slower than quick ones."""

    def __init__(
        self,
        maker: MemberMaker,
        num_envs: int,
        timeout: float | None,
        workers: int | None = None,
        takes_part: bool = False,
        check: Callable[[spaces.Space, spaces.Space], object] | None = None,
    ):
        """Start the workers.

        Args:
          maker: Makes the members.
          num_envs: The number of members N.
          timeout: Seconds that a step or reset of all members may take, and the making of each; None waits for ever.
          workers: The number of processes; None is one for each member.
          takes_part: Whether this process is one of them, and each waits busily for the others, on a core of its own.
          check: Refuses the spaces of one that is made before the members; None makes none, and members alone.

        Raises:
          EnvironmentFault: A worker ended while starting, or a member was not made in time.
          ValueError: An environment can't be made with these settings, or what `check` raises.
          ImportError: A package it needs is not installed.
        """
        self.env_id, self.num_envs, self._timeout = maker.env_id, num_envs, waited(timeout)
        self._shares = shares(num_envs, workers)
        self._closed = False
        self._own = SyncVector(maker, self._shares[0].tolist()) if takes_part else None
        self._theirs = self._shares[1:] if takes_part else self._shares
        self._busy_s = _BUSY_S if takes_part else 0.0
        self.processes: list[Any] = []
        self._pipes: list[Connection] = []
        # Before multiprocessing asks for their end by a SIGTERM, which they don't heed, and waits for it.
        util.Finalize(self, _kill, (self.processes,), exitpriority=0)
        context: Any = multiprocessing.get_context(_start_method())
        pickled = cloudpickle.dumps(maker)
        try:
            for share in self._theirs:
                pipe, theirs = context.Pipe()
                self._pipes.append(pipe)
                arguments = (theirs, pickled, share.tolist(), self._busy_s, check is not None)
                process = context.Process(target=_work, args=arguments, daemon=True)
                self.processes.append(process)
                process.start()
                theirs.close()  # else the end of the worker wouldn't be heard
            shared = zip(self._pipes, self._theirs, strict=True)
            described = _checked([self._started(pipe, share.tolist(), check) for pipe, share in shared])
            described[:0] = [_described(self._own)] if self._own is not None else []
            firsts = (int(share[0]) for share in self._shares)
            check_alike(maker.env_id, {first: answer[:2] for first, answer in zip(firsts, described, strict=True)})
        except (EOFError, OSError) as error:
            self._end(0.0)
            problem = (
                "a worker process ended while starting; a script that uses them must start its work under "
                'if __name__ == "__main__":'
            )
            raise EnvironmentFault(maker.env_id, None, None, problem) from error
        except BaseException:
            self._end(0.0)
            raise
        self.observation_space, self.action_space, self._time_limit, self._render_mode = described[0]

    def _started(
        self, pipe: Connection, share: list[int], check: Callable[[spaces.Space, spaces.Space], object] | None
    ) -> Any:
        """What a worker says of its members once they are made, or the fault of one."""
        pipe.recv()  # the process has begun, which takes as long as the machine does
        if check is not None and share[0] == 0:
            made = self._made(pipe, 0)
            if isinstance(made, Exception):
                raise made
            check(*made)
        for member in share:
            if (fault := self._made(pipe, member)) is not None:
                return fault
        return pipe.recv()

    def _made(self, pipe: Connection, member: int) -> Any:
        """What a worker says where a member has been made."""
        if not pipe.poll(self._timeout):
            problem = f"it was not made within {self._timeout:g} s; its process was ended"
            raise EnvironmentFault(self.env_id, member, None, problem)
        return pipe.recv()

    @property
    def time_limit(self) -> int | None:
        return self._time_limit

    def reset(self) -> Any:
        return concatenated(self._ask("reset"))

    def step(self, actions: np.ndarray) -> Transition:
        answers = self._ask("step", each=[actions[share] for share in self._shares])
        observations, *rest = zip(*(answer[:4] for answer in answers), strict=True)
        reward, terminated, truncated = map(np.concatenate, rest)
        return Transition(concatenated(observations), reward, terminated, truncated)

    def seed(self, seed: int) -> None:
        self._ask("seed", seed)

    def save(self) -> list[Episode]:
        return [episode for episodes in self._ask("save") for episode in episodes]

    def restore(self, seed: int, episodes: list[Episode]) -> Any:
        """Replay the actions of each; no time limit holds, since that takes as long as the episodes took."""
        return concatenated(self._ask("restore", seed, episodes, patient=True))

    def render(self) -> Sequence[Any]:
        if self._render_mode != "rgb_array":
            raise no_picture(self.env_id)
        return [frame for frames in self._ask("render") for frame in frames]

    def close(self) -> None:
        """Ask the workers to close, and kill those that don't within five seconds."""
        if self._closed:
            return
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # ended already
                pipe.send(None)
        self._end(_CLOSE_TIMEOUT)

    def _ask(self, method: str, *given: Any, each: Sequence[Any] | None = None, patient: bool = False) -> list[Any]:
        """Call a method of every process's members, all before any is waited for; what they answered.

        Args:
          method: Its name.
          given: Its arguments, the same for all.
          each: One more for each process.
          patient: Whether to wait for ever.

        Raises:
          EnvironmentFault: A member failed, or a worker hangs or has died; then all are ended.
        """
        if self._closed:
            raise EnvironmentFault(self.env_id, None, None, "its worker processes have ended: load it anew")
        deadline = None if patient or self._timeout is None else time.monotonic() + self._timeout
        answers: list[Any] = []
        try:
            sent = [given if each is None else (*given, one) for one in each or self._shares]
            for pipe, arguments in zip(self._pipes, sent[-len(self._theirs) :], strict=True):
                pipe.send((method, arguments))
            if self._own is not None:
                answers.append(_answered(self._own, method, sent[0]))
            for pipe in self._pipes:
                answers.append(self._answer(pipe, deadline))
        except multiprocessing.TimeoutError:
            self._fail(len(answers), f"no answer within {self._timeout:g} s; its process was ended")
        except (EOFError, OSError):
            dead, code = self._find_dead()
            self._fail(dead, f"its process ended with exit code {code}")
        except BaseException:  # Ctrl-C: answers that nobody has taken would be taken for those to the next question
            self._end(0.0)
            raise
        return _checked(answers)

    def _answer(self, pipe: Connection, deadline: float | None = None) -> Any:
        _wait_busily(pipe, self._busy_s)
        if deadline is not None and not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise multiprocessing.TimeoutError
        return pipe.recv()

    def _fail(self, index: int | None, problem: str) -> NoReturn:
        """Tell of a worker that is of no more use, and end all of them."""
        self._end(0.0)
        share = [] if index is None else self._shares[index].tolist()
        if len(share) > 1:
            problem = f"members {share[0]} to {share[-1]}: {problem}"
        raise EnvironmentFault(self.env_id, share[0] if len(share) == 1 else None, None, problem)

    def _find_dead(self) -> tuple[int | None, int | None]:
        deadline = time.monotonic() + 1.0  # a pipe may break a moment before its process is gone
        while time.monotonic() < deadline:
            for index, process in enumerate(self.processes, start=len(self._shares) - len(self._theirs)):
                if process.exitcode is not None:
                    return index, process.exitcode
            time.sleep(0.01)
        return None, None

    def _end(self, patience: float) -> None:
        """Wait for the workers for `patience` seconds in all, then kill those that are left."""
        self._closed = True
        told = [] if self._own is None else close_and_tell(self._own)
        deadline = time.monotonic() + patience
        for pipe in self._pipes if patience else ():
            with contextlib.suppress(EOFError, OSError):
                told += pipe.recv() if pipe.poll(max(0.0, deadline - time.monotonic())) else []
        for line in told:
            self.warn(line)
        for process in self.processes:
            if process.pid is not None:
                process.join(max(0.0, deadline - time.monotonic()))
        _kill(self.processes)
        for pipe in self._pipes:
            pipe.close()


def close_and_tell(vector: SyncVector) -> list[str]:
    """Close some members; what is to be told of those that can't be, where the run's warnings go."""
    told: list[str] = []
    vector.warn = told.append  # type: ignore[method-assign]
    vector.close()
    return told


def _kill(processes: Iterable[Any]) -> None:
    """End processes that have been started and haven't ended."""
    for process in processes:
        if process.pid is not None and process.exitcode is None:
            process.kill()
            process.join()


def _checked(answers: Sequence[Any]) -> list[Any]:
    """The answers, unless one is the fault of a member."""
    for answer in answers:
        if isinstance(answer, EnvironmentFault):
            raise answer
    return list(answers)


def _start_method() -> str:
    if sys.platform == "win32":
        return "spawn"
    # The server imports gymnasium once, so that each worker starts in a few milliseconds.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    return "forkserver"


def _work(pipe: Connection, maker: bytes, members: Sequence[int], busy_s: float, checks: bool) -> None:
    """Make some members and do what is asked of them, deaf to Ctrl-C and SIGTERM, not outliving the parent.

    Both may go to all processes of a run (a terminal, `timeout`, SLURM), and the parent still needs these for its last
    steps and its checkpoint.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # Not ignored, which programs that an environment starts would inherit, and not end when it asks them to.
    deaf = handled(lambda number, frame: None, signal.SIGTERM)
    with contextlib.suppress(EOFError, OSError), deaf:  # the parent went away
        made: MemberMaker = cloudpickle.loads(maker)
        pipe.send(None)  # from here on it is the environment that takes time
        if checks and members[0] == 0:
            pipe.send(_tried(made))
        try:
            vector = SyncVector(made, members, lambda: pipe.send(None))
        except EnvironmentFault as fault:
            pipe.send(fault)
            return
        except RAISED as error:
            pipe.send(EnvironmentFault(made.env_id, None, None, one_line(error)))
            return
        pipe.send(_described(vector))
        while (asked := pipe.recv()) is not None:
            pipe.send(_answered(vector, *asked))
            _wait_busily(pipe, busy_s)
        pipe.send(close_and_tell(vector))


def _tried(maker: MemberMaker) -> Any:
    """What `MemberMaker.check` returns or raises."""
    try:
        return maker.check()
    except (ValueError, ImportError) as error:
        return error


def _described(vector: SyncVector) -> tuple[Any, ...]:
    """What members have in common."""
    return vector.observation_space, vector.action_space, vector.time_limit, vector.render_mode


def _answered(vector: SyncVector, method: str, arguments: tuple[Any, ...]) -> Any:
    """What a method of some members returns, or the fault that it raises."""
    try:
        return getattr(vector, method)(*arguments)
    except EnvironmentFault as fault:
        return fault
    except RAISED as error:
        return EnvironmentFault(vector.env_id, None, None, one_line(error))


def _wait_busily(pipe: Connection, seconds: float) -> None:
    """Wait for what comes next without being put to sleep, so long."""
    if seconds:
        end = time.monotonic() + seconds
        while not pipe.poll(0) and time.monotonic() < end:
            pass


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # also out of an environment that hangs
