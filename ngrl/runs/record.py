"""`run.json`, what is known of a run, and `run.lock`, by which the process that works on it is known."""

import enum
import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ngrl.messages import reason
from ngrl.runs.files import ReadError


class Status(str, enum.Enum):
    """How a run stands, in a reader's words: what `run.json` says, and what is seen from outside."""

    TRAINING = "training"
    RUNNING = "running"  # an entry that trains no agent
    FINISHED = "finished"
    DIVERGED = "diverged"
    # `run.json` holds none of these.
    NEW = "not begun"
    IN_USE = "in use"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"
    FAILED = "failed"

    __str__ = str.__str__

    @property
    def is_over(self) -> bool:
        """Whether the run need not be run again."""
        return self in (Status.FINISHED, Status.DIVERGED)

    @property
    def is_to_run(self) -> bool:
        """Whether a sweep runs it."""
        return self in (Status.INTERRUPTED, Status.NEW)


def record_path(root_dir: Path) -> Path:
    """The `run.json` of a directory."""
    return root_dir / "run.json"


def lock_path(root_dir: Path) -> Path:
    """The `run.lock` of a directory; the process that works there holds it locked, and its id stands in it."""
    return root_dir / "run.lock"


def read_record(root_dir: Path) -> dict[str, Any] | None:
    """The content of a directory's `run.json`; None where there is none.

    Raises:
      ReadError: It is no JSON object, or can't be read.
    """
    path = record_path(root_dir)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ReadError(f"can't read {path}: {reason(error)}") from error
    if not isinstance(record, dict):
        raise ReadError(f"can't read {path}: it holds no JSON object")
    return record


def status_of(record: Mapping[str, Any] | None) -> Status | None:
    """What a `run.json` says of its run; None where it says nothing known."""
    status = record.get("status") if record else None
    return next((known for known in Status if known == status), None)


def processes(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The processes that worked on a run, from its `run.json`, the first one first.

    Each has `started`, `command`, `git_revision` and `versions`. Records of before ngrl kept a list have those of the
    first process among their own fields.
    """
    if "processes" in record:
        return list(record["processes"])
    first = {name: record[name] for name in ("started", "command", "git_revision", "versions") if name in record}
    return [first] if first else []


def is_running(root_dir: Path) -> bool:
    """Whether a process is training in the directory."""
    try:
        with lock_path(root_dir).open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
