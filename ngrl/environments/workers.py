"""A vector environment with one worker process a member.

Workers come from a fork server, not from a fork of this process: TensorFlow's threads hold locks that a
forked child would never see released, and a fork would inherit the run's open files. A program that uses this
must therefore be importable, i.e. start its work under `if __name__ == "__main__":`.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from ngrl.environments.faults import EnvironmentFault
from ngrl.environments.making import MemberMaker
from ngrl.environments.vector import GymnasiumVector, Transition

# Seconds that workers have to close their environments before they are killed.
_CLOSE_TIMEOUT = 5.0


class WorkerVector(GymnasiumVector):
    """Members in worker processes, stepped at the same time: for environments slower than a millisecond."""

    _vector: AsyncVectorEnv

    def __init__(self, maker: MemberMaker, num_envs: int, timeout: float | None):
        """Start the workers.

        Args:
          maker: Makes the members.
          num_envs: The number of members N.
          timeout: Seconds that a step or reset of all members may take; None waits for ever.

        Raises:
          EnvironmentFault: A worker ended while starting.
        """
        self._timeout = timeout
        try:
            vector = AsyncVectorEnv(
                [maker.member(index, raise_faults=False) for index in range(num_envs)],
                copy=False,  # the bridge copies once, while converting dtypes
                context=_start_method(),
                worker=_work,
                autoreset_mode=AutoresetMode.NEXT_STEP,
            )
        except (EOFError, OSError) as error:
            problem = (
                "a worker process ended while starting; a script that uses them must start its work under "
                'if __name__ == "__main__":'
            )
            raise EnvironmentFault(maker.env_id, None, None, problem) from error
        super().__init__(maker.env_id, vector)

    def reset(self) -> Any:
        with self._answers():
            self._vector.reset_async()
            answer: tuple[Any, dict[str, Any]] = self._vector.reset_wait(self._timeout)
        observation, infos = answer
        _raise_fault(infos)
        return observation

    def step(self, actions: np.ndarray) -> Transition:
        with self._answers():
            self._vector.step_async(actions)
            observation, reward, terminated, truncated, infos = self._vector.step_wait(self._timeout)
        if infos:
            _raise_fault(infos)
        return Transition(observation, reward, terminated, truncated)

    def close(self) -> None:
        """Ask the workers to close, and kill those that don't within five seconds."""
        if self._vector.closed:
            return
        self._vector.closed = True  # gymnasium's own close would wait for ever for a worker that hangs
        for pipe in self._vector.parent_pipes:
            with contextlib.suppress(OSError, AttributeError):  # ended already
                pipe.send(("close", None))
        self._end(_CLOSE_TIMEOUT)

    def _call(self, name: str, *args: Any) -> tuple[Any, ...]:
        with self._answers():
            return self._vector.call(name, *args)

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        """Turn a worker that hangs or has died into an EnvironmentFault, and end all workers then."""
        try:
            yield
        except multiprocessing.TimeoutError as error:
            pipes = self._vector.parent_pipes
            silent = next((index for index, pipe in enumerate(pipes) if not pipe.poll(0)), None)
            self._vector.closed = True
            self._end(0.0)
            problem = f"no answer within {self._timeout:g} s; its process was ended"
            raise EnvironmentFault(self.env_id, silent, None, problem) from error
        except ClosedEnvironmentError as error:
            raise EnvironmentFault(self.env_id, None, None, "its worker processes have ended: load it anew") from error
        except (EOFError, OSError) as error:
            member, code = self._find_dead()
            self._vector.closed = True
            self._end(0.0)
            raise EnvironmentFault(self.env_id, member, None, f"its process ended with exit code {code}") from error

    def _find_dead(self) -> tuple[int | None, int | None]:
        deadline = time.monotonic() + 1.0  # a pipe may break a moment before its process is gone
        while time.monotonic() < deadline:
            for index, process in enumerate(self._vector.processes):
                if process.exitcode is not None:
                    return index, process.exitcode
            time.sleep(0.01)
        return None, None

    def _end(self, patience: float) -> None:
        """Wait for the workers for `patience` seconds in all, then kill those that are left."""
        deadline = time.monotonic() + patience
        for process in self._vector.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        for process in self._vector.processes:
            if process.exitcode is None:
                process.kill()
                process.join()
        for pipe in self._vector.parent_pipes:
            if pipe is not None:
                pipe.close()


def _raise_fault(infos: dict[str, Any]) -> None:
    for fault in infos.get("fault", ()):
        if fault is not None:
            raise fault


def _start_method() -> str:
    if sys.platform == "win32":
        return "spawn"
    # The server imports gymnasium once, so that each worker starts in a few milliseconds.
    multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
    return "forkserver"


def _work(*args: Any) -> None:
    """The worker loop of gymnasium, deaf to Ctrl-C (the parent decides on it), not outliving the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the parent went away
        _async_worker(*args)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # also out of an environment that hangs
