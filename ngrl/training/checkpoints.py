"""Checkpoints: a folder each, committed by a rename, proved whole by a manifest of checksums."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

SCHEMA_VERSION = 1
_MANIFEST = "manifest.json"
_NAME = re.compile(r"^step_(\d{10,})$")


class CheckpointError(RuntimeError):
    """A checkpoint can't be written or read; the message is one line."""


class LoopState(NamedTuple):
    """What a training loop needs beside the variables to go on exactly where it was."""

    values: dict[str, Any]  # JSON values
    arrays: dict[str, np.ndarray]


class CheckpointStore:
    """The checkpoints of one run, newest last.

    A checkpoint is written under a temporary name, every file is flushed, and a rename makes it visible: a process
    killed at any moment leaves the one before. On reading, the manifest decides whether a checkpoint is whole; a
    damaged one is passed over, with a warning, in favour of the newest whole one.

    Args:
      folder: Where the checkpoints live.
      trackable: The object whose variables are saved (an agent).
      keep: How many checkpoints to keep.
      warn: Called with one line for every checkpoint that is passed over.

    Raises:
      ValueError: `keep` is not positive.
    """

    def __init__(self, folder: Path, trackable: Any, keep: int = 2, warn: Callable[[str], None] = lambda line: None):
        if keep < 1:
            raise ValueError(f"keep must be positive, got {keep}")
        self._folder = folder
        self._checkpoint = tf.train.Checkpoint(agent=trackable)
        self._keep = keep
        self._warn = warn
        self._saved_step = -1

    def save(self, step: int, state: LoopState) -> Path:
        """Write a checkpoint and remove the oldest beyond `keep`.

        Raises:
          CheckpointError: It could not be written, e.g. because the disk is full. Earlier checkpoints are untouched.
        """
        final = self._folder / f"step_{step:010d}"
        if step == self._saved_step:
            return final  # nothing has happened since
        temporary = self._folder / f"writing_{step:010d}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_litter()
            temporary.mkdir()
            self._checkpoint.write(str(temporary / "variables"))
            np.savez(temporary / "arrays.npz", **state.arrays)
            (temporary / "state.json").write_text(json.dumps(state.values), encoding="utf-8")
            _write_manifest(temporary, step)
            if final.exists():  # a damaged one, or restore_latest would have said that this step is saved
                shutil.rmtree(final)
            os.rename(temporary, final)
            _sync(self._folder)
        except (OSError, tf.errors.OpError) as error:
            size = sum(path.stat().st_size for path in temporary.glob("*")) if temporary.exists() else 0
            shutil.rmtree(temporary, ignore_errors=True)
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"can't write checkpoint {final} ({size} bytes written): {reason}") from error
        self._saved_step = step
        for old in self._list()[: -self._keep]:
            shutil.rmtree(old)
        return final

    def restore_latest(self) -> LoopState | None:
        """Load the newest whole checkpoint into the variables; None where there is no checkpoint at all.

        Raises:
          CheckpointError: There are checkpoints, but none is whole, or the newest whole one belongs to other variables
            or another version.
        """
        folders = self._list()
        for folder in reversed(folders):
            problem = _problem(folder)
            if problem:
                self._warn(f"checkpoint {folder} is damaged ({problem}); falling back to the one before")
                continue
            state = self._load(folder)
            self._saved_step = int(folder.name.removeprefix("step_"))
            return state
        if folders:
            raise CheckpointError(f"no whole checkpoint in {self._folder}: start anew with --noresume")
        return None

    def _load(self, folder: Path) -> LoopState:
        try:
            status = self._checkpoint.read(str(folder / "variables"))
            status.assert_existing_objects_matched()
            status.assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"checkpoint {folder} belongs to another network or optimizer: {reason}") from error
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
        return LoopState(json.loads((folder / "state.json").read_text(encoding="utf-8")), loaded)

    def _list(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.match(path.name))

    def _remove_litter(self) -> None:
        for path in self._folder.glob("writing_*"):
            shutil.rmtree(path, ignore_errors=True)


def _write_manifest(folder: Path, step: int) -> None:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        _sync(path)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "step": step,
        "sha256": {path.name: _checksum(path) for path in files},
    }
    path = folder / _MANIFEST
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _sync(path)


def _problem(folder: Path) -> str:
    """Why a checkpoint can't be trusted; empty when it is whole."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise CheckpointError(
                f"checkpoint {folder} has schema version {manifest['schema_version']}, this ngrl reads {SCHEMA_VERSION}"
            )
        for name, checksum in manifest["sha256"].items():
            if _checksum(folder / name) != checksum:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
