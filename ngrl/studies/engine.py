"""Ray Tune as ngrl uses it: it places trials on workers, and starts them again where a worker died.

What a trial leaves is its run directory; Tune's own records serve one sweep and are removed.
"""

import contextlib
import math
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ngrl.messages import reason
from ngrl.runs.record import Status, is_running
from ngrl.studies.worker import Task, run_trial

if TYPE_CHECKING:
    from ngrl.studies.study import PlannedTrial

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is the command's to handle.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
# Ray then takes the loopback address for that of the machine, and listens nowhere else, as it does on macOS.
# Where the sweep is killed, what is left of Ray's own processes waits for the second number of seconds before it ends.
_LOCAL_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
_CONNECT_S = 10.0
# The first frame of either side of an HTTP/2 connection is one of settings, here an empty one; its type is byte 3.
_HTTP2_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _HTTP2_SETTINGS


class RayUnavailableError(RuntimeError):
    """Ray isn't installed or doesn't answer; the message is one line."""


class Watcher(Protocol):
    """Is told how trials get on."""

    def started(self, planned: "PlannedTrial") -> None:
        """The trial's process has been started."""

    def moved(self, planned: "PlannedTrial", figures: dict[str, float]) -> None:
        """It has come this far; `EpisodeTail.figures` tells the names."""

    def recovered(self, planned: "PlannedTrial", reason: str) -> None:
        """Its process or worker died, and it goes on from its checkpoint."""

    def over(self, planned: "PlannedTrial", outcome: Status, complaint: str) -> None:
        """It is over, `FINISHED`, `DIVERGED` or `FAILED`, with what it complained of."""


def run_trials(
    trials: "Sequence[PlannedTrial]",
    folder: Path,
    watcher: Watcher,
    jobs: int | None,
    cpus: int,
    gpus: float,
    max_failures: int,
    address: str | None = None,
) -> None:
    """Run trials, `jobs` at a time.

    However this ends, no process of theirs is left; each has then written a checkpoint, or is over.

    Args:
      trials: What to run, in this order.
      folder: Where their run directories are; for a cluster, on a file system that all nodes share.
      watcher: Is told how they get on.
      jobs: How many run together at most; None, for a cluster alone, means as many as it has room for.
      cpus: Cores of each.
      gpus: GPUs of each.
      max_failures: How often a trial whose process or worker died is started again.
      address: A Ray cluster's; None starts Ray on this machine, for this machine alone.

    Raises:
      RayUnavailableError: There is no Ray to run them on.
    """
    with (
        _ray(address, (jobs or 1) * cpus, math.ceil((jobs or 1) * gpus)),
        _scratch(folder if address else None) as scratch,
    ):
        try:
            _fit(trials, folder, scratch, watcher, jobs, {"cpu": cpus, "gpu": gpus}, max_failures)
        finally:
            _shut_down()
            _await_end(folder / planned.trial.name for planned in trials)


def _fit(
    trials: "Sequence[PlannedTrial]",
    folder: Path,
    scratch: Path,
    watcher: Watcher,
    jobs: int | None,
    resources: dict[str, float],
    max_failures: int,
) -> None:
    from ray import tune

    by_name = {planned.trial.name: planned for planned in trials}
    here, threads = os.getcwd(), int(resources["cpu"])
    tasks = {name: Task(planned.trial, str(folder / name), here, threads) for name, planned in by_name.items()}
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
            callbacks=[_callback(by_name, watcher)],
            failure_config=tune.FailureConfig(max_failures=max_failures),
        ),
    )
    tuner.fit()


def _name(trial: Any) -> str:
    return trial.config["trial"]


def _callback(by_name: "dict[str, PlannedTrial]", watcher: Watcher) -> Any:
    """What Tune calls, and calls the watcher."""
    from ray import tune

    class Tell(tune.Callback):
        def __init__(self) -> None:
            self.last: dict[str, dict[str, Any]] = {}

        def __reduce__(self) -> Any:
            return tune.Callback, ()  # Tune pickles it into its records, where a terminal can't go

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            watcher.started(by_name[_name(trial)])

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            self.last[_name(trial)] = result
            watcher.moved(by_name[_name(trial)], result)

        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            watcher.recovered(by_name[_name(trial)], self.reason(trial))

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            result = self.last.get(_name(trial), {})
            watcher.over(by_name[_name(trial)], result.get("outcome", Status.FAILED), result.get("complaint", ""))

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            watcher.over(by_name[_name(trial)], Status.FAILED, f"{self.reason(trial)}, too often")

        def reason(self, trial: Any) -> str:
            """Why a trial stopped, in a line."""
            return self.last.pop(_name(trial), {}).get("died", "its worker died")

    return Tell()


@contextlib.contextmanager
def _ray(address: str | None, cpus: int, gpus: int) -> Iterator[None]:
    """Ray, started or connected to."""
    os.environ.update(_SETTINGS)
    if address is None:
        os.environ.update(_LOCAL_SETTINGS)
    else:
        check_address(address)
    try:
        import ray
    except ImportError as error:
        raise RayUnavailableError("sweeps need Ray: pip install 'ngrl[sweep]'") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise RayUnavailableError(f"no Ray {where}: {reason(error)}") from error
    signal.signal(signal.SIGTERM, terminate)  # Ray puts its own in place, which aborts the process
    try:
        yield
    finally:
        _shut_down()


def check_address(address: str) -> None:
    """See that a gRPC server, as Ray is, answers at `host:port`; Ray itself would wait for minutes, or for ever.

    Raises:
      RayUnavailableError: None does.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator:
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_HTTP2_GREETING)
                if connection.recv(len(_HTTP2_SETTINGS), socket.MSG_WAITALL)[3:4] != _HTTP2_SETTINGS[3:4]:
                    raise RayUnavailableError(f"no Ray at {address}: what answers there is not Ray")
    except (OSError, ValueError, OverflowError) as error:
        raise RayUnavailableError(f"no Ray at {address}: {reason(error)}") from error


def _shut_down() -> None:
    import ray

    ray.shutdown()


@contextlib.contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for Tune's own records of this sweep, in one that all nodes share if there are others."""
    scratch = Path(tempfile.mkdtemp(prefix=".tune-", dir=folder))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _await_end(root_dirs: Iterator[Path]) -> None:
    """Wait until no process trains in any of the directories."""
    end = time.monotonic() + 90.0
    for root_dir in root_dirs:
        while is_running(root_dir) and time.monotonic() < end:
            time.sleep(0.1)
