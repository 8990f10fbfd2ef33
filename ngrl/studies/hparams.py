"""Trials in TensorBoard's HParams tab: what distinguishes each, and what it reached."""

import ast
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from ngrl.runs.events import EventFile
from ngrl.runs.files import ReadError
from ngrl.runs.record import Status, read_record, record_path, status_of

_STATUS = {Status.FINISHED: api_pb2.STATUS_SUCCESS, Status.DIVERGED: api_pb2.STATUS_FAILURE}


def write_hparams(root_dir: Path, settings: Mapping[str, Any]) -> None:
    """Write a run's settings and final scores to its folder `hparams`, if the run is over and they aren't there yet.

    Args:
      root_dir: The run's directory.
      settings: What distinguishes the run from others of its study; texts as gin files hold them.
    """
    try:
        record = read_record(root_dir)
    except ReadError:
        return
    status = status_of(record)
    if record is None or status not in _STATUS:
        return
    folder = root_dir / "hparams"
    written = [path.stat().st_mtime for path in folder.glob("events.out.tfevents.*")]
    if written and min(written) >= record_path(root_dir).stat().st_mtime:
        return
    with EventFile(folder, replace=True) as events:
        start = plugin_data_pb2.SessionStartInfo(group_name=root_dir.name)
        for name, value in settings.items():
            _set(start.hparams[name], value)
        events.add(_value(metadata.SESSION_START_INFO_TAG, session_start_info=start))
        events.scalars(metrics(record["final"]))
        end = plugin_data_pb2.SessionEndInfo(status=_STATUS[status])
        events.add(_value(metadata.SESSION_END_INFO_TAG, session_end_info=end))


def metrics(final: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of what a run reached, one a column of the tab."""
    found = {name: value for name, value in final.items() if isinstance(value, int | float)}
    greedy = final.get("evaluation", {}).get("mean")
    return found if greedy is None else {**found, "greedy_mean": greedy}


def _set(target: Any, value: Any) -> None:
    """Set a setting as what it is: a truth value, a number or a text."""
    if isinstance(value, str):
        with contextlib.suppress(SyntaxError, ValueError):
            value = ast.literal_eval(value)
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    else:
        target.string_value = str(value)


def _value(tag: str, **content: Any) -> summary_pb2.Summary.Value:
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return summary_pb2.Summary.Value(tag=tag, metadata=described, tensor=metadata.NULL_TENSOR)
