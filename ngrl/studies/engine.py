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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngrl.messages import reason
from ngrl.runs.record import Status
from ngrl.studies.worker import Task, await_end, run_trial

if TYPE_CHECKING:
    from ngrl.studies.board import Board
    from ngrl.studies.study import PlannedTrial, Study

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
    with _ray(address, cpus, gpus), _scratch(folder if address else None) as scratch:
        try:
            _fit(trials, study, folder, scratch, board, jobs)
        finally:
            _shut_down()
            await_end(folder / planned.trial.name for planned in trials)


def _fit(
    trials: "Sequence[PlannedTrial]",
    study: "Study",
    folder: Path,
    scratch: Path,
    board: "Board",
    jobs: int | None,
) -> None:
    from ray import tune

    by_name = {planned.trial.name: planned for planned in trials}
    here, resources = os.getcwd(), {"cpu": study.cpus_per_trial, "gpu": study.gpus_per_trial}
    tasks = {
        name: Task(planned.trial, str(folder / name), here, study.cpus_per_trial) for name, planned in by_name.items()
    }
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
            callbacks=[_callback(by_name, board)],
            failure_config=tune.FailureConfig(max_failures=study.max_failures),
        ),
    )
    tuner.fit()


def _name(trial: Any) -> str:
    return trial.config["trial"]


def _callback(by_name: "dict[str, PlannedTrial]", board: "Board") -> Any:
    """What Tune calls, and calls the board."""
    from ray import tune

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
