"""`run.json`: what is written is read, and what can't be read is told in a line."""

import fcntl
import json
import threading

import pytest

from ngrl.runs import ReadError, RunDirectory, Status, read_record
from ngrl.runs.record import status_of


@pytest.mark.parametrize("status", list(Status))
def test_status_is_written_as_a_word_and_read_again(tmp_path, status):
    directory = RunDirectory(tmp_path / "run", {})
    directory.write(status=status)
    directory.close()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == status.value == f"{status}"
    assert status_of(read_record(tmp_path / "run")) is status


def test_look_at_whether_a_run_is_in_use_does_not_make_a_start_fail(tmp_path):
    RunDirectory(tmp_path / "run", {}).close()
    with (tmp_path / "run" / "run.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        end = threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        end.start()
        directory = RunDirectory(tmp_path / "run", {})
        directory.write(status="training")
        directory.close()
        end.join()
    assert status_of(read_record(tmp_path / "run")) is Status.TRAINING


def test_value_that_is_none_is_removed(tmp_path):
    directory = RunDirectory(tmp_path / "run", {})
    directory.write(status="diverged", failure="a line")
    directory.write(status="training", failure=None)
    directory.close()
    record = read_record(tmp_path / "run")
    assert record["status"] == "training"
    assert "failure" not in record


def test_run_that_is_over_finished_or_diverged():
    assert [status.value for status in Status if status.is_over] == ["finished", "diverged"]
    assert [status.value for status in Status if status.is_to_run] == ["not begun", "interrupted"]


@pytest.mark.parametrize("record", [None, {}, {"status": "paused"}, {"status": None}, {"status": ["finished"]}])
def test_status_that_nobody_wrote_is_none(record):
    assert status_of(record) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '"finished"'])
def test_damaged_record_is_told_with_its_path_in_a_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ReadError, match=rf"^can't read {tmp_path}/run\.json: .+$"):
        read_record(tmp_path)
