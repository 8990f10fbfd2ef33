"""`ngrl.report` on synthetic run directories, whose numbers are known."""

import functools
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.report_runs import ENVIRONMENTS, HEADER, rows, write_run

import ngrl
from ngrl import report as command
from ngrl.reports import report as experiments_report
from ngrl.reports import results, runs, statistics, tables
from ngrl.reports.published import by_environment
from ngrl.runs.events import EventFile

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run_report(command):
    return functools.partial(command, "report", cwd=ROOT)


@pytest.fixture(scope="module")
def made(tmp_path_factory, run_report):
    """A report of two methods on all four environments, a grid, and directories that belong to no report."""
    folder = tmp_path_factory.mktemp("report")
    study = folder / "study"
    for task, env_id in ENVIRONMENTS.items():
        known = by_environment()[env_id]
        for seed in range(2):
            write_run(
                study, f"ngdqn_{task}-seed{seed}", env_id, (known.score - 100, known.score - 10, known.score + seed)
            )
            write_run(
                study, f"dqn_{task}-seed{seed}", env_id, (known.score - 100, known.score - 50 - seed, known.score - 90)
            )
    for level, activation in ((480.0, "tanh"), (100.0, "relu"), (90.0, "elu")):
        write_run(study, f"dqn_cartpole_v1-activation={activation}-seed0", "CartPole-v1", (level, level, level))
    resumed = study / "ngdqn_lunar-seed0" / "run.json"  # as runs are recorded now; the others are as they once were
    record = json.loads(resumed.read_text())
    process = {name: record.pop(name) for name in ("command", "versions")}
    resumed.write_text(json.dumps({"processes": [process, process], **record}))
    write_run(study, "ngdqn_cartpole_v0-seed7", "CartPole-v0", (1.0, 1.0, 1.0), status="training")
    write_run(study, "ngdqn_cartpole_v0-seed8", "CartPole-v0", (1.0, 1.0, 1.0), versions={"ngrl": "0.0.1"})
    write_run(study, "ngdqn_cartpole_v0-seed9", "CartPole-v0", (1.0, 1.0, 1.0), final={"summary": ["a study"]})
    write_run(study, "ngdqn_cartpole_v0-seed0.1", "CartPole-v0", (1.0, 1.0, 1.0))
    write_run(study, "ngdqn_cartpole_v0-seed6", "CartPole-v0", (1.0, 1.0, 1.0))
    (study / "ngdqn_cartpole_v0-seed6" / "episodes.csv").write_text(HEADER + "1,2,x\n")
    (study / "holiday").mkdir()
    (study / "broken").mkdir()
    (study / "broken" / "run.json").write_text("{")
    (study / "other").mkdir()
    (study / "other" / "run.json").write_text('{"name": "not ngrl"}')
    out = folder / "out"
    return folder, out, run_report("--runs", study, "--out", out, "--results", folder / "results")


def test_directories_that_hold_no_finished_run_are_named_and_the_rest_goes_on(made):
    folder, out, result = made
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("19 trials in 11 cells, 8 directories left out")
    lines = result.stderr.splitlines()
    for name, reason in (
        ("ngdqn_cartpole_v0-seed7", "not over (its status is 'training')"),
        ("ngdqn_cartpole_v0-seed8", f"made by ngrl 0.0.1, this is {ngrl.__version__}"),
        ("ngdqn_cartpole_v0-seed9", "no training run"),
        ("ngdqn_cartpole_v0-seed0.1", "an earlier run that was moved aside"),
        ("ngdqn_cartpole_v0-seed6", "can't read"),
        ("holiday", "no run.json"),
        ("broken", "can't read"),
        ("other", "its run.json is not ngrl's"),
    ):
        (line,) = [line for line in lines if f"/{name}: " in line]
        assert reason in line
        assert line.partition(f"/{name}: ")[2] in (out / "report.md").read_text()
    assert len(lines) == 8
    assert str(folder) not in (out / "report.md").read_text()


def test_tables_hold_the_known_numbers(made):
    _, out, _ = made
    by_cell = {row["cell"]: row for row in rows(out / "cells.csv")}
    cell = by_cell["ngdqn_acrobot"]
    known = by_environment()["Acrobot-v1"].score
    assert cell["seeds"] == "0 1"
    assert float(cell["best_mean"]) == pytest.approx(known + 0.5)
    assert float(cell["best_max"]) == pytest.approx(known + 1)
    assert float(cell["greedy_mean"]) == pytest.approx(known + 1.5)
    assert cell["trials_at_published"] == "2"
    # Seed 0 gets there with its last episode; seed 1, whose last phase is 11 above the one before, a little earlier.
    first = {row["seed"]: row for row in rows(out / "runs.csv") if row["cell"] == "ngdqn_acrobot"}
    assert int(first["0"]["env_steps_to_published"]) == 3000
    assert int(first["1"]["env_steps_to_published"]) == 10 * (200 + int(np.ceil(100 * 10 / 11)))
    assert float(first["0"]["wall_s_to_published"]) == pytest.approx(30.0)
    never = by_cell["dqn_acrobot"]
    assert never["trials_at_published"] == "0"
    assert never["median_env_steps_to_published"] == ""
    text = (out / "report.md").read_text()
    assert f"| Acrobot-v1 | NGDQN, trust region | 2 (0–1) | 300 | 3,000 | **−{-known - 0.5:.1f}** |" in text
    assert "| Acrobot-v1 | DQN, target network | −63.21 | 0 of 2 |  |  | 0.5 | 8 | 960 |" in text


def test_share_of_configurations_that_solve_the_task(made):
    _, out, _ = made
    # 475 is gymnasium's threshold: one of three configurations reaches it.
    assert "| CartPole-v1 | DQN, target network | 3 | 475.0 | 33% | 480.0 | 100.0 |" in (out / "report.md").read_text()


def test_pictures_are_files_and_tensorboard_images(made):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, out, _ = made
    names = {path.stem for path in out.glob("*.png")}
    curves = {"curves_ngdqn_trust_region", "curves_dqn_target_network"}
    assert names == {"scores", "methods", "time_to_published", "profiles", "sensitivity", *curves}
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert {tag.removeprefix("report/") for tag in events.Tags()["tensors"]} == names
    for name in names:
        (event,) = events.Tensors(f"report/{name}")
        width, height, png = event.tensor_proto.string_val
        assert png == (out / f"{name}.png").read_bytes()
        assert int(width) > int(height) / 2 > 50
        assert f"({name}.png)" in (out / "report.md").read_text()


def test_report_made_from_the_kept_results_is_the_same(made, run_report):
    folder, out, _ = made
    again = folder / "again"
    result = run_report("--runs", folder / "results" / "study", "--out", again)
    assert result.returncode == 0, result.stderr
    for table in ("runs.csv", "cells.csv"):
        assert rows(again / table) == rows(out / table)


def test_kept_results_are_small_and_name_no_folder_of_the_machine(made):
    folder, _, _ = made
    kept = folder / "results" / "study" / "ngdqn_lunar-seed1"
    assert {path.name for path in kept.iterdir()} == {"run.json", "operative_config.gin", "curve.csv"}
    record = json.loads((kept / "run.json").read_text())
    expected = "python -m ngrl.launch --gin_file=gin/x.gin --root_dir=runs/study/ngdqn_lunar-seed1 --seed=0"
    assert record["command"] == expected
    kept = folder / "results" / "study" / "ngdqn_lunar-seed0"
    commands = [process["command"] for process in json.loads((kept / "run.json").read_text())["processes"]]
    assert commands == [expected.replace("seed1", "seed0")] * 2
    for path in kept.iterdir():
        assert str(folder) not in path.read_text()
        assert "/home/" not in path.read_text()
    assert "returns" not in record["final"]["evaluation"]


def test_runs_that_would_be_kept_in_one_folder_are_refused_and_nothing_is_lost(tmp_path, capsys):
    folders = [tmp_path / name / "study" for name in ("one", "other")]
    for folder, env_id in zip(folders, ("CartPole-v1", "Pendulum-v1"), strict=True):
        write_run(folder, "x-seed0", env_id, (1.0, 2.0, 3.0))
    kept = tmp_path / "kept"
    assert command.main(["--runs", *map(str, folders), "--out", str(tmp_path / "out"), "--results", str(kept)]) == 2
    assert "x-seed0 would both be kept as" in capsys.readouterr().err
    assert not kept.exists()


def test_folder_of_runs_that_can_not_be_read_is_told_as_such(tmp_path, monkeypatch, capsys):
    def unreadable(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", unreadable)
    assert command.main(["--runs", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"ngrl.report: can't read {tmp_path}: Permission denied\n"


def test_report_names_the_command_that_makes_it_of_runs_of_another_version(tmp_path):
    write_run(tmp_path / "study", "x-seed0", "CartPole-v1", (1.0, 2.0, 3.0), versions={"ngrl": "0.0.1"})
    out = tmp_path / "out"
    assert command.main(["--runs", str(tmp_path / "study"), "--out", str(out), "--any_version"]) == 0
    assert "--out … --any_version`" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "env_id", "method"),
    [
        ("dqn_cartpole_v1-seed0", "CartPole-v1", "DQN, target network"),
        ("paper-dqn_cartpole_v1-seed0", "CartPole-v1", "DQN, no target network"),
        ("minatar_breakout-seed0", "MinAtar/Breakout-v1", "NGDQN, trust region"),
        ("atari_pong-seed0", "ALE/Pong-v5", "NGDQN, trust region"),
        ("pendulum-seed0", "Pendulum-v1", "pendulum"),  # whoever called it so says nothing of a method
        ("cartpole_v1", "CartPole-v1", "cartpole_v1"),
        ("ppo_clip_0.2", "CartPole-v1", "ppo_clip_0.2"),  # no run that was moved aside
    ],
)
def test_methods_are_those_of_the_experiments_that_come_with_ngrl(tmp_path, name, env_id, method):
    write_run(tmp_path, f"{name}-seed0" if "seed" not in name else name, env_id, (1.0, 2.0, 3.0))
    if "seed" not in name:
        (tmp_path / f"{name}-seed0").rename(tmp_path / name)
    (found,), left_out = runs.collect([tmp_path])
    assert found.method == method
    assert not left_out


@pytest.mark.parametrize(
    "typed",
    [
        "/opt/env/bin/ngrl launch --gin_file /home/me/x.gin --root_dir /data/study/x-seed3 --seed 3",
        "/opt/env/lib/ngrl/__main__.py launch --gin_file=/home/me/x.gin --root_dir=/data/study/x-seed3 --seed=3",
        "/opt/env/lib/ngrl/launch.py --gin_file=/home/me/x.gin --root_dir=/data/study/x --seeds=1,2,3",
        "/opt/env/lib/ngrl/launch.py --gin_file /home/me/x.gin --root_dir /data/study/x --seeds 1,2,3",
    ],
)
def test_kept_command_is_that_of_the_run_alone_however_it_was_typed(made, tmp_path, typed):
    run = runs.collect([made[0] / "study"])[0][0]
    root_dir = tmp_path / "study" / "x-seed3"
    shutil.copytree(run.path, root_dir)
    record = json.loads((root_dir / "run.json").read_text())
    (root_dir / "run.json").write_text(json.dumps({**record, "command": typed, "seed": 3}))
    results.keep(runs.collect([root_dir])[0], tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "study" / "x-seed3" / "run.json").read_text())["command"]
    assert kept.replace("--seed 3", "--seed=3") == (
        "python -m ngrl.launch --gin_file=x.gin --root_dir=runs/study/x-seed3 --seed=3"
    )


def test_run_that_can_not_be_read_to_be_kept_is_told_as_such(made, tmp_path, monkeypatch, capsys):
    configuration = made[0] / "study" / "ngdqn_lunar-seed0" / "operative_config.gin"
    read = Path.read_bytes

    def unreadable(path):
        if path.resolve() == configuration.resolve():
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    arguments = ["--runs", str(made[0] / "study"), "--out", str(tmp_path), "--results", str(tmp_path / "kept")]
    assert command.main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"ngrl.report: can't read {configuration}: Permission denied"


def test_report_needs_no_tensorflow(made, tmp_path):
    folder, _, _ = made
    code = (
        "import sys\nfrom ngrl import report\n"
        f"code = report.main(['--runs', {str(folder / 'study')!r}, '--out', {str(tmp_path)!r}])\n"
        "heavy = {'tensorflow', 'ray', 'tf_agents'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "no such folder"), ("empty", "no run that is over"), ("file", "no such folder")]
)
def test_wrong_input_gets_one_line(tmp_path, content, expected, run_report):
    target = tmp_path / "runs"
    if content == "empty":
        target.mkdir()
    elif content == "file":
        target.write_text("")
    result = run_report("--runs", target, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_committed_report_is_that_of_the_committed_results(tmp_path):
    found, left_out = runs.collect([ROOT / "results" / "paper"], any_version=True)
    assert found
    assert not left_out
    tables.write_cells(tmp_path / "cells.csv", statistics.cells(found))
    tables.write_runs(tmp_path / "runs.csv", statistics.cells(found))
    for table in ("cells.csv", "runs.csv"):
        assert rows(tmp_path / table) == rows(ROOT / "results" / "report" / table)


GOALS = {
    "ngdqn_cartpole_v0": (200.0, math.inf, 4 / 50),
    "ngdqn_cartpole_v1": (499.5, math.inf, 9 / 50),
    "ngdqn_acrobot": (-63.0, 500_100, 48 / 50),
    "ngdqn_lunar": (278.0, 400_100, 48 / 50),
}


@pytest.mark.parametrize("cell", GOALS)
def test_committed_results_are_what_ten_seeds_must_reach(cell):
    score, env_steps, hours = GOALS[cell]
    found, _ = runs.collect([ROOT / "results" / "paper"], any_version=True)
    trials = [run for run in found if run.cell == cell]
    assert sorted(run.seed for run in trials) == list(range(10))
    assert np.mean([run.final["best_100_episode_mean"] for run in trials]) >= score
    assert max(run.final["env_steps"] for run in trials) <= env_steps
    assert max(run.final["wall_s"] for run in trials) <= 3600 * hours


def test_report_whose_reader_has_gone_keeps_its_results_all_the_same(tmp_path):
    write_run(tmp_path / "study", "ngdqn_acrobot-seed0", "Acrobot-v1", (-90.0,))
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ngrl.report", "--runs=study", "--out=out", "--results=kept"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "kept" / "study" / "ngdqn_acrobot-seed0" / "curve.csv").exists()


def test_the_report_tells_the_means_of_what_runs_logged(tmp_path, capsys):
    for seed, numbers in enumerate(((0.01, 0.03), (0.04, 0.06))):
        root_dir = write_run(tmp_path / "study", f"trpo_hopper-seed{seed}", "Hopper-v5", (480.0,))
        with EventFile(root_dir / "train") as events:
            for step, number in enumerate(numbers):
                events.scalars({"ngrl/kl": number}, step)
    write_run(tmp_path / "study", "trpo_hopper-seed2", "Hopper-v5", (480.0,))
    arguments = ["--runs", str(tmp_path / "study"), "--out", str(tmp_path / "out"), "--tags"]

    assert command.main([*arguments, "ngrl/KL"]) == 2
    assert capsys.readouterr().err == "ngrl.report: no run logged 'ngrl/KL'; did you mean \"ngrl/kl\"?\n"
    assert not (tmp_path / "out").exists()
    assert command.main([*arguments, "ngrl/kl"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| Hopper-v5 | TRPO | 3 (0–2) | 0.035 (0.02, 0.05) (2 of 3) |" in text
    assert "--out … --tags ngrl/kl`" in text


def test_that_no_trial_reached_the_published_score_is_told_without_a_picture(tmp_path):
    write_run(tmp_path / "study", "ppo_acrobot-seed0", "Acrobot-v1", (-500.0,))
    assert command.main(["--runs", str(tmp_path / "study"), "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "time_to_published.png").exists()
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| Acrobot-v1 | PPO | −63.21 | 0 of 1 |" in text
    assert "time_to_published.png" not in text


def test_mixed_runs_and_folders_of_runs_to_write_to_are_refused_in_a_line(tmp_path, capsys):
    study = tmp_path / "study"
    for seed in (0, 1):
        config = {"Environment.env_id": "'Acrobot-v1'", "QNetwork.layer_norm": str(seed)}
        write_run(study, f"x-seed{seed}", "Acrobot-v1", (1.0,), config=config)
    before = sorted(study.rglob("*"))
    for arguments, line in (
        (["--out", f"{tmp_path}/out"], f"{study}/x-seed1 is called like {study}/x-seed0 and is another experiment: "),
        (["--out", str(study)], f"--out {study} holds the runs of --runs"),
        (["--out", f"{tmp_path}/out", "--results", f"{study}/kept"], f"--results {study}/kept is within {study} of"),
        (["--out", f"{tmp_path}/out", "--results", str(study)], f"--results {study} is within {study} of"),
        (["--out", f"{study}/x-seed0"], f"{study}/x-seed0 is a run's directory: choose a folder of its own"),
    ):
        assert command.main(["--runs", str(study), *arguments]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"ngrl.report: {line}")
        assert told.count("\n") == 1
    assert sorted(study.rglob("*")) == before
    assert not (tmp_path / "out").exists()


def test_report_is_told_before_its_copies_fail_and_its_commands_can_be_pasted(tmp_path, monkeypatch, capsys):
    def keep(found, folder):
        raise PermissionError(13, "Permission denied", str(folder))

    out = tmp_path / "my report"
    monkeypatch.setattr(runs, "collect", lambda *_: (["a run"], []))
    monkeypatch.setattr(experiments_report, "write", lambda *_: experiments_report.Report(1, [out / "report.md"]))
    monkeypatch.setattr(results, "keep", keep)
    assert command.main(["--runs", str(tmp_path), "--out", str(out), "--results", "kept"]) == 2
    told = capsys.readouterr()
    first, file, tensorboard = told.out.splitlines()
    assert first == "1 trial in 1 cell, 0 directories left out"
    assert shlex.split(file) == [str(out / "report.md")]
    assert shlex.split(tensorboard)[-2:] == ["--logdir", str(out)]
    assert told.err == "ngrl.report: can't write kept: Permission denied\n"
