"""Ray Tune as ngrl uses it: it places trials on workers, and starts them again where a worker died.

What a trial leaves is its run directory; Tune's own records serve one sweep and are removed.
"""

import collections
import contextlib
import fcntl
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngrl import cluster
from ngrl.runs.record import Status
from ngrl.studies.worker import Task, await_end, run_trial

if TYPE_CHECKING:
    from ngrl.studies.board import Board
    from ngrl.studies.study import PlannedTrial, Study

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is the command's to handle.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def run_trials(
    trials: "Sequence[PlannedTrial]",
    study: "Study",
    folder: Path,
    board: "Board",
    jobs: int | None,
    address: str | None = None,
) -> None:
    """Run trials, `jobs` at a time.

    However this ends, no process of theirs is left; each has then written a checkpoint, or is over.

    Args:
      trials: What to run, in this order.
      study: Says what each takes, and how often one is started again whose process or worker died.
      folder: Where their run directories are; for a cluster, on a file system that all nodes share.
      board: Is told how they get on.
      jobs: How many run together at most; None, for a cluster alone, means as many as it has room for.
      address: A Ray cluster's; None starts Ray on this machine, for this machine alone.

    Raises:
      RayUnavailableError: There is no Ray to run them on.
    """
    cpus, gpus = (jobs or 1) * study.cpus_per_trial, math.ceil((jobs or 1) * study.gpus_per_trial)
    os.environ.update(_SETTINGS)
    with (
        _scratch(folder if address else None) as scratch,
        contextlib.ExitStack() as afterwards,
        cluster.connected(address, cpus, gpus, "sweeps"),
    ):
        afterwards.callback(await_end, [folder / planned.trial.name for planned in trials])
        # What is compiled serves trials of this machine alone: another's processor may lack an instruction.
        compiled = None if address else str(scratch / "compiled")
        _fit(_tasks(trials, study, folder, compiled), study, scratch, _callback(trials, board), jobs)


def _tasks(trials: "Sequence[PlannedTrial]", study: "Study", folder: Path, compiled: str | None) -> dict[str, Task]:
    """By the trials' names. Those of a cell differ in the seed alone, and run the same code."""
    cells = collections.Counter(planned.trial.cell for planned in trials)
    here, threads = os.getcwd(), study.cpus_per_trial
    return {
        trial.name: Task(trial, str(folder / trial.name), here, threads, compiled if cells[trial.cell] > 1 else None)
        for trial in (planned.trial for planned in trials)
    }


def _fit(tasks: dict[str, Task], study: "Study", scratch: Path, callback: Any, jobs: int | None) -> None:
    from ray import tune

    resources = {"cpu": study.cpus_per_trial, "gpu": study.gpus_per_trial}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, tasks=tasks), resources),
        param_space={"trial": tune.grid_search(list(tasks))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=jobs,
            trial_name_creator=_name,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=scratch.name,
            storage_path=str(scratch.parent),
            verbose=0,
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=study.max_failures),
        ),
    )
    tuner.fit()


def _name(trial: Any) -> str:
    return trial.config["trial"]


def _callback(trials: "Sequence[PlannedTrial]", board: "Board") -> Any:
    """What Tune calls, and calls the board."""
    from ray import tune

    by_name = {planned.trial.name: planned for planned in trials}

    class Tell(tune.Callback):
        def __init__(self) -> None:
            self.last: dict[str, dict[str, Any]] = {}

        def __reduce__(self) -> Any:
            return tune.Callback, ()  # Tune pickles it into its records, where a terminal can't go

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.started(by_name[_name(trial)])

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            self.last[_name(trial)] = result
            board.moved(by_name[_name(trial)], result)

        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.recovered(by_name[_name(trial)], self.reason(trial))

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            result = self.last.get(_name(trial), {})
            board.over(by_name[_name(trial)], result.get("outcome", Status.FAILED), result.get("complaint", ""))

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            board.over(by_name[_name(trial)], Status.FAILED, f"{self.reason(trial)}, too often")

        def reason(self, trial: Any) -> str:
            """Why a trial stopped, in a line."""
            return self.last.pop(_name(trial), {}).get("died", "its worker died")

    return Tell()


@contextlib.contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for Tune's own records of this sweep, in one that all nodes share if there are others.

    Those that killed sweeps left beside it are removed.
    """
    scratch = Path(tempfile.mkdtemp(prefix=".begun.tune-", dir=folder))
    held = os.open(scratch, os.O_RDONLY)
    try:
        locked = _lock(held)
        # Until it is locked it has another name, by which no other sweep takes it for abandoned.
        scratch = scratch.rename(scratch.with_name(scratch.name.removeprefix(".begun")))
        if locked:
            _remove_abandoned(scratch)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(held)


def _remove_abandoned(scratch: Path) -> None:
    """Remove the folders like this one that no process holds any more."""
    for other in scratch.parent.glob(".tune-*"):
        with contextlib.suppress(OSError):  # another user's, or gone
            held = os.open(other, os.O_RDONLY)
            try:
                if _lock(held):
                    shutil.rmtree(other, ignore_errors=True)
            finally:
                os.close(held)


def _lock(folder: int) -> bool:
    """Lock an open folder until this process ends, however it does; False where another has it, or nothing locks."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
