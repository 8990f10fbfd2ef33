"""What a worker makes of how a trial's process ended."""

import json

import pytest

from ngrl.runs.record import Status
from ngrl.studies import worker
from ngrl.studies.trials import Trial

tune = pytest.importorskip("ray.tune")


class Ended:
    """In the place of a trial's process: one that has ended with exit code 0."""

    pid = 1

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        pass

    def poll(self):
        return 0


@pytest.mark.parametrize(
    ("status", "outcome"), [("training", Status.FAILED), ("running", Status.FAILED), ("finished", Status.FINISHED)]
)
def test_process_that_ends_well_before_its_run_does_has_failed(tmp_path, monkeypatch, status, outcome):
    (tmp_path / "run.json").write_text(json.dumps({"status": status}))
    told = []
    monkeypatch.setattr(tune, "report", told.append)
    monkeypatch.setattr(worker, "TrialProcess", Ended)
    task = worker.Task(Trial("a", "a.gin", 0), str(tmp_path), str(tmp_path), 1, None)
    worker.run_trial({"trial": "a-seed0"}, {"a-seed0": task})
    assert told[-1]["outcome"] == outcome
    assert ("before the run did" in told[-1]["complaint"]) == (outcome == Status.FAILED)
