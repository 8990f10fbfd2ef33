"""The studies in `launch/`: what they hold, and that every setting of theirs is read."""

import functools
from collections import Counter
from pathlib import Path

import gin
import pytest
from built import settled

from ngrl.studies import study

ROOT = Path(__file__).parents[2]
read_once = functools.cache(study.read)


@pytest.fixture(autouse=True)
def _in_clone_with_empty_gin(monkeypatch):
    monkeypatch.chdir(ROOT)
    yield
    gin.clear_config()


def test_study_of_the_paper_runs_every_method_on_every_environment_and_the_trust_region_first():
    plan = read_once("launch/paper.gin")
    cells = list(dict.fromkeys(planned.trial.cell for planned in plan.trials))
    tasks = ("cartpole_v0", "cartpole_v1", "acrobot", "lunar")
    methods = ("ngdqn", "dqn", "paper-ngdqn", "paper-dqn")
    assert cells == [f"{method}_{task}" for method in methods for task in tasks]
    assert len(plan.trials) == 10 * len(cells)


def test_grids_of_the_paper_hold_its_appendix():
    plan = read_once("launch/paper_grid.gin")
    natural = [planned for planned in plan.trials if planned.settings["experiment"].startswith("paper-ngdqn")]
    assert len(natural) == 4 * 2 * 2 * 3 * 2
    assert len(plan.trials) - len(natural) == 4 * 8 * 3 * 2 * 3 * 2
    # The appendix's best configurations, which gin/paper/ holds, are points of the grids.
    found = {tuple(sorted(planned.config.items())) for planned in plan.trials}
    for planned in read_once("launch/paper.gin").trials:
        if planned.trial.cell.startswith("paper-") and planned.trial.seed == 0:
            assert tuple(sorted(planned.config.items())) in found, planned.trial.cell


def test_study_of_the_letter_has_both_readings_and_the_october_settings_on_every_environment():
    cells = Counter(planned.trial.cell for planned in read_once("launch/letter.gin").trials)
    tasks = ("cartpole_v0", "cartpole_v1", "acrobot", "lunar")
    variants = [("", True), ("", False), ("_october", False)]
    assert cells == {
        f"paper-ngdqn_{task}{version}-scale_by_gradient_norm={scale}": 5
        for task in tasks
        for version, scale in variants
    }


def test_sensitivity_gives_every_method_as_many_configurations_on_both_environments():
    settings = Counter(planned.settings["experiment"] for planned in read_once("launch/sensitivity.gin").trials)
    methods = ("dqn", "baselines-adam", "baselines-adam_bounded")
    others = {f"{method}_{task}": 48 for method in methods for task in ("cartpole_v1", "lunar")}
    assert settings == others | {"baselines-plain_cartpole_v1": 48, "ngdqn_lunar": 48}


@pytest.mark.parametrize("name", ["ablation", "ingredients"])
def test_each_cell_changes_one_thing_beside_what_it_needs(name):
    trials = read_once(f"launch/{name}.gin").trials
    plain = {planned.settings["experiment"]: planned for planned in trials if len(planned.settings) == 2}
    cells = {planned.trial.cell: planned for planned in trials}
    changed = {experiment: Counter() for experiment in plain}
    for planned in cells.values():
        changed[planned.settings["experiment"]][tuple(planned.settings)] += 1
    one, other = changed.values()
    assert one == other  # the same on both environments
    assert len(trials) == 5 * len(cells)
    assert len({tuple(sorted(planned.config.items())) for planned in trials}) == len(trials)
    for planned in cells.values():
        whole = plain[planned.settings["experiment"]]
        lost = {key.removeprefix("ngrl.") for key, value in whole.config.items() if planned.config.get(key) != value}
        assert lost - {"run.seed"} <= set(planned.settings), planned.trial.cell


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.gin")), ids=lambda path: path.stem)
def test_own_studies_set_nothing_that_is_not_read(path):
    cells = {}  # one for each set of names that it binds to an experiment
    for planned in read_once(f"launch/{path.name}").trials:
        names = tuple(binding.partition("=")[0] for binding in planned.trial.bindings)
        references = tuple(binding for binding in planned.trial.bindings if "@" in binding)
        cells.setdefault((planned.trial.gin_file, names, references), planned.trial)
    for trial in cells.values():
        assert settled([ROOT / trial.gin_file], trial.bindings)[1] == [], trial.name


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.gin")), ids=lambda path: path.stem)
def test_every_study_names_experiments_that_exist_and_settings_that_fit(path):
    assert read_once(f"launch/{path.name}").trials
