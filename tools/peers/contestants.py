"""Worker processes, blocked on standard input until it is their turn."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peers.rows import PEERS, Row
from peers.worker_protocol import Settings

HERE = Path(__file__).resolve().parent
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
# For threads that still spin after their work before they sleep.
SETTLE_SECONDS = 0.2


class WorkerError(Exception):
    """A worker ended before its time; the message is one line."""


def worker_environment(threads: int) -> dict[str, str]:
    """The process environment: no GPU, which no row is about, and so many threads; 0 leaves each library's default."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
    for name in (*THREAD_VARIABLES, "PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    if threads:
        environment.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    return environment


class Contestant:
    """A worker process.

    Args:
      label: Its name in messages.
      command: The command line; the settings are appended.
      settings: What to train.
    """

    def __init__(self, label: str, command: list[str], settings: Settings):
        self.label = label
        self.settings = settings
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*command, settings.to_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=worker_environment(settings.threads),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def wait_until_ready(self) -> None:
        """Return when it has warmed up.

        Raises:
          WorkerError: It ended instead.
        """
        line = self._read()
        if line != "ready":
            raise WorkerError(f"{self.label} said {line!r} instead of 'ready'")

    def run(self, env_steps: int) -> dict[str, Any]:
        """What it measured over so many environment steps.

        Raises:
          WorkerError: It ended instead.
        """
        time.sleep(SETTLE_SECONDS)
        with contextlib.suppress(BrokenPipeError):  # `_read` says why
            self._requests.write(f"run {env_steps}\n")
            self._requests.flush()
        return json.loads(self._read())

    def _read(self) -> str:
        line = self._answers.readline()
        if line:
            return line.strip()
        code = self._process.wait()
        self._errors.seek(0)
        said = [text.strip() for text in self._errors if text.strip()] or ["it said nothing"]
        raise WorkerError(f"{self.label} ended with exit code {code}: {said[-1]}")

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()


def ngrl_contestant(settings: Settings) -> Contestant:
    """The worker of ngrl, under the Python that runs this."""
    worker = "ngrl_worker.py" if settings.gin_file else "ngrl_steps_worker.py"
    return Contestant("ngrl", [sys.executable, str(HERE / worker)], settings)


def peer_contestant(row: Row, settings: Settings, pythons: Mapping[str, Path]) -> Contestant:
    """The row's peer, under the Python that has it, of those by environment."""
    peer = PEERS[row.peer]
    python = pythons.get(peer.environment, sys.executable)
    return Contestant(peer.name, [str(python), str(HERE / peer.worker)], settings)
