"""What the tests of faults share: processes that can be killed, small experiments, a disk that is soon full."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fork_server import Server, has_ended


class Process:
    """A process of `ngrl.launch`."""

    def __init__(self, server: Server, output: Path, **request: Any):
        self._server = server
        self._output = output
        self.pid = server.ask(output=str(output), **request)
        self.code: int | None = None

    def wait(self) -> int:
        """Wait for its end; its exit code, negative where a signal ended it."""
        if self.code is None:
            self.code = self._server.ask(wait=self.pid)
        return self.code

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Wait until something has happened, which must not be its end."""
        deadline = time.monotonic() + 120
        while not condition():
            assert not has_ended(self.pid), self.lines
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.01)

    def stop(self) -> None:
        """Let it do nothing until `go_on`."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it continue after `stop`."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        os.kill(self.pid, number)
        return self.wait()

    @property
    def lines(self) -> list[str]:
        """What it printed so far."""
        return self._output.read_text().splitlines()


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts `ngrl.launch` with arguments in the test's own folder; ends what still runs after the test."""
    started: list[Process] = []

    def start(*argv: str, **options: Any) -> Process:
        output = tmp_path / f"output-{len(started)}.txt"
        started.append(Process(server, output, argv=argv, cwd=str(tmp_path), **options))
        return started[-1]

    yield start
    for process in started:
        if process.code is None:
            process.kill(signal.SIGKILL)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a disk of so many bytes, `tmp_path / "disk"`; called again, it changes the size."""
    disk = tmp_path / "disk"
    mounted = False

    def mount(size: int) -> Path:
        nonlocal mounted
        disk.mkdir(exist_ok=True)
        options = f"size={size}" + (",remount" if mounted else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no permission to mount a tmpfs: {done.stderr.strip()}")
        mounted = True
        return disk

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
