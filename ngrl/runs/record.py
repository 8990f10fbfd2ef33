"""`run.json` as others than its run read it, and whether that run is alive."""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: What `run.json` says of a run that is over: it need not be run again.
OVER = ("finished", "diverged")


class RunRecordError(RuntimeError):
    """A directory's `run.json` can't be read; the message is one line."""


def read_record(root_dir: Path) -> dict[str, Any] | None:
    """The content of a directory's `run.json`; None where there is none.

    Raises:
      RunRecordError: It is no JSON object, or can't be read.
    """
    path = root_dir / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunRecordError(f"can't read {path}: {error}") from error
    if not isinstance(record, dict):
        raise RunRecordError(f"can't read {path}: it holds no JSON object")
    return record


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
        with (root_dir / "run.lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
