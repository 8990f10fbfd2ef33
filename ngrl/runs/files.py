"""A run's files: each appears whole or not at all, and what can't be written or read is told in a line."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ngrl.messages import counted, reason

#: What ends the name of a file or folder that is still being written.
UNFINISHED = ".writing"
_CHUNK = 1 << 20


class CheckpointError(RuntimeError):
    """A checkpoint can't be written or read; the message is one line."""


class WriteError(RuntimeError):
    """A file can't be written, e.g. because the disk is full; the message is one line."""


class ReadError(RuntimeError):
    """A file can't be read; the message is one line."""


def unfinished(path: Path) -> Path:
    """The name under which `path` is written until it is whole."""
    return path.with_name(path.name + UNFINISHED)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left half written in a folder that no other process writes to."""
    for path in folder.glob(f"*{UNFINISHED}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def failure(path: Path, error: BaseException, written: int | None = None) -> str:
    """One line: that `path` can't be written, how much of it was, how much room is left, and why."""
    parts = [] if written is None else [f"{counted(written, 'byte')} written"]
    with contextlib.suppress(OSError):
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        parts.append(f"{counted(shutil.disk_usage(existing).free, 'byte')} free")
    strerror = error.strerror if isinstance(error, OSError) else None
    room = f" ({', '.join(parts)})" if parts else ""
    return f"can't write {path}{room}: {strerror or reason(error)}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file inside this context into a `WriteError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise WriteError(failure(path, error)) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being read inside this context into a `ReadError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise ReadError(f"can't read {path}: {error.strerror}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as a whole: a reader sees the old or the new content, never half of it.

    Raises:
      WriteError: It can't be written; the old content is still there.
    """
    temporary = unfinished(path)
    with writing(path):
        try:
            temporary.write_bytes(content)
            sync(temporary)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole, as `write_bytes`."""
    write_bytes(path, text.encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Replace a table as a whole, as `write_bytes`; None and NaN, which stand for no number, leave their cell empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if cell is None or cell != cell else cell for cell in row])
    write_text(path, text.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file as a whole, as `write_text`."""
    write_text(path, json_text(content, indent=1) + "\n")


def json_text(content: Any, indent: int | None = None) -> str:
    """JSON, with null for the numbers that it lacks: infinities and NaN."""
    return json.dumps(_json_values(content), indent=indent, allow_nan=False)


def _json_values(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _json_values(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_json_values(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def sync(path: Path) -> None:
    """Have a file or a folder on the disk, not only in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_of(folder: Path) -> int:
    """Bytes in the files inside a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
