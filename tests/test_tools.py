"""The scripts in `tools/` that the README names, in short."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import bench_memory
import bench_rounds
import fingerprint
import plot_runs
import pytest
import scores
from support.report_runs import write_run

from ngrl import figures

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"


def tool(name, *arguments, cwd):
    command = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=280)


def test_scores_prints_a_table_and_plot_runs_draws_the_curves(script, tmp_path):
    experiment = tmp_path / "short.gin"
    experiment.write_text(
        f"include '{ROOT / 'gin' / 'ngdqn_cartpole_v1.gin'}'\nrun.num_env_steps = 4000\nEvaluation.episodes = 2\n"
        "OffPolicyLoop.warmup_steps = 3800\nOffPolicyLoop.jit_compile = False\n"  # a hundred episodes soon
    )
    result = script(TOOLS / "scores.py", experiment, "--seeds", 0, "--runs", tmp_path / "runs", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    name, scores = next(iter(json.loads(result.stdout.splitlines()[-1]).items()))
    assert f"| {name} | 0 | {scores['0']['best_100_episode_mean']:.1f} |" in result.stdout
    assert f"| {scores['0']['greedy']:.1f} |" in result.stdout
    picture = tmp_path / "curves.png"
    result = script(TOOLS / "plot_runs.py", tmp_path / "runs" / f"{name}-seed0", "--out", picture, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert picture.read_bytes()[1:4] == b"PNG"


def test_rounds_of_bench_take_turns():
    turns = []
    runs = {name: lambda name=name: turns.append(name) or len(turns) for name in "ab"}
    assert bench_rounds.interleave(runs, 3) == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert turns == list("ababab")
    assert bench_rounds.quartiles([1.0, 2.0, 3.0]) == {"median": 2.0, "q1": 1.0, "q3": 3.0}


_EVERY_PART = """
import functools, json, sys
sys.path.insert(0, sys.argv[1])
import bench
bench.BATCH = 8
bench.update_time = functools.cache(bench.update_time)  # two parts measure the same
bench.ENVIRONMENTS = {"CartPole-v1": bench.ENVIRONMENTS["CartPole-v1"]}
bench.NETWORKS = {"4-8-2": (4, (8,), 2, 3.0)}
bench.UPDATES_PER_CALL = 2
import bench_pixels
tiny = {"shape": [4, 4, 1], "convolutions": ((2, 3, 1),), "units": 4, "batch": 2, "updates": 2, "goal": 1.2}
bench_pixels.NETWORKS = {"tiny": tiny}
bench_pixels.VARIANTS = (("patches", "graph"),)
import bench_compiled
bench_compiled.EXPERIMENTS = ("trpo_cartpole_v1",)
bench_compiled.SEEDS_EXPERIMENT, bench_compiled.SEEDS_STEPS, bench_compiled.SEEDS = "trpo_cartpole_v1", 64, (0, 1)
bench_compiled.BINDINGS = ("OnPolicyLoop.batch_size=64", "Critic.epochs=1", "OnPolicyLoop.jit_compile=False")
import bench_cores
bench_cores.EXPERIMENTS = ("ppo_hopper",)  # quicker to trace than TRPO
bench_cores.SAME = ("Environment.num_envs = 2", "OnPolicyLoop.batch_size = 64", "OnPolicyLoop.act_on_host = True")
import bench_kfac
bench_kfac.HIDDEN, bench_kfac.ROWS = (4, 4), 8
bench_kfac.MLPS = {"8-256-128-4, B = 128": (8, (4,), 2, 2, 1.5)}
import bench_recurrent
bench_recurrent.STEPS, bench_recurrent.UNITS, bench_recurrent.BATCHES, bench_recurrent.UPDATES = 2, 2, (2,), 2
bench_recurrent.VARIANTS = (("unrolled", "graph"),)
bench_kfac.NATURE, bench_kfac.VARIANTS = tiny, bench_pixels.VARIANTS
print(json.dumps(bench.in_process("peak", "--width", "8", "--kind", "graph")))
parts = {part: bench.measure(part, 0, 2, 0.05) for part in bench.PARTS if part not in ("buffers", "memory", "ray")}
bench.in_process = lambda worker, *options: parts[worker]
sys.argv = ["bench.py", *(f"--only={part}" for part in parts), "--rounds=2"]
bench.main()
"""


def test_every_part_of_bench_measures_and_its_ratios_are_printed_as_json(tmp_path):
    """With one small network and one environment, in one process but for the memory's; Ray has a test of its own."""
    command = [sys.executable, "-c", _EVERY_PART, str(TOOLS)]
    # What is measured is of no interest: XLA needn't optimise.
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280, env=environment
    )
    assert result.returncode == 0, result.stderr
    memory, _, report = result.stdout.partition("\n")
    # Three layers of 8 and one of 4, on 8 inputs.
    assert json.loads(memory)["parameters"] == 3 * (8 * 8 + 8) + 8 * 4 + 4
    assert json.loads(memory)["bytes"] > 1e8
    report = json.loads(report)
    for threads in ("1 thread", "default threads"):
        parts = {part: measured[threads] for part, measured in report.items() if part != "machine"}
        assert parts["loops"]["CartPole-v1"]["ngdqn_over_stock"]["median"] > 0
        assert parts["compiled"]["trpo_cartpole_v1"]["compiled_over_gymnasium"]["median"] > 0
        assert parts["compiled"]["trpo_cartpole_v1"]["on_host_over_gymnasium"]["median"] > 0
        assert parts["cores"]["ppo_hopper"]["critic_over_one"]["median"] > 0
        assert parts["cores"]["ppo_hopper"]["robots_over_one"]["median"] > 0
        assert parts["seeds"]["alone_over_together"]["median"] > 1
        assert parts["updates"]["4-8-2"]["natural_over_adam"]["median"] > 0
        assert parts["pixels"]["tiny"]["natural_over_adam"]["median"] > 0
        assert parts["gru"]["GRU(2), 2 steps, B = 2"]["natural_over_adam"]["median"] > 0
        assert parts["exact"]["4-8-2"]["cholesky_over_cg"]["median"] > 0
        assert parts["product"]["4-8-2"]["product_over_gradient"]["median"] > 0
        for network in ("8-256-128-4, B = 128", "nature, B = 32"):
            assert parts["kfac"][network]["kfac_over_adam"]["median"] > 0


def test_memory_of_an_update_is_what_xla_plans_for_it(monkeypatch):
    """Rows of a GRU's kernels are kept once: with copies it would be 2.5 times Adam's memory."""
    monkeypatch.setattr(bench_memory, "networks", lambda: ["gru, B = 32"])
    (measured,) = bench_memory.measure_buffers(2, 0.0).values()
    # Adam's parameters, first and second moments; the rows [32, 8 · 192 + 64 · 192] of two kernels.
    assert measured["megabytes"]["adam"] > 3 * 4 * (8 + 64) * 192 / 1e6
    assert measured["megabytes"]["natural"] > 32 * 4 * (8 + 64) * 192 / 1e6
    assert 1 < measured["natural_over_adam"] < 2


def test_comparison_with_kfac_jax_says_in_one_line_what_it_lacks(tmp_path):
    result = tool("compare_kfac_jax.py", "--python", tmp_path / "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert "nowhere does not exist" in result.stderr.splitlines()[-1]
    result = tool("compare_kfac_jax.py", "--python", sys.executable, cwd=tmp_path)
    assert result.returncode == 1
    assert "ended with exit code 1: ModuleNotFoundError: No module named 'jax'" in result.stderr.splitlines()[-1]
    assert result.stdout.startswith("| network, loss |")


def test_fingerprints_of_two_like_runs_are_the_same(server, tmp_path, monkeypatch, capsys):
    shared = SimpleNamespace(ask=server.ask, close=lambda: None)
    monkeypatch.setattr(fingerprint.fork_server, "Server", lambda errors: shared)
    short = ["fingerprint.py", "--only", "examples/toy_npg", "--steps", "100"]
    for option in ("--out", "--compare"):
        monkeypatch.setattr("sys.argv", [*short, option, str(tmp_path / "before.json")])
        assert fingerprint.main() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 fingerprints are the same"


@pytest.fixture
def scores_that_fail(monkeypatch, capsys):
    """Runs `scores.py` in a folder, where it fails; what it prints, and its lines of what failed."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["scores.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            scores.main()
        return capsys.readouterr().out, stopped.value.code.splitlines()

    return run


def test_scores_of_runs_that_finished_are_told_where_another_failed(scores_that_fail, tmp_path):
    run = tmp_path / "runs" / "good-seed0"
    run.mkdir(parents=True)
    evaluation = {"mean": 7.25}
    final = {"best_100_episode_mean": 9.5, "best_at_env_steps": 10, "final_100_episode_mean": 8.5, "wall_s": 60}
    (run / "run.json").write_text(json.dumps({"status": "finished", "final": {**final, "evaluation": evaluation}}))
    folder = tmp_path / "gin"
    folder.mkdir()
    (folder / "good.gin").touch()
    (folder / "bad.gin").write_text("run.num_env_stps = 1\n")
    files = [folder / "bad.gin", folder / "good.gin"]
    printed, (line,) = scores_that_fail(*files, "--seeds", 0, "--runs", run.parent, cwd=tmp_path)
    assert "| good | 0 | 9.5 | 10 | 8.5 | 7.2 | 1.0 |" in printed
    assert json.loads(printed.splitlines()[-1]) == {"good": {"0": {"best_100_episode_mean": 9.5, "greedy": 7.25}}}
    assert line.startswith("scores: ")
    assert "num_env_stps" in line


def test_scores_are_not_those_of_another_experiment_of_the_name_nor_of_one_without_scores(scores_that_fail, tmp_path):
    (tmp_path / "gin").mkdir()
    for name, config, final in (
        ("other", {"DqnAgent.gamma": "0.9"}, {"best_100_episode_mean": 9.5}),
        ("points", {}, {"reached": 3}),
    ):
        (tmp_path / "gin" / f"{name}.gin").touch()
        run = tmp_path / "runs" / f"{name}-seed0"
        run.mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"status": "finished", "config": config, "final": final}))
    files = ["gin/other.gin", "gin/points.gin"]
    _, (other, points) = scores_that_fail(*files, "--seeds", 0, "--runs", tmp_path / "runs", cwd=tmp_path)
    assert "belongs to another experiment: DqnAgent.gamma (0.9 there, 0.99 here)" in other
    assert points == "scores: gin/points.gin trains no agent: it has no scores"


def test_every_method_is_drawn_where_there_are_more_than_colours(tmp_path, monkeypatch):
    methods = [f"method_{number}" for number in range(len(figures.COLOURS) + 1)]
    for method in methods:
        write_run(tmp_path / "runs", f"{method}-seed0", "CartPole-v1", (1.0, 2.0, 3.0))
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.extend(figure.axes))
    runs = [str(path) for path in (tmp_path / "runs").iterdir()]
    monkeypatch.setattr("sys.argv", ["plot_runs.py", *runs, "--out", str(tmp_path / "curves.png")])
    plot_runs.main()
    labels = {text.get_text().partition(",")[0] for text in drawn[0].get_legend().get_texts()}
    assert labels >= set(methods)


def test_scores_of_runs_that_evaluate_nothing_have_a_dash(tmp_path, monkeypatch, capsys):
    (tmp_path / "gin").mkdir()
    (tmp_path / "gin" / "a.gin").touch()
    final = {"best_100_episode_mean": 9.5, "best_at_env_steps": 10, "final_100_episode_mean": 8.5, "wall_s": 60}
    for seed, evaluation in enumerate(({}, {"evaluation": {"mean": 7.25}})):
        run = tmp_path / "runs" / f"a-seed{seed}"
        run.mkdir(parents=True)
        record = {"status": "finished", "config": {"run.seed": str(seed)}, "final": {**final, **evaluation}}
        (run / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["scores.py", "gin/a.gin", "--seeds", "0", "1", "--runs", "runs"])
    scores.main()
    *_, first, second, mean, last = capsys.readouterr().out.splitlines()
    assert first == "| a | 0 | 9.5 | 10 | 8.5 | – | 1.0 |"
    assert second == "| a | 1 | 9.5 | 10 | 8.5 | 7.2 | 1.0 |"
    assert mean == "| **a** | mean | **9.5** | | 8.5 | – | 1.0 |"
    assert [final["greedy"] for final in json.loads(last)["a"].values()] == [None, 7.25]
