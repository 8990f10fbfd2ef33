"""One trial as Ray Tune runs it: in a worker that starts the trial's process, watches it and reports. No TensorFlow."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ngrl.runs.episodes import EpisodeTail
from ngrl.runs.record import Status, is_running, read_record, status_of
from ngrl.studies.trials import LASTING_FAILURES, Trial, TrialProcess

_POLL_S = 0.25
_REPORT_S = 2.0
# How long the process of a worker that died may take to stop; see `ngrl.studies.child`.
_STOPPING_S = 90.0


class TrialDiedError(RuntimeError):
    """A trial's process died of something that need not happen again."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What a worker is given."""

    trial: Trial
    root_dir: str  # its run directory
    cwd: str  # the folder to run it in
    threads: int  # of its numerical libraries
    compiled: str | None  # what `TrialProcess` takes under this name


def run_trial(config: dict[str, Any], tasks: Mapping[str, Task]) -> None:
    """Tune's trainable: runs the task that `config["trial"]` names.

    Reports `env_steps`, `episodes`, `mean`, `best` and `rate` as training goes on, and at the end `outcome`, the status
    in `run.json` or `FAILED`, with `complaint`; or `died`, what the process died of.

    Raises:
      TrialDiedError: The process died; Tune starts the trial again, and it goes on from its checkpoint.
    """
    from ray import tune

    task = tasks[config["trial"]]
    root_dir = Path(task.root_dir)
    await_end([root_dir])
    tail = EpisodeTail(root_dir / "episodes.csv")
    with TrialProcess(task.trial, root_dir, task.threads, task.cwd, task.compiled) as process:
        reported = time.monotonic()
        tune.report({"pid": process.pid, **tail.figures()})
        while (code := process.poll()) is None:
            time.sleep(_POLL_S)
            if time.monotonic() - reported >= _REPORT_S and tail.read():
                reported = time.monotonic()
                tune.report({"pid": process.pid, **tail.figures()})
        complaint = "" if code == 0 else process.complaint()
    tail.read()
    status = status_of(read_record(root_dir)) if code in (0, 1) else None
    if code == 0 and status in (Status.TRAINING, Status.RUNNING):
        # Something ended the process as if its work were done.
        tune.report({"outcome": Status.FAILED, "complaint": "the process ended before the run did", **tail.figures()})
    elif code == 0 or status == Status.DIVERGED:
        tune.report({"outcome": status, "complaint": complaint, **tail.figures()})
    elif code in LASTING_FAILURES:
        tune.report({"outcome": Status.FAILED, "complaint": complaint, **tail.figures()})
    else:
        tune.report({"died": complaint, **tail.figures()})
        raise TrialDiedError(complaint)


def await_end(root_dirs: Iterable[Path]) -> None:
    """Let the processes that train in these directories write their last checkpoints, as long as that may take."""
    end = time.monotonic() + _STOPPING_S
    for root_dir in root_dirs:
        while is_running(root_dir) and time.monotonic() < end:
            time.sleep(_POLL_S)
