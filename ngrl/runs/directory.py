"""A run's directory: whose it is, who writes to it, and what `run.json` says."""

import contextlib
import datetime
import fcntl
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import ngrl
from ngrl.messages import counted, shortened
from ngrl.runs.files import ReadError, remove_unfinished, write_json
from ngrl.runs.identity import LENGTH, Default, differences, no_default, number, setting
from ngrl.runs.record import lock_path, processes, read_record, record_path


class RunDirectoryError(RuntimeError):
    """The directory can't be used for this run; the message is one line."""


# Those that ngrl needs, and those that experiments may need, where they are installed.
_PACKAGES = (
    *("tensorflow", "tf-keras", "tf-agents", "tensorflow-probability", "numpy", "tensorboard", "gin-config"),
    *("gymnasium", "box2d", "mujoco", "envpool", "minatar", "ale-py"),
)


# For a lock.
_TRIES = 10


class RunDirectory:
    """A directory that one process at a time writes one experiment to.

    Args:
      path: The directory; made when it doesn't exist.
      config: All settings that were in force when everything had been built, name to value as text. They identify the
        experiment.
      default: Gives the default of a setting as text, None where it has none: what a run has in force that lacks it.

    Raises:
      RunDirectoryError: Another process writes to it, it holds another experiment, or it holds foreign files.
    """

    def __init__(self, path: Path, config: Mapping[str, str], default: Default = no_default):
        self.path = path
        self._config = dict(config)
        self._process = _provenance()
        self._is_listed = False
        try:
            if path.exists() and not path.is_dir():
                raise RunDirectoryError(f"{path} is a file, not a run directory")
            foreign = path.is_dir() and any(path.iterdir()) and not self._run_json.exists()
            if foreign and not lock_path(path).exists():
                raise RunDirectoryError(f"{path} holds files, but no run: choose another --root_dir")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"can't make the run directory {path}: {error.strerror}") from error
        self._lock = self._take_lock()
        try:
            self._check_experiment(default)
        except RunDirectoryError:
            self.close()
            raise
        remove_unfinished(path)

    @property
    def _run_json(self) -> Path:
        return record_path(self.path)

    def _take_lock(self) -> TextIO:
        try:
            lock = lock_path(self.path).open("a+", encoding="utf-8")
        except OSError as error:
            raise RunDirectoryError(f"can't write to the run directory {self.path}: {error.strerror}") from error
        try:
            _lock(lock, self.path)
        except RunDirectoryError:
            lock.close()
            raise
        with contextlib.suppress(OSError):  # on a full disk the lock holds, though its owner stays unnamed
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        return lock

    def _check_experiment(self, default: Default) -> None:
        if not self._run_json.exists():
            if any((self.path / "checkpoints").glob("step_*")):
                raise RunDirectoryError(
                    f"{self.path} holds checkpoints, but no run.json that says of which experiment: restore it, or "
                    "start anew with --noresume"
                )
            return
        check_same_experiment(self.path, self.read(), self._config, default)

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
            content = read_record(self.path)
        except ReadError as error:
            raise RunDirectoryError(str(error)) from error
        if content is None:
            raise RunDirectoryError(f"can't read {self._run_json}: it is gone")
        return content

    def write(self, **values: Any) -> None:
        """Set values in `run.json`, which is replaced as a whole; None removes one.

        Raises:
          WriteError: It can't be written.
        """
        content = self.read() if self._run_json.exists() else {}
        worked = processes(content)
        if not self._is_listed:
            worked.append(self._process)
        kept = {name: value for name, value in content.items() if name not in self._process}  # they are in the list now
        content = {**kept, "processes": worked}
        content.update(values, config=self._config, config_complete=True)
        write_json(self._run_json, {name: value for name, value in content.items() if value is not None})
        self._is_listed = True

    def changes(self) -> str:
        """What of the program is another than the process before this one had, in a line; empty where all is the same.

        To be asked before `write`, which adds this process.
        """
        if not self._run_json.exists() or not (worked := processes(self.read())):
            return ""
        before, now = worked[-1], self._process
        pairs = {"revision": (before.get("git_revision"), now["git_revision"])}
        pairs |= {
            package: (before.get("versions", {}).get(package), version) for package, version in now["versions"].items()
        }
        return ", ".join(
            f"{name} {_short(old)} → {_short(new)}" for name, (old, new) in pairs.items() if old and new and old != new
        )

    def close(self) -> None:
        """Let other processes use the directory."""
        self._lock.close()


def check_usable(path: Path, config: Mapping[str, str], default: Default = no_default) -> None:
    """Refuse a directory that holds another experiment, and write nothing; arguments as `RunDirectory`.

    Raises:
      RunDirectoryError: It does, or can't be read.
    """
    try:
        record = read_record(path)
    except ReadError as error:
        raise RunDirectoryError(str(error)) from error
    if record is not None:
        check_same_experiment(path, record, config, default)


def check_same_experiment(
    path: Path,
    record: Mapping[str, Any],
    config: Mapping[str, str],
    default: Default = no_default,
    complete: bool = True,
) -> None:
    """Refuse a directory whose run differs in more than length and what is reported of it, or is beyond the length.

    Args:
      path: The directory.
      record: The content of its `run.json`.
      config: The settings to compare its with.
      default: As in `RunDirectory`.
      complete: Whether `config` holds all settings that are in force, and not bindings alone.

    Raises:
      RunDirectoryError: It does.
    """
    differing = differences(record.get("config", {}), config, default, bool(record.get("config_complete")), complete)
    if differing:
        raise RunDirectoryError(
            f"{path} belongs to another experiment: {shortened(differing)}; choose another --root_dir"
        )
    _check_length(path, record, config, default)


def _check_length(path: Path, record: Mapping[str, Any], config: Mapping[str, str], default: Default) -> None:
    """Refuse a length that a run is beyond, which was given a longer one: it would be taken for a run of that length.

    A run goes beyond its own length by less than a batch, so that the lengths are compared and not the steps alone.
    """
    final = record.get("final") or {}
    gone = [max(final.get("env_steps", 0), _newest_checkpoint(path)), final.get("episodes", 0)]
    for name, count, unit in zip(LENGTH, gone, ("environment step", "episode"), strict=True):
        before, now = (number(setting(settings, name, default)) for settings in (record.get("config", {}), config))
        if now is not None and now < count and (before is None or now < before):
            held = counted(count, unit)
            raise RunDirectoryError(
                f"{path} holds {held}, more than {name} = {now:,}: raise it, or choose another --root_dir"
            )


def _newest_checkpoint(path: Path) -> int:
    """The environment steps of the newest checkpoint in a run's directory; 0 where there is none."""
    names = (folder.name.removeprefix("step_") for folder in (path / "checkpoints").glob("step_*"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def move_aside(path: Path) -> Path | None:
    """Rename an existing run directory so that a new run can begin at `path`; nothing is deleted.

    Where that is the working folder or holds it, the folder stays, lest the shell in it find itself in the earlier run,
    and what it holds is moved.

    Returns:
      The new name, or None where there was nothing to move.

    Raises:
      RunDirectoryError: A running process uses it, it is no run directory, or it can't be moved.
    """
    path = path.resolve()
    if not path.exists():
        return None
    if not lock_path(path).exists():
        if path.is_dir() and not any(path.iterdir()):
            return None
        raise RunDirectoryError(f"{path} is no run of ngrl's: choose another --root_dir")
    number = 1
    while (target := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    with lock_path(path).open("r", encoding="utf-8") as lock:
        _lock(lock, path)
        try:
            if Path.cwd().is_relative_to(path):
                _move_contents(path, target)
            else:
                path.rename(target)
        except OSError as error:
            raise RunDirectoryError(f"can't move the earlier run {path} aside: {error.strerror}") from error
    return target


def _move_contents(path: Path, target: Path) -> None:
    """The lock goes last: until then the folder says that it holds a run, and the same command can move the rest."""
    target.mkdir()
    for entry in sorted(path.iterdir(), key=lambda entry: entry == lock_path(path)):
        entry.rename(target / entry.name)


def _lock(file: TextIO, directory: Path) -> None:
    """Lock a directory by its open lock file; the system lifts the lock when the process ends, however it does.

    Who only looks whether a run is in use (`is_running`) holds the lock for an instant, which is waited for.

    Raises:
      RunDirectoryError: Another process holds it, or the file system has no locks.
    """
    try:
        for remaining in reversed(range(_TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not remaining:
                    raise
                time.sleep(0.02)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise RunDirectoryError(f"{directory} is in use by process {owner}") from None
    except OSError as error:
        raise RunDirectoryError(f"can't lock {directory}: {error.strerror}") from error


def _short(version: str) -> str:
    """A version as it is, a revision by its first letters."""
    return version[:10] if re.fullmatch(r"[0-9a-f]{40}", version) else version


def _provenance() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "git_revision": _git_revision(),
        "versions": {"ngrl": ngrl.__version__, "python": platform.python_version(), **versions},
    }


def _git_revision() -> str | None:
    def git(*arguments: str) -> str:
        command, where = ["git", *arguments], Path(__file__).parent
        return subprocess.check_output(command, cwd=where, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not another's repository that ngrl is installed in
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
