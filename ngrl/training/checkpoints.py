"""Checkpoints: a folder each, committed by a rename, proved whole by a manifest of checksums."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorflow as tf

from ngrl.checks import check_count
from ngrl.loops.state import LoopState
from ngrl.messages import reason, shortened
from ngrl.runs.files import CheckpointError, checksum, failure, size_of, sync

#: 2: the manifest carries a checksum of itself.
SCHEMA_VERSION = 2
_MANIFEST = "manifest.json"
_NAME = re.compile(r"^step_(\d{10,})$")
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"


class CheckpointStore:
    """The checkpoints of one run, newest last.

    A checkpoint is written under a temporary name, every file is flushed, and a rename makes it visible: a process
    killed at any moment leaves the one before. On reading, the manifest decides whether a checkpoint is whole; a
    damaged one is passed over, with a warning, in favour of the newest whole one, and removed by the next save. At no
    moment are there more than `keep` checkpoints and one that is being written. A block (`LoopState`) that the
    checkpoint before has is linked, not written again: it is one file, and damaged in both or in none.

    Args:
      folder: Where the checkpoints live.
      trackable: The object whose variables are saved (an agent).
      keep: How many checkpoints to keep.
      warn: Called with one line for every checkpoint that is passed over.

    Raises:
      ValueError: `keep` is not positive.
    """

    def __init__(self, folder: Path, trackable: Any, keep: int = 2, warn: Callable[[str], None] = lambda line: None):
        check_count("keep", keep)
        self._folder = folder
        self._checkpoint = tf.train.Checkpoint(agent=trackable)
        self._keep = keep
        self._warn = warn
        self._saved_step = -1
        self._checksums: dict[str, str] = {}  # of the files of the checkpoint of that step
        self._damaged: list[Path] = []

    def save(self, step: int, state: LoopState) -> Path:
        """Write a checkpoint and remove the oldest beyond `keep`.

        Raises:
          CheckpointError: It could not be written, e.g. because the disk is full. Earlier checkpoints are untouched.
          TypeError: An array holds Python objects, which only pickle could write.
        """
        for name, array in state.arrays.items():
            if array.dtype.hasobject:
                raise TypeError(f"{name} holds Python objects: checkpoints hold no pickle")
        final = self._folder / f"step_{step:010d}"
        if step == self._saved_step:
            return final  # nothing has happened since
        temporary = self._folder / f"writing_{step:010d}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_litter()
            temporary.mkdir()
            self._checkpoint.write(str(temporary / "variables"))
            np.savez(temporary / "arrays.npz", **cast(dict[str, Any], state.arrays))
            (temporary / "state.json").write_text(json.dumps(state.values), encoding="utf-8")
            linked = self._write_blocks(temporary, state)
            checksums = _write_manifest(temporary, step, linked)
            if final.exists():  # of a store that restored nothing from it
                shutil.rmtree(final)
            os.rename(temporary, final)
            sync(self._folder)
        except (OSError, tf.errors.OpError) as error:
            line = failure(final, error, size_of(temporary))
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(line) from error
        self._saved_step, self._checksums = step, checksums
        self._remove_oldest()
        return final

    def _write_blocks(self, folder: Path, state: LoopState) -> dict[str, str]:
        """Write the blocks that the latest checkpoint lacks, link the others; the checksums of the latter."""
        linked = {}
        for name, block in state.blocks.items():
            file = f"{name}.npy"
            if file in self._checksums:
                with contextlib.suppress(OSError):  # a file system without links
                    os.link(self._folder / f"step_{self._saved_step:010d}" / file, folder / file)
                    linked[file] = self._checksums[file]
                    continue
            np.save(folder / file, block, allow_pickle=False)
        return linked

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
                self._damaged.append(folder)
                continue
            state = self._load(folder)
            self._saved_step = _step(folder)
            self._checksums = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["sha256"]
            return state
        if folders:
            raise CheckpointError(f"no whole checkpoint in {self._folder}: start anew with --noresume")
        return None

    def _load(self, folder: Path) -> LoopState:
        prefix = str(folder / "variables")
        try:
            status = self._checkpoint.read(prefix)
            status.assert_existing_objects_matched()
            status.assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            why = self._difference(prefix) or reason(error)
            raise CheckpointError(f"checkpoint {folder} belongs to another network or optimizer: {why}") from error
        try:
            with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
                loaded = {name: arrays[name] for name in arrays.files}
            blocks = {path.stem: np.load(path, "r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
            return LoopState(json.loads((folder / "state.json").read_text(encoding="utf-8")), loaded, blocks)
        except (OSError, ValueError) as error:  # a pickle, for example
            raise CheckpointError(f"checkpoint {folder} holds what ngrl has not written: {reason(error)}") from error

    def _difference(self, prefix: str) -> str:
        """Which variables differ between a checkpoint and the trackable, with their shapes."""
        with tempfile.TemporaryDirectory() as folder:
            here = _shapes(self._checkpoint.write(f"{folder}/variables"))
        there = _shapes(prefix)
        differing = [
            f"{name} ({there.get(name, 'missing')} there, {here.get(name, 'missing')} here)"
            for name in sorted({*here, *there})
            if here.get(name) != there.get(name)
        ]
        return shortened(differing)

    def _list(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted((path for path in self._folder.iterdir() if _NAME.match(path.name)), key=_step)

    def _remove_litter(self) -> None:
        """What a killed process left, half a checkpoint or one too many; and those found damaged."""
        for path in (*self._folder.glob("writing_*"), *self._damaged):
            shutil.rmtree(path, ignore_errors=True)
        self._damaged = []
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        for old in self._list()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)  # one too many is no reason to lose a run; the next save tries again


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _shapes(prefix: str) -> dict[str, list[int]]:
    """Shapes of the variables in a checkpoint, by the path to them from the agent."""
    shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    return {
        name.removeprefix("agent/").replace(_VARIABLE, "").replace("/.OPTIMIZER_SLOT", ""): shape
        for name, shape in shapes.items()
        if "OBJECT_GRAPH" not in name
    }


def _write_manifest(folder: Path, step: int, known: dict[str, str]) -> dict[str, str]:
    """Write the checksums of all files, some of which are known and on the disk; all of them."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        if path.name not in known:
            sync(path)
    checksums = {path.name: known.get(path.name) or checksum(path) for path in files}
    manifest: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "step": step, "sha256": checksums}
    manifest["own_sha256"] = _own_checksum(manifest)
    path = folder / _MANIFEST
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    sync(path)
    return checksums


def _own_checksum(manifest: dict[str, Any]) -> str:
    """Checksum of a manifest's content without the checksum itself."""
    content = {name: value for name, value in manifest.items() if name != "own_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _problem(folder: Path) -> str:
    """Why a checkpoint can't be trusted; empty when it is whole.

    Raises:
      CheckpointError: It may be whole, but is of another schema version.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        # Version 1 had no checksum of its own; in any other, a flipped bit must not pass for another version.
        if (version != 1 or "own_sha256" in manifest) and manifest["own_sha256"] != _own_checksum(manifest):
            return f"{_MANIFEST} has changed since it was written"
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"checkpoint {folder} has schema version {version}, this ngrl reads {SCHEMA_VERSION}: "
                "resume with the version of ngrl that wrote it, or start anew with --noresume"
            )
        for name, expected in manifest["sha256"].items():
            if checksum(folder / name) != expected:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return reason(error)
    return ""
