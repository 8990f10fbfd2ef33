"""Statistics and tables of run directories whose numbers are known."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.report_runs import ENVIRONMENTS, rows, write_run

from ngrl.reports import report as experiments_report
from ngrl.reports import results, runs, statistics, tables
from ngrl.reports.published import by_environment
from ngrl.studies.trials import experiment_name

ROOT = Path(__file__).parents[2]


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


def test_cells_interquartile_mean_has_the_interval_of_resampled_trials(tmp_path):
    rng = np.random.default_rng(1)
    returns = rng.permutation(np.arange(1.0, 13.0) ** 2)
    for seed, level in enumerate(returns):
        write_run(tmp_path, f"x-seed{seed}", "CartPole-v1", (level, level))
    (cell,) = collect(tmp_path)
    middle, low, high = cell.interquartile("final_100_episode_mean")
    assert middle == pytest.approx(np.mean(np.arange(4.0, 10.0) ** 2))
    # One sample after another, and its middle half.
    means = [np.mean(np.sort(rng.choice(returns, 12))[3:9]) for _ in range(20000)]
    np.testing.assert_allclose((low, high), np.percentile(means, (2.5, 97.5)), rtol=0.05)
    text = tables.interquartile_table([cell])
    assert f"| 12 (0–11) | 45.2 ({low:.1f}, {high:.1f}) | 45.2 ({low:.1f}, {high:.1f}) | 46.2 (" in text
    assert cell.interquartile("nothing") is None


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


def test_one_configuration_alone_says_nothing_of_sensitivity(tmp_path):
    write_run(tmp_path, "x-b=1-seed0", "LunarLander-v3", (1.0,))
    write_run(tmp_path, "x-b=1-seed1", "LunarLander-v3", (1.0,))
    assert statistics.sensitivities(collect(tmp_path)) == []
    write_run(tmp_path, "x-b=2-seed0", "LunarLander-v3", (2.0,))
    (found,) = statistics.sensitivities(collect(tmp_path))
    np.testing.assert_array_equal(found.scores, [1.0, 2.0])
    assert found.env_id == "LunarLander-v3"  # what was run, not what was published of it


def test_same_trial_in_two_folders_counts_once(tmp_path):
    for folder in ("a", "b"):
        write_run(tmp_path / folder, "ngdqn_lunar-seed0", "LunarLander-v3", (1.0, 1.0, 1.0))
    found, left_out = runs.collect([tmp_path / "a", tmp_path / "b"])
    assert len(found) == 1
    (line,) = left_out
    assert "is the same trial" in line


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ["run.num_env_steps", "QNetwork.layer_norm"])
def test_experiments_that_share_a_name_are_reported_apart(tmp_path, seed, name):
    for folder, number, value in (("a", 0, "1000"), ("b", seed, "2000")):
        config = {"Environment.env_id": "'Acrobot-v1'", "run.seed": str(number), name: value, "run.log_every": value}
        write_run(tmp_path / folder, f"x-seed{number}", "Acrobot-v1", (1.0,), config=config)
    with pytest.raises(runs.MixedRunsError) as caught:
        runs.collect([tmp_path / "a", tmp_path / "b"])
    there, here = tmp_path / "a" / "x-seed0", tmp_path / "b" / f"x-seed{seed}"
    assert str(caught.value) == (
        f"{here} is called like {there} and is another experiment: {name} (1000 there, 2000 here); report them apart"
    )


def test_what_says_nothing_of_an_experiment_may_differ_within_a_cell(tmp_path):
    for seed, settings in enumerate(({"run.log_every": "1"}, {"run.log_every": "2", "New.setting": "3"})):
        config = {"Environment.env_id": "'Acrobot-v1'", "run.seed": str(seed), **settings}
        write_run(tmp_path, f"x-seed{seed}", "Acrobot-v1", (1.0,), config=config)
    assert len(collect(tmp_path)[0].runs) == 2


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
        "final_100_episode_mean": 55.0,  # of the 49
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
        "dqn_cartpole_v0: 1 of 4 trials has no score; none of them counts",
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
