"""A run's directory: whose it is, who writes to it, and what `run.json` says."""

import datetime
import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import ngrl


class RunDirectoryError(RuntimeError):
    """The directory can't be used for this run; the message is one line."""


# What may differ between a run and its continuation: how long it goes on and what is reported or kept.
_FREE_TO_CHANGE = frozenset(
    f"run.{name}"
    for name in (
        "num_env_steps",
        "num_episodes",
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "eval_episodes",
        "capture_video",
    )
)
_PACKAGES = ("tensorflow", "tf-keras", "tf-agents", "gymnasium", "numpy", "tensorboard", "gin-config")


class RunDirectory:
    """A directory that one process at a time writes one experiment to.

    Args:
      path: The directory; made when it doesn't exist.
      config: The experiment's bindings, name to value as text. They identify the experiment.

    Raises:
      RunDirectoryError: Another process writes to it, it holds another experiment, or it holds foreign files.
    """

    def __init__(self, path: Path, config: Mapping[str, str]):
        self.path = path
        self._config = dict(config)
        if path.exists() and not path.is_dir():
            raise RunDirectoryError(f"{path} is a file, not a run directory")
        foreign = path.is_dir() and any(path.iterdir()) and not self._run_json.exists()
        if foreign and not (path / "run.lock").exists():
            raise RunDirectoryError(f"{path} holds files, but no run: choose another --root_dir")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"can't make the run directory {path}: {error.strerror}") from error
        self._lock = self._take_lock()
        try:
            self._check_experiment()
        except RunDirectoryError:
            self.close()
            raise

    @property
    def _run_json(self) -> Path:
        return self.path / "run.json"

    def _take_lock(self) -> Any:
        lock = (self.path / "run.lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise RunDirectoryError(f"{self.path} is in use by process {owner}") from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def _check_experiment(self) -> None:
        if not self._run_json.exists():
            return
        check_same_experiment(self.path, self.read().get("config", {}), self._config)

    @property
    def checkpointed(self) -> bool:
        """Whether this run has ever written a checkpoint."""
        return self._run_json.exists() and bool(self.read().get("checkpointed"))

    def read(self) -> dict[str, Any]:
        """The content of `run.json`.

        Raises:
          RunDirectoryError: It can't be read.
        """
        try:
            return json.loads(self._run_json.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunDirectoryError(f"can't read {self._run_json}: {error}") from error

    def write(self, **values: Any) -> None:
        """Set values in `run.json`, which is replaced as a whole."""
        content = self.read() if self._run_json.exists() else _provenance()
        content.update(values, config=self._config)
        write_json(self._run_json, content)

    def close(self) -> None:
        """Let other processes use the directory."""
        self._lock.close()


def check_same_experiment(path: Path, saved: Mapping[str, str], config: Mapping[str, str]) -> None:
    """Refuse a directory whose run differs in more than its length and what is reported of it.

    Raises:
      RunDirectoryError: It does.
    """
    differing = [
        f"{name} ({saved.get(name, 'unset')} there, {config.get(name, 'unset')} here)"
        for name in sorted(set(saved) | set(config))
        if saved.get(name) != config.get(name) and name not in _FREE_TO_CHANGE
    ]
    if differing:
        shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise RunDirectoryError(f"{path} belongs to another experiment: {shown}; choose another --root_dir")


def move_aside(path: Path) -> Path | None:
    """Rename an existing run directory so that a new run can begin at `path`; nothing is deleted.

    Returns:
      The new name, or None where there was nothing to move.

    Raises:
      RunDirectoryError: A running process uses it, or it is no run directory.
    """
    path = path.resolve()
    if not path.exists():
        return None
    lock_path = path / "run.lock"
    if not lock_path.exists():
        if path.is_dir() and not any(path.iterdir()):
            return None
        raise RunDirectoryError(f"{path} is no run of ngrl's: choose another --root_dir")
    with lock_path.open("r", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunDirectoryError(f"{path} is in use by process {lock.read().strip()}") from None
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(target)
    return target


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file as a whole: a reader sees the old or the new content, never half of it."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _provenance() -> dict[str, Any]:
    versions = {"ngrl": ngrl.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        versions[package] = metadata.version(package)
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git_revision": _git_revision(),
        "versions": versions,
    }


def _git_revision() -> str | None:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
