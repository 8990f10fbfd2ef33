"""`ngrl.report` on synthetic run directories, whose numbers are known."""

import csv
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ngrl
from ngrl import report as command
from ngrl.reports import report as experiments_report
from ngrl.reports import results, runs, statistics, tables
from ngrl.reports.published import by_environment
from ngrl.runs.events import EventFile
from ngrl.studies.trials import experiment_name

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = {
    "cartpole_v0": "CartPole-v0",
    "cartpole_v1": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "lunar": "LunarLander-v3",
}
HEADER = "episode,env_steps,train_steps,return,length,wall_s\n"


def write_run(folder, name, env_id, levels, status="finished", **changes):
    """A run of 100 episodes at each level of return; an episode has 10 steps, a second 100."""
    root_dir = folder / name
    root_dir.mkdir(parents=True)
    returns = np.repeat(np.asarray(levels, float), 100)
    rows = [f"{n},{10 * n},{n},{value},10,{0.1 * n:.3f}\n" for n, value in enumerate(returns, start=1)]
    (root_dir / "episodes.csv").write_text(HEADER + "".join(rows))
    (root_dir / "operative_config.gin").write_text(f'Environment.env_id = "{env_id}"\n')
    record = {
        "command": f"/home/someone/ngrl/launch.py --gin_file=gin/x.gin --root_dir={root_dir} --seed=0",
        "versions": {"ngrl": ngrl.__version__},
        "status": status,
        "config": {"Environment.env_id": repr(env_id)},
        "seed": int(name.rpartition("seed")[2].partition(".")[0]),
        "final": {
            "env_steps": 10 * len(returns),
            "episodes": len(returns),
            "best_100_episode_mean": max(levels),
            "best_at_env_steps": 1000,
            "final_100_episode_mean": levels[-1],
            "wall_s": 0.1 * len(returns),
            "skipped_updates": 0,
            "evaluation": {"mean": levels[-1] + 1, "returns": [levels[-1] + 1]},
        },
        **changes,
    }
    (root_dir / "run.json").write_text(json.dumps(record))
    return root_dir


def run_report(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "ngrl.report", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
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


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


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
    assert names == {"scores", "time_to_published", "profiles", "sensitivity", *curves}
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert {tag.removeprefix("report/") for tag in events.Tags()["tensors"]} == names
    for name in names:
        (event,) = events.Tensors(f"report/{name}")
        width, height, png = event.tensor_proto.string_val
        assert png == (out / f"{name}.png").read_bytes()
        assert int(width) > int(height) / 2 > 50
        assert f"({name}.png)" in (out / "report.md").read_text()


def test_report_made_from_the_kept_results_is_the_same(made):
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
def test_wrong_input_gets_one_line(tmp_path, content, expected):
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


#: What the README says of NGDQN with the trust region: mean over ten seeds of the best 100-episode mean, the most
#: environment steps, and the most hours a trial, a fiftieth of the paper's.
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


def collect(folder):
    found, left_out = runs.collect([folder])
    assert not left_out
    return statistics.cells(found)


def test_interquartile_mean_and_its_interval_are_those_of_the_definition(tmp_path):
    rng = np.random.default_rng(0)
    expected = []
    for task, env_id in ENVIRONMENTS.items():
        known = by_environment()[env_id]
        for seed, score in enumerate(known.score + rng.normal(0, 5, 6)):
            write_run(tmp_path, f"ngdqn_{task}-seed{seed}", env_id, (score - 1, score - 1, score))
            expected.append((score - np.mean(known.dqn)) / (known.score - np.mean(known.dqn)))
    (aggregate,), left_out = statistics.aggregates(collect(tmp_path))
    assert not left_out
    assert (aggregate.seeds, aggregate.environments) == (6, 4)
    # The mean of what is left of 24 scores without the lowest and the highest 6.
    assert aggregate.iqm == pytest.approx(np.mean(np.sort(expected)[6:18]))
    low, high = aggregate.interval
    assert low < aggregate.iqm < high
    shares = [np.mean(np.array(expected) > tau) for tau in statistics.PROFILE_SCORES]
    np.testing.assert_allclose(aggregate.profile, shares)
    # The bootstrap depends on nothing but the scores.
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert statistics.aggregates(collect(tmp_path))[0][0].interval == aggregate.interval
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_method_that_was_not_run_everywhere_or_has_a_trial_without_score_has_no_aggregate(tmp_path):
    for task, env_id in ENVIRONMENTS.items():
        if task != "lunar":
            write_run(tmp_path, f"dqn_{task}-seed0", env_id, (1.0, 1.0, 1.0))
        run = write_run(tmp_path, f"ngdqn_{task}-seed0", env_id, (1.0, 1.0, 1.0))
    record = json.loads((run / "run.json").read_text())
    record["final"]["best_100_episode_mean"] = None
    record["status"] = "diverged"
    (run / "run.json").write_text(json.dumps(record))
    cells = collect(tmp_path)
    assert statistics.aggregates(cells)[0] == []
    written = experiments_report.write(runs.collect([tmp_path])[0], [], tmp_path / "out", [tmp_path])
    assert written.cells == 7
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| LunarLander-v3 | NGDQN, trust region | 1 (0), 1 diverged | 300 | 3,000 |  |  | 1.0 | 2.0 | 0.5 |" in text


def test_same_trial_in_two_folders_counts_once(tmp_path):
    for folder in ("a", "b"):
        write_run(tmp_path / folder, "ngdqn_lunar-seed0", "LunarLander-v3", (1.0, 1.0, 1.0))
    found, left_out = runs.collect([tmp_path / "a", tmp_path / "b"])
    assert len(found) == 1
    (line,) = left_out
    assert "is the same trial" in line


@pytest.mark.parametrize(("within", "given"), [("", "."), ("train", ".."), ("train", "../../x-seed3")])
def test_run_given_by_a_path_without_a_name_is_called_what_its_folder_is(tmp_path, monkeypatch, within, given):
    root_dir = write_run(tmp_path / "study", "x-seed3", "CartPole-v1", [100.0])
    (root_dir / "train").mkdir()
    monkeypatch.chdir(root_dir / within)
    (run,), _ = runs.collect([Path(given)])
    assert (run.cell, run.seed) == ("x", 3)
    results.keep([run], tmp_path / "kept")
    assert (tmp_path / "kept" / "study" / "x-seed3" / "run.json").exists()


def test_published_scores_have_the_means_that_the_paper_draws():
    published = {known.environment: known for known in by_environment().values()}
    assert {name: round(known.score, 1) for name, known in published.items()} == {
        "CartPole-v0": 200.0,
        "CartPole-v1": 499.0,
        "Acrobot-v1": -63.2,
        "LunarLander-v2": 108.2,
    }
    for known in published.values():
        assert len(known.ngdqn) == len(known.dqn) == 10
        np.testing.assert_allclose(known.normalise(np.array([np.mean(known.dqn), known.score])), [0, 1], atol=1e-12)
    assert by_environment()["ngrl/LunarLander-v2"] is by_environment()["LunarLander-v3"]


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


def test_line_of_a_table_has_as_many_cells_whatever_a_run_is_called():
    text = tables.markdown([{"cell": "we|ird"}, {"cell": "plain"}])
    assert [line.count("|") for line in text.splitlines()] == [2, 2, 2, 2]


@pytest.mark.parametrize("kept", [30, 8])
def test_run_whose_episodes_were_cut_off_is_left_out(tmp_path, kept):
    root_dir = write_run(tmp_path / "study", "ngdqn_acrobot-seed0", "Acrobot-v1", (-90.0, -80.0))
    (run,) = collect(tmp_path / "study")[0].runs
    results.keep([run], tmp_path / "results")
    for folder, name in ((root_dir, "episodes.csv"), (tmp_path / "results" / "study" / root_dir.name, "curve.csv")):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:kept]))
        found, left_out = runs.collect([folder])
        assert found == []
        assert "its curve ends at episode" in left_out[0]
        assert "of 200; left out" in left_out[0]


def test_no_statistic_leaves_a_trial_out_silently(tmp_path):
    """Seed 1 has no score, seed 2 was not evaluated; a fourth trial on the other environments is one too many."""
    short = {
        "episodes": 49,
        "final_100_episode_mean": None,
        "best_100_episode_mean": math.nan,
        "best_at_env_steps": None,
    }
    for task, env_id in ENVIRONMENTS.items():
        for seed in range(3 if task == "acrobot" else 4):
            write_run(tmp_path, f"ngdqn_{task}-seed{seed}", env_id, (100.0,))
            if task == "cartpole_v0":
                write_run(tmp_path, f"dqn_{task}-seed{seed}", env_id, (100.0,))
    for task, seed, changes in (("cartpole_v0", 1, short), ("cartpole_v0", 2, {"evaluation": {}})):
        root_dir = tmp_path / f"dqn_{task}-seed{seed}"
        record = json.loads((root_dir / "run.json").read_text())
        record["final"] |= changes
        (root_dir / "run.json").write_text(json.dumps(record))
        if changes is short:
            lines = (root_dir / "episodes.csv").read_text().splitlines(keepends=True)
            (root_dir / "episodes.csv").write_text("".join(lines[:50]))
    cells = collect(tmp_path)
    text = tables.scores_table(cells)
    row = "| 4 (0–3) | 49–100 | 1,000 | **100.0** (3 of 4) | 100.0, 100.0, 100.0 | 100.0 (3 of 4) | 101.0 (3 of 4) |"
    assert f"| CartPole-v0 | DQN, target network {row}" in text
    tables.write_cells(tmp_path / "cells.csv", cells)
    counts = ("trials", "trials_with_best", "trials_with_final", "trials_with_greedy")
    (written,) = [row for row in rows(tmp_path / "cells.csv") if row["cell"] == "dqn_cartpole_v0"]
    assert [written[name] for name in counts] == ["4", "3", "3", "3"]
    (aggregate,), left_out = statistics.aggregates(cells)
    assert (aggregate.method, aggregate.seeds) == ("NGDQN, trust region", 3)
    surplus = [f"ngdqn_{task}: 3 of 4 trials count, as many as on each environment" for task in ENVIRONMENTS]
    assert set(left_out) == {
        "dqn_cartpole_v0: 1 of 4 trials have no score; none of them counts",
        *(line for line in surplus if "acrobot" not in line),
    }
    found, lines = runs.collect([tmp_path])
    experiments_report.write(found, lines, tmp_path / "out", [tmp_path])
    document = (tmp_path / "out" / "report.md").read_text()
    assert all(f"- {line}" in document for line in left_out)


def test_every_experiment_has_its_method_by_name(tmp_path):
    paths = [path for path in (ROOT / "gin").rglob("*.gin") if "Environment.env_id" in path.read_text()]
    names = {experiment_name(path) for path in paths if path.parent.name not in ("examples", "solvers")}
    assert len(names) > 80
    for name in names:
        write_run(tmp_path, f"{name}-seed0", "CartPole-v1", (480.0,))
    found, _ = runs.collect([tmp_path])
    unnamed = {run.experiment for run in found if run.base_method not in runs.METHODS.values()}
    assert len(found) == len(names)
    assert not unnamed


def test_hours_are_those_of_the_method():
    known = by_environment()["CartPole-v1"]
    assert known.hours == {"NGDQN": 9, "DQN": 1}
    found, _ = runs.collect([ROOT / "results" / "paper"], any_version=True)
    by_name = {cell.name: cell for cell in statistics.cells(found)}
    hours = {name: by_name[name].published_hours for name in ("ngdqn_cartpole_v1", "dqn_cartpole_v1")}
    assert hours == {"ngdqn_cartpole_v1": 9, "dqn_cartpole_v1": 1}


def test_a_method_that_was_not_published_has_no_published_hours(tmp_path):
    write_run(tmp_path, "ppo_cartpole_v1-seed0", "CartPole-v1", (480.0,))
    (cell,) = collect(tmp_path)
    assert cell.published_hours is None
    assert tables.times_table([cell]).endswith("| 0.2 |  |  |")


def test_the_report_says_where_the_published_lunar_runs_were_stopped():
    text = (ROOT / "results" / "report" / "report.md").read_text()
    assert "| LunarLander-v2 | NGDQN about 460, stopped at 48 hours; DQN 10000 |" in text
    assert "NGDQN was stopped at 48 hours, after about 460 episodes" in text


def test_the_report_holds_what_was_published_of_its_environments_alone(tmp_path):
    write_run(tmp_path / "study", "trpo_hopper-seed0", "Hopper-v5", (480.0,))
    experiments_report.write(*runs.collect([tmp_path / "study"]), tmp_path / "robots", [tmp_path])
    write_run(tmp_path / "study", "ngdqn_cartpole_v1-seed0", "CartPole-v1", (480.0,))
    experiments_report.write(*runs.collect([tmp_path / "study"]), tmp_path / "both", [tmp_path])

    robots, both = ((tmp_path / name / "report.md").read_text() for name in ("robots", "both"))
    assert "published (" not in robots
    assert "| CartPole-v1 | 2000 |" in both
    assert "CartPole-v0" not in both
    assert "LunarLander" not in robots + both


@pytest.mark.parametrize(("env_id", "told"), [("ngrl/LunarLander-v2", True), ("LunarLanderContinuous-v3", False)])
def test_lunar_landers_note_stands_where_its_published_figures_do(tmp_path, env_id, told):
    write_run(tmp_path / "study", "ngdqn_lunar-seed0", env_id, (480.0,))
    experiments_report.write(*runs.collect([tmp_path / "study"]), tmp_path / "out", [tmp_path])
    text = (tmp_path / "out" / "report.md").read_text()
    assert ("| LunarLander-v2 |" in text) == ("no end of learning" in text) == told


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
    assert first == "1 trials in 1 cells, 0 directories left out"
    assert shlex.split(file) == [str(out / "report.md")]
    assert shlex.split(tensorboard)[-2:] == ["--logdir", str(out)]
    assert told.err == "ngrl.report: can't write kept: Permission denied\n"
