"""Study files: what they expand to, and what is said of wrong ones before anything runs."""

import functools
from collections import Counter
from pathlib import Path

import gin
import pytest
from built import settled

from ngrl import configuration
from ngrl.studies import study

ROOT = Path(__file__).parents[2]
GOOD = """
Study.parts = (@first/Part(), @second/Part())
Part.seeds = %seeds
seeds = 2
first/Part.experiments = ("gin/ngdqn_cartpole_v1.gin",)
first/Part.grid = {
    "NaturalGradient.damping": (0.5, @LevenbergMarquardt()),
    "QNetwork.hidden_layers": ((32,), (64, 64)),
}
first/Part.bindings = {"run.num_env_steps": 1000, "LevenbergMarquardt.initial": 2.0}
second/Part.experiments = ("gin/paper/dqn_cartpole_v1.gin",)
second/Part.seeds = (7,)
"""


read_once = functools.cache(study.read)


@pytest.fixture(autouse=True)
def _in_clone(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def read(tmp_path):
    def read_text(text, **options):
        path = tmp_path / "mine.gin"
        path.write_text(text)
        return study.read(str(path), **options)

    return read_text


def test_parts_expand_to_every_combination_of_their_grid_and_seed_in_order(read):
    trials = [planned.trial for planned in read(GOOD).trials]
    assert [trial.name for trial in trials] == [
        "ngdqn_cartpole_v1-damping=0.5-hidden_layers=32-seed0",
        "ngdqn_cartpole_v1-damping=0.5-hidden_layers=32-seed1",
        "ngdqn_cartpole_v1-damping=0.5-hidden_layers=64_64-seed0",
        "ngdqn_cartpole_v1-damping=0.5-hidden_layers=64_64-seed1",
        "ngdqn_cartpole_v1-damping=LevenbergMarquardt-hidden_layers=32-seed0",
        "ngdqn_cartpole_v1-damping=LevenbergMarquardt-hidden_layers=32-seed1",
        "ngdqn_cartpole_v1-damping=LevenbergMarquardt-hidden_layers=64_64-seed0",
        "ngdqn_cartpole_v1-damping=LevenbergMarquardt-hidden_layers=64_64-seed1",
        "paper-dqn_cartpole_v1-seed7",
    ]
    assert trials[0].bindings == (
        "run.num_env_steps = 1000",
        "LevenbergMarquardt.initial = 2.0",
        "NaturalGradient.damping = 0.5",
        "QNetwork.hidden_layers = (32,)",
    )
    assert "NaturalGradient.damping = @LevenbergMarquardt()" in trials[4].bindings


@pytest.mark.parametrize("text", ["Study.parts = ()\n", "Study.cpus_per_trial = 1\n"])
def test_study_without_parts_is_refused(read, text):
    with pytest.raises(configuration.ConfigurationError, match=r"Study\.parts is missing or empty"):
        read(text)


def test_planned_configuration_is_what_launching_the_trial_binds(read):
    planned = read(GOOD).trials[5]
    options = {
        argument.partition("=")[0]: argument.partition("=")[2] for argument in planned.trial.arguments(Path("x"))
    }
    try:
        configuration.parse([options["--gin_file"]], planned.trial.bindings, (), {"seed": options["--seed"]})
        assert configuration.bindings() == planned.config
    finally:
        gin.clear_config()


def test_seeds_of_the_command_line_replace_those_of_the_file(read):
    assert {planned.trial.seed for planned in read(GOOD, seeds=[3]).trials} == {3}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ('"gin/ngdqn_cartpole_v1.gin"', '"gin/ngdqn_cartpol.gin"'),
            'mine.gin:5: no such experiment: "gin/ngdqn_cartpol.gin"',
        ),
        (("QNetwork.hidden_layers", "QNetwork.hiden_layers"), 'did you mean "hidden_layers"?'),
        (("(32,), (64, 64)", '"32",'), "QNetwork.hidden_layers must be"),
        (("@LevenbergMarquardt()", "@LevenbergMarquard()"), "did you mean"),
        (("Part.seeds = %seeds", "Part.seads = %seeds"), 'no parameter "seads" on Part; did you mean "seeds"?'),
        (("seeds = 2", "seeds = 0"), "seeds must be a positive number"),
        (("seeds = 2", 'seeds = "2"'), "Part.seeds must be"),
        (("@second/Part())", "@second/Part(), @third/Part())"), "third/Part.experiments is missing or empty"),
        (("(0.5, @Lev", "(), 'x': (1, @Lev"), "NaturalGradient.damping has no values to try"),
        (
            ("second/Part.seeds = (7,)", "Environment.num_envs = 3"),
            "Environment.num_envs is no part of a study",
        ),
        (("@second/Part())", "@second/Part(), @first/Part())"), "occurs twice"),
        (("(@first/Part(), @second/Part())", "()"), 'no value refers to the scope "first"'),
    ],
)
def test_wrong_study_is_refused_in_a_line_that_says_where(read, change, expected):
    assert change[0] in GOOD
    with pytest.raises(configuration.ConfigurationError) as caught:
        read(GOOD.replace(*change, 1))
    assert expected in str(caught.value)
    assert "mine.gin" in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_sensitivity_gives_every_method_as_many_configurations_on_both_environments():
    settings = Counter(planned.settings["experiment"] for planned in read_once("launch/sensitivity.gin").trials)
    methods = ("ngdqn", "dqn", "baselines-adam", "baselines-adam_bounded")
    assert settings == {f"{method}_{task}": 48 for method in methods for task in ("cartpole_v1", "lunar")}


@pytest.mark.parametrize("name", ["ablation", "ingredients"])
def test_each_cell_changes_one_thing_beside_what_it_needs(name):
    trials = read_once(f"launch/{name}.gin").trials
    plain = {planned.settings["experiment"]: planned for planned in trials if len(planned.settings) == 2}
    cells = {planned.trial.cell: planned for planned in trials}
    assert len(cells) == 2 * len({"-".join(cell.split("-")[1:]) for cell in cells})  # the same on both environments
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
