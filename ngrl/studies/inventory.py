"""What of a study has been run already."""

import dataclasses
import enum
from collections.abc import Iterable
from pathlib import Path

from ngrl.configuration import operative
from ngrl.runs.directory import RunDirectoryError, check_same_experiment
from ngrl.runs.identity import same, setting
from ngrl.runs.record import OVER, RunRecordError, is_running, read_record
from ngrl.studies.study import PlannedTrial

# A finished run goes on where one of these has been raised since.
_LIMITS = ("run.num_env_steps", "run.num_episodes")


class State(enum.Enum):
    """How a trial stands, in a reader's words."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    NEW = "not begun"
    IN_USE = "in use"
    REFUSED = "refused"

    @property
    def is_to_run(self) -> bool:
        """Whether a sweep runs it."""
        return self in (State.INTERRUPTED, State.NEW)


@dataclasses.dataclass(frozen=True)
class Standing:
    """A trial, how it stands, and why where that needs a word."""

    planned: PlannedTrial
    state: State
    note: str = ""


def take_stock(trials: Iterable[PlannedTrial], folder: Path) -> list[Standing]:
    """How each trial stands whose run directory is in the folder."""
    return [_standing(planned, folder / planned.trial.name) for planned in trials]


def _standing(planned: PlannedTrial, root_dir: Path) -> Standing:
    if not root_dir.exists():
        return Standing(planned, State.NEW)
    if is_running(root_dir):
        return Standing(planned, State.IN_USE, f"another process trains in {root_dir}")
    try:
        record = read_record(root_dir)
        if record is None:
            return Standing(planned, State.INTERRUPTED)
        check_same_experiment(root_dir, record, planned.config, operative.default, complete=False)
    except (RunRecordError, RunDirectoryError) as error:
        return Standing(planned, State.REFUSED, str(error))
    saved = record.get("config", {})
    is_as_long = all(
        same(*(setting(settings, limit, operative.default) for settings in (saved, planned.config)))
        for limit in _LIMITS
    )
    if record.get("status") in OVER and is_as_long:
        return Standing(planned, State(record["status"]))
    return Standing(planned, State.INTERRUPTED)
