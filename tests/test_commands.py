"""`ngrl.launch` and `ngrl.evaluate` as a user runs them: processes, their output and exit codes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ngrl import launch

GIN = Path(__file__).parents[1] / "gin" / "ngdqn_cartpole_v1.gin"
UNFINISHED = ("Environment.env_id='CartPole-v1'", "run.num_env_steps=10")
SHORT = ("run.num_env_steps=1500", "Evaluation.episodes=3", "run.checkpoint_every=500", "Environment.num_envs=4")


def program(module, *arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.run(
        [sys.executable, "-m", f"ngrl.{module}", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def bind(*bindings):
    return [f"--gin_bindings={binding}" for binding in bindings]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished short run: its folder and the command's result."""
    folder = tmp_path_factory.mktemp("launch")
    return folder, program("launch", f"--gin_file={GIN}", *bind(*SHORT), cwd=folder)


def test_launch_prints_its_own_lines_and_nothing_of_libraries(finished):
    folder, result = finished
    assert result.returncode == 0, result.stderr
    for line in result.stderr.splitlines():
        assert line.startswith("ngdqn_cartpole_v1: "), result.stderr
    assert "best 100-episode mean" in result.stdout
    assert "greedy evaluation" in result.stdout
    run = folder / "runs" / "ngdqn_cartpole_v1"
    for shown in ("runs/ngdqn_cartpole_v1/policy", "tensorboard --logdir runs", "episodes.csv"):
        assert shown in result.stdout
    assert (run / "log.txt").stat().st_size > 0
    assert "Could not serialize policy.distribution()" not in (run / "log.txt").read_text()
    assert json.loads((run / "run.json").read_text())["final"]["evaluation"]["episodes"] == 3
    assert "run.num_env_steps = 1500" in (run / "operative_config.gin").read_text()


def dry_run(command, folder, gin_file, *bindings):
    return command("launch", f"--gin_file={gin_file}", *bind(*bindings), "--dry_run", "--noprogress", cwd=folder)


def test_dry_run_builds_everything_checks_the_environment_and_writes_nothing(command, tmp_path):
    result = dry_run(command, tmp_path, GIN, *SHORT)
    assert (result.returncode, result.stderr) == (0, "ngdqn_cartpole_v1: playing CartPole-v1\n")
    first, second, *lines = result.stdout.splitlines()
    assert (first, second) == (
        "ngdqn_cartpole_v1: everything can be built as the files say",
        "CartPole-v1: no problem found",
    )
    assert "  right    equal seeds and actions give equal episodes, bit for bit" in lines
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_an_environment_with_a_problem_ends_with_1(command, tmp_path):
    support = Path(__file__).with_name("support") / "faulty.gin"
    bindings = bind(*SHORT, "Environment.env_id='test/Forgetful-v0'")
    arguments = [f"--gin_file={GIN}", f"--gin_file={support}", "--allow_gin_import=faulty_environments"]
    result = command("launch", *arguments, *bindings, "--dry_run", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert (
        "equal seeds and actions gave another observation: an interrupted run can't go on bit for bit" in result.stdout
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "binding",
    ["DqnAgent.gamma=2", "OffPolicyLoop.batch_size=-1", "NaturalGradient.max_kl=-1"],
)
def test_dry_run_answers_a_value_out_of_its_range_as_the_run_would(command, tmp_path, binding):
    dry = dry_run(command, tmp_path, GIN, *SHORT, binding)
    run = command("launch", f"--gin_file={GIN}", *bind(*SHORT, binding), "--noprogress", cwd=tmp_path)
    assert (dry.returncode, dry.stderr, dry.stdout) == (run.returncode, run.stderr, run.stdout)
    assert dry.returncode == 2
    assert dry.stderr.count("\n") == 1
    assert " must " in dry.stderr
    assert list(tmp_path.iterdir()) == []


def test_dry_run_refuses_the_directory_of_another_experiment_and_leaves_it_as_it_is(command, finished, tmp_path):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    result = dry_run(command, folder, GIN, *SHORT, "NaturalGradient.damping=2.0")
    assert result.returncode == 2
    assert "belongs to another experiment: NaturalGradient.damping" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("episodes", "mean", "expected"),
    [
        (250, 9.5, "  final 100-episode mean   9.5"),
        (72, 9.5, "  final 72-episode mean    9.5"),
        (0, None, "  final 100-episode mean   –"),
    ],
)
def test_summary_tells_of_how_many_episodes_the_last_mean_is(episodes, mean, expected):
    result = {
        "env_steps": 1000,
        "train_steps": 1,
        "episodes": episodes,
        "skipped_updates": 0,
        "best_100_episode_mean": None,
        "best_at_env_steps": None,
        "final_100_episode_mean": mean,
        "wall_s": 1.0,
    }
    assert expected in launch.summary("x", Path("runs/x"), result).splitlines()


def test_summary_counts_one_thing_as_one():
    played = {"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0, "episodes": 1, "broken_off": 1, "max_episode_steps": 1}
    result = {
        "env_steps": 1,
        "train_steps": 1,
        "episodes": 1,
        "skipped_updates": 0,
        "best_100_episode_mean": 1.0,
        "best_at_env_steps": 1,
        "final_100_episode_mean": 1.0,
        "wall_s": 1.0,
        "evaluation": played,
        "best_evaluation": {"env_steps": 1, "mean": 1.0, "episodes": 1},
    }
    shown = launch.summary("x", Path("runs/x"), result)
    assert "x: 1 step, 1 episode, " in shown
    assert "(at 1 step)" in shown
    assert "max 1.0, 1 episode)" in shown
    assert "1 of 1 episode was broken off after 1 step\n" in shown
    assert "(at 1 step, 1 episode)" in shown


def test_operative_config_repeats_the_run(command, finished, tmp_path):
    folder, _ = finished
    first = folder / "runs" / "ngdqn_cartpole_v1"
    arguments = [f"--gin_file={first / 'operative_config.gin'}", "--root_dir=again"]
    result = command("launch", *arguments, cwd=tmp_path, export=False)
    assert result.returncode == 0, result.stderr

    def episodes(run):
        return [line.rsplit(",", 1)[0] for line in (run / "episodes.csv").read_text().splitlines()]

    assert episodes(tmp_path / "again") == episodes(first)


def test_evaluate_ends_with_a_json_line_that_is_also_beside_the_policy(command, finished):
    folder, _ = finished
    policy = folder / "runs" / "ngdqn_cartpole_v1" / "policy"
    result = command("evaluate", f"--policy_dir={policy}", "--episodes=4", "--video=movies", cwd=folder)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout.splitlines()[-1])
    assert {"mean", "std", "min", "max", "episodes", "returns"} <= content.keys()
    assert len(content["returns"]) == content["episodes"] == 4
    assert json.loads((policy.parent / "policy_evaluation.json").read_text()) == content
    assert (folder / "movies" / "CartPole-v1.gif").read_bytes()[:4] == b"GIF8"


def test_evaluate_prints_its_result_where_it_can_not_write_it_down(command, finished, tmp_path):
    folder, _ = finished
    (tmp_path / "runs").mkdir()
    shutil.copytree(folder / "runs" / "ngdqn_cartpole_v1" / "policy", tmp_path / "runs" / "policy")
    (tmp_path / "runs" / "policy_evaluation.json" / "occupied").mkdir(parents=True)  # root may write where others can't
    bound = ("--policy_dir=runs/policy", "--episodes=3", "--max_episode_steps=4")
    result = command("evaluate", *bound, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    content = json.loads(result.stdout.splitlines()[-1])
    assert content["returns"] == [4.0] * 3
    first, second = result.stderr.splitlines()
    assert first == "runs/policy: warning: 3 of 3 episodes were broken off after 4 steps"
    assert second.startswith("runs/policy: can't write runs/policy_evaluation.json (")
    (tmp_path / "movies").touch()
    result = command("evaluate", *bound, "--video=movies", cwd=tmp_path)
    assert result.returncode == 1
    assert json.loads(result.stdout.splitlines()[-1]) == content
    assert result.stderr.splitlines()[-1].startswith("ngrl.evaluate: can't write movies/CartPole-v1.gif")
    assert "Traceback" not in result.stderr


def test_evaluate_repeats_the_launchers_own_evaluation(command, finished):
    folder, _ = finished
    run = folder / "runs" / "ngdqn_cartpole_v1"
    result = command("evaluate", f"--policy_dir={run / 'policy'}", "--episodes=3", cwd=folder)
    stored = json.loads((run / "evaluation.json").read_text())
    assert json.loads(result.stdout.splitlines()[-1])["returns"] == stored["returns"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gin_file=nowhere.gin"], "no such gin file: nowhere.gin"),
        ([f"--gin_file={'x' * 300}.gin"], f"no such gin file: {'x' * 300}.gin"),
        ([f"--gin_file={GIN}", f"--root_dir={'x' * 300}"], "File name too long"),
        ([f"--gin_file={GIN}", "--root_dir=.", "--seeds=0,1"], "--root_dir must end in a name, to which --seeds adds"),
        ([f"--gin_file={GIN}", *bind("Environment.kwargs={[1]: 2}")], "unhashable type: 'list'"),
        ([f"--gin_file={GIN}", "--seed=-1"], "--seed must lie between"),
        ([f"--gin_file={GIN}", "--threads=0"], "--threads must be a positive integer, got 0"),
        ([f"--gin_file={GIN}", "--threads=100000"], "--threads must be at most 1,024, got 100,000"),
        ([f"--gin_file={GIN}", "--seed=1", *bind("run.seed=2")], "--seed sets run.seed too: give one of them"),
        ([f"--gin_file={GIN}", *bind("main.entry=@Environment")], "must be a function that takes a run's context"),
        ([f"--gin_file={GIN}", *bind("run.num_env_stps=3")], 'did you mean "num_env_steps"?'),
        ([f"--gin_file={GIN}", *bind("NaturalGradient.max_kl='0.1'")], "write 0.1"),
        ([f"--gin_file={GIN}", *bind("Environment.env_id='CartPool-v1'")], "did you mean CartPole-v1"),
        ([f"--gin_file={GIN}", *bind("Environment.env_id='Pendulum-v1'")], "one discrete action"),
        (["--gin_file=gin/base/dqn.gin", *bind(*UNFINISHED)], "dqn_agent needs a value for optimizer: bind dqn_agent"),
    ],
)
def test_wrong_input_gets_one_line_and_leaves_nothing_behind(command, arguments, expected, tmp_path):
    result = command("launch", "--noprogress", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ([], {}, "1"),
        ([], {"TF_NUM_INTRAOP_THREADS": "3"}, "3"),
        (["--threads=2"], {}, "2"),
        (["--threads=2"], {"TF_NUM_INTRAOP_THREADS": "3"}, "2"),
    ],
)
def test_launch_takes_one_thread_unless_it_is_told_otherwise(arguments, variables, expected, monkeypatch):
    others = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    monkeypatch.setattr(os, "environ", {**others, **variables})
    # Refused, so that no TensorFlow starts here.
    assert launch.main([f"--gin_file={GIN}", "--gin_bindings=run.num_env_stps=3", *arguments]) == 2
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == expected


def test_wrong_gin_file_names_file_and_line(command, tmp_path):
    (tmp_path / "mine.gin").write_text(f"include '{GIN}'\n\nNaturalGradient.learnin_rate = 1.0\n")
    result = command("launch", "--noprogress", "--gin_file=mine.gin", cwd=tmp_path)
    assert result.returncode == 2
    assert "mine.gin:3: " in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_directory_of_another_experiment_is_refused_and_noresume_moves_it_aside(command, finished):
    folder, _ = finished
    run = folder / "runs" / "ngdqn_cartpole_v1"
    before = (run / "run.json").read_bytes()
    other = bind(*SHORT, "NaturalGradient.damping=2.0")
    result = command("launch", "--noprogress", f"--gin_file={GIN}", *other, cwd=folder)
    assert result.returncode == 2
    assert "NaturalGradient.damping (1.0 there, 2.0 here)" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (run / "run.json").read_bytes() == before
    fresh = ["--root_dir=fresh", f"--gin_file={GIN}"]
    (folder / "fresh").mkdir()
    for path in ("run.json", "run.lock"):
        (folder / "fresh" / path).write_bytes((run / path).read_bytes())
    typo = bind("Environment.env_id='CartPool-v1'")
    assert command("launch", "--noresume", *fresh, *typo, cwd=folder).returncode == 2
    assert not (folder / "fresh.1").exists()
    result = command("launch", "--noresume", *fresh, *other, cwd=folder, export=False)
    assert result.returncode == 0, result.stderr
    assert (folder / "fresh.1" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--policy_dir=nowhere"], "no such policy folder: nowhere"),
        ([f"--policy_dir={'x' * 300}"], "no such policy folder: xxx"),
        (["--policy_dir=.", "--episodes=0"], "--episodes must be a positive integer, got 0"),
        (["--policy_dir=.", "--max_episode_steps=0"], "--max_episode_steps must be a positive integer, got 0"),
        (["--policy_dir=."], "holds no SavedModel"),
    ],
)
def test_evaluate_answers_wrong_input_with_one_line(command, arguments, expected, tmp_path):
    result = command("evaluate", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr


def test_policy_of_another_environment_is_refused(command, finished):
    folder, _ = finished
    policy = folder / "runs" / "ngdqn_cartpole_v1" / "policy"
    result = command("evaluate", f"--policy_dir={policy}", "--env_id=Acrobot-v1", cwd=folder)
    assert result.returncode == 2
    assert "Acrobot-v1 has" in result.stderr


def test_policy_whose_description_is_lost_says_that_it_takes_other_observations(command, finished, tmp_path):
    folder, _ = finished
    policy = tmp_path / "runs" / "policy"
    shutil.copytree(folder / "runs" / "ngdqn_cartpole_v1" / "policy", policy)
    (policy / "ngrl_policy.json").unlink()
    result = command("evaluate", "--policy_dir=runs/policy", "--env_id=Acrobot-v1", "--episodes=1", cwd=tmp_path)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "does not take observations of shape [6]; ngrl_policy.json, which says what it takes, is missing" in line


def test_policy_plays_an_environment_of_ones_own(command, finished):
    folder, _ = finished
    (folder / "mine.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Quickly-v0', CartPoleEnv, max_episode_steps=30)\n"
    )
    arguments = ["--policy_dir=runs/ngdqn_cartpole_v1/policy", "--env_id=Quickly-v0", "--episodes=2"]
    result = command("evaluate", *arguments, cwd=folder)
    assert result.returncode == 2
    assert "--allow_gin_import=MODULE" in result.stderr
    result = command("evaluate", *arguments, "--allow_gin_import=mine", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["episodes"] == 2


def test_policy_from_outside_runs_is_a_program_that_must_be_trusted(command, finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "runs" / "ngdqn_cartpole_v1" / "policy", tmp_path / "stranger")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "policy").symlink_to(tmp_path / "stranger")
    for policy in ("stranger", "runs/policy", "runs/../stranger"):
        result = command("evaluate", f"--policy_dir={policy}", "--episodes=1", cwd=tmp_path)
        assert result.returncode == 2
        assert "a SavedModel is a program" in result.stderr
        assert "--trust" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = command("evaluate", "--policy_dir=stranger", "--episodes=1", "--trust", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", ["ngrl.terminal", "ngrl.configuration.stand_ins"])
@pytest.mark.parametrize("is_ignored", [False, True])
def test_ctrl_c_before_a_command_has_begun_ends_it_without_a_traceback(module, is_ignored, tmp_path):
    # Python runs this file before anything else; it presses Ctrl-C where the module is first looked for.
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import os, signal, sys

class Impatient:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(Impatient)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient)
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "ngrl.launch", f"--gin_file={GIN}", "--gin_bindings=run.no_such=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(GIN.parents[1])])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if is_ignored else signal.default_int_handler),
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if is_ignored else 130), done.stderr
    assert bool(done.stderr) == is_ignored


def test_stopped_run_resumes_with_the_same_command(command, tmp_path):
    arguments = [f"--gin_file={GIN}", *bind(*SHORT), "--root_dir=run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ngrl.launch", *arguments, *bind("run.num_env_steps=1000000")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("step_*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    assert process.returncode == 143
    assert "the same command resumes run" in stderr.splitlines()[-1]
    steps = max(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step_*"))
    result = command("launch", *arguments, *bind(f"run.num_env_steps={steps + 400}"), cwd=tmp_path, export=False)
    assert result.returncode == 0, result.stderr
    assert re.search(rf"resuming at {steps:,} environment steps", result.stderr)


@pytest.mark.parametrize(("module", "shown"), [("launch", "examples"), ("evaluate", "--policy_dir")])
def test_help_needs_no_tensorflow(module, shown, tmp_path):
    code = (
        f"import sys; from ngrl import {module}\n"
        f"try: {module}.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "assert 'tensorflow' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert shown in result.stdout
