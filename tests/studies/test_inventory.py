"""What of a study need not be run again."""

import fcntl
import json

import pytest

from ngrl.runs import Status
from ngrl.studies.inventory import standings_of
from ngrl.studies.study import PlannedTrial
from ngrl.studies.trials import Trial

CONFIG = {"NaturalGradient.damping": "1.0", "run.num_env_steps": "1000", "run.seed": "0"}


def stock(folder, **record):
    root_dir = folder / "x-seed0"
    if record:
        root_dir.mkdir()
        (root_dir / "run.json").write_text(json.dumps(record))
    (standing,) = standings_of([PlannedTrial(Trial("x", "gin/x.gin", 0), {}, CONFIG)], folder)
    return standing


def test_directory_that_is_not_there_is_to_be_run(tmp_path):
    assert stock(tmp_path).status is Status.NEW


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_run_that_is_over_is_not_run_again(tmp_path, status):
    standing = stock(tmp_path, status=status, config=CONFIG)
    assert standing.status.value == status
    assert not standing.status.is_to_run


@pytest.mark.parametrize(
    ("status", "changed"),
    [("training", {}), ("finished", {"run.num_env_steps": "500"}), ("training", {"run.num_env_steps": "2000"})],
)
def test_run_that_was_interrupted_or_was_shorter_goes_on(tmp_path, status, changed):
    assert stock(tmp_path, status=status, config={**CONFIG, **changed}).status is Status.INTERRUPTED


def test_entry_that_trains_no_agent_has_no_length_that_could_have_been_raised(tmp_path):
    config = {name: value for name, value in CONFIG.items() if name != "run.num_env_steps"}
    assert stock(tmp_path, status="finished", config=config, config_complete=True).status is Status.FINISHED


def test_run_that_is_longer_than_planned_is_refused(tmp_path):
    longer = {**CONFIG, "run.num_env_steps": "2000"}
    standing = stock(tmp_path, status="finished", config=longer, final={"env_steps": 2000, "episodes": 90})
    assert standing.status is Status.REFUSED
    assert "holds 2,000 environment steps, more than run.num_env_steps = 1,000" in standing.note


@pytest.mark.parametrize(
    ("recorded", "differing"),
    [
        ({}, ""),
        ({"NaturalGradient.damping": "1", "run.num_episodes": "None"}, ""),  # as a value, and a limit that is none
        ({"DqnAgent.gamma": "0.99", "QNetwork.hidden_layers": "[64.0]"}, ""),  # defaults
        ({"DqnAgent.gamma": "0.9"}, "DqnAgent.gamma (0.9 there, 0.99 here)"),
        ({"s/NaturalGradient.damping": "1.0"}, ""),  # that of the outer scope
        ({"s/NaturalGradient.damping": "2.0"}, "s/NaturalGradient.damping (2.0 there, 1.0 here)"),
        ({"NaturalGradient.vanished": "3"}, "NaturalGradient.vanished (3 there, unset here)"),
    ],
)
@pytest.mark.parametrize("complete", [False, True])
def test_plan_is_compared_with_all_that_was_in_force(tmp_path, recorded, differing, complete):
    config = {**CONFIG, **recorded}
    standing = stock(tmp_path, status="finished", config=config, **({"config_complete": True} if complete else {}))
    assert standing.status is (Status.REFUSED if differing else Status.FINISHED), standing.note
    assert differing in standing.note


def test_binding_that_the_run_did_not_read_makes_no_other_experiment(tmp_path):
    config = {name: value for name, value in CONFIG.items() if not name.startswith("NaturalGradient")}
    assert stock(tmp_path, status="finished", config=config, config_complete=True).status is Status.FINISHED


def test_run_of_another_experiment_is_refused_by_name_and_setting(tmp_path):
    standing = stock(tmp_path, status="finished", config={**CONFIG, "NaturalGradient.damping": "2.0"})
    assert standing.status is Status.REFUSED
    assert "NaturalGradient.damping (2.0 there, 1.0 here)" in standing.note


def test_damaged_run_is_refused(tmp_path):
    (tmp_path / "x-seed0").mkdir()
    (tmp_path / "x-seed0" / "run.json").write_text("{")
    assert "can't read" in stock(tmp_path).note


def test_directory_in_which_another_process_trains_is_left_alone(tmp_path):
    (tmp_path / "x-seed0").mkdir()
    with (tmp_path / "x-seed0" / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert stock(tmp_path).status is Status.IN_USE
    assert stock(tmp_path).status is Status.INTERRUPTED
