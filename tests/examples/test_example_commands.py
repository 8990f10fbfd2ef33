"""The examples as a user runs them: `ngrl.launch` in processes."""

import functools
import json
from pathlib import Path

import pytest

GIN = Path(__file__).parents[2] / "gin" / "examples"
MLE, GEOMETRY = GIN / "mle_gaussian.gin", GIN / "geometry.gin"
SHORT = [
    f"--gin_bindings=maximum_likelihood.{name}" for name in ("num_steps=30", "num_points=200", "fisher_samples=100")
]


@pytest.fixture(scope="module")
def launch(command):
    return functools.partial(command, "launch")


@pytest.fixture(scope="module")
def finished(launch, tmp_path_factory):
    """A short run with a seed: its folder and the command's result."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, launch(f"--gin_file={MLE}", "--seed=5", *SHORT, cwd=folder)


def test_launch_runs_an_example_in_a_directory_of_its_own_with_a_clean_terminal(finished):
    folder, result = finished
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines() == ["mle_gaussian: starting TensorFlow"]
    lines = result.stdout.splitlines()
    assert lines[0] == "mle_gaussian: N(12, 4²) fitted from (0, 1) to 200 points, 30 steps"
    assert sum("ends at" in line for line in lines) == 5
    assert lines[-1].endswith("tensorboard --logdir runs")
    run = folder / "runs" / "examples-mle_gaussian-seed5"
    assert f"figures      {run.relative_to(folder) / 'figure_1.png'}" in result.stdout
    run_json = json.loads((run / "run.json").read_text())
    assert run_json["seed"] == 5
    assert run_json["config"]["main.entry"] == "@maximum_likelihood"
    assert run_json["config"]["maximum_likelihood.seed"] == "5"
    (process,) = run_json["processes"]
    assert {"started", "command", "versions", "git_revision"} == process.keys()
    assert "maximum_likelihood.num_steps = 30" in (run / "operative_config.gin").read_text()
    assert (run / "log.txt").stat().st_size > 0


def test_operative_config_repeats_the_example(launch, finished, tmp_path):
    folder, _ = finished
    first = folder / "runs" / "examples-mle_gaussian-seed5"
    result = launch("--noprogress", f"--gin_file={first / 'operative_config.gin'}", "--root_dir=again", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    again = tmp_path / "again"
    assert (again / "trajectories.csv").read_bytes() == (first / "trajectories.csv").read_bytes()


def test_directory_of_another_experiment_is_refused_in_one_line(launch, finished):
    folder, _ = finished
    run = folder / "runs" / "examples-mle_gaussian-seed5"
    before = (run / "run.json").read_bytes()
    result = launch("--noprogress", f"--gin_file={GEOMETRY}", f"--root_dir={run}", cwd=folder)
    assert result.returncode == 2
    assert "belongs to another experiment" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([f"--gin_file={GEOMETRY}", "--seed=1"], '--seed: no parameter "seed" on geometry'),
        (
            [f"--gin_file={MLE}", "--gin_bindings=maximum_likelihood.start=(0.0, 0.0)"],
            "start's σ must be positive and finite, got 0.0",
        ),
    ],
)
def test_wrong_input_gets_one_line_and_leaves_nothing_behind(launch, arguments, expected, tmp_path):
    result = launch("--noprogress", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert not list(tmp_path.iterdir())


def test_descent_that_fails_is_reported_in_one_line_with_exit_code_1(launch, tmp_path):
    settings = ["step_size=0.1", "start=(12.0, 8.0)", "num_steps=5"]
    bindings = [f"--gin_bindings=maximum_likelihood.{setting}" for setting in settings]
    result = launch("--noprogress", f"--gin_file={MLE}", *bindings, cwd=tmp_path)
    assert result.returncode == 1
    assert "gradient, fixed step: step 1 came to" in result.stderr
    assert "make step_size smaller" in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
