"""What of a study has been run already."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from ngrl.configuration import operative
from ngrl.runs.directory import RunDirectoryError, check_same_experiment
from ngrl.runs.files import ReadError
from ngrl.runs.identity import LENGTH, same, setting
from ngrl.runs.record import Status, is_running, read_record, status_of
from ngrl.studies.study import PlannedTrial


@dataclasses.dataclass(frozen=True)
class Standing:
    """A trial, how it stands, and why where that needs a word."""

    planned: PlannedTrial
    status: Status
    note: str = ""


def standings_of(trials: Iterable[PlannedTrial], folder: Path) -> list[Standing]:
    """How each trial stands whose run directory is in the folder."""
    return [_standing(planned, folder / planned.trial.name) for planned in trials]


def _standing(planned: PlannedTrial, root_dir: Path) -> Standing:
    if not os.path.exists(root_dir):
        return Standing(planned, Status.NEW)
    if is_running(root_dir):
        return Standing(planned, Status.IN_USE, f"another process trains in {root_dir}")
    try:
        record = read_record(root_dir)
        if record is None:
            return Standing(planned, Status.INTERRUPTED)
        check_same_experiment(root_dir, record, planned.config, operative.default, complete=False)
    except (ReadError, RunDirectoryError) as error:
        return Standing(planned, Status.REFUSED, str(error))
    saved = record.get("config", {})
    # An entry that trains no agent has no length.
    limits = [limit for limit in LENGTH if limit in saved or not record.get("config_complete")]
    is_as_long = all(
        same(*(setting(settings, limit, operative.default) for settings in (saved, planned.config))) for limit in limits
    )
    status = status_of(record)
    if status is not None and status.is_over and is_as_long:
        return Standing(planned, status)
    return Standing(planned, Status.INTERRUPTED)
