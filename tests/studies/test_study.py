"""Study files: what they expand to, and what is said of wrong ones before anything runs."""

from pathlib import Path

import gin
import pytest

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


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("cpus_per_trial = 0", "cpus_per_trial must be a positive integer, got 0"),
        ("gpus_per_trial = -0.5", "gpus_per_trial must be finite and not negative, got -0.5"),
        ("max_failures = -1", "max_failures must be an integer of at least 0, got -1"),
    ],
)
def test_numbers_of_a_study_are_checked_when_it_is_read(read, setting, problem):
    with pytest.raises(configuration.ConfigurationError, match=rf"mine\.gin: Study\.{problem}"):
        read(f"{GOOD}\nStudy.{setting}\n")


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
    with pytest.raises(configuration.ConfigurationError, match=r"^--seeds: seeds must be .* got \[1, 1\]$"):
        read(GOOD, seeds=[1, 1])


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


def test_module_that_goes_to_another_folder_leaves_the_experiments_where_they_are(read, tmp_path, monkeypatch):
    (tmp_path / "wandering.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(read(f"import wandering\n{GOOD}", allow_gin_import=["wandering"]).trials) == 9
    assert Path.cwd() == ROOT
