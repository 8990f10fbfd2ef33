"""`run.json` as others than its run read it, and whether that run is alive."""

import fcntl
import json
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
